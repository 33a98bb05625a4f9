/*!
A comparison in twenty lines: each tensor's cosine and signal-to-noise ratio.

`cargo run --example compare -- REFERENCE QUANTIZED`
*/

use std::path::Path;

use qualm::measure::{Measured, Policy, Progress, measure, pair_up};
use qualm::metrics::Metrics;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [reference, quantized] = arguments.as_slice() else {
        return Err("usage: compare REFERENCE QUANTIZED".into());
    };
    let reference = qualm::model::open(Path::new(reference))?;
    let quantized = qualm::model::open(Path::new(quantized))?;
    let pairing = pair_up(&reference, &quantized, &Policy::STRICT);
    for finding in &pairing.findings {
        println!("{}: {}", finding.tensor, finding.message);
    }
    let measured = measure(&reference, &quantized, &pairing.matched, 2, &Progress::default());
    for (matched, measured) in pairing.matched.iter().zip(&measured) {
        let name = &reference.tensors[matched.reference].name;
        match measured {
            Measured::Values { sums, .. } => match Metrics::from_moments(sums) {
                Some(metrics) => {
                    println!("{name}: cosine {}, {} dB", metrics.cosine, metrics.sqnr_db);
                }
                None => println!("{name}: empty"),
            },
            Measured::Exact { .. } => println!("{name}: integers"),
            Measured::Unreadable { .. } => println!("{name}: cannot be read"),
        }
    }
    Ok(())
}
