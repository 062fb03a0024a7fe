//! From a chat response to the message that Anthropic's SDKs read.

use serde_json::{Value, json};

use crate::caller::{call_arguments, whole_text};
use crate::{ChatResponse, FinishReason, Usage};

/// The message.
pub(super) fn message(answer: &ChatResponse) -> Value {
    let choice = answer.choices.first();
    let mut content = Vec::new();
    if let Some(message) = choice.map(|choice| &choice.message) {
        let texts = whole_text(&message.content);
        for text in [texts.as_str(), message.refusal.as_deref().unwrap_or_default()] {
            if !text.is_empty() {
                content.push(json!({"type": "text", "text": text}));
            }
        }
        for call in &message.tool_calls {
            let input = call_arguments(call.arguments());
            content.push(json!({"type": "tool_use", "id": call.id, "name": call.name(), "input": input}));
        }
    }
    let finish = choice.and_then(|choice| choice.finish_reason.as_ref());
    json!({
        "id": message_id(&answer.id),
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": content,
        "stop_reason": stop_reason(finish),
        "stop_sequence": null,
        "usage": usage(answer.usage.as_ref()),
    })
}

/// Ids have a prefix by which Anthropic's are known.
pub(super) fn message_id(id: &str) -> String {
    match id.starts_with("msg_") {
        true => id.to_owned(),
        false => format!("msg_{id}"),
    }
}

/// Why an answer ended.
pub(super) fn stop_reason(finish: Option<&FinishReason>) -> &'static str {
    match finish {
        Some(FinishReason::Length) => "max_tokens",
        Some(FinishReason::ToolCalls | FinishReason::FunctionCall) => "tool_use",
        Some(FinishReason::ContentFilter) => "refusal",
        _ => "end_turn",
    }
}

/// What it cost. Anthropic's input leaves out what came from the cache or went there.
pub(super) fn usage(usage: Option<&Usage>) -> Value {
    let Some(usage) = usage else {
        return json!({"input_tokens": 0, "output_tokens": 0});
    };
    let details = usage.prompt_tokens_details.as_ref();
    let read = usage.cached_tokens();
    let written = details.and_then(|details| details.cache_write_tokens).unwrap_or(0);
    json!({
        "input_tokens": usage.prompt_tokens.saturating_sub(read).saturating_sub(written),
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "output_tokens": usage.completion_tokens,
    })
}
