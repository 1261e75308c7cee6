#!/usr/bin/env python3
"""Writes what tests/unit/u_torch.c reads: small files of torch.save and the same tensors as
safetensors, the seeds of tests/fuzz/fuzz_torch.c, and one model. Run once by hand; the results
are committed."""
import json
import os
import zipfile
from collections import OrderedDict

import torch
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
SEEDS = os.path.join(HERE, "..", "..", "fuzz", "corpus", "torch")


def tensors():
    """Every dtype, and every way of being a part of a storage."""
    torch.manual_seed(3)
    base = torch.randn(6, 8)
    d = OrderedDict()
    for name in ("float32 float16 bfloat16 float64 float8_e4m3fn float8_e5m2 float8_e4m3fnuz "
                 "float8_e5m2fnuz float8_e8m0fnu").split():
        d["dtype." + name] = base[:2, :3].clone().to(getattr(torch, name))
    for name in "int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool".split():
        d["dtype." + name] = (base[:2, :3] * 9).abs().to(getattr(torch, name))
    d["scalar"] = torch.tensor(2.5)
    d["empty"] = torch.empty(0, 3)
    d["view.whole"] = base
    d["view.tied"] = base
    d["view.rows"] = base[2:4]
    d["view.columns"] = base[:, 3:5]
    d["view.transposed"] = base.t()
    d["view.steps"] = base[::2, 1::3]
    d["view.permuted"] = base.view(2, 3, 8).permute(2, 0, 1)
    d["view.expanded"] = base[:1, :4].expand(3, 4)
    d["view.one"] = base[3:4, 5:6].t()
    d["view.half_transposed"] = base.to(torch.bfloat16).t()
    d["view.bytes"] = torch.arange(12, dtype=torch.uint8).view(3, 4).t()
    d["view.f8"] = base.to(torch.float8_e4m3fn)[1:3]
    d["parameter"] = torch.nn.Parameter(base[0].clone())
    d["name with / and \u00e9"] = torch.ones(1)
    return d


def main():
    os.makedirs(SEEDS, exist_ok=True)
    d = tensors()
    save_file({k: v.detach().clone().contiguous() for k, v in d.items()}, f"{HERE}/twin.safetensors")
    torch.save(d, f"{HERE}/pytorch_model.bin")
    torch.save(d, f"{HERE}/protocol4.bin", pickle_protocol=4)
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    torch.save(module.state_dict(), f"{HERE}/module.bin")  # has _metadata, set by BUILD
    torch.save(dict(a=torch.ones(2)), f"{HERE}/legacy.bin", _use_new_zipfile_serialization=False)
    for name, value in dict(nested={"a": torch.ones(1)}, number=3, real=2.5, list=[1, [2]],
                            none=None, text="x").items():
        torch.save({"ok": torch.ones(1), "bad." + name: value}, f"{HERE}/bad_{name}.bin")
    torch.save(torch.ones(2), f"{HERE}/bad_root.bin")
    torch.save({"bad.complex": torch.ones(2, dtype=torch.complex64)}, f"{HERE}/bad_complex.bin")

    keys, weight_map = list(d), {}
    os.makedirs(f"{HERE}/sharded", exist_ok=True)
    for i, part in enumerate((keys[:9], keys[9:])):
        shard = f"pytorch_model-{i + 1:05d}-of-00002.bin"
        torch.save({k: d[k] for k in part}, f"{HERE}/sharded/{shard}")
        weight_map.update({k: shard for k in part})
    with open(f"{HERE}/sharded/pytorch_model.bin.index.json", "w") as f:
        json.dump({"metadata": {"total_size": 0}, "weight_map": weight_map}, f, indent=1)
        f.write("\n")

    # a model of tests/golden/families, for tests/e2e/parity.sh; one weight has a storage that is
    # its transpose
    family = load_file(f"{HERE}/../families/granite/model.safetensors")
    up = "model.layers.0.mlp.up_proj.weight"
    family[up] = family[up].t().contiguous().t()
    os.makedirs(f"{HERE}/granite", exist_ok=True)
    torch.save(OrderedDict(family), f"{HERE}/granite/pytorch_model.bin")

    t = torch.arange(6.0).view(2, 3)
    torch.save({"a": t, "b": t.t(), "c": t[1].to(torch.float8_e5m2)}, f"{SEEDS}/views")
    torch.save(module.state_dict(), f"{SEEDS}/module")
    with zipfile.ZipFile(f"{SEEDS}/views") as z, open(f"{SEEDS}/pickle", "wb") as f:
        f.write(z.read("views/data.pkl"))
    torch.save({"a": t.half(), "n": [1, 2.5]}, f"{SEEDS}/protocol4", pickle_protocol=4)


main()
