/*!
The one table of causes, and the form in which reports keep a diagnosis.
*/

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shown::unsigned_zeros;

/// What has probably happened to a tensor or a file, and what shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Diagnosis {
    /// The cause in a word; `docs/diagnosis.md` explains each.
    pub cause: Cause,
    /// How sure it is.
    pub certainty: Certainty,
    /// One line for people: what was tried, and what came out.
    pub evidence: String,
}

/// How sure a diagnosis is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// The traces of the fault were seen; another fault might leave the same.
    Likely,
    /// The fault itself was seen, or undoing it gives back what an undamaged tensor would hold.
    Certain,
}

impl Diagnosis {
    /// A fault that was seen itself, or undone.
    pub fn certain(cause: Cause, evidence: impl Into<String>) -> Self {
        Self::of(cause, Certainty::Certain, evidence.into())
    }

    /// A fault that left its traces.
    pub fn likely(cause: Cause, evidence: impl Into<String>) -> Self {
        Self::of(cause, Certainty::Likely, evidence.into())
    }

    /// So sure a diagnosis.
    pub fn of(cause: Cause, certainty: Certainty, evidence: String) -> Self {
        Self { cause, certainty, evidence: unsigned_zeros(evidence) }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sure = if self.certainty == Certainty::Certain { "" } else { "probably " };
        write!(f, "{sure}{}: {}", self.cause, self.evidence)
    }
}

macro_rules! causes {
    ($($variant:ident $word:literal $about:literal;)*) => {
        /// A cause of damage.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
        )]
        pub enum Cause {
            $(#[doc = $about] #[serde(rename = $word)] $variant,)*
        }

        /// Every cause with its word and what it means, in the order of the table.
        pub static CAUSES: &[(Cause, &str, &str)] = &[$((Cause::$variant, $word, $about),)*];
    };
}

