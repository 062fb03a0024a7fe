//! Tools a model may call, the calls it makes, and the form an answer must have.

use serde::de::{Deserializer, Error};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Extra;
use crate::open::{open_object, private_debug, read_object};

/// Something the model may call.
#[derive(Clone, PartialEq)]
pub struct Tool {
    /// `function`; `custom` and provider-hosted kinds keep their definition in `extra`.
    pub kind: String,
    /// The function; `None` for other kinds.
    pub function: Option<FunctionDefinition>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { Tool {
    "type" => kind required,
    "function" => function optional,
} }

private_debug! { Tool {
    kind,
    function,
} as this }

impl Tool {
    /// A function with a JSON Schema for its arguments.
    pub fn function(name: impl Into<String>, description: impl Into<String>, parameters: Value) -> Self {
        let function = FunctionDefinition {
            name: name.into(),
            description: Some(description.into()),
            parameters: Some(parameters),
            strict: None,
            extra: Extra::new(),
        };
        Self { kind: "function".to_owned(), function: Some(function), extra: Extra::new() }
    }
}

/// The definition of a function.
#[derive(Clone, Default, PartialEq)]
pub struct FunctionDefinition {
    /// What it is called.
    pub name: String,
    /// What it does, for the model.
    pub description: Option<String>,
    /// The JSON Schema of its arguments.
    pub parameters: Option<Value>,
    /// Whether the arguments must match the schema exactly.
    pub strict: Option<bool>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { FunctionDefinition {
    "name" => name required,
    "description" => description optional,
    "parameters" => parameters optional,
    "strict" => strict optional,
} }

private_debug! { FunctionDefinition { name, strict } as this }

/// A call the model made.
#[derive(Clone, PartialEq)]
pub struct ToolCall {
    /// The call's id; the answer names it.
    pub id: String,
    /// `function`; `custom` calls keep their content in `extra`.
    pub kind: String,
    /// The function and its arguments; `None` for other kinds.
    pub function: Option<FunctionCall>,
    /// Everything else, as it came.
    pub extra: Extra,
}

struct LooseToolCall {
    id: String,
    kind: Option<String>,
    function: Option<FunctionCall>,
    extra: Extra,
}

read_object! { LooseToolCall {
    "id" => id always,
    "type" => kind optional,
    "function" => function optional,
} }

impl<'de> Deserialize<'de> for ToolCall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let LooseToolCall { id, kind, function, mut extra } = LooseToolCall::deserialize(deserializer)?;
        // Streams number their calls and some servers leave the number in whole answers.
        extra.shift_remove("index");
        Ok(Self { id, kind: kind.unwrap_or_else(|| "function".to_owned()), function, extra })
    }
}

crate::open::write_object! { ToolCall {
    "id" => id always,
    "type" => kind always,
    "function" => function optional,
} }

private_debug! { ToolCall {
    id,
    kind,
    name = this.name(),
} as this }

impl ToolCall {
    /// A call of a function with JSON text as arguments.
    pub fn function(id: impl Into<String>, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        let function = FunctionCall { name: name.into(), arguments: arguments.into(), extra: Extra::new() };
        Self { id: id.into(), kind: "function".to_owned(), function: Some(function), extra: Extra::new() }
    }

    /// The function's name; empty for other kinds.
    pub fn name(&self) -> &str {
        self.function.as_ref().map_or("", |function| &function.name)
    }

    /// The arguments as JSON text, as the model wrote them; empty for other kinds.
    pub fn arguments(&self) -> &str {
        self.function.as_ref().map_or("", |function| &function.arguments)
    }
}

/// A function's name and arguments.
#[derive(Clone, Default, PartialEq)]
pub struct FunctionCall {
    /// What is called.
    pub name: String,
    /// JSON text, as the model wrote it: it may be invalid.
    pub arguments: String,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { FunctionCall {
    "name" => name always,
    "arguments" => arguments always,
} }

private_debug! { FunctionCall {
    name,
    arguments = format_args!("{} bytes", this.arguments.len()),
} as this }

/// Whether the model must, may or must not call something.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum ToolChoice {
    /// It must not.
    None,
    /// It may.
    Auto,
    /// It must call something.
    Required,
    /// It must call this function.
    Function(String),
    /// `allowed_tools`, `custom` and whatever comes, whole.
    Other(Value),
}

