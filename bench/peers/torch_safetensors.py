"""The comparison as one writes it with torch and numpy, which read every float type of safetensors."""

import sys

import numpy
from safetensors import safe_open


def values(file, name):
    return file.get_tensor(name).double().numpy().ravel()


with safe_open(sys.argv[1], "pt") as reference, safe_open(sys.argv[2], "pt") as quantized:
    for name in reference.keys():
        r, q = values(reference, name), values(quantized, name)
        error = q - r
        cosine = (r @ q) / (numpy.linalg.norm(r) * numpy.linalg.norm(q))
        rmse = numpy.sqrt(numpy.mean(error**2))
        print(name, cosine, rmse, numpy.abs(error).max(), error.mean(), sep="\t")
