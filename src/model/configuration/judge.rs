/*! A configuration against the planes, module by module. */

use std::collections::BTreeMap;

use serde_json::Value;

use super::coverage::{Config, Coverage, Settings, fused_name};
use super::finding::{Code, ConfigFinding, Severity};
use super::keys;
use super::matching::bare;
use super::observe::{Kind, Module, modules};
use super::places::Places;
use crate::codec::TensorType;
use crate::model::Plane;

/// Longest plane whose values are looked at, in bytes.
const LONGEST: u64 = 4 << 20;

/// Reads the stored bytes of a plane; none if that is not possible.
pub type Bytes<'a> = dyn Fn(&Plane) -> Option<Vec<u8>> + 'a;

/// What the configuration says against the planes of a checkpoint, in order of modules, findings about
/// the whole first. None if no quantization is configured.
pub fn judge(places: &Places, planes: &[Plane], bytes: &Bytes) -> Option<Vec<ConfigFinding>> {
    let modules = modules(planes);
    let mut found = Vec::new();
    if let Some(place) = places.mlx() {
        mlx(place.settings, &modules, &mut found);
    } else {
        let config = Config::of(places)?;
        keys::judge(places, &config, &modules, &mut found);
        if config.is_resolved() {
            let judge = Judge { config: &config, places, modules: &modules, bytes };
            judge.modules(&mut found);
        }
    }
    found.sort_by(|a, b| (&a.module, a.code).cmp(&(&b.module, b.code)));
    found.dedup();
    Some(found)
}

struct Judge<'a> {
    config: &'a Config<'a>,
    places: &'a Places,
    modules: &'a [Module<'a>],
    bytes: &'a Bytes<'a>,
}

/// Layouts that a method's planes can have; empty if any.
fn layouts(method: &str, format: &str) -> &'static [Kind] {
    match (method, format) {
        ("compressed-tensors", "pack-quantized") => &[Kind::Packed],
        ("compressed-tensors", "nvfp4-pack-quantized") => &[Kind::Nvfp4],
        ("compressed-tensors", "mxfp4-pack-quantized") => &[Kind::Mxfp4],
        ("compressed-tensors", "float-quantized") | ("fp8", _) => &[Kind::Fp8],
        ("compressed-tensors", "int-quantized") => &[Kind::Int8],
        ("compressed-tensors", "naive-quantized") => &[Kind::Fp8, Kind::Int8],
        ("gptq", _) => &[Kind::Gptq],
        _ => &[],
    }
}

