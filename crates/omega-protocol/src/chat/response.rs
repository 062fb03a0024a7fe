//! Answers, whole and in chunks.

use serde_json::Value;

use super::{Message, Role, ToolCall, Usage};
use crate::Extra;
use crate::open::{AtMost, Count, open_object, open_word, private_debug};

/// Choices one answer may have; OpenAI takes `n` up to 128. More come only from a server gone wrong.
pub(crate) const MAX_CHOICES: usize = 1024;

/// Tool calls one chunk may touch. OpenAI allows 128 tools in a request.
const MAX_CALLS: usize = 1024;

/// A whole answer.
#[derive(Clone, Default, PartialEq)]
pub struct ChatResponse {
    /// The provider's id of the answer.
    pub id: String,
    /// When it was made, in Unix seconds; 0 where the provider does not say.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// One per answer asked for.
    pub choices: Vec<Choice>,
    /// What it cost, where the provider said so.
    pub usage: Option<Usage>,
    /// The tier that served it.
    pub service_tier: Option<String>,
    /// The provider's build.
    pub system_fingerprint: Option<String>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { ChatResponse, "object" = "chat.completion" {
    "id" => id always,
    "created" => created always via Count,
    "model" => model always,
    "choices" => choices always via AtMost<_, MAX_CHOICES>,
    "usage" => usage optional,
    "service_tier" => service_tier optional,
    "system_fingerprint" => system_fingerprint optional,
} }

private_debug! { ChatResponse {
    id,
    model,
    choices,
    usage,
} as this }

impl ChatResponse {
    /// The text of the first choice; empty if it has none.
    pub fn text(&self) -> &str {
        self.choices.first().map_or("", |choice| choice.message.content.text())
    }

    /// What the first choice wants called.
    pub fn tool_calls(&self) -> &[ToolCall] {
        self.choices.first().map_or(&[], |choice| &choice.message.tool_calls)
    }

    /// Why the first choice ended.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.choices.first().and_then(|choice| choice.finish_reason.clone())
    }
}

/// One answer of a response.
#[derive(Clone, Default, PartialEq)]
pub struct Choice {
    /// Which of the answers asked for.
    pub index: u32,
    /// The assistant's turn.
    pub message: Message,
    /// Why it ended.
    pub finish_reason: Option<FinishReason>,
    /// Log probabilities, where asked for.
    pub logprobs: Option<Value>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { Choice {
    "index" => index always,
    "message" => message always,
    "finish_reason" => finish_reason always,
    "logprobs" => logprobs optional,
} }

private_debug! { Choice { index, message, finish_reason } as this }

open_word! {
    /// Why an answer ended.
    FinishReason {
        /// It was complete, or met a stop text.
        Stop = "stop",
        /// It met the token limit.
        Length = "length",
        /// It waits for tool results.
        ToolCalls = "tool_calls",
        /// The provider withheld it.
        ContentFilter = "content_filter",
        /// Deprecated form of `tool_calls`.
        FunctionCall = "function_call",
    }
}

/// A piece of a streamed answer.
#[derive(Clone, Default, PartialEq)]
pub struct ChatChunk {
    /// The provider's id of the answer.
    pub id: String,
    /// When it was made, in Unix seconds; 0 where the provider does not say.
    pub created: u64,
    /// The model that answers.
    pub model: String,
    /// What is new.
    pub choices: Vec<ChunkChoice>,
    /// What it cost; on the last chunks only.
    pub usage: Option<Usage>,
    /// The tier that serves it.
    pub service_tier: Option<String>,
    /// The provider's build.
    pub system_fingerprint: Option<String>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { ChatChunk, "object" = "chat.completion.chunk" {
    "id" => id always,
    "created" => created always via Count,
    "model" => model always,
    "choices" => choices always via AtMost<_, MAX_CHOICES>,
    "usage" => usage optional,
    "service_tier" => service_tier optional,
    "system_fingerprint" => system_fingerprint optional,
} }

private_debug! { ChatChunk { id, model, choices, usage } as this }

impl ChatChunk {
    /// The text of the first choice in this chunk; empty if it has none.
    pub fn text(&self) -> &str {
        self.choices.first().and_then(|choice| choice.delta.content.as_deref()).unwrap_or_default()
    }

