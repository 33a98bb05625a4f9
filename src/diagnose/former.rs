/*!
Types that meant something else once: nothing in a file tells that, but its values do.
*/

use super::bench::Bench;
use super::{Cause, Diagnosis};
use crate::codec::Frame;
use crate::model::{Plane, Storage};

/// Cosine from which on the former reading is the right one: the coarsest of these types gives above 0.9.
const RIGHT: f64 = 0.85;

/// Cosine up to which the reading of today is wrong: random values give 0, and random magnitudes with the right
/// signs, as in `IQ3_KT`, 2/π = 0.64.
const WRONG: f64 = 0.7;

/// A trellis type of `ik_llama.cpp` whose indices stood for other values until June 2025.
pub fn trellis(bench: &Bench) -> Option<Diagnosis> {
    let Storage::Joined(weight) = &bench.subject.q().storage else { return None };
    let [Plane { ty, shape, at, .. }] = weight.planes() else { return None };
    let decode = ty.former_rows()?;
    let Frame::Rows { rows: 1, meta } = ty.info().rows?.frame else { return None };
    if *shape != bench.subject.r().shape || shape.last() != Some(&bench.row_len) {
        return None;
    }
    let mut bytes = vec![0; ty.bytes_of(&[1, bench.row_len]).ok()? as usize];
    let mut values = vec![0.0; bench.row_len as usize];
    let (mut now, mut then) = (Cosine::default(), Cosine::default());
    for (index, row) in bench.rows.iter().enumerate() {
        let file = &bench.subject.quantized.files[at.file];
        file.read_at(at.offset + row * bytes.len() as u64, &mut bytes).ok()?;
        let (meta, blocks) = bytes.split_at(meta);
        decode(meta, blocks, 0..1, &mut values);
        let (r, q) = bench.row(index);
        now.add(r, q);
        then.add(r, &values);
    }
    let (now, then) = (now.value(), then.value());
    (now.abs() < WRONG && then > RIGHT).then(|| {
        let why = format!(
            "read as ik_llama.cpp had {ty} until June 2025, the sample has cosine {then:.3}, as it has it since, {now:.3}: \
             quantize the model again"
        );
        Diagnosis::certain(Cause::FormerTrellis, why)
    })
}

/// Sums for a cosine.
#[derive(Default)]
struct Cosine {
    rr: f64,
    xx: f64,
    rx: f64,
}

impl Cosine {
    fn add(&mut self, r: &[f32], x: &[f32]) {
        for (&r, &x) in r.iter().zip(x) {
            let (r, x) = (f64::from(r), f64::from(x));
            self.rr += r * r;
            self.xx += x * x;
            self.rx += r * x;
        }
    }

    fn value(&self) -> f64 {
        let norms = (self.rr * self.xx).sqrt();
        if norms > 0.0 { self.rx / norms } else { 0.0 }
    }
}
