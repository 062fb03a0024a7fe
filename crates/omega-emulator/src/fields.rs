//! Reads a request body field by field and says which field is wrong, so that every vendor's refusal can name it.

use serde_json::{Map, Value};

use crate::problem::Problem;

/// A JSON object and where it stands in the body.
#[derive(Clone)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    /// The whole body.
    pub(crate) fn body(value: &'a Value) -> Result<Self, Problem> {
        let found = kind(value);
        let map = value
            .as_object()
            .ok_or_else(|| Problem::InvalidJson(format!("expected an object, found {found}")))?;
        Ok(Self { map, path: String::new() })
    }

    /// An object inside the body.
    pub(crate) fn at(value: &'a Value, path: String) -> Result<Self, Problem> {
        match value.as_object() {
            Some(map) => Ok(Self { map, path }),
            None => Err(wrong(path, "object", value)),
        }
    }

    /// The full name of a field.
    pub(crate) fn param(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The value of a field; null counts as absent. A camelCase name also finds its snake_case form, which
    /// protobuf-JSON accepts.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        let value = self.map.get(name).or_else(|| {
            name.contains(|c: char| c.is_ascii_uppercase()).then(|| self.map.get(&snake(name))).flatten()
        });
        value.filter(|value| !value.is_null())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(crate) fn required(&self, name: &str) -> Result<&'a Value, Problem> {
        self.get(name).ok_or_else(|| Problem::Missing(self.param(name)))
    }

    pub(crate) fn string(&self, name: &str) -> Result<Option<&'a str>, Problem> {
        self.typed(name, "string", Value::as_str)
    }

    pub(crate) fn required_string(&self, name: &str) -> Result<&'a str, Problem> {
        self.required(name)?;
        Ok(self.string(name)?.unwrap_or_default())
    }

    /// A whole number, 0 or more.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<u64>, Problem> {
        self.typed(name, "integer", Value::as_u64)
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>, Problem> {
        self.typed(name, "number", Value::as_f64)
    }

    /// A number within bounds.
    pub(crate) fn number_within(&self, name: &str, least: f64, most: f64) -> Result<Option<f64>, Problem> {
        let number = self.number(name)?;
        match number {
            Some(value) if !(least..=most).contains(&value) => Err(Problem::InvalidValue {
                param: self.param(name),
                message: format!(
                    "Invalid '{name}': expected a value between {least} and {most}, but got {value} instead."
                ),
            }),
            _ => Ok(number),
        }
    }

    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, Problem> {
        self.typed(name, "boolean", Value::as_bool)
    }

    pub(crate) fn array(&self, name: &str) -> Result<Option<&'a Vec<Value>>, Problem> {
        self.typed(name, "array", Value::as_array)
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<Self>, Problem> {
        self.get(name).map(|value| Self::at(value, self.param(name))).transpose()
    }

    /// The objects of an array; none where the field is absent.
    pub(crate) fn objects(&self, name: &str) -> Result<Vec<Self>, Problem> {
        let items = self.array(name)?.map(Vec::as_slice).unwrap_or_default();
        items
            .iter()
            .enumerate()
            .map(|(index, item)| Self::at(item, format!("{}[{index}]", self.param(name))))
            .collect()
    }

    /// Strings: one, or an array of them.
    pub(crate) fn strings(&self, name: &str) -> Result<Vec<String>, Problem> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text.clone()]),
            Some(Value::Array(items)) => items
                .iter()
                .enumerate()
                .map(|(index, item)| {
                    item.as_str()
                        .map(str::to_owned)
                        .ok_or_else(|| wrong(format!("{}[{index}]", self.param(name)), "string", item))
                })
                .collect(),
            Some(other) => Err(wrong(self.param(name), "string or array of strings", other)),
        }
    }

    /// A string that must be one of these.
    pub(crate) fn word(&self, name: &str, words: &[&str]) -> Result<Option<&'a str>, Problem> {
        let word = self.string(name)?;
        match word {
            Some(word) if !words.contains(&word) => Err(Problem::InvalidValue {
                param: self.param(name),
                message: format!("Invalid value: '{word}'. Supported values are: {}.", quoted(words)),
            }),
            _ => Ok(word),
        }
    }

    pub(crate) fn wrong_type(&self, name: &str, expected: &'static str) -> Problem {
        wrong(self.param(name), expected, self.get(name).unwrap_or(&Value::Null))
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| wrong(self.param(name), expected, value)),
        }
    }
}

fn wrong(param: String, expected: &'static str, value: &Value) -> Problem {
    Problem::WrongType { param, expected, found: kind(value) }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", ")
}

/// A value's type in words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn snake(camel: &str) -> String {
    let mut snake = String::with_capacity(camel.len() + 4);
    for character in camel.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wrong_field_is_named_with_its_path() {
        let body = json!({"messages": [{"role": 3}], "n": "two"});
        let fields = Fields::body(&body).expect("an object");
        let message = &fields.objects("messages").expect("objects")[0];
        assert_eq!(
            message.string("role"),
            Err(Problem::WrongType {
                param: "messages[0].role".into(),
                expected: "string",
                found: "an integer"
            })
        );
        assert!(matches!(fields.integer("n"), Err(Problem::WrongType { expected: "integer", .. })));
        assert!(matches!(fields.required("model"), Err(Problem::Missing(param)) if param == "model"));
    }

    #[test]
    fn snake_case_is_found_by_its_camel_case_name() {
        let body = json!({"max_output_tokens": 5});
        assert_eq!(Fields::body(&body).expect("an object").integer("maxOutputTokens"), Ok(Some(5)));
    }
}
