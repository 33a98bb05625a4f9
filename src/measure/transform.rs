/*!
What a converter did to tensors on purpose, done to the reference as well, so that only damage is left.
*/

use std::collections::BTreeMap;

use crate::model::view::View;
use crate::model::{Model, scheme};
use crate::spec::{Apply, Resolver};

/// Applies what the spec says the converter did; returns what could not be applied, and why.
pub fn transform(reference: &mut Model, quantized: &mut Model, resolver: &Resolver) -> Vec<String> {
    let mut problems = Vec::new();
    let mut folds = BTreeMap::new();
    for tensor in &mut reference.tensors {
        let Some(transform) = resolver.tensor(&tensor.name).transform() else { continue };
        match &transform.apply {
            Apply::PlusOne => *tensor = View::of(tensor).add(1.0).into_tensor(&tensor.name),
            Apply::RopePermute { heads } => match View::of(tensor).permute_qk(*heads) {
                Ok(view) => *tensor = view.into_tensor(&tensor.name),
                Err(problem) => problems.push(format!("{}: {problem}", tensor.name)),
            },
            Apply::Fold { norm } => {
                let consumers: &mut Vec<String> = folds.entry(norm.clone()).or_default();
                if tensor.name != *norm {
                    consumers.push(tensor.name.clone());
                }
            }
        }
    }
    for (norm, consumers) in folds {
        let rename = |name: &str| resolver.rename(name);
        match scheme::declared(reference, quantized, &rename, &norm, consumers) {
            Ok(fold) => scheme::unfold(quantized, &[fold], &rename),
            Err(problem) => problems.push(format!("{norm}: {problem}")),
        }
    }
    problems
}
