//! The metadata of converted models against the configuration of their checkpoints: sound pairs agree, and
//! every number that is compared is missed where it is another.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use qualm::counterpart;
use qualm::model::{self, Model};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hf-gguf");
    std::env::var_os("QUALM_HF_GGUF").map_or_else(own, PathBuf::from)
}

fn messages(checkpoint: &Model, gguf: &Model) -> Vec<String> {
    let compared = counterpart::compare(checkpoint, gguf).expect("a pair with a configuration");
    assert_eq!(compared.notes, Vec::<String>::new());
    compared.findings.into_iter().map(|finding| finding.message).collect()
}

/// Another value of the same kind; none for what is no number.
fn other(value: &Value) -> Option<Value> {
    match value {
        Value::Number(number) => Some(match number.as_u64() {
            Some(whole) => json!(whole + 1),
            None => json!(number.as_f64()? * 1.5 + 1.0),
        }),
        Value::Array(list) => {
            let mut list = list.clone();
            let last = list.last_mut()?;
            *last = match &*last {
                Value::Bool(truth) => json!(!truth),
                last => other(last)?,
            };
            Some(Value::Array(list))
        }
        _ => None,
    }
}

/// Keys that must be compared wherever a pair has them, but for the exceptions of single converters.
const COMPARED: &[&str] = &[
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.kv_lora_rank",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "expert_feed_forward_length",
    "expert_used_count",
    "feed_forward_length",
    "logit_scale",
    "rope.dimension_count",
    "rope.freq_base",
    "ssm.conv_kernel",
    "ssm.inner_size",
    "ssm.state_size",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "vision.block_count",
    "vocab_size",
];

#[test]
fn sound_pairs_agree_and_every_other_number_is_found() {
    let mut found = BTreeSet::new();
    let mut pairs = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let directory = entry.unwrap().path();
        if !directory.join("config.json").is_file() {
            continue;
        }
        pairs += 1;
        let checkpoint = model::open(&directory).unwrap();
        let sound = model::open(&directory.join("model-f.gguf")).unwrap();
        let case = directory.display();
        assert_eq!(messages(&checkpoint, &sound), Vec::<String>::new(), "{case}");
        assert_eq!(
            messages(&sound, &checkpoint),
            Vec::<String>::new(),
            "{case}, the other way round"
        );
        for at in 0..sound.metadata.len() {
            let mut mutant = sound.clone();
            let (key, value) = &mut mutant.metadata[at];
            let (Some(changed), key) = (other(value), key.clone()) else { continue };
            *value = changed;
            let messages = messages(&checkpoint, &mutant);
            if messages.iter().any(|message| message.starts_with(&format!("{key} is "))) {
                let common = key.starts_with("tokenizer.");
                let short = if common { &key[..] } else { key.split_once('.').unwrap().1 };
                found.insert(short.to_owned());
            }
        }
    }
    assert!(pairs >= 15, "{pairs} pairs");
    for key in COMPARED {
        assert!(found.contains(*key), "{key} is compared nowhere; those that are: {found:#?}");
    }
}

/// A checkpoint with a tokenizer beside it, and its GGUF file.
struct WithTokenizer {
    directory: tempfile::TempDir,
    gguf: Model,
}

