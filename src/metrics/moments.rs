/*!
The sums that every metric is made of, and the one order in which they are added up.

The order is part of the definition, so that the same files give the same bits with any number of
threads and any instruction set:

- a row is cut, from its start, into pieces of [`PIECE`] elements (the last may be shorter);
- inside a piece, element `i` is added to lane `i % LANES`, in order of `i`; then the lanes are
  folded in halves (8 + 8, 4 + 4, 2 + 2, 1 + 1);
- the pieces of a chunk, then the chunks of a tensor, are added up one after the other, starting
  from zero, with what each addition loses to rounding summed up beside it ([`Total`]).

Every f64 operation is rounded once, to nearest: e = q - r; Σr², Σq², Σe² and Σrq are fused
multiply-adds, Σr⁴ is one of r² with itself. The product of two f32 is exact in f64, so that only
additions round, 20 of them in a row at most.

What that makes of a sum over any number of elements: its error is below 20 · 2⁻⁵³ · Σ|term|, that
is, 1e-14 relative for Σr², Σq², Σe². Σrq may cancel, and then keeps fewer digits: a cosine below 1/256
is made of products that [`measure`](crate::measure) adds up a second time, with twice the digits.
*/

/// Elements of a piece.
pub const PIECE: usize = 256;

/// Partial sums that run side by side inside a piece.
pub const LANES: usize = 16;

/// Sums over paired elements r (reference) and q (quantized), e = q - r, all in f64.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// Number of elements.
    pub n: u64,
    /// Σ r².
    pub rr: f64,
    /// Σ q².
    pub qq: f64,
    /// Σ e².
    pub ee: f64,
    /// Σ r·q.
    pub rq: f64,
    /// Σ e.
    pub e: f64,
    /// max |e|; NaN is passed over here and counted below.
    pub max_abs: f64,
    /// Elements of the reference that are NaN or infinite.
    pub reference_nonfinite: u64,
    /// Elements of the quantized tensor that are NaN or infinite.
    pub quantized_nonfinite: u64,
}

impl Moments {
    /// Adds the sums of the elements that follow.
    pub fn add(&mut self, next: &Moments) {
        self.n += next.n;
        self.rr += next.rr;
        self.qq += next.qq;
        self.ee += next.ee;
        self.rq += next.rq;
        self.e += next.e;
        self.max_abs = self.max_abs.max(next.max_abs);
        self.reference_nonfinite += next.reference_nonfinite;
        self.quantized_nonfinite += next.quantized_nonfinite;
    }

    /// NaN or infinite elements on either side.
    pub fn nonfinite(&self) -> u64 {
        self.reference_nonfinite + self.quantized_nonfinite
    }
}

/// The sums of one piece, or of a few: the order of the fields is the one in which vector kernels
/// fold their lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(64))]
pub struct Sums(pub(super) [f64; 8]);

/// Position of each sum in [`Sums`]; positions 5 and 7 are zero.
const RR: usize = 0;
const E: usize = 1;
const QQ: usize = 2;
const R4: usize = 3;
const EE: usize = 4;
const RQ: usize = 6;

impl Sums {
    /// Σ r².
    pub fn rr(&self) -> f64 {
        self.0[RR]
    }

    /// Σ q².
    pub fn qq(&self) -> f64 {
        self.0[QQ]
    }

    /// Σ e².
    pub fn ee(&self) -> f64 {
        self.0[EE]
    }

    /// Σ r·q.
    pub fn rq(&self) -> f64 {
        self.0[RQ]
    }

    /// Adds the sums of the elements that follow.
    #[inline(always)]
    pub fn add(&mut self, next: &Sums) {
        for (sum, next) in self.0.iter_mut().zip(next.0) {
            *sum += next;
        }
    }
}

/// Sums of many pieces: each beside what its additions have lost to rounding.
#[derive(Clone, Copy, Debug, Default)]
pub struct Total {
    pub(super) sums: Sums,
    pub(super) lost: Sums,
}

impl Total {
    /// Adds a piece.
    #[inline(always)]
    pub fn add(&mut self, piece: &Sums) {
        for k in 0..8 {
            let (sum, lost) = two_sum(self.sums.0[k], piece.0[k]);
            self.sums.0[k] = sum;
            self.lost.0[k] += lost;
        }
    }

