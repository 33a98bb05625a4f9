#!/usr/bin/env python3
"""Quantize the models of `models.py` with real tools, end to end by each tool's own saving code.

    python3 tools.py TOOL MODELS OUT [--setting TEXT] [--model TEXT] [--seed N]

A folder of OUT for each setting and model: `quant` as the tool wrote it, `ref` a link to the float model, and
`pair.json` (see `score.py`). A tool that fails says so, and the rest goes on. Calibration texts follow from the seed.
"""
import argparse, json, os, shutil, time, traceback
import numpy as np

SETTINGS = {}


def tool(name, *settings):
    """Settings are (name, bits, arguments); the function gets the model, where to write, and the arguments."""
    def keep(function):
        SETTINGS.setdefault(name, []).extend((setting, bits, function, rest) for setting, bits, *rest in settings)
        return function
    return keep


def tokens(seed, count=48, length=96):
    import models
    words = models.texts(count, length, seed)
    return [[int(word[1:]) for word in text.split()] for text in words]


def float_model(path):
    import torch
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)


def ints(bits, size=None, symmetric=True, observer=None, **more):
    group = dict(num_bits=bits, type="int", symmetric=symmetric, **more)
    group.update(strategy="group", group_size=size) if size else group.update(strategy="channel")
    if observer:
        group["observer"] = observer
    return {"config_groups": {"group_0": {"targets": ["Linear"], "weights": group}}}


@tool("llm-compressor",
      ("W8A16 channel", 8, "rtn", dict(scheme="W8A16")),
      ("W8A16 channel, MSE", 8, "rtn", ints(8, None, True, "memoryless_mse")),
      ("INT8 W8A8", 8, "rtn", dict(scheme="INT8")),
      ("INT8 W8A8 GPTQ", 8, "gptq", dict(scheme="INT8")),
      ("W8A16 of 128, GPTQ, asymmetric", 8, "gptq", ints(8, 128, False)),
      ("FP8 dynamic", 8, "rtn", dict(scheme="FP8_DYNAMIC")),
      ("FP8 blocks", 8, "rtn", dict(scheme="FP8_BLOCK")),
      ("MXFP8", 8, "rtn", dict(scheme="MXFP8A16")),
      ("W4A16", 4, "rtn", dict(scheme="W4A16")),
      ("W4A16 asymmetric, MSE", 4, "rtn", ints(4, 64, False, "memoryless_mse")),
      ("W4A16 GPTQ", 4, "gptq", dict(scheme="W4A16")),
      ("W4A16 GPTQ, act order", 4, "gptq", dict(actorder="static", **ints(4, 64, True))),
      ("W4A16 GPTQ, weight order, MSE", 4, "gptq", dict(actorder="weight", **ints(4, 128, False, "memoryless_mse"))),
      ("W4A16 AWQ", 4, "awq", dict(scheme="W4A16_ASYM")),
      ("W4A16 SmoothQuant", 4, "smooth", dict(scheme="W4A16")),
      ("NVFP4A16", 4, "rtn", dict(scheme="NVFP4A16")),
      ("MXFP4A16", 4, "rtn", dict(scheme="MXFP4A16")),
      ("W3A16 GPTQ of 64", 3, "gptq", ints(3, 64, False)),
      ("W3A16 of 32, MSE", 3, "rtn", ints(3, 32, True, "memoryless_mse")),
      ("W2A16 GPTQ of 32", 2, "gptq", ints(2, 32, False)),
      ("W2A16 of 32", 2, "rtn", ints(2, 32, False, "memoryless_mse")))
def llm_compressor(source, out, seed, how, scheme):
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    rows = tokens(seed)
    data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})
    scheme = dict(scheme, targets=["Linear"], ignore=["lm_head"])
    if "config_groups" in scheme:
        del scheme["targets"]
    recipe = [(GPTQModifier if how == "gptq" else QuantizationModifier)(**scheme)]
    if how == "awq":
        from llmcompressor.modifiers.transform.awq import AWQModifier
        recipe = [AWQModifier(duo_scaling=True), *recipe]
    if how == "smooth":
        from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
        recipe = [SmoothQuantModifier(smoothing_strength=0.5), *recipe]
    model = float_model(source)
    need = {} if how == "rtn" else dict(dataset=data, num_calibration_samples=len(rows), max_seq_length=96, batch_size=4)
    oneshot(model=model, recipe=recipe, **need)
    model.save_pretrained(out, save_compressed=True)


