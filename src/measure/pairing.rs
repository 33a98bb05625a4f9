/*!
Which tensor of the quantized model answers to which of the reference, and what does not fit.

Everything that does not fit is a finding; a finding that the caller's policy does not allow makes
the structure test fail.
*/

use std::collections::{HashMap, HashSet};

use crate::codec::Class;
use crate::model::{Model, Storage, Tensor};

/// What the spec allows to differ, by reference name.
pub struct Policy<'a> {
    /// May this tensor of the reference be missing?
    pub allow_missing: &'a dyn Fn(&str) -> bool,
    /// May this tensor be in the quantized model alone?
    pub allow_extra: &'a dyn Fn(&str) -> bool,
    /// A quantized tensor's name to the reference's.
    pub rename: &'a dyn Fn(&str) -> String,
}

impl Policy<'_> {
    /// Nothing may differ.
    pub const STRICT: Policy<'static> = Policy {
        allow_missing: &|_| false,
        allow_extra: &|_| false,
        rename: &|name| name.to_owned(),
    };
}

/// What kind of thing does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// In the reference, not in the quantized model.
    Missing,
    /// In the quantized model, not in the reference.
    Extra,
    /// Other extents or another rank.
    Shape,
    /// Integers against floats, or two integer types.
    Type,
    /// Two quantized tensors answer to one reference name.
    Doubled,
    /// No tensor at all is in both models.
    NothingInCommon,
    /// A model holds no tensor.
    Empty,
    /// A plane that belongs to a weight is missing, superfluous, or of no use.
    Companion,
}

impl FindingKind {
    /// The kind's name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Shape => "shape",
            Self::Type => "type",
            Self::Doubled => "doubled",
            Self::NothingInCommon => "nothing_in_common",
            Self::Empty => "empty",
            Self::Companion => "companion",
        }
    }
}

/// One thing that does not fit.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// The tensor, by its reference name; empty for the whole model.
    pub tensor: String,
    /// For people.
    pub message: String,
    /// True if the policy allows it.
    pub allowed: bool,
}

/// A tensor that both models hold, by index into their `tensors`.
#[derive(Clone, Copy, Debug)]
pub struct Matched {
    /// In the reference.
    pub reference: usize,
    /// In the quantized model.
    pub quantized: usize,
}

/// The result of matching two models.
#[derive(Debug, Default)]
pub struct Pairing {
    /// Tensors to measure, sorted by reference name; shapes agree.
    pub matched: Vec<Matched>,
    /// Tensors of one name whose shapes differ, but have as many elements, or rows of the same shape; sorted as
    /// those.
    pub reshaped: Vec<Matched>,
    /// What does not fit, allowed or not, sorted by tensor.
    pub findings: Vec<Finding>,
}

