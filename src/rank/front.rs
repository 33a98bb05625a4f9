/*! The front of size against quality: models than which no other is both no larger and better. */

/// Indices of the models on the front, the smallest first. A model is its size in bytes and its damage,
/// smaller is better; `None` for a model that is not to be chosen.
pub fn front(models: &[Option<(u64, f64)>]) -> Vec<usize> {
    let mut sizes: Vec<(usize, u64, f64)> = models
        .iter()
        .enumerate()
        .filter_map(|(at, model)| model.filter(|it| !it.1.is_nan()).map(|it| (at, it.0, it.1)))
        .collect();
    sizes.sort_by(|a, b| a.1.cmp(&b.1).then(a.2.total_cmp(&b.2)).then(a.0.cmp(&b.0)));
    let mut least = f64::INFINITY;
    sizes.retain(|(_, _, damage)| {
        let better = *damage < least;
        least = least.min(*damage);
        better
    });
    sizes.into_iter().map(|(at, ..)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fronts() {
        for (models, expected, why) in [
            (vec![Some((4, 0.1)), Some((2, 0.5)), Some((8, 0.01))], vec![1, 0, 2], "all"),
            (vec![Some((4, 0.1)), Some((5, 0.2))], vec![0], "larger and worse"),
            (vec![Some((4, 0.1)), Some((4, 0.1))], vec![0], "equals: the first"),
            (vec![Some((4, 0.1)), None, Some((9, f64::NAN))], vec![0], "not to be chosen"),
            (vec![], vec![], "none"),
        ] {
            assert_eq!(front(&models), expected, "{why}");
        }
    }
}