@tool("gptqmodel",
      ("8 bit of 128", 8, dict(bits=8, group_size=128, sym=True, desc_act=False)),
      ("8 bit, channel", 8, dict(bits=8, group_size=-1, sym=False, desc_act=False, act_group_aware=False)),
      ("4 bit of 128", 4, dict(bits=4, group_size=128, sym=True, desc_act=False)),
      ("4 bit of 64, act order", 4, dict(bits=4, group_size=64, sym=True, desc_act=True)),
      ("4 bit of 32, asymmetric, v2", 4, dict(bits=4, group_size=32, sym=False, desc_act=False, format="gptq_v2")),
      ("4 bit of 128, MSE", 4, dict(bits=4, group_size=128, sym=True, desc_act=False, mse=2.4)),
      ("4 bit, channel, act order", 4, dict(bits=4, group_size=-1, sym=True, desc_act=True)),
      ("3 bit of 64", 3, dict(bits=3, group_size=64, sym=True, desc_act=False)),
      ("3 bit of 128, act order", 3, dict(bits=3, group_size=128, sym=False, desc_act=True)),
      ("2 bit of 32", 2, dict(bits=2, group_size=32, sym=True, desc_act=False)),
      ("2 bit of 64, asymmetric, v2", 2, dict(bits=2, group_size=64, sym=False, desc_act=False, format="gptq_v2")),
      ("AWQ of 128", 4, dict(bits=4, group_size=128, method="awq", format="gemm")))
def gptqmodel(source, out, seed, settings):
    os.environ["GPTQMODEL_CPU_WORKERS"] = "2"  # it asks for no fewer
    from gptqmodel import GPTQModel, QuantizeConfig
    model = GPTQModel.load(source, QuantizeConfig(**settings), device="cpu")
    rows = tokens(seed, 96, 128)
    model.quantize([{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows], batch_size=4)
    model.save(out)


@tool("auto-round",
      ("W8 of 128", 8, dict(bits=8, group_size=128, sym=True), "auto_round"),
      ("W4 of 128", 4, dict(bits=4, group_size=128, sym=True), "auto_round"),
      ("W4 of 64, asymmetric, GPTQ's format", 4, dict(bits=4, group_size=64, sym=False), "auto_gptq"),
      ("W4 of 128, asymmetric, AWQ's format", 4, dict(bits=4, group_size=128, sym=False), "auto_awq"),
      ("W3 of 64", 3, dict(bits=3, group_size=64, sym=True), "auto_round"),
      ("W2 of 32", 2, dict(bits=2, group_size=32, sym=True), "auto_round"),
      ("W2 of 64, asymmetric", 2, dict(bits=2, group_size=64, sym=False), "auto_round"))
def auto_round(source, out, seed, settings, form):
    import torch
    from auto_round import AutoRound
    from transformers import AutoTokenizer
    rows = [dict(input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=torch.long))
            for row in tokens(seed, 48, 64)]
    tuned = AutoRound(float_model(source), AutoTokenizer.from_pretrained(source), iters=30, nsamples=48, seqlen=64, batch_size=4,
                      dataset=rows, device_map="cpu", seed=seed, enable_torch_compile=False, **settings)
    tuned.quantize_and_save(out, format=form)
    for inner in (it for it in os.listdir(out) if os.path.isdir(os.path.join(out, it))):  # named after the model
        for name in os.listdir(os.path.join(out, inner)):
            os.rename(os.path.join(out, inner, name), os.path.join(out, name))
        os.rmdir(os.path.join(out, inner))


@tool("mlx-lm",
      ("8 bit of 64", 8, dict(q_bits=8, q_group_size=64)), ("6 bit of 64", 6, dict(q_bits=6, q_group_size=64)),
      ("4 bit of 64", 4, dict(q_bits=4, q_group_size=64)), ("4 bit of 128", 4, dict(q_bits=4, q_group_size=128)),
      ("3 bit of 64", 3, dict(q_bits=3, q_group_size=64)), ("2 bit of 32", 2, dict(q_bits=2, q_group_size=32)),
      ("MXFP4", 4, dict(q_mode="mxfp4", q_bits=4, q_group_size=32)), ("NVFP4", 4, dict(q_mode="nvfp4", q_bits=4, q_group_size=16)))
def mlx(source, out, seed, settings):
    import mlx.core as core
    from mlx_lm import convert
    core.set_default_device(core.cpu)
    convert(source, mlx_path=out, quantize=True, **settings)


@tool("hqq",
      ("8 bit of 128", 8, 8, 128, 1), ("4 bit of 64", 4, 4, 64, 1), ("4 bit of 64, axis 0", 4, 4, 64, 0),
      ("3 bit of 64", 3, 3, 64, 1), ("2 bit of 16", 2, 2, 16, 1), ("2 bit of 32, axis 0", 2, 2, 32, 0))
