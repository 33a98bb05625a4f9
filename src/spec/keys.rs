/*!
The one table of keys: every key of a spec file, its type and its meaning.

The reader accepts the keys that stand here and no others; the JSON schema is generated from the
same rows. Adding a key is one row here and one line in the reader.
*/

use super::Gate;
use crate::fault::NAMES;
use crate::metrics::Metric;

/// A kind of table in a spec.
pub(super) struct Shape {
    /// The heading, as a spec writes it; the definition's name in the schema is made of it.
    pub heading: &'static str,
    /// What an unknown key of it is called.
    pub noun: &'static str,
    /// For people.
    pub doc: &'static str,
    /// The keys, in groups that several shapes share.
    pub keys: &'static [&'static [Key]],
}

/// One key.
pub(super) struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    pub doc: &'static str,
}

/// What a key's value may be.
pub(super) enum Kind {
    /// A string.
    Text,
    /// A list of strings.
    Texts,
    /// A string or a list of strings.
    OneOrMoreTexts,
    /// A glob or a list of globs.
    Globs,
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// One of these strings, or a list of them.
    OneOrMoreChoices(&'static [&'static str]),
    /// true or false.
    Flag,
    /// An integer, at least so large.
    Whole { least: u64 },
    /// The version of the format.
    Version,
    /// A finite number in a range.
    Number { least: f64, most: f64 },
    /// A metric's bound: a number or `{ fail, warn }`.
    Bound(Metric),
    /// What a spec says about a gate: `"on"`, `"off"`, or a bound where the gate has one.
    Gate(Gate),
    /// A number, or `{ min, max }`.
    Range { least: f64 },
    /// A local date.
    Date,
    /// A table.
    Table(&'static Shape),
    /// A table, or `"off"`.
    TableOrOff(&'static Shape),
    /// An array of tables.
    Tables(&'static Shape),
    /// A table or an array of tables.
    OneOrMoreTables(&'static Shape),
    /// A table of tables, the keys being names of the user's.
    Named(&'static Shape),
    /// A table of lists, the keys being names of the user's.
    Axes,
}

impl Shape {
    /// Every key of the shape.
    pub fn all(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().flat_map(|group| group.iter())
    }

    /// The row of a key.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.all().find(|key| key.name == name)
    }

    /// Every kind of table, this one first.
    #[cfg(test)]
    pub fn family(&'static self) -> Vec<&'static Self> {
        let mut family: Vec<&'static Self> = vec![self];
        let mut next = 0;
        while next < family.len() {
            for shape in family[next].all().filter_map(|key| key.kind.shape()) {
                if !family.iter().any(|known| std::ptr::eq(*known, shape)) {
                    family.push(shape);
                }
            }
            next += 1;
        }
        family
    }
}

impl Kind {
    /// The kind of the tables that the value is made of.
    pub fn shape(&self) -> Option<&'static Shape> {
        match self {
            Self::Table(shape)
            | Self::TableOrOff(shape)
            | Self::Tables(shape)
            | Self::OneOrMoreTables(shape)
            | Self::Named(shape) => Some(shape),
            _ => None,
        }
    }

    /// The expected value in words: "must be …".
    pub fn expected(&self) -> String {
        match self {
            Self::Text => "a string".to_owned(),
            Self::Texts => "a list of strings".to_owned(),
            Self::OneOrMoreTexts => "a string or a list of strings".to_owned(),
            Self::Globs => "a glob or a list of globs".to_owned(),
            Self::Choice(names) => {
                let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
                quoted.join(" or ")
            }
            Self::OneOrMoreChoices(_) => "a name or a list of names".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Whole { least } => format!("an integer of at least {least}"),
            Self::Version => "an integer".to_owned(),
            Self::Number { .. } => "a number".to_owned(),
            Self::Bound(_) => "a number or { fail = …, warn = … }".to_owned(),
            Self::Gate(gate) if gate.least_bound().is_some() => {
                r#"a number, { fail = …, warn = … }, "on" or "off""#.to_owned()
            }
            Self::Gate(_) => r#""on" or "off""#.to_owned(),
            Self::Range { .. } => "a number or { min = …, max = … }".to_owned(),
            Self::Date => "a date like 2027-01-31, without quotes".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::TableOrOff(_) => r#"a table or "off""#.to_owned(),
            Self::Tables(_) => "an array of tables".to_owned(),
            Self::OneOrMoreTables(_) => "a table or an array of tables".to_owned(),
            Self::Named(_) => "a table of tables".to_owned(),
            Self::Axes => "a table of lists".to_owned(),
        }
    }
}

const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, required: false, doc }
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, required: true, doc }
}

