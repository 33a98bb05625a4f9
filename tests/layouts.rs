/*! Checkpoints that name or lay out the same tensors in another way. */

use std::path::Path;

use qualm::counterpart::{Choice, pair_up};
use qualm::model::{self, Model, Scratch};
use safetensors::tensor::{Dtype, TensorView, serialize};

/// A checkpoint of F32 tensors in memory.
fn model(tensors: &[(&str, &[usize], Vec<f32>)]) -> Model {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(.., values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
    });
    let bytes = serialize(views, None).unwrap();
    model::from_bytes(Path::new("memory"), bytes).unwrap()
}

/// Values between -1 and 1 that depend on a seed.
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(next).collect()
}

fn decode(model: &Model, name: &str) -> Vec<f32> {
    let tensor = &model.tensors[model.by_name()[name]];
    let mut values = vec![0.0; tensor.numel() as usize];
    let range = 0..tensor.numel();
    tensor.decode(&model.files, range, &mut Scratch::default(), &mut values).unwrap();
    values
}

/// Gives the quantized model the reference's names and layouts; returns what is said of it.
fn align(reference: &Model, quantized: &mut Model) -> Vec<String> {
    pair_up(reference.clone(), quantized, &Choice::Automatic).unwrap().notes
}

fn names(model: &Model) -> Vec<&str> {
    model.tensors.iter().map(|tensor| tensor.name.as_str()).collect()
}

/// Prefixes of two towers, seeds of their weights, what there is of one, how many names are found, and why.
type Prefixed<'a> = (&'a str, &'a str, [u64; 3], &'a [&'a str], usize, &'a str);

#[test]
fn prefixes_are_found_by_names_and_confirmed_by_values() {
    let reference = model(&[
        ("language_model.model.layers.0.q.weight", &[8, 16], noise(1, 128)),
        ("language_model.model.layers.1.q.weight", &[8, 16], noise(2, 128)),
        ("language_model.model.layers.0.norm.weight", &[16], vec![1.0; 16]),
        ("language_model.model.layers.1.norm.weight", &[16], vec![1.0; 16]),
        ("visual.blocks.0.qkv.weight", &[8, 16], noise(3, 128)),
        ("visual.norm.weight", &[16], vec![1.0; 16]),
    ]);
    let all = ["layers.0.q", "layers.1.q", "layers.0.norm", "layers.1.norm"];
    let cases: [Prefixed; 5] = [
        ("model.language_model.", "model.visual.", [1, 2, 3], &all, 6, "both prefixes"),
        ("model.", "visual.", [1, 2, 3], &all, 6, "a part of a prefix"),
        ("", "visual.", [1, 2, 3], &all, 6, "no prefix"),
        ("model.", "model.visual.", [1, 2, 9], &all, 4, "other values behind one prefix"),
        ("model.", "x.visual.", [1, 2, 3], &all[..3], 5, "a tensor is lost"),
    ];
    for (text, visual, [a, b, c], kept, expected, why) in cases {
        let name = |part: &str| format!("{text}{part}.weight");
        let of = |part: &str| match part {
            "layers.0.q" => (vec![8, 16], noise(a, 128)),
            "layers.1.q" => (vec![8, 16], noise(b, 128)),
            _ => (vec![16], vec![1.0; 16]),
        };
        let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> =
            kept.iter().map(|part| (name(part), of(part).0, of(part).1)).collect();
        tensors.push((format!("{visual}blocks.0.qkv.weight"), vec![8, 16], noise(c, 128)));
        tensors.push((format!("{visual}norm.weight"), vec![16], vec![1.0; 16]));
        let tensors: Vec<(&str, &[usize], Vec<f32>)> =
            tensors.iter().map(|(n, s, v)| (n.as_str(), s.as_slice(), v.clone())).collect();
        let mut quantized = model(&tensors);
        let notes = align(&reference, &mut quantized);
        let known = names(&reference);
        let same = names(&quantized).iter().filter(|name| known.contains(name)).count();
        assert_eq!(same, expected, "{why}: {notes:?}");
        assert!(notes.iter().all(|note| note.contains("prefix")), "{why}: {notes:?}");
        for name in known.iter().filter(|name| names(&quantized).contains(name)) {
            assert_eq!(decode(&quantized, name), decode(&reference, name), "{why}: {name}");
        }
    }
}

#[test]
fn vectors_alone_confirm_no_prefix() {
    let norm = || vec![1.0; 128];
    let reference =
        model(&[("a.norm.weight", &[128], norm()), ("a.b.weight", &[2, 2], norm()[..4].to_vec())]);
    let mut quantized =
        model(&[("c.norm.weight", &[128], norm()), ("d", &[2, 2], norm()[..4].to_vec())]);
    let notes = align(&reference, &mut quantized);
    assert_eq!(names(&quantized), ["c.norm.weight", "d"]);
    assert!(notes[0].contains("do not say whether"), "{notes:?}");
}

/// A convolution [o, i, h, w] with its channels last.
fn channels_last(values: &[f32], [o, i, h, w]: [usize; 4]) -> Vec<f32> {
    let mut turned = Vec::new();
    for out in 0..o {
        for pixel in 0..h * w {
            turned.extend((0..i).map(|channel| values[(out * i + channel) * h * w + pixel]));
        }
    }
    turned
}

/// Shape of the one convolution, values of both, whether they are the reference's, and why.
type Turned<'a> = (&'a [usize], Vec<f32>, Vec<f32>, bool, bool, &'a str);

#[test]
fn convolutions_with_channels_last_are_the_references_where_all_are() {
    let (wide, square) = ([8usize, 4, 5, 5], [8usize, 3, 3, 3]);
    let wide_shape = [8usize, 5, 5, 4];
    let (a, b) = (noise(1, 800), noise(2, 216));
    let mut signed = channels_last(&b, square);
    signed[27..54].iter_mut().for_each(|value| *value = -*value);
    let reference = model(&[("a.weight", &wide, a.clone()), ("b.weight", &square, b.clone())]);
    let turned = || channels_last(&a, wide);
    let cases: [Turned; 5] = [
        (&wide_shape, turned(), channels_last(&b, square), true, true, "both are turned"),
        (&wide_shape, turned(), b.clone(), true, true, "one needs no turn"),
        (&wide_shape, noise(7, 800), channels_last(&b, square), false, true, "other values"),
        (&wide_shape, turned(), signed, true, false, "damage is left"),
        (&wide, a.clone(), channels_last(&b, square), true, false, "only one is turned: damage"),
    ];
    for (shape, first, second, first_is, second_is, why) in cases {
        let mut quantized = model(&[("a.weight", shape, first), ("b.weight", &square, second)]);
        let notes = align(&reference, &mut quantized);
        let same = |name: &str| decode(&quantized, name) == decode(&reference, name);
        assert_eq!((same("a.weight"), same("b.weight")), (first_is, second_is), "{why}: {notes:?}");
        let shapes = quantized.tensors[0].shape == reference.tensors[0].shape;
        assert_eq!(shapes, first_is, "{why}: {notes:?}");
    }
}