def hqq(source, out, seed, bits, size, axis):
    """HQQ's own state of each layer, in a file of safetensors (as its `save_to_safetensors` writes it)."""
    import torch
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
    from safetensors.torch import save_file
    model, planes = float_model(source), {}
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and "lm_head" not in name:
            done = HQQLinear(layer, BaseQuantizeConfig(nbits=bits, group_size=size, axis=axis), compute_dtype=torch.bfloat16,
                             device="cpu", del_orig=False)
            for key, value in done.state_dict().items():
                planes[f"{name}.{key}"] = value if torch.is_tensor(value) else torch.tensor(value)
    rest = {name: value for name, value in model.state_dict().items() if name.rsplit(".", 1)[0] + ".W_q" not in planes}
    os.makedirs(out)
    save_file({name: value.contiguous() for name, value in {**rest, **planes}.items()}, os.path.join(out, "model.safetensors"))


@tool("bitsandbytes",
      ("NF4", 4, dict(load_in_4bit=True, bnb_4bit_quant_type="nf4")),
      ("NF4, double", 4, dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)),
      ("FP4", 4, dict(load_in_4bit=True, bnb_4bit_quant_type="fp4")),
      ("LLM.int8", 8, dict(load_in_8bit=True)))
def bitsandbytes(source, out, seed, settings):
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, device_map="cpu",
                                                 quantization_config=BitsAndBytesConfig(**settings))
    model.save_pretrained(out)


@tool("quanto", ("INT8", 8, "qint8"), ("FP8", 8, "qfloat8"), ("INT4", 4, "qint4"), ("INT2", 2, "qint2"))
def quanto(source, out, seed, kind):
    import optimum.quanto as quanto
    from safetensors.torch import save_file
    model = float_model(source)
    quanto.quantize(model, weights=getattr(quanto, kind), exclude="lm_head")
    quanto.freeze(model)
    os.makedirs(out)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, os.path.join(out, "model.safetensors"))


@tool("torchao",
      ("INT8", 8, "Int8WeightOnlyConfig", dict(version=2)),
      ("FP8", 8, "Float8WeightOnlyConfig", dict()),
      ("INT4 of 64", 4, "IntxWeightOnlyConfig", dict(weight_dtype="int4", size=64)),
      ("INT3 of 64", 3, "IntxWeightOnlyConfig", dict(weight_dtype="int3", size=64)),
      ("INT2 of 32", 2, "IntxWeightOnlyConfig", dict(weight_dtype="int2", size=32)),
      ("INT4 of 64, HQQ's scales", 4, "IntxWeightOnlyConfig", dict(weight_dtype="int4", size=64, hqq=True)))
def torchao(source, out, seed, kind, settings):
    import torch, torchao.quantization as ao
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from safetensors.torch import save_file
    settings = dict(settings)
    if "weight_dtype" in settings:
        from torchao.quantization.granularity import PerGroup
        settings.update(weight_dtype=getattr(torch, settings["weight_dtype"]), granularity=PerGroup(settings.pop("size")))
        if settings.pop("hqq", False):
            settings.update(intx_choose_qparams_algorithm="hqq_scale_only")
    model = float_model(source)
    ao.quantize_(model, getattr(ao, kind)(**settings),
                 filter_fn=lambda module, name: isinstance(module, torch.nn.Linear) and "lm_head" not in name)
    planes, about = flatten_tensor_state_dict(model.state_dict())
    os.makedirs(out)
    save_file(planes, os.path.join(out, "model.safetensors"), metadata=about)


@tool("modelopt",
      ("FP8", 8, "FP8_DEFAULT_CFG"), ("INT8 SmoothQuant", 8, "INT8_SMOOTHQUANT_CFG"), ("INT4 AWQ", 4, "INT4_AWQ_CFG"),
      ("NVFP4", 4, "NVFP4_DEFAULT_CFG"), ("MXFP4", 4, "MXFP4_DEFAULT_CFG"))
def modelopt(source, out, seed, kind):
    import torch, modelopt.torch.quantization as mtq
    from modelopt.torch.export import export_hf_checkpoint
    model = float_model(source)

    def feed(it):
        for row in tokens(seed, 24):
            it(torch.tensor([row]))
    model = mtq.quantize(model, getattr(mtq, kind), feed)
    export_hf_checkpoint(model, export_dir=out)


