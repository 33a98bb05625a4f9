/*! The places where a quantization configuration may stand, kept apart. */

use serde_json::Value;

/// The JSON files beside a checkpoint that say something about its quantization.
#[derive(Clone, Debug, Default)]
pub struct Places {
    files: Vec<(String, Value)>,
}

/// A configuration and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// `config.json: quantization_config`.
    pub name: &'a str,
    /// The object.
    pub settings: &'a Value,
}

/// File, path of keys in it, and the place's name, in the order in which most engines look.
const PLACES: &[(&str, &[&str], &str)] = &[
    ("config.json", &["quantization_config"], "config.json: quantization_config"),
    (
        "config.json",
        &["text_config", "quantization_config"],
        "config.json: text_config.quantization_config",
    ),
    ("config.json", &["compression_config"], "config.json: compression_config"),
    (
        "config.json",
        &["llm_config", "quantization_config"],
        "config.json: llm_config.quantization_config",
    ),
    ("hf_quant_config.json", &["quantization"], "hf_quant_config.json: quantization"),
    ("quantize_config.json", &[], "quantize_config.json"),
    ("quant_config.json", &[], "quant_config.json"),
    ("quantization_config.json", &[], "quantization_config.json"),
];

impl Places {
    /// Names of the files that are asked for.
    pub const FILES: [&'static str; 5] = [
        "config.json",
        "hf_quant_config.json",
        "quantize_config.json",
        "quant_config.json",
        "quantization_config.json",
    ];

    /// From the files that are there, by name.
    pub fn new(files: Vec<(String, Value)>) -> Self {
        Self { files }
    }

    /// A file's JSON, `Null` if it is not there.
    pub fn file(&self, name: &str) -> &Value {
        static NONE: Value = Value::Null;
        self.files.iter().find(|(file, _)| file == name).map_or(&NONE, |(_, value)| value)
    }

    /// `config.json`.
    pub fn model(&self) -> &Value {
        self.file("config.json")
    }

    /// Every place that holds an object, in order.
    pub fn all(&self) -> impl Iterator<Item = Place<'_>> {
        PLACES.iter().filter_map(|(file, path, name)| {
            let value = path.iter().fold(self.file(file), |value, key| &value[*key]);
            value.is_object().then_some(Place { name, settings: value })
        })
    }

    /// MLX's own place.
    pub fn mlx(&self) -> Option<Place<'_>> {
        let settings = &self.model()["quantization"];
        settings.is_object().then_some(Place { name: "config.json: quantization", settings })
    }
}
