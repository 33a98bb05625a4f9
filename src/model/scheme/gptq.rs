/*!
GPTQ: codes in 32-bit words along the input dimension, the transpose of the weight, in groups of input
columns that `g_idx` may send anywhere.

Zero points are packed along the output dimension. The first format stores them less one, subtracted
from the packed word; what no configuration says otherwise is that format.
*/

use super::affine::unsigned;
use super::codes::{Codes, Order, Packing};
use super::config::GptqFormat;
use super::grid::{Grid, Index, Source, Table, is_number};
use super::group::{Context, Found, Group, Match, Trouble};
use super::joined::{Dims, Joined, Role, Zero};
use super::layout::block;
use crate::codec::TensorType;
use crate::model::Plane;

/// Every suffix of the scheme.
pub const SUFFIXES: &[&str] = &[".qweight", ".qzeros", ".scales", ".g_idx", ".pre_quant_scale"];

const SCHEME: &str = "GPTQ";

/// Joins a GPTQ module: (q - zero) * scale, transposed.
pub fn build(group: &Group, context: &Context) -> Match {
    let Some(codes) = group.get(".qweight") else { return Ok(None) };
    let &[words, out] = &codes.shape[..] else { return Ok(None) };
    if codes.ty != TensorType::I32 {
        return Ok(None);
    }
    let scale = group.need(SCHEME, ".scales")?;
    let &[groups, scale_cols] = &scale.shape[..] else {
        return Err(group.fault(SCHEME, ".scales", format!("has shape {:?}", scale.shape)));
    };
    if scale_cols != out || !is_number(scale.ty) {
        let message =
            format!("is {} {:?}, but the codes have {out} outputs", scale.ty, scale.shape);
        return Err(group.fault(SCHEME, ".scales", message));
    }
    refuse_unknown(context)?;
    // An empty index is as good as none.
    let index = group.get(".g_idx").filter(|plane| plane.numel() > 0);
    let bits = width(group, context, index, words, out)?;
    let scheme = format!("GPTQ{bits}");
    let misfit = |suffix, message: String| group.fault(&scheme, suffix, message);
    let cols = index.map_or(words * 32 / u64::from(bits), Plane::numel);
    let (format, order) = format(context, bits, group.has(".g_idx"));
    let packing = Packing::Down { bits, unit: 4, order };
    let packed = Codes::new(codes.at, packing, 1, (words, out * 4), (cols, out))
        .map_err(|message| misfit(".qweight", message))?;
    let dims = Dims { matrices: 1, rows: cols, cols: out, transposed: true };
    let mut weight = Joined::new(&scheme, dims, packed, unsigned());
    weight.add(codes, Role::Codes);
    let size = block(cols, groups, context.config.group_size())
        .or((cols == 0).then_some(1))
        .ok_or_else(|| misfit(".scales", format!("has {groups} groups of {cols} columns")))?;
    let row_index = match index {
        Some(plane) => {
            Some(Index::new(plane, cols, groups).map_err(|message| misfit(".g_idx", message))?)
        }
        None => None,
    };
    let grid = |source| {
        let grid = Grid::new(source, (groups, out), (size, 1));
        Grid { row_index: row_index.clone(), ..grid }
    };
    let source = Source::Plane { at: scale.at, ty: scale.ty, transposed: false };
    weight.scale = grid(source);
    weight.add(scale, Role::Scale);
    weight.zero = Zero::Before(match group.get(".qzeros") {
        Some(zeros) => {
            let lowered = format == GptqFormat::V1 && 32 % bits == 0;
            weight.add(zeros, if lowered { Role::LessOne(bits) } else { Role::Codes });
            grid(zero_points(group, zeros, (groups, out), bits, format, order)?)
        }
        None if context.config.setting("sym").as_bool() == Some(true) => {
            Grid::constant((1u32 << (bits - 1)) as f32)
        }
        None => return group.need(&scheme, ".qzeros").map(|_| None),
    });
    if let Some(plane) = group.get(".g_idx") {
        weight.add(plane, if groups > 1 { Role::Index } else { Role::Setting });
    }
    let mut notes = Vec::new();
    if let (None, Some(zeros)) = (context.config.gptq_format(), group.get(".qzeros"))
        && zeros.at.len <= 1 << 16
        && second_format(&context.bytes(zeros)?, bits)
    {
        notes.push(format!(
            "{}: every zero point is that of a symmetric gptq_v2 checkpoint, but no configuration \
             says gptq_v2; taken as gptq, whose zero points are one more",
            zeros.name
        ));
    }
    Ok(Some(Found { notes, ..Found::new(vec![out, cols], weight) }))
}

/// Whether all stored zero points are half the range: what the second format stores for symmetric
/// weights, where the first stores one less.
fn second_format(words: &[u8], bits: u32) -> bool {
    let half = match bits {
        2 => 0xAA,
        4 => 0x88,
        8 => 0x80,
        _ => return false,
    };
    !words.is_empty() && words.iter().all(|&byte| byte == half)
}

