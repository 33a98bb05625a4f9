#!/usr/bin/env python3
"""Make sound and damaged quantizations of given weights, one folder a pair.

    python3 make.py OUT WEIGHTS.safetensors... [--rows N] [--seed N] [--tensors TEXT]

Needs numpy. Each folder of OUT holds `ref.safetensors`, `quant.safetensors`, `config.json`, and `pair.json`:
{"family": ..., "bits": ..., "fault": null or its kind, "tensor": name}. `score.py` reads these, whoever wrote
them; so real tools can add folders of their own. Everything follows from the seed.

Quantizers: rounding to nearest, scales of least error, percentile clipping, stochastic rounding, error feedback
(GPTQ, also with sorted columns and static scales), refitted scales (as DWQ), per group, row and tensor, of 2, 3,
4 and 8 bits, and FP8. Faults are put into stored codes, scales and zero points, never into decoded values.
"""
import argparse, json, os, struct
import numpy as np


def read(path):
    """Float tensors of a safetensors file."""
    with open(path, "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    for name, row in json.loads(data[8:8 + size]).items():
        if name == "__metadata__" or row["dtype"] not in ("F32", "F16", "BF16") or len(row["shape"]) != 2:
            continue
        start, end = row["data_offsets"]
        raw = data[8 + size + start:8 + size + end]
        if row["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[row["dtype"]]).astype("<f4")
        yield name, values.reshape(row["shape"])


def write(path, planes):
    """A safetensors file; BF16 is given as ("BF16", array of u2)."""
    header, data = {}, b""
    names = {"float32": "F32", "float16": "F16", "int32": "I32", "uint32": "U32", "int8": "I8", "uint8": "U8"}
    for name, plane in planes.items():
        dtype, array = plane if isinstance(plane, tuple) else (names[plane.dtype.name], plane)
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


class Q:
    """Codes [rows, cols] with scales and zero points [rows, groups], and each column's group."""

    def __init__(self, codes, scale, zero, group, bits):
        self.codes, self.scale, self.zero, self.group, self.bits = codes, scale, zero, group, bits

    def copy(self):
        return Q(self.codes.copy(), self.scale.copy(), self.zero.copy(), self.group, self.bits)

    def decode(self):
        return (self.codes - self.zero[:, self.group]) * self.scale[:, self.group]


def scales(w, bits, symmetric, how="absmax", half=True):
    """Scale and zero point of each row of w."""
    top = 2 ** bits - 1

    def of(shrink):
        if symmetric:
            scale = np.abs(w).max(1) * shrink / (2 ** (bits - 1) - (0 if bits < 8 else 1))
            zero = np.full(len(w), 2.0 ** (bits - 1))
        else:
            low, high = np.minimum(w.min(1), 0) * shrink, np.maximum(w.max(1), 0) * shrink
            scale = (high - low) / top
            zero = np.round(-low / np.where(scale == 0, 1, scale))
        scale = np.where(scale <= 0, 1e-6, scale)
        return (scale.astype(np.float16).astype(np.float64) if half else scale), np.clip(zero, 0, top)

    if how == "absmax":
        return of(1.0)
    if how.startswith("p"):
        share = float(how[1:])
        limit = np.quantile(np.abs(w), share, axis=1) / np.maximum(np.abs(w).max(1), 1e-30)
        return of(limit)
    best, kept = None, None
    for shrink in np.linspace(1.0, 0.5, 26):
        scale, zero = of(shrink)
        q = np.clip(np.round(w / scale[:, None]) + zero[:, None], 0, top)
        error = (np.abs((q - zero[:, None]) * scale[:, None] - w) ** 2.4).sum(1)
        if best is None:
            best, kept = error, [scale, zero]
        better = error < best
        best = np.where(better, error, best)
        kept = [np.where(better, new, old) for new, old in zip((scale, zero), kept)]
    return kept


def grids(w, bits, symmetric, size, how, half=True):
    parts = [scales(w[:, at:at + size], bits, symmetric, how, half) for at in range(0, w.shape[1], size)]
    return np.stack([s for s, _ in parts], 1), np.stack([z for _, z in parts], 1)


def nearest(w, scale, zero, group, bits, rng=None):
    exact = w / scale[:, group] + zero[:, group]
    codes = np.floor(exact + rng.random(w.shape)) if rng is not None else np.round(exact)
    return Q(np.clip(codes, 0, 2 ** bits - 1), scale, zero, group, bits)


def hessian(cols, rng):
    """Of correlated activations with a few loud channels and means that are not zero."""
    rank = max(8, cols // 6)
    mix = rng.standard_normal((rank, cols)) * (np.arange(1, rank + 1) ** -0.7)[:, None]
    x = rng.standard_normal((4 * cols, rank)) @ mix + 0.3 * rng.standard_normal((4 * cols, cols))
    x += 0.5 * rng.standard_normal(cols)
    x[:, rng.choice(cols, 4, replace=False)] *= 12
    h = 2 * x.T @ x / len(x)
    return h + 0.01 * np.mean(np.diag(h)) * np.eye(cols)


def feedback(w, bits, symmetric, size, how, h, order=None, static=False):
    """GPTQ: columns one by one, each one's error spread over those that follow."""
    rows, cols = w.shape
    order = np.arange(cols) if order is None else order
    group = np.arange(cols) // size
    if order is not None and not static and not np.array_equal(order, np.arange(cols)):
        group = np.empty(cols, int)
        group[order] = np.arange(cols) // size
    w, h = w[:, order].astype(np.float64).copy(), h[np.ix_(order, order)]
    factor = np.linalg.cholesky(np.linalg.inv(h)).T
    count = -(-cols // size)
    scale, zero = np.ones((rows, count)), np.zeros((rows, count))
    if static:
        back = np.argsort(order)
        scale, zero = grids(w[:, back], bits, symmetric, size, how)
    codes = np.zeros((rows, cols))
    for at in range(cols):
        g = group[order[at]]
        if not static and at % size == 0:
            scale[:, g], zero[:, g] = scales(w[:, at:at + size], bits, symmetric, how)
        codes[:, at] = np.clip(np.round(w[:, at] / scale[:, g]) + zero[:, g], 0, 2 ** bits - 1)
        error = (w[:, at] - (codes[:, at] - zero[:, g]) * scale[:, g]) / factor[at, at]
        w[:, at + 1:] -= error[:, None] * factor[at, at + 1:]
    out = np.empty_like(codes)
    out[:, order] = codes
    return Q(out, scale, zero, group, bits)


def refit(q, w, h):
    """Scales and offsets for the least error of the outputs, codes kept: as DWQ does."""
    q = q.copy()
    zero = -q.zero * q.scale
    weight = np.sqrt(np.diag(h))
    for g in range(q.scale.shape[1]):
        at = q.group == g
        c, t, k = q.codes[:, at], w[:, at], weight[at] ** 2
        k = k / k.sum()
        mc, mt = (c * k).sum(1), (t * k).sum(1)
        var = ((c - mc[:, None]) ** 2 * k).sum(1)
        cov = ((c - mc[:, None]) * (t - mt[:, None]) * k).sum(1)
        slope = np.where(var > 0, cov / np.where(var > 0, var, 1), q.scale[:, g])
        slope = np.where(slope > 0, slope, q.scale[:, g])
        q.scale[:, g] = 0.5 * q.scale[:, g] + 0.5 * slope
        zero[:, g] = mt - q.scale[:, g] * mc
    q.zero = -zero / q.scale
    return q


def pack(codes, bits, axis):
    """Codes into 32-bit words along an axis, the lowest bits first; they may straddle words."""
    codes = np.moveaxis(codes.astype(np.uint64), axis, 0)
    count = codes.shape[0] * bits // 32
    bit = np.zeros((codes.shape[0] * bits,) + codes.shape[1:], np.uint8)
    for b in range(bits):
        bit[b::bits] = (codes >> np.uint64(b)) & np.uint64(1)
    words = np.zeros((count,) + codes.shape[1:], np.uint64)
    for b in range(32):
        words |= bit[b::32].astype(np.uint64) << np.uint64(b)
    return np.moveaxis(words.astype(np.uint32), 0, axis)


def as_gptq(q, base):
    zero = (q.zero - 1) % (2 ** q.bits)
    planes = {
        base + ".qweight": pack(q.codes.T, q.bits, 0).view(np.int32),
        base + ".qzeros": pack(zero.T, q.bits, 1).view(np.int32),
        base + ".scales": q.scale.T.astype(np.float16),
        base + ".g_idx": q.group.astype(np.int32),
    }
    return planes, {"quant_method": "gptq", "bits": q.bits, "group_size": int(np.bincount(q.group).max()),
                    "checkpoint_format": "gptq", "sym": False, "desc_act": bool((np.diff(q.group) < 0).any())}


def as_mlx(q, base):
    planes = {
        base + ".weight": pack(q.codes, q.bits, 1),
        base + ".scales": q.scale.astype(np.float32),
        base + ".biases": (-q.zero * q.scale).astype(np.float32),
    }
    return planes, {"group_size": int(np.bincount(q.group).max()), "bits": q.bits}


def as_int8(q, base):
    signed = (q.codes - 128).astype(np.int8)
    return {base + ".weight": signed, base + ".weight_scale": q.scale.astype(np.float32)}, {
        "quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
            "num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel" if len(q.scale) > 1 else "tensor"}}}}


def as_packed(q, base):
    cols = q.codes.shape[1]
    planes = {
        base + ".weight_packed": pack(q.codes, q.bits, 1).view(np.int32),
        base + ".weight_scale": q.scale.astype(np.float32),
        base + ".weight_shape": ("I64", np.array([len(q.codes), cols], np.int64)),
    }
    return planes, {"quant_method": "compressed-tensors", "format": "pack-quantized",
                    "quantization_status": "compressed", "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
                        "num_bits": q.bits, "type": "int", "symmetric": True, "strategy": "group",
                        "group_size": int(np.bincount(q.group).max())}}}}


