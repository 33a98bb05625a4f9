"""Writes the fixtures of this folder with gguf-py 0.19 (pip install gguf==0.19.0 numpy)."""

import numpy as np
import gguf
from gguf import GGMLQuantizationType as T, GGUFValueType as V


def every_value_type():
    w = gguf.GGUFWriter("values.gguf", "test")
    w.add_custom_alignment(64)
    w.add_uint8("scalar.u8", 255)
    w.add_int8("scalar.i8", -128)
    w.add_uint16("scalar.u16", 65535)
    w.add_int16("scalar.i16", -32768)
    w.add_uint32("scalar.u32", 2**32 - 1)
    w.add_int32("scalar.i32", -(2**31))
    w.add_float32("scalar.f32", 1e-12)
    w.add_uint64("scalar.u64", 2**64 - 1)
    w.add_int64("scalar.i64", -(2**63))
    w.add_float64("scalar.f64", 0.1)
    w.add_bool("scalar.true", True)
    w.add_bool("scalar.false", False)
    w.add_string("scalar.string", "naïve 🦙")
    w.add_array("short.strings", ["a", "", "c"])
    w.add_array("short.ints", [3, 1, 2])
    w.add_array("long.strings", [f"token {i}" for i in range(100)])
    w.add_array("long.floats", [i / 4 for i in range(100)])
    w.add_string("long.string", "x" * 5000)
    w.add_tensor("matrix", np.arange(6, dtype=np.float32).reshape(2, 3))
    w.add_tensor("cube", np.arange(24, dtype=np.float16).reshape(2, 3, 4))
    w.add_tensor("one", np.array([7], dtype=np.float32))
    w.add_tensor("integers", np.arange(-2, 3, dtype=np.int8))
    rows = np.linspace(-1, 1, 4 * 64, dtype=np.float32).reshape(2, 2, 64)
    w.add_tensor("blocks", gguf.quants.quantize(rows, T.Q8_0), raw_dtype=T.Q8_0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def shards():
    w = gguf.GGUFWriter("split.gguf", "test", split_max_tensors=2)
    w.add_name("five tensors in three shards")
    for i in range(5):
        w.add_tensor(f"t{i}", np.full((2, 8), i, dtype=np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


every_value_type()
shards()
for path in ["values.gguf"]:
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type) \
            if tensor.tensor_type != T.I8 else tensor.data
        print(path, tensor.name, list(reversed(tensor.shape.tolist())), tensor.tensor_type.name,
              tensor.data_offset, tensor.n_bytes, np.asarray(values).ravel()[:3])
