/*!
The matrices of a stack, each as a tensor of its own: the experts of a layer. They were quantized one by one.
*/

use super::plan;
use crate::codec::Class;
use crate::metrics::PIECE;
use crate::model::view::{Unit, View};
use crate::model::{Storage, Tensor};

/// A matrix of a stack.
pub struct Matrix {
    /// Its first element in the stack.
    pub start: u64,
    /// The stored tensor that holds it, which tells more of its grid than a cut of the stack does.
    pub source: Tensor,
    /// The reference's, under the name that the quantized one is stored under.
    pub reference: Tensor,
    /// The quantized one.
    pub quantized: Tensor,
}

/// The matrices of both sides of a stack, in their order; none if it is no stack.
pub fn matrices(r: &Tensor, q: &Tensor) -> Option<Vec<Matrix>> {
    let &[_, height, width] = &q.shape[..] else { return None };
    let (of_r, of_q) = (View::of(r), View::of(q));
    let computed = matches!(&q.storage, Storage::Joined(weight) if weight.computes());
    let of_one = |unit: Unit| {
        let (expert, row, col) =
            (unit.start / (height * width), unit.start / width % height, unit.start % width);
        let cut = |view: &View| {
            let rows = view.select(0, expert).ok()?.slice(0, row..row + unit.rows, 1).ok()?;
            rows.slice(1, col..col + unit.cols, 1).ok()
        };
        let own = if computed { None } else { stored(&unit) };
        let (r, q) = (cut(&of_r)?, own.or_else(|| cut(&of_q))?);
        let name = name(&unit);
        let (reference, quantized) = (r.into_tensor(&*name), q.into_tensor(&*name));
        Some(Matrix { start: unit.start, source: unit.source, reference, quantized })
    };
    q.units().into_iter().map(of_one).collect()
}

/// The matrices of a quantized stack of one type: runs of whole rows, one after the other.
pub fn in_a_row(r: &Tensor, q: &Tensor) -> Option<Vec<Matrix>> {
    let &[_, _, width] = &q.shape[..] else { return None };
    if q.class() != Class::Quantized || plan::row_len(&q.shape) != width {
        return None;
    }
    let all = matrices(r, q)?;
    let mut next = 0;
    let follows = |matrix: &Matrix| {
        let (start, len) = (next, matrix.quantized.numel());
        next += len;
        let whole = matrix.quantized.shape.last() == Some(&width);
        let alike = matrix.quantized.qtype() == all[0].quantized.qtype();
        matrix.start == start && whole && alike && len >= PIECE as u64
    };
    (all.len() > 1 && all.iter().all(follows) && next == q.numel()).then_some(all)
}

/// The name of a unit: that of the stored tensor, and which of its matrices it is.
pub fn name(unit: &Unit) -> String {
    let source = &unit.source;
    if source.shape.len() > 2 {
        format!("{}[{}]", source.name, unit.matrix)
    } else {
        source.name.clone()
    }
}

/// A unit as it is stored; none if it is a part of what is stored.
fn stored(unit: &Unit) -> Option<View> {
    let own = View::of(&unit.source);
    let own = if own.shape().len() == 3 { own.select(0, unit.matrix).ok()? } else { own };
    let own = if unit.transposed { own.transpose(&[1, 0]).ok()? } else { own };
    (*own.shape() == [unit.rows, unit.cols]).then_some(own)
}