def families(w, rng):
    """Family, bits, quantized weight, writer."""
    cols = w.shape[1]
    size = next(s for s in (128, 64, 32) if cols % s == 0)
    h = hessian(cols, rng)
    order = np.argsort(-np.diag(h))
    group = np.arange(cols) // size

    def rtn(bits, symmetric, s, how, half=True, stochastic=None):
        g = np.arange(cols) // s
        scale, zero = grids(w, bits, symmetric, s, how, half)
        return nearest(w, scale, zero, g, bits, stochastic)

    for bits in (2, 3, 4, 8):
        s = 32 if bits == 2 else size
        yield f"gptq{bits}-asym", bits, feedback(w, bits, False, s, "absmax", h), as_gptq
        yield f"gptq{bits}-mse", bits, feedback(w, bits, False, s, "mse", h), as_gptq
    yield "gptq4-sym", 4, feedback(w, 4, True, size, "absmax", h), as_gptq
    yield "gptq4-desc", 4, feedback(w, 4, False, size, "absmax", h, order), as_gptq
    yield "gptq4-static", 4, feedback(w, 4, False, size, "absmax", h, order, True), as_gptq
    yield "gptq4-channel", 4, feedback(w, 4, False, cols, "mse", h), as_gptq
    yield "gptq3-desc", 3, feedback(w, 3, False, size, "mse", h, order), as_gptq
    yield "gptq4-rtn", 4, rtn(4, False, size, "absmax"), as_gptq
    for bits in (2, 4, 8):
        s = 32 if bits == 2 else 64 if cols % 64 == 0 else 32
        plain = rtn(bits, False, s, "absmax", False)
        yield f"mlx{bits}-rtn", bits, plain, as_mlx
        yield f"mlx{bits}-mse", bits, rtn(bits, False, s, "mse", False), as_mlx
        if bits < 8:
            yield f"mlx{bits}-refit", bits, refit(feedback(w, bits, False, s, "mse", h), w, h), as_mlx
    yield "int8-absmax", 8, rtn(8, True, cols, "absmax", False), as_int8
    yield "int8-mse", 8, rtn(8, True, cols, "mse", False), as_int8
    yield "int8-p9999", 8, rtn(8, True, cols, "p0.9999", False), as_int8
    yield "int8-stochastic", 8, rtn(8, True, cols, "absmax", False, rng), as_int8
    yield "int8-gptq", 8, feedback(w, 8, True, cols, "absmax", h), as_int8
    one = rtn(8, True, cols, "absmax", False)
    one.scale[:] = np.abs(w).max() / 127
    one = nearest(w, one.scale, one.zero, one.group, 8)
    one.scale = one.scale[:1]
    yield "int8-tensor", 8, one, as_int8
    yield "ct4-mse", 4, rtn(4, True, size, "mse", False), as_packed
    yield "ct4-stochastic", 4, rtn(4, True, size, "absmax", False, rng), as_packed
    yield "ct4-gptq", 4, feedback(w, 4, True, size, "absmax", h), as_packed
    yield "ct2-mse", 2, rtn(2, True, 32, "mse", False), as_packed
    assert group.max() >= 0


