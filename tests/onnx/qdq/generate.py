"""Writes the folders beside this file: QDQ models of the onnx package and what onnxruntime (numpy where it has no
kernel: NVFP4, MXFP8, the int4 plugin) computes for them. Run: generate.py <out>. Needs onnx, onnxruntime, ml_dtypes."""
import numpy as np, onnx, os, sys, ml_dtypes
from onnx import helper as h, numpy_helper as nh, TensorProto as T
out=sys.argv[1]; rng=np.random.default_rng(7)
os.makedirs(out,exist_ok=True)
def save(name,nodes,inits,x,yshape,y=None,opset=21,extra=(),xt=T.FLOAT):
    g=h.make_graph(nodes,"g",[h.make_tensor_value_info("x",xt,list(x.shape))],[h.make_tensor_value_info("y",T.FLOAT,yshape)],inits)
    m=h.make_model(g,opset_imports=[h.make_opsetid("",opset)]+[h.make_opsetid(d,1) for d in extra],ir_version=10)
    d=f"{out}/{name}"; os.makedirs(d+"/test_data_set_0",exist_ok=True)
    onnx.save(m,d+"/model.onnx")
    if y is None:
        import onnxruntime as ort
        so=ort.SessionOptions(); so.graph_optimization_level=ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        y=ort.InferenceSession(m.SerializeToString(),so).run(None,{"x":x})[0]
    for n,v in(("input_0",x),("output_0",y)):
        open(f"{d}/test_data_set_0/{n}.pb","wb").write(nh.from_array(np.asarray(v,np.float32)if v.dtype!=np.float16 else v,{"input_0":"x","output_0":"y"}[n]).SerializeToString())
N,K=24,64
x=rng.standard_normal((5,K)).astype(np.float32)
w=rng.standard_normal((N,K)).astype(np.float32)
def mm(dq_attrs, inits, tr=True):
    n=[h.make_node("DequantizeLinear",[i.name for i in inits],["wd"],**dq_attrs)]
    if tr: n+=[h.make_node("Transpose",["wd"],["wt"],perm=[1,0]),h.make_node("MatMul",["x","wt"],["y"])]
    else: n+=[h.make_node("MatMul",["x","wd"],["y"])]
    return n
