/*!
What sound quantization onto a weight's own scales, code books and places makes of reference values: the
expectation that its error is held against.

Where the nearest code can be found at a bearable cost, it is; where that would take a search through a
large book for every value, some are searched, and the others get noise of that size.
*/

/// Entries of books that are looked at for one run of values.
const BUDGET: usize = 1 << 21;

/// A number from -1.73 to 1.73 with mean 0 and variance 1, the same for an element on every run.
fn noise(element: u64) -> f32 {
    let mut bits = element.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((bits >> 40) as f32 / (1 << 23) as f32 - 1.0) * 3f32.sqrt()
}

/// What a quantizer of mean values makes of a value: nearer to zero, because it leaves out what it does not
/// know, by the distortion (noise over signal), and with noise that is independent of what is left.
/// `signal` is the rms of the values that the quantizer sees.
pub fn noisy(value: f32, element: u64, distortion: f32, signal: f32) -> f32 {
    let kept = 1.0 - distortion;
    value * kept + noise(element) * signal * (distortion * kept).max(0.0).sqrt()
}

/// A value rounded to an integer code of `bits` bits, symmetric, times its scale.
pub fn rounded(value: f32, scale: f32, bits: u32) -> f32 {
    if scale == 0.0 {
        return 0.0;
    }
    let half = (1 << (bits - 1)) as f32;
    (value / scale).round().clamp(-half, half - 1.0) * scale
}

/// Sets the two smaller of each four values to zero.
pub fn pruned(values: &mut [f32]) {
    for four in values.as_chunks_mut::<4>().0 {
        let mut order = [0, 1, 2, 3];
        order.sort_by(|&a: &usize, &b| four[b].abs().total_cmp(&four[a].abs()));
        four[order[2]] = 0.0;
        four[order[3]] = 0.0;
    }
}

/// Vectors out of several books, one of each, that are added up.
pub struct Search<'a> {
    /// The books, each `entries` vectors of `len` numbers.
    pub books: Vec<&'a [f32]>,
    /// Elements of a vector.
    pub len: usize,
}

/// Rounds of choosing again what each book gives, the others being kept.
const ROUNDS: usize = 3;

impl Search<'_> {
    /// How many of `count` vectors are searched for: all, or as many as the budget allows.
    pub fn step(&self, count: usize) -> usize {
        let entries: usize = self.books.iter().map(|book| book.len() / self.len).sum();
        let rounds = if self.books.len() > 1 { ROUNDS } else { 1 };
        let allowed = (BUDGET / (entries * rounds).max(1)).max(16);
        count.div_ceil(allowed).max(1)
    }

    /// The sum of vectors that is nearest to the first elements of one, as far as choosing book by book
    /// finds it.
    pub fn nearest(&self, vector: &[f32], sum: &mut [f32]) {
        let mut chosen = vec![None; self.books.len()];
        sum.fill(0.0);
        let rounds = if self.books.len() > 1 { ROUNDS } else { 1 };
        let mut rest = vec![0.0; vector.len()];
        for _ in 0..rounds {
            for (book, chosen) in self.books.iter().zip(&mut chosen) {
                if let Some(old) = *chosen {
                    let entry: &[f32] = entry(book, old, self.len);
                    sum.iter_mut().zip(entry).for_each(|(sum, value)| *sum -= value);
                }
                for ((rest, value), sum) in rest.iter_mut().zip(vector).zip(&*sum) {
                    *rest = value - sum;
                }
                let best = nearest_entry(book, self.len, &rest);
                *chosen = Some(best);
                let entry = entry(book, best, self.len);
                sum.iter_mut().zip(entry).for_each(|(sum, value)| *sum += value);
            }
        }
    }
}

fn entry(book: &[f32], index: usize, len: usize) -> &[f32] {
    &book[index * len..(index + 1) * len]
}

/// The entry of a book that is nearest to a vector, or to the beginning of one.
fn nearest_entry(book: &[f32], len: usize, vector: &[f32]) -> usize {
    let mut best = (f32::INFINITY, 0);
    for (index, entry) in book.chunks_exact(len).enumerate() {
        let square = |(a, b): (&f32, &f32)| (a - b) * (a - b);
        let distance: f32 = entry.iter().zip(vector).map(square).sum();
        if distance < best.0 {
            best = (distance, index);
        }
    }
    best.1
}

/// Sums of the error of the vectors that were searched for, and of what they were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    error: f64,
    signal: f64,
    count: u64,
}

impl Found {
    /// Adds a vector and what was found for it.
    pub fn add(&mut self, vector: &[f32], sum: &[f32]) {
        for (value, found) in vector.iter().zip(sum) {
            self.error += f64::from(value - found).powi(2);
            self.signal += f64::from(*value).powi(2);
            self.count += 1;
        }
    }

    /// Noise over signal, and the rms of the signal.
    pub fn distortion(&self) -> (f32, f32) {
        if self.signal == 0.0 {
            return (0.0, 0.0);
        }
        let signal = (self.signal / self.count as f64).sqrt();
        ((self.error / self.signal).min(1.0) as f32, signal as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_variance_that_it_says() {
        let values: Vec<f64> = (0..100_000).map(|i| f64::from(noise(i))).collect();
        let mean = values.iter().sum::<f64>() / 1e5;
        let square = values.iter().map(|value| value * value).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.01 && (square - 1.0).abs() < 0.01, "{mean} {square}");
    }

    #[test]
    fn two_of_four_are_left() {
        let mut values = [1.0, -3.0, 2.0, 0.5, 0.0, 0.0, -1.0, 0.0, 9.0];
        pruned(&mut values);
        assert_eq!(values, [0.0, -3.0, 2.0, 0.0, 0.0, 0.0, -1.0, 0.0, 9.0]);
    }

    #[test]
    fn what_the_books_hold_is_found() {
        let first: Vec<f32> = (0..16).map(|i| ((i * 7 % 16) as f32 - 8.0) * 2.0).collect();
        let second: Vec<f32> = (0..16).map(|i| (i * 5 % 16) as f32 / 16.0).collect();
        let search = Search { books: vec![&first, &second], len: 2 };
        let mut sum = [0.0; 2];
        let vector: Vec<f32> =
            entry(&first, 3, 2).iter().zip(entry(&second, 5, 2)).map(|(a, b)| a + b).collect();
        search.nearest(&vector, &mut sum);
        assert_eq!(sum[..], vector);
    }
}
