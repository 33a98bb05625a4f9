/*!
Speed of the schemes that are more than codes times scales, on one core, planes in memory:
`cargo bench --bench schemes [NAME…]`. Decodes a matrix of 1024 x 4096 from its first element to its last as
the pass does, chunk by chunk; the fastest of some rounds counts.
*/

use std::time::Instant;

use qualm::model::{self, Scratch};

const OUTS: u64 = 1024;
const INS: u64 = 4096;
/// Elements of a chunk of the pass.
const CHUNK: u64 = 64 * 1024;
const ROUNDS: usize = 5;

/// A plane of pseudo-random bytes, or of the bytes that a function gives.
struct Plane {
    name: &'static str,
    dtype: &'static str,
    shape: Vec<u64>,
    byte: fn(usize) -> u8,
}

fn random(at: usize) -> u8 {
    (at as u32).wrapping_mul(2_654_435_761).rotate_left(11).to_le_bytes()[2]
}

/// Halves from 0.5 to 2: the upper byte of each is 0x38 to 0x3F.
fn halves(at: usize) -> u8 {
    if at.is_multiple_of(2) { random(at) } else { 0x38 | random(at) & 7 }
}

/// The identity as 16-bit or 32-bit numbers.
fn identity<const WIDTH: usize>(at: usize) -> u8 {
    ((at / WIDTH) as u32).to_le_bytes()[at % WIDTH]
}

fn plane(name: &'static str, dtype: &'static str, shape: &[u64], byte: fn(usize) -> u8) -> Plane {
    Plane { name, dtype, shape: shape.to_vec(), byte }
}

fn exl3(words: u64) -> Vec<Plane> {
    vec![
        plane("l.trellis", "I16", &[INS / 16, OUTS / 16, words], random),
        plane("l.suh", "F16", &[INS], halves),
        plane("l.svh", "F16", &[OUTS], halves),
        plane("l.mul1", "I32", &[], random),
    ]
}

fn schemes() -> Vec<(&'static str, Vec<Plane>)> {
    let groups = INS / 128;
    vec![
        ("EXL3 2", exl3(32)),
        ("EXL3 2.5", exl3(40)),
        ("EXL3 4", exl3(64)),
        ("EXL3 8", exl3(128)),
        (
            "EXL2 4",
            vec![
                plane("l.q_weight", "I32", &[INS / 8, OUTS], random),
                plane("l.q_groups", "I16", &[2 * groups], |at| {
                    let (group, place) = (at / 4, at % 4);
                    if place < 2 {
                        [4, 0][place]
                    } else {
                        ((group * 16) as u16).to_le_bytes()[place - 2]
                    }
                }),
                plane("l.q_scale", "I32", &[groups, OUTS / 8], random),
                plane("l.q_scale_max", "F16", &[groups], halves),
                plane("l.q_invperm", "I32", &[INS], identity::<4>),
            ],
        ),
        (
            "AQLM 1x16",
            vec![
                plane("l.codes", "I16", &[OUTS, INS / 8, 1], random),
                plane("l.codebooks", "F16", &[1, 65536, 1, 8], halves),
                plane("l.scales", "F16", &[OUTS, 1, 1, 1], halves),
            ],
        ),
        (
            "AQLM 2x8",
            vec![
                plane("l.codes", "I8", &[OUTS, INS / 8, 2], random),
                plane("l.codebooks", "F16", &[2, 256, 1, 8], halves),
                plane("l.scales", "F16", &[OUTS, 1, 1, 1], halves),
            ],
        ),
        (
            "VPTQ",
            vec![
                plane("l.indices", "I32", &[1, OUTS / 8, INS * 24 / 32], random),
                plane("l.centroids.weight", "F16", &[1, 65536 * 8], halves),
                plane("l.res_centroids.weight", "F16", &[1, 256 * 8], halves),
                plane("l.perm", "I16", &[INS], identity::<2>),
                plane("l.weight_scale", "F16", &[INS], halves),
                plane("l.weight_bias", "F16", &[INS], halves),
            ],
        ),
        (
            "SPARSE24",
            vec![
                plane("l.compressed", "BF16", &[OUTS, INS / 2], halves),
                plane("l.bitmask", "U8", &[OUTS, INS / 8], |_| 0x36),
            ],
        ),
        (
            "marlin",
            vec![
                plane("l.B", "I32", &[INS / 16, 2 * OUTS], random),
                plane("l.s", "F16", &[groups, OUTS], halves),
            ],
        ),
        (
            "marlin-24",
            vec![
                plane("l.weight_packed", "I32", &[INS / 32, 2 * OUTS], random),
                plane("l.scale_packed", "F16", &[groups, OUTS], halves),
                plane("l.meta", "I16", &[INS / 32, 2 * OUTS], |_| 0x44),
            ],
        ),
    ]
}

fn file(planes: &[Plane]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for Plane { name, dtype, shape, byte } in planes {
        let width = match *dtype {
            "I32" => 4,
            "I16" | "F16" | "BF16" => 2,
            _ => 1,
        };
        let begin = data.len();
        let len = shape.iter().product::<u64>() as usize * width;
        data.extend((0..len).map(byte));
        let end = data.len();
        entries.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// What only VPTQ needs.
const CONFIG: &str = r#"{"quantization_config": {"quant_method": "vptq", "config_for_layers": {"l": {
    "in_features": 4096, "out_features": 1024, "vector_lens": [-1, 8], "num_centroids": [-1, 65536],
    "num_res_centroids": [-1, 256], "group_num": 1, "group_size": 4096, "outlier_size": 0,
    "enable_norm": true, "enable_perm": true, "is_indice_packed": true}}}}"#;

fn main() {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    println!("{:<12}{:>10}", "", "Gelem/s");
    for (name, planes) in schemes() {
        let wanted = |word: &String| name.to_lowercase().contains(&word.to_lowercase());
        if !words.is_empty() && !words.iter().any(wanted) {
            continue;
        }
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("model.safetensors"), file(&planes)).expect("written");
        std::fs::write(directory.path().join("config.json"), CONFIG).expect("written");
        let model = model::open(directory.path()).expect("a model");
        let [tensor] = &model.tensors[..] else { panic!("{name}: {:?}", model.tensors) };
        assert_eq!(tensor.shape, [OUTS, INS], "{name}: {tensor:?}");
        let (mut scratch, mut values) = (Scratch::default(), vec![0.0; CHUNK as usize]);
        let mut best = f64::MAX;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            for start in (0..OUTS * INS).step_by(CHUNK as usize) {
                let range = start..start + CHUNK;
                tensor.decode(&model.files, range, &mut scratch, &mut values).expect("decoded");
                std::hint::black_box(&mut values);
            }
            best = best.min(begun.elapsed().as_secs_f64());
        }
        println!("{name:<12}{:>10.2}", (OUTS * INS) as f64 / best / 1e9);
    }
}
