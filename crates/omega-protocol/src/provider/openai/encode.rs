//! Requests on their way out: one pass over the typed request, nothing copied.

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};

use crate::provider::Streaming;
use crate::routing::is_openai_reasoning;
use crate::{
    ChatRequest, Content, ContentPart, EncodeError, Message, ReasoningEffort, ResponsesRequest, Role,
    StreamOptions, ToolCall, ToolChoice,
};

/// Who listens, as far as the same request must be said differently.
#[derive(Clone, Copy)]
pub(crate) struct Flavour {
    /// The name of the field for the longest answer.
    max_tokens: &'static str,
    /// `developer` is said as `system`.
    developer_is_system: bool,
    /// `reasoning_content` of earlier turns is kept.
    reasoning_content: bool,
    /// [`Message::VENDOR_FIELDS`] are kept.
    vendor_fields: bool,
    /// Request fields that mean something to other vendors only are left out: OpenAI and xAI answer 400 to them, and a
    /// request may move between providers unchanged.
    refuses_others: bool,
    /// xAI's words for effort, and its rule that a `tool_choice` needs tools.
    grok: bool,
}

/// Request fields of other vendors that OpenAI refuses. A compatible server may know some of them and gets them all.
///
/// Source: the request types of `anthropic` 2.12.0 and `google-genai` 3.4.0, docs.x.ai, read 2026-11-23.
const OTHERS: [&str; 18] = [
    // Anthropic's
    "cache_control",
    "container",
    "inference_geo",
    "output_config",
    "speed",
    "system",
    "thinking",
    "top_k",
    // Google's
    "cachedContent",
    "cached_content",
    "generationConfig",
    "generation_config",
    "google",
    "safetySettings",
    "safety_settings",
    "toolConfig",
    "tool_config",
    // xAI's
    "search_parameters",
];

impl Flavour {
    fn takes(self, field: &str) -> bool {
        !self.refuses_others || !OTHERS.contains(&field) || (self.grok && field == "search_parameters")
    }
}

impl Flavour {
    /// The request as it is, for storing and for passing on.
    pub(crate) const AS_IS: Self = Self {
        max_tokens: "max_completion_tokens",
        developer_is_system: false,
        reasoning_content: true,
        vendor_fields: true,
        refuses_others: false,
        grok: false,
    };

    /// OpenAI itself: `max_tokens` is deprecated for every model and refused by reasoning models (gpt-5*, gpt-6*, o*);
    /// unknown fields of messages are refused. Source: the types of `openai` 3.54.0, read 2026-11-23.
    pub(crate) const OPENAI: Self =
        Self { reasoning_content: false, vendor_fields: false, refuses_others: true, ..Self::AS_IS };

    /// xAI. It takes both names of the limit. Source: docs.x.ai and the types of `xai-sdk` 1.21.0, read 2026-11-23.
    pub(crate) const GROK: Self = Self {
        developer_is_system: true,
        vendor_fields: false,
        refuses_others: true,
        grok: true,
        ..Self::AS_IS
    };

    /// A compatible server: the older names, which all of them know, unless it plainly passes on to OpenAI's reasoning
    /// models, which refuse them.
    pub(crate) fn compatible(model: &str) -> Self {
        let bare = model.rsplit('/').next().unwrap_or(model);
        let passes_on = is_openai_reasoning(bare);
        Self {
            max_tokens: if passes_on { "max_completion_tokens" } else { "max_tokens" },
            developer_is_system: !passes_on,
            vendor_fields: false,
            ..Self::AS_IS
        }
    }
}

/// A chat request as one listener takes it.
pub(crate) struct WireChat<'r> {
    pub(crate) request: &'r ChatRequest,
    pub(crate) flavour: Flavour,
    /// `None`: what the request itself says.
    pub(crate) streaming: Option<Streaming>,
}

impl WireChat<'_> {
    /// The body. Its size is guessed from the longest texts first: growing by doubling copies a large conversation
    /// more than once.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, EncodeError> {
        let texts = self.request.messages.iter().map(|message| match &message.content {
            Content::None => 64,
            Content::Text(text) => 64 + text.len(),
            Content::Parts(parts) => parts.iter().map(part_length).sum(),
        });
        let guess = 512 + texts.sum::<usize>();
        // A fifth more for escapes, tools and names.
        let mut body = Vec::with_capacity(guess + guess / 5);
        serde_json::to_writer(&mut body, self)?;
        Ok(body)
    }
}

