//! From a chat response to the response that OpenAI's SDKs read.

use serde_json::{Value, json};

use crate::caller::whole_text;
use crate::{ChatResponse, FinishReason, Usage};

/// The response.
pub(super) fn response(answer: &ChatResponse) -> Value {
    let id = bare_id(&answer.id);
    let choice = answer.choices.first();
    let mut output = Vec::new();
    if let Some(message) = choice.map(|choice| &choice.message) {
        if let Some(thought) = message.reasoning_content.as_deref().filter(|thought| !thought.is_empty()) {
            output.push(reasoning_item(&format!("rs_{id}"), thought));
        }
        let text = whole_text(&message.content);
        let refusal = message.refusal.as_deref().unwrap_or_default();
        if !text.is_empty() || !refusal.is_empty() {
            output.push(message_item(&format!("msg_{id}"), &text, refusal, "completed"));
        }
        let calls = message.tool_calls.iter().enumerate();
        output.extend(calls.map(|(at, call)| {
            call_item(&format!("fc_{id}_{at}"), &call.id, call.name(), call.arguments(), "completed")
        }));
    }
    let finish = choice.and_then(|choice| choice.finish_reason.as_ref());
    let mut whole = envelope(&id, answer.created, &answer.model, finish, output);
    whole["usage"] = usage(answer.usage.as_ref());
    whole
}

/// Ids have prefixes by what they are of.
pub(super) fn bare_id(id: &str) -> String {
    let known = ["resp_", "chatcmpl-", "msg_"];
    known.iter().find_map(|prefix| id.strip_prefix(prefix)).unwrap_or(id).to_owned()
}

/// Why a response is not complete, if so.
fn incomplete(finish: Option<&FinishReason>) -> Option<&'static str> {
    match finish {
        Some(FinishReason::Length) => Some("max_output_tokens"),
        Some(FinishReason::ContentFilter) => Some("content_filter"),
        _ => None,
    }
}

/// Everything but the usage. What the request said is not repeated: whoever asked knows it.
pub(super) fn envelope(
    id: &str,
    created: u64,
    model: &str,
    finish: Option<&FinishReason>,
    output: Vec<Value>,
) -> Value {
    let reason = incomplete(finish);
    json!({
        "id": format!("resp_{id}"),
        "object": "response",
        "created_at": created,
        "status": if reason.is_some() { "incomplete" } else { "completed" },
        "error": null,
        "incomplete_details": reason.map(|reason| json!({"reason": reason})),
        "instructions": null,
        "max_output_tokens": null,
        "metadata": {},
        "model": model,
        "output": output,
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null},
        "store": false,
        "temperature": null,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": null,
        "truncation": "disabled",
    })
}

pub(super) fn reasoning_item(id: &str, thought: &str) -> Value {
    json!({"id": id, "type": "reasoning", "summary": [{"type": "summary_text", "text": thought}]})
}

pub(super) fn message_item(id: &str, text: &str, refusal: &str, status: &str) -> Value {
    let mut content = Vec::new();
    if !text.is_empty() {
        content.push(text_part(text));
    }
    if !refusal.is_empty() {
        content.push(json!({"type": "refusal", "refusal": refusal}));
    }
    json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
}

pub(super) fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

pub(super) fn call_item(id: &str, call_id: &str, name: &str, arguments: &str, status: &str) -> Value {
    json!({
        "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name,
        "arguments": arguments,
    })
}

/// What it cost; null where nobody said.
pub(super) fn usage(usage: Option<&Usage>) -> Value {
    let Some(usage) = usage else { return Value::Null };
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens()},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens()},
        "total_tokens": usage.total_tokens,
    })
}
