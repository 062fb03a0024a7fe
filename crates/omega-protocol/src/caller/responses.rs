//! OpenAI's Responses, as their server sees them: for callers whose request goes to a provider that has only chats.
//!
//! What needs a memory on the provider's side (earlier responses, conversations, background work) or tools that OpenAI
//! runs is refused by name.
//!
//! Source: developers.openai.com, `openai` 3.54.0 (PyPI) and 7.57.0 (npm), read 2026-11-23.

mod answer;
mod request;
mod stream;

use super::{CallerError, CallerFormat, RequestError, StreamWriter, chat_completions};
use crate::{ChatRequest, ChatResponse};

/// See the module.
pub(super) struct Responses;

impl CallerFormat for Responses {
    fn read_request(&self, body: &[u8]) -> Result<ChatRequest, RequestError> {
        request::read(body)
    }

    fn write_answer(&self, answer: &ChatResponse) -> Vec<u8> {
        serde_json::to_vec(&answer::response(answer)).expect("an answer is plain data")
    }

    fn stream_writer(&self, _request: &ChatRequest) -> Box<dyn StreamWriter> {
        Box::new(stream::Writer::default())
    }

    fn write_error(&self, error: &CallerError<'_>) -> Vec<u8> {
        serde_json::to_vec(&chat_completions::body(error)).expect("an error is plain data")
    }
}
