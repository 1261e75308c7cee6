#!/usr/bin/env python3
"""What compressed-tensors and a plain numpy GPTQ make of one small matrix: formats.safetensors.

For checking only: pip install compressed-tensors torch numpy safetensors.
"""
import os

import numpy as np
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from safetensors.torch import save_file

torch.manual_seed(7)
N, K = 8, 128
w = torch.randn(N, K) * torch.logspace(-1, 0.7, N)[:, None] * 0.05
w[2, 5] = 0.9
w[3, 64:96] = 0
out = {"weight": w}


def scheme(fmt, acts=None, **kw):
    return QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**kw), format=fmt,
                              input_activations=acts)


def make(name, fmt, s):
    a = s.weights
    g = a.group_size or K
    blocks = w.unflatten(-1, (K // g, g))
    state = {"weight": w.clone()}
    gparam = None
    if a.strategy == "tensor_group":
        gparam = generate_gparam(w.min(), w.max()).reshape(1)
        state["weight_global_scale"] = gparam
    scale, zero = calculate_qparams(blocks.amin(-1), blocks.amax(-1), a, global_scale=gparam)
    state["weight_scale"] = scale
    if not a.symmetric:
        state["weight_zero_point"] = zero.to(torch.int8)
    got = BaseCompressor.get_value_from_registry(fmt).compress(state, s)
    for k, v in got.items():
        if k != "weight_zero_point" or not a.symmetric:
            out[f"{name}.{k}"] = v.contiguous()


f8 = torch.float8_e4m3fn
make("int4", "pack-quantized", scheme("pack-quantized", num_bits=4, strategy="group", group_size=32))
make("int4a", "pack-quantized",
     scheme("pack-quantized", num_bits=4, strategy="group", group_size=32, symmetric=False))
make("int8", "int-quantized", scheme("int-quantized", num_bits=8, strategy="channel"))
make("fp8", "float-quantized", scheme("float-quantized", num_bits=8, type="float", strategy="channel"))
make("nvfp4", "nvfp4-pack-quantized",
     scheme("nvfp4-pack-quantized", num_bits=4, type="float", strategy="tensor_group", group_size=16,
            scale_dtype=f8, zp_dtype=f8))
make("mxfp4", "mxfp4-pack-quantized",
     scheme("mxfp4-pack-quantized", num_bits=4, type="float", strategy="group", group_size=32,
            scale_dtype=torch.uint8, zp_dtype=torch.uint8))

# GPTQ in float64: correlated inputs, scales of the plain rule from the compensated weights
rng = np.random.default_rng(3)
x = rng.standard_normal((256, K)) @ (np.eye(K) + 0.3 * rng.standard_normal((K, K)) / np.sqrt(K))
x[:, 7] *= 9
x = x.astype(np.float32)
h = x.T.astype(np.float64) @ x / len(x)
d = h + 0.01 * np.trace(h) / K * np.eye(K)
u = np.linalg.cholesky(np.linalg.inv(d)).T
out["gptq.inputs"] = torch.from_numpy(x)
out["gptq.factor"] = torch.from_numpy(u.astype(np.float32).copy())
out["gptq.hessian"] = torch.from_numpy(h.astype(np.float32))
save_file(out, os.path.join(os.path.dirname(__file__), "formats.safetensors"))
for k, v in out.items():
    print(k, v.dtype, tuple(v.shape))
