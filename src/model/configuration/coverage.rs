/*! What the configuration says about a module: quantized how, left plain by which entry, or nothing. */

use regex::Regex;
use serde_json::Value;

use super::matching::{Entry, Rule, regex};
use super::places::{Place, Places};

/// Parts that engines fuse into one module, and its name.
const FUSED: &[(&[&str], &str)] = &[
    (&["q_proj", "k_proj", "v_proj"], "qkv_proj"),
    (&["gate_proj", "up_proj"], "gate_up_proj"),
    (&["w1", "w3"], "w13"),
    (&["q_a_proj", "kv_a_proj_with_mqa"], "fused_qkv_a_proj_with_mqa"),
];

/// Name of the fused module that a module becomes a part of.
pub fn fused_name(module: &str) -> Option<String> {
    let (parent, last) = module.rsplit_once('.')?;
    let (_, fused) = FUSED.iter().find(|(parts, _)| parts.contains(&last))?;
    Some(format!("{parent}.{fused}"))
}

/// How a module is quantized, as far as it is said.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// Where that is said.
    pub at: &'a str,
    /// The settings of weights.
    pub weights: &'a Value,
    /// The settings of activations, `Null` if there are none.
    pub inputs: &'a Value,
    /// The format's word.
    pub format: &'a str,
}

/// What is said about a module.
#[derive(Debug)]
pub enum Coverage<'a> {
    /// It is quantized.
    Quantized(Settings<'a>),
    /// This entry leaves it plain.
    Excluded(String),
    /// Groups are listed, and none of them targets it.
    Untargeted,
    /// Nothing that binds.
    Unsaid,
}

/// The configuration in force, with its lists made ready.
#[derive(Debug)]
pub struct Config<'a> {
    /// Where it stands.
    pub place: Place<'a>,
    /// `quant_method` in lower case.
    pub method: String,
    /// Lists of modules that stay plain, with the key of each.
    excluded: Vec<(&'static str, Entry)>,
    groups: Vec<Group<'a>>,
    /// GPTQ's `dynamic` and `AutoRound`'s `extra_config`: as written, pattern, what it says.
    dynamic: Vec<(String, Option<Regex>, Dynamic<'a>)>,
    /// Substrings (GPTQ) or prefixes (`AutoRound`) of the only modules that are quantized.
    only: Vec<String>,
}

/// What a rule by pattern says of the modules that it matches.
#[derive(Clone, Copy, Debug)]
enum Dynamic<'a> {
    /// They stay plain.
    Excludes,
    /// They stay as they were.
    LeavesAlone,
    /// They have settings of their own.
    Sets(&'a Value),
}

/// A group of compressed-tensors.
#[derive(Debug)]
struct Group<'a> {
    name: String,
    targets: Vec<Entry>,
    /// Module classes such as `Linear`, which every plain matrix is taken for.
    classes: bool,
    value: &'a Value,
}

/// The lists that exclude modules, by method, and how their entries match.
const LISTS: &[(&str, &[&str], Rule)] = &[
    ("compressed-tensors", &["ignore"], Rule::Exact),
    ("fp8", &["modules_to_not_convert", "ignored_layers"], Rule::Components),
    ("awq", &["modules_to_not_convert"], Rule::Substring),
    ("modelopt", &["ignore", "exclude_modules", "modules_to_not_convert"], Rule::Glob),
    ("quark", &["exclude"], Rule::Glob),
    ("bitsandbytes", &["llm_int8_skip_modules"], Rule::Components),
    ("mxfp4", &["modules_to_not_convert"], Rule::Glob),
];

/// Methods that this room can resolve module by module.
const RESOLVED: &[&str] =
    &["compressed-tensors", "fp8", "awq", "gptq", "modelopt", "quark", "auto-round"];

impl<'a> Config<'a> {
    /// The configuration that most engines take: the first place. None if nothing is configured.
    pub fn of(places: &'a Places) -> Option<Self> {
        let place = places.all().next()?;
        let mut method =
            place.settings["quant_method"].as_str().unwrap_or_default().to_ascii_lowercase();
        method = match method.as_str() {
            "compressed_tensors" => "compressed-tensors".to_owned(),
            "auto_round" | "intel/auto-round" => "auto-round".to_owned(),
            "modelopt_fp4" | "modelopt_mixed" => "modelopt".to_owned(),
            "" if place.settings["quant_algo"].is_string() => "modelopt".to_owned(),
            "" if place.settings["config_groups"].is_object() => "compressed-tensors".to_owned(),
            _ => method,
        };
        let settings = place.settings;
        let mut excluded = Vec::new();
        for (_, keys, rule) in LISTS.iter().filter(|(of, ..)| *of == method) {
            for key in *keys {
                let entries = settings[*key].as_array().into_iter().flatten();
                let entries = entries.filter_map(Value::as_str);
                excluded.extend(entries.map(|text| (*key, Entry::new(text, *rule))));
            }
        }
        let only = match method.as_str() {
            "gptq" => strings(&settings["modules_in_block_to_quantize"]),
            "auto-round" => strings(&settings["block_name_to_quantize"]),
            _ => Vec::new(),
        };
        let groups = groups(settings);
        let dynamic = dynamic(settings, &method);
        Some(Self { place, method, excluded, groups, dynamic, only })
    }

