//! From a chat request to the body of `POST /v1/messages`.
//!
//! Everything is borrowed from the request and written once: a conversation with images is large, and copying it into a
//! tree of JSON values first would double that.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Value, json};

use super::conversation::{Blocks, Turn, conversation};
use crate::provider::translate::{self, Choice, Fields, Mode};
use crate::{
    AnthropicVersion, ChatRequest, Dialect, EncodeError, Extra, ReasoningEffort, ResponseFormat, Streaming,
    Tool,
};

/// The longest answer when the request does not say: Anthropic wants a number. Every listed model can write more, and
/// an answer cut at it says so (`length`), so it errs on the side of a small reservation against the output quota.
pub(super) const DEFAULT_MAX_TOKENS: u64 = 8_192;

/// Fields of `extra` that this file writes itself or that mean something to another vendor only. A request may be
/// carried from provider to provider unchanged, so the latter are left out.
///
/// Source of Google's and xAI's names: `google-genai` 3.4.0, docs.x.ai, read 2026-11-23.
const NOT_PASSED_ON: &[&str] = &[
    // written here
    "max_tokens",
    "messages",
    "metadata",
    "model",
    "output_config",
    "service_tier",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
    // Google's
    "cachedContent",
    "cached_content",
    "generationConfig",
    "generation_config",
    "google",
    "labels",
    "safetySettings",
    "safety_settings",
    "serviceTier",
    "toolConfig",
    "tool_config",
    // xAI's
    "deferred",
    "search_parameters",
];

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u64,
    #[serde(skip_serializing_if = "Blocks::is_empty")]
    system: Blocks<'a>,
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<WireTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_sequences: Option<StopSequences<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<&'a Value>,
    #[serde(skip_serializing_if = "Extra::is_empty")]
    output_config: Extra,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<Cow<'a, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
    #[serde(flatten)]
    rest: Fields<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum StopSequences<'a> {
    Stop(&'a [String]),
    Own(&'a Value),
}

#[derive(Serialize)]
struct Metadata<'a> {
    user_id: &'a str,
}

#[derive(Serialize)]
struct WireTool<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_schema: Option<Cow<'a, Value>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    strict: bool,
    #[serde(flatten)]
    extra: Fields<'a>,
}

/// The body of a Messages request.
pub(super) fn body(
    request: &ChatRequest,
    version: AnthropicVersion,
    streaming: Streaming,
) -> Result<Vec<u8>, EncodeError> {
    refuse_what_has_no_equivalent(request)?;
    let (system, messages) = conversation(request)?;
    let Choice { mode, tools } = translate::choice(request);
    let thinking = thinking(request);
    let samples = version == AnthropicVersion::V2023_06_01 && takes_sampling(&request.model);
    let extra_text = |key: &str| request.extra.get(key).and_then(Value::as_str);
    let body = Body {
        model: &request.model,
        max_tokens: request.max_tokens.unwrap_or_else(|| default_max_tokens(thinking.as_deref())),
        system,
        messages,
        tool_choice: tool_choice(mode, request, tools.is_empty())?,
        tools: tools.into_iter().map(|(at, tool)| wire_tool(at, tool)).collect::<Result<_, _>>()?,
        stop_sequences: match request.extra.get("stop_sequences") {
            Some(own) if !own.is_null() => Some(StopSequences::Own(own)),
            _ => Some(StopSequences::Stop(&request.stop)).filter(|_| !request.stop.is_empty()),
        },
        // Claude's scale ends at 1 where OpenAI's ends at 2.
        temperature: request.temperature.filter(|_| samples).map(|temperature| temperature.min(1.0)),
        top_p: request.top_p.filter(|_| samples),
        top_k: request.extra.get("top_k").filter(|top_k| samples && !top_k.is_null()),
        output_config: output_config(request)?,
        thinking,
        metadata: request
            .extra
            .get("metadata")
            .and_then(|metadata| metadata.get("user_id")?.as_str())
            .or_else(|| extra_text("safety_identifier"))
            .or_else(|| extra_text("user"))
            .map(|user_id| Metadata { user_id }),
        // OpenAI's other words (`default`, `flex`, `priority`, ...) mean nothing here.
        service_tier: extra_text("service_tier").filter(|tier| matches!(*tier, "auto" | "standard_only")),
        stream: streaming == Streaming::Stream,
        rest: translate::passed_on(Dialect::Anthropic, request, NOT_PASSED_ON)?,
    };
    Ok(serde_json::to_vec(&body)?)
}

