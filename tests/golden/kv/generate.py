#!/usr/bin/env python3
"""Writes two tiny random checkpoints (bf16) with scales of an fp8 KV cache, and what Hugging Face
transformers computes for them in float32 when its cache hands back K and V rounded as the cache of
edgewise stores them: f8e4m3 with the checkpoint's scales, or int8 with a scale a row. Run once by
hand; the results are committed. Usage: generate.py"""
import json
import os

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DynamicCache

HERE = os.path.dirname(os.path.abspath(__file__))
T, LAYERS, HEADS = 24, 2, 2
CONFIG = dict(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=LAYERS,
              num_attention_heads=4, num_key_value_heads=HEADS, head_dim=12,
              max_position_embeddings=64, rms_norm_eps=1e-6, bos_token_id=1, eos_token_id=2,
              pad_token_id=0, tie_word_embeddings=True)


class Rounded(DynamicCache):
    """K (after RoPE) and V [b, heads, tokens, d] come back as they would be read from the cache."""

    def __init__(self, scales):
        super().__init__()
        self.scales = scales  # per layer (k [heads], v [heads]); None: int8

    def round(self, x, layer, which):
        if self.scales is None:
            scale = x.abs().amax(-1, keepdim=True) / 127
            return torch.round(x / scale).clamp(-127, 127) * scale
        scale = self.scales[layer][which].float().reshape(1, -1, 1, 1)
        code = (x * (1 / scale)).clamp(-448, 448).to(torch.float8_e4m3fn)
        return code.float() * scale

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        return super().update(self.round(key_states, layer_idx, 0),
                              self.round(value_states, layer_idx, 1), layer_idx, *args, **kwargs)


def reference(model, ids, cache):
    with torch.no_grad():
        out = model(ids, past_key_values=cache, use_cache=True, output_hidden_states=True)
    tensors = {"input_ids": ids, "logits": out.logits.contiguous()}
    tensors.update({f"hidden_{i}": h.contiguous() for i, h in enumerate(out.hidden_states)})
    return tensors


def make(name, seed, family, scales, names, quant_config, references):
    out = os.path.join(HERE, name)
    os.makedirs(out, exist_ok=True)
    torch.manual_seed(seed)
    cfg = getattr(transformers, family + "Config")(**CONFIG)
    model = getattr(transformers, family + "ForCausalLM")(cfg)
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.copy_(1 + 0.1 * torch.randn_like(p) if "norm" in key else 0.25 * torch.randn_like(p))
    model.to(torch.bfloat16).save_pretrained(out)
    path = os.path.join(out, "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32,
                                                 attn_implementation="eager").eval()
    tensors = load_file(path)
    for i in range(LAYERS):
        for which, tail in enumerate(names):
            tensors[f"model.layers.{i}.self_attn.{tail}"] = scales[i][which].contiguous()
    save_file(tensors, path, metadata={"format": "pt"})
    if quant_config:
        with open(os.path.join(out, "hf_quant_config.json"), "w") as f:
            json.dump(quant_config, f, indent=2)
    ids = torch.randint(3, CONFIG["vocab_size"], (1, T))
    for kind in references:
        cache = Rounded(scales if kind == "fp8" else None)
        save_file(reference(model, ids, cache), os.path.join(out, f"reference-{kind}.safetensors"))


def main():
    one = [[torch.tensor(0.0075), torch.tensor(0.0031)], [torch.tensor(0.0061), torch.tensor(0.0044)]]
    query = [[*layer, torch.tensor(0.5)] for layer in one]
    make("modelopt", 5, "Qwen3", query, ["k_proj.k_scale", "v_proj.v_scale", "q_proj.q_scale"],
         {"producer": {"name": "modelopt", "version": "0.33.0"},
          "quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}, ["fp8"])
    heads = [[torch.tensor(v, dtype=torch.bfloat16).reshape(HEADS, 1, 1) for v in layer]
             for layer in [[[0.004, 0.011], [0.0021, 0.007]], [[0.009, 0.0035], [0.005, 0.0125]]]]
    make("heads", 6, "Llama", heads, ["k_scale", "v_scale"], None, ["fp8", "int8"])


if __name__ == "__main__":
    main()
