"""The comparison as one writes it with numpy: every tensor of two safetensors files, sums in f64."""

import sys

import numpy
from safetensors import safe_open


def load(file, name):
    values = file.get_slice(name)
    if values.get_dtype() != "BF16":
        return file.get_tensor(name).astype(numpy.float64)
    # numpy has no bfloat16: it is the upper half of an f32.
    halves = raw(file, name)
    return (halves.astype(numpy.uint32) << 16).view(numpy.float32).astype(numpy.float64)


def raw(file, name):
    start, end = OFFSETS[name]
    return numpy.fromfile(sys.argv[2], numpy.uint16, (end - start) // 2, offset=DATA + start)


def header(path):
    import json

    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length))
    offsets = {name: entry["data_offsets"] for name, entry in entries.items() if name[:2] != "__"}
    return 8 + length, offsets


DATA, OFFSETS = header(sys.argv[2])
with safe_open(sys.argv[1], "np") as reference, safe_open(sys.argv[2], "np") as quantized:
    for name in reference.keys():
        r, q = load(reference, name).ravel(), load(quantized, name).ravel()
        error = q - r
        rr, qq, ee = r @ r, q @ q, error @ error
        cosine = (r @ q) / numpy.sqrt(rr * qq)
        print(name, cosine, numpy.sqrt(ee / r.size), numpy.abs(error).max(), error.mean(), sep="\t")