/// A field that has no equivalent here.
pub(super) fn field(
    field: impl Into<Cow<'static, str>>,
    reason: impl Into<Cow<'static, str>>,
) -> EncodeError {
    EncodeError::field(Dialect::Anthropic, field, reason)
}

fn refuse_what_has_no_equivalent(request: &ChatRequest) -> Result<(), EncodeError> {
    if request.n.is_some_and(|n| n != 1) {
        return Err(field("n", "Messages gives one answer a request; ask several times"));
    }
    for (name, penalty) in
        [("presence_penalty", request.presence_penalty), ("frequency_penalty", request.frequency_penalty)]
    {
        if penalty.is_some_and(|penalty| penalty != 0.0) {
            return Err(field(name, "Claude has no penalties; leave it out"));
        }
    }
    Ok(())
}

/// Whether a model takes `temperature`, `top_p` and `top_k` under the older API version. From Opus 4.7, Sonnet 5 and
/// Fable 5 on models refuse them unless they have their default values, so they are not sent.
///
/// Source: platform.claude.com, read 2026-11-23.
fn takes_sampling(model: &str) -> bool {
    // `claude-opus-4-8`, `claude-haiku-4-5-20251001`; `claude-3-5-sonnet-…` and unknown forms are old.
    let mut words = model.split('-').skip_while(|word| !word.eq_ignore_ascii_case("claude")).skip(1);
    let family = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|word| word.parse::<u32>().ok());
    match (number(), number()) {
        // The first generations had the number before the name.
        _ if family.starts_with(|c: char| c.is_ascii_digit()) => true,
        // Above 99 it is a date.
        (Some(5..100), _) => false,
        (Some(4), Some(minor)) if family.eq_ignore_ascii_case("opus") => !(7..100).contains(&minor),
        _ => true,
    }
}

fn default_max_tokens(thinking: Option<&Value>) -> u64 {
    // The thinking budget must be smaller than `max_tokens`, which includes it.
    let budget = thinking.and_then(|thinking| thinking.get("budget_tokens")?.as_u64()).unwrap_or(0);
    DEFAULT_MAX_TOKENS.saturating_add(budget)
}

fn thinking(request: &ChatRequest) -> Option<Cow<'_, Value>> {
    match (request.extra.get("thinking"), &request.reasoning_effort) {
        (Some(own), _) if !own.is_null() => Some(Cow::Borrowed(own)),
        (_, Some(ReasoningEffort::None)) => Some(Cow::Owned(json!({"type": "disabled"}))),
        _ => None,
    }
}

fn output_config(request: &ChatRequest) -> Result<Extra, EncodeError> {
    let mut config = Extra::new();
    let effort = match &request.reasoning_effort {
        // No effort is said by `thinking`; `minimal` has no equivalent, and `low` is the nearest.
        None | Some(ReasoningEffort::None) => None,
        Some(ReasoningEffort::Minimal) => Some("low"),
        Some(
            effort @ (ReasoningEffort::Low
            | ReasoningEffort::Medium
            | ReasoningEffort::High
            | ReasoningEffort::XHigh
            | ReasoningEffort::Max),
        ) => Some(effort.as_str()),
        Some(_) => {
            return Err(field("reasoning_effort", "use none, minimal, low, medium, high, xhigh or max"));
        }
    };
    if let Some(effort) = effort {
        config.insert("effort".to_owned(), effort.into());
    }
    match &request.response_format {
        None | Some(ResponseFormat::Text | ResponseFormat::JsonObject) => {}
        Some(ResponseFormat::JsonSchema(format)) => {
            let Some(schema) = &format.schema else {
                return Err(field(
                    "response_format.json_schema.schema",
                    "it is missing, and nothing else can be enforced",
                ));
            };
            config.insert("format".to_owned(), json!({"type": "json_schema", "schema": schema}));
        }
        // Anthropic's own form, from a caller that writes for it.
        Some(ResponseFormat::Other(own)) if own["type"] == "json_schema" && own.get("schema").is_some() => {
            config.insert("format".to_owned(), own.clone());
        }
        Some(ResponseFormat::Other(_)) => {
            return Err(field("response_format", "use text, json_object or json_schema"));
        }
    }
    if let Some(Value::Object(own)) = request.extra.get("output_config") {
        config.extend(own.clone());
    }
    Ok(config)
}

