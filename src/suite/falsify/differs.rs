/*!
Whether a fault changed anything at all.
*/

use crate::codec::Class;
use crate::model::{Extent, ReadError, Scratch, SourceFile, Storage, Tensor};

/// Do two tensors decode to different values, or have different shapes? Zeros of either sign are one
/// value, as are all NaN.
pub fn differs(
    (a, a_files): (Option<Tensor>, &[SourceFile]),
    (b, b_files): (Option<Tensor>, &[SourceFile]),
) -> Result<bool, ReadError> {
    const PIECE: u64 = 64 * 1024;
    let (Some(a), Some(b)) = (a, b) else { return Ok(true) };
    if a.shape != b.shape {
        return Ok(true);
    }
    if let (Storage::Plain { ty, at: of_a }, Storage::Plain { at: of_b, .. }) =
        (&a.storage, &b.storage)
        && ty.info().class == Class::Exact
    {
        return bytes_differ((a_files, *of_a), (b_files, *of_b));
    }
    // Weights keep tiles by their own identity, which a mutant shares: two sets of buffers.
    let (mut of_a, mut of_b) = (Scratch::default(), Scratch::default());
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let mut start = 0;
    while start < a.numel() {
        let end = (start + PIECE).min(a.numel());
        for values in [&mut x, &mut y] {
            values.resize((end - start) as usize, 0f32);
        }
        a.decode(a_files, start..end, &mut of_a, &mut x)?;
        b.decode(b_files, start..end, &mut of_b, &mut y)?;
        let same = |(x, y): (&f32, &f32)| x == y || x.is_nan() && y.is_nan();
        if !x.iter().zip(&y).all(same) {
            return Ok(true);
        }
        start = end;
    }
    Ok(false)
}

fn bytes_differ(
    (a_files, a): (&[SourceFile], Extent),
    (b_files, b): (&[SourceFile], Extent),
) -> Result<bool, ReadError> {
    const PIECE: u64 = 64 * 1024;
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < a.len.min(b.len) {
        let len = PIECE.min(a.len.min(b.len) - at) as usize;
        for (bytes, files, extent) in [(&mut x, a_files, a), (&mut y, b_files, b)] {
            bytes.resize(len, 0u8);
            files[extent.file].read_at(extent.offset + at, bytes)?;
        }
        if x != y {
            return Ok(true);
        }
        at += len as u64;
    }
    Ok(a.len != b.len)
}
