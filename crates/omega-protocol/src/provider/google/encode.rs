//! From a chat request to the path and body of `generateContent` and `streamGenerateContent`.
//!
//! Everything is borrowed from the request and written once. What Google alone knows may be given in `extra` under
//! Google's own names (`safetySettings`, `cachedContent`, `generationConfig`, ...), which win over what is translated.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Value, json};

use super::conversation::{Part, Turn, conversation};
use crate::provider::translate::{self, Choice, Fields, Mode};
use crate::{
    ChatRequest, Dialect, EncodeError, Extra, GoogleVersion, ReasoningEffort, ResponseFormat, Streaming,
};

/// Fields of `extra` that this file writes itself or that mean something to another vendor only.
///
/// Source of Anthropic's and xAI's names: `anthropic` 2.12.0, docs.x.ai, read 2026-11-23.
const NOT_PASSED_ON: &[&str] = &[
    // written here
    "contents",
    "generationConfig",
    "generation_config",
    "messages",
    "model",
    "serviceTier",
    "service_tier",
    "systemInstruction",
    "system_instruction",
    "stream",
    "toolConfig",
    "tool_config",
    "tools",
    "top_k",
    // OpenAI's bookkeeping and Anthropic's field of the same name
    "metadata",
    // Anthropic's
    "cache_control",
    "container",
    "context_management",
    "diagnostics",
    "inference_geo",
    "mcp_servers",
    "output_config",
    "speed",
    "system",
    "thinking",
    // xAI's
    "deferred",
    "search_parameters",
];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Instruction<'a>>,
    contents: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<WireTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<Value>,
    #[serde(skip_serializing_if = "Extra::is_empty")]
    generation_config: Extra,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'a str>,
    #[serde(flatten)]
    rest: Fields<'a>,
}

#[derive(Serialize)]
struct Instruction<'a> {
    parts: Vec<Part<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WireTool<'a> {
    #[serde(rename_all = "camelCase")]
    Functions {
        function_declarations: Vec<Declaration<'a>>,
    },
    Own(&'a Extra),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Declaration<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    /// JSON Schema as OpenAI has it; `parameters` would be Google's own subset.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters_json_schema: Option<&'a Value>,
}

/// The path of a request. The model's name is a segment of it, so nothing may be in it that ends a segment.
pub(super) fn path(version: GoogleVersion, model: &str, method: &str) -> Result<String, EncodeError> {
    let (collection, name) = resource(model)?;
    Ok(format!("/{}/{collection}/{name}:{method}", version.as_str()))
}

/// The method that asks for an answer.
pub(super) fn method(streaming: Streaming) -> &'static str {
    match streaming {
        Streaming::Whole => "generateContent",
        Streaming::Stream => "streamGenerateContent?alt=sse",
    }
}

/// The collection of a model and its name in it.
pub(super) fn resource(model: &str) -> Result<(&'static str, &str), EncodeError> {
    let name = translate::strip_prefix_ignore_case(model, "models/").unwrap_or(model);
    let (collection, name) = match name.strip_prefix("tunedModels/") {
        Some(name) => ("tunedModels", name),
        None => ("models", name),
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
    if name.is_empty() || !name.bytes().all(is_plain) || name.bytes().all(|byte| byte == b'.') {
        return Err(field("model", "a model's name is letters, digits, `-`, `_` and `.`"));
    }
    Ok((collection, name))
}

/// The body of a request.
pub(super) fn body(request: &ChatRequest) -> Result<Vec<u8>, EncodeError> {
    let Choice { mode, tools } = translate::choice(request);
    if request.parallel_tool_calls == Some(false) && !tools.is_empty() {
        return Err(field("parallel_tool_calls", "Gemini may always call several at once; leave it out"));
    }
    let (instructions, contents) = conversation(request)?;
    let mut wire_tools = Vec::new();
    let mut function_declarations = Vec::new();
    for (at, tool) in tools {
        match &tool.function {
            Some(function) => function_declarations.push(Declaration {
                name: &function.name,
                description: function.description.as_deref(),
                parameters_json_schema: function.parameters.as_ref().filter(|schema| !schema.is_null()),
            }),
            // Google's own are objects under their own name: `{"type": "googleSearch", "googleSearch": {}}`.
            None if is_googles_own(&tool.kind, &tool.extra) => wire_tools.push(WireTool::Own(&tool.extra)),
            None => {
                return Err(field(
                    format!("tools[{at}]"),
                    format!("a tool of type `{}` is not Google's", tool.kind),
                ));
            }
        }
    }
    let has_functions = !function_declarations.is_empty();
    if has_functions {
        wire_tools.insert(0, WireTool::Functions { function_declarations });
    }
    let body = Body {
        system_instruction: (!instructions.is_empty()).then_some(Instruction { parts: instructions }),
        contents,
        tools: wire_tools,
        tool_config: tool_config(mode, request, has_functions)?,
        generation_config: generation_config(request)?,
        service_tier: service_tier(request),
        rest: translate::passed_on(Dialect::Google, request, NOT_PASSED_ON)?,
    };
    Ok(serde_json::to_vec(&body)?)
}

/// A field that has no equivalent here.
pub(super) fn field(
    field: impl Into<Cow<'static, str>>,
    reason: impl Into<Cow<'static, str>>,
) -> EncodeError {
    EncodeError::field(Dialect::Google, field, reason)
}

/// OpenAI's own kinds carry their definition under their name too, so the names must be known.
///
/// Source: the tool type of `google-genai` 3.4.0, read 2026-11-23.
fn is_googles_own(kind: &str, extra: &Extra) -> bool {
    const KINDS: [&str; 11] = [
        "googlesearch",
        "googlesearchretrieval",
        "codeexecution",
        "urlcontext",
        "googlemaps",
        "filesearch",
        "computeruse",
        "enterprisewebsearch",
        "exaaisearch",
        "parallelaisearch",
        "retrieval",
    ];
    let plain = kind.replace('_', "").to_ascii_lowercase();
    KINDS.contains(&plain.as_str()) && extra.contains_key(kind)
}

/// A field of `extra` under its canonical name or its snake_case one; Google takes both.
fn own<'a>(request: &'a ChatRequest, names: [&str; 2]) -> Option<&'a Value> {
    names.iter().find_map(|name| request.extra.get(*name)).filter(|value| !value.is_null())
}

