/*!
Sums over pairs of values, and the metrics that they give.
*/

mod conversion;
pub mod functions;
pub mod kernels;
mod locals;
mod metric;
mod moments;
mod values;

pub use conversion::{Origin, Rule};
pub use kernels::{Sheet, Values, sum_rows, sum_rows_wide, unlike};
pub use locals::{Block, Blocks, Columns, Group, Groups, Layout, Locals, OneSided, Part, Tally};
pub use metric::{Direction, Metric};
pub use moments::{LANES, Moments, PIECE, Sums, Total, piece, piece_sums, two_sum};
pub use values::{CONTRACT_COSINE, DB_PER_BIT, Metrics, cosine, rate_distortion_gap, verdict};
