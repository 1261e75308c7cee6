#!/usr/bin/env python3
"""Writes tiny random checkpoints (bf16) and what Hugging Face transformers computes for them in
float32 with eager attention: input_ids, logits, hidden_0..N, greedy, router_gap of those with experts.
Run once by hand; the results are committed. Usage: generate.py [name...]"""
import json
import os
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
BASE = dict(vocab_size=96, hidden_size=48, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=256,
            rms_norm_eps=1e-6, bos_token_id=1, eos_token_id=2, pad_token_id=0,
            tie_word_embeddings=False)
# families whose head_dim is hidden_size / num_attention_heads
NARROW = dict(BASE, hidden_size=32, num_attention_heads=2, num_key_value_heads=1)
NARROW.pop("head_dim")
T = 24


def old_style(cfg):
    """The spelling of transformers 4: rope_theta, rope_scaling {type}, torch_dtype."""
    rope = cfg.pop("rope_parameters", None) or {}
    cfg["rope_theta"] = rope.pop("rope_theta", 10000.0)
    if "partial_rotary_factor" in rope:
        cfg["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    kind = rope.pop("rope_type", "default")
    cfg["rope_scaling"] = None if kind == "default" else dict(rope, type=kind)
    cfg.pop("layer_types", None)
    cfg["torch_dtype"] = cfg.pop("dtype", "bfloat16")
    cfg["transformers_version"] = "4.40.0"


def with_types(cfg):
    """transformers reads a mistral with layer_types as a ministral."""
    cfg["layer_types"] = ["full_attention", "sliding_attention"]


def no_edit(cfg):
    """Only read the checkpoint again."""


def half_factors(n, begin, step):
    return [round(begin + step * i, 4) for i in range(n)]


CASES = {
    "mistral-window": ("Mistral", dict(BASE, sliding_window=8,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0)), None, True),
    "mistral-typed": ("Mistral", dict(BASE, sliding_window=5), with_types, True),
    "llama-tied-other-head": ("Llama", dict(BASE, tie_word_embeddings=True), no_edit, True),
    "mistral-old": ("Mistral", dict(BASE, sliding_window=None, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="default", rope_theta=1000.0)), old_style, True),
    "llama-bias-linear": ("Llama", dict(BASE, attention_bias=True, mlp_bias=True,
        rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=10000.0)), None, True),
    "llama-linear-old": ("Llama", dict(BASE, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="linear", factor=2.5, rope_theta=5000.0)), old_style, True),
    "llama-dynamic": ("Llama", dict(BASE, max_position_embeddings=16,
        rope_parameters=dict(rope_type="dynamic", factor=3.0, rope_theta=10000.0)), None, False),
    "llama-yarn-mscale": ("Llama", dict(BASE, max_position_embeddings=64,
        rope_parameters=dict(rope_type="yarn", factor=4.0, rope_theta=10000.0, mscale=0.7,
                             mscale_all_dim=1.3, beta_fast=16.0, beta_slow=2.0, truncate=False,
                             original_max_position_embeddings=16)), None, True),
    "qwen2-yarn": ("Qwen2", dict(BASE, head_dim=None, hidden_size=64, intermediate_size=32,
        tie_word_embeddings=True, max_position_embeddings=64,
        rope_parameters=dict(rope_type="yarn", factor=4.0, rope_theta=1000000.0,
                             original_max_position_embeddings=16)), old_style, True),
    "qwen3-window": ("Qwen3", dict(BASE, num_hidden_layers=3, intermediate_size=24,
        tie_word_embeddings=True, use_sliding_window=True, sliding_window=6, max_window_layers=1,
        attention_bias=True), None, True),
    "smollm3-nope": ("SmolLM3", dict(NARROW, num_hidden_layers=3, tie_word_embeddings=True,
        no_rope_layers=[1, 0, 1]), None, True),
    "smollm3-window": ("SmolLM3", dict(NARROW, num_hidden_layers=3, no_rope_layer_interval=2,
        no_rope_layers=None, use_sliding_window=True, sliding_window=7, attention_bias=True),
        None, True),
    "olmo2": ("Olmo2", dict(NARROW, num_hidden_layers=3, attention_bias=False), None, True),
    "granite": ("Granite", dict(NARROW, num_hidden_layers=3, embedding_multiplier=3.0,
        logits_scaling=2.5, residual_multiplier=0.35, attention_multiplier=0.11,
        tie_word_embeddings=True), None, True),
    "granite-bias": ("Granite", dict(NARROW, num_hidden_layers=2, embedding_multiplier=1.5,
        logits_scaling=0.5, residual_multiplier=0.8, attention_multiplier=0.3, attention_bias=True,
        mlp_bias=True), old_style, True),
    "mixtral": ("Mixtral", dict(NARROW, num_hidden_layers=2, intermediate_size=24,
        num_local_experts=4, num_experts_per_tok=2, sliding_window=None), None, True),
    "mixtral-window": ("Mixtral", dict(NARROW, num_hidden_layers=2, intermediate_size=24,
        num_local_experts=3, num_experts_per_tok=2, sliding_window=5), old_style, True),
    "gemma3-softcap": ("Gemma3Text", dict(BASE, num_hidden_layers=3, intermediate_size=24,
        query_pre_attn_scalar=24, sliding_window=6, final_logit_softcapping=8.0,
        attn_logit_softcapping=20.0, tie_word_embeddings=True, sliding_window_pattern=2,
        rope_parameters=dict(
            full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1000000.0),
            sliding_attention=dict(rope_type="default", rope_theta=10000.0))), None, True),
    "phi3-window": ("Phi3", dict(NARROW, num_hidden_layers=3, sliding_window=7,
        original_max_position_embeddings=256,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)),
        None, True),
    "phi3-longrope-short": ("Phi3", dict(NARROW, num_hidden_layers=2, tie_word_embeddings=True,
        original_max_position_embeddings=128, max_position_embeddings=512,
        rope_parameters=dict(rope_type="longrope", rope_theta=10000.0,
                             short_factor=half_factors(8, 1.0, 0.05),
                             long_factor=half_factors(8, 2.0, 0.5))), old_style, True),
    "qwen3-moe-mixed": ("Qwen3Moe", dict(BASE, num_hidden_layers=3, intermediate_size=24,
        moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2, norm_topk_prob=False,
        mlp_only_layers=[1], decoder_sparse_step=1, hidden_size=32, num_attention_heads=2,
        num_key_value_heads=1), None, True),
    "qwen3-moe-step": ("Qwen3Moe", dict(BASE, num_hidden_layers=2, intermediate_size=24,
        moe_intermediate_size=16, num_experts=4, num_experts_per_tok=3, norm_topk_prob=True,
        mlp_only_layers=[], decoder_sparse_step=2, hidden_size=32, num_attention_heads=2,
        num_key_value_heads=1, attention_bias=True, tie_word_embeddings=True), old_style, True),
}


