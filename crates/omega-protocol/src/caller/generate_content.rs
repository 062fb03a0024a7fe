//! Gemini's `generateContent`, as its server sees it: for callers whose request goes to a provider of another protocol.
//!
//! Fields are read under both of their names (`maxOutputTokens`, `max_output_tokens`), as Google reads them.
//!
//! Source: ai.google.dev and `google-genai` 3.4.0, read 2026-11-23.

mod answer;
mod request;
mod schema;
mod stream;

use serde_json::{Value, json};

use super::{CallerError, CallerFormat, RequestError, StreamWriter};
use crate::{ChatRequest, ChatResponse};

/// See the module.
pub(super) struct GenerateContent;

impl CallerFormat for GenerateContent {
    fn read_request(&self, body: &[u8]) -> Result<ChatRequest, RequestError> {
        request::read(body)
    }

    fn write_answer(&self, answer: &ChatResponse) -> Vec<u8> {
        serde_json::to_vec(&answer::answer(answer)).expect("an answer is plain data")
    }

    fn stream_writer(&self, _request: &ChatRequest) -> Box<dyn StreamWriter> {
        Box::new(stream::Writer::default())
    }

    fn write_error(&self, error: &CallerError<'_>) -> Vec<u8> {
        serde_json::to_vec(&body(error)).expect("an error is plain data")
    }
}

/// Google's word for a status. Source: google.rpc.Code and its HTTP mapping.
fn word(status: u16) -> &'static str {
    match status {
        400 | 413 | 422 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        402 | 429 => "RESOURCE_EXHAUSTED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        408 | 504 => "DEADLINE_EXCEEDED",
        409 => "ABORTED",
        501 => "UNIMPLEMENTED",
        502 | 503 | 520..=529 => "UNAVAILABLE",
        400..=499 => "FAILED_PRECONDITION",
        _ => "INTERNAL",
    }
}

const KIND: &str = "type.googleapis.com/google.rpc.";

/// Google's error object.
fn body(error: &CallerError<'_>) -> Value {
    let mut details = Vec::new();
    if let Some(code) = &error.code {
        details.push(json!({"@type": format!("{KIND}ErrorInfo"), "reason": code, "domain": "omega"}));
    }
    if let Some(wait) = error.retry_after {
        let delay = format!("{}s", wait.as_secs_f64());
        details.push(json!({"@type": format!("{KIND}RetryInfo"), "retryDelay": delay}));
    }
    if let Some(field) = &error.param {
        let violation = json!({"field": field, "description": error.message});
        details.push(json!({"@type": format!("{KIND}BadRequest"), "fieldViolations": [violation]}));
    }
    if let Some(id) = &error.request_id {
        details.push(json!({"@type": format!("{KIND}RequestInfo"), "requestId": id}));
    }
    let status = word(error.status);
    json!({"error": {"code": error.status, "message": error.message, "status": status, "details": details}})
}
