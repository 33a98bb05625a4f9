/*!
Many quantized models of one reference: expected damage, order, and the front of size against quality.

From what was measured of each model (the record of its pair) comes a score of the damage that its weights
alone let expect, how sure the order of two models is, and what must not be claimed. Knows no report.
*/

mod evidence;
mod front;
mod order;
mod ranking;
mod role;
mod score;
mod table;

pub use evidence::{CREDIT, NOT_CLAIMED};
pub use front::front;
pub use order::{ANCHOR_BAND, Confidence, FREE_BAND, KAPPA, Level, Order, anchored, level, order};
pub use ranking::{Anchor, Outlier, Ranked, Ranking, Subject, TypeShare, WorstTensor};
pub use role::{Place, Roles};
pub use score::{Basis, Fault, Input, RoleShare, Score, Term, Zone, score, score_of};
pub use table::{ROLES, Role, nominal_t2, role_named};
