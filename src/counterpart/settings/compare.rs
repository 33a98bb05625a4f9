/*!
The comparison: every key of the table that the metadata have, or should have, and the head that is tied or not.
*/

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::look_up::{Made, ROWS, Sides, TOKENS, is_tensor, shown};
use super::table::{Setting, Settings};
use super::tokenizer;
use crate::counterpart::facts::Facts;
use crate::counterpart::names;
use crate::counterpart::number::Number;
use crate::counterpart::table::Table;
use crate::model::configuration::{Code, ConfigFinding, Severity};
use crate::model::{Format, Model, hex};

/// What came out of the comparison of a pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Where both sides differ.
    pub findings: Vec<ConfigFinding>,
    /// What could not be compared, for people.
    pub notes: Vec<String>,
}

/// Compares the metadata of a pair's GGUF file with the configuration of its checkpoint. `None` if the pair is
/// another one, or the checkpoint has no configuration.
pub fn compare(reference: &Model, quantized: &Model) -> Option<Compared> {
    let (checkpoint, gguf) = match (reference.format, quantized.format) {
        (Format::Safetensors, Format::Gguf) => (reference, quantized),
        (Format::Gguf, Format::Safetensors) => (quantized, reference),
        _ => return None,
    };
    let facts = Facts::of(reference, quantized);
    if let Some(problem) = &facts.problem {
        let notes = vec![format!("the metadata are not compared with a configuration: {problem}")];
        return Some(Compared { notes, ..Compared::default() });
    }
    if !facts.config.is_object() || facts.architecture().is_empty() {
        return None;
    }
    let sides = Sides { facts: &facts, gguf, table: Settings::built_in() };
    let mut compared = Compared::default();
    for (key, setting) in sides.table.of(facts.architecture()) {
        let message = contradiction(&sides, key, setting);
        compared
            .findings
            .extend(message.map(|it| ConfigFinding::whole(Code::MetadataDisagrees, it)));
    }
    let lost = lost_head(&sides, checkpoint);
    compared.findings.extend(lost.map(|it| ConfigFinding::whole(Code::MetadataDisagrees, it)));
    tokenizer::compare(&sides, checkpoint, &mut compared);
    if !Table::built_in().makes(facts.architecture()) {
        // Its converter may have reasons of its own.
        compared.findings.iter_mut().for_each(|finding| finding.severity = Severity::Warning);
    }
    Some(compared)
}

/// What is wrong with one key, as a sentence.
pub(super) fn contradiction(sides: &Sides, key: &str, setting: &Setting) -> Option<String> {
    let Some(stated) = sides.stated(key) else { return absent(sides, key, setting) };
    let said = match &stated {
        stated if !setting.list.is_empty() => of_list(sides, stated, setting),
        Value::Array(layers) => {
            let mut layers = (0..).zip(layers);
            return layers.find_map(|(layer, stated)| {
                let said = if is_empty_layer(sides, setting, layer) {
                    of_empty_layer(stated, setting)
                } else {
                    of_layer(sides, stated, setting, layer)
                }?;
                Some(format!(
                    "{} is {} for layer {layer}, and {said}",
                    sides.full_key(key),
                    shown(stated)
                ))
            });
        }
        described if described["type"] == "array" => of_digest(sides, described, setting),
        stated => of_layer(sides, stated, setting, 0),
    }?;
    let stated = if stated["type"] == "array" {
        format!("a list of {}", stated["len"])
    } else {
        shown(&stated)
    };
    if is_tensor(key) {
        return Some(format!("there is no {key}, and {said}"));
    }
    Some(format!("{} is {stated}, and {said}", sides.full_key(key)))
}

/// What `config.json` says instead of what is stated for a layer.
fn of_layer(sides: &Sides, stated: &Value, setting: &Setting, layer: u64) -> Option<String> {
    if !setting.words.is_empty() {
        let (key, word, meant) = word(sides, setting)?;
        return (*stated != meant).then(|| says(&[(key, shown(&word.into()))]));
    }
    let candidates = setting.numbers.iter().filter_map(|it| Some((it, sides.made(it, layer)?)));
    let candidates: Vec<_> = candidates.take(if setting.any { usize::MAX } else { 1 }).collect();
    let holds =
        |(number, made): &(&Number, Made)| same(stated, made.value, is_computed(number, made));
    if candidates.is_empty() || candidates.iter().any(holds) {
        return None;
    }
    Some(
        candidates
            .iter()
            .map(|(number, made)| describe(number, made))
            .collect::<Vec<_>>()
            .join(" or "),
    )
}

