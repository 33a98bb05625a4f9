/*!
The score: relative squared errors of tensors, weighted by what they do.

`Σ heads w·t² + (1/L) Σ tensors of layers w·t²`, where L is the number of layers that hold counted tensors.
*/

use std::collections::{BTreeMap, BTreeSet};

use super::role::{Place, Roles};
use super::table::{Role, nominal_t2};
use crate::codec::{Class, TensorType};
use crate::metrics::functions::ln;

/// `tensors` tensors of a role with the same relative squared error.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// What they do.
    pub role: &'static Role,
    /// How many.
    pub tensors: u64,
    /// Σ(w − ŵ)² / Σw².
    pub t2: f64,
}

/// The score of a model of `layers` layers.
pub fn score_of(terms: &[Term], layers: u64) -> f64 {
    let layers = layers.max(1) as f64;
    terms.iter().map(|term| contribution(term, layers)).sum()
}

fn contribution(term: &Term, layers: f64) -> f64 {
    term.role.weight * term.tensors as f64 * term.t2 / if term.role.head { 1.0 } else { layers }
}

/// A tensor of a pair, as far as the score is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Its name.
    pub tensor: &'a str,
    /// Its type or scheme in the quantized model.
    pub qtype: &'a str,
    /// Outermost dimension first.
    pub shape: &'a [u64],
    /// Σ(w − ŵ)² and Σw²; none if the values could not be compared.
    pub sums: Option<(f64, f64)>,
}

/// What the errors of a score's tensors are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// What each type gives: all evidence is for this one.
    Nominal,
    /// What the pair measured, of some tensors.
    Mixed,
    /// What the pair measured, of all.
    Measured,
}

impl Basis {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nominal => "nominal",
            Self::Mixed => "mixed",
            Self::Measured => "measured",
        }
    }
}

/// Where a score lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Below 0.01: a floor that weights cannot show dominates.
    NearLossless,
    /// From 0.01 to 0.5: the score is proportional to what is measured.
    Ok,
    /// Above 0.5: the damage grows faster than the score.
    LowerBound,
}

impl Zone {
    /// The zone of a score.
    pub fn of(score: f64) -> Self {
        match score {
            score if score < 0.01 => Self::NearLossless,
            score if score <= 0.5 => Self::Ok,
            _ => Self::LowerBound,
        }
    }

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::NearLossless => "near-lossless",
            Self::Ok => "ok",
            Self::LowerBound => "lower bound",
        }
    }
}

/// What a role adds to a score.
#[derive(Clone, Copy, Debug)]
pub struct RoleShare {
    /// The role.
    pub role: &'static Role,
    /// Tensors that count.
    pub tensors: u64,
    /// What it adds.
    pub value: f64,
    /// The same as a share of the score, 0 to 1.
    pub share: f64,
}

/// A tensor whose error is not what its type gives.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Its name.
    pub tensor: String,
    /// Its type.
    pub qtype: String,
    /// What was measured.
    pub measured: f64,
    /// What the type gives on Gaussian weights.
    pub nominal: f64,
}

/// The expected damage of a model.
#[derive(Clone, Debug)]
pub struct Score {
    /// The score.
    pub value: f64,
    /// What its errors are taken from.
    pub basis: Basis,
    /// Whether the types of all counted tensors are in the evidence.
    pub evidence: bool,
    /// What each role adds, the most first.
    pub roles: Vec<RoleShare>,
    /// Tensors whose measured error stands in for what their type gives, the furthest off first.
    pub faults: Vec<Fault>,
    /// Tensors that lost more than all of their energy: worse than zeros.
    pub worse_than_zero: Vec<String>,
    /// Layers that hold counted tensors.
    pub layers: u64,
}

impl Score {
    /// Where it lies.
    pub fn zone(&self) -> Zone {
        Zone::of(self.value)
    }
}

/// Measured over nominal: within these, the nominal error counts.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = 0.6..=2.0;