/// `flex`, `standard` or `priority`; OpenAI's `default` is Google's `standard`, its other words mean nothing here.
fn service_tier(request: &ChatRequest) -> Option<&str> {
    match own(request, ["serviceTier", "service_tier"])?.as_str()? {
        "default" => Some("standard"),
        tier @ ("flex" | "standard" | "priority") => Some(tier),
        _ => None,
    }
}

fn tool_config(
    mode: Mode<'_>,
    request: &ChatRequest,
    has_functions: bool,
) -> Result<Option<Value>, EncodeError> {
    let own = own(request, ["toolConfig", "tool_config"]);
    let calling = match mode {
        _ if own.is_some() => return Ok(own.cloned()),
        Mode::Unsaid => return Ok(None),
        Mode::None | Mode::Auto if !has_functions => return Ok(None),
        Mode::None => json!({"mode": "NONE"}),
        Mode::Auto => json!({"mode": "AUTO"}),
        Mode::Required => json!({"mode": "ANY"}),
        Mode::Function(name) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
        Mode::Own(_) => {
            return Err(field("tool_choice", "use none, auto, required, a function or allowed_tools"));
        }
    };
    Ok(Some(json!({ "functionCallingConfig": calling })))
}

fn generation_config(request: &ChatRequest) -> Result<Extra, EncodeError> {
    let mut config = Extra::new();
    let mut set =
        |name: &str, value: Option<Value>| config.extend(value.map(|value| (name.to_owned(), value)));
    set("temperature", request.temperature.map(Value::from));
    set("topP", request.top_p.map(Value::from));
    set("topK", request.extra.get("top_k").filter(|top_k| !top_k.is_null()).cloned());
    set("maxOutputTokens", request.max_tokens.map(Value::from));
    set("stopSequences", (!request.stop.is_empty()).then(|| request.stop.clone().into()));
    set("candidateCount", request.n.filter(|n| *n != 1).map(Value::from));
    set("presencePenalty", request.presence_penalty.map(Value::from));
    set("frequencyPenalty", request.frequency_penalty.map(Value::from));
    if let Some(seed) = request.seed {
        let seed = i32::try_from(seed).map_err(|_| field("seed", "Gemini takes 32-bit seeds"))?;
        set("seed", Some(seed.into()));
    }
    match &request.response_format {
        None | Some(ResponseFormat::Text) => {}
        Some(ResponseFormat::JsonObject) => set("responseMimeType", Some("application/json".into())),
        Some(ResponseFormat::JsonSchema(format)) => {
            let Some(schema) = &format.schema else {
                return Err(field(
                    "response_format.json_schema.schema",
                    "it is missing; ask for json_object instead",
                ));
            };
            set("responseMimeType", Some("application/json".into()));
            set("responseJsonSchema", Some(schema.clone()));
        }
        Some(ResponseFormat::Other(_)) => {
            return Err(field("response_format", "use text, json_object or json_schema"));
        }
    }
    set("thinkingConfig", thinking_config(request)?);
    if let Some(Value::Object(own)) = own(request, ["generationConfig", "generation_config"]) {
        // A field given under its snake_case name replaces the translated one too: said twice is an error there.
        config.retain(|name, _| !own.contains_key(&snake_case(name)));
        config.extend(own.clone());
    }
    Ok(config)
}

