/*! What is wrong with the configuration itself: missing and unknown keys, names and places that disagree. */

use serde_json::Value;

use super::coverage::Config;
use super::finding::{Code, ConfigFinding};
use super::observe::{Kind, Module};
use super::places::{Place, Places};

/// Keys of a group of compressed-tensors.
const GROUP_KEYS: &[&str] =
    &["targets", "weights", "input_activations", "output_activations", "format"];

/// Keys of the arguments of a group.
const ARGS_KEYS: &[&str] = &[
    "num_bits",
    "type",
    "symmetric",
    "strategy",
    "group_size",
    "block_structure",
    "dynamic",
    "actorder",
    "scale_dtype",
    "zp_dtype",
    "observer",
    "observer_kwargs",
];

/// Names of one setting, by method; `""` stands for every method.
const SYNONYMS: &[(&str, &[&str])] = &[
    ("", &["bits", "w_bit", "wbits"]),
    ("", &["group_size", "q_group_size"]),
    ("gptq", &["format", "checkpoint_format"]),
    ("awq", &["format", "version"]),
    ("fp8", &["ignored_layers", "modules_to_not_convert"]),
    ("modelopt", &["ignore", "exclude_modules"]),
];

/// Keys that two places must agree on, each with its spellings.
const SHARED: &[&[&str]] = &[
    &["quant_algo"],
    &["bits", "w_bit", "num_bits"],
    &["group_size", "q_group_size"],
    &["desc_act"],
    &["sym"],
    &["ignore", "exclude_modules"],
];

/// Judges keys and places.
pub fn judge(places: &Places, config: &Config, modules: &[Module], out: &mut Vec<ConfigFinding>) {
    let settings = config.place.settings;
    synonyms(config, out);
    places_agree(places, out);
    match config.method.as_str() {
        "fp8" => fp8(settings, modules, out),
        "compressed-tensors" => compressed_tensors(config, modules, out),
        "gptq" => gptq(settings, out),
        "quark" if !settings["export"].is_object() => {
            let message = "export is missing, which vLLM and SGLang need";
            out.push(ConfigFinding::whole(Code::KeyMissing, message));
        }
        _ => {}
    }
}

fn given<'a>(settings: &'a Value, key: &str) -> Option<&'a Value> {
    settings.get(key).filter(|value| !value.is_null())
}

fn synonyms(config: &Config, out: &mut Vec<ConfigFinding>) {
    let settings = config.place.settings;
    for (method, names) in SYNONYMS {
        if !method.is_empty() && *method != config.method {
            continue;
        }
        let mut values = names.iter().filter_map(|name| Some((name, given(settings, name)?)));
        let Some((first, value)) = values.next() else { continue };
        for (name, other) in values {
            if !same(value, other) {
                let message =
                    format!("{first} is {value} and {name} is {other}: engines read one of them");
                out.push(ConfigFinding::whole(Code::SynonymsDisagree, message));
            }
        }
    }
}

/// Equal values; lists in any order, words in any case.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.iter().all(|item| b.contains(item)) && b.iter().all(|item| a.contains(item))
        }
        (Value::String(a), Value::String(b)) => a.eq_ignore_ascii_case(b),
        _ => a == b,
    }
}

fn places_agree(places: &Places, out: &mut Vec<ConfigFinding>) {
    let all: Vec<Place> = places.all().collect();
    let Some((first, others)) = all.split_first() else { return };
    let find = |place: &Place, names: &[&str]| -> Option<Value> {
        names.iter().find_map(|name| given(place.settings, name).cloned())
    };
    for other in others {
        for names in SHARED {
            let (Some(a), Some(b)) = (find(first, names), find(other, names)) else { continue };
            if !same(&a, &b) {
                let message = format!(
                    "{} is {a} in {}, and {b} in {}: engines read one of them",
                    names[0], first.name, other.name
                );
                out.push(ConfigFinding::whole(Code::PlacesDisagree, message));
            }
        }
    }
}

