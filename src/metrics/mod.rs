/*!
Sums over pairs of values, and the metrics that they give.
*/

mod metric;
mod moments;
mod values;

pub use metric::{Direction, Metric};
pub use moments::{LANES, Moments, PIECE, piece};
pub use values::{Metrics, cosine, verdict};
