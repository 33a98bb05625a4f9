/*!
Patterns of names, and the one spelling that a checkpoint's many spellings of a name have here.
*/

use std::collections::HashMap;

/// A pattern of names: `{n}` is a number, `*` anything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(Vec<Token>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Token {
    Text(String),
    Number(String),
    Star,
}

/// What the places of a pattern stood for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Captures {
    /// Each number by its name.
    pub numbers: Vec<(String, f64)>,
    /// The last star.
    pub star: String,
}

impl std::str::FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('*') {
                tokens.push(Token::Star);
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let (name, after) = after
                    .split_once('}')
                    .filter(|(name, _)| !name.is_empty() && name.chars().all(char::is_alphabetic))
                    .ok_or_else(|| {
                        format!("{text:?}: a number's place is a letter, as in {{n}}")
                    })?;
                tokens.push(Token::Number(name.to_owned()));
                rest = after;
            } else {
                let (part, after) = rest.split_at(rest.find(['*', '{']).unwrap_or(rest.len()));
                tokens.push(Token::Text(part.to_owned()));
                rest = after;
            }
        }
        Ok(Self(tokens))
    }
}

impl Pattern {
    /// What the places stand for, if the name is of this pattern.
    pub fn captures(&self, name: &str) -> Option<Captures> {
        let mut captures = Captures::default();
        matches(&self.0, name, &mut captures).then_some(captures)
    }
}

fn matches(tokens: &[Token], name: &str, captures: &mut Captures) -> bool {
    let Some((first, rest)) = tokens.split_first() else { return name.is_empty() };
    match first {
        Token::Text(text) => {
            name.strip_prefix(text.as_str()).is_some_and(|name| matches(rest, name, captures))
        }
        Token::Number(letter) => {
            let digits = name.len() - name.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let Ok(number) = name[..digits].parse::<u32>() else { return false };
            captures.numbers.push((letter.clone(), f64::from(number)));
            matches(rest, &name[digits..], captures)
        }
        Token::Star => name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| {
            let known = captures.numbers.len();
            let found = matches(rest, &name[at..], captures);
            if found {
                // The last star is the innermost to return.
                if !rest.contains(&Token::Star) {
                    name[..at].clone_into(&mut captures.star);
                }
            } else {
                captures.numbers.truncate(known);
            }
            found
        }),
    }
}

/// Containers that a checkpoint's names may begin with and that say nothing: one model saved on its own
/// or inside another.
const PREFIXES: [&str; 12] = [
    "model.",
    "language_model.",
    "text_model.",
    "thinker.",
    "transformer.",
    "backbone.",
    "gpt_neox.",
    "rwkv.",
    "bert.",
    "roberta.",
    "distilbert.",
    "base_model.",
];

/// What the list of layers is called.
const LAYERS: [&str; 7] =
    ["layers.layers.", "encoder.layers.", "encoder.layer.", "layers.", "layer.", "blocks.", "h."];

/// The one spelling of a checkpoint's name: without containers, layers as `layers.N.`.
pub fn plain(name: &str) -> String {
    let mut rest = name;
    while let Some(after) = PREFIXES.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = after;
    }
    let numbered = |after: &&str| after.starts_with(|c: char| c.is_ascii_digit());
    match LAYERS.iter().find_map(|layers| rest.strip_prefix(layers).filter(numbered)) {
        Some(after) => format!("layers.{after}"),
        None => rest.to_owned(),
    }
}

/// Indices of names by their one spelling; two names of one spelling keep their own.
pub fn index<'a>(names: impl Iterator<Item = &'a str>) -> HashMap<String, usize> {
    let mut plain_names: HashMap<String, Vec<(usize, &str)>> = HashMap::new();
    for (at, name) in names.enumerate() {
        plain_names.entry(plain(name)).or_default().push((at, name));
    }
    let mut index = HashMap::new();
    for (name, all) in plain_names {
        match all.as_slice() {
            [(at, _)] => {
                index.insert(name, *at);
            }
            many => index.extend(many.iter().map(|(at, own)| ((*own).to_owned(), *at))),
        }
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_numbers_and_anything() {
        for (pattern, name, expected, why) in [
            ("blk.{n}.attn_q.*", "blk.12.attn_q.weight", Some((vec![("n", 12.0)], "weight")), ""),
            ("blk.{n}.attn_q.*", "blk.x.attn_q.weight", None, "no number"),
            ("blk.{n}.attn_q.*", "blk.1.attn_k.weight", None, "another name"),
            ("token_embd.weight", "token_embd.weight", Some((vec![], "")), "no places"),
            ("token_embd", "token_embd.weight", None, "the whole name"),
            (
                "*.inv_freq",
                "layers.0.rotary_emb.inv_freq",
                Some((vec![], "layers.0.rotary_emb")),
                "",
            ),
            ("*.{n}.bias", "a.b.3.bias", Some((vec![("n", 3.0)], "a.b")), "a star before a number"),
            ("mtp*", "mtp.fc.weight", Some((vec![], ".fc.weight")), ""),
            ("blk.{n}.a", "blk.99999999999.a", None, "a number beyond all layers"),
        ] {
            let found = pattern.parse::<Pattern>().unwrap().captures(name);
            let expected = expected.map(|(numbers, star)| Captures {
                numbers: numbers.into_iter().map(|(n, value)| (n.to_owned(), value)).collect(),
                star: star.to_owned(),
            });
            assert_eq!(found, expected, "{pattern} {name} {why}");
        }
        assert!("blk.{1}".parse::<Pattern>().is_err());
    }

    #[test]
    fn a_name_has_one_spelling() {
        for (name, expected) in [
            ("model.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
            ("model.language_model.layers.0.x", "layers.0.x"),
            ("language_model.model.norm.weight", "norm.weight"),
            ("language_model.lm_head.weight", "lm_head.weight"),
            ("transformer.h.3.ln_1.bias", "layers.3.ln_1.bias"),
            ("h.3.ln_1.bias", "layers.3.ln_1.bias"),
            ("bert.encoder.layer.1.output.dense.weight", "layers.1.output.dense.weight"),
            ("model.transformer.blocks.0.q_proj.weight", "layers.0.q_proj.weight"),
            ("model.layers.layers.0.mixer.D", "layers.0.mixer.D"),
            (
                "encoder.block.0.layer.0.SelfAttention.q.weight",
                "encoder.block.0.layer.0.SelfAttention.q.weight",
            ),
            ("model.visual.blocks.0.norm1.weight", "visual.blocks.0.norm1.weight"),
            ("layer_norm.weight", "layer_norm.weight"),
        ] {
            assert_eq!(plain(name), expected);
        }
    }

    #[test]
    fn names_of_one_spelling_keep_their_own() {
        let found = index(["model.norm.weight", "norm.weight", "model.x"].into_iter());
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort();
        let expected = [("model.norm.weight", 0), ("norm.weight", 1), ("x", 2)];
        assert_eq!(found, expected.map(|(name, at)| (name.to_owned(), at)));
    }
}