def faults(q, rng):
    """Kind and damaged copy; two rows or groups are hit, as far as there are so many."""
    rows, cols = q.codes.shape
    many = len(q.scale) == rows
    two = rng.choice(rows, 2, replace=False)
    g = int(rng.integers(q.scale.shape[1]))
    top = 2 ** q.bits - 1

    def make(change):
        copy = q.copy()
        change(copy)
        return copy

    def assign(array, index, value):
        array[index] = value

    if many:
        yield "scale-doubled", make(lambda x: assign(x.scale, (two, g), x.scale[two, g] * 2))
        yield "scale-halved", make(lambda x: assign(x.scale, (two, g), x.scale[two, g] / 2))
        yield "scales-of-next-row", make(lambda x: assign(x.scale, two, x.scale[(two + 1) % rows]))
        yield "rows-swapped", make(lambda x: [assign(a, two, a[two[::-1]]) for a in (x.codes, x.scale, x.zero)])
        yield "zero-off-row", make(lambda x: assign(x.zero, two, x.zero[two] + 1))
        yield "zero-off-all", make(lambda x: assign(x.zero, slice(None), x.zero + 1))
        yield "scale-lost-row", make(lambda x: assign(x.scale, two, 1))
        if q.scale.shape[1] > 1:
            yield "zero-off-group", make(lambda x: assign(x.zero, (two, g), x.zero[two, g] + 1))
            yield "scale-lost-group", make(lambda x: assign(x.scale, (two, g), 1))
            here, there = (np.flatnonzero(q.group == n % q.scale.shape[1]) for n in (g, g + 1))
            if len(here) == len(there):
                both, back = np.concatenate([here, there]), np.concatenate([there, here])
                yield "groups-swapped", make(lambda x: assign(x.codes, np.ix_(two, both), x.codes[np.ix_(two, back)]))
    yield "scale-lost", make(lambda x: assign(x.scale, slice(None), 1))
    yield "row-negated", make(lambda x: assign(x.codes, two, top - x.codes[two]))
    pair = rng.choice(cols, 2, replace=False)
    zero = np.clip(np.round(q.zero[:, q.group[pair]]), 0, top)
    yield "columns-zero", make(lambda x: assign(x.codes, (slice(None), pair), zero))
    yield "columns-negated", make(lambda x: assign(x.codes, (slice(None), pair), top - x.codes[:, pair]))
    yield "columns-swapped", make(lambda x: assign(x.codes, (slice(None), pair), x.codes[:, pair[::-1]]))
    yield "codes-swapped", make(lambda x: assign(x.codes, two, x.codes[two[::-1]]))
    yield "row-shifted", make(lambda x: assign(x.codes, two, np.roll(x.codes[two], 1, 1)))
    yield "nibbles-swapped", make(lambda x: assign(x.codes, slice(None), x.codes.reshape(rows, -1, 2)[:, :, ::-1].reshape(rows, cols)))
    noise = rng.integers(0, top + 1, (2, cols))
    yield "codes-random", make(lambda x: assign(x.codes, two, noise))
    span = slice(cols // 4, cols // 4 + max(32, cols // 12))
    yield "codes-negated-block", make(lambda x: assign(x.codes, (two, span), top - x.codes[two, span]))


def main():
    args = argparse.ArgumentParser()
    args.add_argument("out")
    args.add_argument("weights", nargs="+")
    args.add_argument("--rows", type=int, default=96)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--tensors", default="weight")
    args.add_argument("--families", default="")
    args = args.parse_args()
    rng = np.random.default_rng(args.seed)
    count = 0
    for path in args.weights:
        for name, values in read(path):
            if args.tensors not in name or not name.endswith(".weight") or values.shape[1] % 32:
                continue
            first = int(rng.integers(max(1, len(values) - args.rows)))
            first -= first % 32
            w = values[first:first + args.rows].astype(np.float64)
            w = w[:len(w) - len(w) % 32]
            if len(w) < 32:
                continue
            base = name[:-len(".weight")]
            for family, bits, q, writer in families(w, rng):
                for fault, it in [(None, q)] + list(faults(q, rng)):
                    zero_of = writer in (as_int8, as_packed)
                    if zero_of and fault and fault.startswith("zero-off"):
                        it.codes = np.clip(it.codes - (it.zero - q.zero)[:, it.group], 0, 2 ** bits - 1)
                    if writer is as_gptq:
                        it.zero = np.clip(it.zero, 0, 2 ** bits - 1)
                    folder = os.path.join(args.out, f"{count:05d}-{family}-{fault or 'sound'}")
                    count += 1
                    os.makedirs(folder, exist_ok=True)
                    planes, config = writer(it, base)
                    key = "quantization" if writer is as_mlx else "quantization_config"
                    write(os.path.join(folder, "quant.safetensors"), planes)
                    write(os.path.join(folder, "ref.safetensors"), {name: w.astype(np.float32)})
                    with open(os.path.join(folder, "config.json"), "w") as file:
                        json.dump({key: config}, file)
                    with open(os.path.join(folder, "pair.json"), "w") as file:
                        json.dump({"family": family, "bits": bits, "fault": fault, "tensor": name}, file)
    print(count, "pairs")


if __name__ == "__main__":
    main()
