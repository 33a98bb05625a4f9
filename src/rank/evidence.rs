/*! Where the score comes from, and what it does not say. */

/// To whom the weights of roles and the tables behind them are owed; stands wherever a score is shown.
pub const CREDIT: &str = "Expected damage: sensitivities and measurements by Thireus, GGUF Tool Suite and its \
                          contributors (https://github.com/Thireus/GGUF-Tool-Suite); llama.cpp for \
                          Llama-3-8B; ik_llama.cpp's quantizers for what each type gives.";

/// What a score must not be taken for.
pub const NOT_CLAIMED: &[&str] = &[
    "The score ranks quantized models of one reference by the damage that their weights let expect. It \
     measures neither KLD nor accuracy nor the quality of any task, and a small one does not mean lossless.",
    "Scores of different references do not compare, nor do files made with an importance matrix and files \
     made without one: the score is blind to calibration.",
    "The evidence is GGUF files of language models (types of ggml and ik_llama.cpp, 512 tokens of context). \
     GPTQ, AWQ, EXL, FP8 and NVFP4 are not in it: their order is not claimed.",
    "Below 0.01 no order is claimed but that of big steps; above 0.5 the score is a lower bound. It does not \
     tell which tensor of a role matters, and sees nothing of activations, KV caches and kernels.",
];