fn tool_choice(mode: Mode<'_>, request: &ChatRequest, no_tools: bool) -> Result<Option<Value>, EncodeError> {
    let one_at_a_time = request.parallel_tool_calls == Some(false);
    let mut choice = match mode {
        // Without tools there is nothing to choose, and saying so is an error.
        Mode::Unsaid | Mode::Auto | Mode::None if no_tools => return Ok(None),
        Mode::Unsaid if !one_at_a_time => return Ok(None),
        Mode::None => return Ok(Some(json!({"type": "none"}))),
        Mode::Unsaid | Mode::Auto => json!({"type": "auto"}),
        Mode::Required => json!({"type": "any"}),
        Mode::Function(name) => json!({"type": "tool", "name": name}),
        Mode::Own(own) if matches!(own["type"].as_str(), Some("auto" | "any" | "tool" | "none")) => {
            own.clone()
        }
        Mode::Own(_) => {
            return Err(field("tool_choice", "use none, auto, required, a function or allowed_tools"));
        }
    };
    if one_at_a_time && let Some(choice) = choice.as_object_mut().filter(|choice| choice["type"] != "none") {
        choice.insert("disable_parallel_tool_use".to_owned(), true.into());
    }
    Ok(Some(choice))
}

fn wire_tool(at: usize, tool: &Tool) -> Result<WireTool<'_>, EncodeError> {
    match &tool.function {
        Some(function) => Ok(WireTool {
            r#type: None,
            name: Some(&function.name),
            description: function.description.as_deref(),
            // A function without parameters is a function of nothing; the schema itself is mandatory.
            input_schema: Some(
                function
                    .parameters
                    .as_ref()
                    .filter(|schema| !schema.is_null())
                    .map_or_else(|| Cow::Owned(json!({"type": "object", "properties": {}})), Cow::Borrowed),
            ),
            strict: function.strict == Some(true),
            extra: Fields::except(&tool.extra, &["type", "name", "description", "input_schema", "strict"]),
        }),
        // OpenAI's own kinds are objects under their own name; Anthropic's server tools are flat and named.
        None if tool.extra.contains_key("name") => {
            let extra = Fields::except(&tool.extra, &["type"]);
            Ok(WireTool {
                r#type: Some(&tool.kind),
                name: None,
                description: None,
                input_schema: None,
                strict: false,
                extra,
            })
        }
        None => {
            Err(field(format!("tools[{at}]"), format!("a tool of type `{}` is not Anthropic's", tool.kind)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::takes_sampling;

    #[test]
    fn sampling_parameters_go_to_models_before_opus_4_7_and_generation_5_only() {
        for model in [
            "claude-opus-4-6",
            "claude-opus-4-5",
            "claude-sonnet-4-6",
            "claude-haiku-4-5-20251001",
            "claude-opus-4-20250514",
            "claude-3-5-sonnet-20241022",
            "claude-3-7-sonnet-latest",
            "claude-sonnet-20251201",
            "my-model",
        ] {
            assert!(takes_sampling(model), "{model}");
        }
        for model in [
            "claude-opus-4-7",
            "claude-opus-4-8",
            "claude-opus-5",
            "claude-opus-5-5",
            "claude-sonnet-5",
            "claude-fable-5-2",
            "claude-mythos-5",
            "claude-haiku-5-5",
        ] {
            assert!(!takes_sampling(model), "{model}");
        }
    }
}
