//! How callers speak to a gateway: the mirror image of [`Provider`](crate::Provider).
//!
//! A [`CallerFormat`] reads a request of its protocol into a [`ChatRequest`], and writes answers, chunks and errors the
//! way that protocol's official SDKs read them. Pure: bytes in, bytes out. What a protocol can say and a
//! [`ChatRequest`] cannot is refused with the field's name, never dropped in silence.

mod at;
mod chat_completions;
mod generate_content;
mod messages;
mod responses;

use std::borrow::Cow;
use std::time::Duration;

use crate::{ChatChunk, ChatRequest, ChatResponse, Content, ContentPart, Dialect, Extra};

/// A protocol in which a gateway can be asked for a chat answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallerProtocol {
    /// OpenAI's `POST /v1/chat/completions`.
    ChatCompletions,
    /// OpenAI's `POST /v1/responses`.
    Responses,
    /// Anthropic's `POST /v1/messages`.
    Messages,
    /// Gemini's `:generateContent` and `:streamGenerateContent`.
    GenerateContent,
}

impl CallerProtocol {
    /// How to read and write it.
    pub fn format(self) -> &'static dyn CallerFormat {
        match self {
            Self::ChatCompletions => &chat_completions::ChatCompletions,
            Self::Responses => &responses::Responses,
            Self::Messages => &messages::Messages,
            Self::GenerateContent => &generate_content::GenerateContent,
        }
    }

    /// Whether a provider of this dialect speaks it itself, so that bytes can pass through untouched.
    pub fn is_native_to(self, dialect: Dialect) -> bool {
        match self {
            Self::ChatCompletions | Self::Responses => matches!(dialect, Dialect::OpenAi | Dialect::Grok),
            Self::Messages => dialect == Dialect::Anthropic,
            Self::GenerateContent => dialect == Dialect::Google,
        }
    }
}

/// One protocol, as its servers see it.
pub trait CallerFormat: Send + Sync {
    /// The request in the body.
    ///
    /// Whether it streams is in [`ChatRequest::stream`] where the protocol says it in the body. A protocol that names its
    /// model elsewhere (Gemini: in the path) leaves the model empty.
    ///
    /// # Errors
    /// The body is no such request, or says what cannot be passed on; the error names the field.
    fn read_request(&self, body: &[u8]) -> Result<ChatRequest, RequestError>;

    /// A whole answer, as the body of a 200.
    fn write_answer(&self, answer: &ChatResponse) -> Vec<u8>;

    /// What writes a streamed answer to this request, as server-sent events.
    fn stream_writer(&self, request: &ChatRequest) -> Box<dyn StreamWriter>;

    /// An error, as the body of an answer with [`CallerError::status`].
    fn write_error(&self, error: &CallerError<'_>) -> Vec<u8>;
}

/// Writes one streamed answer as server-sent events.
///
/// Ends with exactly one of [`StreamWriter::finish`] and [`StreamWriter::fail`]: a stream that ends with neither looks
/// broken to whoever checks, and must.
pub trait StreamWriter: Send {
    /// More of the answer. What is needed before it (roles, the start of a block) is written first.
    fn push(&mut self, chunk: &ChatChunk, out: &mut Vec<u8>);

    /// An event of the provider that went to the caller untouched, so that a later `push` goes on where it stopped.
    ///
    /// - `event`: one event with its blank line, as it came.
    /// - `chunks`: what it says.
    fn follow(&mut self, event: &[u8], chunks: &[ChatChunk]);

    /// The answer is whole: closes what is open and writes the protocol's terminator.
    fn finish(&mut self, out: &mut Vec<u8>);

    /// The answer broke off: writes the event that the protocol's SDKs raise as an error, and nothing that could be
    /// taken for an end.
    fn fail(&mut self, error: &CallerError<'_>, out: &mut Vec<u8>);
}

/// A request that cannot be read or passed on: the caller's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// Where in the request, as the protocol writes it: `messages[2].content[0].source.type`.
    pub field: Option<String>,
    /// What is wrong, and what would work.
    pub message: String,
}

impl RequestError {
    /// An error at this field. The message names it.
    pub fn at(field: impl Into<String>, reason: impl AsRef<str>) -> Self {
        let field = field.into();
        let message = format!("`{field}`: {}", reason.as_ref());
        Self { field: Some(field), message }
    }
}

/// What went wrong, before a protocol has words for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerError<'e> {
    /// The HTTP status; inside a stream, the one the error would have had before it.
    pub status: u16,
    /// For people.
    pub message: Cow<'e, str>,
    /// The provider's error type (`insufficient_quota`, `overloaded_error`), kept where the protocol has such a type.
    pub error_type: Option<Cow<'e, str>>,
    /// The provider's error code, or ours.
    pub code: Option<Cow<'e, str>>,
    /// The request field it is about.
    pub param: Option<Cow<'e, str>>,
    /// The id under which it is logged.
    pub request_id: Option<Cow<'e, str>>,
    /// When to come back, where that is known.
    pub retry_after: Option<Duration>,
}

/// Parts as the content of a message: a single text is a plain one.
fn content_of(mut parts: Vec<ContentPart>) -> Content {
    match parts.as_mut_slice() {
        [] => Content::None,
        [ContentPart::Text { text, .. }] => Content::Text(std::mem::take(text)),
        _ => Content::Parts(parts),
    }
}

/// All the text of an answer.
fn whole_text(content: &Content) -> String {
    match content {
        Content::Parts(parts) => parts.iter().filter_map(ContentPart::as_text).collect(),
        content => content.text().to_owned(),
    }
}

/// What a call is given, as the object that its protocol wants. The model wrote it and may have written no JSON: then it
/// is handed on as text, for the caller to make sense of.
fn call_arguments(arguments: &str) -> Extra {
    match serde_json::from_str(arguments) {
        Ok(serde_json::Value::Object(arguments)) => arguments,
        _ if arguments.trim().is_empty() => Extra::new(),
        _ => Extra::from_iter([("invalid_json".to_owned(), arguments.into())]),
    }
}

/// Writes one server-sent event with a name.
fn named_event(out: &mut Vec<u8>, name: &str, data: &serde_json::Value) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    plain_event(out, data);
}

/// Writes one server-sent event.
fn plain_event(out: &mut Vec<u8>, data: &serde_json::Value) {
    out.extend_from_slice(b"data: ");
    serde_json::to_writer(&mut *out, data).expect("an event is plain data");
    out.extend_from_slice(b"\n\n");
}

/// What a server-sent event that went by says; `None` for one without JSON.
fn event_data(event: &[u8]) -> Option<serde_json::Value> {
    let mut data = Vec::new();
    for line in event.split(|byte| matches!(byte, b'\n' | b'\r')) {
        if let Some(rest) = line.strip_prefix(b"data:") {
            data.extend_from_slice(rest);
            data.push(b'\n');
        }
    }
    serde_json::from_slice(&data).ok()
}
