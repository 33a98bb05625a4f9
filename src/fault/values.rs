/*!
Faults of values: a tensor whose values are changed, or taken from other places, as it is decoded.
*/

use std::ops::Range;

use crate::model::view::{Step, View, ViewError};
use crate::model::{Storage, Tensor};

/// What happens to the values.
#[derive(Clone, Debug)]
pub enum Change {
    /// Those of a range are multiplied.
    Scale(Range<u64>, f32),
    /// Something is added to each.
    Add(f32),
    /// All are this.
    All(f32),
    /// One is replaced.
    Set(u64, f32),
    /// None is larger than this.
    Clip(f32),
    /// Uniform noise of this rms is added.
    Noise(f32),
    /// Every so many-th column, from the first on, is zero.
    Columns {
        /// From one such column to the next.
        every: u64,
        /// Elements of a row.
        row_len: u64,
    },
    /// They come from other places.
    Route(Route),
    /// Nothing; only the scales of the activations are gone.
    NoActivations,
}

/// Where values come from.
#[derive(Clone, Debug)]
pub enum Route {
    /// Column by column: element i is that of row i % rows, column i / rows.
    Columns {
        /// Rows of the matrix.
        rows: u64,
        /// Its columns.
        cols: u64,
    },
    /// llama.cpp's rotary order within heads of so many rows.
    Rope {
        /// Rows of a head.
        head: u64,
        /// Elements of a row.
        row_len: u64,
    },
    /// Two runs of `len` elements change places.
    Swap {
        /// First element of the one.
        a: u64,
        /// First element of the other, after the end of the one.
        b: u64,
        /// Elements.
        len: u64,
    },
    /// A run is a copy of another.
    Copy {
        /// First element of the copy.
        to: u64,
        /// First element of what is copied.
        from: u64,
        /// Elements.
        len: u64,
    },
    /// From `start` on, every element is the one `by` places later; the first of them come last.
    Shift {
        /// The first that is so.
        start: u64,
        /// Places.
        by: u64,
        /// Elements of the tensor.
        end: u64,
    },
}

/// Puts a change between a tensor's storage and whoever decodes it.
pub fn change(tensor: &mut Tensor, change: Change) {
    if matches!(tensor.storage, Storage::Undecodable { .. }) {
        return;
    }
    // Places are known by the code above to be within the tensor; what is not stays as it is.
    if let Ok(view) = changed(&View::of(tensor), change) {
        *tensor = view.into_tensor(&tensor.name);
    }
}

/// The tensor with the change.
fn changed(view: &View, change: Change) -> Result<View, ViewError> {
    let step = |what: &'static str| Step::new(what, Vec::new());
    Ok(match change {
        Change::Scale(of, factor) => view.each(step("scale"), move |start, values| {
            let indexed = (start..).zip(values).filter(|(at, _)| of.contains(at));
            indexed.for_each(|(_, value)| *value *= factor);
        }),
        Change::All(value) => view.each(step("all"), move |_, values| values.fill(value)),
        Change::Add(amount) => view.add(amount),
        Change::Set(index, new) => view.each(step("set"), move |start, values| {
            let place = index.checked_sub(start).and_then(|at| values.get_mut(at as usize));
            if let Some(value) = place {
                *value = new;
            }
        }),
        Change::Clip(most) => view.each(step("clip"), move |_, values| {
            for value in values {
                *value = value.clamp(-most, most);
            }
        }),
        Change::Noise(rms) => view.each(step("noise"), move |start, values| {
            (start..).zip(values).for_each(|(at, value)| *value += rms * noise(at));
        }),
        Change::Columns { every, row_len } => view.each(step("columns"), move |start, values| {
            let hit = |at: &u64| (at % row_len).is_multiple_of(every);
            let indexed = (start..).zip(values).filter(|(at, _)| hit(at));
            indexed.for_each(|(_, value)| *value = 0.0);
        }),
        Change::Route(route) => routed(view, &route)?,
        Change::NoActivations => view.clone().without_activations(),
    })
}

