/*!
The parts of tensors, folded in the order of their units, whoever finishes first.
*/

use std::collections::VecDeque;

use super::Measured;
use super::plan::Extent;
use crate::metrics::{Locals, Moments, Part};

/// Units that may wait for an earlier one before their threads wait too.
const MOST_WAITING: u64 = 64;

/// What a chunk of a tensor gave.
pub enum Outcome {
    /// Sums over values.
    Values(Part),
    /// A comparison bit for bit.
    Exact {
        /// Index of the first element that differs.
        first_difference: Option<u64>,
    },
    /// The values of one side could not be read.
    Unreadable {
        /// Which side, and why.
        reason: String,
    },
}

/// The parts of one unit: index of the job, and what its chunk gave.
type Parts = Vec<(usize, Outcome)>;

/// Folds units in order.
pub struct Fold<'a> {
    jobs: &'a [Extent],
    /// The unit that is due.
    next: u64,
    /// Units from `next` on; those that are not there yet are `None`.
    waiting: VecDeque<Option<Parts>>,
    /// Emptied vectors, to be filled again.
    spare: Vec<Parts>,
    results: Vec<Measured>,
    /// Everything of the job that was last begun, so far: only one tensor is open at a time.
    open: Option<(usize, Part)>,
}

impl<'a> Fold<'a> {
    /// Begins with the first unit.
    pub fn new(jobs: &'a [Extent]) -> Self {
        let nothing = Measured::Values { sums: Moments::default(), locals: Locals::default() };
        Self {
            jobs,
            next: 0,
            waiting: VecDeque::new(),
            spare: Vec::new(),
            results: vec![nothing; jobs.len()],
            open: None,
        }
    }

    /// False if too many units wait for an earlier one already.
    pub fn has_room_for(&self, unit: u64) -> bool {
        unit <= self.next + MOST_WAITING
    }

    /// Takes in a unit; true if it was the one that was due.
    pub fn take(&mut self, unit: u64, parts: Parts) -> bool {
        let place = (unit - self.next) as usize;
        while self.waiting.len() <= place {
            self.waiting.push_back(None);
        }
        self.waiting[place] = Some(parts);
        if place > 0 {
            return false;
        }
        while let Some(Some(_)) = self.waiting.front() {
            if let Some(Some(mut parts)) = self.waiting.pop_front() {
                for (job, part) in parts.drain(..) {
                    self.join(job, part);
                }
                self.spare.push(parts);
            }
            self.next += 1;
        }
        true
    }

    /// An empty vector for the parts of another unit.
    pub fn spare(&mut self) -> Parts {
        self.spare.pop().unwrap_or_default()
    }

    /// What was found out, in the order of the jobs.
    pub fn results(mut self) -> Vec<Measured> {
        self.close();
        self.results
    }

    /// Joins what one more chunk of a tensor gave.
    fn join(&mut self, job: usize, part: Outcome) {
        let known = &mut self.results[job];
        match part {
            Outcome::Unreadable { reason } => {
                if !matches!(known, Measured::Unreadable { .. }) {
                    *known = Measured::Unreadable { reason };
                }
            }
            Outcome::Exact { first_difference } => match known {
                Measured::Unreadable { .. } | Measured::Exact { first_difference: Some(_) } => {}
                _ => *known = Measured::Exact { first_difference },
            },
            Outcome::Values(part) => {
                if self.open.as_ref().is_none_or(|(open, _)| *open != job) {
                    self.close();
                    self.open = Some((job, Part::beginning(self.jobs[job].layout)));
                }
                if let Some((_, so_far)) = &mut self.open {
                    so_far.join(&part);
                }
            }
        }
    }

    /// Finishes the tensor that is open.
    fn close(&mut self) {
        if let Some((job, part)) = self.open.take()
            && !matches!(self.results[job], Measured::Unreadable { .. })
        {
            let (sums, locals) = part.finish();
            self.results[job] = Measured::Values { sums, locals };
        }
    }
}
