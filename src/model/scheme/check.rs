/*!
What the planes of a weight hold beyond what decoding shows: scales that are zero throughout or not
finite, indices that were never filled in.
*/

use super::grid::{is_number, numbers};
use super::loose;
use super::planes::{Planes, Role};
use crate::codec::TensorType;
use crate::codec::float::E8M0;
use crate::model::{Plane, PlaneFault, PlaneFinding, ReadError, Scratch, SourceFile};

/// Values that are read at a time.
const PIECE: u64 = 16 * 1024;

/// Reads every plane but the codes once.
pub fn planes(
    planes: &Planes,
    files: &[SourceFile],
    scratch: &mut Scratch,
) -> Result<Vec<PlaneFinding>, ReadError> {
    let mut findings = Vec::new();
    for (plane, role) in planes.all() {
        if let Role::LessOne(bits) = role {
            findings.extend(borrowed(plane, bits, files, scratch)?);
        }
        let ty = match role {
            Role::Codes | Role::LessOne(_) | Role::Setting => continue,
            Role::Exponent => TensorType::F8_E8M0,
            Role::ScaleBits => TensorType::F8_E4M3,
            _ => plane.ty,
        };
        if is_number(ty) && plane.numel() > 0 {
            let count = count(plane, ty, files, scratch)?;
            findings.extend(judge(plane, role, &count));
        }
    }
    Ok(findings)
}

/// Reads a plane of scales once.
pub fn scales(
    plane: &Plane,
    files: &[SourceFile],
    scratch: &mut Scratch,
) -> Result<Option<PlaneFinding>, ReadError> {
    if plane.numel() == 0 {
        return Ok(None);
    }
    let count = count(plane, plane.ty, files, scratch)?;
    Ok(judge(plane, Role::Scale, &count))
}

/// Looks for packed zero points that were lowered by one a word at a time, so that one of 0 borrowed from its
/// neighbour. Who raises the word again has them all right; who raises code by code, as most kernels do, is
/// one off at the neighbour.
fn borrowed(
    plane: &Plane,
    bits: u32,
    files: &[SourceFile],
    scratch: &mut Scratch,
) -> Result<Option<PlaneFinding>, ReadError> {
    let mut bytes = scratch.take_bytes();
    let (mut borrowed, mut start) = (0u64, 0);
    while start < plane.at.len {
        bytes.resize(WORDS.min(plane.at.len - start) as usize, 0);
        files[plane.at.file].read_at(plane.at.offset + start, &mut bytes)?;
        let words = bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
        borrowed += words.filter(|&word| has_borrowed(word, bits)).count() as u64;
        start += bytes.len() as u64;
    }
    scratch.give_bytes(bytes);
    Ok((borrowed > 0).then(|| PlaneFinding {
        plane: plane.name.clone(),
        fault: PlaneFault::Borrowed,
        message: format!(
            "has {borrowed} words of {} that were lowered by one as a whole, so that a zero point of 0 \
             borrowed from its neighbour: kernels that raise each code are one step off there",
            plane.at.len / 4
        ),
    }))
}

/// Whether adding one to the word as a whole, and to each of its codes, gives different words.
fn has_borrowed(word: u32, bits: u32) -> bool {
    let ones = u32::MAX / ((1 << bits) - 1);
    // Of each code all bits but the highest, so that a sum does not run into the next.
    let low = !(ones << (bits - 1));
    let by_code = ((word & low) + (ones & low)) ^ ((word ^ ones) & !low);
    word.wrapping_add(ones) != by_code
}

/// Bytes of words that are read at a time.
const WORDS: u64 = 64 * 1024;

#[derive(Default)]
struct Count {
    zero: u64,
    negative: u64,
    non_finite: u64,
    first_non_finite: Option<u64>,
}

fn count(
    plane: &Plane,
    ty: TensorType,
    files: &[SourceFile],
    scratch: &mut Scratch,
) -> Result<Count, ReadError> {
    let mut count = Count::default();
    // The exponent of all-zero bytes.
    let nothing = if ty == TensorType::F8_E8M0 { E8M0[0] } else { 0.0 };
    // Nothing was calibrated into scales of the cache that are -1, from which serving engines start.
    let starts = loose::row_of(&plane.name).is_some_and(|(row, _)| row.everywhere);
    let mut values = scratch.take_floats();
    let numel = plane.numel();
    let mut start = 0;
    while start < numel {
        let len = PIECE.min(numel - start);
        values.resize(len as usize, 0.0);
        numbers(files, plane.at, ty, start, &mut values, scratch)?;
        let (mut non_finite, mut zero, mut negative) = (0u32, 0u32, 0u32);
        for &value in &values {
            let is_minus = value < 0.0 && value.is_finite() && value != nothing;
            non_finite += u32::from(!value.is_finite());
            zero += u32::from(value == nothing);
            negative += u32::from(is_minus && !(starts && value == -1.0));
        }
        if non_finite > 0 && count.first_non_finite.is_none() {
            let first = values.iter().position(|value| !value.is_finite());
            count.first_non_finite = first.map(|at| start + at as u64);
        }
        count.non_finite += u64::from(non_finite);
        count.zero += u64::from(zero);
        count.negative += u64::from(negative);
        start += len;
    }
    scratch.give_floats(values);
    Ok(count)
}

fn judge(plane: &Plane, role: Role, count: &Count) -> Option<PlaneFinding> {
    let finding = |fault, message| PlaneFinding { plane: plane.name.clone(), fault, message };
    let numel = plane.numel();
    if let Some(first) = count.first_non_finite {
        let message = format!(
            "has {} values of {numel} that are not finite, the first at {first}",
            count.non_finite
        );
        return Some(finding(PlaneFault::NonFinite, message));
    }
    if role == Role::Activation && count.zero + count.negative > 0 && count.zero < numel {
        let message = format!(
            "has {} values of {numel} that are not positive, as a scale must be",
            count.zero + count.negative
        );
        return Some(finding(PlaneFault::Zero, message));
    }
    if count.zero < numel {
        return None;
    }
    match role {
        Role::Scale | Role::ScaleBits | Role::Book | Role::Activation => {
            Some(finding(PlaneFault::Zero, format!("is zero in all its {numel} values")))
        }
        Role::Exponent => {
            Some(finding(PlaneFault::Zero, format!("is 2^-127 in all its {numel} values")))
        }
        Role::Index => Some(finding(PlaneFault::Zero, "sends every column to group 0".to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_point_of_zero_borrows_when_a_word_is_lowered() {
        for (zeros, bits, borrowed, why) in [
            ([8, 8, 8, 8, 8, 8, 8, 8], 4, false, "symmetric"),
            ([1, 15, 2, 14, 3, 13, 4, 12], 4, false, "none is 0"),
            ([5, 0, 7, 7, 7, 7, 7, 7], 4, true, "one in the middle"),
            ([5, 5, 5, 5, 5, 5, 5, 0], 4, false, "there is nothing above the last"),
            ([0, 128, 200, 1, 0, 0, 0, 0], 8, true, "of eight bits"),
        ] {
            let count = (32 / bits) as usize;
            let word = zeros[..count].iter().rev().fold(0u32, |word, zero| word << bits | zero);
            let ones = u32::MAX / ((1 << bits) - 1);
            assert_eq!(has_borrowed(word.wrapping_sub(ones), bits), borrowed, "{why}");
        }
    }
}