# int8 per channel, [N,K] and [K,N]
s=(np.abs(w).max(1)/127).astype(np.float32); q=np.clip(np.rint(w/s[:,None]),-128,127).astype(np.int8)
I=[nh.from_array(q,"w"),nh.from_array(s,"s")]
save("int8_channel",mm(dict(axis=0),I),I,x,[5,N])
I=[nh.from_array(q.T.copy(),"w"),nh.from_array(s,"s")]
save("int8_channel_kn",mm(dict(axis=1),I,False),I,x,[5,N])
# gemm transB with bias, uint8 with zero points
z=rng.integers(100,150,N).astype(np.uint8); qu=rng.integers(0,256,(N,K)).astype(np.uint8)
I=[nh.from_array(qu,"w"),nh.from_array(s,"s"),nh.from_array(z,"z")]; b=nh.from_array(rng.standard_normal(N).astype(np.float32),"b")
save("uint8_zero_gemm",[h.make_node("DequantizeLinear",["w","s","z"],["wd"],axis=0),h.make_node("Gemm",["x","wd","b"],["y"],transB=1)],I+[b],x,[5,N])
# int8 with zero points
zi=rng.integers(-20,20,N).astype(np.int8)
I=[nh.from_array(q,"w"),nh.from_array(s,"s"),nh.from_array(zi,"z")]
save("int8_zero",mm(dict(axis=0),I),I,x,[5,N])
# int4 / uint4 block 32
def t4(name,v,t): return h.make_tensor(name,t,list(v.shape),v.flatten().tolist())
q4=rng.integers(-8,8,(N,K)); s4=rng.uniform(.01,.1,(N,K//32)).astype(np.float32)
I=[t4("w",q4,T.INT4),nh.from_array(s4,"s")]; save("int4_block",mm(dict(axis=1,block_size=32),I),I,x,[5,N])
I=[t4("w",q4,T.INT4),nh.from_array(s4.astype(np.float16),"s")]
n=[h.make_node("DequantizeLinear",["w","s"],["wh"],axis=1,block_size=32),h.make_node("Cast",["wh"],["wd"],to=1),h.make_node("Transpose",["wd"],["wt"],perm=[1,0]),h.make_node("MatMul",["x","wt"],["y"])]
save("int4_block_f16",n,I,x,[5,N])
qu4=rng.integers(0,16,(N,K)); z4=rng.integers(0,16,(N,K//32))
I=[t4("w",qu4,T.UINT4),nh.from_array(s4,"s"),t4("z",z4,T.UINT4)]; save("uint4_zero",mm(dict(axis=1,block_size=32),I),I,x,[5,N])
I=[t4("w",q4.T,T.INT4),nh.from_array(s4.T.copy(),"s")]; save("int4_block_kn",mm(dict(axis=0,block_size=32),I,False),I,x,[5,N])
I=[t4("w",q4,T.INT4),nh.from_array(s4,"s"),t4("z",rng.integers(-8,8,(N,K//32)),T.INT4)]; save("int4_zero",mm(dict(axis=1,block_size=32),I),I,x,[5,N])
# fp8
w8=(w/s[:,None]*3).astype(ml_dtypes.float8_e4m3fn)
I=[nh.from_array(w8,"w"),nh.from_array(np.float32(.02),"s")]; save("fp8_tensor",mm({},I),I,x,[5,N])
I=[nh.from_array(w8,"w"),nh.from_array(s,"s")]; save("fp8_channel",mm(dict(axis=0),I),I,x,[5,N])
# static int8 activation
I=[nh.from_array(q,"w"),nh.from_array(s,"s"),nh.from_array(np.float32(.03),"xs"),nh.from_array(np.int8(0),"xz"),nh.from_array(np.int8(5),"xz5")]
def act(zp,qargs={}): return [h.make_node("QuantizeLinear",["x","xs"]+zp,["xq"],**qargs),h.make_node("DequantizeLinear",["xq","xs"]+zp,["xd"])]+[h.make_node("DequantizeLinear",["w","s"],["wd"],axis=0),h.make_node("Transpose",["wd"],["wt"],perm=[1,0]),h.make_node("MatMul",["xd","wt"],["y"])]
save("act_int8",act(["xz"]),I,x,[5,N]); save("act_int8_asym",act(["xz5"]),I,x,[5,N])
save("act_int8_odt",act([],dict(output_dtype=3)),I,x,[5,N])
save("act_fp8",act([],dict(output_dtype=17)),I,x,[5,N])
# MatMulNBits
qb=rng.integers(0,256,(N,K//32,16)).astype(np.uint8); zb=rng.integers(0,256,(N,1)).astype(np.uint8)
I=[nh.from_array(qb,"w"),nh.from_array(s4.reshape(-1),"s"),nh.from_array(zb.reshape(-1),"z")]
for nm,ins in(("nbits",["x","w","s"]),("nbits_zero",["x","w","s","z"])):
    save(nm,[h.make_node("MatMulNBits",ins,["y"],domain="com.microsoft",N=N,K=K,bits=4,block_size=32)],I,x,[5,N],extra=("com.microsoft",))
# NVFP4 by numpy
e2=np.array([0,.5,1,1.5,2,3,4,6],np.float32); e2=np.concatenate([e2,-e2])
def fp4(name,codes): return h.make_tensor(name,T.FLOAT4E2M1,list(codes.shape),(codes.reshape(-1,2)[:,0]|codes.reshape(-1,2)[:,1]<<4).astype(np.uint8).tobytes(),raw=True)
c4=rng.integers(0,16,(N,K)); sb=rng.uniform(1,200,(N,K//16)).astype(ml_dtypes.float8_e4m3fn); gl=np.float32(.0007)
wd=e2[c4]*np.repeat(sb.astype(np.float32)*gl,16,1)
I=[fp4("w",c4),nh.from_array(sb,"sb"),nh.from_array(gl,"gl")]
nv=[h.make_node("DequantizeLinear",["sb","gl"],["s"]),h.make_node("DequantizeLinear",["w","s"],["wd"],axis=-1,block_size=16),h.make_node("Transpose",["wd"],["wt"],perm=[1,0])]
save("nvfp4",nv+[h.make_node("MatMul",["x","wt"],["y"])],I,x,[5,N],y=x.astype(np.float64)@wd.T.astype(np.float64),opset=23)
# NVFP4 activations
xs=np.float32(.004)
def rne4(v):
    a=np.abs(v); g=np.array([0,.5,1,1.5,2,3,4,6]); d=np.abs(a[...,None]-g); i=d.argmin(-1); 
    lo=np.clip(i-0,0,7)
    # ties to even code
    best=d.min(-1,keepdims=True); cand=np.isclose(d,best,rtol=0,atol=0); ev=np.array([0,2,4,6]); out=np.where(cand[...,ev].any(-1), ev[cand[...,ev].argmax(-1)], i)
    return np.sign(v)*g[out]
xb=x.reshape(5,K//16,16); am=np.abs(xb).max(-1); s8=(am/np.float32(6)/xs).astype(np.float32).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)*xs
xd=(rne4(xb/s8[...,None])*s8[...,None]).reshape(5,K)
I2=I+[nh.from_array(xs,"xs")]
an=[h.make_node("TRT_FP4DynamicQuantize",["x","xs"],["xq","xsc"],domain="trt",axis=-1,block_size=16,scale_type=17),h.make_node("DequantizeLinear",["xsc","xs"],["xss"],domain="trt"),h.make_node("DequantizeLinear",["xq","xss"],["xd"],domain="trt",axis=-1,block_size=16)]
save("nvfp4_act",an+nv+[h.make_node("MatMul",["xd","wt"],["y"])],I2,x,[5,N],y=xd.astype(np.float64)@wd.T.astype(np.float64),opset=23,extra=("trt",))
# MXFP8 both
e8=rng.integers(118,126,(N,K//32)).astype(np.uint8); wm=w8.astype(np.float32)*np.repeat(2.0**(e8.astype(np.float64)-127),32,1)
xb=x.reshape(5,K//32,32); am=np.abs(xb).max(-1); sc=2.0**(np.floor(np.log2(am))-8)
v=(xb/sc[...,None]).astype(np.float32); v=np.clip(v,-448,448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
xm=(v*sc[...,None]).reshape(5,K)
I=[nh.from_array(w8,"w"),nh.from_array(e8,"e")]
n=[h.make_node("TRT_MXFP8DynamicQuantize",["x"],["xq","xsc"],domain="trt",axis=-1,block_size=32,output_dtype=17),h.make_node("TRT_MXFP8DequantizeLinear",["xq","xsc"],["xd"],domain="trt",axis=-1,block_size=32,output_dtype=1),
 h.make_node("TRT_MXFP8DequantizeLinear",["w","e"],["wd"],domain="trt",axis=-1,block_size=32,output_dtype=1),h.make_node("Transpose",["wd"],["wt"],perm=[1,0]),h.make_node("MatMul",["xd","wt"],["y"])]
save("mxfp8",n,I,x,[5,N],y=xm.astype(np.float64)@wm.T,opset=23,extra=("trt",))
# int4 plugin by the document's own steps
N2,K2=128,256
q=rng.integers(0,16,(N2,K2)); sc=rng.uniform(.01,.05,(K2//128,N2)).astype(np.float16)
p1=np.array([0,1,8,9,16,17,24,25,2,3,10,11,18,19,26,27,4,5,12,13,20,21,28,29,6,7,14,15,22,23,30,31]); p2=np.array([0,2,4,6,1,3,5,7])
r=q.reshape(N2,K2//32,32)[:,:,p1].reshape(N2,K2//8,8)[:,:,p2].reshape(N2,K2)
r=r.reshape(N2//4,4,K2//64,64).transpose(0,2,1,3).reshape(N2//4,K2//64,64,4).astype(np.uint16)
r=(r[...,0]|r[...,1]<<4|r[...,2]<<8|r[...,3]<<12).astype("<u2").reshape(N2//4,K2).view(np.int8).reshape(N2//2,K2)
x2=rng.standard_normal((1,3,K2)).astype(np.float32)
W=(q.T.astype(np.float64)-8)*np.repeat(sc.astype(np.float64),128,0)
save("int4_plugin",[h.make_node("Int4GroupwiseGemmPlugin",["x","w","s"],["y"],domain="trt_edgellm",gemm_n=N2,gemm_k=K2,group_size=128)],[nh.from_array(r,"w"),nh.from_array(sc,"s")],x2,[1,3,N2],y=x2.astype(np.float64)@W,extra=("trt_edgellm",))
# embedding-like gather over a DQ
I=[nh.from_array(q[:24,:64].astype(np.int8),"w"),nh.from_array(s,"s")]
g=h.make_graph([h.make_node("DequantizeLinear",["w","s"],["wd"],axis=0),h.make_node("Gather",["wd","x"],["y"])],"g",[h.make_tensor_value_info("x",T.INT64,[3])],[h.make_tensor_value_info("y",T.FLOAT,[3,64])],I)
d=out+"/gather"; os.makedirs(d+"/test_data_set_0",exist_ok=True); onnx.save(h.make_model(g,opset_imports=[h.make_opsetid("",21)],ir_version=10),d+"/model.onnx")
xi=np.array([3,0,22]); open(d+"/test_data_set_0/input_0.pb","wb").write(nh.from_array(xi,"x").SerializeToString()); open(d+"/test_data_set_0/output_0.pb","wb").write(nh.from_array((q[:24,:64]*s[:,None]).astype(np.float32)[xi],"y").SerializeToString())