impl WithTokenizer {
    fn new(files: &[(&str, Value)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = folder().join("llama-fuseqkv");
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(own.join(name), directory.path().join(name)).unwrap();
        }
        for (name, content) in files {
            let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let gguf = model::open(&own.join("model-f.gguf")).unwrap();
        Self { directory, gguf }
    }

    fn says(&self, key: &str, value: Value) -> Vec<String> {
        let mut gguf = self.gguf.clone();
        gguf.metadata.retain(|(known, _)| known != key);
        gguf.metadata.push((key.to_owned(), value));
        messages(&model::open(self.directory.path()).unwrap(), &gguf)
    }
}

#[test]
fn the_tokenizer_is_compared_with_the_files_beside_the_checkpoint() {
    let tokenizer = json!({
        "added_tokens": [{"id": 0, "content": "<s>"}, {"id": 2, "content": "</s>"}],
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        ]},
        "model": {"merges": [["a", "b"], ["c", "d e"]]},
    });
    let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": true,
        "add_eos_token": false, "chat_template": "{{ messages }}"});
    let pair =
        WithTokenizer::new(&[("tokenizer.json", tokenizer), ("tokenizer_config.json", config)]);
    let cases = [
        ("tokenizer.ggml.bos_token_id", json!(0), None),
        ("tokenizer.ggml.eos_token_id", json!(2), None),
        (
            "tokenizer.ggml.eos_token_id",
            json!(5),
            Some(
                "tokenizer.ggml.eos_token_id is 5, and tokenizer_config.json says eos_token = \"</s>\", which is 2",
            ),
        ),
        ("tokenizer.ggml.add_bos_token", json!(true), None),
        (
            "tokenizer.ggml.add_bos_token",
            json!(false),
            Some(
                "tokenizer.ggml.add_bos_token is false, and tokenizer_config.json says add_bos_token = true",
            ),
        ),
        ("tokenizer.ggml.add_eos_token", json!(false), None),
        ("tokenizer.ggml.add_eos_token", json!(true), Some("tokenizer.ggml.add_eos_token is true")),
        ("tokenizer.ggml.merges", json!(["a b", "c dĠe"]), None),
        (
            "tokenizer.ggml.merges",
            json!(["a b"]),
            Some("tokenizer.ggml.merges has 1 merges, not the 2 of"),
        ),
        (
            "tokenizer.ggml.merges",
            json!(["a b", "c d"]),
            Some("tokenizer.ggml.merges has 2 merges, others than the 2 of"),
        ),
        ("tokenizer.chat_template", json!("{{ messages }}"), None),
        (
            "tokenizer.chat_template",
            json!("{{ others }}"),
            Some(
                "tokenizer.chat_template is a text of 12 bytes, and chat_template in tokenizer_config.json",
            ),
        ),
    ];
    for (key, stated, expected) in cases {
        let messages = pair.says(key, stated.clone());
        match expected {
            None => assert_eq!(messages, Vec::<String>::new(), "{key} {stated}"),
            Some(text) => {
                assert!(messages.iter().any(|it| it.starts_with(text)), "{key}: {messages:?}");
            }
        }
    }
}

/// A GGUF file of two keys whose values are strings.
fn tokens_file(model: &str, tokens: &[&str]) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(3u64.to_le_bytes());
    for (key, value) in [("general.architecture", "llama"), ("tokenizer.ggml.model", model)] {
        bytes.extend(text(key));
        bytes.extend(8u32.to_le_bytes());
        bytes.extend(text(value));
    }
    bytes.extend(text("tokenizer.ggml.tokens"));
    bytes.extend(9u32.to_le_bytes());
    bytes.extend(8u32.to_le_bytes());
    bytes.extend((tokens.len() as u64).to_le_bytes());
    bytes.extend(tokens.iter().flat_map(|token| text(token)));
    bytes
}