def randomise(model, gemma):
    for name, p in model.named_parameters():
        x = torch.randn(p.shape)
        if "norm" in name:
            p.data = 0.2 * x + (0.0 if gemma else 1.0)
        elif name.endswith("bias"):
            p.data = 0.2 * x
        elif "embed" in name:
            p.data = 0.3 * x if gemma else x
        else:
            p.data = x * (1.0 / p.shape[-1]) ** 0.5


def router_gap(model, ids):
    """Of each token the least lead, over the layers, of the last expert taken over the next one.
    None without experts."""
    k = getattr(model.config, "num_experts_per_tok", None)
    gaps = []

    def hook(gate, args, _):
        x = args[0].reshape(-1, args[0].shape[-1])
        best = (x @ gate.weight.T).sort(-1, descending=True).values
        gaps.append((best[:, k - 1] - best[:, k]).reshape(ids.shape))

    handles = [m.register_forward_hook(hook) for n, m in model.named_modules()
               if n.endswith("mlp.gate")]
    with torch.no_grad():
        model(ids, use_cache=False)
    for h in handles:
        h.remove()
    return torch.stack(gaps).amin(0).contiguous() if gaps else None


def generate(name):
    family, kw, edit, greedy = CASES[name]
    torch.manual_seed(sum(map(ord, name)))
    kw = {k: v for k, v in kw.items() if not (k == "head_dim" and v is None)}
    config = getattr(transformers, family + "Config")(**kw)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomise(model, family.startswith("Gemma"))
    model.tie_weights()
    out = os.path.join(HERE, name)
    model.to(torch.bfloat16).save_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32,
                                                 attn_implementation="eager").eval()
    if name == "llama-tied-other-head":  # the file's head wins over the config's "tied"
        path = os.path.join(out, "model.safetensors")
        tensors = load_file(path)
        tensors["lm_head.weight"] = (torch.randn(96, 48) / 7).to(torch.bfloat16)
        save_file(tensors, path, metadata={"format": "pt"})
    path = os.path.join(out, "config.json")
    if edit:
        cfg = json.load(open(path))
        edit(cfg)
        json.dump(cfg, open(path, "w"), indent=2)
        model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32,
                                                     attn_implementation="eager").eval()
    ids = torch.randint(3, 96, (2, T))
    with torch.no_grad():
        got = model(ids, output_hidden_states=True, use_cache=False)
    tensors = {"input_ids": ids.int(), "logits": got.logits.float().contiguous()}
    for i, h in enumerate(got.hidden_states):
        tensors["hidden_%d" % i] = h.float().contiguous()
    if greedy:
        with torch.no_grad():
            y = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None,
                               attention_mask=torch.ones_like(ids))
        tensors["greedy"] = y[:, T:].int().contiguous()
    gap = router_gap(model, ids)
    if gap is not None:
        tensors["router_gap"] = gap
    save_file(tensors, os.path.join(out, "reference.safetensors"))
    size = sum(os.path.getsize(os.path.join(out, f)) for f in os.listdir(out))
    print(name, size, "max logit %.3f" % got.logits.abs().max().item(), flush=True)


for case in sys.argv[1:] or CASES:
    generate(case)
