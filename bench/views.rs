/*!
What views cost beside their source: nanoseconds a value and ratios, best of several rounds, one thread.

    cargo run --release --example bench-views
*/

use std::path::Path;
use std::time::Instant;

use qualm::codec::TensorType;
use qualm::model::view::{View, ViewError};
use qualm::model::{Extent, Scratch, SourceFile, Storage, Tensor};

/// Rows and columns of the matrix.
const SIZE: u64 = 4096;

/// Values that a reader asks for at a time.
const CHUNK: u64 = 64 * 1024;

const ROUNDS: usize = 5;

fn main() -> Result<(), ViewError> {
    println!("| type | view | ns a value | times its source |\n|---|---|---|---|");
    for ty in [TensorType::BF16, TensorType::Q8_0, TensorType::Q4_K] {
        let len = ty.bytes_for(SIZE * SIZE).unwrap_or(0);
        let bytes = (0..len).map(|at| (at * 37 % 61) as u8).collect();
        let files = [SourceFile::from_bytes(Path::new("memory"), bytes)];
        let storage = Storage::Plain { ty, at: Extent { file: 0, offset: 0, len } };
        let tensor = Tensor { name: "t".to_owned(), shape: vec![SIZE, SIZE], storage };
        let view = View::of(&tensor);
        let rows = |from: u64, to: u64| view.slice(0, from..to, 1);
        let views = [
            ("the source", view.clone()),
            ("q/k rows permuted", view.permute_qk(32)?),
            ("even rows, then odd", {
                let half = |first| view.slice(0, first..SIZE, 2);
                View::concat(&[half(0)?, half(1)?], 0)?
            }),
            ("four parts in another order", {
                let part = |at| rows(at * SIZE / 4, (at + 1) * SIZE / 4);
                View::concat(&[part(2)?, part(0)?, part(3)?, part(1)?], 0)?
            }),
            ("two halves beside each other", {
                View::concat(&[rows(0, SIZE / 2)?, rows(SIZE / 2, SIZE)?], 1)?
            }),
            ("one added", view.add(1.0)),
            ("transposed", view.transpose(&[1, 0])?),
        ];
        let mut source = f64::NAN;
        for (name, view) in views {
            let tensor = view.into_tensor(name);
            let best = (0..ROUNDS).map(|_| time(&tensor, &files)).fold(f64::INFINITY, f64::min);
            if source.is_nan() {
                source = best;
            }
            println!("| {ty} | {name} | {best:.3} | {:.2} |", best / source);
        }
    }
    Ok(())
}

/// Nanoseconds a value of one pass over a tensor.
fn time(tensor: &Tensor, files: &[SourceFile]) -> f64 {
    let (mut scratch, mut values) = (Scratch::default(), vec![0.0; CHUNK as usize]);
    let begun = Instant::now();
    for start in (0..tensor.numel()).step_by(CHUNK as usize) {
        if let Err(error) = tensor.decode(files, start..start + CHUNK, &mut scratch, &mut values) {
            panic!("{error}");
        }
        std::hint::black_box(&values);
    }
    begun.elapsed().as_secs_f64() * 1e9 / tensor.numel() as f64
}
