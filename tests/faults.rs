/*!
Every fault of the table can be put into some model, and changes it: a fault that never does anything
would be reported as not applicable for ever.
*/

use std::collections::BTreeMap;
use std::path::Path;

use qualm::fault::{ATTEMPTS, FAULTS, Models, Reach, Scope, Site, inject};
use qualm::model::{self, Model, Scratch, Tensor};

/// Models in every storage that there is, each its own reference: ggml types, and each scheme's own
/// checkpoint. And a real pair, for faults that bring something of the reference back.
fn pairs() -> Vec<Models> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = root.join("tests/data");
    let mut paths: Vec<_> = ["ggml", "schemes"]
        .iter()
        .flat_map(|below| std::fs::read_dir(data.join(below)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() || path.extension().is_some_and(|it| it == "gguf"))
        .collect();
    paths.sort();
    let twins = paths.iter().map(|path| {
        let sound = model::open(path).unwrap();
        Models { reference: sound.clone(), quantized: sound }
    });
    let open = |name: &str| model::open(&root.join("specs/models").join(name)).unwrap();
    let real = Models {
        reference: open("minilm-block0-f16.gguf"),
        quantized: open("minilm-block0-q8_0.gguf"),
    };
    twins.chain([real]).collect()
}

fn values(model: &Model, tensor: &Tensor) -> Result<Vec<u32>, String> {
    let mut values = vec![0.0; tensor.numel() as usize];
    tensor
        .decode(&model.files, 0..tensor.numel(), &mut Scratch::default(), &mut values)
        .map_err(|error| error.to_string())?;
    Ok(values.into_iter().map(f32::to_bits).collect())
}

#[test]
fn every_fault_has_an_effect_somewhere() {
    // Those that need an integer tensor or three dimensions have their effect in the tests of the
    // command.
    let elsewhere = ["integer-changed", "slice-zero", "slices-swapped"];
    let mut effects: BTreeMap<&str, u64> = BTreeMap::new();
    for Models { reference, quantized: sound } in pairs() {
        let last = sound.tensors.len().min(3);
        for row in FAULTS {
            let targets = if row.scope == Scope::Model { 0..1 } else { 0..last };
            for target in targets {
                if effects.get(row.name).copied().unwrap_or(0) >= 8 {
                    continue;
                }
                for attempt in 0..ATTEMPTS {
                    let name = &sound.tensors[target].name;
                    let answer = reference.tensors.iter().position(|it| it.name == *name);
                    let site = Site { target, answer, in_memory: false, attempt };
                    let mut pair =
                        Models { reference: reference.clone(), quantized: sound.clone() };
                    let Some(injected) = inject(row.fault, &mut pair, &site).unwrap() else {
                        break;
                    };
                    let changed = injected.evident || {
                        let before = values(&sound, &sound.tensors[target]);
                        before != values(&pair.quantized, &pair.quantized.tensors[target])
                    };
                    if let Reach::Tensors(names) = &injected.reach
                        && row.scope == Scope::Tensor
                    {
                        assert!(names.contains(&sound.tensors[target].name), "{}", row.name);
                    }
                    if changed {
                        *effects.entry(row.name).or_default() += 1;
                        break;
                    }
                }
            }
        }
    }
    let dead: Vec<_> = FAULTS
        .iter()
        .map(|row| row.name)
        .filter(|name| !effects.contains_key(name) && !elsewhere.contains(name))
        .collect();
    assert!(dead.is_empty(), "no effect anywhere: {dead:?}");
}
