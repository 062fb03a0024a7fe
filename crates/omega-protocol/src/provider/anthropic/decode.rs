//! From the body of a Messages answer to a chat response, and what of it the next request must echo.
//!
//! An answer whose blocks are thinking, one text and calls, in this order, is rebuilt from OpenAI's shape and the signed
//! thinking kept beside it. Any other sequence (interleaved thinking, server tools, citations) is kept whole, because
//! the provider checks what it signed and a rebuilt turn would not be the one it wrote.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::errors;
use crate::open::{Count, read_object};
use crate::provider::translate::compact;
use crate::{
    ChatResponse, Choice, CompletionTokensDetails, Content, Extra, FinishReason, Message,
    PromptTokensDetails, ProviderError, Role, ToolCall, Usage,
};

/// Where signed thinking is kept on a message, as several clients name it.
const THINKING_BLOCKS: &str = "thinking_blocks";

/// Where content is kept that OpenAI's shape cannot carry: `anthropic.content`.
const OWN: &str = "anthropic";

/// The envelope of an answer.
struct Answer {
    id: String,
    kind: String,
    model: String,
    content: Option<Vec<Box<RawValue>>>,
    stop_reason: Option<String>,
    stop_sequence: Option<Value>,
    stop_details: Option<Value>,
    usage: Option<RawUsage>,
    extra: Extra,
}

read_object! { Answer {
    "id" => id optional,
    "type" => kind optional,
    "model" => model optional,
    "content" => content optional,
    "stop_reason" => stop_reason optional,
    "stop_sequence" => stop_sequence optional,
    "stop_details" => stop_details optional,
    "usage" => usage optional,
} }

/// Anthropic's usage. Source: `anthropic` 2.12.0, read 2026-11-23.
#[derive(Clone, Default)]
pub(super) struct RawUsage {
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    details: Option<OutputDetails>,
    extra: Extra,
}

read_object! { RawUsage {
    "input_tokens" => input_tokens optional via Count,
    "cache_creation_input_tokens" => cache_creation_input_tokens optional via Count,
    "cache_read_input_tokens" => cache_read_input_tokens optional via Count,
    "output_tokens" => output_tokens optional via Count,
    "output_tokens_details" => details optional,
} }

#[derive(Clone, Default)]
struct OutputDetails {
    thinking_tokens: Option<u64>,
    extra: Extra,
}

read_object! { OutputDetails {
    "thinking_tokens" => thinking_tokens optional via Count,
} }

impl RawUsage {
    /// Takes over what a later report says; the reports of a stream are running totals, never additions.
    pub(super) fn update(&mut self, later: Self) {
        for (ours, theirs) in [
            (&mut self.input_tokens, later.input_tokens),
            (&mut self.cache_creation_input_tokens, later.cache_creation_input_tokens),
            (&mut self.cache_read_input_tokens, later.cache_read_input_tokens),
            (&mut self.output_tokens, later.output_tokens),
        ] {
            *ours = theirs.or(*ours);
        }
        if later.details.is_some() {
            self.details = later.details;
        }
        self.extra.extend(later.extra.into_iter().filter(|(_, value)| !value.is_null()));
    }

    /// The tier that served it.
    pub(super) fn service_tier(&self) -> Option<String> {
        self.extra.get("service_tier").and_then(Value::as_str).map(str::to_owned)
    }

    /// With one meaning for every vendor: Anthropic's `input_tokens` leaves cache reads and writes out.
    pub(super) fn normalised(&self) -> Usage {
        let (read, written) = (self.cache_read_input_tokens, self.cache_creation_input_tokens);
        let prompt_tokens =
            [self.input_tokens, read, written].into_iter().flatten().fold(0, u64::saturating_add);
        let completion_tokens = self.output_tokens.unwrap_or(0);
        Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            prompt_tokens_details: (read.is_some() || written.is_some()).then(|| PromptTokensDetails {
                cached_tokens: read,
                cache_write_tokens: written,
                extra: Extra::new(),
            }),
            completion_tokens_details: self.details.clone().map(|details| CompletionTokensDetails {
                reasoning_tokens: details.thinking_tokens,
                extra: details.extra,
            }),
            extra: self
                .extra
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        }
    }
}

/// The chat response in the body of a 2xx.
pub(super) fn answer(body: &[u8]) -> Result<ChatResponse, ProviderError> {
    let answer: Answer = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(error) => return Err(crate::classify::not_the_form("a Messages answer", body, &error)),
    };
    if answer.kind == "error" || answer.extra.get("error").is_some_and(|error| !error.is_null()) {
        return Err(errors::in_a_2xx(body));
    }
    let Some(blocks) = answer.content else {
        return Err(ProviderError::malformed("the answer has no `content`"));
    };
    let Some(stop_reason) = answer.stop_reason else {
        return Err(ProviderError::malformed("the answer has no `stop_reason`: it is not finished"));
    };
    let stop = Stop { reason: stop_reason, sequence: answer.stop_sequence, details: answer.stop_details };
    let mut message = message(&blocks)
        .map_err(|error| crate::classify::not_the_form("a list of content blocks", body, &error))?;
    message.refusal = stop.refusal();
    Ok(ChatResponse {
        id: answer.id,
        created: 0,
        model: answer.model,
        choices: vec![Choice {
            index: 0,
            message,
            finish_reason: Some(stop.finish_reason()),
            logprobs: None,
            extra: stop.into_extra(),
        }],
        service_tier: answer.usage.as_ref().and_then(RawUsage::service_tier),
        usage: answer.usage.map(|usage| usage.normalised()),
        system_fingerprint: None,
        extra: answer.extra.into_iter().filter(|(key, value)| key != "role" && !value.is_null()).collect(),
    })
}