const fn metric(metric: Metric) -> Key {
    key(metric.name(), Kind::Bound(metric), metric.doc())
}

const fn gate(gate: Gate) -> Key {
    key(gate.name(), Kind::Gate(gate), gate.doc())
}

const TENSORS: Key = required(
    "tensors",
    Kind::Globs,
    "Which tensors, by reference name: a glob or a list of globs. `*` matches any characters, dots \
     included; `{a,b}` alternatives; `\\[` a literal bracket.",
);

const METRICS: &[Key] = &[
    metric(Metric::Cosine),
    metric(Metric::SqnrDb),
    metric(Metric::Rmse),
    metric(Metric::RelRmse),
    metric(Metric::MaxAbs),
    metric(Metric::Gain),
];

static METRIC_BOUNDS: Shape = Shape {
    heading: "bounds",
    noun: "metric",
    doc: "Bounds per metric; a number is the failing bound.",
    keys: &[METRICS],
};

static THRESHOLDS: Shape = Shape {
    heading: "thresholds",
    noun: "key",
    doc: "What must hold for each tensor, and for all float tensors as one vector.",
    keys: &[&[
        key("tensor", Kind::Table(&METRIC_BOUNDS), "Bounds for each tensor that no rule decides."),
        key(
            "global",
            Kind::Table(&METRIC_BOUNDS),
            "Bounds for all float tensors of the pair taken as one vector.",
        ),
    ]],
};

static BASELINE: Shape = Shape {
    heading: "baseline",
    noun: "key",
    doc: "How far a metric may move from its baseline: by abs + rel * |old|.",
    keys: &[&[
        key(
            "abs",
            Kind::Number { least: 0.0, most: f64::MAX },
            "Absolute part of the tolerance, in units of the metric. Default 1e-9.",
        ),
        key(
            "rel",
            Kind::Number { least: 0.0, most: f64::MAX },
            "Relative part of the tolerance. Default 1e-6.",
        ),
        key("ratchet", Kind::Flag, "Baselines may only improve. Default false."),
    ]],
};

static INTEGRITY: Shape = Shape {
    heading: "integrity",
    noun: "key",
    doc: "The integrity gates, which judge a pair without a baseline: each gate's bound, \"on\", or \
          \"off\" with a reason. A gate that is not named has its default.",
    keys: &[
        &[
            gate(Gate::Finite),
            gate(Gate::Conversion),
            gate(Gate::Gain),
            gate(Gate::Offset),
            gate(Gate::SqnrExpected),
            gate(Gate::WorstRow),
            gate(Gate::WorstBlock),
            gate(Gate::Displaced),
            gate(Gate::Scales),
            gate(Gate::Column),
            gate(Gate::Zero),
            gate(Gate::Companion),
            gate(Gate::Quantized),
            gate(Gate::Config),
        ],
        &[key("reason", Kind::Text, "Why gates are \"off\"; required if one is.")],
    ],
};

static RULE: Shape = Shape {
    heading: "pair.rule",
    noun: "key",
    doc: "Bounds for some tensors. Rules are ordered: per metric, the first rule that matches a \
          tensor decides, in place of the thresholds.",
    keys: &[
        &[TENSORS],
        METRICS,
        &[
            key(
                "integrity",
                Kind::Table(&INTEGRITY),
                "Integrity gates for these tensors, in place of the pair's.",
            ),
            key("reason", Kind::Text, "Why these tensors are treated differently."),
        ],
    ],
};

