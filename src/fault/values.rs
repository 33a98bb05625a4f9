/*!
Faults of values: a tensor whose values are changed, or taken from other places, as it is decoded.
*/

use std::ops::Range;
use std::sync::Arc;

use crate::codec::Class;
use crate::model::{Plane, PlaneFinding, ReadError, Scratch, SourceFile, Storage, Tensor, Weight};

/// What happens to the values.
#[derive(Clone, Debug)]
pub enum Change {
    /// Those of a range are multiplied.
    Scale(Range<u64>, f32),
    /// Something is added to each.
    Add(f32),
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

impl Route {
    /// Where the elements from `at` on come from, and how many of them come from one run.
    fn run(&self, at: u64) -> (u64, u64) {
        let until = |limit: u64| if at < limit { limit - at } else { u64::MAX };
        match *self {
            Self::Columns { rows, cols } => ((at % rows) * cols + at / rows, 1),
            Self::Rope { head, row_len } => {
                let (row, column) = (at / row_len, at % row_len);
                let (first, within) = (row / head * head, row % head);
                let source = first + within % 2 * (head / 2) + within / 2;
                (source * row_len + column, row_len - column)
            }
            Self::Swap { a, b, len } => match at {
                _ if (a..a + len).contains(&at) => (at - a + b, a + len - at),
                _ if (b..b + len).contains(&at) => (at - b + a, b + len - at),
                _ => (at, until(a).min(until(b))),
            },
            Self::Copy { to, from, len } => {
                if (to..to + len).contains(&at) {
                    (at - to + from, to + len - at)
                } else {
                    (at, until(to))
                }
            }
            Self::Shift { start, by, end } => {
                if at < start {
                    (at, start - at)
                } else if at + by < end {
                    (at + by, end - by - at)
                } else {
                    (at + by - end + start, end - at)
                }
            }
        }
    }
}

/// Puts a change between a tensor's storage and whoever decodes it.
pub fn change(tensor: &mut Tensor, change: Change) {
    let source = tensor.clone();
    let planes = match &source.storage {
        Storage::Plain { ty, at } => {
            let (name, shape) = (source.name.clone(), source.shape.clone());
            vec![Plane { name, ty: *ty, shape, at: *at }]
        }
        Storage::Joined(weight) => weight.planes().to_vec(),
        Storage::Undecodable { .. } => return,
    };
    tensor.storage = Storage::Joined(Arc::new(Faulty { source, planes, change }));
}

/// A tensor with a fault.
#[derive(Debug)]
struct Faulty {
    source: Tensor,
    planes: Vec<Plane>,
    change: Change,
}

impl Faulty {
    /// Values that come from other places.
    fn route(
        &self,
        route: &Route,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        if let Route::Columns { rows, cols } = *route {
            return self.columns((rows, cols), files, range, scratch, values);
        }
        let mut at = range.start;
        while at < range.end {
            let (source, len) = route.run(at);
            let len = len.min(range.end - at);
            let from = (at - range.start) as usize;
            let run = &mut values[from..from + len as usize];
            self.source.decode(files, source..source + len, scratch, run)?;
            at += len;
        }
        Ok(())
    }

    /// A matrix column by column: of every row, the stretch that the range's columns need is read.
    fn columns(
        &self,
        (rows, cols): (u64, u64),
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let wanted = range.start / rows..range.end.div_ceil(rows);
        let mut stretch = vec![0.0; (wanted.end - wanted.start) as usize];
        for row in 0..rows {
            let start = row * cols + wanted.start;
            self.source.decode(
                files,
                start..start + stretch.len() as u64,
                scratch,
                &mut stretch,
            )?;
            for (column, value) in wanted.clone().zip(&stretch) {
                let at = column * rows + row;
                if range.contains(&at) {
                    values[(at - range.start) as usize] = *value;
                }
            }
        }
        Ok(())
    }
}

impl Weight for Faulty {
    fn scheme(&self) -> &str {
        self.source.qtype()
    }

    fn class(&self) -> Class {
        self.source.class()
    }

    fn planes(&self) -> &[Plane] {
        &self.planes
    }

    fn activation_planes(&self) -> &[Plane] {
        match (&self.source.storage, &self.change) {
            (Storage::Joined(weight), change) if !matches!(change, Change::NoActivations) => {
                weight.activation_planes()
            }
            _ => &[],
        }
    }

    fn shape_is_known(&self) -> bool {
        match &self.source.storage {
            Storage::Joined(weight) => weight.shape_is_known(),
            _ => true,
        }
    }

    fn decode(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        if let Change::Route(route) = &self.change {
            return self.route(route, files, range, scratch, values);
        }
        self.source.decode(files, range.clone(), scratch, values)?;
        let indexed = range.zip(values.iter_mut());
        match &self.change {
            Change::Scale(of, factor) => {
                indexed.filter(|(at, _)| of.contains(at)).for_each(|(_, value)| *value *= factor);
            }
            Change::Add(amount) => values.iter_mut().for_each(|value| *value += amount),
            Change::Set(index, new) => {
                indexed.filter(|(at, _)| at == index).for_each(|(_, value)| *value = *new);
            }
            Change::Clip(most) => {
                for value in values.iter_mut() {
                    *value = value.clamp(-most, *most);
                }
            }
            Change::Noise(rms) => indexed.for_each(|(at, value)| *value += rms * noise(at)),
            Change::Columns { every, row_len } => {
                let hit = |at: &u64| (at % row_len).is_multiple_of(*every);
                indexed.filter(|(at, _)| hit(at)).for_each(|(_, value)| *value = 0.0);
            }
            Change::Route(_) | Change::NoActivations => {}
        }
        Ok(())
    }

    fn check_planes(
        &self,
        files: &[SourceFile],
        scratch: &mut Scratch,
    ) -> Result<Vec<PlaneFinding>, ReadError> {
        match &self.source.storage {
            Storage::Joined(weight) => weight.check_planes(files, scratch),
            _ => Ok(Vec::new()),
        }
    }
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
    use crate::model::Extent;

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