/// FP8 as `DeepSeek` and `AutoFP8` write it.
fn fp8(settings: &Value, modules: &[Module], out: &mut Vec<ConfigFinding>) {
    let codes = || modules.iter().filter(|module| module.kind == Kind::Fp8);
    if given(settings, "activation_scheme").is_none() && codes().next().is_some() {
        let fixed = codes().any(|module| module.has(".input_scale"));
        // Engines that do without it take activations to be dynamic.
        let (said, code) =
            if fixed { ("static", Code::KeyMissing) } else { ("dynamic", Code::KeyAssumed) };
        let message = format!(
            "activation_scheme is missing, which vLLM and SGLang need; the planes say {said}"
        );
        out.push(ConfigFinding::whole(code, message));
    }
    let blocks = codes().any(|module| {
        let grid = module.matrix(".weight_scale_inv").or(module.matrix(".weight_scale"));
        grid.is_some_and(|(rows, cols)| rows > 1 && cols > 1)
    });
    let size = settings.get("weight_block_size");
    if size.is_none() && blocks {
        let message = "weight_block_size is missing: vLLM and SGLang take one scale a tensor, \
                       transformers 128x128, and the planes have blocks";
        out.push(ConfigFinding::whole(Code::DefaultDiffers, message));
    }
    if size.is_some_and(Value::is_array) && settings["activation_scheme"] == "static" {
        let message =
            "weight_block_size with activation_scheme \"static\": vLLM and SGLang refuse it";
        out.push(ConfigFinding::whole(Code::KeyIllegal, message));
    }
}

fn compressed_tensors(config: &Config, modules: &[Module], out: &mut Vec<ConfigFinding>) {
    let settings = config.place.settings;
    let mixed = settings["format"] == "mixed-precision";
    for (name, group) in settings["config_groups"].as_object().into_iter().flatten() {
        unknown_keys(&format!("config_groups.{name}"), group, GROUP_KEYS, out);
        for part in ["weights", "input_activations", "output_activations"] {
            let at = format!("config_groups.{name}.{part}");
            unknown_keys(&at, &group[part], ARGS_KEYS, out);
            arguments(&at, &group[part], out);
        }
        if mixed && given(group, "format").is_none() {
            let message = format!(
                "format is mixed-precision, and config_groups.{name} has no format of its own"
            );
            out.push(ConfigFinding::whole(Code::KeyMissing, message));
        }
        if matches!(group["weights"]["actorder"].as_str(), Some("group" | "dynamic"))
            || group["weights"]["actorder"] == true
        {
            let message = format!(
                "config_groups.{name}.weights.actorder is group: vLLM since 0.33 and \
                 compressed-tensors since 0.20 refuse it"
            );
            out.push(ConfigFinding::whole(Code::EngineDropped, message));
        }
    }
    let packed = modules
        .iter()
        .any(|module| matches!(module.kind, Kind::Packed | Kind::Nvfp4 | Kind::Mxfp4));
    let status = settings["quantization_status"].as_str();
    if packed && let Some(status) = status.filter(|status| *status != "compressed") {
        let message = format!(
            "quantization_status is {status:?}, and the planes are packed: transformers looks for \
             unpacked weights (say \"compressed\")"
        );
        out.push(ConfigFinding::whole(Code::StatusDisagrees, message));
    }
}

fn unknown_keys(at: &str, value: &Value, known: &[&str], out: &mut Vec<ConfigFinding>) {
    for key in value.as_object().into_iter().flat_map(|object| object.keys()) {
        if !known.contains(&key.as_str()) {
            let message = format!("{at} has the unknown key {key:?}, which engines refuse");
            out.push(ConfigFinding::whole(Code::KeyIllegal, message));
        }
    }
}

/// Strategy and group length of a group's arguments.
fn arguments(at: &str, args: &Value, out: &mut Vec<ConfigFinding>) {
    let Some(strategy) = args["strategy"].as_str() else { return };
    let group = args["group_size"].as_i64().filter(|&size| size > 0);
    let grouped = matches!(strategy, "group" | "tensor_group");
    let problem = match strategy {
        "group" | "tensor_group" if group.is_none() => "needs a group_size above 0".to_owned(),
        "block" if args["block_structure"].is_null() => "needs a block_structure".to_owned(),
        "token" if args["dynamic"] == false => "needs dynamic".to_owned(),
        "tensor" | "channel" | "group" | "tensor_group" | "block" | "token" | "attn_head" => {
            match group {
                Some(size) if !grouped && strategy != "block" => {
                    format!("has no use for group_size {size}")
                }
                _ => return,
            }
        }
        _ => "is not known".to_owned(),
    };
    let message = format!("{at}.strategy {strategy:?} {problem}");
    out.push(ConfigFinding::whole(Code::KeyIllegal, message));
}

fn gptq(settings: &Value, out: &mut Vec<ConfigFinding>) {
    for key in ["bits", "group_size"] {
        if given(settings, key).is_none() {
            let message = format!("{key} is missing, which every engine needs");
            out.push(ConfigFinding::whole(Code::KeyMissing, message));
        }
    }
    let grouped = settings["group_size"].as_i64().is_some_and(|size| size > 0);
    if settings["desc_act"] == true && grouped {
        let message = format!(
            "desc_act with group_size {}: vLLM since 0.33 refuses it",
            settings["group_size"]
        );
        out.push(ConfigFinding::whole(Code::EngineDropped, message));
    }
}
