/*!
One bound against one value: what a gate says, in the form in which reports keep it.
*/

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number that may be infinite or NaN, which JSON writes as `null` (read back as NaN).
#[derive(Clone, Copy, Debug, Default)]
pub struct Number(pub f64);

/// A place in a spec file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Path of the file.
    pub file: String,
    /// 1-based.
    pub line: u64,
    /// 1-based.
    pub column: u64,
}

/// How grave a violated check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Makes the test fail.
    Fail,
    /// Is reported; fails only under `--fail-level warn`.
    Warn,
}

/// What has become of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// It holds.
    Held,
    /// It does not.
    Violated,
    /// It does not, but a waiver's floor holds.
    Waived,
    /// It could not be judged, or was not to be; the reason says why.
    NotJudged,
}

/// One bound against one value.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckRecord {
    /// What is checked: a metric (`cosine`), `finite`, `exact`, `missing`, `shape`,
    /// `baseline.cosine`, …
    pub check: String,
    /// What has become of it.
    pub outcome: CheckOutcome,
    /// How grave a violation is.
    pub level: Level,
    /// The value, if the check is about a number; `null` for NaN and the infinities.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub value: Option<Number>,
    /// The bound, if there is one.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub bound: Option<Number>,
    /// One line for people: value, bound, tensor, qtype.
    pub message: String,
    /// Where the bound is written.
    pub source: Option<Source>,
    /// Why the bound is what it is: the reason of the rule or the waiver. Of a check that is not judged,
    /// why not.
    pub reason: Option<String>,
    /// Against the baseline, if there is one.
    pub movement: Option<Movement>,
}

impl CheckRecord {
    /// A check that is about a fact, not a number.
    pub fn fact(
        check: impl Into<String>,
        outcome: CheckOutcome,
        level: Level,
        message: String,
    ) -> Self {
        Self {
            check: check.into(),
            outcome,
            level,
            value: None,
            bound: None,
            message,
            source: None,
            reason: None,
            movement: None,
        }
    }
}

impl CheckOutcome {
    /// What has become of a check that holds, or does not.
    pub fn of(holds: bool) -> Self {
        if holds { Self::Held } else { Self::Violated }
    }
}

/// How a value moved against the baseline.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Movement {
    /// The value in the snapshot.
    pub old: Number,
    /// The value now.
    pub new: Number,
    /// `same`, `within`, `better` or `worse`.
    pub kind: MovementKind,
}

/// Direction of a movement, seen from the metric's good side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MovementKind {
    /// Bit for bit.
    Same,
    /// Inside the tolerance.
    Within,
    /// Beyond the tolerance, in the good direction.
    Better,
    /// Beyond the tolerance, in the bad direction.
    Worse,
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() {
            serializer.serialize_f64(self.0)
        } else {
            serializer.serialize_none()
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN)))
    }
}

/// A number whose key is there: `null` is NaN, not absence.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Number>, D::Error> {
    Number::deserialize(deserializer).map(Some)
}

impl JsonSchema for Number {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Number".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A number; null stands for NaN and the infinities.",
            "type": ["number", "null"],
        })
    }
}
