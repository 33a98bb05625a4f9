/*!
Ids of tests: `SPEC::PAIR::TENSOR`, and `SPEC::PAIR::(structure)` and its like.

A tensor may be called as the pair's own tests are. Its id has the name in quotes, so that no id is
there twice: `SPEC::PAIR::"(structure)"`.
*/

use super::record::TestKind;

/// Names of the tests that a pair has beside its tensors'.
pub const PAIR_TESTS: [(TestKind, &str); 3] = [
    (TestKind::Structure, "(structure)"),
    (TestKind::Global, "(global)"),
    (TestKind::Baseline, "(baseline)"),
];

/// The id of a test of a pair. `part` is the tensor's name, or the pair's test's.
pub fn of(pair: &str, kind: TestKind, part: &str) -> String {
    if kind == TestKind::Tensor { of_tensor(pair, part) } else { format!("{pair}::{part}") }
}

/// The id of a tensor's test.
pub fn of_tensor(pair: &str, tensor: &str) -> String {
    if is_reserved(tensor) { format!("{pair}::\"{tensor}\"") } else { format!("{pair}::{tensor}") }
}

/// The tensor that a test of this pair is about; `None` if it is about none.
pub fn tensor<'i>(pair: &str, kind: TestKind, id: &'i str) -> Option<&'i str> {
    let part = id.strip_prefix(pair)?.strip_prefix("::")?;
    (kind == TestKind::Tensor).then(|| tensor_of_part(part))
}

/// The tensor that the last part of a tensor's id means.
pub fn tensor_of_part(part: &str) -> &str {
    let inner = part.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.filter(|name| is_reserved(name)).unwrap_or(part)
}

/// The kind of a pair's own test, by the last part of its id.
pub fn pair_test(part: &str) -> Option<TestKind> {
    PAIR_TESTS.iter().find(|(_, name)| *name == part).map(|(kind, _)| *kind)
}

/// The name of a pair's own test, or that in quotes: each pair of quotes more is another name.
fn is_reserved(name: &str) -> bool {
    let mut name = name;
    while let Some(inner) = name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        name = inner;
    }
    pair_test(name).is_some()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_id_is_there_twice_and_each_says_its_tensor() {
        let tensors = [
            "a",
            "(structure)",
            "\"(structure)\"",
            "\"\"(global)\"\"",
            "(baseline)",
            "\"",
            "\"a\"",
        ];
        let mut ids: HashSet<String> =
            PAIR_TESTS.iter().map(|(kind, name)| of("s::p", *kind, name)).collect();
        for name in tensors {
            let id = of_tensor("s::p", name);
            assert_eq!(tensor("s::p", TestKind::Tensor, &id), Some(name));
            assert!(ids.insert(id), "{name}");
        }
        assert_eq!(of_tensor("s::p", "blk.0.w"), "s::p::blk.0.w", "ordinary names are as they are");
        assert_eq!(tensor("s::p", TestKind::Global, "s::p::(global)"), None);
    }
}
