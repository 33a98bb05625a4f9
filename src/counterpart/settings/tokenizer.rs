/*!
The tokenizer of a GGUF file against `tokenizer.json`, `tokenizer_config.json` and the chat template beside the
checkpoint.

Converters take special tokens from several files, and not all in the same order: an id or a flag is wrong only
where no file that says something about it says this.
*/

use std::fmt;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::compare::Compared;
use super::look_up::{Sides, shown};
use super::tokens::{self, Said, Vocabulary};
use crate::disk::{self, Bounded};
use crate::model::configuration::{Code, ConfigFinding};
use crate::model::{Model, hex};

/// A special token: its name in `config.json` and the tokenizer's files, and its key in the metadata.
const SPECIAL: [(&str, &str); 7] = [
    ("bos", "tokenizer.ggml.bos_token_id"),
    ("eos", "tokenizer.ggml.eos_token_id"),
    ("pad", "tokenizer.ggml.padding_token_id"),
    ("unk", "tokenizer.ggml.unknown_token_id"),
    ("sep", "tokenizer.ggml.seperator_token_id"),
    ("cls", "tokenizer.ggml.cls_token_id"),
    ("mask", "tokenizer.ggml.mask_token_id"),
];

/// A token that is added to what is encoded, and the key that says so.
const ADDED: [(&str, &str); 3] = [
    ("bos", "tokenizer.ggml.add_bos_token"),
    ("eos", "tokenizer.ggml.add_eos_token"),
    ("sep", "tokenizer.ggml.add_sep_token"),
];

/// Compares what the files beside a checkpoint say.
pub fn compare(sides: &Sides, checkpoint: &Model, compared: &mut Compared) {
    let Some(directory) = checkpoint.files.first().and_then(|it| it.path.parent()) else { return };
    let mut files = Files::default();
    match read(&directory.join("tokenizer.json")) {
        Ok(tokenizer) => files.tokenizer = tokenizer,
        Err(problem) => compared.notes.push(not_compared("tokenizer.json", &problem)),
    }
    match read::<Bounded>(&directory.join("tokenizer_config.json")) {
        Ok(config) => files.config = config.map(|Bounded(value)| value).unwrap_or_default(),
        Err(problem) => compared.notes.push(not_compared("tokenizer_config.json", &problem)),
    }
    let mut found = Vec::new();
    found.extend(SPECIAL.iter().filter_map(|(kind, key)| special(sides, &files, kind, key)));
    found.extend(ADDED.iter().filter_map(|(kind, key)| added(sides, &files, kind, key)));
    found.extend(merges(sides, &files));
    if let Some(Tokenizer { added_tokens, model, .. }) = &files.tokenizer {
        let added = added_tokens.iter().map(|it| (it.id, it.content.as_str())).collect();
        let said = Said { vocabulary: &model.kind, texts: &model.vocab, added };
        match tokens::compare(sides, &said) {
            Ok(differ) => found.extend(differ),
            Err(problem) => compared.notes.push(not_compared("tokenizer.json", &problem)),
        }
    }
    match templates(directory, &files) {
        Ok(templates) => found.extend(template(sides, &templates)),
        Err(problem) => compared.notes.push(not_compared("the chat template", &problem)),
    }
    compared
        .findings
        .extend(found.into_iter().map(|it| ConfigFinding::whole(Code::TokenizerDisagrees, it)));
}

fn not_compared(file: &str, problem: &dyn fmt::Display) -> String {
    format!("the metadata are not compared with {file}: {problem}")
}

/// What the tokenizer's files say.
#[derive(Default)]
struct Files {
    tokenizer: Option<Tokenizer>,
    /// `tokenizer_config.json`.
    config: Value,
}

/// `tokenizer.json`, as far as it is needed.
#[derive(Deserialize)]
struct Tokenizer {
    #[serde(default)]
    added_tokens: Vec<Token>,
    #[serde(default)]
    post_processor: Bounded,
    #[serde(default)]
    model: TokenModel,
}

#[derive(Deserialize)]
struct Token {
    id: u64,
    content: String,
}

#[derive(Default, Deserialize)]
struct TokenModel {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    merges: Option<Merges>,
    #[serde(default)]
    vocab: Vocabulary,
}

/// The rules of a byte pair encoding: how many, and the digest of their list as a GGUF file stores it.
struct Merges {
    len: u64,
    sha256: String,
    /// Those of a list that is short enough to be kept.
    first: Vec<String>,
}

