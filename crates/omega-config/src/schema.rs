//! The JSON Schema of the configuration file, for editors and `omega check --schema`.
//!
//! Written from the same table as everything else. It accepts no file that loading refuses for its keys, types or
//! ranges; rules between settings are beyond a schema.

use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::keys::{self, Key, Place};
use crate::value::Kind;

/// The schema, draft 2020-12.
pub fn schema() -> Value {
    let defaults = Config::default();
    let mut root = section("The settings of OMEGA. A section or key without a value counts as not given.");
    for key in keys::all() {
        insert(&mut root, &key.path.split('.').collect::<Vec<_>>(), leaf(key, &defaults));
    }
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("config/resilience.yaml");
    // The document itself is a section or empty.
    root
}

fn section(description: &str) -> Value {
    json!({
        "description": description,
        "type": ["object", "null"],
        "properties": {},
        "additionalProperties": false,
    })
}

/// Puts `leaf` at `path` below `parent`, making the sections on the way.
fn insert(parent: &mut Value, path: &[&str], leaf: Value) {
    let Some((first, rest)) = path.split_first() else { return };
    if first.starts_with('<') {
        if rest.is_empty() {
            parent["additionalProperties"] = leaf;
            return;
        }
        let named = parent["additionalProperties"].is_object();
        if !named {
            parent["additionalProperties"] = section(description_of_name(first));
        }
        return insert(&mut parent["additionalProperties"], rest, leaf);
    }
    if rest.is_empty() {
        parent["properties"][*first] = leaf;
        return;
    }
    let inner = &mut parent["properties"][*first];
    if inner.is_null() {
        *inner = section(&format!("The section `{first}`."));
    } else if inner["type"] == json!(["string", "null"]) {
        // A key that may also be a section, in which it is called `url`.
        let mut below = section("The same with more keys.");
        below["properties"]["url"] = inner.clone();
        *inner = json!({"description": inner["description"], "default": inner["default"], "anyOf": [inner, below]});
    }
    match inner.get("anyOf") {
        Some(_) => insert(&mut inner["anyOf"][1], rest, leaf),
        None => insert(inner, rest, leaf),
    }
}

fn description_of_name(name: &str) -> &'static str {
    match name {
        "<key>" => "One caller of a gateway, by the name it has in logs and statistics.",
        "<model>" => "Limits of one model, inside the provider's.",
        "<provider>" => {
            "Limits of one provider: openai, anthropic, google, grok, or one declared under `providers`."
        }
        _ => "One provider: openai, anthropic, google, grok, or any other server.",
    }
}

fn leaf(key: &Key, defaults: &Config) -> Value {
    let mut rule = match key.kind {
        Kind::Switch => json!({"type": ["boolean", "null"]}),
        Kind::Count { min, max } => json!({"type": ["integer", "null"], "minimum": min, "maximum": max}),
        Kind::Number { min, max } | Kind::Seconds { min, max } => {
            json!({"type": ["number", "null"], "minimum": min, "maximum": max})
        }
        Kind::Word(words) => {
            let mut choices: Vec<Value> = words
                .iter()
                .map(|word| match *word {
                    "true" => json!(true),
                    "false" => json!(false),
                    word => json!(word),
                })
                .collect();
            choices.push(Value::Null);
            json!({"enum": choices})
        }
        Kind::Text { .. } => json!({"type": ["string", "null"], "minLength": 1}),
        Kind::List { .. } => json!({
            "anyOf": [
                {"type": "array", "items": {"type": "string", "minLength": 1}},
                {"type": ["string", "null"]},
            ],
        }),
        Kind::Headers => json!({"type": ["object", "null"], "additionalProperties": {"type": "string"}}),
    };
    if let Some(word) = key.absent {
        // An editor that reads YAML 1.1 sees a plain `off` as false.
        let words = if word == "off" { json!([word, false]) } else { json!([word]) };
        rule = json!({"anyOf": [rule, {"enum": words}]});
    }
    let mut described = Map::new();
    let variables = key.variables_documented();
    let description = match variables.as_slice() {
        [] => String::from(key.meaning),
        names => format!("{} Variable: {}.", key.meaning, names.join(" or ")),
    };
    described.insert(String::from("description"), json!(description));
    if !key.is_named() {
        let default = (key.get)(defaults, &Place::default()).to_json(key.absent);
        if !default.is_null() {
            described.insert(String::from("default"), default);
        }
    }
    if let Value::Object(rule) = rule {
        described.extend(rule);
    }
    Value::Object(described)
}
