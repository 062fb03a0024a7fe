//! Anthropic's Messages, as their server sees them: for callers whose request goes to a provider of another protocol.
//!
//! What an answer let be seen of its reasoning is not passed on: a thinking block without Anthropic's signature would be
//! refused the moment the caller's next turn goes to Anthropic itself.
//!
//! Source: platform.claude.com, `anthropic` 2.12.0 and `@anthropic-ai/sdk` 1.12.0, read 2026-11-23.

mod answer;
mod request;
mod stream;

use serde_json::json;

use super::{CallerError, CallerFormat, RequestError, StreamWriter};
use crate::{ChatRequest, ChatResponse};

/// See the module.
pub(super) struct Messages;

impl CallerFormat for Messages {
    fn read_request(&self, body: &[u8]) -> Result<ChatRequest, RequestError> {
        request::read(body)
    }

    fn write_answer(&self, answer: &ChatResponse) -> Vec<u8> {
        serde_json::to_vec(&answer::message(answer)).expect("an answer is plain data")
    }

    fn stream_writer(&self, _request: &ChatRequest) -> Box<dyn StreamWriter> {
        Box::new(stream::Writer::default())
    }

    fn write_error(&self, error: &CallerError<'_>) -> Vec<u8> {
        serde_json::to_vec(&body(error)).expect("an error is plain data")
    }
}

/// Anthropic's error types, by status.
const TYPES: [(u16, &str); 11] = [
    (400, "invalid_request_error"),
    (401, "authentication_error"),
    (402, "billing_error"),
    (403, "permission_error"),
    (404, "not_found_error"),
    (413, "request_too_large"),
    (429, "rate_limit_error"),
    (500, "api_error"),
    (503, "overloaded_error"),
    (504, "timeout_error"),
    (529, "overloaded_error"),
];

/// Anthropic's error object.
fn body(error: &CallerError<'_>) -> serde_json::Value {
    let own = error.error_type.as_deref().filter(|word| TYPES.iter().any(|(_, known)| known == word));
    let by_status = TYPES.iter().find(|(status, _)| *status == error.status).map(|(_, word)| *word);
    let word = own.or(by_status).unwrap_or(match error.status {
        400..=499 => "invalid_request_error",
        _ => "api_error",
    });
    let mut inner = json!({"type": word, "message": error.message});
    if let Some(code) = &error.code {
        // Where its SDKs type it.
        inner["details"] = json!({"error_code": code});
    }
    json!({"type": "error", "error": inner, "request_id": error.request_id})
}