/// Formats of the same suffixes that are laid out for kernels, and rotations.
fn refuse_unknown(context: &Context) -> Result<(), Trouble> {
    let config = context.config;
    let words = [config.word("checkpoint_format"), config.word("format")];
    let kernels = ["marlin", "bitblas", "exllama", "ipex", "machete", "eora"];
    let kernel = kernels.into_iter().find(|kernel| words.iter().any(|word| word == kernel));
    if let Some(kernel) = kernel {
        let reason = format!(
            "GPTQ in the {kernel} layout is permuted for that kernel and not decoded; export it with \
             checkpoint_format gptq or gptq_v2"
        );
        return Err(Trouble::Refused { scheme: format!("GPTQ ({kernel})"), reason });
    }
    if let Some(rotation) = config.rotated() {
        let reason = format!(
            "the configuration has a {rotation}, which qualm does not undo: the weights cannot be \
             compared with the originals"
        );
        return Err(Trouble::Refused { scheme: "GPTQ with rotation".to_owned(), reason });
    }
    Ok(())
}

/// Bits of a code, from the planes' shapes as far as they say it.
fn width(
    group: &Group,
    context: &Context,
    index: Option<&Plane>,
    words: u64,
    out: u64,
) -> Result<u32, Trouble> {
    let configured = context.config.setting("bits").as_u64();
    let ratio = |words: u64, codes: u64| {
        let bits = words.checked_mul(32)?.checked_div(codes)?;
        (words == (codes * bits).div_ceil(32) && (1..=8).contains(&bits)).then_some(bits)
    };
    let by_index = index.and_then(|index| ratio(words, index.numel()));
    let by_zeros = || {
        let zeros = group.get(".qzeros")?;
        ratio(*zeros.shape.last()?, out)
    };
    // A short input may have padded words: then the configuration decides.
    let fits = |bits: &u64| match index {
        Some(index) => (1..=8).contains(bits) && words == (index.numel() * bits).div_ceil(32),
        None => (1..=8).contains(bits),
    };
    let bits = match index {
        Some(_) => configured.filter(fits).or(by_index),
        None => by_zeros().or(configured.filter(fits)),
    };
    let bits = bits.or_else(by_zeros).ok_or_else(|| {
        let inputs =
            index.map_or_else(String::new, |index| format!(" for {} inputs", index.numel()));
        group.fault(
            SCHEME,
            ".qweight",
            format!(
                "has {words} words a column{inputs}: no width from \
                                                 1 to 8 bits fits"
            ),
        )
    })?;
    if let Some(index) = index {
        let (inputs, room) = (index.numel(), words * 32 / bits);
        if inputs > room || room - inputs >= 32 {
            let message = format!("has {inputs} entries, but the codes have {room} inputs");
            return Err(group.fault(SCHEME, ".g_idx", message));
        }
    }
    Ok(bits as u32)
}

/// The format of the zero points and the order of the codes.
///
/// `GPTQModel` stores widths of 5, 6 and 7 bits in planes, `AutoRound` in one stream; `AutoRound` writes no
/// `g_idx`.
fn format(context: &Context, bits: u32, has_index: bool) -> (GptqFormat, Order) {
    let config = context.config;
    let format = config.gptq_format().unwrap_or(GptqFormat::V1);
    let by_auto_round = config.auto_round() && !config.word("packing_format").contains("gptqmodel");
    let gptq_model = !by_auto_round && (has_index || !config.method().is_empty());
    let planes = format == GptqFormat::Planar || (matches!(bits, 5..=7) && gptq_model);
    (format, if planes { Order::Planes } else { Order::LowFirst })
}

/// Zero points, packed along the outputs of each group.
fn zero_points(
    group: &Group,
    zeros: &Plane,
    (groups, out): (u64, u64),
    bits: u32,
    format: GptqFormat,
    order: Order,
) -> Result<Source, Trouble> {
    let misfit = |message: String| group.fault(SCHEME, ".qzeros", message);
    let &[rows, words] = &zeros.shape[..] else {
        return Err(misfit(format!("has shape {:?}", zeros.shape)));
    };
    if zeros.ty != TensorType::I32 || rows != groups {
        let message = format!("is {} {:?}, but there are {groups} groups", zeros.ty, zeros.shape);
        return Err(misfit(message));
    }
    let packing = Packing::Across { bits, order };
    let codes =
        Codes::new(zeros.at, packing, 1, (rows, words * 4), (groups, out)).map_err(misfit)?;
    if format != GptqFormat::V1 {
        return Ok(Source::Codes(codes, unsigned()));
    }
    if 32 % bits == 0 {
        // Every code of the word one up, the carry running as the borrow did.
        let ones = u32::MAX / ((1 << bits) - 1);
        return Ok(Source::Codes(codes.add_to_words(ones), unsigned()));
    }
    let mask = (1usize << bits) - 1;
    let next: Box<Table> = Box::new(std::array::from_fn(|code| ((code + 1) & mask) as f32));
    Ok(Source::Codes(codes, next))
}