    /// Whether modules can be told apart by it.
    pub fn is_resolved(&self) -> bool {
        RESOLVED.contains(&self.method.as_str())
    }

    /// Whether it names groups, of which each module needs one.
    pub fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Entries of lists of exclusions, with their keys.
    pub fn exclusions(&self) -> &[(&'static str, Entry)] {
        &self.excluded
    }

    /// What is said about a module.
    pub fn coverage(&self, module: &str) -> Coverage<'_> {
        if self.excluded.iter().any(|(_, entry)| entry.is_unknown()) {
            return Coverage::Unsaid;
        }
        if let Some((key, entry)) = self.excluded.iter().find(|(_, it)| it.matches(module)) {
            return Coverage::Excluded(format!("{key} entry {:?}", entry.text));
        }
        for (text, pattern, rule) in &self.dynamic {
            let Some(pattern) = pattern else { return Coverage::Unsaid };
            let fused = fused_name(module);
            if pattern.is_match(module) || fused.is_some_and(|fused| pattern.is_match(&fused)) {
                return match rule {
                    Dynamic::Excludes => Coverage::Excluded(format!("rule {text:?}")),
                    Dynamic::LeavesAlone => Coverage::Unsaid,
                    Dynamic::Sets(settings) => self.quantized(text, settings),
                };
            }
        }
        let listed = |only: &String| module.contains(only.as_str());
        if !self.only.is_empty() && !self.only.iter().any(listed) {
            return Coverage::Unsaid;
        }
        if self.has_groups() && self.method == "compressed-tensors" {
            return self.of_groups(module);
        }
        self.quantized(self.place.name, self.place.settings)
    }

    /// The first group that names the module, or else its class.
    fn of_groups(&self, module: &str) -> Coverage<'_> {
        let named = |group: &&Group| group.targets.iter().any(|entry| entry.matches(module));
        if self.groups.iter().flat_map(|group| &group.targets).any(Entry::is_unknown) {
            return Coverage::Unsaid;
        }
        let group = self.groups.iter().find(named).or_else(|| {
            let takes_classes = |group: &&Group| group.classes;
            self.groups.iter().find(takes_classes)
        });
        let Some(group) = group else { return Coverage::Untargeted };
        Coverage::Quantized(Settings {
            at: &group.name,
            weights: &group.value["weights"],
            inputs: &group.value["input_activations"],
            format: group.value["format"]
                .as_str()
                .or(self.place.settings["format"].as_str())
                .unwrap_or_default(),
        })
    }

    fn quantized<'s>(&'s self, at: &'s str, settings: &'s Value) -> Coverage<'s> {
        let (weights, inputs) = match self.method.as_str() {
            "quark" => {
                let common = &settings["global_quant_config"];
                (&common["weight"], &common["input_tensors"])
            }
            "modelopt" => match self.groups.first() {
                Some(group) => (&group.value["weights"], &group.value["input_activations"]),
                None => (settings, &Value::Null),
            },
            _ => (settings, &Value::Null),
        };
        Coverage::Quantized(Settings { at, weights, inputs, format: "" })
    }
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
        Value::Array(items) => items.iter().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

fn groups(settings: &Value) -> Vec<Group<'_>> {
    let groups = settings["config_groups"].as_object().into_iter().flatten();
    groups
        .map(|(name, value)| {
            let targets = strings(&value["targets"]);
            let is_class = |target: &String| {
                !target.starts_with("re:")
                    && !target.contains('.')
                    && target.starts_with(|c: char| c.is_ascii_uppercase())
            };
            // Without targets, nothing says that a module is left out.
            let classes = targets.is_empty() || targets.iter().any(is_class);
            let targets = targets.iter().filter(|target| !is_class(target));
            Group {
                name: format!("config_groups.{name}"),
                targets: targets.map(|text| Entry::new(text, Rule::Exact)).collect(),
                classes,
                value,
            }
        })
        .collect()
}

fn dynamic<'a>(settings: &'a Value, method: &str) -> Vec<(String, Option<Regex>, Dynamic<'a>)> {
    let key = match method {
        "gptq" => "dynamic",
        "auto-round" => "extra_config",
        _ => return Vec::new(),
    };
    let rules = settings[key].as_object().into_iter().flatten();
    rules
        .map(|(text, value)| {
            let bare = text.strip_prefix("-:").or(text.strip_prefix("+:")).unwrap_or(text);
            let pattern =
                if method == "auto-round" { format!(".*(?:{bare})") } else { bare.to_owned() };
            // AutoRound's "16 bits" leaves a module as it was, which may have been quantized before.
            let plain = value["bits"].as_u64().is_some_and(|bits| bits >= 16);
            let rule = if text.starts_with("-:") {
                Dynamic::Excludes
            } else if plain {
                Dynamic::LeavesAlone
            } else {
                Dynamic::Sets(value)
            };
            (text.clone(), regex(&pattern), rule)
        })
        .collect()
}
