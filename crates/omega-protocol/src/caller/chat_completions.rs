//! OpenAI's Chat Completions, as its server sees them. Requests and answers are this crate's own types, so there is
//! nothing to translate: only to frame.
//!
//! Source: `openai` 3.54.0 (PyPI) and 7.57.0 (npm), read 2026-11-23.

use std::collections::BTreeSet;

use serde_json::json;

use super::{CallerError, CallerFormat, RequestError, StreamWriter};
use crate::chat::MAX_CHOICES;
use crate::{ChatChunk, ChatRequest, ChatResponse, Role};

/// See the module.
pub(super) struct ChatCompletions;

impl CallerFormat for ChatCompletions {
    fn read_request(&self, body: &[u8]) -> Result<ChatRequest, RequestError> {
        ChatRequest::read(body)
    }

    fn write_answer(&self, answer: &ChatResponse) -> Vec<u8> {
        serde_json::to_vec(answer).expect("an answer is plain data")
    }

    fn stream_writer(&self, request: &ChatRequest) -> Box<dyn StreamWriter> {
        let asked = request.stream_options.as_ref().and_then(|options| options.include_usage);
        Box::new(Chunks { usage: asked.unwrap_or(false), ..Chunks::default() })
    }

    fn write_error(&self, error: &CallerError<'_>) -> Vec<u8> {
        serde_json::to_vec(&body(error)).expect("an error is plain data")
    }
}

impl ChatRequest {
    /// Reads a request as OpenAI's API takes it.
    ///
    /// # Errors
    /// It is not JSON, or a field cannot be read; the error names it.
    pub fn read(json: &[u8]) -> Result<Self, RequestError> {
        serde_json::from_slice(json).map_err(|error| {
            match serde_path_to_error::deserialize::<_, Self>(&mut serde_json::Deserializer::from_slice(json))
            {
                Err(found) if error.is_data() && found.path().iter().next().is_some() => {
                    RequestError::at(found.path().to_string(), error.to_string())
                }
                _ => not_json_of_this_kind(&error),
            }
        })
    }
}

/// A body that cannot be read, with the place where reading stopped.
pub(super) fn not_json_of_this_kind(error: &serde_json::Error) -> RequestError {
    let message = match error.classify() {
        serde_json::error::Category::Data => format!("the request cannot be read: {error}"),
        _ => format!("the body is not valid JSON: {error}"),
    };
    RequestError { field: None, message }
}

/// OpenAI's error object. `type` is the provider's own word where there is one.
pub(super) fn body(error: &CallerError<'_>) -> serde_json::Value {
    let by_status = match error.status {
        400..=428 | 430..=499 => "invalid_request_error",
        429 => "rate_limit_error",
        503 => "service_unavailable_error",
        _ => "server_error",
    };
    json!({"error": {
        "message": error.message,
        "type": error.error_type.as_deref().unwrap_or(by_status),
        "param": error.param,
        "code": error.code,
    }})
}

/// A stream of chunks.
#[derive(Default)]
struct Chunks {
    /// Whether the caller asked for the usage; a chunk that has nothing else is left out otherwise.
    usage: bool,
    /// What the first chunk said: the chunks of one answer share both.
    id: String,
    created: u64,
    /// Answers of which the caller has been told who speaks: OpenAI's Node SDK takes none without.
    introduced: BTreeSet<u32>,
}

impl StreamWriter for Chunks {
    fn push(&mut self, chunk: &ChatChunk, out: &mut Vec<u8>) {
        self.note(chunk);
        if chunk.choices.is_empty() && !self.usage {
            return;
        }
        let mut chunk = chunk.clone();
        chunk.id.clone_from(&self.id);
        chunk.created = self.created;
        if !self.usage {
            chunk.usage = None;
        }
        for choice in &mut chunk.choices {
            choice.delta.role = self.is_new(choice.index).then_some(Role::Assistant);
        }
        out.extend_from_slice(b"data: ");
        serde_json::to_writer(&mut *out, &chunk).expect("a chunk is plain data");
        out.extend_from_slice(b"\n\n");
    }

    fn follow(&mut self, _event: &[u8], chunks: &[ChatChunk]) {
        for chunk in chunks {
            self.note(chunk);
            for choice in &chunk.choices {
                self.is_new(choice.index);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// No `[DONE]`: a stream that failed must not end like one that did not.
    fn fail(&mut self, error: &CallerError<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: ");
        serde_json::to_writer(&mut *out, &body(error)).expect("an error is plain data");
        out.extend_from_slice(b"\n\n");
    }
}

impl Chunks {
    /// Whether nothing was said of this answer yet. The first chunk of it says who speaks.
    fn is_new(&mut self, index: u32) -> bool {
        self.introduced.len() < MAX_CHOICES && self.introduced.insert(index)
    }

    fn note(&mut self, chunk: &ChatChunk) {
        if self.id.is_empty() {
            self.id.clone_from(&chunk.id);
        }
        if self.created == 0 {
            self.created = chunk.created;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_cannot_be_read_is_named() {
        let wrong = |body: &str| ChatRequest::read(body.as_bytes()).unwrap_err();
        for (body, field) in [
            (r#"{"model": "m", "messages": [], "max_tokens": -1}"#, "max_tokens"),
            (
                r#"{"model": "m", "messages": [{"role": "user", "content": "a"}, {"role": 3}]}"#,
                "messages[1].role",
            ),
            (r#"{"model": "m", "messages": "hi"}"#, "messages"),
        ] {
            let error = wrong(body);
            assert_eq!(error.field.as_deref(), Some(field), "{body}");
            assert!(error.message.starts_with(&format!("`{field}`: ")), "{}", error.message);
        }
        assert!(wrong("[]").message.starts_with("the request cannot be read: "));
        assert!(wrong("{").message.starts_with("the body is not valid JSON: "));
        assert!(wrong(r#"{"model": "m"}"#).message.contains("messages"));
    }
}