// variant, word, meaning.
causes! {
    Zeroed "zeroed" "All of the tensor, or a row or slice of it, is zero where the reference is not.";
    ZeroedTail "zeroed-tail" "Everything from some element on is zero: a transfer or a writer stopped early.";
    ColumnZeroed "column-zeroed" "Input columns are zero in every row.";
    ColumnNegated "column-negated" "Input columns are negated in every row.";
    ColumnsSwapped "columns-swapped" "Input columns are in each other's places in every row.";
    Underflow "underflow" "Values or scales too small for the stored type became zero.";
    GarbageRow "garbage-row" "A row that is all zero in the reference holds values.";
    Nan "nan" "Stored values are NaN.";
    NanScale "nan-scale" "Scales are NaN, and with them all that they scale.";
    InfOverflow "inf-overflow" "A value or a scale was too large for its type and became infinite.";
    ZeroScale "zero-scale" "A scale plane is zero, or single scales of it are.";
    CompanionMissing "companion-missing" "A plane that belongs to the weight is not there.";
    ScaleLost "scale-lost" "The scale of the weight, or of some of its rows or groups, was not applied, or is one.";
    ScaleReciprocal "scale-reciprocal" "The scale is stored as its reciprocal.";
    ScaleFactor "scale-factor" "Scales of the weight, or of some of its rows or groups, are off by a constant factor.";
    ScaleAxis "scale-axis" "The scales run along another axis than that they were made for.";
    ScalesMoved "scales-moved" "Scales stand beside other codes than those that they were made for.";
    ScaleBitFlip "scale-bit-flip" "One scale is off by a power of two, or beyond all measure: a bit of it flipped.";
    SignFlipped "sign-flipped" "The sign of a row or of a block is flipped.";
    PlusOneFold "plus-one-fold" "One was added to every value, or taken off: the norm convention w against 1 + w.";
    Offset "offset" "All values are shifted by a constant.";
    MinLost "min-lost" "The minimum of every block is missing.";
    ZeroPointLost "zero-point-lost" "The zero points are missing.";
    ZeroPointOffByOne "zero-point-off-by-one" "Every value, or those of some rows or groups, are off by whole steps: two conventions for zero points.";
    GIdxLost "g-idx-lost" "The map from columns to groups was reset to the natural order.";
    Transposed "transposed" "Rows and columns changed places.";
    Reshaped "reshaped" "The values are right, under another shape.";
    Shape "shape" "The shape is another than the reference's.";
    RopePermuted "rope-permuted" "Query or key rows are in the other rotary order.";
    QkNotPermuted "qk-not-permuted" "Query or key rows are as in the checkpoint; the conversion permutes them.";
    QkPermutedTwice "qk-permuted-twice" "Query or key rows are permuted twice.";
    WrongHeadCount "wrong-head-count" "Query or key rows are permuted with another number of heads.";
    PlusOneMissing "plus-one-missing" "The conversion adds one to the norm, and the file has it not.";
    PlusOneTwice "plus-one-twice" "The conversion adds one to the norm, and the file has it twice.";
    PartsReordered "parts-reordered" "The parts of a fused tensor are in another order than the conversion puts them.";
    ExpertsReordered "experts-reordered" "The experts of a stack are in another order.";
    NotTransposed "not-transposed" "The conversion transposes the tensor, and the file has it as it was.";
    RowsCut "rows-cut" "Rows are cut off or added that should not be, or others than the conversion cuts.";
    NotFromConfig "not-from-config" "The tensor does not follow from the configuration that it is computed from.";
    TilePermuted "tile-permuted" "Rows are in another order: the tiled one of some runtime.";
    NibbleSwapped "nibble-swapped" "Codes or scales are packed in another order inside their words.";
    ByteSwapped "byte-swapped" "Numbers are stored in the other byte order.";
    Bf16MisreadAsF16 "bf16-misread-as-f16" "bfloat16 bytes are labelled F16.";
    F16MisreadAsBf16 "f16-misread-as-bf16" "float16 bytes are labelled BF16.";
    FormerTrellis "former-trellis" "A trellis type in a file of before June 2025, whose indices stood for other values.";
    Misaligned "misaligned" "The data begin at another byte than the header says.";
    ShortRegion "short-region" "The tensor's data are too short: its end is the beginning of the next tensor.";
    BlockShifted "block-shifted" "Blocks are shifted along their row or through the tensor.";
    RowShifted "row-shifted" "Rows are shifted by some places.";
    RowDuplicated "row-duplicated" "A row is a copy of another.";
    Swapped "swapped" "Slices, heads, whole tensors, or the two models of the pair changed places.";
    Copied "copied" "The values are those of another tensor of the model.";
    RequantizedTwice "requantized-twice" "The values went through a coarser quantizer before this one.";
    Clipped "clipped" "Values were cut off at a limit before they were quantized.";
    BadImatrix "bad-imatrix" "Some columns are exact and the others poor: an importance matrix of little data.";
    OtherCheckpoint "other-checkpoint" "The values come from a slightly different model.";
    OtherWeights "other-weights" "The values are no conversion of the reference's, and lie on no grid near them.";
    Fold "fold" "Scales were folded out of weights into what comes before them, and do not cancel.";
    IntegerChanged "integer-changed" "Integers differ.";
    WrongQtype "wrong-qtype" "The tensor is stored in another type than asked for.";
    NotQuantized "not-quantized" "What was to be quantized is not.";
    Missing "missing" "The tensor is not in the quantized model.";
    Extra "extra" "The tensor is in the quantized model alone.";
    Metadata "metadata" "Metadata differ from the reference's.";
    NothingCompared "nothing-compared" "The two models have nothing in common.";
    Truncated "truncated" "The file ends before its data do.";
    LfsPointer "lfs-pointer" "The file is a Git LFS pointer, not the model.";
    Overlap "overlap" "The header puts one tensor's data inside another's.";
    DuplicateName "duplicate-name" "The header lists a name twice.";
    UnknownType "unknown-type" "The tensor's type does not exist.";
    RaggedRow "ragged-row" "The rows are not whole blocks of the tensor's type.";
}

impl Cause {
    /// The word in reports.
    pub fn word(self) -> &'static str {
        CAUSES[self as usize].1
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_variants_and_json_has_its_words() {
        let document = include_str!("../../docs/diagnosis.md");
        assert_eq!(document.lines().filter(|line| line.starts_with("| `")).count(), CAUSES.len());
        for (index, (cause, word, about)) in CAUSES.iter().enumerate() {
            assert_eq!(*cause as usize, index);
            assert_eq!(serde_json::to_string(cause).unwrap(), format!("\"{word}\""));
            assert!(document.contains(&format!("| `{word}` | {about} |\n")), "{word} in docs");
            assert!(
                about.ends_with('.') && word.chars().all(|c| c == '-' || c.is_ascii_alphanumeric())
            );
        }
    }
}
