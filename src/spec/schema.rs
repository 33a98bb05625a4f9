/*!
The JSON schema of spec files, made of the table of keys, for editors and validators.
*/

use serde_json::{Map, Value, json};

use super::keys::{ALONE, Key, Kind, MADE_OF, SPEC, Shape};

/// The schema as it is committed.
pub const SCHEMA: &str = include_str!("../../schema/spec.schema.json");

/// Makes the schema of the table of keys.
pub fn schema() -> Value {
    let mut definitions = Map::new();
    let mut root = table(&SPEC, &mut definitions);
    if let Value::Object(root) = &mut root {
        root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        root.insert("title".into(), "qualm spec".into());
        root.insert("$defs".into(), Value::Object(definitions));
    }
    root
}

/// The schema of a table; those of the tables in it are added to the definitions.
fn table(shape: &'static Shape, definitions: &mut Map<String, Value>) -> Value {
    let properties: Map<String, Value> =
        shape.all().map(|key| (key.name.to_owned(), property(key, definitions))).collect();
    let required: Vec<_> = shape.all().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": shape.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if MADE_OF.iter().all(|names| names.iter().all(|name| shape.key(name).is_some())) {
        schema["oneOf"] = MADE_OF.iter().map(|names| made_of(shape, names)).collect();
    }
    schema
}

/// A table with these keys; if they compare nothing, without those that do.
fn made_of(shape: &'static Shape, names: &[&str]) -> Value {
    let mut schema = json!({ "required": names });
    if names.iter().all(|name| ALONE.contains(name)) {
        let others = shape.all().filter(|key| !ALONE.contains(&key.name));
        let others: Vec<_> = others.map(|key| json!({ "required": [key.name] })).collect();
        schema["not"] = json!({ "anyOf": others });
    }
    schema
}

fn property(key: &'static Key, definitions: &mut Map<String, Value>) -> Value {
    let mut schema = match &key.kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Texts => json!({ "type": "array", "items": text() }),
        Kind::OneOrMoreTexts | Kind::Globs => {
            json!({ "anyOf": [text(), { "type": "array", "items": text() }] })
        }
        Kind::Choice(names) => json!({ "enum": names }),
        Kind::OneOrMoreChoices(names) => {
            let one = json!({ "enum": names });
            json!({ "anyOf": [one.clone(), { "type": "array", "items": one }] })
        }
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Whole { least } => json!({ "type": "integer", "minimum": least }),
        Kind::Version => json!({ "const": 1 }),
        Kind::Number { least, most } => number(*least, *most),
        Kind::Bound(metric) => {
            let (least, most) = metric.bound_range();
            json!({ "anyOf": bound(["fail", "warn"], least, most) })
        }
        Kind::Gate(gate) => {
            let mut either = vec![json!({ "enum": ["on", "off"] })];
            if let Some(least) = gate.least_bound() {
                either.extend(bound(["fail", "warn"], least, f64::MAX));
            }
            json!({ "anyOf": either })
        }
        Kind::Range { least } => json!({ "anyOf": bound(["min", "max"], *least, f64::MAX) }),
        Kind::Date => json!({ "type": "string", "format": "date" }),
        Kind::Table(shape) => reference(shape, definitions),
        Kind::TableOrOff(shape) => {
            json!({ "anyOf": [{ "const": "off" }, reference(shape, definitions)] })
        }
        Kind::Tables(shape) => json!({ "type": "array", "items": reference(shape, definitions) }),
        Kind::OneOrMoreTables(shape) => {
            let one = reference(shape, definitions);
            json!({ "anyOf": [one.clone(), { "type": "array", "items": one }] })
        }
        Kind::Named(shape) => {
            json!({ "type": "object", "additionalProperties": reference(shape, definitions) })
        }
        Kind::Axes => json!({
            "type": "object",
            "additionalProperties": {
                "type": "array",
                "items": { "type": ["string", "integer"] },
                "minItems": 1,
                "uniqueItems": true,
            },
        }),
    };
    schema["description"] = json!(key.doc);
    schema
}

fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn number(least: f64, most: f64) -> Value {
    let mut schema = json!({ "type": "number" });
    if least > f64::MIN {
        schema["minimum"] = json!(least);
    }
    if most < f64::MAX {
        schema["maximum"] = json!(most);
    }
    schema
}

/// A number, or a table of the two.
fn bound(names: [&str; 2], least: f64, most: f64) -> [Value; 2] {
    let table = json!({
        "type": "object",
        "properties": { names[0]: number(least, most), names[1]: number(least, most) },
        "additionalProperties": false,
        "minProperties": 1,
    });
    [number(least, most), table]
}

