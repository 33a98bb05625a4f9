/*!
`contract.json`: the record of a run as it is, for machines, and its JSON schema.

Every other report is a rendering of this one and can be made again from it.
*/

use std::io::{self, Write};
use std::mem::take;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::format::{Options, Rendered, Report, ReportError};
use crate::disk;
use crate::suite::record::{Contract, PairRecord, SCHEMA};

/// Renders `contract.json`.
#[derive(Debug)]
pub struct ContractJson;

impl Report for ContractJson {
    fn name(&self) -> &'static str {
        "json"
    }

    fn file_name(&self) -> &'static str {
        "contract.json"
    }

    fn about(&self) -> &'static str {
        "the record of the run: every other report is made from it"
    }

    fn render(&self, contract: &Contract, _: &Options) -> Result<Rendered, ReportError> {
        let mut bytes = Vec::new();
        Self::write(contract, &mut bytes).map_err(|error| ReportError::Json(error.into()))?;
        Ok(Rendered::from(bytes))
    }
}

impl ContractJson {
    /// Writes the report piece by piece: it may be larger than all that it is made of.
    pub fn write(contract: &Contract, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, contract)?;
        out.write_all(b"\n")
    }
}

/// Why a `contract.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no contract report.
    #[error(
        "{}: not a contract report: {source}; name a contract.json that `qualm run` wrote",
        path.display()
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// The file has another version of the format.
    #[error(
        "{}: has schema version {found}, this qualm reads version {SCHEMA}; run the suite again, or \
         use the qualm that wrote it",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
}

impl From<ContractError> for ReportError {
    fn from(error: ContractError) -> Self {
        Self::Json(error.into())
    }
}

/// The one key that every version of the format has.
#[derive(Deserialize)]
struct Versioned {
    schema: u64,
}

impl Contract {
    /// Reads a `contract.json`.
    pub fn read(path: &Path) -> Result<Self, ContractError> {
        let io = |source| ContractError::Io { path: path.to_owned(), source };
        let bytes = disk::read(path, disk::RECORD).map_err(io)?;
        Self::from_json(&bytes, path)
    }

    /// Turns the record into what is read back from its `contract.json`, in which numbers that are not
    /// finite are no more than that; row by row, so that it is not there twice.
    pub fn read_back(&mut self) -> serde_json::Result<()> {
        fn again<T: Serialize + DeserializeOwned>(it: &mut T) -> serde_json::Result<()> {
            *it = serde_json::from_slice(&serde_json::to_vec(it)?)?;
            Ok(())
        }
        fn pairs(contract: &mut Contract) -> impl Iterator<Item = &mut PairRecord> {
            contract.specs.iter_mut().flat_map(|spec| &mut spec.pairs)
        }
        let mut rows = Vec::new();
        for pair in pairs(self) {
            let (mut tensors, mut tests) = (take(&mut pair.tensors), take(&mut pair.tests));
            tensors.iter_mut().try_for_each(again)?;
            tests.iter_mut().try_for_each(again)?;
            rows.push((tensors, tests, take(&mut pair.examined)));
        }
        again(self)?;
        for (pair, (tensors, tests, examined)) in pairs(self).zip(rows) {
            (pair.tensors, pair.tests, pair.examined) = (tensors, tests, examined);
        }
        Ok(())
    }

    /// Reads the bytes of a `contract.json`; `path` is for messages alone.
    pub fn from_json(bytes: &[u8], path: &Path) -> Result<Self, ContractError> {
        let invalid = |source| ContractError::Invalid { path: path.to_owned(), source };
        let Versioned { schema } = serde_json::from_slice(bytes).map_err(invalid)?;
        if schema != u64::from(SCHEMA) {
            return Err(ContractError::Version { path: path.to_owned(), found: schema });
        }
        serde_json::from_slice(bytes).map_err(invalid)
    }
}

