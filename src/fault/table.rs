/*!
The one table of faults: what each does to a model, which published incident it repeats, and what a
spec has to state before anything can see it.

Specs name faults, `falsify` injects them, its report and `docs/falsify.md` list them. Adding a fault
is one variant, one row, and its arm in `inject.rs`. This table is vocabulary: every room may know it.
*/

use std::fmt;

/// How many mutants a fault makes of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One for each class of tensors that are stored and judged alike.
    Tensor,
    /// One.
    Model,
}

/// One row of the table.
pub struct FaultInfo {
    /// The fault itself, to walk from a row back to the variant.
    pub fault: Fault,
    /// Its name in specs and reports.
    pub name: &'static str,
    /// How many mutants it makes.
    pub scope: Scope,
    /// What it does.
    pub does: &'static str,
    /// What it can be done to.
    pub on: &'static str,
    /// Where it has been seen.
    pub seen: &'static str,
    /// What the spec has to state, if the models alone do not show the fault.
    pub needs: Option<&'static str>,
}

macro_rules! faults {
    ($($variant:ident $name:literal $scope:ident $on:literal, $does:literal, $seen:literal $(, needs $needs:literal)?;)*) => {
        /// A fault that a model can have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Fault { $($variant),* }

        /// Every fault, in the order of [`Fault`]'s variants.
        pub static FAULTS: &[FaultInfo] = &[$(FaultInfo {
            fault: Fault::$variant,
            name: $name,
            scope: Scope::$scope,
            does: $does,
            on: $on,
            seen: $seen,
            needs: [$(Some($needs),)? None][0],
        }),*];

        /// The names, in the same order.
        pub const NAMES: &[&str] = &[$($name),*];
    };
}

