/*! The one table of contradictions between a configuration and the planes. */

/// How grave a contradiction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Dead, doubtful, or served by some engines only.
    Warning,
    /// An engine that reads this configuration cannot load the planes, or misreads them.
    Error,
}

/// A kind of contradiction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// A list leaves a module unquantized that is stored quantized.
    IgnoredButQuantized,
    /// A module is stored plain that the configuration calls quantized.
    QuantizedButPlain,
    /// Parts that engines fuse into one module differ.
    FusedDisagree,
    /// A quantized module in no group.
    TargetUnmatched,
    /// An entry of a list matches nothing.
    EntryDead,
    /// Planes of another format.
    FormatDisagrees,
    /// The shapes give another width.
    BitsDisagree,
    /// The shapes give another group length.
    GroupSizeDisagrees,
    /// The shapes give another block.
    BlockSizeDisagrees,
    /// The shapes give another strategy.
    StrategyDisagrees,
    /// Zero points are there against what is said, or are not.
    ZeroPointDisagrees,
    /// Zero points that are symmetric under another format's convention alone.
    ZeroPointConvention,
    /// The order of groups is not what is said.
    ActOrderDisagrees,
    /// An activation scale is needed and not there.
    InputScaleMissing,
    /// An activation scale is there and nothing reads it.
    InputScaleUnexpected,
    /// Scales of a fused module differ.
    GlobalScaleDisagrees,
    /// Scales of the KV cache are declared and not there, or only half of them.
    KvScaleMissing,
    /// The planes are packed, and the status says otherwise.
    StatusDisagrees,
    /// A key that an engine needs is missing.
    KeyMissing,
    /// A key is missing that some engines need, and others assume what the planes say.
    KeyAssumed,
    /// A key or a value that the format does not know.
    KeyIllegal,
    /// A key is missing and engines assume different values.
    DefaultDiffers,
    /// Two names of one setting have different values.
    SynonymsDisagree,
    /// Two places have different values.
    PlacesDisagree,
    /// A setting that current engines no longer serve.
    EngineDropped,
    /// Metadata of a GGUF file and `config.json` differ.
    MetadataDisagrees,
    /// Tokens of a GGUF file and the tokenizer's files differ.
    TokenizerDisagrees,
}

impl Code {
    /// Name, gravity, and what it means.
    #[expect(clippy::too_many_lines, reason = "it is a table")]
    const fn info(self) -> (&'static str, Severity, &'static str) {
        use Severity::{Error, Warning};
        match self {
            Self::IgnoredButQuantized => (
                "ignored-but-quantized",
                Error,
                "A module that a list excludes is stored quantized.",
            ),
            Self::QuantizedButPlain => (
                "quantized-but-plain",
                Error,
                "A module is stored plain, and the configuration says that it is quantized.",
            ),
            Self::FusedDisagree => (
                "fused-disagree",
                Error,
                "Of the parts that engines fuse into one module, some are quantized and some are not.",
            ),
            Self::TargetUnmatched => (
                "target-unmatched",
                Error,
                "A module is stored quantized, and no group targets it.",
            ),
            Self::EntryDead => {
                ("entry-dead", Warning, "An entry of a list matches no stored module.")
            }
            Self::FormatDisagrees => {
                ("format-disagrees", Error, "The planes are those of another format.")
            }
            Self::BitsDisagree => {
                ("bits-disagree", Error, "The shapes give another width of a code.")
            }
            Self::GroupSizeDisagrees => {
                ("group-size-disagrees", Error, "The shapes give another group length.")
            }
            Self::BlockSizeDisagrees => {
                ("block-size-disagrees", Error, "The shapes give another block.")
            }
            Self::StrategyDisagrees => (
                "strategy-disagrees",
                Error,
                "The scales are one a tensor, row or group, against what is said.",
            ),
            Self::ZeroPointDisagrees => (
                "zero-point-disagrees",
                Error,
                "Zero points are stored although the scheme is symmetric, or are missing.",
            ),
            Self::ZeroPointConvention => (
                "zero-point-convention",
                Warning,
                "Zero points are symmetric only by another format's convention: readers are off by one.",
            ),
            Self::ActOrderDisagrees => {
                ("act-order-disagrees", Error, "The group index is not what desc_act says.")
            }
            Self::InputScaleMissing => (
                "input-scale-missing",
                Error,
                "Activations are static, and their scale is not stored.",
            ),
            Self::InputScaleUnexpected => (
                "input-scale-unexpected",
                Error,
                "A scale of activations is stored that the configuration has no use for.",
            ),
            Self::GlobalScaleDisagrees => (
                "global-scale-disagrees",
                Warning,
                "The scales of a fused module's parts differ; engines use one of them.",
            ),
            Self::KvScaleMissing => (
                "kv-scale-missing",
                Warning,
                "Scales of the KV cache are declared and not stored, or only half of them.",
            ),
            Self::StatusDisagrees => (
                "status-disagrees",
                Error,
                "The planes are packed, and quantization_status does not say compressed.",
            ),
            Self::KeyMissing => ("key-missing", Error, "A key is missing that an engine needs."),
            Self::KeyAssumed => (
                "key-assumed",
                Warning,
                "A key is missing that some engines need; others assume what the planes say.",
            ),
            Self::KeyIllegal => (
                "key-illegal",
                Error,
                "A key, a value or a combination that the format does not know.",
            ),
            Self::DefaultDiffers => {
                ("default-differs", Error, "A key is missing, and engines assume different values.")
            }
            Self::SynonymsDisagree => {
                ("synonyms-disagree", Error, "Two names of one setting have different values.")
            }
            Self::PlacesDisagree => {
                ("places-disagree", Error, "Two configuration files have different values.")
            }
            Self::MetadataDisagrees => (
                "metadata-disagrees",
                Error,
                "The metadata of the GGUF file and the checkpoint's config.json differ.",
            ),
            Self::TokenizerDisagrees => (
                "tokenizer-disagrees",
                Error,
                "The tokens of the GGUF file and the checkpoint's tokenizer differ.",
            ),
            Self::EngineDropped => {
                ("engine-dropped", Warning, "Legal, but current engines no longer serve it.")
            }
        }
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        self.info().0
    }