/// The JSON schema of `contract.json`, pretty-printed, as `schema/contract.schema.json` holds it.
pub fn schema() -> String {
    let mut schema = schemars::schema_for!(Contract);
    schema.insert("title".to_owned(), "qualm contract report".into());
    format!("{:#}\n", schema.to_value())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::super::sample;
    use super::*;

    fn render(contract: &Contract) -> Vec<u8> {
        ContractJson.render(contract, &Options::default()).unwrap().bytes
    }

    fn read(bytes: &[u8]) -> Result<Contract, ContractError> {
        Contract::from_json(bytes, Path::new("out/contract.json"))
    }

    /// `schema/contract.schema.json`; written anew if the environment asks for it.
    #[test]
    fn the_committed_schema_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/contract.schema.json");
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            fs::write(&path, schema()).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap();
        assert_eq!(committed, schema(), "UPDATE_SCHEMA=1 cargo test writes it anew");
    }

    #[test]
    fn samples_satisfy_the_schema_and_nonsense_does_not() {
        let mut schemas = boon::Schemas::new();
        let mut compiler = boon::Compiler::new();
        let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
        compiler.add_resource("contract.json", schema).unwrap();
        let schema = compiler.compile("contract.json", &mut schemas).unwrap();
        for contract in [sample::contract(), sample::passing()] {
            let value = serde_json::from_slice(&render(&contract)).unwrap();
            schemas.validate(&value, schema).map_err(|e| e.to_string()).unwrap();
            for break_it in [
                (|v: &mut serde_json::Value| v["verdict"] = "maybe".into()) as fn(&mut _),
                |v| v["specs"][0]["pairs"][0]["tensors"][0]["rmse"] = "1e-3".into(),
                |v| v["surprise"] = 1.into(),
                |v| v["exit_code"] = (-1).into(),
                |v| drop(v.as_object_mut().unwrap().remove("summary")),
            ] {
                let mut broken = value.clone();
                break_it(&mut broken);
                assert!(schemas.validate(&broken, schema).is_err(), "{broken}");
            }
        }
    }

    #[test]
    fn what_is_read_back_is_what_was_written() {
        for contract in [sample::contract(), sample::passing()] {
            let bytes = render(&contract);
            assert_eq!(bytes.last(), Some(&b'\n'));
            assert_eq!(render(&read(&bytes).unwrap()), bytes);
        }
    }

    #[test]
    fn a_check_that_found_nan_still_has_a_value() {
        let mut contract = sample::passing();
        contract.specs[0].pairs[0].tests[1].checks[0].value = Some(crate::gate::Number(f64::NAN));
        let back = read(&render(&contract)).unwrap();
        let checks = |contract: &Contract| contract.specs[0].pairs[0].tests[1].checks[0].clone();
        assert!(checks(&back).value.is_some_and(|value| value.0.is_nan()));
        assert!(back.specs[0].pairs[0].tests[0].checks[0].value.is_none());
    }

    proptest! {
        /// A merge computes metrics from sums that it read: not a bit may change.
        #[test]
        fn numbers_keep_their_bits(bits: u64) {
            let value = f64::from_bits(bits);
            let text = serde_json::to_string(&crate::gate::Number(value)).unwrap();
            let back: crate::gate::Number = serde_json::from_str(&text).unwrap();
            prop_assert!(back.0.to_bits() == bits || !value.is_finite() && back.0.is_nan());
        }
    }

    #[test]
    fn what_is_no_contract_report_is_named() {
        for (bytes, expected) in [
            ("", "EOF while parsing"),
            ("{}", "missing field `schema`"),
            ("{\"schema\": 1}", "missing field"),
            ("{\"schema\": 1, \"cosin\": 2}", "unknown field `cosin`"),
            ("{\"schema\": 99, \"new\": 2}", "has schema version 99, this qualm reads version 1"),
            ("\u{0}PK", "line 1 column 1"),
        ] {
            let error = read(bytes.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.starts_with("out/contract.json: "), "{error}");
        }
        let error = Contract::read(Path::new("no/such.json")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read no/such.json: "), "{error}");
    }
}