fn part_length(part: &ContentPart) -> usize {
    64 + match part {
        ContentPart::Text { text, .. } => text.len(),
        ContentPart::ImageUrl { url, .. } => url.len(),
        ContentPart::InputAudio { data, .. } => data.len(),
        _ => 0,
    }
}

impl Serialize for WireChat<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { request, flavour, streaming } = *self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", &request.model)?;
        map.serialize_entry("messages", &WireMessages { messages: &request.messages, flavour })?;
        if !request.tools.is_empty() {
            if flavour.refuses_others
                && request.tools.iter().any(|tool| tool.extra.contains_key(CACHE_CONTROL))
            {
                let mut tools = request.tools.clone();
                tools.iter_mut().for_each(|tool| {
                    tool.extra.shift_remove(CACHE_CONTROL);
                });
                map.serialize_entry("tools", &tools)?;
            } else {
                map.serialize_entry("tools", &request.tools)?;
            }
        }
        if let Some(choice) = &request.tool_choice {
            // xAI answers 400 to a choice without tools; these two say nothing then. Source: recorded answers of 2026.
            let says_nothing =
                request.tools.is_empty() && matches!(choice, ToolChoice::None | ToolChoice::Auto);
            if !(flavour.grok && says_nothing) {
                map.serialize_entry("tool_choice", choice)?;
            }
        }
        if let Some(effort) = &request.reasoning_effort {
            map.serialize_entry("reasoning_effort", effort_word(effort, flavour))?;
        }
        if let Some(tokens) = request.max_tokens {
            map.serialize_entry(flavour.max_tokens, &tokens)?;
        }
        optional(&mut map, "response_format", &request.response_format)?;
        optional(&mut map, "temperature", &request.temperature)?;
        optional(&mut map, "top_p", &request.top_p)?;
        optional(&mut map, "n", &request.n)?;
        optional(&mut map, "seed", &request.seed)?;
        optional(&mut map, "presence_penalty", &request.presence_penalty)?;
        optional(&mut map, "frequency_penalty", &request.frequency_penalty)?;
        optional(&mut map, "parallel_tool_calls", &request.parallel_tool_calls)?;
        if !request.stop.is_empty() {
            map.serialize_entry("stop", &request.stop)?;
        }
        match streaming {
            None => {
                optional(&mut map, "stream", &request.stream)?;
                optional(&mut map, "stream_options", &request.stream_options)?;
            }
            Some(Streaming::Whole) => {}
            Some(Streaming::Stream) => {
                map.serialize_entry("stream", &true)?;
                map.serialize_entry("stream_options", &WithUsage(request.stream_options.as_ref()))?;
            }
        }
        for (key, value) in request.extra.iter().filter(|(key, _)| !is_known(key) && flavour.takes(key)) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// Fields that are written from their own places: `extra` must not say them a second time.
fn is_known(key: &str) -> bool {
    matches!(
        key,
        "model"
            | "messages"
            | "tools"
            | "tool_choice"
            | "reasoning_effort"
            | "max_tokens"
            | "max_completion_tokens"
            | "response_format"
            | "temperature"
            | "top_p"
            | "n"
            | "seed"
            | "presence_penalty"
            | "frequency_penalty"
            | "parallel_tool_calls"
            | "stop"
            | "stream"
            | "stream_options"
    )
}

fn optional<M: SerializeMap, T: Serialize>(
    map: &mut M,
    key: &str,
    value: &Option<T>,
) -> Result<(), M::Error> {
    match value {
        Some(value) => map.serialize_entry(key, value),
        None => Ok(()),
    }
}

/// xAI knows `none`, `low`, `medium`, `high` and `xhigh`: the nearest word stands for the two it lacks.
/// Source: the types of `xai-sdk` 1.21.0, read 2026-11-23.
fn effort_word(effort: &ReasoningEffort, flavour: Flavour) -> &str {
    match effort {
        ReasoningEffort::Minimal if flavour.grok => "low",
        ReasoningEffort::Max if flavour.grok => "xhigh",
        effort => effort.as_str(),
    }
}

