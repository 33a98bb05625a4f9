/*!
What the two sides say: settings of `config.json` by their spellings, keys of the metadata, and what follows
from the tensors themselves.
*/

use std::cell::RefCell;

use serde_json::Value;

use super::table::Settings;
use crate::counterpart::facts::Facts;
use crate::counterpart::number::Number;
use crate::model::Model;

/// Rows of the embedding, as a key.
pub const ROWS: &str = "token_embd.weight.rows";
/// The length of the list of tokens, as a key.
pub const TOKENS: &str = "tokenizer.ggml.tokens.len";

/// Both sides of a pair.
pub struct Sides<'a> {
    /// `config.json` and the metadata.
    pub facts: &'a Facts,
    /// The GGUF file.
    pub gguf: &'a Model,
    /// The table.
    pub table: &'a Settings,
}

/// A number that the configuration makes, and what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// The number.
    pub value: f64,
    /// Keys with their values as they are written, in the order in which they are read.
    pub of: Vec<(String, String)>,
}

impl Sides<'_> {
    /// The key as it stands in the file.
    pub fn full_key(&self, key: &str) -> String {
        let is_common = key == ROWS
            || is_tensor(key)
            || key.starts_with("tokenizer.")
            || key.starts_with("general.");
        if is_common { key.to_owned() } else { format!("{}.{key}", self.facts.architecture()) }
    }

    /// What the file says; a list of which only the length counts is its length.
    pub fn stated(&self, key: &str) -> Option<Value> {
        match key {
            ROWS => {
                let mut tensors = self.gguf.tensors.iter();
                let embedding = tensors.find(|tensor| tensor.name == "token_embd.weight")?;
                (embedding.shape.len() == 2).then(|| embedding.shape[0].into())
            }
            TOKENS => len(self.metadata("tokenizer.ggml.tokens")?),
            name if is_tensor(name) => {
                Some(self.gguf.tensors.iter().any(|it| it.name == name).into())
            }
            _ => self.metadata(&self.full_key(key)).cloned(),
        }
    }

    /// A key of the metadata.
    pub fn metadata(&self, key: &str) -> Option<&Value> {
        self.facts.gguf.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// Whether the file has a tensor of a layer whose name goes on like this.
    pub fn has_in_layer(&self, layer: u64, beginnings: &[String]) -> bool {
        let prefix = format!("blk.{layer}.");
        let mut names = self.gguf.tensors.iter().filter_map(|it| it.name.strip_prefix(&prefix));
        names.any(|name| beginnings.iter().any(|beginning| name.starts_with(beginning)))
    }

    /// The value of a number for a layer; none if something that it needs is not said.
    pub fn made(&self, number: &Number, layer: u64) -> Option<Made> {
        let of = RefCell::new(Vec::new());
        let value = number.value(&|name| self.look_up(name, layer, &[], &of)).ok()?;
        Some(Made { value, of: of.into_inner() })
    }

    /// A spelling's own name, among its numbers, is the key of `config.json`.
    fn look_up(
        &self,
        name: &str,
        layer: u64,
        within: &[&str],
        of: &RefCell<Vec<(String, String)>>,
    ) -> Option<f64> {
        let used = |key: String, value: &Value| {
            let entry = (key, shown(value));
            let mut of = of.borrow_mut();
            if !of.contains(&entry) {
                of.push(entry);
            }
        };
        if name == "n" {
            return Some(layer as f64);
        }
        if let Some(key) = name.strip_prefix("gguf.") {
            let value = self.stated(key)?;
            used(self.full_key(key), &value);
            return of_layer(&value, layer);
        }
        if let Some(numbers) = self.table.spellings(name).filter(|_| !within.contains(&name)) {
            let within = [within, &[name]].concat();
            return numbers.iter().find_map(|number| {
                let before = of.borrow().len();
                let value = number.value(&|name| self.look_up(name, layer, &within, of)).ok();
                if value.is_none() {
                    of.borrow_mut().truncate(before);
                }
                value
            });
        }
        let Some((key, value)) = self.facts.place(name) else {
            let (list, word) = name.rsplit_once('.')?;
            let (key, list) = self.facts.place(list)?;
            let of_layer = list.as_array()?.get(usize::try_from(layer).ok()?)?;
            of_layer.as_str()?;
            used(format!("{key}.{layer}"), of_layer);
            return Some(f64::from(u8::from(of_layer == word)));
        };
        let number = of_layer(value, layer)?;
        used(key, value);
        Some(number)
    }
}

/// Whether a key is a tensor's name.
pub fn is_tensor(key: &str) -> bool {
    key.ends_with(".weight")
}

/// A number; of a list, the one of a layer. True is 1.
fn of_layer(value: &Value, layer: u64) -> Option<f64> {
    match value {
        Value::Array(list) => match list.get(usize::try_from(layer).ok()?)? {
            Value::Array(_) => None,
            value => of_layer(value, layer),
        },
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        value => value.as_f64(),
    }
}

/// The length of an array of the metadata.
pub fn len(value: &Value) -> Option<Value> {
    match value {
        Value::Array(elements) => Some(elements.len().into()),
        described if described["type"] == "array" => Some(described["len"].clone()),
        _ => None,
    }
}

/// Most characters of a value in a message.
const SHOWN: usize = 60;

/// A value in a message: numbers without needless digits, long ones cut.
pub fn shown(value: &Value) -> String {
    let text = match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if !number.is_u64() && !number.is_i64() => float.to_string(),
            _ => number.to_string(),
        },
        value => value.to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