faults! {
    EmptyModel "empty-model" Model "files", "the model holds no tensor", "converters that skip everything";
    NothingInCommon "nothing-in-common" Model "files", "every name got a prefix", "apr diff: zero common tensors exit 0";
    NothingQuantized "nothing-quantized" Model "files", "the quantized model is the reference again", "quant-regress v1";
    MetadataChanged "metadata-changed" Model "GGUF", "a tokenizer's key, or else one of the architecture, has another value", "llama.cpp#6920, #7129", needs "metadata_equal";
    MetadataMissing "metadata-missing" Model "GGUF", "the same key is missing", "llama.cpp#6920", needs "metadata_equal";
    Truncated "truncated" Tensor "files", "the file ends in the middle of the tensor", "1bit-MONSTER#1606, jan#3521";
    TensorMissing "tensor-missing" Tensor "files", "the tensor is missing", "llama.cpp#8676";
    TensorExtra "tensor-extra" Tensor "files", "the tensor is there once more under another name", "converters that keep buffers";
    ShapeTransposed "shape-transposed" Tensor "files, matrices", "the shape is reversed, the bytes are not", "apr#155";
    RowCut "row-cut" Tensor "files", "the last row is missing", "added-token mix-ups";
    IntegerChanged "integer-changed" Tensor "files, integers", "the first element is off by one", "off-by-one buffers";
    WrongType "wrong-type" Tensor "files, matrices", "quantized soundly, to another type", "llama.cpp#22544, #9005; unsloth UD-Q4_K_XL", needs "qtype";
    LeftFloat "left-float" Tensor "files, quantized", "stored as in the reference", "quant-regress v1", needs "qtype";
    FloatQuantized "float-quantized" Tensor "files, float matrices", "quantized to Q8_0 although it was to stay float", "imp#1159, vllm-omni#5573", needs "qtype";
    Relabelled "relabelled" Tensor "files: F16, BF16, F8, Q4_0, IQ4_NL, Q3_K, IQ3_S", "the same bytes under a type of the same size", "modular#6660; AMD FP8 exports";
    ScaleNan "scale-nan" Tensor "files with scales", "one scale is NaN", "auto-round#1908, ik_llama.cpp#649, Model-Optimizer#1633";
    ScaleInfinite "scale-infinite" Tensor "files with scales of F16, BF16, F32", "one scale is infinite", "llama.cpp#13722";
    ScaleExponent "scale-exponent" Tensor "files with scales", "one exponent bit of one scale is flipped", "bit rot";
    BookEntry "book-entry" Tensor "files with code books", "one number of a code book is 256 times too large", "bit rot";
    ScalesOne "scales-one" Tensor "files with scales", "every scale is 1", "stable-diffusion.cpp#1898";
    ScalesInverted "scales-inverted" Tensor "files with scales of F16, BF16, F32, E8M0", "every scale is its reciprocal", "naming of weight_scale_inv";
    ScalesSwapped "scales-swapped" Tensor "files with scales of two bytes or more", "every scale has its bytes in the other order", "s390x conversions";
    BytesSwapped "bytes-swapped" Tensor "files, float", "every value has its bytes in the other order", "s390x conversions";
    MinimaLost "minima-lost" Tensor "files with minima or zero points", "every minimum or zero point is 0", "half-ported kernels";
    NibblesSwapped "nibbles-swapped" Tensor "files with 4-bit codes", "the two codes of every byte changed places", "sglang#23625";
    CodesZero "codes-zero" Tensor "files with codes", "every code is zero, the scales are sound", "GPTQModel#905";
    TailZero "tail-zero" Tensor "files", "the last quarter of the stored bytes is zero", "jan#3521";
    TailForeign "tail-foreign" Tensor "files", "the last row's bytes are another tensor's", "ik_llama.cpp#2437";
    InputScaleMissing "input-scale-missing" Tensor "files with scales of activations", "the scale of the activations is missing", "vllm#45212", needs "companions";
    InputScaleZero "input-scale-zero" Tensor "files with scales of activations", "the scale of the activations is 0", "vllm#45212";
    Zero "zero" Tensor "any", "every value is 0", "BitNet#608";
    ZeroBoth "zero-both" Tensor "any", "every value is 0, in the reference as well", "BitNet#608", needs "nonzero";
    RowsZero "rows-zero" Tensor "two rows or more", "a few rows are 0", "f16 scale underflow";
    SliceZero "slice-zero" Tensor "three dimensions", "one slice (an expert) is 0", "BitNet#608";
    ColumnsZero "columns-zero" Tensor "two rows or more", "one column in a hundred is 0", "channel-pruning leftovers";
    ColumnZero "column-zero" Tensor "64 rows or more", "one column is 0 in every row", "channel-pruning leftovers";
    Constant "constant" Tensor "any", "every value is the mean of all", "norms that were never loaded";
    ScaleLost "scale-lost" Tensor "any", "every value is 512 times too large", "stable-diffusion.cpp#1898";
    Doubled "doubled" Tensor "any", "every value is twice what it should be", "E8M0 bias off by one";
    RowScaled "row-scaled" Tensor "two rows or more", "one row is 1.5 times too large", "fault injection";
    BlockNegated "block-negated" Tensor "64 values or more", "one block of the type (32 values, if it has none) has the other sign", "fault injection";
    ValueNegated "value-negated" Tensor "float", "the largest value has the other sign", "fault injection";
    ValueNan "value-nan" Tensor "any", "one value is NaN", "llama.cpp#7311";
    ValueInfinite "value-infinite" Tensor "any", "one value is infinite", "llama.cpp#13722";
    PlusOne "plus-one" Tensor "vectors", "1 is added to every value", "mold#1074, vllm#31464, llama.cpp#23758";
    MinusOne "minus-one" Tensor "vectors", "1 is taken off every value", "mold#1074";
    MeanShifted "mean-shifted" Tensor "two rows or more", "a tenth of the rms is added to every value", "half-ported kernels";
    Clipped "clipped" Tensor "two rows or more", "values are clipped at twice the rms", "percentile calibration";
    Requantized "requantized" Tensor "quantized matrices", "made from a 4-bit (for 3 bits: a 2-bit) version of the reference", "llama.cpp#7550";
    OtherRevision "other-revision" Tensor "two rows or more", "noise of a quarter of the rms, as of another fine-tune", "wrong base model";
    Transposed "transposed" Tensor "two rows or more", "stored column by column under the shape of rows", "apr#155";
    RopePermuted "rope-permuted" Tensor "matrices with heads of 32 rows or more", "rows are in the other rotary order", "llama.cpp#2376, transformers#31788";
    HeadsSwapped "heads-swapped" Tensor "matrices of 64 rows or more", "two runs of 32 rows changed places", "tensor-parallel merges";
    SlicesSwapped "slices-swapped" Tensor "three dimensions", "two slices (experts) changed places", "ik_llama.cpp#2437";
    RowDuplicated "row-duplicated" Tensor "two rows or more", "one row is a copy of the row after it", "fault injection";
    RowsShifted "rows-shifted" Tensor "two rows or more", "every row is the one after it", "added-token mix-ups";
    BlocksSlipped "blocks-slipped" Tensor "128 values or more", "from the middle on, values are 32 places early", "fault injection";
    TensorsSwapped "tensors-swapped" Tensor "two tensors of one type and shape", "the tensor and the next like it changed places", "wrong-layer reads";
}

impl Fault {
    /// The table row of this fault.
    pub fn info(self) -> &'static FaultInfo {
        &FAULTS[self as usize]
    }

    /// The name in specs and reports.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// Finds a fault by its exact name.
    pub fn from_name(name: &str) -> Option<Self> {
        FAULTS.iter().find(|row| row.name == name).map(|row| row.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The table as Markdown, for the documentation.
pub fn markdown_table() -> String {
    let mut text = String::from("| fault | what is wrong | injected into | seen in | needs |\n");
    text.push_str("| --- | --- | --- | --- | --- |\n");
    for FaultInfo { name, does, on, seen, needs, .. } in FAULTS {
        let needs = needs.map_or_else(String::new, |key| format!("`{key}`"));
        text.extend(["| `", name, "` | ", does, " | ", on, " | ", seen, " | ", &needs, " |\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_rows_stand_in_the_order_of_the_variants() {
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAULTS.len());
        for row in FAULTS {
            assert_eq!(row.fault.info().name, row.name);
            assert_eq!(Fault::from_name(row.name), Some(row.fault));
        }
    }

    #[test]
    fn the_documentation_lists_the_table() {
        let docs = include_str!("../../docs/falsify.md");
        assert!(docs.contains(&markdown_table()), "docs/falsify.md needs:\n{}", markdown_table());
    }
}