@tool("ggml", *[(f"{kind}{', importance' if imatrix else ''}", bits, kind, imatrix)
                for kind, bits in (("Q8_0", 8), ("Q6_K", 6), ("Q5_K", 5), ("Q4_0", 4), ("Q4_K", 4), ("IQ4_XS", 4), ("Q3_K", 3),
                                   ("IQ3_S", 3), ("IQ3_XXS", 3), ("Q2_K", 2), ("IQ2_S", 2))
                for imatrix in (False, True) if imatrix or not kind.startswith("IQ2") and kind != "Q8_0"])
def ggml(source, out, seed, kind, imatrix):
    """ggml's quantizer, called as llama-quantize calls it, on the first 256 columns (K-quants have blocks of 256).
    The importance is what llama-imatrix measures: mean squares of each column's inputs."""
    import ctypes, gguf, torch, libggml
    folder = os.path.join(os.path.dirname(libggml.__file__), "lib64")
    base = ctypes.CDLL(os.path.join(folder, "libggml-base.so"), ctypes.RTLD_GLOBAL)
    call = base.ggml_quantize_chunk
    call.restype = ctypes.c_size_t
    call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    model, seen = float_model(source).float(), {}

    def watch(name):
        def hook(_, inputs):
            seen[name] = seen.get(name, 0) + inputs[0].detach().reshape(-1, inputs[0].shape[-1]).square().mean(0)
        return hook
    linear = {name: it for name, it in model.named_modules() if isinstance(it, torch.nn.Linear) and "lm_head" not in name}
    for name, it in linear.items():
        it.register_forward_pre_hook(watch(name))
    with torch.no_grad():
        for row in tokens(seed):
            model(torch.tensor([row]))
    kind = gguf.GGMLQuantizationType[kind]
    writers = [gguf.GGUFWriter(path, "llama") for path in (out + ".gguf", os.path.join(os.path.dirname(out), "ref.gguf"))]
    names = dict(q_proj="attn_q", k_proj="attn_k", v_proj="attn_v", o_proj="attn_output", gate_proj="ffn_gate",
                 up_proj="ffn_up", down_proj="ffn_down")
    for name, it in linear.items():
        parts = name.split(".")
        name_there = f"blk.{parts[2]}.{names[parts[-1]]}.weight"
        w = np.ascontiguousarray(it.weight.detach().numpy()[:, :256])
        weight = np.ascontiguousarray(seen[name].numpy()[:256].astype(np.float32))
        space = np.zeros(gguf.quant_shape_to_byte_shape(w.shape, kind), np.uint8)
        wrote = call(int(kind), w.ctypes.data, space.ctypes.data, 0, *w.shape, weight.ctypes.data if imatrix else None)
        assert wrote == space.nbytes, (wrote, space.nbytes)
        writers[0].add_tensor(name_there, space, raw_dtype=kind)
        writers[1].add_tensor(name_there, w)
    for number, layer in enumerate(model.model.layers):  # one that lets nothing through excuses the columns behind it
        for name, norm in (("attn_norm", layer.input_layernorm), ("ffn_norm", layer.post_attention_layernorm)):
            for writer in writers:
                writer.add_tensor(f"blk.{number}.{name}.weight", norm.weight.detach().numpy()[:256].copy())
    for writer in writers:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def main():
    args = argparse.ArgumentParser()
    args.add_argument("tool", choices=SETTINGS)
    args.add_argument("models")
    args.add_argument("out")
    args.add_argument("--setting", default="")
    args.add_argument("--model", default="")
    args.add_argument("--seed", type=int, default=20261)
    args = args.parse_args()
    import torch
    torch.set_num_threads(1)
    for number, (setting, bits, function, rest) in enumerate(SETTINGS[args.tool]):
        for model in sorted(os.listdir(args.models)):
            if args.setting not in setting or args.model not in model:
                continue
            folder = os.path.abspath(os.path.join(args.out, f"{args.tool}-{number:02d}-{model}"))
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            source = os.path.abspath(os.path.join(args.models, model))
            start = time.time()
            try:
                function(source, os.path.join(folder, "quant"), args.seed + number, *rest)
            except Exception as error:
                shutil.rmtree(folder)
                print(f"FAILED {args.tool} {setting} {model}: {type(error).__name__}: {str(error)[:300]}", flush=True)
                traceback.print_exc(limit=-4)
                continue
            if not os.path.exists(os.path.join(folder, "ref.gguf")):
                os.symlink(source, os.path.join(folder, "ref"))
            with open(os.path.join(folder, "pair.json"), "w") as file:
                json.dump({"family": f"{args.tool} {setting}", "bits": bits, "fault": None, "tensor": None, "model": model}, file)
            print(f"made {args.tool} {setting} {model} {time.time() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
