#!/usr/bin/env python3
"""Writes tiny random quantised checkpoints, one a format, packed with numpy from the formats'
documents, and what Hugging Face transformers computes in float32 with weights dequantised in
float64: input_ids, logits. Run once by hand; the results are committed.
Usage: generate.py [--out DIR] [name...]"""
import json
import os
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
T = 16
BASE = dict(vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, head_dim=32, max_position_embeddings=128,
            rms_norm_eps=1e-6, bos_token_id=1, eos_token_id=2, pad_token_id=0,
            tie_word_embeddings=False)
TWO = dict(BASE, num_hidden_layers=2)
WIDE = dict(BASE, hidden_size=128, intermediate_size=192)
MOE = dict(BASE, intermediate_size=64, moe_intermediate_size=64, num_experts=4,
           num_experts_per_tok=2, decoder_sparse_step=1, norm_topk_prob=True)
PHI = {k: v for k, v in BASE.items() if k != "head_dim"}
E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def e4m3(codes):
    return torch.from_numpy(codes).view(torch.float8_e4m3fn).double().numpy()


def to_e4m3(v):
    return torch.from_numpy(np.clip(v, -448, 448)).float().to(torch.float8_e4m3fn) \
        .view(torch.uint8).numpy()


def to_e2m1(v):
    return np.abs(v[..., None] - E2M1).argmin(-1).astype(np.uint8)


def e8m0(codes):
    return np.exp2(codes.astype(np.float64) - 127)


def t(v):
    return torch.from_numpy(np.ascontiguousarray(v))


def wide(s, g):
    return np.repeat(s.astype(np.float64), g, 1)


def words(codes, bits):
    """[..., n] codes -> int32 [..., n * bits / 32], the first in the low bits."""
    per = 32 // bits
    v = codes.astype(np.uint32).reshape(*codes.shape[:-1], -1, per)
    out = np.zeros(v.shape[:-1], np.uint32)
    for i in range(per):
        out |= v[..., i] << np.uint32(bits * i)
    return out.view(np.int32)


# ---- formats: each returns the tensors of a module and its weight in f64 ----

