/*!
MLX: codes in 32-bit words along each row under the weight's own name, with `scales` and `biases`.

The affine mode adds its biases, which are the quantization's, not the layer's (`bias`). The float
modes have byte scales and no biases.
*/

use super::affine::{Recipe, missing, plane_grid, table, tensor_scales, unsigned};
use super::codes::Order;
use super::grid::{Factor, is_number};
use super::group::{Built, Context, Found, Group, Match};
use super::joined::{Role, Zero};
use crate::codec::TensorType;
use crate::codec::float::{E2M1, E4M3};

/// Joins a U32 weight with its scales.
pub fn build(group: &Group, context: &Context) -> Match {
    let (Some(codes), Some(scale)) = (group.get(".weight"), group.get(".scales")) else {
        return Ok(None);
    };
    let (Some(&words), Some(&groups)) = (codes.shape.last(), scale.shape.last()) else {
        return Ok(None);
    };
    if codes.ty != TensorType::U32 || !is_number(scale.ty) {
        return Ok(None);
    }
    match scale.ty {
        TensorType::U8 => float_mode(group, context, words, groups),
        _ => affine_mode(group, context, words, groups),
    }
}

/// Shape of the weight whose last dimension takes `words` words.
fn unpacked(shape: &[u64], words: u64, bits: u64) -> Option<Vec<u64>> {
    let mut shape = shape.to_vec();
    *shape.last_mut()? = words.checked_mul(32)? / bits;
    Some(shape)
}

/// Whether codes of `bits` bits in groups of `size` take `words` words and `groups` groups a row.
fn fits(words: u64, groups: u64, size: u64) -> Option<(u32, u64)> {
    let cols = size.checked_mul(groups)?;
    let total = words.checked_mul(32)?;
    let bits = total.checked_div(cols)?;
    (Some(total) == bits.checked_mul(cols) && matches!(bits, 1..=6 | 8))
        .then_some((bits as u32, size))
}

/// code * scale + bias. Where the planes fit several widths, the configured one is taken, then the one
/// with MLX's own group size; the others stay readings that the original's shape may ask for.
fn affine_mode(group: &Group, context: &Context, words: u64, groups: u64) -> Match {
    let settings = context.config.mlx(&group.base);
    // 32 * words = bits * group size * groups.
    let configured = settings["group_size"].as_u64();
    let sizes = [configured.unwrap_or(64), 64, 32, 128, 16, 256].into_iter();
    let mut fitting: Vec<(u32, u64)> = Vec::new();
    for found in sizes.filter(|&size| size > 0).filter_map(|size| fits(words, groups, size)) {
        if !fitting.contains(&found) {
            fitting.push(found);
        }
    }
    let Some((&first, others)) = fitting.split_first() else {
        let message =
            format!("has {groups} groups, which no group size gives for {words} words a row");
        return Err(group.fault("MLX", ".scales", message));
    };
    let Some(mut found) = affine(group, words, first)? else { return Ok(None) };
    // What the configuration says of this very module leaves nothing open.
    if context.config.mlx_sets_apart(&group.base) || others.is_empty() {
        return Ok(Some(found));
    }
    for &other in others {
        if let Some(Found { shape, weight: Built::Joined(reading), .. }) =
            affine(group, words, other)?
            && let Some(weight) = found.weight.joined()
        {
            weight.readings.push((shape, *reading));
        }
    }
    if configured.is_none() {
        let name = |(bits, size): &(u32, u64)| format!("{bits} bits in groups of {size}");
        let others: Vec<String> = others.iter().map(name).collect();
        found.guesses.push(format!("{}, not {}", name(&first), others.join(" or ")));
    }
    Ok(Some(found))
}

/// The weight that the planes are, read with one width and group size.
fn affine(group: &Group, words: u64, (bits, size): (u32, u64)) -> Match {
    let Some(codes) = group.get(".weight") else { return Ok(None) };
    let Some(shape) = unpacked(&codes.shape, words, u64::from(bits)) else { return Ok(None) };
    let scheme = format!("MLX{bits}");
    let (mut weight, spread) = Recipe {
        scheme: &scheme,
        codes: ".weight",
        shape: &shape,
        bits,
        order: Order::LowFirst,
        table: unsigned(),
        scale: ".scales",
        scale_as: None,
        block: Some((1, size)),
    }
    .join(group)?;
    let mut findings = Vec::new();
    let mut biases = [".biases", ".qbiases"].into_iter();
    if let Some((suffix, plane)) = biases.find_map(|suffix| Some((suffix, group.get(suffix)?))) {
        let grid = plane_grid(group, &scheme, suffix, (&shape, Some((1, size))), &spread)?;
        weight.zero = Zero::Plus(grid);
        weight.add(plane, Role::Zero);
    } else {
        let message = "is missing; the weight is decoded as if its biases were zero";
        findings.push(missing(group, ".biases", message));
    }
    Ok(Some(Found { findings, ..Found::new(shape, weight) }))
}

/// mxfp4, mxfp8 and nvfp4, told apart by the bytes of a group: 16, 32 and 8.
fn float_mode(group: &Group, context: &Context, words: u64, groups: u64) -> Match {
    let misfit = |message: String| group.fault("MLX", ".scales", message);
    let bytes = words.checked_mul(4).filter(|bytes| groups > 0 && bytes % groups == 0);
    let (scheme, bits, values, size) = match bytes.map(|bytes| bytes / groups) {
        Some(16) => ("MXFP4", 4, table(&E2M1), 32),
        Some(32) => ("MXFP8", 8, Box::new(E4M3), 32),
        Some(8) => ("NVFP4", 4, table(&E2M1), 16),
        _ => {
            return Err(misfit(format!(
                "has {groups} groups, which no float mode gives for {words} words a row"
            )));
        }
    };
    let Some(codes) = group.get(".weight") else { return Ok(None) };
    let Some(shape) = unpacked(&codes.shape, words, bits) else { return Ok(None) };
    let scale_as = match scheme {
        "NVFP4" => (TensorType::F8_E4M3, Role::ScaleBits),
        _ => (TensorType::F8_E8M0, Role::Exponent),
    };
    let (mut weight, spread) = Recipe {
        scheme,
        codes: ".weight",
        shape: &shape,
        bits: bits as u32,
        order: Order::LowFirst,
        table: values,
        scale: ".scales",
        scale_as: Some(scale_as),
        block: Some((1, size)),
    }
    .join(group)?;
    if let Some(plane) = group.get(".global_scale") {
        // The largest magnitude of the tensor, where other producers store it divided.
        let mut factors = tensor_scales(group, context, scheme, ".global_scale", spread.matrices)?;
        for factor in &mut factors {
            *factor /= 448.0 * 6.0;
        }
        weight.scale.factor = Factor::Times(factors);
        weight.add(plane, Role::Scale);
    }
    Ok(Some(Found::new(shape, weight)))
}