/// Why an answer ended, in Anthropic's words.
pub(super) struct Stop {
    pub(super) reason: String,
    pub(super) sequence: Option<Value>,
    pub(super) details: Option<Value>,
}

impl Stop {
    /// In OpenAI's words. A `pause_turn` is a server tool taking its time: what came is whole as far as it goes, and the
    /// turn is continued by sending it back.
    pub(super) fn finish_reason(&self) -> FinishReason {
        match self.reason.as_str() {
            "end_turn" | "stop_sequence" | "pause_turn" => FinishReason::Stop,
            "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
            "tool_use" => FinishReason::ToolCalls,
            "refusal" => FinishReason::ContentFilter,
            other => FinishReason::Other(other.to_owned()),
        }
    }

    /// The provider's explanation of a refusal.
    pub(super) fn refusal(&self) -> Option<String> {
        let explanation = self.details.as_ref()?.get("explanation")?.as_str()?;
        (self.reason == "refusal").then(|| explanation.to_owned())
    }

    /// What OpenAI's word does not say.
    pub(super) fn into_extra(self) -> Extra {
        let mut extra = Extra::new();
        extra.insert("stop_reason".to_owned(), self.reason.into());
        extra.extend(self.sequence.map(|sequence| ("stop_sequence".to_owned(), sequence)));
        extra.extend(self.details.map(|details| ("stop_details".to_owned(), details)));
        extra
    }
}

/// The input of a call as the model wrote it: the order of its fields, and numbers no machine type holds.
#[derive(Deserialize)]
struct CallInput<'b> {
    #[serde(borrow)]
    input: Option<&'b RawValue>,
}

/// The assistant's turn in OpenAI's shape.
fn message(raw: &[Box<RawValue>]) -> Result<Message, serde_json::Error> {
    let blocks: Vec<Value> =
        raw.iter().map(|block| serde_json::from_str(block.get())).collect::<Result<_, _>>()?;
    let mut message = Message { extra: kept(&blocks), ..Message::new(Role::Assistant, Content::None) };
    for (mut block, raw) in blocks.into_iter().zip(raw) {
        let kind = text_of(&block, "type").to_owned();
        match kind.as_str() {
            "text" => {
                let Value::String(more) = block["text"].take() else { continue };
                match &mut message.content {
                    Content::Text(text) => text.push_str(&more),
                    content => *content = Content::Text(more),
                }
            }
            "thinking" => {
                let Value::String(more) = block["thinking"].take() else { continue };
                message.reasoning_content.get_or_insert_default().push_str(&more);
            }
            "tool_use" => {
                let CallInput { input } = serde_json::from_str(raw.get())?;
                let arguments = input.map_or_else(|| "{}".to_owned(), compact);
                message.tool_calls.push(ToolCall::function(
                    text_of(&block, "id"),
                    text_of(&block, "name"),
                    arguments,
                ));
            }
            _ => {}
        }
    }
    Ok(message)
}

fn text_of<'v>(block: &'v Value, key: &str) -> &'v str {
    block.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What must be kept of an answer so that the next request can echo it.
pub(super) fn kept(blocks: &[Value]) -> Extra {
    let mut extra = Extra::new();
    if !is_plain(blocks) {
        extra.insert(OWN.to_owned(), serde_json::json!({ "content": blocks }));
        return extra;
    }
    let thinking: Vec<Value> = blocks.iter().filter(|block| is_thinking(block)).cloned().collect();
    if !thinking.is_empty() {
        extra.insert(THINKING_BLOCKS.to_owned(), thinking.into());
    }
    extra
}

fn is_thinking(block: &Value) -> bool {
    matches!(text_of(block, "type"), "thinking" | "redacted_thinking")
}

/// Whether the blocks are thinking, at most one plain text, then calls: what encoding rebuilds by itself.
fn is_plain(blocks: &[Value]) -> bool {
    let mut last = 0;
    blocks.iter().all(|block| {
        let (rank, known): (u8, &[&str]) = match text_of(block, "type") {
            "thinking" | "redacted_thinking" => (1, &[]),
            "text" => (2, &["type", "text"]),
            "tool_use" => (3, &["type", "id", "name", "input"]),
            _ => return false,
        };
        // A second text would be joined to the first, which is another turn to the provider.
        let in_order = rank > last || (rank == last && rank != 2);
        last = rank;
        let mut fields = block.as_object().into_iter().flatten();
        // Thinking is kept with whatever it carries.
        in_order && (rank == 1 || fields.all(|(key, value)| known.contains(&key.as_str()) || value.is_null()))
    })
}

/// The signed thinking of an earlier answer, to be sent back first. Unsigned thinking is another vendor's, or was
/// changed, and would be refused.
pub(super) fn thinking_blocks(message: &Message) -> impl Iterator<Item = &Value> {
    let blocks = message.extra.get(THINKING_BLOCKS).and_then(Value::as_array);
    blocks.into_iter().flatten().filter(|block| {
        is_thinking(block) && (!text_of(block, "signature").is_empty() || !text_of(block, "data").is_empty())
    })
}

/// The whole content of an earlier answer, if it was kept and the caller has not changed the message since: its text
/// and its calls are still the ones in the content.
pub(super) fn kept_content(message: &Message) -> Option<&Vec<Value>> {
    let content = message.extra.get(OWN)?.get("content")?.as_array().filter(|content| !content.is_empty())?;
    let of = |kind: &'static str| content.iter().filter(move |block| text_of(block, "type") == kind);
    let text: String = of("text").map(|block| text_of(block, "text")).collect();
    let same_text = text == message.content.text();
    let same_calls = of("tool_use")
        .map(|block| text_of(block, "id"))
        .eq(message.tool_calls.iter().map(|call| call.id.as_str()));
    (same_text && same_calls).then_some(content)
}
