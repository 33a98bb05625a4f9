/*!
The language of rules: which tensors of a checkpoint a tensor is made of, and how.

```text
rule   = part { "|" operation } [ "if" number ]
part   = NAME | concat(AXIS, rule, …) | stack(rule, …) | repeat(NUMBER, rule) | computed(WHAT)
```

A name may hold `{n}`, `{n - layers}` and the like, numbers of the layer that the rule is for; `{e}`, which
counts up inside `stack`; and `*`, what the star of the rule's own name stood for.
*/

use std::str::FromStr;

use super::computed::Computed;
use super::number::Number;

/// A rule: an expression, and when it applies.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What the tensor is made of.
    pub part: Part,
    /// The rule applies only where this is not zero.
    pub when: Option<Number>,
}

/// What a tensor, or a part of it, is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A tensor of the checkpoint.
    Source(Name),
    /// A part, changed.
    Then(Box<Part>, Operation),
    /// Parts one after the other along an axis.
    Concat(usize, Vec<Part>),
    /// Parts as the slices of a new first axis; one part with `{e}` stands for all that exist.
    Stack(Vec<Part>),
    /// A part so many times along the first axis.
    Repeat(Number, Box<Part>),
    /// Values that follow from the configuration.
    Computed(Computed),
}

/// What is done with a part; names and meanings are those of `docs/architectures.md`.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Another shape; one extent may be -1.
    Reshape(Vec<Number>),
    /// Another order of the axes.
    Transpose(Vec<usize>),
    /// Elements from, to (exclusive) and in steps, along an axis.
    Slice {
        /// The axis.
        axis: usize,
        /// The first.
        start: Number,
        /// The first that is not taken.
        stop: Number,
        /// The distance between two.
        step: u64,
    },
    /// llama.cpp's order of query and key rows, for so many heads.
    PermuteQk(Number),
    /// A number is added.
    Add(Number),
    /// Multiplied by a number.
    Mul(Number),
    /// `-exp(x)`.
    NegExp,
    /// Zero rows are appended until there are so many.
    PadZeroRows(Number),
    /// Three values: `clamp(round(x/s), -1, 1)·s`, `s` the mean of `|x|`.
    TernaryAbsmean,
    /// Each column divided by its length plus this.
    DivColL2norm(Number),
}

/// The name of a tensor with places to fill in.
#[derive(Clone, Debug, PartialEq)]
pub struct Name(pub Vec<Piece>);

/// A piece of a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Itself.
    Text(String),
    /// `{…}`.
    Number(Number),
    /// `*`.
    Star,
}

impl Name {
    /// The name with its places filled in; `None` if a number has no value or is no index.
    pub fn fill(&self, star: &str, look_up: &dyn Fn(&str) -> Option<f64>) -> Option<String> {
        let mut name = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Star => name.push_str(star),
                Piece::Number(number) => {
                    let value = number.value(look_up).ok()?;
                    let index = (value >= 0.0 && value.fract() == 0.0).then_some(value as u64)?;
                    name.push_str(&index.to_string());
                }
            }
        }
        Some(name)
    }

    /// Whether `{e}` counts in it.
    fn counts(&self) -> bool {
        let is_e = |piece: &Piece| *piece == Piece::Number(Number::Name("e".to_owned()));
        self.0.iter().any(is_e)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('*') {
                pieces.push(Piece::Star);
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let (number, after) =
                    after.split_once('}').ok_or_else(|| format!("{text:?} has no end of {{"))?;
                pieces.push(Piece::Number(number.parse()?));
                rest = after;
            } else {
                let (part, after) = rest.split_at(rest.find(['*', '{']).unwrap_or(rest.len()));
                pieces.push(Piece::Text(part.to_owned()));
                rest = after;
            }
        }
        Ok(Self(pieces))
    }
}

impl Part {
    /// Whether `{e}` counts in it.
    pub fn counts(&self) -> bool {
        match self {
            Self::Source(name) => name.counts(),
            Self::Then(part, _) | Self::Repeat(_, part) => part.counts(),
            Self::Concat(_, parts) => parts.iter().any(Self::counts),
            Self::Stack(_) | Self::Computed(_) => false,
        }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut reader = Reader { rest: text };
        let part = reader.rule()?;
        reader.space();
        let when = match reader.rest.strip_prefix("if ") {
            Some(condition) => Some(condition.trim().parse()?),
            None if reader.rest.is_empty() => None,
            None => return Err(format!("{:?} is not expected here", reader.rest)),
        };
        Ok(Self { part, when })
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, sign: char) -> bool {
        self.space();
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, sign: char) -> Result<(), String> {
        if self.take(sign) {
            return Ok(());
        }
        Err(format!("{sign:?} is expected before {:?}", self.rest))
    }

    fn number(&mut self) -> Result<Number, String> {
        let (number, rest) = Number::read(self.rest)?;
        self.rest = rest;
        Ok(number)
    }

