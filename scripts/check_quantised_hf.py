#!/usr/bin/env python3
"""Does transformers read what `edgewise quantize` wrote?

    check_quantised_hf.py CHECKPOINT QUANTISED...

For each QUANTISED: every weight is dequantised here in numpy, straight from the format's documents, and
put into a plain model of CHECKPOINT; transformers with compressed-tensors loads the directory on its own.
Both must answer some prompts with the same greedy text (declared activation and cache quantisation is
switched off: weights are what is compared). Exit code 0 also when the packages are missing ("skipped").
"""
import json
import os
import sys

try:
    import numpy as np
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer
    import compressed_tensors  # noqa: F401
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(0)

PROMPTS = ["Once upon a time there was a", "What is the capital of France?", "The dog and the cat",
           "Count from 5 to 15."]
FP4 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def tensors(folder):
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            with safe_open(os.path.join(folder, name), "pt") as f:
                for key in f.keys():
                    yield key, f.get_tensor(key)


def unpack(words, bits, n):
    """Unsigned fields of 32-bit words, lowest first, along the last axis."""
    words = words.numpy().view(np.uint32)
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    return ((words[..., None] >> shifts) & ((1 << bits) - 1)).reshape(*words.shape[:-1], -1)[..., :n]


def dequantise(parts):
    """f32 weight of a module from its tensors by name."""
    scale = parts["weight_scale"]
    if "weight_shape" in parts:
        n, k = parts["weight_shape"].tolist()
        bits = parts["weight_packed"].shape[1] * 32 // k
        codes = unpack(parts["weight_packed"], bits, k).astype(np.float32)
        if "weight_zero_point" in parts:
            zero = unpack(parts["weight_zero_point"].T.contiguous(), bits, n).T.astype(np.float32)
        else:
            zero = np.full(scale.shape, 1 << (bits - 1), np.float32)
        scale = scale.float().numpy()
        codes = codes.reshape(n, scale.shape[1], -1)
        return ((codes - zero[..., None]) * scale[..., None]).reshape(n, k)
    if "weight_packed" in parts:
        packed = parts["weight_packed"].numpy()
        codes = FP4[np.stack([packed & 15, packed >> 4], -1).reshape(len(packed), -1)]
        if "weight_global_scale" in parts:
            scale = scale.float().numpy() / parts["weight_global_scale"].float().numpy()
        else:
            scale = np.exp2(scale.numpy().astype(np.float32) - 127)
        return (codes.reshape(len(codes), scale.shape[1], -1) * scale[..., None]).reshape(codes.shape)
    return parts["weight"].float().numpy() * scale.float().numpy()


def plain_state(folder):
    modules, state = {}, {}
    for key, value in tensors(folder):
        module, _, leaf = key.rpartition(".")
        modules.setdefault(module, {})[leaf] = value
    for module, parts in modules.items():
        if "weight_scale" in parts:
            state[module + ".weight"] = torch.from_numpy(np.ascontiguousarray(dequantise(parts)))
        for leaf, value in parts.items():
            if not leaf.startswith("weight") and leaf not in ("k_scale", "v_scale"):
                state[f"{module}.{leaf}"] = value.float()
        if "weight" in parts and "weight_scale" not in parts:
            state[module + ".weight"] = parts["weight"].float()
    return state


def answers(model, tok):
    out = []
    for prompt in PROMPTS:
        ids = tok(prompt, return_tensors="pt")
        got = model.generate(**ids, max_new_tokens=32, do_sample=False)
        out.append(got[0, ids["input_ids"].shape[1]:].tolist())
    return out


def weights_only(model):
    for module in model.modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is not None and scheme.weights is None:
            module.quantization_enabled = False
        elif scheme is not None:
            scheme.input_activations = None


def check(checkpoint, folder):
    tok = AutoTokenizer.from_pretrained(folder)
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    fp4 = "fp4" in json.dumps(config["quantization_config"])
    # compressed-tensors decodes fp4 to bf16 whatever the model's dtype, so both sides use bf16 then
    dtype = torch.bfloat16 if fp4 else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    weights_only(model)
    theirs = answers(model, tok)
    plain = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype)
    state = {k: v.to(dtype) for k, v in plain_state(folder).items()}
    if not config.get("tie_word_embeddings", True):
        plain.lm_head.weight = torch.nn.Parameter(state["lm_head.weight"])
    missing = plain.load_state_dict(state, strict=False)
    bad = [k for k in missing.missing_keys if k != "lm_head.weight"] + missing.unexpected_keys
    ours = answers(plain, tok)
    same = sum(a == b for a, b in zip(theirs, ours))
    print(f"{folder}: {same} of {len(PROMPTS)} greedy texts equal" + (f", tensors {bad}" if bad else ""))
    return same == len(PROMPTS) and not bad


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    torch.set_grad_enabled(False)
    results = [check(sys.argv[1], folder) for folder in sys.argv[2:]]
    sys.exit(0 if all(results) else 1)
