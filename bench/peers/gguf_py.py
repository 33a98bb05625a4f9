"""The comparison as one writes it with gguf-py: every tensor of two GGUF files, sums in f64."""

import sys

import numpy
from gguf import GGUFReader
from gguf.quants import dequantize


def values(tensor):
    return dequantize(tensor.data, tensor.tensor_type).ravel().astype(numpy.float64)


references = {tensor.name: tensor for tensor in GGUFReader(sys.argv[1]).tensors}
for tensor in GGUFReader(sys.argv[2]).tensors:
    try:
        r, q = values(references[tensor.name]), values(tensor)
    except NotImplementedError:
        sys.exit(f"gguf-py cannot decode {tensor.tensor_type.name}")
    error = q - r
    rr, qq, ee = r @ r, q @ q, error @ error
    cosine = (r @ q) / numpy.sqrt(rr * qq)
    print(tensor.name, cosine, numpy.sqrt(ee / r.size), numpy.abs(error).max(), sep="\t")