/// Whether a layer has no part of the kind that a setting is about.
fn is_empty_layer(sides: &Sides, setting: &Setting, layer: u64) -> bool {
    !setting.zeros.is_empty() && !sides.has_in_layer(layer, &setting.zeros)
}

/// What is wrong with a number of such a layer.
fn of_empty_layer(stated: &Value, setting: &Setting) -> Option<String> {
    let holds = same(stated, 0.0, false);
    (!holds).then(|| format!("the layer has no tensor {}…", setting.zeros.join("… or ")))
}

/// The key and the word of `config.json`, and what the metadata call it; none if nothing is known of the word.
fn word<'a>(sides: &Sides<'a>, setting: &'a Setting) -> Option<(String, &'a str, Value)> {
    let mut names = setting.numbers.iter().filter_map(|number| match number {
        Number::Name(name) => sides.facts.place(name),
        _ => None,
    });
    let (key, word) = names.find_map(|(key, value)| Some((key, value.as_str()?)))?;
    let meant = setting.words.get(&word.to_lowercase())?;
    Some((key, word, meant.clone()))
}

/// A key that is not there, where loaders take something else for it than `config.json` says.
fn absent(sides: &Sides, key: &str, setting: &Setting) -> Option<String> {
    let default = setting.absent.as_ref()?;
    // Without any settings of an architecture, this is no language model's file.
    sides.stated("block_count")?;
    let key = sides.full_key(key);
    if !setting.words.is_empty() {
        let (path, word, meant) = word(sides, setting)?;
        let default = Value::from(default.to_string());
        let said = says(&[(path, shown(&word.into()))]);
        return (meant != default).then(|| format!("{key} is not there, and {said}"));
    }
    let default = sides.made(default, 0)?.value;
    let mut found = setting.numbers.iter().filter_map(|it| Some((it, sides.made(it, 0)?)));
    let (number, made) = found.next()?;
    let holds = same(&default.into(), made.value, true);
    (!holds).then(|| {
        let said = describe(number, &made);
        format!("{key} is not there, which loaders take for {default}, and {said}")
    })
}

/// Compares list with list; what is longer ends in zeros.
fn of_list(sides: &Sides, stated: &Value, setting: &Setting) -> Option<String> {
    let stated = stated.as_array()?;
    let (key, list) = setting.list.iter().find_map(|path| sides.facts.place(path))?;
    let said: Vec<f64> = list.as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?;
    let zero = Value::from(0);
    let holds = (0..stated.len().max(said.len())).all(|at| {
        let stated = stated.get(at).unwrap_or(&zero);
        same(stated, said.get(at).copied().unwrap_or(0.0), false)
    });
    (!holds).then(|| says(&[(key, shown(list))]))
}

/// Compares a list of which only the digest is known: one number for each layer.
fn of_digest(sides: &Sides, described: &Value, setting: &Setting) -> Option<String> {
    let (of, len) = (described["of"].as_str()?, described["len"].as_u64()?);
    // A list is as long as there are layers; what claims more is not made up for comparison.
    let layers = sides.stated("block_count")?.as_u64()?;
    if len > layers || len > sides.gguf.tensors.len() as u64 {
        return None;
    }
    let whole = |number: &Number| -> Option<(Vec<f64>, Made)> {
        let mut first = None;
        let mut values = Vec::new();
        for layer in 0..len {
            if is_empty_layer(sides, setting, layer) {
                values.push(0.0);
                continue;
            }
            let made = sides.made(number, layer)?;
            values.push(made.value);
            first.get_or_insert(made);
        }
        Some((values, first?))
    };
    let candidates = setting.numbers.iter().filter_map(|it| Some((it, whole(it)?)));
    let candidates: Vec<_> = candidates.take(if setting.any { usize::MAX } else { 1 }).collect();
    let sha256 = described["sha256"].as_str()?;
    let holds =
        candidates.iter().any(|(_, (values, _))| digest(of, values).is_none_or(|it| it == sha256));
    if candidates.is_empty() || holds {
        return None;
    }
    let said = candidates.iter().map(|(number, (_, made))| describe(number, made));
    Some(said.collect::<Vec<_>>().join(" or "))
}