def uniform(rng, n, k, g, bits, sym, z_low=0):
    """Codes 0..2^bits-1, zero points, f16 scales over blocks of g columns."""
    top = 2 ** bits
    q = rng.integers(0, top, (n, k))
    z = np.full((n, k // g), top // 2) if sym else rng.integers(z_low, top, (n, k // g))
    return q, z, np.float16(rng.uniform(0.05, 0.15, (n, k // g)) * 8 / top)


def awq(rng, w, g=32):
    n, k = w.shape
    q, z, s = uniform(rng, n, k, g, 4, False)

    def pack(v):  # [rows, n]
        return words(v.reshape(v.shape[0], -1, 8)[..., AWQ_ORDER].reshape(v.shape), 4)
    return dict(qweight=t(pack(q.T)), qzeros=t(pack(z.T)), scales=t(s.T)), \
        (q - wide(z, g)) * wide(s, g)


def gptq(rng, w, g=32, bits=4, sym=False, v1=True, act=False):
    n, k = w.shape
    g = k if g < 0 else g
    q, z, s = uniform(rng, n, k, g, bits, sym)
    if not sym:
        z[0, 0] = 0
    zeros = words(z.T, bits).view(np.uint32)
    if v1:
        # v1 stores z - 1; gptqmodel takes it off whole words, so that a z of 0 borrows from the next
        zeros = zeros - np.uint32(sum(1 << i for i in range(0, 32, bits)))
    g_idx = np.arange(k) // g
    if act:
        g_idx = rng.permutation(g_idx)
    return dict(qweight=t(words(q, bits).T), qzeros=t(zeros.view(np.int32)), scales=t(s.T),
                g_idx=t(g_idx.astype(np.int32))), \
        (q - z[:, g_idx]) * s.astype(np.float64)[:, g_idx]


def qkv_act(rng, name, w, cache={}):
    """desc_act: projections of one input share its order, as their Hessian is the same."""
    if w.shape == (64, 64) and "lm_head" in name or "embed" in name:
        return None
    parent = name.rsplit(".", 2)[0] + ("o" if "o_proj" in name else "d" if "down" in name else "")
    parts, _ = gptq(rng, w, act=True)
    order = cache.setdefault(parent, parts["g_idx"])
    if len(order) != w.shape[1]:
        order = parts["g_idx"]
    parts["g_idx"] = order.clone()
    n, k = w.shape
    q = np.stack([(parts["qweight"].numpy().view(np.uint32) >> (4 * i)) & 15 for i in range(8)], 1)
    q = q.reshape(k, n).T.astype(np.int64)
    z = parts["qzeros"].numpy().view(np.uint32) + np.uint32(0x11111111)
    z = np.stack([(z >> (4 * i)) & 15 for i in range(8)], 2)
    z = z.reshape(-1, n).T.astype(np.int64)
    g_idx = order.numpy()
    return parts, (q - z[:, g_idx]) * parts["scales"].numpy().T.astype(np.float64)[:, g_idx]


def ct_int(rng, w, g=32, bits=4, sym=True, act=False):
    n, k = w.shape
    g = k if g < 0 else g
    q, z, s = uniform(rng, n, k, g, bits, sym)
    per = 32 // bits
    out = dict(weight_packed=t(words(np.pad(q, ((0, 0), (0, -k % per))), bits)), weight_scale=t(s),
               weight_shape=torch.tensor([n, k]))
    if not sym:
        out["weight_zero_point"] = t(words(np.pad(z, ((0, -n % per), (0, 0))).T, bits).T)
    g_idx = np.arange(k) // g
    if act:
        g_idx = rng.permutation(g_idx)
        out["weight_g_idx"] = t(g_idx.astype(np.int32))
    return out, (q - z[:, g_idx]) * s.astype(np.float64)[:, g_idx]


def ct_int8(rng, w, sym=True, bits=8):
    n, k = w.shape
    half = 2 ** (bits - 1)
    q = rng.integers(-half, half, (n, k)).astype(np.int8)
    s = (rng.uniform(0.5, 1.5, (n, 1)) * 0.8 / half).astype(np.float32)
    z = np.zeros((n, 1), np.int8) if sym else rng.integers(-half, half, (n, 1)).astype(np.int8)
    out = dict(weight=t(q), weight_scale=t(s))
    if not sym:
        out["weight_zero_point"] = t(z)
    return out, (q.astype(np.float64) - z) * s.astype(np.float64)


def ct_tensor(rng, w):
    """One scale and one zero point (bytes, never packed) for the whole of int8 words."""
    q = rng.integers(0, 256, w.shape).astype(np.uint8)
    s, z = np.float32(rng.uniform(0.004, 0.01)), int(rng.integers(-128, 128))
    out = dict(weight_packed=t(words(np.pad(q, ((0, 0), (0, -w.shape[1] % 4))), 8)),
               weight_scale=torch.tensor([s]), weight_shape=torch.tensor(list(w.shape)),
               weight_zero_point=torch.tensor([z], dtype=torch.int8))
    return out, (q.astype(np.float64) - 128 - z) * np.float64(s)


def fp8(rng, w, grain="tensor", scale="weight_scale", block=128, apart=False, half=False):
    n, k = w.shape
    if grain == "tensor":
        s = np.array(np.abs(w).max() / 448, np.float32)
    elif grain == "channel":
        s = (np.abs(w).max(1, keepdims=True) / 448).astype(np.float32)
    else:
        s = rng.uniform(0.5, 1.5, (-(-n // block), -(-k // block))) * np.abs(w).max() / 448
        s = s.astype(np.float32)
    s = torch.from_numpy(s).bfloat16() if half else torch.from_numpy(s)
    full = s.double().numpy()
    if grain == "block":
        full = np.repeat(np.repeat(full, block, 0)[:n], block, 1)[:, :k]
    codes = to_e4m3(w / full)
    if apart:
        s = s[:, None, :, None]
    return {"weight": t(codes).view(torch.float8_e4m3fn), scale: s}, e4m3(codes) * full


def fp4(w, g, scales):
    full = np.repeat(scales, g, 1)
    codes = to_e2m1(w / full)
    return t(codes[:, 0::2] | codes[:, 1::2] << 4), E2M1[codes] * full


def nvfp4(rng, w, modelopt=False):
    amax = np.abs(w).reshape(w.shape[0], -1, 16).max(-1)
    g = np.float32(448 * 6 / np.abs(w).max())
    g = np.float32(1) / g if modelopt else g
    factor = np.float64(g) if modelopt else 1 / np.float64(g)
    s = np.maximum(to_e4m3(amax / 6 / factor), 1)
    packed, weight = fp4(w, 16, e4m3(s) * factor)
    out = {"weight_scale": t(s).view(torch.float8_e4m3fn)}
    if modelopt:
        out.update(weight=packed, weight_scale_2=torch.tensor(g), input_scale=torch.tensor(0.002))
    else:
        out.update(weight_packed=packed, weight_global_scale=torch.tensor([g]),
                   input_global_scale=torch.tensor([500.0]))
    return out, weight


def mx_scale(w, emax):
    amax = np.abs(w).reshape(w.shape[0], -1, 32).max(-1)
    return (np.floor(np.log2(amax)) - emax + 127).astype(np.uint8)


def mxfp4(rng, w):
    s = mx_scale(w, 2)
    packed, weight = fp4(w, 32, e8m0(s))
    return dict(weight_packed=packed, weight_scale=t(s)), weight


def mxfp8(rng, w):
    s = mx_scale(w, 8)
    full = np.repeat(e8m0(s), 32, 1)
    codes = to_e4m3(w / full)
    return dict(weight=t(codes).view(torch.float8_e4m3fn), weight_scale=t(s)), e4m3(codes) * full


def w4a16_awq(rng, w):
    n, k = w.shape
    q, _, s = uniform(rng, n, k, 32, 4, True)
    q = q - 8
    nib = (q & 15).astype(np.uint8)
    m = rng.uniform(0.5, 2, k).astype(np.float16)
    out = dict(weight=t(nib[0::2] | nib[1::2] << 4), weight_scale=t(s), pre_quant_scale=t(m))
    return out, q * wide(s, 32) * m.astype(np.float64)


def int8_sq(rng, w):
    out, weight = ct_int8(rng, w)
    m = rng.uniform(0.5, 2, w.shape[1]).astype(np.float16)
    out.update(weight_scale=out["weight_scale"][:, 0].contiguous(), pre_quant_scale=t(m),
               input_scale=torch.tensor(0.05))
    return out, weight * m.astype(np.float64)


def static_fp8(rng, w):
    out, weight = fp8(rng, w)
    out["input_scale"] = torch.tensor(0.01)
    return out, weight


# ---- configs ----

def args(bits, kind, strategy, group=None, sym=True, dynamic=False, **more):
    return dict(dict(num_bits=bits, type=kind, strategy=strategy, group_size=group, symmetric=sym,
                     dynamic=dynamic, actorder=None, block_structure=None, observer="minmax",
                     observer_kwargs={}), **more)


TOKEN8 = args(8, "int", "token", dynamic=True)
TOKENF8 = args(8, "float", "token", dynamic=True)


def ct(fmt, weights, x=None, ignore=("lm_head",)):
    group = dict(targets=["Linear"], weights=weights, input_activations=x, output_activations=None)
    return dict(quant_method="compressed-tensors", format=fmt, config_groups=dict(group_0=group),
                ignore=list(ignore), kv_cache_scheme=None, quantization_status="compressed",
                global_compression_ratio=None)


def gptq_config(**k):
    # "method" is gptqmodel's
    return dict(dict(quant_method="gptq", method="gptq", pack_dtype="int32", bits=4, group_size=32, desc_act=False, sym=False,
                     checkpoint_format="gptq", damp_percent=0.01, lm_head=False,
                     meta=dict(quantizer="x")), **k)


def modelopt(algo, **k):
    return dict(producer=dict(name="modelopt", version="0.40"),
                quantization=dict(dict(quant_algo=algo, kv_cache_quant_algo=None,
                                       exclude_modules=["lm_head"]), **k))


def group(targets, weights, fmt, x=None):
    return dict(targets=targets, weights=weights, input_activations=x, output_activations=None,
                format=fmt)


MIXED = dict(ct("mixed-precision", None, ignore=[
    "lm_head", "model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"]), config_groups=dict(
        group_0=group(["re:.*self_attn.*"], args(4, "int", "group", 32), "pack-quantized"),
        group_1=group(["Linear"], args(8, "int", "channel"), "int-quantized", TOKEN8),
        group_2=group(["re:.*down_proj$"], args(8, "float", "channel"), "float-quantized",
                      TOKENF8)))
ENDS = dict(ct("mixed-precision", None, ignore=[]), config_groups=dict(
    group_0=group(["Embedding"], args(4, "int", "group", 32, sym=False), "pack-quantized"),
    group_1=group(["lm_head"], args(8, "int", "channel"), "int-quantized", TOKEN8)))
AWQ = dict(quant_method="awq", method="awq", bits=4, group_size=32, zero_point=True, version="gemm",
           checkpoint_format="gemm",
           modules_to_not_convert=["gate", "lm_head"])
FP8 = dict(quant_method="fp8", activation_scheme="dynamic", modules_to_not_convert=["lm_head"])


# ---- which module is stored how ----

def linear(fn, **k):
    return lambda rng, name, w: None if "lm_head" in name or "embed" in name or ".gate." in name \
        else fn(rng, w, **k)


def mixed(rng, name, w):
    """int4 attention, int8 gate and up, fp8 down; gate and up of a layer left plain."""
    if "embed" in name or "lm_head" in name:
        return None
    if "self_attn" in name:
        return ct_int(rng, w)
    if "down_proj" in name:
        return fp8(rng, w, "channel")
    return None if "layers.1.mlp" in name else ct_int8(rng, w)


def ends(rng, name, w):
    if "embed" in name:
        return ct_int(rng, w, sym=False)
    return ct_int8(rng, w) if "lm_head" in name else None


def gptq_some(rng, name, w):
    if "lm_head" in name or "embed" in name or "layers.0.mlp" in name:
        return None
    return gptq(rng, w, bits=8 if "o_proj" in name else 4)


def modelopt_some(rng, name, w):
    return w4a16_awq(rng, w) if "q_proj" in name else static_fp8(rng, w) if "down_proj" in name \
        else None


INT4, F4 = args(4, "int", "group", 32), args(4, "float", "tensor_group", 16)
MX = dict(scale_dtype="torch.uint8")
PACK, INT8Q, FP8Q = "pack-quantized", "int-quantized", "float-quantized"
# name: (family, shapes, module -> tensors and weight or None, config). A config of ModelOpt's
# shape goes to a file of its own.
CASES = {
    "awq": ("Qwen3", BASE, linear(awq), AWQ),
    "awq-moe": ("Qwen3Moe", MOE, linear(awq), AWQ),
    "gptq-v1": ("Llama", BASE, linear(gptq), gptq_config()),
    "gptq-v1-sym": ("Qwen3", BASE, linear(gptq, sym=True), gptq_config(sym=True)),
    "gptq-v2": ("Qwen3", BASE, linear(gptq, g=64, v1=False),
                gptq_config(checkpoint_format="gptq_v2", group_size=64)),
    "gptq-act": ("Qwen3", BASE, qkv_act, gptq_config(desc_act=True)),
    "gptq-8bit": ("Qwen3", BASE, linear(gptq, bits=8), gptq_config(bits=8)),
    "gptq-row": ("Qwen3", BASE, linear(gptq, g=-1), gptq_config(group_size=-1)),
    "gptq-dynamic": ("Qwen3", TWO, gptq_some,
                     gptq_config(dynamic={"-:.*layers\\.0\\.mlp.*": {},
                                          "+:.*\\.o_proj": {"bits": 8}})),
    "ct-int4": ("Qwen3", TWO, linear(ct_int), ct(PACK, INT4)),
    "ct-int4-asym": ("Qwen3", BASE, linear(ct_int, sym=False), ct(PACK, dict(INT4,
                                                                             symmetric=False))),
    "ct-int4-act": ("Qwen3", BASE, linear(ct_int, act=True),
                    ct(PACK, dict(INT4, actorder="group"))),
    "ct-int4-row": ("Qwen3", dict(BASE, intermediate_size=100), linear(ct_int, g=-1, sym=False),
                    ct(PACK, args(4, "int", "channel", sym=False))),
    "ct-int4-phi3": ("Phi3", PHI, linear(ct_int), ct(PACK, INT4)),
    "ct-int4-moe": ("Qwen3Moe", MOE, linear(ct_int),
                    ct(PACK, INT4, ignore=["lm_head", "re:.*mlp.gate$"])),
    "ct-int4-bytes": ("Qwen3", BASE, linear(ct_int8, bits=4, sym=False),
                      ct("naive-quantized", args(4, "int", "channel", sym=False))),
    "ct-int8-packed": ("Qwen3", BASE, linear(ct_int, bits=8),
                       ct(PACK, args(8, "int", "group", 32))),
    "ct-int8": ("Qwen3", TWO, linear(ct_int8), ct(INT8Q, args(8, "int", "channel"), TOKEN8)),
    "ct-int8-asym": ("Qwen3", BASE, linear(ct_int8, sym=False),
                     ct(INT8Q, args(8, "int", "channel", sym=False), TOKEN8)),
    "ct-int8-tensor": ("Qwen3", BASE, linear(ct_tensor),
                       dict(ct(PACK, args(8, "int", "tensor", sym=False)), provider="auto-round")),
    "ct-fp8-tensor": ("Qwen3", BASE, linear(static_fp8),
                      ct(FP8Q, args(8, "float", "tensor"), args(8, "float", "tensor"))),
    "ct-fp8-channel": ("Qwen3", BASE, linear(fp8, grain="channel"),
                       ct(FP8Q, args(8, "float", "channel"), TOKENF8)),
    "ct-fp8-block": ("Qwen3", WIDE, linear(fp8, grain="block"),
                     ct(FP8Q, args(8, "float", "block", block_structure=[128, 128]),
                        args(8, "float", "group", 128, dynamic=True))),
    "ct-nvfp4": ("Qwen3", BASE, linear(nvfp4),
                 ct("nvfp4-pack-quantized", F4, dict(F4, dynamic="local"))),
    "ct-mxfp4": ("Qwen3", BASE, linear(mxfp4),
                 ct("mxfp4-pack-quantized", args(4, "float", "group", 32, **MX))),
    "ct-mxfp4-moe": ("Qwen3Moe", MOE, linear(mxfp4),
                     ct("mxfp4-pack-quantized", args(4, "float", "group", 32))),
    "ct-mxfp8": ("Qwen3", BASE, linear(mxfp8),
                 ct("mxfp8-quantized", args(8, "float", "group", 32, **MX),
                    args(8, "float", "group", 32, dynamic=True, **MX))),
    "ct-mixed": ("Qwen3", TWO, mixed, MIXED),
    "ct-ends": ("Qwen3", BASE, ends, ENDS),
    "fp8-block": ("Qwen3", WIDE, linear(fp8, grain="block", scale="weight_scale_inv"),
                  dict(FP8, weight_block_size=[128, 128])),
    "fp8-block-odd": ("Qwen3", WIDE,
                      linear(fp8, grain="block", scale="weight_scale_inv", block=80, half=True),
                      dict(FP8, weight_block_size=[80, 80], fmt="e4m3")),
    "fp8-block-moe": ("Qwen3Moe", MOE,
                      linear(fp8, grain="block", scale="weight_scale_inv", block=48),
                      dict(FP8, weight_block_size=[48, 48])),
    "fp8-tensor": ("Qwen3", BASE, linear(static_fp8), dict(FP8, activation_scheme="static")),
    "fbgemm-fp8": ("Llama", BASE, linear(fp8, grain="channel"),
                   dict(quant_method="fbgemm_fp8", activation_scale_ub=1200.0,
                        modules_to_not_convert=["lm_head"])),
    "mo-fp8": ("Qwen3", BASE, linear(static_fp8), modelopt("FP8")),
    "mo-fp8-pb": ("Qwen3", WIDE, linear(fp8, grain="block", apart=True), modelopt("FP8_PB_WO")),
    "mo-nvfp4": ("Qwen3", BASE, linear(nvfp4, modelopt=True), modelopt("NVFP4", group_size=16)),
    "mo-w4a16-awq": ("Qwen3", BASE, linear(w4a16_awq),
                     modelopt("W4A16_AWQ", group_size=32, has_zero_point=False,
                              pre_quant_scale=True)),
    "mo-int8-sq": ("Qwen3", BASE, linear(int8_sq), modelopt("W8A8_SQ_PER_CHANNEL")),
    "mo-mxfp8": ("Qwen3", BASE, linear(mxfp8), modelopt("MXFP8", group_size=32)),
    "mo-mixed": ("Qwen3", BASE, modelopt_some,
                 dict(quant_method="modelopt", quant_algo="MIXED_PRECISION", quantized_layers={
                     "model.layers.0.self_attn.q_proj": dict(quant_algo="W4A16_AWQ",
                                                             group_size=32),
                     "model.layers.0.mlp.down_proj": dict(quant_algo="FP8")})),
    "mxfp4-stack": ("Qwen3Moe", MOE, None, dict(quant_method="mxfp4",
                                                modules_to_not_convert=["lm_head"])),
    "fp8-stack": ("Qwen3Moe", MOE, None, dict(FP8, weight_block_size=[48, 48])),
}


def stack(rng, name, w):
    """[E, n, k] -> tensors by tail, and weights."""
    done = [mxfp4(rng, e) if name == "mxfp4-stack" else
            fp8(rng, e, "block", "weight_scale_inv", 48) for e in w]

    def part(key):
        return torch.stack([d[0][key] for d in done])
    weight = np.stack([d[1] for d in done])
    if name == "mxfp4-stack":
        p = part("weight_packed")
        return {"_blocks": p.reshape(*p.shape[:2], -1, 16), "_scales": part("weight_scale")}, weight
    return {"": part("weight"), "_scale_inv": part("weight_scale_inv")}, weight


def expert_tensors(state):
    """transformers keeps experts stacked; files have them one by one."""
    out = {}
    for key, v in state.items():
        if not key.endswith(("experts.gate_up_proj", "experts.down_proj")):
            out[key] = v
            continue
        base = key.rsplit(".", 1)[0]
        for e in range(v.shape[0]):
            if key.endswith("down_proj"):
                out[f"{base}.{e}.down_proj.weight"] = v[e]
            else:
                gate, up = v[e].chunk(2, 0)
                out[f"{base}.{e}.gate_proj.weight"], out[f"{base}.{e}.up_proj.weight"] = gate, up
    return out


def quantise(name, make, state, rng):
    """Tensors of the file, and the weights that they mean, by the plain tensors' names."""
    files, weights = {}, {}
    for key, v in (state if make is None else expert_tensors(state)).items():
        if make is None and "experts." in key:
            parts, weights[key] = stack(rng, name, v.double().numpy())
            files.update({key + tail: p for tail, p in parts.items()})
            continue
        made = make(rng, key, v.double().numpy()) if make and v.dim() == 2 else None
        if made is None:
            files[key], weights[key] = v.bfloat16(), v.bfloat16().double().numpy()
        else:
            files.update({key[:-len("weight")] + tail: p for tail, p in made[0].items()})
            weights[key] = made[1]
    return files, weights


def load_weights(model, weights):
    state = model.state_dict()
    for key in list(state):
        if key in weights:
            state[key] = torch.from_numpy(weights[key]).float()
            continue
        base, tail = key.rsplit(".", 1)
        names = ["gate_proj", "up_proj"] if tail == "gate_up_proj" else ["down_proj"]
        state[key] = torch.stack([torch.cat(
            [torch.from_numpy(weights[f"{base}.{e}.{p}.weight"]) for p in names]).float()
            for e in range(state[key].shape[0])])
    model.load_state_dict(state)


def write(out, name):
    family, shapes, make, quant = CASES[name]
    seed = sum(map(ord, name))
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    cfg = getattr(transformers, family + "Config")(**shapes)
    model = AutoModelForCausalLM.from_config(cfg, attn_implementation="eager").float().eval()
    for p in model.parameters():
        with torch.no_grad():
            p.normal_(1 if p.dim() == 1 else 0, 0.1)
    files, weights = quantise(name, make, model.state_dict(), rng)
    load_weights(model, weights)
    ids = torch.from_numpy(rng.integers(3, shapes["vocab_size"], (1, T)))
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits
    path = os.path.join(out, name)
    os.makedirs(path, exist_ok=True)
    config = cfg.to_diff_dict()
    config.update(architectures=[type(model).__name__], dtype="bfloat16")
    if "quantization" in quant:
        with open(os.path.join(path, "hf_quant_config.json"), "w") as f:
            json.dump(quant, f, indent=1)
    else:
        config["quantization_config"] = quant
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
    save_file({k: v.contiguous() for k, v in files.items()},
              os.path.join(path, "model.safetensors"))
    save_file(dict(input_ids=ids.int(), logits=logits.contiguous()),
              os.path.join(path, "reference.safetensors"))
    print(name, float(logits.abs().max()))


def main():
    names, out = sys.argv[1:], HERE
    if names[:1] == ["--out"]:
        out, names = names[1], names[2:]
    for name in names or CASES:
        write(out, name)


main()