static WAIVE: Shape = Shape {
    heading: "pair.waive",
    noun: "key",
    doc: "A dated exception: until that day, a value beyond its bound passes as waived, down to \
          the floor given here.",
    keys: &[
        &[TENSORS],
        METRICS,
        &[
            required("reason", Kind::Text, "Why; an issue number is a good reason."),
            required("until", Kind::Date, "The last day, UTC, on which the waiver holds."),
        ],
    ],
};

static GROUP: Shape = Shape {
    heading: "pair.group",
    noun: "key",
    doc: "A group of tensors of which a fraction must hold the bounds. Each tensor is still held \
          to its own thresholds and rules.",
    keys: &[
        &[TENSORS],
        METRICS,
        &[
            required(
                "min_pass_fraction",
                Kind::Number { least: 0.0, most: 1.0 },
                "Least fraction of the group's tensors that must hold all these bounds, above 0.",
            ),
            key("reason", Kind::Text, "Why."),
        ],
    ],
};

static RENAME: Shape = Shape {
    heading: "rename",
    noun: "key",
    doc: "Rewrites names of the quantized model to the reference's. Applied in order, each to the \
          result of the one before.",
    keys: &[&[
        required(
            "from",
            Kind::Text,
            "Regular expression, matched anywhere in the quantized tensor's name; anchor it with \
             ^ and $.",
        ),
        required("to", Kind::Text, "Replacement; ${1} or ${name} stands for a group."),
    ]],
};

static SKIP: Shape = Shape {
    heading: "skip",
    noun: "key",
    doc: "Tensors that are not compared; they are reported as ignored, with the reason.",
    keys: &[&[TENSORS, required("reason", Kind::Text, "Why they are not compared.")]],
};

static ALLOW_SURVIVOR: Shape = Shape {
    heading: "allow_survivor",
    noun: "key",
    doc: "Injected faults that no gate has to notice under `qualm falsify`, with the reason.",
    keys: &[&[
        required("fault", Kind::OneOrMoreChoices(NAMES), "The fault, or a list of them."),
        key("tensors", Kind::Globs, "Only in these tensors, by reference name. Default all."),
        required("reason", Kind::Text, "Why the suite need not notice."),
    ]],
};

static QTYPE: Shape = Shape {
    heading: "pair.qtype",
    noun: "key",
    doc: "The types that tensors must, or must not, be stored in.",
    keys: &[&[
        TENSORS,
        key(
            "is",
            Kind::OneOrMoreTexts,
            "One of these types (Q4_K, F16, F8_E4M3) or schemes (NVFP4), in any case.",
        ),
        key("not", Kind::OneOrMoreTexts, "None of these types or schemes."),
    ]],
};

static TRANSFORM: Shape = Shape {
    heading: "pair.transform",
    noun: "key",
    doc: "What the converter did to tensors on purpose; undone before comparing.",
    keys: &[&[
        TENSORS,
        required(
            "apply",
            Kind::Choice(&["plus-one", "rope-permute", "fold"]),
            "plus-one: 1 was added to every value (Gemma norms). rope-permute: query or key rows \
             are in the other rotary order. fold: column scales went into a norm.",
        ),
        key("heads", Kind::Whole { least: 1 }, "Number of heads; required by rope-permute."),
        key(
            "norm",
            Kind::Text,
            "Reference name of the norm that holds the inverse; required by fold.",
        ),
    ]],
};

static SCHEME: Shape = Shape {
    heading: "pair.scheme",
    noun: "key",
    doc: "The storage scheme of tensors where the file cannot tell.",
    keys: &[&[TENSORS, required("is", Kind::Text, "Name of the scheme (fp8-plain-cast).")]],
};

static COMPANIONS: Shape = Shape {
    heading: "pair.companions",
    noun: "key",
    doc: "Planes that must exist beside tensors, and not be all zero.",
    keys: &[&[
        TENSORS,
        required(
            "suffixes",
            Kind::OneOrMoreTexts,
            "Last part of the planes' names (weight_scale, input_scale).",
        ),
    ]],
};