/// Matches the tensors of two models by name.
pub fn pair_up(reference: &Model, quantized: &Model, policy: &Policy) -> Pairing {
    let mut pairing = Pairing::default();
    let mut answers: HashMap<String, usize> = HashMap::with_capacity(quantized.tensors.len());
    for (index, tensor) in quantized.tensors.iter().enumerate() {
        let name = (policy.rename)(&tensor.name);
        if let Some(&first) = answers.get(&name) {
            let other = &quantized.tensors[first].name;
            let message = format!("{other:?} and {:?} both answer to it", tensor.name);
            pairing.find(FindingKind::Doubled, &name, message, false);
        } else {
            answers.insert(name, index);
        }
    }
    let damaged: HashSet<&str> =
        quantized.findings.iter().map(|finding| finding.tensor.as_str()).collect();
    let mut common = 0;
    for (index, tensor) in reference.tensors.iter().enumerate() {
        let Some(answer) = answers.remove(&tensor.name) else {
            let message = format!(
                "{} {:?} is missing from the quantized model",
                tensor.qtype(),
                tensor.shape
            );
            pairing.find(
                FindingKind::Missing,
                &tensor.name,
                message,
                (policy.allow_missing)(&tensor.name),
            );
            continue;
        };
        common += 1;
        let matched = Matched { reference: index, quantized: answer };
        match mismatch(reference, quantized, matched, &damaged) {
            None => pairing.matched.push(matched),
            Some((kind, message)) => {
                let other = &quantized.tensors[answer];
                let same_rows = tensor.shape.get(1..) == other.shape.get(1..);
                if kind == FindingKind::Shape && (tensor.numel() == other.numel() || same_rows) {
                    pairing.reshaped.push(matched);
                }
                pairing.find(kind, &tensor.name, message, false);
            }
        }
    }
    for (name, index) in answers {
        let extra = &quantized.tensors[index];
        let message =
            format!("{} {:?} is in the quantized model alone", extra.qtype(), extra.shape);
        let allowed = (policy.allow_extra)(&name);
        pairing.find(FindingKind::Extra, &name, message, allowed);
    }
    for (model, role) in [(reference, "reference"), (quantized, "quantized model")] {
        if model.tensors.is_empty() {
            pairing.find(FindingKind::Empty, "", format!("the {role} holds no tensor"), false);
        }
    }
    if common == 0 {
        let message = "no tensor is in both models: there is nothing to compare".to_owned();
        pairing.find(FindingKind::NothingInCommon, "", message, false);
    }
    let is_compared = |it: &Matched| {
        let tensor = &reference.tensors[it.reference];
        tensor.class() != Class::Exact && tensor.numel() > 0
    };
    if common > 0 && common == pairing.matched.len() && !pairing.matched.iter().any(is_compared) {
        let message = "no element of a float weight is in both models: there is nothing to compare";
        pairing.find(FindingKind::NothingInCommon, "", message.to_owned(), false);
    }
    pairing.findings.sort_by(|a, b| (&a.tensor, a.kind.name()).cmp(&(&b.tensor, b.kind.name())));
    pairing
}

impl Pairing {
    /// What does not fit about a tensor, by its reference name; of the whole model for the empty name.
    pub fn findings_of(&self, tensor: &str) -> &[Finding] {
        let first = self.findings.partition_point(|it| it.tensor.as_str() < tensor);
        let rest = &self.findings[first..];
        &rest[..rest.partition_point(|it| it.tensor == tensor)]
    }

    fn find(&mut self, kind: FindingKind, tensor: &str, message: String, allowed: bool) {
        self.findings.push(Finding { kind, tensor: tensor.to_owned(), message, allowed });
    }
}

/// Why two tensors of one name cannot be compared value by value; planes of the `damaged` ones do not
/// fit each other.
fn mismatch(
    reference: &Model,
    quantized: &Model,
    matched: Matched,
    damaged: &HashSet<&str>,
) -> Option<(FindingKind, String)> {
    let (r, q) = (&reference.tensors[matched.reference], &quantized.tensors[matched.quantized]);
    if let Storage::Undecodable { reason, .. } = &q.storage {
        // Planes that do not fit each other are damage. What is only not known here cannot be
        // judged: the tensor's own test says so, and why.
        let damaged = damaged.contains(q.name.as_str());
        return damaged.then(|| (FindingKind::Companion, reason.clone()));
    }
    if matches!(r.storage, Storage::Undecodable { .. }) {
        return None;
    }
    if r.shape != q.shape {
        let message = format!("its shape is {:?}, the reference's {:?}", q.shape, r.shape);
        return Some((FindingKind::Shape, message));
    }
    let exact = |class: Class| class == Class::Exact;
    let differs =
        exact(r.class()) != exact(q.class()) || exact(r.class()) && r.qtype() != q.qtype();
    if differs {
        let message = format!("its type is {}, the reference's {}", q.qtype(), r.qtype());
        return Some((FindingKind::Type, message));
    }
    // One of the tensors that a stack is made of.
    let odd = |source: &&Tensor| exact(source.class()) != exact(r.class());
    let odd = q.view().and_then(|view| view.sources().find(odd))?;
    let message =
        format!("the type of {} is {}, the reference's {}", odd.name, odd.qtype(), r.qtype());
    Some((FindingKind::Type, message))
}
