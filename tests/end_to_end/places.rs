/*! Where models are: at addresses, and in more files than a process may have open. */

use crate::program::*;

#[cfg(not(feature = "remote"))]
#[test]
fn a_build_without_the_client_says_how_to_have_it() {
    let suite = Suite::new();
    suite.models(&[("a", "F32", &[2, 2], f32s(&[1.0; 4]))], &[]);
    for address in ["hf://org/model", "https://h/model.gguf?sig=1", "HTTP://h/x"] {
        suite.qualm(&["inspect", address]).exits(6).says("--features remote");
        suite.qualm(&["check", "r.safetensors", address]).exits(6).says("--features remote");
    }
    let spec = "schema = 1\n[[pair]]\nname = \"p\"\nreference = \"hf://org/model\"\nquantized = \"q.safetensors\"\n";
    suite.write("specs/s.toml", spec);
    suite.qualm(&["run"]).exits(6).says("hf://org/model").says("--features remote");
}

#[cfg(not(feature = "cloud"))]
#[test]
fn a_build_that_signs_nothing_says_how_to_have_it() {
    let suite = Suite::new();
    for address in ["s3://b/k", "gs://b/folder/", "az://c/k.gguf"] {
        suite.qualm(&["inspect", address]).exits(6).says("--features cloud");
    }
}

#[cfg(unix)]
#[test]
fn a_model_may_have_more_shards_than_files_may_be_open() {
    const SHARDS: usize = 70;
    let suite = Suite::new();
    let mut random = Random(1);
    let values: Vec<Vec<f32>> = (0..SHARDS).map(|_| random.normals(64)).collect();
    let name = |at: usize| format!("layer.{at:03}.weight");
    let names: Vec<String> = (0..SHARDS).map(name).collect();
    let whole: Vec<Stored> = names
        .iter()
        .zip(&values)
        .map(|(name, it)| (&**name, "F32", &[2u64, 32][..], f32s(it)))
        .collect();
    suite.write("whole.safetensors", safetensors(&whole));
    for (at, tensor) in whole.into_iter().enumerate() {
        let shard = format!("shards/model-{:05}-of-{SHARDS:05}.safetensors", at + 1);
        suite.write(&shard, safetensors(&[tensor]));
    }
    let script =
        format!("ulimit -n 40; exec {} diff whole.safetensors shards", env!("CARGO_BIN_EXE_qualm"));
    let mut shell = std::process::Command::new("sh");
    shell.current_dir(suite.path()).env_clear().args(["-c", &script]);
    let ran = run(&mut shell).exits(0);
    let expected = suite.qualm(&["diff", "whole.safetensors", "whole.safetensors"]).exits(0);
    assert_eq!(ran.out, expected.out);
}
