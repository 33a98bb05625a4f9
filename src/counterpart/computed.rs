/*!
Tensors that a converter computes from `config.json`: factors of the rotary frequencies.
*/

use serde_json::Value;

use super::facts::{Facts, Names};
use crate::metrics::functions;

/// A power in single precision, rounded once.
fn power(base: f32, exponent: f32) -> f32 {
    functions::pow(f64::from(base), f64::from(exponent)) as f32
}

/// A tensor that follows from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Computed {
    /// Factors of Llama 3's rotary scaling: 1 for short waves, `factor` for long ones, and between.
    Llama3RopeFreqs,
    /// 1 for the pairs that are rotated, 1e30 for the rest (Gemma 4's proportional scaling).
    ProportionalRopeFreqs,
    /// `long_factor` of a `longrope` scaling.
    LongFactor,
    /// `short_factor` of a `longrope` scaling.
    ShortFactor,
}

impl Computed {
    const TABLE: [(Self, &'static str); 4] = [
        (Self::Llama3RopeFreqs, "llama3_rope_freqs"),
        (Self::ProportionalRopeFreqs, "proportional_rope_freqs"),
        (Self::LongFactor, "long_factor"),
        (Self::ShortFactor, "short_factor"),
    ];

    /// The one of a name.
    pub fn named(name: &str) -> Result<Self, String> {
        let row = Self::TABLE.iter().find(|(_, known)| *known == name);
        row.map(|(computed, _)| *computed).ok_or_else(|| format!("{name} is not computed"))
    }

    /// Its name in rules.
    pub fn name(self) -> &'static str {
        Self::TABLE[self as usize].1
    }

    /// The values; `None` if the configuration does not ask for them.
    pub fn values(self, facts: &Facts, names: &Names) -> Option<Vec<f32>> {
        let rope = Rope::of(facts)?;
        match self {
            Self::Llama3RopeFreqs => rope.is("llama3").then(|| rope.llama3(names))?,
            Self::ProportionalRopeFreqs => {
                rope.is("proportional").then(|| rope.proportional(names))?
            }
            Self::LongFactor => rope.list("long_factor"),
            Self::ShortFactor => rope.list("short_factor"),
        }
    }
}

/// The settings of the rotary position embedding, wherever a configuration has them.
struct Rope<'a> {
    facts: &'a Facts,
    settings: &'a Value,
}

impl<'a> Rope<'a> {
    fn of(facts: &'a Facts) -> Option<Self> {
        let settings = facts.key("rope_parameters").or_else(|| facts.key("rope_scaling"))?;
        // Models whose layers differ have settings for each kind.
        let settings = settings.get("full_attention").unwrap_or(settings);
        settings.is_object().then_some(Self { facts, settings })
    }

    fn is(&self, kind: &str) -> bool {
        let kinds = ["rope_type", "type"].map(|key| self.settings[key].as_str());
        kinds.into_iter().flatten().any(|it| it.eq_ignore_ascii_case(kind))
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.settings[key].as_f64().or_else(|| self.facts.number(key, None))
    }

    fn list(&self, key: &str) -> Option<Vec<f32>> {
        let list = self.settings[key].as_array()?;
        list.iter().map(|value| value.as_f64().map(|value| value as f32)).collect()
    }

    /// The frequencies are computed in single precision, as the converter does.
    fn llama3(&self, names: &Names) -> Option<Vec<f32>> {
        let dim = names.number("head_dim")? as u32;
        let base = self.number("rope_theta").unwrap_or(10000.0);
        let factor = self.number("factor").unwrap_or(8.0);
        let low = self.number("low_freq_factor").unwrap_or(1.0);
        let high = self.number("high_freq_factor").unwrap_or(4.0);
        let context = self.number("original_max_position_embeddings").unwrap_or(8192.0);
        let of = |pair: u32| {
            let freq = 1.0 / power(base as f32, (2 * pair) as f32 / dim as f32);
            let wave = 2.0 * std::f64::consts::PI / f64::from(freq);
            if wave < context / high {
                1.0
            } else if wave > context / low {
                factor as f32
            } else {
                let smooth = (context / wave - low) / (high - low);
                (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
            }
        };
        Some((0..dim / 2).map(of).collect())
    }

    fn proportional(&self, names: &Names) -> Option<Vec<f32>> {
        let dim = names.number("global_head_dim")?;
        let rotated = (dim * self.number("partial_rotary_factor").unwrap_or(1.0) / 2.0) as u64;
        let pairs = (dim / 2.0) as u64;
        Some((0..pairs).map(|pair| if pair < rotated { 1.0 } else { 1e30 }).collect())
    }
}
