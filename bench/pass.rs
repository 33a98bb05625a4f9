/*!
One measuring pass, or one raw read of the same files, as a process of its own: what the benchmark
times from outside.
*/

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use qualm::measure::{Measured, Policy, Progress, measure, pair_up};
use qualm::metrics::Metrics;

/// Bytes of a cache line.
const LINE: usize = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["measure", threads, reference, quantized] => match threads.parse() {
            Ok(threads @ 1..) => run(Path::new(reference), Path::new(quantized), threads),
            _ => usage(),
        },
        ["read", threads, buffer, files @ ..] => match (threads.parse(), buffer.parse()) {
            (Ok(threads @ 1..), Ok(buffer @ 1..)) => read(files, threads, buffer),
            _ => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: pass measure THREADS REF QUANT | pass read THREADS BUFFER FILE...");
    ExitCode::from(2)
}

fn run(reference: &Path, quantized: &Path, threads: usize) -> ExitCode {
    let begun = Instant::now();
    let (reference, quantized) =
        match (qualm::model::open(reference), qualm::model::open(quantized)) {
            (Ok(reference), Ok(quantized)) => (reference, quantized),
            (Err(error), _) | (_, Err(error)) => {
                eprintln!("{error}");
                return ExitCode::from(6);
            }
        };
    let pairing = pair_up(&reference, &quantized, &Policy::STRICT);
    let opened = begun.elapsed();
    let measured = measure(&reference, &quantized, &pairing.matched, threads, &Progress::default());
    let (mut worst, mut unreadable) = (1f64, 0);
    for measured in &measured {
        match measured {
            Measured::Values { sums, .. } => {
                worst = worst.min(Metrics::from_moments(sums).map_or(1.0, |m| m.cosine));
            }
            Measured::Exact { .. } => {}
            Measured::Unreadable { .. } => unreadable += 1,
        }
    }
    println!(
        "{} tensors, {unreadable} unreadable, worst cosine {worst}, opened in {opened:?}, measured in {:?}",
        measured.len(),
        begun.elapsed().checked_sub(opened).unwrap()
    );
    ExitCode::SUCCESS
}

fn read(files: &[&str], threads: u64, buffer: u64) -> ExitCode {
    let begun = Instant::now();
    for path in files {
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) => {
                eprintln!("{path}: {error}");
                return ExitCode::from(6);
            }
        };
        let len = file.metadata().map_or(0, |metadata| metadata.len());
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    // On a cache line, as the engine's: some processors copy to others far slower.
                    let mut bytes = vec![1; buffer as usize + LINE];
                    let start = bytes.as_ptr().align_offset(LINE);
                    let bytes = &mut bytes[start..start + buffer as usize];
                    loop {
                        let at = next.fetch_add(buffer, Ordering::Relaxed);
                        if at >= len {
                            return;
                        }
                        let n = buffer.min(len - at) as usize;
                        if let Err(error) = file.read_exact_at(&mut bytes[..n], at) {
                            eprintln!("{path}: {error}");
                            std::process::exit(6);
                        }
                    }
                });
            }
        });
    }
    println!("read in {:?}", begun.elapsed());
    ExitCode::SUCCESS
}
