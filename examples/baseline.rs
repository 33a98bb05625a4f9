/*!
A baseline from one's own measurement, without a spec: what `qualm run` does for each pair.

`cargo run --example baseline -- WORKSPACE PAIR COSINE`

The snapshot is `WORKSPACE/snapshots/sample__PAIR.snap`. Exits with 0 if the baseline passes, with
8 if it is pending. insta's variables (`INSTA_UPDATE`, `CI`, …) say what is written.
*/

use std::path::Path;
use std::process::ExitCode;

use qualm::baseline::{
    Entry, Environment, Header, Measurement, Policy, Request, Store, Tolerance, Tolerances, Values,
};
use qualm::metrics::Metric;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [workspace, pair, cosine] = arguments.as_slice() else {
        return Err("usage: baseline WORKSPACE PAIR COSINE".into());
    };
    let workspace = Path::new(workspace);
    let values = Values::default().with(Metric::Cosine, Some(cosine.parse()?));
    let entry = Entry {
        qtype: "q8_0".to_owned(),
        shape: vec![64, 64],
        numel: 4096,
        values,
        bits_per_weight: 8.5,
        nonfinite: 0,
    };
    let store = Store::new(
        workspace,
        &workspace.join("snapshots"),
        &workspace.join("target/qualm"),
        Environment::from_process()?,
    );
    let tolerances = Tolerances::all(Tolerance { abs: 1e-3, rel: 0.0 });
    let decision = store.check(Request {
        spec: "sample",
        pair,
        header: Header {
            source: "specs/sample.toml".to_owned(),
            assertion_line: Some(3),
            description: Some(format!("sample / {pair} (f32 -> q8_0)")),
            ..Header::default()
        },
        measurement: Measurement {
            global: None,
            tensors: [("blk.0.attn_q.weight".to_owned(), entry)].into(),
        },
        policy: &Policy { tolerances, ..Policy::default() },
    })?;
    println!("{}: {:?}", decision.path.display(), decision.status);
    if let Some(pending) = &decision.pending {
        println!("pending: {}", pending.display());
    }
    Ok(ExitCode::from(if decision.action.pass { 0 } else { 8 }))
}
