/*! What does not fit when a view is made. */

use thiserror::Error;

use crate::codec::TensorType;

/// A view that cannot be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ViewError {
    /// An axis that the shape does not have.
    #[error("{shape:?} has no axis {axis}")]
    Axis {
        /// The axis asked for.
        axis: usize,
        /// The shape.
        shape: Vec<u64>,
    },
    /// A slice that is not within its axis.
    #[error("{start}..{stop} in steps of {step} is no part of axis {axis} of {shape:?}")]
    Slice {
        /// The axis.
        axis: usize,
        /// First index.
        start: u64,
        /// One behind the last.
        stop: u64,
        /// From one index to the next.
        step: u64,
        /// The shape.
        shape: Vec<u64>,
    },
    /// An index that is not within its axis.
    #[error("{index} is no index of axis {axis} of {shape:?}")]
    Index {
        /// The axis.
        axis: usize,
        /// The index.
        index: u64,
        /// The shape.
        shape: Vec<u64>,
    },
    /// A shape with another number of elements.
    #[error("{from:?} has not as many elements as {to:?}")]
    Reshape {
        /// The shape that there is.
        from: Vec<u64>,
        /// The shape asked for.
        to: Vec<u64>,
    },
    /// No permutation of the axes.
    #[error("{axes:?} is no order of the axes of {shape:?}")]
    Transpose {
        /// The order asked for.
        axes: Vec<usize>,
        /// The shape.
        shape: Vec<u64>,
    },
    /// Rows that are not heads of pairs.
    #[error("{rows} rows are not {heads} heads of an even length")]
    Heads {
        /// Rows.
        rows: u64,
        /// Heads asked for.
        heads: u64,
    },
    /// A join of nothing.
    #[error("there is nothing to join")]
    Empty,
    /// Parts that do not fit together.
    #[error("{other:?} does not fit to {first:?} along axis {axis}")]
    Ragged {
        /// The axis of the join.
        axis: usize,
        /// Shape of the first part.
        first: Vec<u64>,
        /// Shape of the part that does not fit.
        other: Vec<u64>,
    },
    /// Padding to less than there is.
    #[error("axis {axis} of {shape:?} is longer than {extent}")]
    Pad {
        /// The axis.
        axis: usize,
        /// The extent asked for.
        extent: u64,
        /// The shape.
        shape: Vec<u64>,
    },
    /// Factors that are not as many as the axis is long.
    #[error("{len} factors do not fit to axis {axis} of {shape:?}")]
    Factors {
        /// Number of factors.
        len: usize,
        /// The axis.
        axis: usize,
        /// The shape.
        shape: Vec<u64>,
    },
    /// A type that values cannot be brought to.
    #[error("values of {shape:?} cannot be brought to {ty}")]
    Type {
        /// The type.
        ty: TensorType,
        /// The shape.
        shape: Vec<u64>,
    },
    /// More elements than can be counted.
    #[error("{shape:?} has too many elements")]
    TooLarge {
        /// The shape.
        shape: Vec<u64>,
    },
}
