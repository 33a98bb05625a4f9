#!/usr/bin/env python3
"""Put faults into files that real tools wrote (`tools.py`), one tensor and one fault a pair.

    python3 damage.py TOOLS_OUT OUT [--bits 2 3 4 8] [--files N] [--seed N]

Of N files for each number of bits, whatever tool wrote them, a tensor is drawn; its stored codes, scales and zero points
are read, checked to give back the very planes when they are packed again, damaged in every way of `make.faults`, and
written in the tool's own layout beside the tool's own configuration. One fault more exchanges the tensor's planes with
those of another tensor of the file of the same shape.
"""
import argparse, json, os
import numpy as np, torch
from safetensors import safe_open
from safetensors.torch import save_file
import make


def unpack(words, bits, count, axis):
    """Codes out of 32-bit words along an axis: what `make.pack` packs."""
    words = np.moveaxis(words.numpy().view(np.uint32), axis, 0)
    bit = np.stack([(words >> np.uint32(b)) & np.uint32(1) for b in range(32)], 1).reshape(-1, *words.shape[1:])
    bit = bit[:count * bits].reshape(count, bits, *words.shape[1:])
    codes = (bit.astype(np.uint64) << np.arange(bits, dtype=np.uint64).reshape(1, -1, *[1] * (words.ndim - 1))).sum(1)
    return np.moveaxis(codes, 0, axis).astype(np.float64)


def words(codes, bits, axis, dtype=torch.int32):
    return torch.from_numpy(make.pack(codes, bits, axis).view(np.int32).copy()).view(dtype)


def numbers(tensor):
    return tensor.double().numpy()


def like(values, tensor):
    return torch.from_numpy(np.ascontiguousarray(values)).to(tensor.dtype).reshape(tensor.shape)


class Gptq:
    """GPTQ, as GPTQModel and AutoRound write it; `config` says whether zero points are stored less one."""
    parts = ("qweight", "qzeros", "scales", "g_idx")

    def __init__(self, planes, config, bits):
        self.less = 0 if config.get("checkpoint_format") == "gptq_v2" else 1
        if planes["qweight"].shape[1] != planes["scales"].shape[1]:
            raise ValueError("AWQ")
        count = planes["qweight"].shape[0] * 32 // bits
        size = config["group_size"] if config["group_size"] > 0 else count
        self.index = planes.get("g_idx")
        group = self.index.numpy() if self.index is not None else np.arange(count) // size
        zero = (unpack(planes["qzeros"], bits, planes["scales"].shape[1], 1).T + self.less) % 2 ** bits
        self.scales = planes["scales"]
        self.q = make.Q(unpack(planes["qweight"], bits, count, 0).T, numbers(self.scales).T, zero, group, bits)

    def write(self, q):
        zero = np.clip(q.zero, 0, 2 ** q.bits - 1)
        out = {"qweight": words(q.codes.T, q.bits, 0), "scales": like(q.scale.T, self.scales),
               "qzeros": words((zero.T - self.less) % 2 ** q.bits, q.bits, 1)}
        return {**out, "g_idx": self.index} if self.index is not None else out


class Packed:
    """compressed-tensors, packed."""
    parts = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx")

    def __init__(self, planes, config, bits):
        self.planes = planes
        rows, cols = planes["weight_shape"].tolist()
        codes = unpack(planes["weight_packed"], bits, cols, 1)
        self.scales, points = planes["weight_scale"], planes.get("weight_zero_point")
        zero = np.full(self.scales.shape, 2.0 ** (bits - 1)) if points is None else unpack(points, bits, rows, 0)
        self.has_zero = points is not None
        index = planes.get("weight_g_idx")
        group = index.numpy() if index is not None else np.arange(cols) // (cols // self.scales.shape[1])
        self.q = make.Q(codes, numbers(self.scales), zero, group, bits)

    def write(self, q):
        out = {**self.planes, "weight_packed": words(q.codes, q.bits, 1), "weight_scale": like(q.scale, self.scales)}
        if self.has_zero:
            out["weight_zero_point"] = words(np.clip(q.zero, 0, 2 ** q.bits - 1), q.bits, 0)
        return out


