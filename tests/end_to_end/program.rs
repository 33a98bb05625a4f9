/*!
Runs the program as a user does, and makes the models that it is given.
*/

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What came of a run.
pub struct Ran {
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Fails unless the exit code is `code`; what was printed says why.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Fails unless both streams together hold `text`.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.out.contains(text) || self.err.contains(text), "no {text:?} in\n{self}");
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}\n{}\n{}", self.code, self.out, self.err)
    }
}

/// The program, in a directory, with an environment that says nothing.
pub fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qualm"));
    command.current_dir(directory).env_clear().stdin(Stdio::null());
    command
}

/// Runs the program in a directory.
pub fn qualm(directory: &Path, arguments: &[&str]) -> Ran {
    run(command(directory).args(arguments))
}

/// Runs a command that [`command`] made.
pub fn run(command: &mut Command) -> Ran {
    let output = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// A file of the repository's test data.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A file of the repository.
pub fn repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// A tensor to be written: name, dtype, shape, bytes.
pub type Stored<'a> = (&'a str, &'a str, &'a [u64], Vec<u8>);

/// A safetensors file of these tensors, in this order.
pub fn safetensors(tensors: &[Stored]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, dtype, shape, bytes) in tensors {
        let begin = end;
        end += bytes.len();
        let entry = serde_json::json!({
            "dtype": dtype, "shape": shape, "data_offsets": [begin, end],
        });
        header.insert((*name).to_owned(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    for (.., bytes) in tensors {
        file.extend_from_slice(bytes);
    }
    file
}

/// Little-endian bytes.
pub fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Little-endian bytes.
pub fn i32s(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Little-endian bytes of values rounded to bfloat16, ties to even.
pub fn bf16s(values: &[f32]) -> Vec<u8> {
    let round = |value: &f32| {
        let bits = value.to_bits();
        let up = 0x7FFF + (bits >> 16 & 1);
        (if value.is_nan() { bits >> 16 } else { (bits + up) >> 16 }) as u16
    };
    values.iter().flat_map(|value| round(value).to_le_bytes()).collect()
}

/// A pseudo-random sequence, the same on every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// About normal, mean 0, variance 1.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.below(1 << 24) as f32 / (1 << 24) as f32).sum::<f32>() - 6.0
    }

    pub fn normals(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.normal()).collect()
    }
}

/// A directory with `specs/`, in which a suite can be run.
pub struct Suite {
    pub directory: tempfile::TempDir,
}

impl Suite {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("specs")).unwrap();
        Self { directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file below the directory.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Writes `specs/s.toml` with one pair `p` of `r.safetensors` and `q.safetensors`, and `lines`.
    pub fn spec(&self, lines: &str) -> &Self {
        let head = "schema = 1\n[[pair]]\nname = \"p\"\nreference = \"../r.safetensors\"\n";
        self.write("specs/s.toml", format!("{head}quantized = \"../q.safetensors\"\n{lines}\n"));
        self
    }

    /// Writes both models.
    pub fn models(&self, reference: &[Stored], quantized: &[Stored]) -> &Self {
        self.write("r.safetensors", safetensors(reference));
        self.write("q.safetensors", safetensors(quantized));
        self
    }

    pub fn qualm(&self, arguments: &[&str]) -> Ran {
        qualm(self.path(), arguments)
    }

    /// The record of the last run.
    pub fn contract(&self) -> Value {
        serde_json::from_str(&self.read("target/qualm/contract.json")).unwrap()
    }
}
