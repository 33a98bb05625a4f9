/*!
What the metadata of a GGUF file says about its tensors, and whether its numbers can be what they stand for.

One table of rules: what a loader refuses, or what makes it compute something else.
*/

use serde_json::Value;

use super::check::{CheckOutcome, CheckRecord, Level};
use crate::codec::Class;
use crate::model::{Format, Model, Tensor};

/// Name of the check.
const METADATA: &str = "metadata";

/// One rule: a problem, or nothing.
type Rule = (Level, fn(&Facts) -> Option<String>);

const RULES: &[Rule] = &[
    (Level::Fail, architecture),
    (Level::Fail, not_finite),
    (Level::Fail, layers),
    (Level::Fail, embedding),
    (Level::Fail, vocabulary),
    (Level::Fail, heads),
    (Level::Fail, never_quantized),
    (Level::Warn, file_type),
];

/// A check for each rule that does not hold, or one that all hold; none for what is no GGUF file.
pub fn check_metadata(model: &Model, checks: &mut Vec<CheckRecord>) {
    if model.format != Format::Gguf {
        return;
    }
    let facts = Facts { model, architecture: text(model, "general.architecture") };
    let check = |outcome, level, message| CheckRecord::fact(METADATA, outcome, level, message);
    let problems = RULES.iter().filter_map(|(level, rule)| Some((*level, rule(&facts)?)));
    let violated: Vec<CheckRecord> =
        problems.map(|(level, problem)| check(CheckOutcome::Violated, level, problem)).collect();
    if violated.is_empty() {
        let message = "the metadata agree with the tensors".to_owned();
        checks.push(check(CheckOutcome::Held, Level::Fail, message));
    }
    checks.extend(violated);
}

/// A GGUF file and what it calls its architecture.
struct Facts<'a> {
    model: &'a Model,
    architecture: Option<&'a str>,
}

impl Facts<'_> {
    /// The value of a key of the architecture.
    fn value(&self, key: &str) -> Option<&Value> {
        find(self.model, &format!("{}.{key}", self.architecture?))
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.value(key)?.as_u64()
    }

    fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.model.tensors.iter().find(|tensor| tensor.name == name)
    }

    fn quantized(&self) -> impl Iterator<Item = &Tensor> {
        self.model.tensors.iter().filter(|tensor| tensor.class() == Class::Quantized)
    }
}

fn find<'a>(model: &'a Model, key: &str) -> Option<&'a Value> {
    model.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

fn text<'a>(model: &'a Model, key: &str) -> Option<&'a str> {
    find(model, key)?.as_str()
}

/// Every GGUF file names its architecture: all other keys begin with it.
fn architecture(facts: &Facts) -> Option<String> {
    match facts.architecture {
        Some("") | None => {
            Some("general.architecture is missing: no loader knows what to make of it".to_owned())
        }
        Some(_) => None,
    }
}

/// Numbers of the architecture that are NaN or infinite.
fn not_finite(facts: &Facts) -> Option<String> {
    let prefix = format!("{}.", facts.architecture?);
    let bad = |value: &Value| matches!(value.as_str(), Some("NaN" | "inf" | "-inf"));
    let any = |value: &Value| bad(value) || value.as_array().is_some_and(|all| all.iter().any(bad));
    let (key, value) =
        facts.model.metadata.iter().find(|(key, value)| key.starts_with(&prefix) && any(value))?;
    Some(format!("{key} is {value}"))
}

/// Layers that are stored against those that are claimed.
fn layers(facts: &Facts) -> Option<String> {
    let claimed = facts.number("block_count")?;
    let layer = |tensor: &Tensor| {
        let (number, _) = tensor.name.strip_prefix("blk.")?.split_once('.')?;
        number.parse::<u64>().ok()
    };
    let mut stored: Vec<u64> = facts.model.tensors.iter().filter_map(layer).collect();
    stored.sort_unstable();
    stored.dedup();
    let last = *stored.last()?;
    if last >= claimed {
        return Some(format!(
            "block_count is {claimed}, and there is a tensor of layer {last} (from 0)"
        ));
    }
    let gap = (0..claimed).find(|layer| stored.binary_search(layer).is_err())?;
    Some(format!("block_count is {claimed}, and no tensor of layer {gap} (from 0) is stored"))
}

/// The width of the embedding.
fn embedding(facts: &Facts) -> Option<String> {
    let claimed = facts.number("embedding_length")?;
    let width = *facts.tensor("token_embd.weight")?.shape.last()?;
    (width != claimed).then(|| {
        format!("embedding_length is {claimed}, and token_embd.weight has rows of {width}")
    })
}

