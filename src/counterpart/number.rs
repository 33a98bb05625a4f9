/*!
Numbers of rules: arithmetic over what a configuration and the shapes of tensors say.

`rows / head_dim`, `2 ^ -(n // rescale_every)`, `text_config.vocab_size`. Operators by rising
strength: `== != < > <= >=`, `+ -`, `* / //`, `-` before a number, `^`. `//` rounds down. A comparison is 1 or 0.
*/

use std::fmt;

use crate::metrics::functions;

/// A number, as it is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Number {
    /// Digits.
    Literal(f64),
    /// A variable or a key of the configuration; dots lead into nested tables and lists.
    Name(String),
    /// The negative of a number.
    Negative(Box<Number>),
    /// Two numbers and what is done with them.
    Pair(Box<Number>, Operator, Box<Number>),
}

/// What is done with two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`
    Differs,
    /// `<=`
    AtMost,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `>`
    Above,
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `//`, rounded down
    Floor,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `^`
    Power,
}

impl Operator {
    /// Each with its sign and its strength; a sign stands before those that it begins with.
    const TABLE: [(Self, &'static str, u8); 12] = [
        (Self::Equal, "==", 1),
        (Self::Differs, "!=", 1),
        (Self::AtMost, "<=", 1),
        (Self::AtLeast, ">=", 1),
        (Self::Below, "<", 1),
        (Self::Above, ">", 1),
        (Self::Add, "+", 2),
        (Self::Subtract, "-", 2),
        (Self::Floor, "//", 3),
        (Self::Multiply, "*", 3),
        (Self::Divide, "/", 3),
        (Self::Power, "^", 5),
    ];

    fn apply(self, a: f64, b: f64) -> f64 {
        let truth = |holds: bool| f64::from(u8::from(holds));
        match self {
            Self::Equal => truth(a == b),
            Self::Differs => truth(a != b),
            Self::AtMost => truth(a <= b),
            Self::AtLeast => truth(a >= b),
            Self::Below => truth(a < b),
            Self::Above => truth(a > b),
            Self::Add => a + b,
            Self::Subtract => a - b,
            Self::Floor => (a / b).floor(),
            Self::Multiply => a * b,
            Self::Divide => a / b,
            Self::Power => functions::pow(a, b),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(value) => write!(f, "{value}"),
            Self::Name(name) => f.write_str(name),
            Self::Negative(of) => write!(f, "-{of}"),
            Self::Pair(a, operator, b) => {
                let sign = Operator::TABLE.iter().find(|row| row.0 == *operator);
                write!(f, "({a} {} {b})", sign.map_or("?", |row| row.1))
            }
        }
    }
}

/// Why a number has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// Nothing says what a name is.
    #[error("{0} is not known: config.json does not say it")]
    Unknown(String),
    /// A division by zero, or a result beyond all bounds.
    #[error("{0} has no value")]
    Undefined(String),
}

impl Number {
    /// The value, with `look_up` for names.
    pub fn value(&self, look_up: &dyn Fn(&str) -> Option<f64>) -> Result<f64, NumberError> {
        let value = match self {
            Self::Literal(value) => *value,
            Self::Name(name) => look_up(name).ok_or_else(|| NumberError::Unknown(name.clone()))?,
            Self::Negative(of) => -of.value(look_up)?,
            Self::Pair(a, operator, b) => operator.apply(a.value(look_up)?, b.value(look_up)?),
        };
        if value.is_finite() { Ok(value) } else { Err(NumberError::Undefined(self.to_string())) }
    }

    /// Reads a number from the start of a text; the rest is what follows it.
    pub fn read(text: &str) -> Result<(Self, &str), String> {
        read_from(text, 1)
    }
}

/// A text that is a number and nothing else.
impl std::str::FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match Self::read(text)? {
            (number, "") => Ok(number),
            (_, rest) => Err(format!("{rest:?} does not belong to a number")),
        }
    }
}

