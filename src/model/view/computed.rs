/*! Views whose values are computed: the constructors, with their checks. */

use std::sync::Arc;

use super::arithmetic::{FirstPass, Function, Op};
use super::expression::Body;
use super::round_trip::{Quantizer, RoundTrip};
use super::{Step, View, ViewError};
use crate::codec::{Class, TensorType};

impl View {
    fn computed(&self, op: Op, step: Step) -> Self {
        let body = Body::Computed { source: self.clone(), op };
        self.then(self.shape().to_vec(), body, step)
    }

    /// Each element and `by`.
    #[must_use]
    pub fn add(&self, by: f32) -> Self {
        self.computed(Op::Add(by), Step::new("add", vec![("value", by.into())]))
    }

    /// Each element times `by`.
    #[must_use]
    pub fn mul(&self, by: f32) -> Self {
        self.computed(Op::Mul(by), Step::new("mul", vec![("value", by.into())]))
    }

    /// Each element divided by `by`.
    #[must_use]
    pub fn div(&self, by: f32) -> Self {
        self.computed(Op::Div(by), Step::new("div", vec![("value", by.into())]))
    }

    /// -exp(x).
    #[must_use]
    pub fn neg_exp(&self) -> Self {
        self.computed(Op::NegExp, Step::new("neg_exp", Vec::new()))
    }

    /// ln(-x), which undoes -exp(x) up to rounding.
    #[must_use]
    pub fn ln_neg(&self) -> Self {
        self.computed(Op::LnNeg, Step::new("ln_neg", Vec::new()))
    }

    /// Values that `apply` changes in place, each by its index and value alone: it is given the index
    /// of the first. Known by a name and arguments of its own.
    #[must_use]
    pub fn each(
        &self,
        step: Step,
        apply: impl Fn(u64, &mut [f32]) + Send + Sync + 'static,
    ) -> Self {
        self.computed(Op::Each(Function(Arc::new(apply))), step)
    }

    /// Each index of an axis times its factor.
    pub fn mul_along(&self, axis: usize, factors: Arc<[f32]>) -> Result<Self, ViewError> {
        let inner = self.inner(axis, &factors)?;
        let step = Step::new("mul_along", vec![("axis", axis.into())]);
        Ok(self.computed(Op::MulAlong { factors, inner }, step))
    }

    /// Each index of an axis divided by its factor.
    pub fn div_along(&self, axis: usize, factors: Arc<[f32]>) -> Result<Self, ViewError> {
        let inner = self.inner(axis, &factors)?;
        let step = Step::new("div_along", vec![("axis", axis.into())]);
        Ok(self.computed(Op::DivAlong { factors, inner }, step))
    }

    /// Elements of one index of an axis that there are factors for.
    fn inner(&self, axis: usize, factors: &[f32]) -> Result<u64, ViewError> {
        if self.extent(axis)? != factors.len() as u64 {
            let (len, shape) = (factors.len(), self.shape().to_vec());
            return Err(ViewError::Factors { len, axis, shape });
        }
        Ok(self.shape()[axis + 1..].iter().product::<u64>().max(1))
    }

    /// Ternary values as `BitNet`'s converter makes them: with s = max(mean |x|, 1e-5), x/s rounded to
    /// -1, 0 or 1, times s.
    #[must_use]
    pub fn ternary_absmean(&self) -> Self {
        self.computed(Op::Ternary(FirstPass::default()), Step::new("ternary_absmean", Vec::new()))
    }

    /// Each column of a matrix divided by its L2 norm plus `eps`.
    pub fn div_col_l2norm(&self, eps: f64) -> Result<Self, ViewError> {
        let columns = self.extent(self.shape().len().saturating_sub(1))?;
        let op = Op::ColumnNorm { columns, eps, pass: FirstPass::default() };
        Ok(self.computed(op, Step::new("div_col_l2norm", vec![("eps", eps.into())])))
    }

    /// Each element rounded to a float type.
    pub fn cast(&self, ty: TensorType) -> Result<Self, ViewError> {
        let info = ty.info();
        if info.class != Class::Float || info.encode.is_none() {
            return Err(ViewError::Type { ty, shape: self.shape().to_vec() });
        }
        let step = Step::new("cast", vec![("type", ty.name().into())]);
        Ok(self.through(RoundTrip { ty, quantizer: Quantizer::Flat, is_cast: true }, step))
    }

    /// Quantized to a type and back.
    pub fn round_trip(&self, ty: TensorType, quantizer: Quantizer) -> Result<Self, ViewError> {
        let quantizer = match (quantizer, ty.info().rows) {
            (Quantizer::Flat, Some(_)) => {
                Quantizer::Each { cols: self.shape().last().copied().unwrap_or(1) }
            }
            (quantizer, _) => quantizer,
        };
        let decodes = ty.info().decode.is_some() && ty.bytes_for(self.numel()).is_some();
        let fits = match &quantizer {
            Quantizer::Flat => ty.info().encode.is_some() && decodes,
            Quantizer::Each { .. } => {
                ty.has_reference_quantizer()
                    && ty.bytes_of(self.shape()).is_ok_and(|bytes| bytes > 0)
            }
            Quantizer::Rows { cols, rows_each, .. } => *cols > 0 && *rows_each > 0 && decodes,
        };
        if !fits {
            return Err(ViewError::Type { ty, shape: self.shape().to_vec() });
        }
        let step = Step::new("round_trip", vec![("type", ty.name().into())]);
        Ok(self.through(RoundTrip { ty, quantizer, is_cast: false }, step))
    }

    fn through(&self, trip: RoundTrip, step: Step) -> Self {
        let body = Body::RoundTrip { source: self.clone(), trip };
        self.then(self.shape().to_vec(), body, step)
    }
}