/// Merges that are kept.
const KEPT: usize = 16;

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Merges;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merges, A::Error> {
                let mut digest = Sha256::new();
                let (mut len, mut first) = (0, Vec::new());
                while let Some(merge) = seq.next_element::<Merge>()? {
                    let text = merge.text();
                    digest.update((text.len() as u64).to_le_bytes());
                    digest.update(&text);
                    len += 1;
                    if first.len() < KEPT {
                        first.push(text);
                    }
                }
                Ok(Merges { len, sha256: hex(&digest.finalize()), first })
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// One merge, in either of its two forms.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    One(String),
    Pair(String, String),
}

impl Merge {
    /// Its text in a GGUF file, in which a space within a part is written as U+0120.
    fn text(self) -> String {
        match self {
            Self::One(text) => text,
            Self::Pair(a, b) => format!("{} {}", a.replace(' ', "Ġ"), b.replace(' ', "Ġ")),
        }
    }
}

/// A file's content; none if it is not there.
fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Option<T>> {
    let bytes = match disk::read(path, disk::TOKENIZER) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other)
}

impl Files {
    /// The text of a token that `tokenizer_config.json` names.
    fn named(&self, kind: &str) -> Option<&str> {
        let entry = &self.config[format!("{kind}_token")];
        entry.as_str().or_else(|| entry["content"].as_str())
    }

    /// The id of a token.
    fn id(&self, token: &str) -> Option<u64> {
        let added = self.tokenizer.iter().flat_map(|it| &it.added_tokens);
        let mut added = added.filter(|it| it.content == token).map(|it| it.id);
        added.next().or_else(|| {
            let decoder = self.config["added_tokens_decoder"].as_object()?;
            let (id, _) = decoder.iter().find(|(_, entry)| entry["content"] == token)?;
            id.parse().ok()
        })
    }

    /// The parts of the post-processor.
    fn processors(&self) -> Vec<&Value> {
        let Some(Tokenizer { post_processor: Bounded(processor), .. }) = &self.tokenizer else {
            return Vec::new();
        };
        match processor["processors"].as_array() {
            Some(parts) => parts.iter().collect(),
            None => vec![processor],
        }
    }

    /// The first and the last token of the template for one sequence, where there are any.
    fn around(&self) -> [Option<&str>; 2] {
        let templates =
            self.processors().into_iter().filter(|it| it["type"] == "TemplateProcessing");
        let single = templates.filter_map(|it| it["single"].as_array()).next_back();
        let Some(single) = single.filter(|it| it.len() > 1) else { return [None, None] };
        [single.first(), single.last()].map(|piece| piece?["SpecialToken"]["id"].as_str())
    }

    /// Whether a token begins a sequence, as `tokenizer_config.json` names those that do.
    fn begins(&self, token: &str) -> bool {
        self.config.is_null() || ["bos", "cls"].iter().any(|kind| self.named(kind) == Some(token))
    }
}

/// Every key with an id of a kind of token.
fn special(sides: &Sides, files: &Files, kind: &str, key: &str) -> Option<String> {
    let stated =
        sides.metadata(key).filter(|_| sides.table.compares(sides.facts.architecture(), key))?;
    let mut said: Vec<(String, u64)> = Vec::new();
    let fallback = match kind {
        "bos" => Some("cls"),
        "eos" => Some("sep"),
        _ => None,
    };
    for kind in [Some(kind), fallback].into_iter().flatten() {
        if let Some((token, id)) = files.named(kind).and_then(|it| Some((it, files.id(it)?))) {
            let token = shown(&token.into());
            said.push((format!("tokenizer_config.json says {kind}_token = {token}, which is"), id));
        }
    }
    let [first, last] = files.around();
    let around = match kind {
        "bos" | "cls" => first,
        "eos" | "sep" => last,
        _ => None,
    };
    if let Some((token, id)) = around.and_then(|it| Some((it, files.id(it)?))) {
        said.push((
            format!("the template of tokenizer.json has {}, which is", shown(&token.into())),
            id,
        ));
    }
    if let Some((path, value)) = sides.facts.place(&format!("{kind}_token_id")) {
        let ids = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        // An id beyond the vocabulary, or below 0, is none.
        said.extend(
            ids.iter()
                .filter_map(Value::as_u64)
                .map(|id| (format!("config.json says {path} ="), id)),
        );
    }
    differs(key, stated, &said)
}