/// The tensors that count as one.
struct Group {
    place: Place,
    /// Σ(w − ŵ)² and Σw².
    sums: (f64, f64),
    /// Nominal error times energy; `None` as soon as a type has none.
    nominal: Option<f64>,
    tensor: String,
    qtype: String,
    class: Class,
}

/// The score of a pair's tensors; an error says why there is none.
pub fn score(inputs: &[Input]) -> Result<Score, String> {
    let roles = Roles::of(inputs.iter().map(|input| input.tensor));
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for input in inputs {
        let Some(place) = roles.place(input.tensor, input.shape) else { continue };
        let finite = |sums: &(f64, f64)| sums.0.is_finite() && sums.1.is_finite();
        let Some(sums) = input.sums.filter(finite) else {
            return Err(format!("the values of {} could not be compared", input.tensor));
        };
        let ty = TensorType::from_name(input.qtype);
        let class = ty.map_or(Class::Quantized, |ty| ty.info().class);
        let nominal = ty.and_then(nominal_t2).map(|t2| t2 * sums.1);
        let group = groups.entry(place.key.clone()).or_insert_with(|| Group {
            place,
            sums: (0.0, 0.0),
            nominal: Some(0.0),
            tensor: input.tensor.to_owned(),
            qtype: input.qtype.to_owned(),
            class: Class::Float,
        });
        group.sums = (group.sums.0 + sums.0, group.sums.1 + sums.1);
        group.nominal = group.nominal.zip(nominal).map(|(all, one)| all + one);
        if class == Class::Quantized {
            group.class = class;
        }
    }
    if groups.is_empty() {
        return Err("no tensor has a name whose role is known".to_owned());
    }
    Ok(sum(groups.into_values()))
}

fn sum(groups: impl Iterator<Item = Group>) -> Score {
    let mut layers = BTreeSet::new();
    let mut terms: Vec<Term> = Vec::new();
    let (mut faults, mut worse_than_zero) = (Vec::new(), Vec::new());
    let (mut nominals, mut quantized, mut evidence) = (0, 0, true);
    for group in groups {
        layers.extend(group.place.layer);
        let (error, energy) = group.sums;
        let ratio = |error: f64| if energy > 0.0 { error / energy } else { 0.0 };
        let measured = ratio(error);
        let nominal = group.nominal.map(ratio);
        if measured >= 1.0 {
            worse_than_zero.push(group.tensor.clone());
        }
        let mut t2 = measured;
        // Floats hold what was measured; what their type gives on average does not matter.
        if group.class == Class::Quantized {
            quantized += 1;
            match nominal {
                Some(nominal) if PLAUSIBLE.contains(&(measured / nominal)) => {
                    nominals += 1;
                    t2 = nominal;
                }
                Some(nominal) => faults.push(Fault {
                    tensor: group.tensor,
                    qtype: group.qtype,
                    measured,
                    nominal,
                }),
                None => evidence = false,
            }
        }
        terms.push(Term { role: group.place.role, tensors: 1, t2 });
    }
    let far = |fault: &Fault| ln(fault.measured / fault.nominal).abs();
    faults.sort_by(|a, b| far(b).total_cmp(&far(a)));
    let layers = layers.len() as u64;
    let value = score_of(&terms, layers);
    let basis = match nominals {
        all if all == quantized => Basis::Nominal,
        0 => Basis::Measured,
        _ => Basis::Mixed,
    };
    let roles = shares(&terms, layers, value);
    Score { value, basis, evidence, roles, faults, worse_than_zero, layers }
}