/// Reads operators that are at least so strong.
fn read_from(text: &str, least: u8) -> Result<(Number, &str), String> {
    let (mut number, mut rest) = read_operand(text.trim_start())?;
    loop {
        rest = rest.trim_start();
        let row = Operator::TABLE.iter().find(|(_, sign, _)| rest.starts_with(sign));
        let Some((operator, sign, strength)) = row.filter(|row| row.2 >= least) else {
            return Ok((number, rest));
        };
        let (right, after) = read_from(&rest[sign.len()..], strength + 1)?;
        number = Number::Pair(Box::new(number), *operator, Box::new(right));
        rest = after;
    }
}

/// Strength of a `-` before a number: below a power, above a product.
const NEGATIVE: u8 = 4;

fn read_operand(text: &str) -> Result<(Number, &str), String> {
    if let Some(rest) = text.strip_prefix('-') {
        let (of, rest) = read_from(rest, NEGATIVE)?;
        return Ok((Number::Negative(Box::new(of)), rest));
    }
    if let Some(rest) = text.strip_prefix('(') {
        let (number, rest) = read_from(rest, 1)?;
        let rest = rest.strip_prefix(')').ok_or("a bracket is not closed")?;
        return Ok((number, rest));
    }
    let in_name = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let (word, rest) = text.split_at(text.find(|c| !in_name(c)).unwrap_or(text.len()));
    match word.chars().next() {
        None => Err(format!("a number is expected before {text:?}")),
        Some(first) if first.is_ascii_digit() => {
            // "1e-7": the sign belongs to the digits.
            let exponent = word.ends_with(['e', 'E']) && rest.starts_with('-');
            let digits = rest.len()
                - rest[1.min(rest.len())..].trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (word, rest) =
                if exponent { text.split_at(word.len() + digits) } else { (word, rest) };
            let value = word.parse().map_err(|_| format!("{word:?} is no number"))?;
            Ok((Number::Literal(value), rest))
        }
        Some(_) => Ok((Number::Name(word.to_owned()), rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_values() {
        let known = |name: &str| match name {
            "rows" => Some(64.0),
            "head_dim" => Some(16.0),
            "n" => Some(5.0),
            "vision_config.heads" => Some(3.0),
            "zero" => Some(0.0),
            _ => None,
        };
        for (text, expected, why) in [
            ("rows / head_dim", Ok(4.0), "a quotient"),
            ("1 + 2 * 3 - 4", Ok(3.0), "products before sums"),
            ("10 - 2 - 3", Ok(5.0), "from left to right"),
            ("(1 + 2) * 3", Ok(9.0), "brackets"),
            ("2 ^ -(n // 2)", Ok(0.25), "a negative power, rounded down"),
            ("-2 ^ 2", Ok(-4.0), "a power before its sign"),
            ("5 ^ 1.5", Ok(5f64.powf(1.5)), "a fraction"),
            ("1e-7 * 2", Ok(2e-7), "an exponent with its sign"),
            ("vision_config.heads", Ok(3.0), "a nested key"),
            ("n >= 5", Ok(1.0), "a comparison that holds"),
            ("n + 1 == 5", Ok(0.0), "one that does not"),
            ("other", Err("other is not known: config.json does not say it"), "a missing key"),
            ("1 / zero", Err("(1 / zero) has no value"), "a division by zero"),
        ] {
            let number: Number = text.parse().unwrap();
            let value = number.value(&known).map_err(|error| error.to_string());
            assert_eq!(value, expected.map_err(str::to_owned), "{why}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for (text, expected) in [
            ("", "a number is expected before \"\""),
            ("1 +", "a number is expected before \"\""),
            ("(1", "a bracket is not closed"),
            ("1 2", "\"2\" does not belong to a number"),
            ("1x", "\"1x\" is no number"),
        ] {
            assert_eq!(text.parse::<Number>(), Err(expected.to_owned()), "{text}");
        }
    }
}
