/*!
The configuration beside the weights, for parameters that planes alone leave open.

Reads `config.json` and the files that quantizers write next to it, each only up to a bounded size.
What a file does not say is not guessed here: the schemes have their defaults.
*/

use std::io;
use std::path::Path;

use serde_json::Value;

use crate::disk;
use crate::model::configuration::Places;

/// What the configuration files say about the quantization.
#[derive(Debug, Default)]
pub struct Config {
    /// `quantization_config` (or its older places), `Null` if there is none.
    quantization: Value,
    /// `quantization` of `hf_quant_config.json` (`ModelOpt`).
    model_opt: Value,
    /// `quantization` of `config.json` (MLX).
    mlx: Value,
    /// `quanto_qmap.json`: module to settings.
    quanto: Value,
    /// `layers` of `_quantization_metadata` in the container's own metadata (`ComfyUI`).
    comfy: Value,
    /// The container's own metadata (torchao).
    metadata: Vec<(String, Value)>,
    /// The files, for what they say about the quantization as a whole.
    pub places: Places,
    /// Files that were there but could not be read.
    pub notes: Vec<String>,
}

/// How GPTQ zero points and codes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GptqFormat {
    /// Zero points less one (`gptq`, and no word at all).
    V1,
    /// Zero points as they are (`gptq_v2`, `AutoRound`'s own).
    V2,
    /// As `V2`, codes in bit planes (`gptq_p`).
    Planar,
}

impl Config {
    /// Reads what lies in `directory`, if there is one.
    pub fn read(directory: Option<&Path>, metadata: &[(String, Value)]) -> Self {
        let mut config = Self { metadata: metadata.to_vec(), ..Self::default() };
        let comfy = metadata.iter().find(|(key, _)| key == "_quantization_metadata");
        let comfy = comfy.and_then(|(_, value)| disk::value(value.as_str()?.as_bytes()).ok());
        config.comfy = comfy.map_or(Value::Null, |value| value["layers"].clone());
        let Some(directory) = directory else { return config };
        let mut files = Vec::new();
        for name in Places::FILES {
            files.push((name.to_owned(), config.file(&directory.join(name))));
        }
        let files = Places::new(files);
        let main = files.model();
        let nested = ["text_config", "llm_config"].map(|key| &main[key]["quantization_config"]);
        let places =
            [&main["quantization_config"], nested[0], nested[1], &main["compression_config"]];
        config.quantization =
            places.into_iter().find(|value| value.is_object()).cloned().unwrap_or_default();
        config.mlx = main["quantization"].clone();
        config.model_opt = files.file("hf_quant_config.json")["quantization"].clone();
        for name in ["quantize_config.json", "quant_config.json", "quantization_config.json"] {
            if config.quantization.is_object() {
                break;
            }
            config.quantization = files.file(name).clone();
        }
        config.places = files;
        config.quanto = config.file(&directory.join("quanto_qmap.json"));
        config
    }