/// A reference to a table's definition, which is added if it is not there yet.
fn reference(shape: &'static Shape, definitions: &mut Map<String, Value>) -> Value {
    let name = shape.heading;
    if !definitions.contains_key(name) {
        // The name is taken first, should a table ever hold one of its own kind.
        definitions.insert(name.to_owned(), Value::Null);
        let definition = table(shape, definitions);
        definitions.insert(name.to_owned(), definition);
    }
    json!({ "$ref": format!("#/$defs/{name}") })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::{LoadOptions, parse};
    use super::*;

    const EXAMPLE: &str = include_str!("tests/design.toml");

    /// A TOML document as JSON, dates as strings.
    fn as_json(text: &str) -> Value {
        fn convert(value: toml::Value) -> Value {
            match value {
                toml::Value::Datetime(date) => json!(date.to_string()),
                toml::Value::Array(items) => items.into_iter().map(convert).collect(),
                toml::Value::Table(table) => Value::Object(
                    table.into_iter().map(|(key, value)| (key, convert(value))).collect(),
                ),
                other => serde_json::to_value(other).unwrap(),
            }
        }
        convert(toml::Value::Table(text.parse().unwrap()))
    }

    fn is_valid(text: &str) -> bool {
        let mut compiler = boon::Compiler::new();
        compiler.enable_format_assertions();
        compiler.add_resource("spec.json", schema()).unwrap();
        let mut schemas = boon::Schemas::new();
        let index = compiler.compile("spec.json", &mut schemas).unwrap();
        schemas.validate(&as_json(text), index).is_ok()
    }

    /// Run with `UPDATE_SCHEMA=1` after changing the table of keys.
    #[test]
    fn the_committed_schema_is_current() {
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/spec.schema.json");
            let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
            std::fs::write(path, text).unwrap();
            return;
        }
        let committed: Value = serde_json::from_str(SCHEMA).unwrap();
        assert!(committed == schema(), "run the tests with UPDATE_SCHEMA=1 and commit the result");
    }

    #[test]
    fn accepts_the_example_and_rejects_what_the_reader_rejects() {
        assert!(is_valid(EXAMPLE));
        for (from, to, why) in [
            ("tensor.cosine = 0.95 ", "tensor.cosin = 0.95 ", "unknown metric"),
            ("tags = [", "tag = [", "unknown key"),
            ("schema = 1", "schema = 2", "version"),
            ("schema = 1", "", "no version"),
            ("global.cosine = { fail", "global.cosine = { fial", "unknown key in a bound"),
            ("cosine  = 0.998", "cosine = 1.5", "bound out of range"),
            ("until   = 2027-01-31", "", "undated waiver"),
            ("reason  = \"tied", "reasons = \"tied", "waiver without reason"),
            ("roundtrip = \"q4_0\"", "", "neither quantized nor roundtrip"),
            ("roundtrip = \"q4_0\"", "quantized = \"a\"\nroundtrip = \"q4_0\"", "both"),
            ("roundtrip = \"q4_0\"", "verify = \"a\"", "verify with a reference"),
            ("tensors = \"blk", "tensors = 1 # ", "type"),
        ] {
            let text = EXAMPLE.replacen(from, to, 1);
            assert_ne!(text, EXAMPLE, "{why}: nothing replaced");
            assert!(!is_valid(&text), "the schema accepts: {why}");
            let options = LoadOptions { encodes: |_, _| true, ..LoadOptions::default() };
            let read = parse(text.as_bytes(), Path::new("a.toml"), Path::new(""), &options);
            assert!(read.is_err(), "the reader accepts: {why}");
        }
    }

    #[test]
    fn accepts_the_suite_and_the_examples_of_the_documentation() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let manual = std::fs::read_to_string(root.join("docs/spec.md")).unwrap();
        let examples = manual.split("```toml\n").skip(1).filter_map(|it| it.split("```").next());
        let mut texts: Vec<String> = examples.map(str::to_owned).collect();
        for path in super::super::discover(&root.join("specs")).unwrap() {
            texts.push(std::fs::read_to_string(path).unwrap());
        }
        assert!(texts.len() > 5);
        for text in texts {
            assert!(is_valid(&text), "{text}");
        }
    }

    #[test]
    fn the_schema_has_the_reader_s_keys_and_no_others() {
        let schema = schema();
        for shape in SPEC.family() {
            let definition = match shape.heading {
                "" => &schema,
                heading => &schema["$defs"][heading],
            };
            let listed: BTreeSet<&str> =
                definition["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            let read: BTreeSet<&str> = shape.all().map(|key| key.name).collect();
            assert_eq!(listed, read, "[{}]", shape.heading);
            assert_eq!(definition["additionalProperties"], false);
        }
        let definitions = schema["$defs"].as_object().unwrap();
        assert_eq!(definitions.len() + 1, SPEC.family().len());
    }
}
