/*!
The list of tokens, one by one, against the vocabulary of `tokenizer.json`.

A converter writes a token as the vocabulary has it, but for the marks of word pieces, and the text of an added
token with or without its spaces. Ids that no token has are padded in ways that differ: nothing is asked of them.
*/

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::look_up::{Sides, shown};
use crate::model::{self, ModelError};

const TOKENS: &str = "tokenizer.ggml.tokens";

/// How the tokens of one kind of vocabulary stand in a GGUF file.
struct Kind {
    /// `model.type` in `tokenizer.json`.
    vocabulary: &'static str,
    /// `tokenizer.ggml.model` of the GGUF file.
    model: &'static str,
    /// The converter refuses a vocabulary that does not fit.
    whole: bool,
    /// The text of a token in a GGUF file.
    written: fn(&str) -> String,
}

const KINDS: &[Kind] = &[
    Kind { vocabulary: "BPE", model: "gpt2", whole: true, written: str::to_owned },
    Kind { vocabulary: "BPE", model: "llama", whole: false, written: str::to_owned },
    Kind { vocabulary: "WordPiece", model: "bert", whole: true, written: word_piece },
];

/// A piece within a word loses its mark, one that begins a word gets another; special tokens stay.
fn word_piece(text: &str) -> String {
    if text.starts_with('[') && text.ends_with(']') {
        return text.to_owned();
    }
    text.strip_prefix("##").map_or_else(|| format!("\u{2581}{text}"), str::to_owned)
}

/// The texts of a vocabulary by their ids. A list with scores has another order in a GGUF file, and is not kept.
#[derive(Default)]
pub struct Vocabulary(HashMap<u64, String>);

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut texts = HashMap::new();
                while let Some((text, id)) = map.next_entry()? {
                    texts.insert(id, text);
                }
                Ok(Vocabulary(texts))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocabulary, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Vocabulary::default())
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

/// What `tokenizer.json` says of tokens.
pub struct Said<'a> {
    /// `model.type`.
    pub vocabulary: &'a str,
    /// `model.vocab`.
    pub texts: &'a Vocabulary,
    /// `added_tokens`: ids and texts.
    pub added: HashMap<u64, &'a str>,
}

/// What differs, as a sentence; an error if the file cannot be read any more.
pub fn compare(sides: &Sides, said: &Said) -> Result<Option<String>, ModelError> {
    let written = sides.metadata("tokenizer.ggml.model").and_then(Value::as_str);
    let stated =
        sides.metadata(TOKENS).filter(|_| sides.table.compares(sides.facts.architecture(), TOKENS));
    let kind =
        KINDS.iter().find(|it| it.vocabulary == said.vocabulary && Some(it.model) == written);
    let (Some(stated), Some(kind)) = (stated, kind) else { return Ok(None) };
    if said.texts.0.is_empty() {
        return Ok(None);
    }
    let (mut id, mut differ, mut first) = (0, 0u64, None);
    let mut look = |text: &[u8]| {
        if let Some(expected) = said.other(kind, id, text) {
            differ += 1;
            first.get_or_insert_with(|| (id, String::from_utf8_lossy(text).into_owned(), expected));
        }
        id += 1;
    };
    match stated {
        Value::Array(texts) => {
            for text in texts {
                look(text.as_str().unwrap_or_default().as_bytes());
            }
        }
        _ => {
            model::strings(sides.gguf, TOKENS, &mut look)?;
        }
    }
    let text = |text: String| shown(&text.into());
    if let Some((first, stated, expected)) = first {
        return Ok(Some(format!(
            "{TOKENS} has {} as number {first}, and tokenizer.json says {}; {differ} of {id} differ",
            text(stated),
            text(expected)
        )));
    }
    let last = said.texts.0.keys().chain(said.added.keys()).max().filter(|_| kind.whole);
    Ok(last.filter(|last| **last >= id).map(|last| {
        format!("{TOKENS} has {id} tokens, and tokenizer.json goes up to number {last}")
    }))
}

impl Said<'_> {
    /// What should stand in the place of a text, if that is another.
    fn other(&self, kind: &Kind, id: u64, stated: &[u8]) -> Option<String> {
        let in_vocabulary = self.texts.0.get(&id).map(|text| (kind.written)(text));
        if in_vocabulary.as_ref().is_some_and(|text| text.as_bytes() == stated) {
            return None;
        }
        let added = self.added.get(&id).copied();
        let stated = String::from_utf8_lossy(stated);
        if added.is_some_and(|text| bare(text) == bare(&stated)) {
            return None;
        }
        added.map(str::to_owned).or(in_vocabulary)
    }
}

/// A text without spaces in either spelling.
fn bare(text: &str) -> String {
    text.chars().filter(|it| !it.is_whitespace() && *it != '\u{2581}').collect()
}