    /// Adds the total of the elements that follow.
    pub fn join(&mut self, next: &Total) {
        self.add(&next.sums);
        self.lost.add(&next.lost);
    }

    fn rounded(&self, k: usize) -> f64 {
        self.sums.0[k] + self.lost.0[k]
    }

    /// Σ r⁴, for the kurtosis of the reference.
    pub fn r4(&self) -> f64 {
        self.rounded(R4)
    }

    /// The sums, each rounded once more; counts and maximum are left at zero.
    pub fn moments(&self) -> Moments {
        Moments {
            rr: self.rounded(RR),
            qq: self.rounded(QQ),
            ee: self.rounded(EE),
            rq: self.rounded(RQ),
            e: self.rounded(E),
            ..Moments::default()
        }
    }
}

/// The rounded sum of two numbers, and the exact rest (Knuth).
#[inline(always)]
pub fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_rounded = sum - a;
    let a_rounded = sum - b_rounded;
    (sum, (a - a_rounded) + (b - b_rounded))
}

/// The sums of one piece and max |e|: the scalar definition, which every faster kernel must equal
/// bit for bit. A NaN in e is passed over by the maximum.
///
/// Both sides have the same length, at most [`PIECE`].
pub fn piece_sums<T: Into<f64>>(pairs: impl Iterator<Item = (T, T)>) -> (Sums, f64) {
    let mut lanes = [[0f64; LANES]; 8];
    let mut max_abs = 0f64;
    for (i, (r, q)) in pairs.enumerate() {
        let lane = i % LANES;
        let (r, q): (f64, f64) = (r.into(), q.into());
        let e = q - r;
        let square = r * r;
        lanes[RR][lane] += square;
        lanes[R4][lane] = square.mul_add(square, lanes[R4][lane]);
        lanes[QQ][lane] = q.mul_add(q, lanes[QQ][lane]);
        lanes[EE][lane] = e.mul_add(e, lanes[EE][lane]);
        lanes[RQ][lane] = r.mul_add(q, lanes[RQ][lane]);
        lanes[E][lane] += e;
        if e.abs() > max_abs {
            max_abs = e.abs();
        }
    }
    (Sums(lanes.map(fold)), max_abs)
}

/// The lanes of a piece, to which whole groups are added at once: what [`piece_sums`] does one by
/// one, in the same order within each lane.
#[derive(Default)]
pub(super) struct Lanes {
    sums: [[f64; LANES]; 8],
    max_abs: [f64; LANES],
}

impl Lanes {
    /// Adds element `i` of a group to lane `i`.
    #[inline]
    pub(super) fn add(&mut self, r: &[f32; LANES], q: &[f32; LANES]) {
        let [rr, e_sum, qq, r4, ee, _, rq, _] = &mut self.sums;
        for lane in 0..LANES {
            let (r, q) = (f64::from(r[lane]), f64::from(q[lane]));
            let e = q - r;
            let square = r * r;
            rr[lane] += square;
            r4[lane] = square.mul_add(square, r4[lane]);
            qq[lane] = q.mul_add(q, qq[lane]);
            ee[lane] = e.mul_add(e, ee[lane]);
            rq[lane] = r.mul_add(q, rq[lane]);
            e_sum[lane] += e;
            if e.abs() > self.max_abs[lane] {
                self.max_abs[lane] = e.abs();
            }
        }
    }

    /// The sums, and max |e|.
    pub(super) fn sums(self) -> (Sums, f64) {
        (Sums(self.sums.map(fold)), self.max_abs.into_iter().fold(0.0, f64::max))
    }
}

/// The sums of one piece, counts included.
pub fn piece(reference: &[f32], quantized: &[f32]) -> Moments {
    let (sums, max_abs) = piece_sums(reference.iter().copied().zip(quantized.iter().copied()));
    let mut total = Total::default();
    total.add(&sums);
    let mut moments = total.moments();
    moments.n = reference.len() as u64;
    moments.max_abs = max_abs;
    moments.reference_nonfinite = count_nonfinite(reference);
    moments.quantized_nonfinite = count_nonfinite(quantized);
    moments
}

/// Folds the lanes in halves.
fn fold(mut lanes: [f64; LANES]) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

fn count_nonfinite(values: &[f32]) -> u64 {
    values.iter().filter(|value| !value.is_finite()).count() as u64
}