    /// The object in a JSON file; `Null`, and a note, if it cannot be used.
    fn file(&mut self, path: &Path) -> Value {
        let problem = match disk::read(path, disk::CONFIGURATION) {
            Ok(text) => match disk::value(&text) {
                Ok(value) if value.is_object() => return value,
                Ok(_) => "it is JSON, but not an object".to_owned(),
                Err(error) => error.to_string(),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Value::Null,
            Err(error) => error.to_string(),
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.notes.push(format!("{name} is not used: {problem}"));
        Value::Null
    }

    /// `quant_method` in lower case, empty if nothing says it.
    pub fn method(&self) -> String {
        self.word("quant_method")
    }

    /// A word of the quantization's settings in lower case, empty if it is not there.
    pub fn word(&self, key: &str) -> String {
        self.quantization[key].as_str().unwrap_or_default().to_ascii_lowercase()
    }

    /// A setting of the quantization.
    pub fn setting(&self, key: &str) -> &Value {
        &self.quantization[key]
    }

    /// `quant_algo` of `ModelOpt` in upper case, empty if nothing says it.
    pub fn quant_algo(&self) -> String {
        let places = [&self.quantization["quant_algo"], &self.model_opt["quant_algo"]];
        let word = places.iter().find_map(|value| value.as_str());
        word.unwrap_or_default().to_ascii_uppercase()
    }

    /// Whether a method is at work that always stores FP8 weights with scales.
    pub fn wants_fp8_scales(&self) -> bool {
        let method = self.method();
        let known = ["fp8", "fbgemm_fp8", "compressed-tensors", "modelopt", "quark", "torchao"];
        known.contains(&method.as_str()) || self.quant_algo().starts_with("FP8")
    }

    /// Rows and columns of a block: `weight_block_size`, or `block_structure` of compressed-tensors.
    pub fn block_size(&self) -> Option<(u64, u64)> {
        let pair = |value: &Value| -> Option<(u64, u64)> {
            if let Some(text) = value.as_str() {
                let (rows, cols) = text.split_once('x')?;
                return Some((rows.trim().parse().ok()?, cols.trim().parse().ok()?));
            }
            let (rows, cols) = (value.get(0)?.as_u64()?, value.get(1)?.as_u64()?);
            Some((rows, cols))
        };
        let groups = self.quantization["config_groups"].as_object();
        let structures = groups
            .into_iter()
            .flat_map(|groups| groups.values())
            .map(|group| &group["weights"]["block_structure"]);
        std::iter::once(&self.quantization["weight_block_size"])
            .chain(structures)
            .find_map(pair)
            .filter(|&(rows, cols)| rows > 0 && cols > 0)
    }

    /// The one `num_bits` of all groups of compressed-tensors.
    pub fn num_bits(&self) -> Option<u32> {
        let bits = self.groups().filter_map(|weights| weights["num_bits"].as_u64());
        one(bits).map(|bits| bits as u32)
    }

    /// Whether all groups of compressed-tensors are symmetric, if they say so.
    pub fn symmetric(&self) -> Option<bool> {
        one(self.groups().filter_map(|weights| weights["symmetric"].as_bool()))
    }

    /// The `weights` settings of the groups of compressed-tensors.
    fn groups(&self) -> impl Iterator<Item = &Value> {
        let groups = self.quantization["config_groups"].as_object();
        groups.into_iter().flat_map(|groups| groups.values()).map(|group| &group["weights"])
    }

    /// Whether weights were rotated: comparing them with the originals means nothing then.
    pub fn rotated(&self) -> Option<&'static str> {
        let transforms = &self.quantization["transform_config"]["config_groups"];
        if transforms.as_object().is_some_and(|groups| !groups.is_empty()) {
            return Some("transform_config (a rotation of the weights)");
        }
        let rotation = &self.quantization["rotation"];
        let named = rotation.as_str().is_some_and(|word| !word.is_empty() && word != "none");
        (named || rotation.is_object()).then_some("rotation (hadamard or quarot)")
    }

    /// Whether the compressed-tensors release that wrote the file packs densely (0.17 and later).
    pub fn dense_packing(&self) -> Option<bool> {
        let version = self.quantization["version"].as_str()?;
        let mut numbers = version.split('.').map(|number| number.parse::<u64>().ok());
        let (major, minor) = (numbers.next()??, numbers.next()??);
        Some((major, minor) >= (0, 17))
    }

    /// How GPTQ tensors are stored; `None` if nothing says so.
    pub fn gptq_format(&self) -> Option<GptqFormat> {
        if self.auto_round() {
            return match self.word("packing_format").as_str() {
                "auto_round:auto_gptq" | "auto_gptq" => Some(GptqFormat::V1),
                "" => None,
                _ => Some(GptqFormat::V2),
            };
        }
        let words = [self.word("checkpoint_format"), self.word("format")];
        let word = words.into_iter().find(|word| !word.is_empty())?;
        match word.as_str() {
            "gptq" => Some(GptqFormat::V1),
            "gptq_v2" => Some(GptqFormat::V2),
            "gptq_p" => Some(GptqFormat::Planar),
            _ => None,
        }
    }

    /// Whether `AutoRound` wrote the checkpoint.
    pub fn auto_round(&self) -> bool {
        matches!(self.method().as_str(), "auto-round" | "intel/auto-round" | "auto_round")
    }

    /// Group size, if one is set for all modules; -1 (one group) is `None` as well.
    pub fn group_size(&self) -> Option<u64> {
        let places = ["group_size", "q_group_size"].map(|key| &self.quantization[key]);
        let quark = &self.quantization["global_quant_config"]["weight"]["group_size"];
        let places = places.into_iter().chain([quark, &self.model_opt["group_size"]]);
        places.into_iter().find_map(Value::as_u64).filter(|&size| size > 0)
    }

    /// Settings of a module that MLX or `AutoRound` set apart, or the common ones.
    pub fn mlx(&self, module: &str) -> &Value {
        let of_module = &self.mlx[module];
        if of_module.is_object() { of_module } else { &self.mlx }
    }

    /// Whether MLX or `AutoRound` set a module apart.
    pub fn mlx_sets_apart(&self, module: &str) -> bool {
        self.mlx[module].is_object()
    }

    /// `ComfyUI`'s settings of a module, which the header may name under another prefix.
    pub fn comfy(&self, module: &str) -> Option<&Value> {
        let layers = self.comfy.as_object()?;
        let below = |long: &str, short: &str| {
            long.strip_suffix(short)
                .is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        };
        let other = || layers.iter().find(|(key, _)| below(module, key) || below(key, module));
        layers.get(module).or_else(|| other().map(|(_, value)| value))
    }

    /// Quark's settings for weights.
    pub fn quark_weight(&self) -> &Value {
        &self.quantization["global_quant_config"]["weight"]
    }

    /// Whether Quark packed eight 4-bit codes in AWQ's order.
    pub fn quark_reordered(&self) -> bool {
        self.quantization["export"]["pack_method"].as_str() != Some("order")
    }

    /// quanto's type of a module's weights: `qint4`.
    pub fn quanto(&self, module: &str) -> Option<&str> {
        self.quanto[module]["weights"].as_str()
    }

    /// What torchao's metadata say about a parameter.
    pub fn torchao(&self, parameter: &str) -> Option<Value> {
        let (_, value) = self.metadata.iter().find(|(key, _)| key == parameter)?;
        serde_json::from_str(value.as_str()?).ok()
    }
}

/// The value that all items share.
fn one<T: PartialEq>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.all(|item| item == first).then_some(first)
}
