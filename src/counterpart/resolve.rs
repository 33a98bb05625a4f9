/*!
A rule, applied to a checkpoint: the view of its tensors that a converted tensor is to equal.
*/

use std::collections::HashMap;

use super::facts::{Facts, Names};
use super::names::Captures;
use super::number::Number;
use super::rule::{Name, Operation, Part, Rule};
use super::table::Table;
use crate::codec::TensorType;
use crate::model::view::View;
use crate::model::{Model, Storage};

/// Most experts or pieces that a stack is made of.
const MOST: u64 = 1 << 16;

/// A checkpoint, ready to be asked for the parts of rules.
pub struct Checkpoint<'a> {
    /// Its tensors.
    pub model: &'a Model,
    /// Indices of its tensors by plain name.
    pub index: &'a HashMap<String, usize>,
    /// What is known beside them.
    pub facts: &'a Facts,
    /// The table, for its variables.
    pub table: &'a Table,
}

/// Why a rule gives nothing.
#[derive(Debug)]
pub enum Unresolved {
    /// It is not for this checkpoint: it lacks a tensor, or the rule's condition does not hold.
    NotHere,
    /// It is, and cannot be carried out.
    Problem(String),
}

impl<E: std::fmt::Display> From<E> for Unresolved {
    fn from(error: E) -> Self {
        Self::Problem(error.to_string())
    }
}

impl Checkpoint<'_> {
    /// The view that a rule describes, for a tensor of this name and shape.
    pub fn resolve(
        &self,
        rule: &Rule,
        captures: &Captures,
        out: &[u64],
    ) -> Result<View, Unresolved> {
        let mut own = captures.numbers.clone();
        own.extend(out.iter().enumerate().map(|(axis, len)| (format!("out{axis}"), *len as f64)));
        let scope = Scope { checkpoint: self, own, star: &captures.star };
        if let Some(when) = &rule.when
            && when.value(&|name| scope.number(name)).unwrap_or(0.0) == 0.0
        {
            return Err(Unresolved::NotHere);
        }
        scope.part(&rule.part)
    }
}

/// What names mean within a rule.
struct Scope<'a> {
    checkpoint: &'a Checkpoint<'a>,
    own: Vec<(String, f64)>,
    star: &'a str,
}