static PROFILE: Shape = Shape {
    heading: "profile.NAME",
    noun: "key",
    doc: "Overrides that `--profile NAME` selects. They win over the bounds of the file and of \
          its pairs.",
    keys: &[&[
        key("description", Kind::Text, "For people."),
        key("inherits", Kind::Text, "Another profile, whose overrides apply first."),
        key("thresholds", Kind::Table(&THRESHOLDS), "Bounds in place of those of every pair."),
        key(
            "baseline",
            Kind::TableOrOff(&BASELINE),
            "Tolerances in place of those of every pair, or \"off\".",
        ),
    ]],
};

/// Keys that a file may set for all its pairs, and a pair for itself.
const SHARED: &[Key] = &[
    key("description", Kind::Text, "For people; appears in reports."),
    key("tags", Kind::Texts, "Labels that `--tag` selects; a pair has its file's tags too."),
    key(
        "thresholds",
        Kind::Table(&THRESHOLDS),
        "Bounds per metric; a pair's stand in place of the file's.",
    ),
    key(
        "baseline",
        Kind::TableOrOff(&BASELINE),
        "Tolerances against the baseline; a pair's stand in place of the file's. \"off\": there is none.",
    ),
    key(
        "integrity",
        Kind::Table(&INTEGRITY),
        "Integrity gates; a pair's settings stand in place of the file's.",
    ),
    key(
        "allow_missing",
        Kind::Globs,
        "Tensors that the quantized model may lack; a pair's are added to the file's.",
    ),
    key(
        "allow_extra",
        Kind::Globs,
        "Tensors, by renamed name, that only the quantized model may have; a pair's are added to \
         the file's.",
    ),
    key(
        "rename",
        Kind::OneOrMoreTables(&RENAME),
        "Rewrites quantized names to reference names, in order: the file's first, then the pair's.",
    ),
    key(
        "skip",
        Kind::OneOrMoreTables(&SKIP),
        "Tensors that are not compared; a pair's are added to the file's.",
    ),
    key(
        "metadata_equal",
        Kind::Globs,
        "Metadata keys (GGUF: tokenizer.*) that must be equal on both sides; a pair's are added to \
         the file's.",
    ),
    key(
        "nonzero",
        Kind::Globs,
        "Tensors that must not be all zero, even if the reference is; a pair's are added to the \
         file's.",
    ),
    key(
        "allow_survivor",
        Kind::OneOrMoreTables(&ALLOW_SURVIVOR),
        "Faults that `qualm falsify` may find unnoticed; a pair's are added to the file's.",
    ),
];

