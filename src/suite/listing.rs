/*!
Names and stored bytes of the tensors of a pair's reference, or of the one model that it is, from headers alone.

Each reference's header is read once, however many pairs share it. Where a map may give its tensors other
names, or the quantized model may lack some of them, the quantized model's header is read as well.
*/

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::counterpart::{self, Choice, Depth};
use crate::model::{self, Model};
use crate::spec::{Pair, Quantized};

/// Names and stored bytes of a reference's tensors, or why it could not be opened, which the run reports.
pub type Listing = Arc<Result<Vec<(String, u64)>, String>>;

/// The listings so far.
#[derive(Debug, Default)]
pub struct Listings {
    /// By reference, and whether another model may lack some of its tensors.
    alone: HashMap<PathBuf, (Listing, bool)>,
    /// By reference, quantized model and map.
    paired: HashMap<(PathBuf, PathBuf, Choice), Listing>,
    /// Why the models of a pair could not be opened to be mapped.
    failed: HashMap<(PathBuf, PathBuf), String>,
}

impl Listings {
    /// The tensors of a pair.
    pub fn of(&mut self, pair: &Pair) -> Listing {
        let reference = &pair.reference.path;
        let Quantized::File(quantized) = &pair.quantized else { return self.alone(reference).0 };
        let map = Choice::of(pair);
        if map == Choice::Off
            || !map.may_apply(reference, &quantized.path) && !self.alone(reference).1
        {
            return self.alone(reference).0;
        }
        let key = (reference.clone(), quantized.path.clone(), map);
        if let Some(listing) = self.paired.get(&key) {
            return listing.clone();
        }
        let models = model::open(reference).and_then(|it| Ok((it, model::open(&quantized.path)?)));
        let mapped = models.and_then(|(reference, quantized)| {
            counterpart::apply(reference, &quantized, &key.2, Depth::Names)
        });
        // What cannot be opened, the run reports.
        let listing = match mapped {
            Ok(mapped) => list(mapped.reference),
            Err(error) => {
                let pair = (reference.clone(), quantized.path.clone());
                self.failed.insert(pair, error.to_string());
                self.alone(reference).0
            }
        };
        self.paired.insert(key, listing.clone());
        listing
    }

    /// The tensors that a pair's reference has in its own file, whatever a map calls them; an error if one
    /// of the models could not be opened.
    pub fn stored(&mut self, pair: &Pair) -> Listing {
        let reference = &pair.reference.path;
        if let Quantized::File(quantized) = &pair.quantized
            && let Some(error) = self.failed.get(&(reference.clone(), quantized.path.clone()))
        {
            return Arc::new(Err(error.clone()));
        }
        self.alone(reference).0
    }

    fn alone(&mut self, reference: &PathBuf) -> (Listing, bool) {
        if let Some(known) = self.alone.get(reference) {
            return known.clone();
        }
        let found = match model::open(reference) {
            Ok(model) => {
                let lacking = counterpart::may_lack(&model);
                (list(model), lacking)
            }
            Err(error) => (Arc::new(Err(error.to_string())), false),
        };
        self.alone.insert(reference.clone(), found.clone());
        found
    }
}

fn list(model: Model) -> Listing {
    let bytes = model.tensors.into_iter().map(|tensor| {
        let bytes = tensor.stored_bytes();
        (tensor.name, bytes)
    });
    Arc::new(Ok(bytes.collect()))
}