impl std::fmt::Debug for ToolChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Auto => f.write_str("Auto"),
            Self::Required => f.write_str("Required"),
            Self::Function(name) => f.debug_tuple("Function").field(name).finish(),
            Self::Other(_) => f.write_str("Other"),
        }
    }
}

impl Serialize for ToolChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Name<'a> {
            name: &'a str,
        }
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Auto => serializer.serialize_str("auto"),
            Self::Required => serializer.serialize_str("required"),
            Self::Function(name) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("type", "function")?;
                map.serialize_entry("function", &Name { name })?;
                map.end()
            }
            Self::Other(value) => value.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(match value.as_str() {
            Some("none") => Self::None,
            Some("auto") => Self::Auto,
            Some("required") => Self::Required,
            _ => match value.pointer("/function/name").and_then(Value::as_str) {
                Some(name)
                    if value["type"] == "function" && value.as_object().is_some_and(|o| o.len() == 2) =>
                {
                    Self::Function(name.to_owned())
                }
                _ => Self::Other(value),
            },
        })
    }
}

/// The form of the answer.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum ResponseFormat {
    /// Free text.
    Text,
    /// Some JSON object.
    JsonObject,
    /// JSON that matches a schema.
    JsonSchema(JsonSchemaFormat),
    /// Whatever comes, whole.
    Other(Value),
}

/// The schema of a structured answer.
#[derive(Clone, Default, PartialEq)]
pub struct JsonSchemaFormat {
    /// A name for it.
    pub name: String,
    /// What it is for, for the model.
    pub description: Option<String>,
    /// The JSON Schema.
    pub schema: Option<Value>,
    /// Whether the answer must match exactly.
    pub strict: Option<bool>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { JsonSchemaFormat {
    "name" => name always,
    "description" => description optional,
    "schema" => schema optional,
    "strict" => strict optional,
} }

private_debug! { JsonSchemaFormat { name, strict } as this }

impl ResponseFormat {
    /// JSON that must match this schema exactly.
    pub fn json_schema(name: impl Into<String>, schema: Value) -> Self {
        let name = name.into();
        Self::JsonSchema(JsonSchemaFormat {
            name,
            schema: Some(schema),
            strict: Some(true),
            ..Default::default()
        })
    }
}

impl std::fmt::Debug for ResponseFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text => f.write_str("Text"),
            Self::JsonObject => f.write_str("JsonObject"),
            Self::JsonSchema(format) => f.debug_tuple("JsonSchema").field(format).finish(),
            Self::Other(_) => f.write_str("Other"),
        }
    }
}

impl Serialize for ResponseFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = match self {
            Self::Other(value) => return value.serialize(serializer),
            _ => serializer.serialize_map(None)?,
        };
        match self {
            Self::Text => map.serialize_entry("type", "text")?,
            Self::JsonObject => map.serialize_entry("type", "json_object")?,
            Self::JsonSchema(schema) => {
                map.serialize_entry("type", "json_schema")?;
                map.serialize_entry("json_schema", schema)?;
            }
            Self::Other(_) => {}
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ResponseFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
        let fields = value.as_object().map_or(0, serde_json::Map::len);
        Ok(match (kind, fields) {
            ("text", 1) => Self::Text,
            ("json_object", 1) => Self::JsonObject,
            // Anthropic's own form has the schema beside the type, without this object: it is kept whole.
            ("json_schema", 2) if value.get("json_schema").is_some() => {
                let schema = value["json_schema"].take();
                Self::JsonSchema(serde_json::from_value(schema).map_err(D::Error::custom)?)
            }
            _ => Self::Other(value),
        })
    }
}
