#!/usr/bin/env python3
"""Writes rope.json: rope dicts and rows of the cos/sin tables that transformers' own modules compute
for a forward call over `length` positions."""
import json
import os

import torch
from transformers import Gemma3TextConfig, LlamaConfig, Phi3Config, Qwen2Config
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

HERE = os.path.dirname(os.path.abspath(__file__))


def llama(max_position, rope, head_dim=32, theta=None, **kw):
    rope = dict(rope)
    if theta:
        rope["rope_theta"] = theta
    cfg = LlamaConfig(hidden_size=64, num_attention_heads=2, head_dim=head_dim,
                      max_position_embeddings=max_position, rope_parameters=dict(rope), **kw)
    return LlamaRotaryEmbedding(cfg), dict(dict=rope, head_dim=head_dim, max_position=max_position,
                                           original_max=kw.get("original_max_position_embeddings", 0))


def phi3(max_position, original_max, rope, head_dim=32):
    cfg = Phi3Config(hidden_size=2 * head_dim, num_attention_heads=2, rope_parameters=dict(rope),
                     max_position_embeddings=max_position,
                     original_max_position_embeddings=original_max)
    return Phi3RotaryEmbedding(cfg), dict(dict=rope, head_dim=head_dim, max_position=max_position,
                                          original_max=original_max, phi3=True)


def factors(n, begin, step):
    return [begin + step * i for i in range(n)]


L3 = dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
          original_max_position_embeddings=8192)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768)
LONG = dict(rope_type="longrope", short_factor=factors(16, 1.0, 0.02),
            long_factor=factors(16, 1.0, 1.7))
CASES = [
    ("default", lambda: llama(4096, dict(rope_type="default"), theta=10000.0), [4096]),
    ("default-1e6-128", lambda: llama(40960, dict(rope_type="default"), 128, 1e6), [32000]),
    ("linear", lambda: llama(4096, dict(rope_type="linear", factor=2.5), theta=10000.0), [3000]),
    ("dynamic", lambda: llama(64, dict(rope_type="dynamic", factor=3.0), theta=10000.0),
     [10, 64, 65, 100, 1000]),
    ("llama3", lambda: llama(131072, L3, 64, 500000.0), [9000]),
    ("llama3-tiny", lambda: llama(512, dict(L3, original_max_position_embeddings=64, factor=8.0), 32,
                                  500000.0), [500]),
    ("yarn", lambda: llama(131072, YARN, 128, 1e6), [40000]),
    ("yarn-mscale", lambda: llama(4096, dict(YARN, mscale=0.707, mscale_all_dim=1.2, beta_fast=48,
                                             beta_slow=2, original_max_position_embeddings=256), 64,
                                  10000.0), [2000]),
    ("yarn-untruncated", lambda: llama(4096, dict(YARN, truncate=False, factor=8.0,
                                                  original_max_position_embeddings=512), 64,
                                       150000.0), [2000]),
    ("yarn-attention", lambda: llama(4096, dict(YARN, attention_factor=0.8), 64, 10000.0), [100]),
    ("longrope", lambda: phi3(131072, 4096, dict(LONG, rope_theta=10000.0)), [4096, 4097]),
    ("longrope-partial", lambda: phi3(8192, 64, dict(LONG, short_factor=factors(12, 1.0, 0.1),
                                                      long_factor=factors(12, 3.0, 0.3),
                                                      partial_rotary_factor=0.75,
                                                      rope_theta=5000.0)), [64, 200]),
    ("longrope-attention", lambda: phi3(8192, 64, dict(LONG, attention_factor=1.25,
                                                       rope_theta=10000.0)), [60, 300]),
    ("longrope-factor", lambda: llama(8192, dict(LONG, factor=16.0,
                                                 original_max_position_embeddings=128), 32, 10000.0),
     [100, 300]),
    ("partial", lambda: phi3(4096, 4096, dict(rope_type="default", partial_rotary_factor=0.5,
                                              rope_theta=10000.0)), [3000]),
]

out = []
for name, make, lengths in CASES:
    for length in lengths:
        module, spec = make()
        pos = torch.arange(length)[None]
        cos, sin = module(torch.zeros(1, dtype=torch.float32), pos)
        rows = sorted({0, 1, 2, 3, 7, length // 3, length // 2, length - 1})
        half = cos.shape[-1] // 2
        out.append(dict(spec, name=name, length=length, rotary_dim=2 * half, rows=rows,
                        values=[[float("%.9g" % v) for v in
                                 cos[0, r, :half].tolist() + sin[0, r, :half].tolist()]
                                for r in rows]))
json.dump(out, open(os.path.join(HERE, "rope.json"), "w"), indent=None, separators=(",", ":"))
print(len(out), "tables")