/// The digest of an array of numbers as it would be stored; none if they do not fit the type.
fn digest(of: &str, values: &[f64]) -> Option<String> {
    let mut digest = Sha256::new();
    for &value in values {
        let (bytes, least, most) = match of {
            "f32" => {
                digest.update((value as f32).to_le_bytes());
                continue;
            }
            "f64" => {
                digest.update(value.to_le_bytes());
                continue;
            }
            "bool" | "u8" => (1, 0.0, 255.0),
            "i8" => (1, -128.0, 127.0),
            "u16" => (2, 0.0, 65535.0),
            "i16" => (2, -32768.0, 32767.0),
            "u32" => (4, 0.0, 4_294_967_295.0),
            "i32" => (4, -2_147_483_648.0, 2_147_483_647.0),
            "u64" => (8, 0.0, EXACT),
            "i64" => (8, -EXACT, EXACT),
            _ => return None,
        };
        if value.fract() != 0.0 || value < least || value > most {
            return None;
        }
        digest.update(&(value as i64).to_le_bytes()[..bytes]);
    }
    Some(hex(&digest.finalize()))
}

/// The largest number below which an f64 holds every whole one.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// How far apart two ways to compute a number may be, in parts of it: a few units in the last place of an f32.
const COMPUTED: f64 = 5e-7;

/// Whether the metadata state a number, whatever their type: whole numbers exactly, others as f32.
fn same(stated: &Value, expected: f64, computed: bool) -> bool {
    let value = match stated {
        Value::Bool(truth) => f64::from(u8::from(*truth)),
        value => match value.as_f64() {
            Some(value) => value,
            None => return false,
        },
    };
    let whole = stated.is_u64() || stated.is_i64() || stated.is_boolean();
    let close = computed && (value - expected).abs() <= COMPUTED * expected.abs();
    value == expected || !whole && (value as f32 == expected as f32 || close)
}

/// Whether a number is more than a value of `config.json` as it is written.
fn is_computed(number: &Number, made: &Made) -> bool {
    !matches!(number, Number::Name(_)) || made.of.len() != 1
}

/// What `config.json` says or makes of it.
fn describe(number: &Number, made: &Made) -> String {
    let from_file = made.of.iter().all(|(key, _)| key == ROWS || key == TOKENS);
    match made.of.as_slice() {
        [(key, value)] if from_file && !made.of.is_empty() => format!("{key} is {value}"),
        [entry] if matches!(number, Number::Name(_)) => says(std::slice::from_ref(entry)),
        of => {
            let of: Vec<String> =
                of.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            format!("config.json makes it {} ({number}, with {})", made.value, of.join(", "))
        }
    }
}

fn says(entries: &[(String, String)]) -> String {
    let entries: Vec<String> =
        entries.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("config.json says {}", entries.join(", "))
}

/// A head that is not tied, and that neither side has.
fn lost_head(sides: &Sides, checkpoint: &Model) -> Option<String> {
    let tied = sides.facts.place("tie_word_embeddings");
    let (key, _) = tied.filter(|(_, value)| **value == Value::Bool(false))?;
    let writes = sides.facts.classes().iter().any(|class| class.ends_with("ForCausalLM"));
    let in_file = sides.gguf.tensors.iter().any(|tensor| tensor.name == "output.weight");
    let has_embedding = sides.gguf.tensors.iter().any(|it| it.name == "token_embd.weight");
    let index = names::index(checkpoint.tensors.iter().map(|tensor| tensor.name.as_str()));
    let in_checkpoint = Table::built_in().copies().any(|(copy, _)| index.contains_key(copy));
    (writes && has_embedding && !in_file && !in_checkpoint).then(|| {
        format!(
            "there is no output.weight, so that token_embd.weight takes its place, and config.json says \
             {key} = false"
        )
    })
}
