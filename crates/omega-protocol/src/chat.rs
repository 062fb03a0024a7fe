//! Chat requests, answers and stream chunks in OpenAI's shapes, which every provider file translates to and from.
//!
//! Known fields are typed, unknown ones survive in `extra` in both directions. `Debug` of these types shows models,
//! counts and sizes, never a prompt or an answer.

mod accumulator;
mod message;
mod response;
mod tools;
mod usage;

pub use accumulator::ChatAccumulator;
pub use message::{Content, ContentPart, Message, Role};
pub(crate) use response::MAX_CHOICES;
pub use response::{
    ChatChunk, ChatResponse, Choice, ChunkChoice, Delta, FinishReason, FunctionDelta, ToolCallDelta,
};
pub use tools::{
    FunctionCall, FunctionDefinition, JsonSchemaFormat, ResponseFormat, Tool, ToolCall, ToolChoice,
};
pub use usage::{CompletionTokensDetails, PromptTokensDetails, Usage};

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::Extra;
use crate::open::{OneOrMany, open_object, open_word, private_debug, read_object};
use crate::provider::openai::{Flavour, WireChat};

/// A chat request.
///
/// Source of the fields: OpenAI's Chat Completions request as typed by `openai` 3.54.0, read 2026-11-23.
#[derive(Clone, Default, PartialEq)]
pub struct ChatRequest {
    /// The model, as the provider names it.
    pub model: String,
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// What the model may call.
    pub tools: Vec<Tool>,
    /// Whether it must, may or must not call something.
    pub tool_choice: Option<ToolChoice>,
    /// The form of the answer.
    pub response_format: Option<ResponseFormat>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// The longest answer, in tokens, reasoning included where the provider counts it. Read from `max_tokens` and
    /// from `max_completion_tokens`; written under the name the target takes.
    pub max_tokens: Option<u64>,
    /// Texts that end the answer. Read from a string or a list.
    pub stop: Vec<String>,
    /// How many answers to give. Default 1.
    pub n: Option<u32>,
    /// For repeatable sampling, where the provider offers it.
    pub seed: Option<i64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// How much a reasoning model should reason.
    pub reasoning_effort: Option<ReasoningEffort>,
    /// Whether several tools may be called in one turn.
    pub parallel_tool_calls: Option<bool>,
    /// What the caller asked of its own connection. Encoding does not look at it: whether the provider is asked to
    /// stream is an argument there.
    pub stream: Option<bool>,
    /// Options of a stream; `include_usage` is set on every encoded stream, because the limiter settles with it.
    pub stream_options: Option<StreamOptions>,
    /// Everything else, as it came.
    pub extra: Extra,
}

read_object! { ChatRequest {
    "model" => model required,
    "messages" => messages required,
    "tools" => tools optional,
    "tool_choice" => tool_choice optional,
    "response_format" => response_format optional,
    "temperature" => temperature optional,
    "top_p" => top_p optional,
    "max_completion_tokens" | "max_tokens" => max_tokens optional,
    "stop" => stop optional via OneOrMany,
    "n" => n optional,
    "seed" => seed optional,
    "presence_penalty" => presence_penalty optional,
    "frequency_penalty" => frequency_penalty optional,
    "reasoning_effort" => reasoning_effort optional,
    "parallel_tool_calls" => parallel_tool_calls optional,
    "stream" => stream optional,
    "stream_options" => stream_options optional,
} }

impl Serialize for ChatRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WireChat { request: self, flavour: Flavour::AS_IS, streaming: None }.serialize(serializer)
    }
}

private_debug! { ChatRequest {
    model,
    messages = this.messages.len(),
    tools = this.tools.len(),
    max_tokens,
    n,
    stream,
    extra = this.extra.len(),
} as this }

impl ChatRequest {
    /// A request for one answer to this conversation, with the provider's defaults for everything else.
    pub fn new(model: impl Into<String>, messages: impl IntoIterator<Item = Message>) -> Self {
        Self { model: model.into(), messages: messages.into_iter().collect(), ..Self::default() }
    }

    /// Sets the longest answer, in tokens.
    #[must_use]
    pub fn max_tokens(mut self, tokens: u64) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// Sets the temperature, 0 to 2.
    #[must_use]
    pub fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = Some(temperature);
        self
    }

    /// Sets nucleus sampling, 0 to 1.
    #[must_use]
    pub fn top_p(mut self, top_p: f64) -> Self {
        self.top_p = Some(top_p);
        self
    }

    /// Offers these tools.
    #[must_use]
    pub fn tools(mut self, tools: impl IntoIterator<Item = Tool>) -> Self {
        self.tools = tools.into_iter().collect();
        self
    }

    /// Says whether a tool must, may or must not be called.
    #[must_use]
    pub fn tool_choice(mut self, choice: ToolChoice) -> Self {
        self.tool_choice = Some(choice);
        self
    }

    /// Says whether several tools may be called in one turn.
    #[must_use]
    pub fn parallel_tool_calls(mut self, allowed: bool) -> Self {
        self.parallel_tool_calls = Some(allowed);
        self
    }

    /// Sets the form of the answer.
    #[must_use]
    pub fn response_format(mut self, format: ResponseFormat) -> Self {
        self.response_format = Some(format);
        self
    }

    /// Sets the texts that end the answer.
    #[must_use]
    pub fn stop<T: Into<String>>(mut self, stop: impl IntoIterator<Item = T>) -> Self {
        self.stop = stop.into_iter().map(Into::into).collect();
        self
    }

    /// Asks for this many answers.
    #[must_use]
    pub fn n(mut self, answers: u32) -> Self {
        self.n = Some(answers);
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn seed(mut self, seed: i64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Says how much to reason.
    #[must_use]
    pub fn reasoning_effort(mut self, effort: ReasoningEffort) -> Self {
        self.reasoning_effort = Some(effort);
        self
    }

    /// Sets a field this crate has no name for; the provider decides what it means.
    #[must_use]
    pub fn extra(mut self, field: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extra.insert(field.into(), value.into());
        self
    }
}

/// OpenAI's `stream_options`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamOptions {
    /// Whether an extra chunk at the end carries the usage.
    pub include_usage: Option<bool>,
    /// Whether chunks are padded against traffic analysis.
    pub include_obfuscation: Option<bool>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { StreamOptions {
    "include_usage" => include_usage optional,
    "include_obfuscation" => include_obfuscation optional,
} }

open_word! {
    /// How much a reasoning model should reason. Which words a model takes is the provider's business.
    ReasoningEffort {
        /// `none`
        None = "none",
        /// `minimal`
        Minimal = "minimal",
        /// `low`
        Low = "low",
        /// `medium`
        Medium = "medium",
        /// `high`
        High = "high",
        /// `xhigh`
        XHigh = "xhigh",
        /// `max`
        Max = "max",
    }
}