    fn index(&mut self) -> Result<usize, String> {
        match self.number()? {
            Number::Literal(value) if value.fract() == 0.0 && value >= 0.0 => Ok(value as usize),
            other => Err(format!("an axis is a number such as 0, not {other}")),
        }
    }

    /// A name of a tensor, an operation or a function.
    fn word(&mut self) -> Result<String, String> {
        self.space();
        let mut depth = 0;
        let ends = |c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0 && !(c.is_alphanumeric() || "_-.*}".contains(c))
        };
        let (word, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        if word.is_empty() {
            return Err(format!("the name of a tensor is expected before {:?}", self.rest));
        }
        self.rest = rest;
        Ok(word.to_owned())
    }

    fn rule(&mut self) -> Result<Part, String> {
        let mut part = self.part()?;
        while self.take('|') {
            part = Part::Then(Box::new(part), self.operation()?);
        }
        Ok(part)
    }

    fn part(&mut self) -> Result<Part, String> {
        let word = self.word()?;
        if !self.rest.starts_with('(') {
            return Ok(Part::Source(word.parse()?));
        }
        self.expect('(')?;
        let part = match word.as_str() {
            "concat" => {
                let axis = self.index()?;
                self.expect(',')?;
                Part::Concat(axis, self.parts()?)
            }
            "stack" => Part::Stack(self.parts()?),
            "repeat" => {
                let times = self.number()?;
                self.expect(',')?;
                Part::Repeat(times, Box::new(self.rule()?))
            }
            "computed" => Part::Computed(Computed::named(&self.word()?)?),
            other => return Err(format!("{other} is no way to put tensors together")),
        };
        self.expect(')')?;
        Ok(part)
    }

    fn parts(&mut self) -> Result<Vec<Part>, String> {
        let mut parts = vec![self.rule()?];
        while self.take(',') {
            parts.push(self.rule()?);
        }
        Ok(parts)
    }

    fn operation(&mut self) -> Result<Operation, String> {
        let word = self.word()?;
        let plain = match word.as_str() {
            "neg_exp" => Some(Operation::NegExp),
            "ternary_absmean" => Some(Operation::TernaryAbsmean),
            _ => None,
        };
        if let Some(operation) = plain {
            return Ok(operation);
        }
        self.expect('(')?;
        let operation = match word.as_str() {
            "reshape" => {
                let mut extents = vec![self.number()?];
                while self.take(',') {
                    extents.push(self.number()?);
                }
                Operation::Reshape(extents)
            }
            "transpose" => {
                let mut axes = vec![self.index()?];
                while self.take(',') {
                    axes.push(self.index()?);
                }
                Operation::Transpose(axes)
            }
            "slice" => {
                let axis = self.index()?;
                self.expect(',')?;
                let start = self.number()?;
                self.expect(',')?;
                let stop = self.number()?;
                let step = if self.take(',') { self.index()? as u64 } else { 1 };
                Operation::Slice { axis, start, stop, step }
            }
            "permute_qk" => Operation::PermuteQk(self.number()?),
            "add" => Operation::Add(self.number()?),
            "mul" => Operation::Mul(self.number()?),
            "pad_zero_rows" => Operation::PadZeroRows(self.number()?),
            "div_col_l2norm" => Operation::DivColL2norm(self.number()?),
            other => return Err(format!("{other} is no operation")),
        };
        self.expect(')')?;
        Ok(operation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        let rule: Rule =
            "concat(0, layers.{n}.q.* | permute_qk(rows / head_dim), v.*) | add(1) if n > 0"
                .parse()
                .unwrap();
        assert!(rule.when.is_some());
        let Part::Then(joined, Operation::Add(Number::Literal(1.0))) = &rule.part else {
            panic!("{rule:?}");
        };
        let Part::Concat(0, parts) = &**joined else { panic!("{joined:?}") };
        let Part::Then(q, Operation::PermuteQk(_)) = &parts[0] else { panic!("{parts:?}") };
        let Part::Source(name) = &**q else { panic!("{q:?}") };
        let n = |name: &str| (name == "n").then_some(3.0);
        assert_eq!(name.fill("weight", &n).as_deref(), Some("layers.3.q.weight"));
        assert_eq!(name.fill("weight", &|_| None), None, "no number");
    }

    #[test]
    fn counting_is_seen_through_operations_and_joins() {
        for (text, expected) in [
            ("a.{n}.w", false),
            ("a.{e}.w | transpose(1, 0)", true),
            ("concat(0, a.{e}.w, b)", true),
            ("stack(a.{e}.w)", false),
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().part.counts(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for (text, expected) in [
            ("", "the name of a tensor is expected"),
            ("a | turn(1)", "turn is no operation"),
            ("a | add 1", "'(' is expected"),
            ("merge(a)", "merge is no way to put tensors together"),
            ("a b", "\"b\" is not expected here"),
            ("a.{n", "no end of {"),
            ("a | transpose(-1)", "an axis is a number such as 0"),
            ("computed(nothing)", "nothing is not computed"),
        ] {
            let error = text.parse::<Rule>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