/// The tensor with values from other places.
fn routed(view: &View, route: &Route) -> Result<View, ViewError> {
    let numel = view.numel();
    let runs = |runs: &[Range<u64>]| {
        let flat = view.reshape(&[numel])?;
        let parts: Result<Vec<View>, ViewError> =
            runs.iter().map(|run| flat.slice(0, run.clone(), 1)).collect();
        View::concat(&parts?, 0)
    };
    let moved = match *route {
        Route::Columns { rows, cols } => view.reshape(&[rows, cols])?.transpose(&[1, 0]),
        Route::Rope { head, row_len } => {
            let rows = numel / row_len.max(1);
            view.reshape(&[rows, row_len])?.permute_qk(rows / head.max(1))
        }
        Route::Swap { a, b, len } => {
            runs(&[0..a, b..b + len, a + len..b, a..a + len, b + len..numel])
        }
        Route::Copy { to, from, len } => runs(&[0..to, from..from + len, to + len..numel]),
        Route::Shift { start, by, end } => {
            runs(&[0..start, start + by..end, start..start + by, end..numel])
        }
    };
    moved?.reshape(view.shape())
}

/// Uniform noise of variance 1 that depends on the place alone (splitmix64).
fn noise(at: u64) -> f32 {
    let mut z = at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    let unit = (z >> 40) as f32 / (1 << 24) as f32;
    (unit - 0.5) * 12f32.sqrt()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::codec::TensorType;
    use crate::model::{Extent, Scratch, SourceFile};

    fn tensor(shape: &[u64]) -> (Tensor, Vec<SourceFile>) {
        let numel: u64 = shape.iter().product();
        let bytes = (0..numel).flat_map(|at| (at as f32).to_le_bytes()).collect();
        let at = Extent { file: 0, offset: 0, len: numel * 4 };
        let storage = Storage::Plain { ty: TensorType::F32, at };
        let tensor = Tensor { name: "t".to_owned(), shape: shape.to_vec(), storage };
        (tensor, vec![SourceFile::from_bytes(Path::new("memory"), bytes)])
    }

    #[test]
    fn routes_take_each_value_from_its_place_in_any_range() {
        for (route, expected, why) in [
            (
                Route::Columns { rows: 2, cols: 4 },
                [0, 4, 1, 5, 2, 6, 3, 7],
                "element i is row i % 2, column i / 2",
            ),
            (Route::Swap { a: 1, b: 5, len: 2 }, [0, 5, 6, 3, 4, 1, 2, 7], "two runs"),
            (Route::Copy { to: 2, from: 4, len: 2 }, [0, 1, 4, 5, 4, 5, 6, 7], "a copy"),
            (Route::Shift { start: 2, by: 3, end: 8 }, [0, 1, 5, 6, 7, 2, 3, 4], "a shift"),
            (Route::Rope { head: 4, row_len: 2 }, [0, 1, 4, 5, 2, 3, 6, 7], "half-split heads"),
        ] {
            let (mut tensor, files) = tensor(&[4, 2]);
            change(&mut tensor, Change::Route(route));
            for start in 0..8 {
                for end in start + 1..=8 {
                    let mut values = vec![-1.0; end - start];
                    let range = start as u64..end as u64;
                    tensor.decode(&files, range, &mut Scratch::default(), &mut values).unwrap();
                    let expected: Vec<f32> =
                        expected[start..end].iter().map(|at| *at as f32).collect();
                    assert_eq!(values, expected, "{why}: {start}..{end}");
                }
            }
        }
    }

    #[test]
    fn values_change_where_they_should() {
        for (change, expected, why) in [
            (Change::Scale(1..3, 2.0), [0.0, 2.0, 4.0, 3.0], "a range"),
            (Change::Add(1.0), [1.0, 2.0, 3.0, 4.0], "all"),
            (Change::Set(2, 9.0), [0.0, 1.0, 9.0, 3.0], "one"),
            (Change::Clip(1.5), [0.0, 1.0, 1.5, 1.5], "the large ones"),
            (Change::Columns { every: 2, row_len: 2 }, [0.0, 1.0, 0.0, 3.0], "a column"),
        ] {
            let (mut tensor, files) = tensor(&[2, 2]);
            super::change(&mut tensor, change);
            let mut values = [0.0; 4];
            tensor.decode(&files, 0..4, &mut Scratch::default(), &mut values).unwrap();
            assert_eq!(values, expected, "{why}");
        }
        let noise: Vec<f32> = (0..10_000).map(noise).collect();
        let mean = noise.iter().sum::<f32>() / 1e4;
        let square = noise.iter().map(|v| v * v).sum::<f32>() / 1e4;
        assert!(mean.abs() < 0.03 && (square - 1.0).abs() < 0.03, "{mean} {square}");
    }
}
