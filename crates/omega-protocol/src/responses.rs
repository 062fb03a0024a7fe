//! OpenAI's Responses API: a typed envelope around content that is kept as it came.
//!
//! Source: `openai` 3.54.0 and OpenAI's streaming reference, read 2026-11-23; xAI speaks it too.

use serde::Deserialize;
use serde_json::Value;

use crate::Extra;
use crate::open::{Count, open_object, private_debug, read_object};

/// A request of the Responses API.
#[derive(Clone, Default, PartialEq)]
pub struct ResponsesRequest {
    /// The model.
    pub model: String,
    /// A text, or a list of items.
    pub input: Value,
    /// What the caller asked of its own connection; encoding takes its own argument.
    pub stream: Option<bool>,
    /// The longest answer in tokens, reasoning included.
    pub max_output_tokens: Option<u64>,
    /// Everything else, as it came.
    pub extra: Extra,
}

read_object! { ResponsesRequest {
    "model" => model required,
    "input" => input always,
    "stream" => stream optional,
    "max_output_tokens" => max_output_tokens optional,
} }

crate::open::write_object! { ResponsesRequest {
    "model" => model always,
    "input" => input always,
    "stream" => stream optional,
    "max_output_tokens" => max_output_tokens optional,
} }

private_debug! { ResponsesRequest { model, stream, max_output_tokens } as this }

impl ResponsesRequest {
    /// A request for an answer to this text.
    pub fn new(model: impl Into<String>, input: impl Into<Value>) -> Self {
        Self { model: model.into(), input: input.into(), ..Self::default() }
    }
}

/// An answer of the Responses API.
#[derive(Clone, Default, PartialEq)]
pub struct ResponsesResponse {
    /// The provider's id of the answer.
    pub id: String,
    /// When it was made, in Unix seconds.
    pub created_at: u64,
    /// `completed`, `incomplete`, `in_progress`, `queued`, `cancelled` or `failed`.
    pub status: String,
    /// The model that answered.
    pub model: String,
    /// The items of the answer.
    pub output: Value,
    /// What it cost, where the provider said so.
    pub usage: Option<ResponsesUsage>,
    /// Why it failed.
    pub error: Option<Value>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { ResponsesResponse, "object" = "response" {
    "id" => id always,
    "created_at" => created_at always via Count,
    "status" => status always,
    "model" => model always,
    "output" => output always,
    "usage" => usage optional,
    "error" => error always,
} }

private_debug! { ResponsesResponse { id, status, model, usage } as this }

impl ResponsesResponse {
    /// All output text, joined.
    pub fn text(&self) -> String {
        let items = self.output.as_array().into_iter().flatten();
        items
            .filter(|item| item["type"] == "message")
            .flat_map(|item| item["content"].as_array().into_iter().flatten())
            .filter(|part| part["type"] == "output_text")
            .filter_map(|part| part["text"].as_str())
            .collect()
    }
}

/// Tokens used by a response; `output_tokens` includes reasoning, `input_tokens` includes cached input.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResponsesUsage {
    /// Everything the model read, cached input included.
    pub input_tokens: u64,
    /// Everything the model wrote, reasoning included.
    pub output_tokens: u64,
    /// The sum.
    pub total_tokens: u64,
    /// `cached_tokens` and more.
    pub input_tokens_details: Option<Extra>,
    /// `reasoning_tokens` and more.
    pub output_tokens_details: Option<Extra>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { ResponsesUsage {
    "input_tokens" => input_tokens always via Count,
    "output_tokens" => output_tokens always via Count,
    "total_tokens" => total_tokens always via Count,
    "input_tokens_details" => input_tokens_details optional,
    "output_tokens_details" => output_tokens_details optional,
} }

impl ResponsesUsage {
    /// The part of the input that came from the provider's cache.
    pub fn cached_tokens(&self) -> u64 {
        detail(self.input_tokens_details.as_ref(), "cached_tokens")
    }

    /// The part of the output that was reasoning.
    pub fn reasoning_tokens(&self) -> u64 {
        detail(self.output_tokens_details.as_ref(), "reasoning_tokens")
    }
}

fn detail(details: Option<&Extra>, key: &str) -> u64 {
    details.and_then(|details| details.get(key)).and_then(Value::as_u64).unwrap_or(0)
}

impl From<&ResponsesUsage> for omega_policy::Usage {
    fn from(usage: &ResponsesUsage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            cached_input_tokens: usage.cached_tokens().min(usage.input_tokens),
            output_tokens: usage.output_tokens,
        }
    }
}

/// One event of a streamed response.
#[derive(Clone, PartialEq)]
pub struct ResponseEvent {
    /// Its type, such as `response.output_text.delta`.
    pub kind: String,
    /// The event, whole.
    pub data: Value,
}

impl std::fmt::Debug for ResponseEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseEvent").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl ResponseEvent {
    /// Whether it carries any of the answer: a delta of anything (text, arguments, reasoning, refusal) that is not empty.
    pub fn has_content(&self) -> bool {
        self.kind.ends_with(".delta")
            && match &self.data["delta"] {
                Value::String(text) => !text.is_empty(),
                other => !other.is_null(),
            }
    }

    /// More of the output text; empty for any other event.
    pub fn text(&self) -> &str {
        match self.kind.as_str() {
            "response.output_text.delta" => self.data["delta"].as_str().unwrap_or_default(),
            _ => "",
        }
    }

    /// The whole response that a terminal event carries.
    pub fn response(&self) -> Option<ResponsesResponse> {
        if !self.is_terminal() {
            return None;
        }
        ResponsesResponse::deserialize(&self.data["response"]).ok()
    }

    /// Whether it ends the stream of a response that is not a failure.
    pub fn is_terminal(&self) -> bool {
        matches!(self.kind.as_str(), "response.completed" | "response.incomplete")
    }
}