class Bytes:
    """Signed codes of a byte each: compressed-tensors (`weight`) and torchao (`_weight_qdata`)."""
    names = ("weight", "weight_scale", "weight_zero_point")
    parts = names

    def __init__(self, planes, config, bits):
        codes, scales, points = (planes.get(name) for name in self.names)
        self.planes, self.half, self.has_zero = planes, 2.0 ** (bits - 1), points is not None
        rows, cols = codes.shape
        if codes.dtype != torch.int8 or scales.ndim == 2 and (len(scales) != rows or cols % scales.shape[1]):
            raise ValueError("blocks, or more than one code to a byte")
        scale = numbers(scales).reshape(-1, 1) if scales.ndim < 2 else numbers(scales)
        zero = np.full(scale.shape, self.half) + (numbers(points).reshape(scale.shape) if self.has_zero else 0)
        self.q = make.Q(numbers(codes) + self.half, scale, zero, np.arange(cols) // (cols // scale.shape[1]), bits)

    def write(self, q):
        out = dict(self.planes)
        codes, scales, points = self.names
        out[codes], out[scales] = like(q.codes - self.half, out[codes]), like(q.scale, out[scales])
        if self.has_zero:
            out[points] = like(q.zero - self.half, out[points])
        return out


class TorchAo(Bytes):
    names = ("_weight_qdata", "_weight_scale", "_weight_zero_point")
    parts = names


class Mlx:
    """MLX, affine."""
    parts = ("weight", "scales", "biases")

    def __init__(self, planes, config, bits):
        self.scales, self.biases = planes["scales"], planes["biases"]
        cols = planes["weight"].shape[1] * 32 // bits
        scale, self.dtype = numbers(self.scales), planes["weight"].dtype
        with np.errstate(divide="ignore", invalid="ignore"):
            zero = np.where(scale == 0, 0, -numbers(self.biases) / np.where(scale == 0, 1, scale))
        group = np.arange(cols) // (cols // scale.shape[1])
        self.q = make.Q(unpack(planes["weight"].view(torch.int32), bits, cols, 1), scale, zero, group, bits)
        self.kept = zero

    def write(self, q):
        # A scale that is off is off alone; exchanged rows bring their biases along.
        biases = np.where(q.zero == self.kept, numbers(self.biases), -q.zero * q.scale)
        return {"weight": words(q.codes, q.bits, 1, self.dtype), "scales": like(q.scale, self.scales),
                "biases": like(biases, self.biases)}


LAYOUTS = [Gptq, Packed, TorchAo, Mlx, Bytes]


def planes_of(file, base):
    return {name[len(base) + 1:]: file.get_tensor(name) for name in file.keys()
            if name.startswith(base + ".") and "." not in name[len(base) + 1:]}


def layout(planes, config, bits):
    """The layout whose planes these are and which writes them back as they were."""
    for kind in LAYOUTS:
        if kind.parts[0] not in planes or kind.parts[1] not in planes or set(planes) - set(kind.parts):
            continue
        if planes[kind.parts[0]].dtype.is_floating_point:
            continue
        try:
            it = kind(planes, config, bits)
        except (KeyError, ValueError):
            continue
        back = it.write(it.q)
        if set(back) == set(planes) and all(torch.equal(back[name], planes[name]) for name in planes):
            return it
    return None


def main():
    args = argparse.ArgumentParser()
    args.add_argument("tools")
    args.add_argument("out")
    args.add_argument("--bits", type=int, nargs="*", default=[2, 3, 4, 8])
    args.add_argument("--files", type=int, default=14)
    args.add_argument("--seed", type=int, default=4099)
    args = args.parse_args()
    rng = np.random.default_rng(args.seed)
    pairs = []
    for name in sorted(os.listdir(args.tools)):
        path = os.path.join(args.tools, name, "pair.json")
        if os.path.exists(path):
            with open(path) as file:
                pairs.append((os.path.join(args.tools, name), json.load(file)))
    for bits in args.bits:
        mine = [it for it in pairs if it[1]["bits"] == bits]
        rng.shuffle(mine)
        done = 0
        for folder, pair in mine:
            done += done < args.files and one(folder, pair, args.out, rng)
        print(f"{bits} bits: {done} files", flush=True)


def one(folder, pair, out, rng):
    """All faults in one tensor of one file; whether the file's layout is known."""
    path = os.path.join(folder, "quant", "model.safetensors")
    if not os.path.exists(path):
        return False
    config = {}
    if os.path.exists(os.path.join(folder, "quant", "config.json")):
        with open(os.path.join(folder, "quant", "config.json")) as file:
            config = json.load(file)
    kept = {key: config[key] for key in ("quantization_config", "quantization") if key in config}
    with safe_open(path, "pt") as file, safe_open(os.path.join(folder, "ref", "model.safetensors"), "pt") as floats:
        bases = sorted(name[:-len(".weight")] for name in floats.keys() if name.endswith("_proj.weight"))
        base, other = rng.choice([it for it in bases if "self_attn" in it], 2, replace=False)
        metadata = file.metadata() or {}
        planes, others = planes_of(file, base), planes_of(file, other)
        weight = floats.get_tensor(base + ".weight")
        it = layout(planes, config.get("quantization_config", {}), pair["bits"])
        if it is None:
            print("not damaged, its layout is not known here:", pair["family"])
            return False
        metadata = {key: value for key, value in metadata.items() if key == "format" or key == base + ".weight"}
        if base + ".weight" in metadata:
            metadata["tensor_names"] = json.dumps([base + ".weight"])
        damaged = [("tensors-swapped", others)]
        for kind, q in make.faults(it.q, rng):
            if isinstance(it, (Packed, Bytes)) and not it.has_zero and kind.startswith("zero-off"):
                q.codes = np.clip(q.codes - (q.zero - it.q.zero)[:, it.q.group], 0, 2 ** q.bits - 1)
            damaged.append((kind, it.write(q)))
        for kind, new in [(None, planes)] + damaged:
            if kind is not None and all(torch.equal(new[part], planes[part]) for part in planes):
                continue  # it changed nothing
            where = os.path.join(out, f"{os.path.basename(folder)}-{kind or 'sound'}")
            os.makedirs(where, exist_ok=True)
            named = {f"{base}.{part}": value.contiguous() for part, value in new.items()}
            save_file(named, os.path.join(where, "quant.safetensors"), metadata=metadata)
            save_file({base + ".weight": weight}, os.path.join(where, "ref.safetensors"))
            if kept:
                with open(os.path.join(where, "config.json"), "w") as target:
                    json.dump(kept, target)
            with open(os.path.join(where, "pair.json"), "w") as target:
                json.dump({**pair, "fault": kind, "tensor": base + ".weight"}, target)
    return True


if __name__ == "__main__":
    main()
