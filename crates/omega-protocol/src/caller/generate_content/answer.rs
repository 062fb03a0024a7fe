//! From a chat response to the object that Google's SDKs read.

use serde_json::{Value, json};

use crate::caller::{call_arguments, whole_text};
use crate::{ChatResponse, Choice, FinishReason, Message, Usage};

/// The answer.
pub(super) fn answer(answer: &ChatResponse) -> Value {
    let candidates: Vec<Value> = answer.choices.iter().map(candidate).collect();
    let mut whole = json!({"candidates": candidates, "modelVersion": answer.model, "responseId": answer.id});
    if let Some(usage) = &answer.usage {
        whole["usageMetadata"] = usage_metadata(usage);
    }
    whole
}

fn candidate(choice: &Choice) -> Value {
    let finish = choice.finish_reason.as_ref();
    json!({
        "content": {"role": "model", "parts": parts(&choice.message)},
        "finishReason": finish_reason(finish),
        "index": choice.index,
    })
}

fn parts(message: &Message) -> Vec<Value> {
    let mut parts = Vec::new();
    if let Some(thought) = message.reasoning_content.as_deref().filter(|thought| !thought.is_empty()) {
        parts.push(json!({"text": thought, "thought": true}));
    }
    let text = whole_text(&message.content);
    for text in [text.as_str(), message.refusal.as_deref().unwrap_or_default()] {
        if !text.is_empty() {
            parts.push(json!({"text": text}));
        }
    }
    parts.extend(message.tool_calls.iter().map(|call| call_part(&call.id, call.name(), call.arguments())));
    parts
}

/// A call.
pub(super) fn call_part(id: &str, name: &str, arguments: &str) -> Value {
    json!({"functionCall": {"id": id, "name": name, "args": call_arguments(arguments)}})
}

/// Why an answer ended.
pub(super) fn finish_reason(finish: Option<&FinishReason>) -> &'static str {
    match finish {
        Some(FinishReason::Length) => "MAX_TOKENS",
        Some(FinishReason::ContentFilter) => "SAFETY",
        _ => "STOP",
    }
}

/// What it cost. Google's candidates leave the thoughts out.
pub(super) fn usage_metadata(usage: &Usage) -> Value {
    let thoughts = usage.reasoning_tokens();
    let mut said = json!({
        "promptTokenCount": usage.prompt_tokens,
        "candidatesTokenCount": usage.completion_tokens.saturating_sub(thoughts),
        "totalTokenCount": usage.total_tokens,
    });
    if thoughts > 0 {
        said["thoughtsTokenCount"] = thoughts.into();
    }
    if usage.cached_tokens() > 0 {
        said["cachedContentTokenCount"] = usage.cached_tokens().into();
    }
    said
}
