/*! `qualm report CONTRACT`: every report made again from a `contract.json`. */

use super::args::ReportArgs;
use std::path::Path;

use super::{Failure, streams};
use crate::disk::{self, Standing};
use crate::report::{self, Options};
use crate::suite::exit::Exit;
use crate::suite::record::Contract;

/// Reads the record and writes the reports that are asked for, or all.
pub fn run(args: &ReportArgs) -> Result<Exit, Failure> {
    let mut contract = read_record(&args.contract)?;
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
        ("report.sarif", &args.sarif),
        ("gl-code-quality-report.json", &args.code_quality),
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
        warn(&report::write_all(&args.out_dir, &mut contract, &options).map_err(write)?);
    }
    Ok(Exit::Ok)
}

/// The record of a run. One that a later run was to replace, and did not, is refused: it must not be
/// taken for that run's.
pub fn read_record(path: &Path) -> Result<Contract, Failure> {
    let contract = Contract::read(path).map_err(|error| Failure::new(Exit::InputError, error))?;
    match disk::standing(disk::parent(path)) {
        Standing::Current => Ok(contract),
        Standing::InProgress => {
            let path = path.display();
            streams::tell(format_args!(
                "warning: {path} is of an earlier run; another is under way that will replace it"
            ));
            Ok(contract)
        }
        Standing::Stale => {
            let problem = format!(
                "{} is of an earlier run: the last one into this directory ended before it wrote its \
                 reports; run the suite again",
                path.display()
            );
            Err(Failure::new(Exit::InputError, problem))
        }
    }
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        streams::tell(format_args!("warning: {warning}"));
    }
}