    /// How grave it is.
    pub fn severity(self) -> Severity {
        self.info().1
    }

    /// What it means, a sentence.
    pub fn docs(self) -> &'static str {
        self.info().2
    }

    /// Every kind.
    pub const ALL: [Self; 27] = [
        Self::IgnoredButQuantized,
        Self::QuantizedButPlain,
        Self::FusedDisagree,
        Self::TargetUnmatched,
        Self::EntryDead,
        Self::FormatDisagrees,
        Self::BitsDisagree,
        Self::GroupSizeDisagrees,
        Self::BlockSizeDisagrees,
        Self::StrategyDisagrees,
        Self::ZeroPointDisagrees,
        Self::ZeroPointConvention,
        Self::ActOrderDisagrees,
        Self::InputScaleMissing,
        Self::InputScaleUnexpected,
        Self::GlobalScaleDisagrees,
        Self::KvScaleMissing,
        Self::StatusDisagrees,
        Self::KeyMissing,
        Self::KeyAssumed,
        Self::KeyIllegal,
        Self::DefaultDiffers,
        Self::SynonymsDisagree,
        Self::PlacesDisagree,
        Self::EngineDropped,
        Self::MetadataDisagrees,
        Self::TokenizerDisagrees,
    ];
}

/// One contradiction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFinding {
    /// Its kind.
    pub code: Code,
    /// The module, or empty for the whole checkpoint.
    pub module: String,
    /// What is said, where, and what is stored, as a fragment that reads after the module's name.
    pub message: String,
    /// How grave it is: as its kind, or milder where nothing contradicts but a missing key.
    pub severity: Severity,
}

impl ConfigFinding {
    /// About one module.
    pub fn of(code: Code, module: &str, message: impl Into<String>) -> Self {
        let severity = code.severity();
        Self { code, module: module.to_owned(), message: message.into(), severity }
    }

    /// About the checkpoint as a whole.
    pub fn whole(code: Code, message: impl Into<String>) -> Self {
        Self::of(code, "", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_documentation_is_this_one() {
        let rows = Code::ALL.iter().map(|code| {
            let gravity = match code.severity() {
                Severity::Error => "failure",
                Severity::Warning => "warning",
            };
            format!("| `{}` | {} | {gravity} |\n", code.name(), code.docs())
        });
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let text = std::fs::read_to_string(path).unwrap();
        let table = text.split("<!-- codes: begin -->\n").nth(1).unwrap();
        let table = table.split("<!-- codes: end -->").next().unwrap();
        assert_eq!(table, rows.collect::<String>());
    }
}
