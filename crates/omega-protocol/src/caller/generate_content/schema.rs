//! From Google's schemas, a dialect of OpenAPI's, to JSON Schema.

use serde_json::{Map, Value};

/// Schemas nest no deeper than their JSON does; this is for the reader's peace of mind.
const DEPTH_MAX: usize = 128;

/// The same as JSON Schema: types in lower case, `nullable` as a type, lengths as numbers.
pub(super) fn json_schema(schema: &Value) -> Value {
    translated(schema, DEPTH_MAX)
}

fn translated(schema: &Value, depth: usize) -> Value {
    let Some(fields) = schema.as_object().filter(|_| depth > 0) else { return schema.clone() };
    let inner = |value: &Value| translated(value, depth - 1);
    let mut out = Map::new();
    for (name, value) in fields {
        let value = match (name.as_str(), value) {
            ("type", Value::String(kind)) => Value::String(kind.to_ascii_lowercase()),
            ("properties" | "$defs" | "defs", Value::Object(named)) => {
                Value::Object(named.iter().map(|(name, value)| (name.clone(), inner(value))).collect())
            }
            ("items" | "additionalProperties" | "additional_properties", value) => inner(value),
            ("anyOf" | "any_of" | "prefixItems" | "prefix_items", Value::Array(list)) => {
                list.iter().map(inner).collect()
            }
            // Protocol buffers write 64-bit numbers as text.
            (
                "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties" | "maxProperties"
                | "min_items" | "max_items" | "min_length" | "max_length",
                Value::String(digits),
            ) => digits.parse::<u64>().map_or_else(|_| value.clone(), Value::from),
            ("nullable" | "propertyOrdering" | "property_ordering" | "example", _) => continue,
            _ => value.clone(),
        };
        out.insert(canonical(name).to_owned(), value);
    }
    if fields.get("nullable") == Some(&Value::Bool(true))
        && let Some(kind) = out.get_mut("type")
    {
        *kind = Value::Array(vec![kind.take(), "null".into()]);
    }
    Value::Object(out)
}

fn canonical(name: &str) -> &str {
    match name {
        "any_of" => "anyOf",
        "prefix_items" => "prefixItems",
        "additional_properties" => "additionalProperties",
        "min_items" => "minItems",
        "max_items" => "maxItems",
        "min_length" => "minLength",
        "max_length" => "maxLength",
        "defs" => "$defs",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_become_lower_case_where_they_are_types() {
        let google = json!({
            "type": "OBJECT", "propertyOrdering": ["type"],
            "properties": {
                "type": {"type": "STRING", "enum": ["STRING", "OBJECT"]},
                "list": {"type": "ARRAY", "items": {"type": "INTEGER", "nullable": true}, "minItems": "2"},
                "either": {"anyOf": [{"type": "NUMBER"}, {"type": "BOOLEAN"}]},
            },
            "required": ["type"],
        });
        let expected = json!({
            "type": "object",
            "properties": {
                "type": {"type": "string", "enum": ["STRING", "OBJECT"]},
                "list": {"type": "array", "items": {"type": ["integer", "null"]}, "minItems": 2},
                "either": {"anyOf": [{"type": "number"}, {"type": "boolean"}]},
            },
            "required": ["type"],
        });
        assert_eq!(json_schema(&google), expected);
        assert_eq!(json_schema(&expected), expected, "JSON Schema stays what it is");
    }
}
