//! Makes a value that satisfies a JSON Schema (or Gemini's OpenAPI subset with upper-case types): for tool arguments
//! and structured output. Covers what the providers accept; an unknown construct yields the plainest value.

use serde_json::{Map, Value, json};

/// How deep a recursive schema is followed before optional parts are left out.
const DEPTH: usize = 12;

/// A value for a schema. Required properties are always present; optional ones where nothing is required.
pub(crate) fn example(schema: &Value) -> Value {
    value(schema, schema, DEPTH)
}

fn value(schema: &Value, root: &Value, depth: usize) -> Value {
    let Some(object) = schema.as_object() else { return json!({}) };
    if let Some(target) = object.get("$ref").and_then(Value::as_str) {
        let target = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return match target {
            Some(target) if depth > 0 => value(target, root, depth - 1),
            _ => Value::Null,
        };
    }
    if let Some(constant) = object.get("const") {
        return constant.clone();
    }
    if let Some(first) = object.get("enum").and_then(Value::as_array).and_then(|values| values.first()) {
        return first.clone();
    }
    if let Some(default) = object.get("default").filter(|default| !default.is_null()) {
        return default.clone();
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(options) = object.get(key).and_then(Value::as_array) {
            let plain = options.iter().find(|option| !is_null(option)).or(options.first());
            return plain.map_or(Value::Null, |option| value(option, root, depth.saturating_sub(1)));
        }
    }
    if let Some(parts) = object.get("allOf").and_then(Value::as_array) {
        return all_of(object, parts, root, depth);
    }
    match type_of(object).as_str() {
        "string" => Value::String(string(object)),
        "integer" => json!(number(object).ceil() as i64),
        "number" => json!(number(object)),
        "boolean" => Value::Bool(true),
        "null" => Value::Null,
        "array" => array(object, root, depth),
        _ => Value::Object(properties(object, root, depth)),
    }
}

/// The schema's type; of several, the first that is not null.
fn type_of(object: &Map<String, Value>) -> String {
    match object.get("type") {
        Some(Value::String(name)) => name.to_ascii_lowercase(),
        Some(Value::Array(names)) => names
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_ascii_lowercase)
            .find(|name| name != "null")
            .unwrap_or_else(|| "null".into()),
        _ => String::new(),
    }
}

fn is_null(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str).is_some_and(|name| name.eq_ignore_ascii_case("null"))
}

fn properties(object: &Map<String, Value>, root: &Value, depth: usize) -> Map<String, Value> {
    let required: Vec<&str> = object
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let Some(properties) = object.get("properties").and_then(Value::as_object) else { return Map::new() };
    properties
        .iter()
        .filter(|(name, _)| required.contains(&name.as_str()) || (required.is_empty() && depth > 0))
        .map(|(name, schema)| (name.clone(), value(schema, root, depth.saturating_sub(1))))
        .collect()
}

fn all_of(object: &Map<String, Value>, parts: &[Value], root: &Value, depth: usize) -> Value {
    let mut merged = properties(object, root, depth);
    for part in parts {
        match value(part, root, depth.saturating_sub(1)) {
            Value::Object(more) => merged.extend(more),
            other => return other,
        }
    }
    Value::Object(merged)
}

fn array(object: &Map<String, Value>, root: &Value, depth: usize) -> Value {
    let integer = |key: &str| object.get(key).and_then(Value::as_u64);
    let least = integer("minItems").unwrap_or(0);
    let most = integer("maxItems").unwrap_or(u64::MAX);
    let count = if depth == 0 { least } else { least.max(1).min(most) };
    // A bound: a schema may ask for a million items.
    let items = object.get("items").unwrap_or(&Value::Null);
    Value::Array((0..count.min(1_000)).map(|_| value(items, root, depth.saturating_sub(1))).collect())
}

fn number(object: &Map<String, Value>) -> f64 {
    let bound = |key: &str| object.get(key).and_then(Value::as_f64);
    let least = bound("minimum").or(bound("exclusiveMinimum").map(|least| least + 1.0));
    let most = bound("maximum").or(bound("exclusiveMaximum").map(|most| most - 1.0));
    let step = bound("multipleOf").filter(|step| *step > 0.0);
    let wanted = match (least, most) {
        (Some(least), _) => least,
        (None, Some(most)) => most.min(1.0),
        (None, None) => 1.0,
    };
    step.map_or(wanted, |step| (wanted / step).ceil() * step)
}

fn string(object: &Map<String, Value>) -> String {
    let text = match object.get("format").and_then(Value::as_str) {
        Some("date-time") => "2026-11-23T12:00:00Z",
        Some("date") => "2026-11-23",
        Some("time") => "12:00:00Z",
        Some("duration") => "PT1H",
        Some("email") => "someone@example.com",
        Some("hostname") => "example.com",
        Some("uri" | "url") => "https://example.com/",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        Some("ipv4") => "192.0.2.1",
        Some("ipv6") => "2001:db8::1",
        _ => "text",
    };
    let bound = |key: &str| object.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let least = bound("minLength").unwrap_or(0).min(10_000);
    let most = bound("maxLength").unwrap_or(usize::MAX);
    let mut text: String = text.chars().take(most).collect();
    while text.chars().count() < least {
        text.push('x');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_properties_are_present_with_values_of_their_types() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 6},
                "age": {"type": "integer", "minimum": 18},
                "mood": {"enum": ["calm", "wild"]},
                "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
                "note": {"type": "string"}
            },
            "required": ["name", "age", "mood", "tags"]
        });
        assert_eq!(
            example(&schema),
            json!({"name": "textxx", "age": 18, "mood": "calm", "tags": ["text", "text"]})
        );
    }

    #[test]
    fn without_required_properties_all_are_given() {
        let schema =
            json!({"type": "OBJECT", "properties": {"q": {"type": "STRING"}, "n": {"type": "NUMBER"}}});
        assert_eq!(example(&schema), json!({"q": "text", "n": 1.0}));
    }

    #[test]
    fn references_unions_and_recursion_come_to_an_end() {
        let schema = json!({
            "$defs": {"node": {"type": "object",
                "properties": {"value": {"type": ["integer", "null"]}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                "required": ["value", "next"]}},
            "$ref": "#/$defs/node"
        });
        let value = example(&schema);
        assert_eq!(value["value"], 1);
        assert!(value["next"]["next"]["value"].is_number());
    }

    #[test]
    fn formats_bounds_and_constants_are_kept() {
        assert_eq!(example(&json!({"type": "string", "format": "email"})), "someone@example.com");
        assert_eq!(example(&json!({"type": "number", "minimum": 2.5, "multipleOf": 2})), 4.0);
        assert_eq!(example(&json!({"type": "integer", "maximum": -3})), -3);
        assert_eq!(example(&json!({"const": 5})), 5);
        assert_eq!(example(&json!({"type": "array", "maxItems": 0, "items": {}})), json!([]));
        assert_eq!(
            example(&json!({"allOf": [{"type": "object", "properties": {"a": {"type": "boolean"}}}]})),
            json!({"a": true})
        );
    }
}