fn snake_case(name: &str) -> String {
    name.chars().fold(String::with_capacity(name.len() + 4), |mut snake, letter| {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
        snake
    })
}

/// How a model is told how much to think.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Thinking {
    /// Generation 3 and later: `thinkingLevel`.
    Level,
    /// Generation 2.5: `thinkingBudget` in tokens, at least and at most so many.
    Budget { least: u32, most: u32 },
    /// It does not think.
    No,
}

/// The budgets' bounds are public, long-standing behaviour of the 2.5 models: ranges are model dependent, says
/// `google-genai` 3.4.0 (read 2026-11-23), and names none.
pub(super) fn thinking_of(model: &str) -> Thinking {
    let model = translate::strip_prefix_ignore_case(model, "models/").unwrap_or(model).to_ascii_lowercase();
    let Some(rest) = model.strip_prefix("gemini-") else { return Thinking::No };
    if rest.starts_with("2.5") {
        return match rest {
            _ if rest.contains("pro") => Thinking::Budget { least: 128, most: 32_768 },
            _ => Thinking::Budget { least: 0, most: 24_576 },
        };
    }
    let generation = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    match generation.parse::<u32>() {
        Ok(number) if number < 3 => Thinking::No,
        // `gemini-pro-latest` and the like are of the newest generation.
        Ok(_) => Thinking::Level,
        Err(_) if rest.ends_with("-latest") => Thinking::Level,
        Err(_) => Thinking::No,
    }
}

fn thinking_config(request: &ChatRequest) -> Result<Option<Value>, EncodeError> {
    use ReasoningEffort as Effort;
    let Some(effort) = &request.reasoning_effort else { return Ok(None) };
    // Levels end at XHIGH and cannot be switched off; budgets are those of Google's own OpenAI-compatible API
    // (low, medium, high: 1K, 8K, 24K, as its makers announced it in 2025). Levels: `google-genai` 3.4.0.
    let (level, budget) = match effort {
        Effort::None => ("MINIMAL", 0),
        Effort::Minimal => ("MINIMAL", 512),
        Effort::Low => ("LOW", 1_024),
        Effort::Medium => ("MEDIUM", 8_192),
        Effort::High => ("HIGH", 24_576),
        Effort::XHigh | Effort::Max => ("XHIGH", u32::MAX),
        Effort::Other(_) => {
            return Err(field("reasoning_effort", "use none, minimal, low, medium, high, xhigh or max"));
        }
    };
    Ok(match thinking_of(&request.model) {
        Thinking::Level => Some(json!({ "thinkingLevel": level })),
        Thinking::Budget { least, most } => Some(json!({ "thinkingBudget": budget.clamp(least, most) })),
        // A model that does not think has no effort to adjust.
        Thinking::No => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_for_generation_3_and_later_and_budgets_for_2_5() {
        for model in [
            "gemini-3-flash-preview",
            "gemini-3.1-pro-preview",
            "gemini-4-argon",
            "models/gemini-3.8-flash",
            "gemini-pro-latest",
            "gemini-flash-lite-latest",
            "gemini-10-x",
        ] {
            assert_eq!(thinking_of(model), Thinking::Level, "{model}");
        }
        assert_eq!(thinking_of("gemini-2.5-pro"), Thinking::Budget { least: 128, most: 32_768 });
        assert_eq!(thinking_of("gemini-2.5-flash-lite"), Thinking::Budget { least: 0, most: 24_576 });
        for model in ["gemini-2.0-flash", "gemma-4-27b", "learnlm-2", "nano-banana"] {
            assert_eq!(thinking_of(model), Thinking::No, "{model}");
        }
    }

    #[test]
    fn a_model_name_cannot_leave_its_place_in_the_path() {
        let path = |model| path(GoogleVersion::V1, model, method(Streaming::Whole));
        assert_eq!(path("gemini-2.5-pro").as_deref(), Ok("/v1/models/gemini-2.5-pro:generateContent"));
        assert_eq!(path("models/gemini-2.5-pro").as_deref(), Ok("/v1/models/gemini-2.5-pro:generateContent"));
        assert_eq!(path("tunedModels/mine-1").as_deref(), Ok("/v1/tunedModels/mine-1:generateContent"));
        for model in ["", "..", "a/b", "a?key=1", "a#b", "a:b", "a b", "models/", "ü"] {
            assert!(path(model).is_err(), "{model:?}");
        }
    }
}
