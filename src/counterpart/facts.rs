/*!
What is known of a pair beside its tensors: the checkpoint's `config.json`, as it is written, and the GGUF
file's metadata.
*/

use std::io;
use std::path::Path;

use serde_json::Value;

use super::number::Number;
use crate::disk;
use crate::model::{Format, Model};

/// Tables of `config.json` that hold the text model's keys where a model has several parts; what they
/// say comes before what the file itself says.
const TEXT: [&str; 5] =
    ["text_config", "llm_config", "lm_config", "language_config", "thinker_config.text_config"];

/// What is known of a pair beside its tensors.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// `config.json` of the side that is a checkpoint; `Null` if there is none.
    pub config: Value,
    /// Metadata of the side that is a GGUF file.
    pub gguf: Vec<(String, Value)>,
    /// Why a `config.json` that is there could not be used.
    pub problem: Option<String>,
}

impl Facts {
    /// Reads what lies beside the checkpoint of a pair; the metadata are those of its GGUF file.
    pub fn of(reference: &Model, quantized: &Model) -> Self {
        let models = [reference, quantized];
        let checkpoint = models.into_iter().find(|model| model.format == Format::Safetensors);
        let gguf = models.into_iter().find(|model| model.format == Format::Gguf);
        let mut facts = Self::beside(checkpoint);
        facts.gguf = gguf.map(|model| model.metadata.clone()).unwrap_or_default();
        facts
    }

    /// Reads the `config.json` beside a model's first file.
    pub fn beside(model: Option<&Model>) -> Self {
        let directory = model.and_then(|model| model.files.first()).and_then(|it| it.path.parent());
        let Some(directory) = directory else { return Self::default() };
        match read(&directory.join("config.json")) {
            Ok(config) => Self { config: config.unwrap_or_default(), ..Self::default() },
            Err(problem) => Self { problem: Some(problem), ..Self::default() },
        }
    }

    /// Classes that the configuration names, the first first.
    pub fn classes(&self) -> Vec<&str> {
        let named = self.config["architectures"].as_array();
        named.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// `general.architecture` of the GGUF file; empty if there is none.
    pub fn architecture(&self) -> &str {
        let found = self.gguf.iter().find(|(key, _)| key == "general.architecture");
        found.and_then(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// A key of the configuration; dots lead into tables and lists. The text model's own table comes
    /// first, and a key that is there but null is not there.
    pub fn key(&self, path: &str) -> Option<&Value> {
        self.place(path).map(|(_, value)| value)
    }

    /// A key of the configuration, with the whole path to where it was found.
    pub fn place(&self, path: &str) -> Option<(String, &Value)> {
        let there = |value: &&Value| !value.is_null();
        let in_table = |table: &&str| {
            let value = walk(walk(&self.config, table)?, path).filter(there)?;
            Some((format!("{table}.{path}"), value))
        };
        let whole = || walk(&self.config, path).filter(there).map(|it| (path.to_owned(), it));
        TEXT.iter().find_map(in_table).or_else(whole)
    }

    /// A key of the configuration or, after `gguf.`, of the metadata, as a number: true is 1; a list has
    /// one for each layer; an array of the metadata is its length.
    pub fn number(&self, path: &str, layer: Option<u64>) -> Option<f64> {
        if let Some(key) = path.strip_prefix("gguf.") {
            let (_, value) = self.gguf.iter().find(|(known, _)| known == key)?;
            let len = value.as_array().map(|array| array.len() as f64);
            return len.or_else(|| value["len"].as_f64()).or_else(|| value.as_f64());
        }
        match self.key(path)? {
            Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
            Value::Array(list) => list.get(usize::try_from(layer?).ok()?)?.as_f64(),
            value => value.as_f64(),
        }
    }
}

/// A file's JSON; none if it is not there.
fn read(path: &Path) -> Result<Option<Value>, String> {
    let text = match disk::read(path, disk::CONFIGURATION) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("config.json: {error}")),
    };
    disk::value(&text).map(Some).map_err(|error| format!("config.json: {error}"))
}

fn walk<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, part| match value {
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        other => other.get(part),
    })
}

/// Names that several spellings of one setting have, each with the numbers that say it, the first that
/// has a value first.
pub type Variables = Vec<(String, Vec<Number>)>;

/// Looks names up for the rule of one tensor.
pub struct Names<'a> {
    /// The pair's facts.
    pub facts: &'a Facts,
    /// Spellings.
    pub variables: &'a Variables,
    /// What the tensor's own name says: `n` and the like.
    pub own: &'a [(String, f64)],
}

impl Names<'_> {
    /// The number that a name stands for.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.look_up(name, &[])
    }

    /// `position_in.KEY` is where the tensor's number stands in a list.
    /// A variable's own name, among its numbers, is the key of the configuration.
    fn look_up(&self, name: &str, within: &[&str]) -> Option<f64> {
        let own =
            |name: &str| self.own.iter().find(|(own, _)| own == name).map(|(_, value)| *value);
        if let Some(value) = own(name) {
            return Some(value);
        }
        if let Some(list) = name.strip_prefix("position_in.") {
            let list = self.facts.key(list)?.as_array()?;
            let n = own("n")?;
            return list.iter().position(|value| value.as_f64() == Some(n)).map(|at| at as f64);
        }
        let variable = self.variables.iter().find(|(known, _)| known == name);
        let Some((_, numbers)) = variable.filter(|_| !within.contains(&name)) else {
            return self.facts.number(name, own("n").map(|n| n as u64));
        };
        let within = [within, &[name]].concat();
        numbers.iter().find_map(|number| number.value(&|name| self.look_up(name, &within)).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_variable_is_the_first_of_its_spellings_that_is_there() {
        let config = json!({
            "n_head": 4, "hidden_size": 64, "head_dim": null, "per_layer": [1, 2, 3],
            "text_config": {"hidden_size": 128, "tied": true},
            "vision_config": {"heads": 2},
        });
        let facts = Facts {
            config,
            gguf: vec![("tokens".into(), json!({"type": "array", "len": 97}))],
            problem: None,
        };
        let variables: Variables = [
            ("heads", vec!["num_attention_heads", "n_head"]),
            ("head_dim", vec!["head_dim", "hidden_size / heads"]),
        ]
        .map(|(name, numbers)| {
            (name.to_owned(), numbers.into_iter().map(|it| it.parse().unwrap()).collect())
        })
        .to_vec();
        let own = [("n".to_owned(), 2.0)];
        let names = Names { facts: &facts, variables: &variables, own: &own };
        for (name, expected, why) in [
            ("heads", Some(4.0), "another spelling"),
            ("hidden_size", Some(128.0), "the text model's table first"),
            ("head_dim", Some(32.0), "null is not there: computed"),
            ("per_layer", Some(3.0), "one for each layer"),
            ("per_layer.0", Some(1.0), "an element by its number"),
            ("tied", Some(1.0), "a flag"),
            ("vision_config.heads", Some(2.0), "a nested key"),
            ("gguf.tokens", Some(97.0), "an array's length"),
            ("n", Some(2.0), "the tensor's own number"),
            ("absent", None, "nothing"),
        ] {
            assert_eq!(names.number(name), expected, "{why}");
        }
    }
}