static PAIR: Shape = Shape {
    heading: "pair",
    noun: "key",
    doc: "One reference and one quantized model, with what must hold between them.",
    keys: &[
        &[
            required(
                "name",
                Kind::Text,
                "Name of the pair, unique in the file; part of every test id. {axis} stands for a \
                 value of the matrix.",
            ),
            key(
                "reference",
                Kind::Text,
                "Path of the float model, relative to the spec: a file, a directory, or a \
                 *.safetensors.index.json. ${VARIABLE} is taken from the environment, {axis} from \
                 the matrix.",
            ),
            key(
                "quantized",
                Kind::Text,
                "Path of the quantized model, like reference. Either this, roundtrip or verify.",
            ),
            key(
                "roundtrip",
                Kind::Text,
                "Quantize the reference to this type (q4_0) and back in memory, instead of \
                 reading a quantized model.",
            ),
            key(
                "verify",
                Kind::Text,
                "Path of a model that is judged without a reference, as `qualm verify` does.",
            ),
            key("imatrix", Kind::Text, "Path of an importance matrix for roundtrip."),
            key(
                "quantize_stats",
                Kind::Text,
                "Path of what `llama-quantize-stats -p` printed for the reference; every tensor's \
                 RMSE through the round trip must agree with it to 1e-5.",
            ),
            key(
                "map",
                Kind::Text,
                "Path of a file of rules for the tensors of a checkpoint that a converter has \
                 renamed, permuted, split or joined; `none` for no rules at all. Without it the \
                 built-in table is used between a checkpoint and a GGUF file.",
            ),
            key(
                "ignore",
                Kind::Text,
                "Why the pair does not run unless it is asked for (--ignored, --include-ignored).",
            ),
        ],
        SHARED,
        &[
            key("rule", Kind::Tables(&RULE), "Ordered bounds for some tensors."),
            key("waive", Kind::Tables(&WAIVE), "Dated exceptions with a floor."),
            key("group", Kind::Tables(&GROUP), "Groups of which a fraction must pass."),
            key("qtype", Kind::OneOrMoreTables(&QTYPE), "Types that tensors must be stored in."),
            key(
                "min_quantized",
                Kind::Whole { least: 1 },
                "So many tensors must be stored in another type than the reference's float types.",
            ),
            key(
                "bits_per_weight",
                Kind::Range { least: 0.0 },
                "Stored bits per weight of the whole quantized model, scales included: the \
                 largest, or { min, max }.",
            ),
            key(
                "transform",
                Kind::OneOrMoreTables(&TRANSFORM),
                "What the converter did to tensors on purpose.",
            ),
            key(
                "unfold",
                Kind::Flag,
                "Undo scales that AWQ or SmoothQuant folded into the rows of other weights, where all columns \
                 behind them have them; those in norms are always undone. Default true.",
            ),
            key(
                "sample",
                Kind::Number { least: 1e-6, most: 1.0 },
                "Look at this share of the values alone: some rows of each matrix.",
            ),
            key(
                "scheme",
                Kind::OneOrMoreTables(&SCHEME),
                "Storage schemes where the file cannot tell.",
            ),
            key(
                "companions",
                Kind::OneOrMoreTables(&COMPANIONS),
                "Planes that must exist beside tensors.",
            ),
        ],
    ],
};

/// What a pair is made of: the keys of exactly one of these.
pub(super) const MADE_OF: [&[&str]; 3] =
    [&["reference", "quantized"], &["reference", "roundtrip"], &["verify"]];

/// Keys of a pair that compare nothing, and may stand beside `verify`.
pub(super) const ALONE: [&str; 9] = [
    "name",
    "verify",
    "ignore",
    "description",
    "tags",
    "skip",
    "integrity",
    "qtype",
    "bits_per_weight",
];

/// A spec file.
pub(super) static SPEC: Shape = Shape {
    heading: "",
    noun: "key",
    doc: "A qualm spec: pairs of models and what must hold between them.",
    keys: &[
        &[
            required("schema", Kind::Version, "Version of the format: 1."),
            key(
                "requires",
                Kind::Text,
                "Versions of qualm that can run this spec (>=0.1, <2); others refuse it.",
            ),
            key(
                "granularity",
                Kind::Choice(&["pair", "tensor"]),
                "What one test is under runners that start a process per test. Default pair.",
            ),
        ],
        SHARED,
        &[
            key(
                "matrix",
                Kind::Axes,
                "Lists of values. A pair that uses {axis} in its name and paths stands for one \
                 pair per value.",
            ),
            key("profile", Kind::Named(&PROFILE), "Overrides that `--profile NAME` selects."),
            required("pair", Kind::Tables(&PAIR), "The pairs of models."),
        ],
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_and_gate_has_its_row() {
        for metric in Metric::ALL {
            for shape in [&METRIC_BOUNDS, &RULE, &WAIVE, &GROUP] {
                assert!(shape.key(metric.name()).is_some(), "{metric} in {}", shape.heading);
            }
        }
        for gate in Gate::ALL {
            assert!(INTEGRITY.key(gate.name()).is_some(), "{gate}");
        }
    }

    #[test]
    fn keys_are_unique_and_documented() {
        for shape in SPEC.family() {
            let mut names: Vec<_> = shape.all().map(|key| key.name).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "[{}]", shape.heading);
            assert!(shape.all().all(|key| key.doc.ends_with('.') && key.doc.len() > 3));
        }
    }
}