impl Scope<'_> {
    fn names(&self) -> Names<'_> {
        let Checkpoint { facts, table, .. } = self.checkpoint;
        Names { facts, variables: &table.variables, own: &self.own }
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.names().number(name)
    }

    /// The same with further names.
    fn with(&self, more: impl IntoIterator<Item = (String, f64)>) -> Self {
        let own = self.own.iter().cloned().chain(more).collect();
        Self { own, ..*self }
    }

    fn part(&self, part: &Part) -> Result<View, Unresolved> {
        match part {
            Part::Source(name) => self.source(name),
            Part::Then(part, operation) => self.operate(&self.part(part)?, operation),
            Part::Concat(axis, parts) => Ok(View::concat(&self.parts(parts)?, *axis)?),
            Part::Stack(parts) => match parts.as_slice() {
                [one] if one.counts() => Ok(View::stack(&self.all(one)?, 0)?),
                parts => Ok(View::stack(&self.parts(parts)?, 0)?),
            },
            Part::Repeat(times, part) => Ok(self.part(part)?.repeat(0, self.whole(times)?)?),
            Part::Computed(computed) => {
                let names = self.names();
                let values = computed.values(self.checkpoint.facts, &names);
                let values = values.ok_or(Unresolved::NotHere)?;
                Ok(View::constant(1.0, &[values.len() as u64])?.mul_along(0, values.into())?)
            }
        }
    }

    fn parts(&self, parts: &[Part]) -> Result<Vec<View>, Unresolved> {
        parts.iter().map(|part| self.part(part)).collect()
    }

    /// The part for every `e` from 0 on for which there is one.
    fn all(&self, part: &Part) -> Result<Vec<View>, Unresolved> {
        let mut views = Vec::new();
        for e in 0..MOST {
            match self.with([("e".to_owned(), e as f64)]).part(part) {
                Ok(view) => views.push(view),
                Err(Unresolved::NotHere) if e > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(views)
    }

    fn source(&self, name: &Name) -> Result<View, Unresolved> {
        let name = name.fill(self.star, &|name| self.number(name)).ok_or(Unresolved::NotHere)?;
        let at = self.checkpoint.index.get(&name).ok_or(Unresolved::NotHere)?;
        let tensor = &self.checkpoint.model.tensors[*at];
        if let Storage::Undecodable { reason, .. } = &tensor.storage {
            return Err(Unresolved::Problem(format!("{}: {reason}", tensor.name)));
        }
        Ok(View::of(tensor))
    }

    fn operate(&self, view: &View, operation: &Operation) -> Result<View, Unresolved> {
        let shape = view.shape();
        let axes = shape.iter().enumerate().map(|(axis, len)| (format!("dim{axis}"), *len as f64));
        let ends = [("rows", shape.first()), ("cols", shape.last())];
        let ends = ends.into_iter().filter_map(|(name, len)| Some((name.to_owned(), *len? as f64)));
        // The innermost shape counts.
        let scope =
            Scope { own: axes.chain(ends).chain(self.own.iter().cloned()).collect(), ..*self };
        Ok(match operation {
            Operation::Reshape(extents) => view.reshape(&scope.extents(extents, shape)?)?,
            Operation::Transpose(axes) => view.transpose(axes)?,
            Operation::Slice { axis, start, stop, step } => {
                view.slice(*axis, scope.whole(start)?..scope.whole(stop)?, *step)?
            }
            Operation::PermuteQk(heads) => view.permute_qk(scope.whole(heads)?)?,
            Operation::Add(number) => rounded(&view.add(scope.value(number)? as f32))?,
            Operation::Mul(number) => rounded(&view.mul(scope.value(number)? as f32))?,
            Operation::NegExp => rounded(&view.neg_exp())?,
            Operation::PadZeroRows(rows) => {
                let rows = scope.whole(rows)?;
                if shape.first().is_some_and(|len| *len < rows) {
                    view.pad_zero(0, rows)?
                } else {
                    view.clone()
                }
            }
            Operation::TernaryAbsmean => view.ternary_absmean(),
            Operation::DivColL2norm(eps) => view.div_col_l2norm(scope.value(eps)?)?,
        })
    }

    fn value(&self, number: &Number) -> Result<f64, Unresolved> {
        Ok(number.value(&|name| self.number(name))?)
    }

    fn whole(&self, number: &Number) -> Result<u64, Unresolved> {
        let value = self.value(number)?;
        if value.fract() != 0.0 || !(0.0..9e15).contains(&value) {
            return Err(Unresolved::Problem(format!(
                "{number} is {value}, which is no number of rows"
            )));
        }
        Ok(value as u64)
    }

    /// Extents of a shape, of which one may follow from the others.
    fn extents(&self, numbers: &[Number], shape: &[u64]) -> Result<Vec<u64>, Unresolved> {
        let open = Number::Negative(Box::new(Number::Literal(1.0)));
        let mut extents = Vec::new();
        for number in numbers {
            extents.push(if *number == open { None } else { Some(self.whole(number)?) });
        }
        let known = extents.iter().flatten().try_fold(1u64, |n, extent| n.checked_mul(*extent));
        let numel = shape.iter().product::<u64>();
        let rest = known.filter(|known| *known > 0 && numel.is_multiple_of(*known));
        let rest = rest.map(|known| numel / known).ok_or_else(|| {
            Unresolved::Problem(format!("{shape:?} does not fit into {extents:?}"))
        })?;
        Ok(extents.into_iter().map(|extent| extent.unwrap_or(rest)).collect())
    }
}

/// A converter computes in a checkpoint's own F16; every other type it widens first.
fn rounded(view: &View) -> Result<View, Unresolved> {
    let is_f16 = |storage: &Storage| matches!(storage, Storage::Plain { ty: TensorType::F16, .. });
    if view.sources().all(|tensor| is_f16(&tensor.storage)) {
        return Ok(view.cast(TensorType::F16)?);
    }
    Ok(view.clone())
}