/// Tokens of the vocabulary, and rows of the embedding.
fn vocabulary(facts: &Facts) -> Option<String> {
    let rows = match facts.tensor("token_embd.weight")?.shape.as_slice() {
        [rows, _] => *rows,
        _ => return None,
    };
    let tokens = find(facts.model, "tokenizer.ggml.tokens")?;
    let count = match tokens {
        Value::Array(tokens) => tokens.len() as u64,
        described => described.get("len")?.as_u64()?,
    };
    (count != rows).then(|| {
        format!("tokenizer.ggml.tokens has {count} tokens, and token_embd.weight {rows} rows")
    })
}

/// Heads that share keys and values are as many for each of those.
fn heads(facts: &Facts) -> Option<String> {
    let all = facts.value("attention.head_count")?.as_u64()?;
    let shared = facts.value("attention.head_count_kv")?.as_u64()?;
    (shared > all || shared > 0 && all % shared != 0).then(|| {
        format!("attention.head_count is {all}, no multiple of attention.head_count_kv, {shared}")
    })
}

/// What llama.cpp calls a mix of types: its number, its name, and the types that it is known by.
const FILE_TYPES: &[(u64, &str, &[&str])] = &[
    (2, "Q4_0", &["Q4_0"]),
    (3, "Q4_1", &["Q4_1"]),
    (7, "Q8_0", &["Q8_0"]),
    (8, "Q5_0", &["Q5_0"]),
    (9, "Q5_1", &["Q5_1"]),
    (10, "Q2_K", &["Q2_K", "Q3_K"]),
    (11, "Q3_K_S", &["Q3_K"]),
    (12, "Q3_K_M", &["Q3_K", "Q4_K", "Q5_K"]),
    (13, "Q3_K_L", &["Q3_K", "Q5_K"]),
    (14, "Q4_K_S", &["Q4_K", "Q5_K"]),
    (15, "Q4_K_M", &["Q4_K", "Q6_K"]),
    (16, "Q5_K_S", &["Q5_K"]),
    (17, "Q5_K_M", &["Q5_K", "Q6_K"]),
    (18, "Q6_K", &["Q6_K"]),
    (19, "IQ2_XXS", &["IQ2_XXS", "Q2_K"]),
    (20, "IQ2_XS", &["IQ2_XS", "Q2_K"]),
    (21, "Q2_K_S", &["Q2_K", "Q3_K"]),
    (22, "IQ3_XS", &["IQ3_XXS", "IQ3_S"]),
    (23, "IQ3_XXS", &["IQ3_XXS", "IQ2_S"]),
    (24, "IQ1_S", &["IQ1_S", "Q2_K"]),
    (25, "IQ4_NL", &["IQ4_NL"]),
    (26, "IQ3_S", &["IQ3_S"]),
    (27, "IQ3_M", &["IQ3_S", "Q4_K"]),
    (28, "IQ2_S", &["IQ2_S", "IQ2_XS"]),
    (29, "IQ2_M", &["IQ2_S", "IQ3_S"]),
    (30, "IQ4_XS", &["IQ4_XS", "Q5_K"]),
    (31, "IQ1_M", &["IQ1_M", "Q2_K"]),
    (36, "TQ1_0", &["TQ1_0"]),
    (37, "TQ2_0", &["TQ2_0"]),
    (38, "MXFP4_MOE", &["MXFP4", "Q8_0"]),
];

/// Rows of the table of mixes.
fn mix(facts: &Facts) -> Option<&'static (u64, &'static str, &'static [&'static str])> {
    let number = find(facts.model, "general.file_type")?.as_u64()?;
    FILE_TYPES.iter().find(|(id, ..)| *id == number)
}

/// A file that calls itself quantized and holds floats alone.
fn never_quantized(facts: &Facts) -> Option<String> {
    let (_, name, _) = mix(facts)?;
    let none = facts.quantized().next().is_none();
    none.then(|| format!("general.file_type is {name}, and no tensor is quantized"))
}

/// A mix without any of its types: the file was made otherwise, or its rows are too short for them.
fn file_type(facts: &Facts) -> Option<String> {
    let (_, name, types) = mix(facts)?;
    facts.quantized().next()?;
    let any = facts.quantized().any(|tensor| types.iter().any(|ty| tensor.qtype().starts_with(ty)));
    (!any).then(|| format!("general.file_type is {name}, and no tensor is {}", types.join(" or ")))
}