    /// Whether it carries any of the answer: text, reasoning, refusal or a tool call. A role, an empty delta, a finish
    /// reason or a usage report is not content: the clocks of a stream must not be reset by it.
    pub fn has_content(&self) -> bool {
        self.choices.iter().any(|choice| choice.delta.has_content())
    }

    /// How many bytes of the answer it carries; `None` if none of it. Sound and images count as nothing: their tokens do
    /// not go by their bytes.
    pub fn content_bytes(&self) -> Option<usize> {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.has_content().then(|| {
            let of_choice = self.choices.iter().map(|choice| {
                let delta = &choice.delta;
                let calls = delta.tool_calls.iter().filter_map(|call| call.function.as_ref());
                let calls: usize = calls.map(|call| length(&call.name) + length(&call.arguments)).sum();
                length(&delta.content) + length(&delta.reasoning_content) + length(&delta.refusal) + calls
            });
            of_choice.sum()
        })
    }
}

/// What is new in one answer of a stream.
#[derive(Clone, Default, PartialEq)]
pub struct ChunkChoice {
    /// Which of the answers asked for.
    pub index: u32,
    /// What is new.
    pub delta: Delta,
    /// Why it ended, on its last chunk.
    pub finish_reason: Option<FinishReason>,
    /// Log probabilities, where asked for.
    pub logprobs: Option<Value>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { ChunkChoice {
    "index" => index always,
    "delta" => delta always,
    "finish_reason" => finish_reason always,
    "logprobs" => logprobs optional,
} }

private_debug! { ChunkChoice { index, delta, finish_reason } as this }

/// What a chunk adds to the assistant's turn.
#[derive(Clone, Default, PartialEq)]
pub struct Delta {
    /// On the first chunk.
    pub role: Option<Role>,
    /// More text.
    pub content: Option<String>,
    /// More of a refusal.
    pub refusal: Option<String>,
    /// More of the reasoning that may be seen.
    pub reasoning_content: Option<String>,
    /// More of tool calls.
    pub tool_calls: Vec<ToolCallDelta>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { Delta {
    "role" => role optional,
    "content" => content optional,
    "refusal" => refusal optional,
    "reasoning_content" => reasoning_content optional,
    "tool_calls" => tool_calls optional via AtMost<_, MAX_CALLS>,
} }

private_debug! { Delta {
    role,
    content = this.content.as_ref().map(String::len),
    tool_calls = this.tool_calls.len(),
} as this }

impl Delta {
    /// Whether it carries any of the answer.
    pub fn has_content(&self) -> bool {
        let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        filled(&self.content)
            || filled(&self.reasoning_content)
            || filled(&self.refusal)
            || !self.tool_calls.is_empty()
            // Some compatible servers name it so (vLLM, OpenRouter).
            || self.extra.get("reasoning").and_then(Value::as_str).is_some_and(|text| !text.is_empty())
            // Sound of OpenAI's, and what Gemini says in other parts than text and calls (an image, for instance).
            || self.extra.get("audio").and_then(Value::as_object).is_some_and(|audio| !audio.is_empty())
            || self.extra.get("google").is_some_and(|own| own.get("parts").is_some())
    }
}

/// What a chunk adds to a tool call.
#[derive(Clone, Default, PartialEq)]
pub struct ToolCallDelta {
    /// Which call of this turn.
    pub index: u32,
    /// Its id, once.
    pub id: Option<String>,
    /// `function`, once.
    pub kind: Option<String>,
    /// Its name, once, and more of its arguments.
    pub function: Option<FunctionDelta>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { ToolCallDelta {
    "index" => index always,
    "id" => id optional,
    "type" => kind optional,
    "function" => function optional,
} }

private_debug! { ToolCallDelta { index, id, function } as this }

/// The function of a [`ToolCallDelta`].
#[derive(Clone, Default, PartialEq)]
pub struct FunctionDelta {
    /// The name, once.
    pub name: Option<String>,
    /// More of the arguments.
    pub arguments: Option<String>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { FunctionDelta {
    "name" => name optional,
    "arguments" => arguments optional,
} }

private_debug! { FunctionDelta {
    name,
    arguments = this.arguments.as_ref().map(String::len),
} as this }
