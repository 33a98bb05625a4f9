/*! What a view does, as a list of operations for people and for `contract.json`. */

use std::fmt;

use serde_json::{Map, Value};

/// One operation and its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its name, as in `transpose`.
    pub op: &'static str,
    /// Its arguments by name.
    pub args: Vec<(&'static str, Value)>,
}

impl Step {
    /// An operation.
    pub fn new(op: &'static str, args: Vec<(&'static str, Value)>) -> Self {
        Self { op, args }
    }

    /// As an object: `{"op": "transpose", "axes": [1, 0]}`.
    pub fn json(&self) -> Value {
        let op = std::iter::once(("op".to_owned(), Value::from(self.op)));
        let args = self.args.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Value::Object(op.chain(args).collect::<Map<_, _>>())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.op)?;
        if self.args.is_empty() {
            return Ok(());
        }
        let args: Vec<String> =
            self.args.iter().map(|(name, value)| format!("{name}={value}")).collect();
        write!(out, "({})", args.join(", "))
    }
}

/// A view as the operations that make it.
#[derive(Clone, Debug, PartialEq)]
pub enum Recipe {
    /// Operations on one stored tensor, or on none: a constant.
    Single {
        /// Name of the stored tensor, if there is one.
        source: Option<String>,
        /// What is done to it, in order.
        ops: Vec<Step>,
    },
    /// Pieces put together.
    Joined {
        /// What is put together.
        pieces: Vec<Recipe>,
        /// How.
        join: Step,
        /// What is done to the result, in order.
        ops: Vec<Step>,
    },
}

impl Recipe {
    /// As an object: `{"source": NAME, "ops": [...]}` or `{"pieces": [...], "join": {...}, "ops": [...]}`.
    pub fn json(&self) -> Value {
        let list = |ops: &[Step]| Value::from(ops.iter().map(Step::json).collect::<Vec<_>>());
        match self {
            Self::Single { source, ops } => {
                serde_json::json!({ "source": source, "ops": list(ops) })
            }
            Self::Joined { pieces, join, ops } => {
                let pieces: Vec<Value> = pieces.iter().map(Self::json).collect();
                serde_json::json!({ "pieces": pieces, "join": join.json(), "ops": list(ops) })
            }
        }
    }
}

impl fmt::Display for Recipe {
    /// `NAME: slice(…), transpose(…)`; pieces in brackets.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |ops: &[Step]| ops.iter().map(Step::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::Single { source, ops } => {
                out.write_str(source.as_deref().unwrap_or("a constant"))?;
                if ops.is_empty() { Ok(()) } else { write!(out, ": {}", list(ops)) }
            }
            Self::Joined { pieces, join, ops } => {
                let pieces: Vec<String> = pieces.iter().map(Self::to_string).collect();
                write!(out, "{join} of [{}]", pieces.join("; "))?;
                if ops.is_empty() { Ok(()) } else { write!(out, ": {}", list(ops)) }
            }
        }
    }
}