fn shares(terms: &[Term], layers: u64, whole: f64) -> Vec<RoleShare> {
    let mut by_role: BTreeMap<&str, RoleShare> = BTreeMap::new();
    for term in terms {
        let value = contribution(term, layers.max(1) as f64);
        let share = RoleShare { role: term.role, tensors: 0, value: 0.0, share: 0.0 };
        let entry = by_role.entry(term.role.name).or_insert(share);
        entry.tensors += term.tensors;
        entry.value += value;
    }
    let mut shares: Vec<RoleShare> = by_role.into_values().collect();
    for share in &mut shares {
        share.share = if whole > 0.0 { share.value / whole } else { 0.0 };
    }
    shares.sort_by(|a, b| b.value.total_cmp(&a.value));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input<'a>(tensor: &'a str, qtype: &'a str, t2: f64) -> Input<'a> {
        Input { tensor, qtype, shape: &[64, 64], sums: Some((t2 * 100.0, 100.0)) }
    }

    #[test]
    fn nominal_errors_count_where_the_measured_ones_are_plausible() {
        for (qtype, measured, value, basis, evidence, faults, why) in [
            ("Q4_K", 0.005, 0.09 * 0.0049982, Basis::Nominal, true, 0, "as its type gives"),
            ("Q4_K", 0.009, 0.09 * 0.0049982, Basis::Nominal, true, 0, "heavy tails"),
            ("Q4_K", 0.02, 0.09 * 0.02, Basis::Measured, true, 1, "four times as much: a fault"),
            ("Q4_K", 0.002, 0.09 * 0.002, Basis::Measured, true, 1, "trained for the type"),
            ("NVFP4", 0.009, 0.09 * 0.009, Basis::Measured, false, 0, "no evidence"),
            ("GPTQ4", 0.009, 0.09 * 0.009, Basis::Measured, false, 0, "no type of GGUF"),
            ("F16", 1e-8, 0.09 * 1e-8, Basis::Nominal, true, 0, "a conversion"),
        ] {
            let rows =
                [input("token_embd.weight", qtype, measured), input("output.weight", "F32", 0.0)];
            let score = score(&rows).unwrap();
            assert!((score.value - value).abs() <= 1e-12 * value, "{why}: {}", score.value);
            let found = (score.basis, score.evidence, score.faults.len());
            assert_eq!(found, (basis, evidence, faults), "{why}");
        }
    }

    #[test]
    fn layers_are_averaged_and_experts_are_one() {
        let rows = [
            input("model.layers.0.mlp.experts.0.up_proj.weight", "Q4_0", 0.006),
            input("model.layers.0.mlp.experts.1.up_proj.weight", "Q4_0", 0.007),
            input("model.layers.4.mlp.experts.0.up_proj.weight", "Q4_0", 0.007),
            input("model.layers.4.self_attn.q_proj.weight", "Q4_0", 0.007),
        ];
        let score = score(&rows).unwrap();
        assert_eq!(score.layers, 2, "layers that hold counted tensors");
        let expected = 0.006671 * (0.64 * 2.0 + 0.42) / 2.0;
        assert!((score.value - expected).abs() < 1e-12, "{}", score.value);
        let shares: f64 = score.roles.iter().map(|it| it.share).sum();
        assert!((shares - 1.0).abs() < 1e-12);
        assert_eq!(score.roles[0].role.name, "ffn_up_exps", "the most first");
        assert_eq!(score.roles[0].tensors, 2);
    }

    #[test]
    fn what_cannot_be_scored_says_why() {
        let unreadable = Input { sums: None, ..input("output.weight", "Q4_0", 0.0) };
        assert!(score(&[unreadable]).unwrap_err().contains("output.weight"));
        let infinite = Input { sums: Some((f64::INFINITY, 1.0)), ..unreadable };
        assert!(score(&[infinite]).is_err());
        assert!(score(&[input("encoder.thing.weight", "Q4_0", 0.0)]).is_err(), "no known name");
        assert!(score(&[]).is_err());
    }

    #[test]
    fn worse_than_zeros_is_named() {
        let score = score(&[input("output.weight", "IQ1_BN", 160.0)]).unwrap();
        assert_eq!(score.worse_than_zero, ["output.weight"]);
        assert_eq!(score.zone(), Zone::LowerBound);
    }
}