/// Stream options with usage asked for: the limiter settles with it, and it comes in no other way.
struct WithUsage<'r>(Option<&'r StreamOptions>);

impl Serialize for WithUsage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("include_usage", &true)?;
        if let Some(options) = self.0 {
            optional(&mut map, "include_obfuscation", &options.include_obfuscation)?;
            for (key, value) in options.extra.iter().filter(|(key, _)| *key != "include_usage") {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

struct WireMessages<'r> {
    messages: &'r [Message],
    flavour: Flavour,
}

impl Serialize for WireMessages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.messages.len()))?;
        for message in self.messages {
            list.serialize_element(&WireMessage { message, flavour: self.flavour })?;
        }
        list.end()
    }
}

/// A message as one listener takes it.
pub(crate) struct WireMessage<'r> {
    pub(crate) message: &'r Message,
    pub(crate) flavour: Flavour,
}

impl Serialize for WireMessage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { message, flavour } = *self;
        let mut map = serializer.serialize_map(None)?;
        let role = match &message.role {
            Role::Developer if flavour.developer_is_system => "system",
            role => role.as_str(),
        };
        map.serialize_entry("role", role)?;
        // Null is the content of a turn that only calls tools; every listener takes it.
        match &message.content {
            Content::Parts(parts) if parts.is_empty() => map.serialize_entry("content", &())?,
            Content::Parts(parts) if flavour.refuses_others => {
                map.serialize_entry("content", &WireParts(parts))?
            }
            content => map.serialize_entry("content", content)?,
        }
        optional(&mut map, "name", &message.name)?;
        if !message.tool_calls.is_empty() {
            map.serialize_entry("tool_calls", &WireCalls { calls: &message.tool_calls, flavour })?;
        }
        optional(&mut map, "tool_call_id", &message.tool_call_id)?;
        optional(&mut map, "refusal", &message.refusal)?;
        if flavour.reasoning_content {
            optional(&mut map, "reasoning_content", &message.reasoning_content)?;
        }
        for (key, value) in &message.extra {
            let known = matches!(
                key.as_str(),
                "role" | "content" | "name" | "tool_calls" | "tool_call_id" | "refusal" | "reasoning_content"
            );
            let marked = flavour.refuses_others && key == CACHE_CONTROL;
            if !known && !marked && (flavour.vendor_fields || !is_vendor_field(key)) {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

/// Anthropic's mark on parts, tools and messages of what to cache.
const CACHE_CONTROL: &str = "cache_control";

/// Content parts without Anthropic's marks; only a marked part costs a copy.
struct WireParts<'r>(&'r [ContentPart]);

impl Serialize for WireParts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for part in self.0 {
            match part.extra() {
                Some(extra) if extra.contains_key(CACHE_CONTROL) => {
                    let mut part = part.clone();
                    part.extra_mut().map(|extra| extra.shift_remove(CACHE_CONTROL));
                    list.serialize_element(&part)?;
                }
                _ => list.serialize_element(part)?,
            }
        }
        list.end()
    }
}

fn is_vendor_field(key: &str) -> bool {
    Message::VENDOR_FIELDS.contains(&key)
}

struct WireCalls<'r> {
    calls: &'r [ToolCall],
    flavour: Flavour,
}

impl Serialize for WireCalls<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.calls.len()))?;
        for call in self.calls {
            if self.flavour.vendor_fields || !call.extra.keys().any(|key| is_vendor_field(key)) {
                list.serialize_element(call)?;
            } else {
                // Only a call that another vendor signed costs a copy.
                let mut call = call.clone();
                call.extra.retain(|key, _| !is_vendor_field(key));
                list.serialize_element(&call)?;
            }
        }
        list.end()
    }
}

/// A Responses request, streamed or not.
pub(crate) struct WireResponses<'r> {
    pub(crate) request: &'r ResponsesRequest,
    pub(crate) streaming: Streaming,
}

impl Serialize for WireResponses<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { request, streaming } = *self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", &request.model)?;
        map.serialize_entry("input", &request.input)?;
        if streaming == Streaming::Stream {
            map.serialize_entry("stream", &true)?;
        }
        optional(&mut map, "max_output_tokens", &request.max_output_tokens)?;
        for (key, value) in &request.extra {
            if !matches!(key.as_str(), "model" | "input" | "stream" | "max_output_tokens") {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}
