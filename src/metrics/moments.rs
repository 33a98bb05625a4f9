/*!
The sums that every metric is made of, and the one order in which they are added up.

The order is part of the definition, so that the same files give the same bits with any number of
threads and any instruction set:

- a row is cut, from its start, into pieces of [`PIECE`] elements (the last may be shorter);
- inside a piece, element `i` is added to lane `i % LANES`, in order of `i`; then the lanes are
  folded in halves (8 + 8, 4 + 4, 2 + 2, 1 + 1);
- pieces are added up to a row, rows to a chunk, chunks to a tensor, tensors to a model, each time
  one after the other, starting from zero.

Products are fused with their addition (one rounding); squares and products of two f32 are exact in
f64 anyway, so the fusion matters for the squared error alone.
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

/// The sums of one piece: the scalar definition, which every faster kernel must equal bit for bit.
///
/// Both slices have the same length, at most [`PIECE`].
pub fn piece(reference: &[f32], quantized: &[f32]) -> Moments {
    let mut lanes = [[0f64; LANES]; 6];
    for (i, (&r, &q)) in reference.iter().zip(quantized).enumerate() {
        let lane = i % LANES;
        let (r, q) = (f64::from(r), f64::from(q));
        let e = q - r;
        lanes[0][lane] = r.mul_add(r, lanes[0][lane]);
        lanes[1][lane] = q.mul_add(q, lanes[1][lane]);
        lanes[2][lane] = e.mul_add(e, lanes[2][lane]);
        lanes[3][lane] = r.mul_add(q, lanes[3][lane]);
        lanes[4][lane] += e;
        if e.abs() > lanes[5][lane] {
            lanes[5][lane] = e.abs();
        }
    }
    let [rr, qq, ee, rq, e] = [0, 1, 2, 3, 4].map(|sum| fold(lanes[sum], |a, b| a + b));
    let max_abs = fold(lanes[5], f64::max);
    let mut moments =
        Moments { n: reference.len() as u64, rr, qq, ee, rq, e, max_abs, ..Moments::default() };
    // f32 squares cannot overflow f64, so a finite sum proves that every element is finite.
    if !rr.is_finite() || !qq.is_finite() {
        moments.reference_nonfinite = count_nonfinite(reference);
        moments.quantized_nonfinite = count_nonfinite(quantized);
    }
    moments
}

/// Folds the lanes in halves.
fn fold(mut lanes: [f64; LANES], join: impl Fn(f64, f64) -> f64) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = join(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

fn count_nonfinite(values: &[f32]) -> u64 {
    values.iter().filter(|value| !value.is_finite()).count() as u64
}