#[test]
fn the_list_of_tokens_is_compared_one_by_one() {
    let long: Vec<String> = (0..40).map(|n| format!("t{n}")).collect();
    let long = |change: Option<(usize, &'static str)>| {
        let mut tokens: Vec<&str> = long.iter().map(String::as_str).collect();
        if let Some((at, text)) = change {
            tokens[at] = text;
        }
        tokens.join(" ")
    };
    let bpe = r#"{"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġc": 2}}"#;
    let pieces = r###"{"type": "WordPiece", "vocab": {"[CLS]": 0, "un": 1, "##do": 2}}"###;
    let unigram = r#"{"type": "Unigram", "vocab": [["a", 0.5]]}"#;
    let many = format!(
        r#"{{"type": "BPE", "vocab": {{{}}}}}"#,
        (0..40).map(|n| format!("\"t{n}\": {n}")).collect::<Vec<_>>().join(", ")
    );
    let differs = |text: &str| Some(format!("tokenizer.ggml.tokens has {text}"));
    let cases = [
        (bpe, "llama", "a b Ġc".to_owned(), None),
        (bpe, "gpt2", "a b Ġc <extra\u{2581}token> [PAD4]".to_owned(), None),
        (bpe, "gpt2", "a b Ġc <extratoken>".to_owned(), None),
        (
            bpe,
            "gpt2",
            "a Ġc b".to_owned(),
            differs(r#""Ġc" as number 1, and tokenizer.json says "b"; 2 of 3 differ"#),
        ),
        (bpe, "llama", "a b".to_owned(), None),
        (
            bpe,
            "gpt2",
            "a b".to_owned(),
            differs("2 tokens, and tokenizer.json goes up to number 3"),
        ),
        (bpe, "rwkv", "x y".to_owned(), None),
        (pieces, "bert", "[CLS] \u{2581}un do".to_owned(), None),
        (
            pieces,
            "bert",
            "[CLS] un ##do".to_owned(),
            differs("\"un\" as number 1, and tokenizer.json says \"\u{2581}un\"; 2 of 3 differ"),
        ),
        (unigram, "t5", "b".to_owned(), None),
        (&many, "gpt2", long(None), None),
        (
            &many,
            "gpt2",
            long(Some((33, "t34"))),
            differs(r#""t34" as number 33, and tokenizer.json says "t33"; 1 of 40 differ"#),
        ),
    ];
    for (said, model, tokens, expected) in cases {
        let added =
            if said == bpe { json!([{"id": 3, "content": "<extra token>"}]) } else { json!([]) };
        let said: Value = serde_json::from_str(said).unwrap();
        let pair = WithTokenizer::new(&[(
            "tokenizer.json",
            json!({"added_tokens": added, "model": said}),
        )]);
        let file = pair.directory.path().join("model.gguf");
        std::fs::write(&file, tokens_file(model, &tokens.split(' ').collect::<Vec<_>>())).unwrap();
        let gguf = model::open(&file).unwrap();
        let found = messages(&model::open(pair.directory.path()).unwrap(), &gguf);
        let found = found.iter().find(|it| it.contains("tokens has"));
        match (found, &expected) {
            (None, None) => {}
            (Some(found), Some(expected)) => assert_eq!(found, expected),
            _ => panic!("{model} {tokens}: {found:?}, not {expected:?}"),
        }
    }
}

#[test]
fn long_merges_and_templates_are_compared_by_their_digest() {
    let merges: Vec<String> = (0..40).map(|n| format!("a{n} b{n}")).collect();
    let template = "{{ x }}".repeat(400);
    let files = |merges: &[String]| {
        [
            ("tokenizer.json", json!({"model": {"merges": merges}})),
            ("chat_template.jinja", json!(template)),
        ]
    };
    let pair = WithTokenizer::new(&files(&merges));
    let gguf = |merges: &[String], template: &str| {
        let value = |text: &str| {
            [(text.len() as u64).to_le_bytes().to_vec(), text.as_bytes().to_vec()].concat()
        };
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        bytes.extend(2u64.to_le_bytes());
        bytes.extend(value("tokenizer.ggml.merges"));
        bytes.extend(9u32.to_le_bytes());
        bytes.extend(8u32.to_le_bytes());
        bytes.extend((merges.len() as u64).to_le_bytes());
        bytes.extend(merges.iter().flat_map(|merge| value(merge)));
        bytes.extend(value("tokenizer.chat_template"));
        bytes.extend(8u32.to_le_bytes());
        bytes.extend(value(template));
        model::from_bytes(Path::new("memory"), bytes).unwrap().metadata
    };
    let mut others = merges.clone();
    others.swap(3, 4);
    for (merges, template, expected) in [
        (&merges, template.clone(), vec![]),
        (
            &others,
            template.clone(),
            vec!["tokenizer.ggml.merges has 40 merges, others than the 40 of"],
        ),
        (
            &merges,
            format!("{template} "),
            vec!["tokenizer.chat_template is a text of 2801 bytes, and"],
        ),
    ] {
        let mut mutant = pair.gguf.clone();
        mutant.metadata.extend(gguf(merges, &template));
        let found = messages(&model::open(pair.directory.path()).unwrap(), &mutant);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert!(
            found.iter().zip(&expected).all(|(found, text)| found.starts_with(text)),
            "{found:?}"
        );
    }
}
