/*!
A comparison in twenty lines: each tensor's cosine and signal-to-noise ratio.

`cargo run --example compare -- REFERENCE QUANTIZED`
*/

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [reference, quantized] = arguments.as_slice() else {
        return Err("usage: compare REFERENCE QUANTIZED".into());
    };
    let compared = qualm::compare(reference, quantized)?;
    for finding in &compared.findings {
        println!("{}: {}", finding.tensor, finding.message);
    }
    for row in &compared.rows {
        match &row.error {
            Some(error) => println!("{}: {error}", row.tensor),
            None => println!("{}: cosine {}, {} dB", row.tensor, row.cosine.0, row.sqnr_db.0),
        }
    }
    Ok(())
}