/// Whether a token is added.
fn added(sides: &Sides, files: &Files, kind: &str, key: &str) -> Option<String> {
    let stated =
        sides.metadata(key).filter(|_| sides.table.compares(sides.facts.architecture(), key))?;
    let mut said: Vec<(String, bool)> = Vec::new();
    let config = format!("add_{kind}_token");
    if let Some(adds) = files.config[&config].as_bool() {
        said.push((format!("tokenizer_config.json says {config} ="), adds));
    }
    for processor in files.processors() {
        let adds = match (processor["type"].as_str(), kind) {
            (Some("ByteLevel"), "bos" | "eos") => Some(false),
            (Some("RobertaProcessing"), _) => Some(true),
            (Some("TemplateProcessing"), "bos") => match files.around()[0] {
                // Of a token that nobody names, converters make different things.
                Some(token) if !files.begins(token) => return None,
                first => first.map(|_| true),
            },
            (Some("TemplateProcessing"), "eos") => files.around()[1].map(|_| true),
            // What stands between two sequences is read from templates in several ways.
            (Some("TemplateProcessing"), _) => return None,
            _ => None,
        };
        said.extend(adds.map(|it| ("the post_processor of tokenizer.json says".to_owned(), it)));
    }
    differs(key, stated, &said)
}

/// The sentence, if something is said and nothing of it is what is stated.
fn differs<T: Copy + Into<Value>>(
    key: &str,
    stated: &Value,
    said: &[(String, T)],
) -> Option<String> {
    let same = |value: T| {
        let value: Value = value.into();
        value == *stated || value.as_u64().is_some_and(|it| stated.as_f64() == Some(it as f64))
    };
    if said.is_empty() || said.iter().any(|(_, value)| same(*value)) {
        return None;
    }
    let said = said.iter().map(|(who, value)| format!("{who} {}", (*value).into()));
    Some(format!("{key} is {}, and {}", shown(stated), said.collect::<Vec<_>>().join(", and ")))
}

const MERGES: &str = "tokenizer.ggml.merges";

fn merges(sides: &Sides, files: &Files) -> Option<String> {
    let stated = sides
        .metadata(MERGES)
        .filter(|_| sides.table.compares(sides.facts.architecture(), MERGES))?;
    let said = files.tokenizer.as_ref()?.model.merges.as_ref().filter(|it| it.len > 0)?;
    let (len, holds) = match stated {
        Value::Array(stated) => {
            let same =
                stated.iter().map(Value::as_str).eq(said.first.iter().map(|it| Some(it.as_str())));
            (stated.len() as u64, same && said.len == stated.len() as u64)
        }
        described => {
            let len = described["len"].as_u64()?;
            (len, len == said.len && described["sha256"] == said.sha256.as_str())
        }
    };
    (!holds).then(|| {
        let said = said.len;
        let which = if len == said { "others than" } else { "not" };
        format!("{MERGES} has {len} merges, {which} the {said} of model.merges in tokenizer.json")
    })
}

/// Every chat template beside a checkpoint, with where it is.
fn templates(directory: &Path, files: &Files) -> io::Result<Vec<(&'static str, String)>> {
    let mut found = Vec::new();
    let mut add = |place, value: &Value| match value {
        Value::String(text) => found.push((place, text.clone())),
        Value::Array(named) => {
            let default = named.iter().find(|it| it["name"] == "default");
            let text = default.and_then(|it| it["template"].as_str());
            found.extend(text.map(|text| (place, text.to_owned())));
        }
        _ => {}
    };
    add("chat_template in tokenizer_config.json", &files.config["chat_template"]);
    let json: Option<Bounded> = read(&directory.join("chat_template.json"))?;
    add(
        "chat_template.json",
        &json.map(|Bounded(it)| it["chat_template"].clone()).unwrap_or_default(),
    );
    match disk::read_text(&directory.join("chat_template.jinja"), disk::CONFIGURATION) {
        Ok(text) => add("chat_template.jinja", &text.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

const TEMPLATE: &str = "tokenizer.chat_template";

fn template(sides: &Sides, said: &[(&str, String)]) -> Option<String> {
    let stated = sides
        .metadata(TEMPLATE)
        .filter(|_| sides.table.compares(sides.facts.architecture(), TEMPLATE))?;
    let is = |text: &str| match stated {
        Value::String(stated) => stated == text,
        described => {
            let digest = hex(&Sha256::digest(text));
            described["len"] == text.len() as u64 && described["sha256"] == digest.as_str()
        }
    };
    if said.is_empty() || said.iter().any(|(_, text)| is(text)) {
        return None;
    }
    let bytes = |value: &Value| value.as_str().map_or(value["len"].clone(), |it| it.len().into());
    let said = said.iter().map(|(place, text)| format!("{place} is another, of {}", text.len()));
    let said = said.collect::<Vec<_>>().join(", and ");
    Some(format!("{TEMPLATE} is a text of {} bytes, and {said}", bytes(stated)))
}