impl Judge<'_> {
    fn modules(&self, found: &mut Vec<ConfigFinding>) {
        let mut states: BTreeMap<String, Vec<(&str, bool)>> = BTreeMap::new();
        let mut agrees = Vec::new();
        for module in self.modules {
            let weight = module.kind != Kind::Plain || module.is_linear();
            let has_weight =
                [".weight", ".weight_packed", ".qweight"].iter().any(|it| module.has(it));
            if !weight || !has_weight {
                continue;
            }
            let before = found.len();
            self.module(module, found);
            if found.len() == before && module.kind != Kind::Other {
                agrees.push(module);
            }
        }
        for module in agrees {
            if let Some(fused) = fused_name(&module.name) {
                let states = states.entry(fused).or_default();
                states.push((&module.name, module.kind != Kind::Plain));
            }
        }
        fused(&states, found);
        self.global_scales(found);
        self.kv_scales(found);
        self.dead_entries(found);
    }

    /// One module: whether it is quantized as is said, and how.
    fn module(&self, module: &Module, found: &mut Vec<ConfigFinding>) {
        let name = &module.name;
        let quantized = module.kind != Kind::Plain;
        match self.config.coverage(name) {
            Coverage::Excluded(entry) if quantized => {
                let message = format!(
                    "is stored quantized ({}), and {}'s {entry} leaves it plain",
                    module.kind.name(),
                    self.config.place.name
                );
                found.push(ConfigFinding::of(Code::IgnoredButQuantized, name, message));
            }
            Coverage::Untargeted if quantized => {
                let message = format!(
                    "is stored quantized ({}), and no group of config_groups targets it",
                    module.kind.name()
                );
                found.push(ConfigFinding::of(Code::TargetUnmatched, name, message));
            }
            Coverage::Quantized(settings) if !quantized => self.plain(module, &settings, found),
            Coverage::Quantized(settings) => self.quantized(module, &settings, found),
            _ => {}
        }
    }

    /// A plain module that is said to be quantized.
    fn plain(&self, module: &Module, settings: &Settings, found: &mut Vec<ConfigFinding>) {
        // Without any quantized module the planes are plain throughout, and with GPTQ the types of the
        // stored planes decide.
        let any =
            self.modules.iter().any(|module| module.kind != Kind::Plain && !module.has(".k_scale"));
        if !any
            || matches!(self.config.method.as_str(), "gptq" | "modelopt" | "auto-round")
                && settings.at == self.config.place.name
        {
            return;
        }
        let ty = module.planes[".weight"].ty;
        let message = format!(
            "is stored as {ty}, and {} says that it is quantized; no exclusion names it",
            settings.at
        );
        found.push(ConfigFinding::of(Code::QuantizedButPlain, &module.name, message));
    }

    fn quantized(&self, module: &Module, settings: &Settings, found: &mut Vec<ConfigFinding>) {
        let expected = layouts(&self.config.method, settings.format);
        if !expected.is_empty() && !expected.contains(&module.kind) && module.kind != Kind::Other {
            let said =
                if settings.format.is_empty() { &self.config.method } else { settings.format };
            let message =
                format!("its planes are {}, and {} says {said}", module.kind.name(), settings.at);
            found.push(ConfigFinding::of(Code::FormatDisagrees, &module.name, message));
            return;
        }
        match module.kind {
            Kind::Packed => self.packed(module, settings, found),
            Kind::Fp8 | Kind::Int8 => spread(module, settings, found),
            Kind::Nvfp4 | Kind::ModelOptNvfp4 | Kind::Mxfp4 => nibbles(module, settings, found),
            Kind::Gptq => self.gptq(module, settings, found),
            Kind::Awq | Kind::AwqGemv => awq(module, settings, found),
            _ => {}
        }
        self.inputs(module, settings, found);
    }

    /// Codes of compressed-tensors in 32-bit words.
    fn packed(&self, module: &Module, settings: &Settings, found: &mut Vec<ConfigFinding>) {
        let name = &module.name;
        if settings.weights["symmetric"] == true && module.has(".weight_zero_point") {
            let message = format!("stores weight_zero_point, and {} says symmetric", settings.at);
            found.push(ConfigFinding::of(Code::ZeroPointDisagrees, name, message));
        }
        if settings.weights["symmetric"] == false && !module.has(".weight_zero_point") {
            let message =
                format!("stores no weight_zero_point, and {} says not symmetric", settings.at);
            found.push(ConfigFinding::of(Code::ZeroPointDisagrees, name, message));
        }
        let shape = module.planes.get(".weight_shape").and_then(|plane| self.integers(plane));
        let (Some(&[_, cols]), Some((_, words))) = (
            shape.as_deref().and_then(|shape| shape.first_chunk::<2>()),
            module.matrix(".weight_packed"),
        ) else {
            return;
        };
        let Ok(cols) = u64::try_from(cols) else { return };
        let fits = |bits: u64| {
            let loose = cols.div_ceil((32 / bits).max(1));
            [cols.saturating_mul(bits).div_ceil(32), loose].contains(&words)
        };
        if let Some(bits) =
            settings.weights["num_bits"].as_u64().filter(|bits| (1..=32).contains(bits))
            && !fits(bits)
        {
            let stored = (1..=16).find(|&bits| fits(bits));
            let stored =
                stored.map_or_else(|| "no width".to_owned(), |bits| format!("{bits} bits"));
            let message = format!(
                "{words} words for {cols} inputs are {stored}, and {} says num_bits {bits}",
                settings.at
            );
            found.push(ConfigFinding::of(Code::BitsDisagree, name, message));
            return;
        }
        groups(module, ".weight_scale", cols, settings, found);
    }

    fn gptq(&self, module: &Module, settings: &Settings, found: &mut Vec<ConfigFinding>) {
        let name = &module.name;
        let (Some((rows, outs)), Some((groups, zero_words))) =
            (module.matrix(".qweight"), module.matrix(".qzeros"))
        else {
            return;
        };
        let common = self.config.place.settings;
        let setting = |key: &str| settings.weights.get(key).unwrap_or(&common[key]);
        let stored = zero_words.saturating_mul(32).checked_div(outs).unwrap_or(0);
        if stored == 0 || groups == 0 {
            return;
        }
        if let Some(bits) = setting("bits").as_u64().filter(|&bits| bits != stored) {
            let message =
                format!("its words are {stored} bits a code, and {} says bits {bits}", settings.at);
            found.push(ConfigFinding::of(Code::BitsDisagree, name, message));
            return;
        }
        let cols = rows.saturating_mul(32) / stored;
        let said = setting("group_size").as_i64();
        if let Some(said) = said
            && (if said > 0 { cols.div_ceil(said as u64) } else { 1 }) != groups
        {
            let message = format!(
                "its scales are groups of {}, and {} says group_size {said}",
                cols.div_ceil(groups),
                settings.at
            );
            found.push(ConfigFinding::of(Code::GroupSizeDisagrees, name, message));
            return;
        }
        // The last group may be shorter.
        let length = said.and_then(|size| u64::try_from(size).ok()).filter(|&size| size > 0);
        self.gptq_order(
            module,
            length.unwrap_or_else(|| cols.div_ceil(groups)),
            setting("desc_act"),
            found,
        );
        self.gptq_zeros(module, stored, setting, found);
    }

    /// Without act-order, element c belongs to group c / length.
    fn gptq_order(
        &self,
        module: &Module,
        length: u64,
        desc_act: &Value,
        found: &mut Vec<ConfigFinding>,
    ) {
        if *desc_act != false {
            return;
        }
        let index = module.planes.get(".g_idx").and_then(|plane| self.integers(plane));
        let wrong = index.and_then(|index| {
            index.iter().zip(0u64..).position(|(&group, c)| group != (c / length) as i64)
        });
        if let Some(at) = wrong {
            let message = format!(
                "desc_act is false, and g_idx is not that of groups in order (first at input {at}): \
                 vLLM drops it, SGLang does not use it"
            );
            found.push(ConfigFinding::of(Code::ActOrderDisagrees, &module.name, message));
        }
    }

    /// Symmetric zero points stand for half the codes: less one in files of format `gptq`.
    fn gptq_zeros<'s>(
        &self,
        module: &Module,
        bits: u64,
        setting: impl Fn(&str) -> &'s Value,
        found: &mut Vec<ConfigFinding>,
    ) {
        if *setting("sym") != true || !32u64.is_multiple_of(bits) {
            return;
        }
        let word = |code: u64| (0..32 / bits).fold(0u64, |word, at| word | code << (at * bits));
        let format = [setting("checkpoint_format"), setting("format")];
        let format = format.into_iter().find_map(Value::as_str).unwrap_or("gptq");
        let half = 1u64 << (bits - 1);
        let (own, other) = match format {
            "gptq" => (word(half - 1), word(half)),
            "gptq_v2" => (word(half), word(half - 1)),
            _ => return,
        };
        let Some(words) = module.planes.get(".qzeros").and_then(|plane| self.words(plane)) else {
            return;
        };
        let all = |value: u64| words.iter().all(|&word| u64::from(word) == value);
        if words.is_empty() || all(own) {
            return;
        }
        if all(other) {
            let message = format!(
                "its zero points ({other:#010x}) are symmetric only by the other convention, and the \
                 format is {format}: readers of qzeros are off by one"
            );
            found.push(ConfigFinding::of(Code::ZeroPointConvention, &module.name, message));
        } else {
            let message = "sym is true, and its zero points are not those of a symmetric scheme: \
                           vLLM and SGLang do not read them";
            found.push(ConfigFinding::of(Code::ZeroPointDisagrees, &module.name, message));
        }
    }

    /// Scales of activations, where the configuration says whether there are any.
    fn inputs(&self, module: &Module, settings: &Settings, found: &mut Vec<ConfigFinding>) {
        let plane = match module.kind {
            Kind::Nvfp4 => ".input_global_scale",
            Kind::Fp8 | Kind::Int8 | Kind::ModelOptNvfp4 => ".input_scale",
            _ => return,
        };
        let wanted = match self.config.method.as_str() {
            "fp8" => match self.config.place.settings["activation_scheme"].as_str() {
                Some("static") => Some((true, "activation_scheme is static".to_owned())),
                Some("dynamic") => Some((false, "activation_scheme is dynamic".to_owned())),
                _ => None,
            },
            "compressed-tensors" | "modelopt" if self.config.has_groups() => {
                let at = settings.at;
                match (settings.inputs, &settings.inputs["dynamic"]) {
                    (Value::Null, _) => Some((false, format!("{at} has no input_activations"))),
                    (_, Value::Bool(true)) => {
                        Some((false, format!("{at} has dynamic activations")))
                    }
                    (_, _) if settings.inputs.is_object() => {
                        Some((true, format!("{at} has static input_activations")))
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        let Some((wanted, why)) = wanted else { return };
        let short = &plane[1..];
        match (wanted, module.has(plane)) {
            (true, false) => {
                let message =
                    format!("stores no {short}, and {why}: engines compute with no scale");
                found.push(ConfigFinding::of(Code::InputScaleMissing, &module.name, message));
            }
            (false, true) => {
                let message =
                    format!("stores {short}, and {why}: vLLM refuses it, SGLang drops it");
                let mut finding =
                    ConfigFinding::of(Code::InputScaleUnexpected, &module.name, message);
                if settings.inputs.is_null() && self.config.has_groups() {
                    // Nothing is said of activations: the weights are read as they should be.
                    finding.severity = Severity::Warning;
                }
                found.push(finding);
            }
            _ => {}
        }
    }

    /// NVFP4 scales of a whole tensor inside a fused module: engines use one for all.
    fn global_scales(&self, found: &mut Vec<ConfigFinding>) {
        let mut scales: BTreeMap<String, Vec<(&str, Vec<u8>)>> = BTreeMap::new();
        for module in self.modules {
            let plane = [".weight_global_scale", ".weight_scale_2"];
            let plane = plane.iter().find_map(|suffix| module.planes.get(suffix));
            let (Some(plane), Some(fused)) = (plane, fused_name(&module.name)) else { continue };
            if let Some(bytes) = (self.bytes)(plane).filter(|bytes| bytes.len() <= 8) {
                scales.entry(fused).or_default().push((&module.name, bytes));
            }
        }
        for (fused, scales) in scales {
            if scales.windows(2).any(|pair| pair[0].1 != pair[1].1) {
                let parts: Vec<&str> =
                    scales.iter().filter_map(|(name, _)| name.rsplit('.').next()).collect();
                let message = format!(
                    "the scale of the tensor differs between {}, and engines use one of them",
                    parts.join(", ")
                );
                found.push(ConfigFinding::of(Code::GlobalScaleDisagrees, &fused, message));
            }
        }
    }

    /// Scales of the KV cache: declared and not there, or only one of the two.
    fn kv_scales(&self, found: &mut Vec<ConfigFinding>) {
        let spelled = |module: &Module, letter: &str| {
            module.has(&format!(".{letter}_scale"))
                || module.name.ends_with(&format!("{letter}_proj")) && module.has(".output_scale")
        };
        let attention = |module: &Module| {
            let parent = module.name.rsplit_once('.').filter(|(_, last)| last.ends_with("_proj"));
            parent.map_or(module.name.clone(), |(parent, _)| parent.to_owned())
        };
        let mut layers: BTreeMap<String, [bool; 2]> = BTreeMap::new();
        let mut common = false;
        for module in self.modules {
            common |= module.has(".kv_scale");
            for (at, letter) in ["k", "v"].into_iter().enumerate() {
                if spelled(module, letter) {
                    layers.entry(attention(module)).or_default()[at] = true;
                }
            }
        }
        for (layer, [k, v]) in &layers {
            if k != v {
                let (there, lost) =
                    if *k { ("k_scale", "v_scale") } else { ("v_scale", "k_scale") };
                let message = format!("stores {there} without {lost}");
                found.push(ConfigFinding::of(Code::KvScaleMissing, layer, message));
            }
        }
        let declared = self.places.all().find_map(|place| {
            let keys = ["kv_cache_scheme", "kv_cache_quant_algo"];
            keys.into_iter().find(|key| {
                let value = &place.settings[*key];
                value.is_object() && value["dynamic"] != true || value.is_string()
            })
        });
        if let Some(key) = declared
            && layers.is_empty()
            && !common
        {
            let message =
                format!("{key} is set, and no scale of the KV cache is stored: engines take 1.0");
            found.push(ConfigFinding::whole(Code::KvScaleMissing, message));
        }
    }

    /// Entries of lists that match no module.
    fn dead_entries(&self, found: &mut Vec<ConfigFinding>) {
        let tied = self.places.model()["tie_word_embeddings"] == true;
        for (key, entry) in self.config.exclusions() {
            let head = bare(&entry.text).trim_start_matches("re:").contains("lm_head");
            let class = entry.text.starts_with(|c: char| c.is_ascii_uppercase());
            let used = self
                .modules
                .iter()
                .any(|module| entry.matches(&module.name) || covers(&entry.text, &module.name));
            if !(used || entry.is_unknown() || class || head && (tied || self.has_no_head())) {
                let message = format!("{key} entry {:?} matches no stored module", entry.text);
                found.push(ConfigFinding::whole(Code::EntryDead, message));
            }
        }
    }

    fn has_no_head(&self) -> bool {
        !self.modules.iter().any(|module| module.name.ends_with("lm_head"))
    }

    fn words(&self, plane: &Plane) -> Option<Vec<u32>> {
        if plane.at.len > LONGEST {
            return None;
        }
        let bytes = (self.bytes)(plane)?;
        Some(bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }

    fn integers(&self, plane: &Plane) -> Option<Vec<i64>> {
        match plane.ty {
            TensorType::I64 if plane.at.len <= LONGEST => {
                let bytes = (self.bytes)(plane)?;
                Some(bytes.as_chunks::<8>().0.iter().map(|it| i64::from_le_bytes(*it)).collect())
            }
            TensorType::I32 => {
                let words = self.words(plane)?;
                Some(words.into_iter().map(|word| i64::from(word.cast_signed())).collect())
            }
            _ => None,
        }
    }
}

/// An entry that names a part of a name, or a parent: it matches something, whoever reads it.
fn covers(entry: &str, module: &str) -> bool {
    let entry = bare(entry.trim_start_matches("re:"));
    let plain = |c: char| c.is_ascii_alphanumeric() || "._".contains(c);
    !entry.is_empty() && entry.chars().all(plain) && bare(module).contains(entry)
}

/// Of parts that each are as is said, some are quantized and some are not.
fn fused(states: &BTreeMap<String, Vec<(&str, bool)>>, found: &mut Vec<ConfigFinding>) {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    for (fused, parts) in states {
        let (quantized, plain): (Vec<_>, Vec<_>) =
            parts.iter().partition(|(_, quantized)| *quantized);
        if quantized.is_empty() || plain.is_empty() {
            continue;
        }
        let names = |parts: &[&(&str, bool)]| -> String {
            parts.iter().map(|(name, _)| last(name)).collect::<Vec<_>>().join(", ")
        };
        let message = format!(
            "{} plain and {} quantized, and engines fuse them into one module",
            names(&plain),
            names(&quantized)
        );
        found.push(ConfigFinding::of(Code::FusedDisagree, fused, message));
    }
}

/// Groups along the inputs: the number of columns of the scales.
fn groups(
    module: &Module,
    plane: &str,
    cols: u64,
    settings: &Settings,
    found: &mut Vec<ConfigFinding>,
) {
    let Some((_, count)) = module.matrix(plane) else { return };
    if count == 0 {
        return;
    }
    let size = settings.weights["group_size"].as_i64().filter(|&size| size > 0);
    let expected = size.map_or(1, |size| cols.div_ceil(size as u64));
    let strategy = settings.weights["strategy"].as_str().unwrap_or_default();
    if strategy == "block" || expected == count || size.is_none() && strategy.is_empty() {
        return;
    }
    let said =
        size.map_or_else(|| format!("strategy {strategy:?}"), |size| format!("group_size {size}"));
    let message = format!(
        "its scales are groups of {}, and {} says {said}",
        cols.div_ceil(count),
        settings.at
    );
    let code = if size.is_some() { Code::GroupSizeDisagrees } else { Code::StrategyDisagrees };
    found.push(ConfigFinding::of(code, &module.name, message));
}

/// One scale a tensor, row or block of whole codes.
fn spread(module: &Module, settings: &Settings, found: &mut Vec<ConfigFinding>) {
    let Some((rows, cols)) = module.matrix(".weight") else { return };
    let suffix = [".weight_scale", ".weight_scale_inv"].into_iter().find(|it| module.has(it));
    let Some((suffix, grid)) = suffix.and_then(|suffix| Some((suffix, module.matrix(suffix)?)))
    else {
        return;
    };
    let size = &settings.weights["weight_block_size"];
    let size = if size.is_array() { size } else { &settings.weights["block_structure"] };
    let block =
        size.as_array().and_then(|size| Some((size.first()?.as_u64()?, size.get(1)?.as_u64()?)));
    if let Some((height, width)) = block.filter(|&(height, width)| height > 0 && width > 0) {
        if grid != (rows.div_ceil(height), cols.div_ceil(width)) {
            let (grid_rows, grid_cols) = grid;
            let message = format!(
                "{} is [{grid_rows}, {grid_cols}], blocks of {}x{}, and {} says {height}x{width}",
                &suffix[1..],
                rows.div_ceil(grid_rows.max(1)),
                cols.div_ceil(grid_cols.max(1)),
                settings.at
            );
            found.push(ConfigFinding::of(Code::BlockSizeDisagrees, &module.name, message));
        }
        return;
    }
    let strategy = settings.weights["strategy"].as_str().unwrap_or_default();
    let stored = match grid {
        (1, 1) => "tensor",
        (_, 1) => "channel",
        _ => "group",
    };
    let fits = match strategy {
        "tensor" => stored == "tensor" || rows == 1,
        "channel" => stored == "channel" || rows == 1,
        "group" => return groups(module, suffix, cols, settings, found),
        _ => true,
    };
    if !fits {
        let message = format!(
            "its scales are one a {stored}, and {} says strategy {strategy:?}",
            settings.at
        );
        found.push(ConfigFinding::of(Code::StrategyDisagrees, &module.name, message));
    }
}

/// Codes of 4 or 6 bits in bytes.
fn nibbles(module: &Module, settings: &Settings, found: &mut Vec<ConfigFinding>) {
    let codes = module.matrix(".weight_packed").or(module.matrix(".weight"));
    let Some((_, bytes)) = codes else { return };
    let bits =
        settings.weights["num_bits"].as_u64().filter(|bits| (1..=8).contains(bits)).unwrap_or(4);
    groups(module, ".weight_scale", bytes.saturating_mul(8) / bits, settings, found);
}

fn awq(module: &Module, settings: &Settings, found: &mut Vec<ConfigFinding>) {
    let version = settings.weights["version"].as_str().unwrap_or("gemm").to_ascii_lowercase();
    let gemv = version.starts_with("gemv");
    if gemv != (module.kind == Kind::AwqGemv) {
        let message = format!(
            "its planes are {}, and {} says version {version}",
            module.kind.name(),
            settings.at
        );
        found.push(ConfigFinding::of(Code::FormatDisagrees, &module.name, message));
        return;
    }
    let (Some((rows, _)), Some((count, _))) = (module.matrix(".qweight"), module.matrix(".scales"))
    else {
        return;
    };
    let said =
        ["group_size", "q_group_size"].iter().find_map(|key| settings.weights[*key].as_i64());
    if let Some(said) = said.filter(|_| !gemv && count > 0)
        && (if said > 0 { rows.div_ceil(said as u64) } else { 1 }) != count
    {
        let message = format!(
            "its scales are groups of {}, and {} says group_size {said}",
            rows.div_ceil(count),
            settings.at
        );
        found.push(ConfigFinding::of(Code::GroupSizeDisagrees, &module.name, message));
    }
}

/// MLX: common settings, and objects or `false` by module.
fn mlx(settings: &Value, modules: &[Module], found: &mut Vec<ConfigFinding>) {
    for (key, value) in settings.as_object().into_iter().flatten() {
        let of_module = value.is_object() || *value == false;
        if of_module && !modules.iter().any(|module| module.name == *key) {
            let message = format!("override {key:?} matches no stored module");
            found.push(ConfigFinding::whole(Code::EntryDead, message));
        }
    }
    for module in modules.iter().filter(|module| module.kind == Kind::Mlx) {
        let of_module = &settings[module.name.as_str()];
        if *of_module == false {
            let message = "is stored quantized, and its override is false";
            found.push(ConfigFinding::of(Code::IgnoredButQuantized, &module.name, message));
            continue;
        }
        let setting = |key: &str, default: u64| {
            let places = [&of_module[key], &settings[key]];
            places.into_iter().find_map(Value::as_u64).unwrap_or(default)
        };
        let mode = of_module["mode"].as_str().or(settings["mode"].as_str()).unwrap_or("affine");
        let (size, bits) = match mode {
            "mxfp4" => (32, 4),
            "nvfp4" => (16, 4),
            "mxfp8" => (32, 8),
            _ => (64, 4),
        };
        let (size, bits) = (setting("group_size", size), setting("bits", bits));
        let (Some((_, words)), Some((_, count))) =
            (module.matrix(".weight"), module.matrix(".scales"))
        else {
            continue;
        };
        let cols = count.saturating_mul(size);
        if cols > 0 && cols.saturating_mul(bits).div_ceil(32) != words {
            let stored = words.saturating_mul(32) / cols;
            let message = format!(
                "{words} words and {count} groups of {size} are {stored} bits, and the settings in \
                 force say {bits}"
            );
            found.push(ConfigFinding::of(Code::BitsDisagree, &module.name, message));
        }
    }
}
