/*! `qualm report CONTRACT`: every report made again from a `contract.json`. */

use super::args::ReportArgs;
use super::{Failure, streams};
use crate::report::{self, Options};
use crate::suite::exit::Exit;
use crate::suite::record::Contract;

/// Reads the record and writes the reports that are asked for, or all.
pub fn run(args: &ReportArgs) -> Result<Exit, Failure> {
    let contract = Contract::read(&args.contract).map_err(|e| Failure::new(Exit::InputError, e))?;
    let options = Options {
        junit_dialect: args.junit_dialect.into(),
        junit_cases: args.junit_cases.into(),
        ..Options::default()
    };
    let write = |error| Failure::new(Exit::Internal, error);
    let mut asked = false;
    for (name, path) in [
        ("junit.xml", &args.junit),
        ("contract.md", &args.markdown),
        ("report.tsv", &args.tsv),
        ("report.html", &args.html),
    ] {
        let Some(path) = path else { continue };
        asked = true;
        let format = report::REPORTS
            .iter()
            .find(|format| format.file_name() == name)
            .ok_or_else(|| Failure::new(Exit::Internal, format_args!("no report makes {name}")))?;
        let rendered = format.render(&contract, &options).map_err(write)?;
        report::write_file(path, &rendered.bytes).map_err(write)?;
        warn(&rendered.warnings);
    }
    if !asked {
        warn(&report::write_all(&args.out_dir, &contract, &options).map_err(write)?);
    }
    Ok(Exit::Ok)
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        streams::tell(format_args!("warning: {warning}"));
    }
}
