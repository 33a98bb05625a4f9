"""Writes safetensors files for the benchmarks; Python's standard library alone.

Data that are not given are holes: a file of any length takes the disk that its header takes.
"""

import json
import math
import pathlib

# Bytes of an element.
WIDTH = {"F64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "U8": 1, "I8": 1}


def bytes_of(dtype, shape):
    return WIDTH[dtype] * math.prod(shape)


def write(path, tensors):
    """Tensors are (name, dtype, shape, bytes or None); those without bytes are zero."""
    header, end, filled = {}, 0, []
    for name, dtype, shape, data in tensors:
        begin, end = end, end + bytes_of(dtype, shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        if data is not None:
            assert len(data) == end - begin, name
            filled.append((begin, data))
    text = json.dumps(header, separators=(",", ":")).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        for begin, data in filled:
            file.seek(start + begin)
            file.write(data)
        file.truncate(start + end)


def write_sharded(directory, tensors, per_shard, config=None):
    """A checkpoint of many files, with its index."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    count = -(-len(tensors) // per_shard)
    where = {}
    for shard in range(count):
        name = f"model-{shard + 1:05}-of-{count:05}.safetensors"
        part = tensors[shard * per_shard:(shard + 1) * per_shard]
        write(directory / name, part)
        where.update((tensor[0], name) for tensor in part)
    total = sum(bytes_of(dtype, shape) for _, dtype, shape, _ in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "config.json").write_text(json.dumps(config or {}))
