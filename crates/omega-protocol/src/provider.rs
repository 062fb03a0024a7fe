//! What every provider's protocol offers, and the four that exist. One vendor a file; only grok may look at openai.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use jiff::Timestamp;
use omega_policy::{FailureKind, QuotaHint};
use serde::{Deserialize, Serialize};

use crate::{
    CallerProtocol, ChatChunk, ChatRequest, ChatResponse, EmbeddingsRequest, EmbeddingsResponse, EncodeError,
    Endpoint, ProviderError, ResponseEvent, ResponsesRequest, ResponsesResponse, UnknownDialect,
};

mod anthropic;
mod google;
mod grok;
pub(crate) mod openai;
mod plain;
mod translate;

pub(crate) use translate::data_url;

/// A wire protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Dialect {
    /// OpenAI, and every server that speaks like it.
    #[serde(rename = "openai")]
    OpenAi,
    /// Anthropic's Messages.
    #[serde(rename = "anthropic")]
    Anthropic,
    /// Google's Gemini API.
    #[serde(rename = "google", alias = "gemini")]
    Google,
    /// xAI.
    #[serde(rename = "grok", alias = "xai")]
    Grok,
}

impl Dialect {
    /// All of them, in the order of the statistics.
    pub const ALL: [Self; 4] = [Self::OpenAi, Self::Anthropic, Self::Google, Self::Grok];

    /// How to speak it.
    pub fn provider(self) -> &'static dyn Provider {
        match self {
            Self::OpenAi => &openai::OpenAi,
            Self::Anthropic => &anthropic::Anthropic,
            Self::Google => &google::Google,
            Self::Grok => &grok::Grok,
        }
    }

    /// The vendor's own address. OpenAI's and xAI's include `/v1`; Anthropic's and Google's do not, as their SDKs have
    /// it. Source: the SDKs `openai` 3.54.0, `anthropic` 2.12.0, `google-genai` 3.4.0 and docs.x.ai, read 2026-11-23.
    pub fn default_base_url(self) -> &'static str {
        match self {
            Self::OpenAi => "https://api.openai.com/v1",
            Self::Anthropic => "https://api.anthropic.com",
            Self::Google => "https://generativelanguage.googleapis.com",
            Self::Grok => "https://api.x.ai/v1",
        }
    }

    /// Its name in configuration and statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Google => "google",
            Self::Grok => "grok",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(name: &str) -> Result<Self, UnknownDialect> {
        match name.to_ascii_lowercase().as_str() {
            "openai" => Ok(Self::OpenAi),
            "anthropic" => Ok(Self::Anthropic),
            "google" | "gemini" => Ok(Self::Google),
            "grok" | "xai" => Ok(Self::Grok),
            _ => Err(UnknownDialect(name.to_owned())),
        }
    }
}

/// Whether the provider is asked for the answer at once or in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Streaming {
    /// At once.
    Whole,
    /// In pieces.
    Stream,
}

/// One wire protocol, as pure functions.
pub trait Provider: Send + Sync {
    /// Which one it is.
    fn dialect(&self) -> Dialect;

    /// The HTTP request that asks for a chat answer.
    ///
    /// # Errors
    /// The request has a field that the protocol cannot express; the error names it. What only another vendor
    /// understands is left out instead, so that a request can move between providers unchanged.
    fn encode_chat(
        &self,
        endpoint: &Endpoint,
        request: &ChatRequest,
        streaming: Streaming,
    ) -> Result<Request<Bytes>, EncodeError>;

    /// The answer in the body of a 2xx.
    ///
    /// # Errors
    /// The body is malformed, or a failure in spite of its status.
    fn decode_chat(&self, body: &[u8]) -> Result<ChatResponse, ProviderError>;

    /// A decoder for the body of one streamed answer.
    fn chat_decoder(&self) -> Box<dyn ChatDecoder>;

    /// The HTTP request that asks for embeddings.
    ///
    /// # Errors
    /// As [`Provider::encode_chat`]; or the provider offers none.
    fn encode_embeddings(
        &self,
        _endpoint: &Endpoint,
        _request: &EmbeddingsRequest,
    ) -> Result<Request<Bytes>, EncodeError> {
        Err(EncodeError::Unsupported { dialect: self.dialect(), operation: "embeddings" })
    }

    /// The embeddings in the body of a 2xx.
    ///
    /// # Errors
    /// The body is malformed, or a failure in spite of its status.
    fn decode_embeddings(&self, _body: &[u8]) -> Result<EmbeddingsResponse, ProviderError> {
        Err(not_offered(self.dialect(), "embeddings"))
    }

    /// The HTTP request that asks for an answer of OpenAI's Responses API.
    ///
    /// # Errors
    /// As [`Provider::encode_chat`]; or the provider offers none.
    fn encode_responses(
        &self,
        _endpoint: &Endpoint,
        _request: &ResponsesRequest,
        _streaming: Streaming,
    ) -> Result<Request<Bytes>, EncodeError> {
        Err(EncodeError::Unsupported { dialect: self.dialect(), operation: "responses" })
    }

    /// The response in the body of a 2xx.
    ///
    /// # Errors
    /// The body is malformed, or says `failed` in spite of its status.
    fn decode_responses(&self, _body: &[u8]) -> Result<ResponsesResponse, ProviderError> {
        Err(not_offered(self.dialect(), "responses"))
    }

    /// A decoder for the body of one streamed response.
    fn responses_decoder(&self) -> Box<dyn ResponsesDecoder> {
        Box::new(NoResponses(self.dialect()))
    }

    /// The HTTP request of a caller who speaks this provider's own protocol: its body as it is.
    ///
    /// - `model`: for a protocol that names it in the path.
    /// - `body`: says itself whether it wants a stream, where the protocol has it in the body.
    ///
    /// # Errors
    /// This is not the provider's own protocol, or the model's name does not fit into an address.
    fn encode_passed(
        &self,
        endpoint: &Endpoint,
        protocol: CallerProtocol,
        model: &str,
        streaming: Streaming,
        body: Bytes,
    ) -> Result<Request<Bytes>, EncodeError>;

    /// The HTTP request of a caller who asks for embeddings as this provider takes them: its body as it is.
    ///
    /// # Errors
    /// This is not the provider's own protocol.
    fn encode_embeddings_passed(
        &self,
        _endpoint: &Endpoint,
        _body: Bytes,
    ) -> Result<Request<Bytes>, EncodeError> {
        Err(EncodeError::Unsupported { dialect: self.dialect(), operation: "such embeddings" })
    }

    /// The HTTP request that asks how many tokens a request of the provider's own protocol has.
    ///
    /// # Errors
    /// The provider does not count, or not in this protocol.
    fn encode_count(
        &self,
        _endpoint: &Endpoint,
        _protocol: CallerProtocol,
        _model: &str,
        _body: Bytes,
    ) -> Result<Request<Bytes>, EncodeError> {
        Err(EncodeError::Unsupported { dialect: self.dialect(), operation: "counting of tokens" })
    }

    /// What an answer other than 2xx means.
    ///
    /// `now` is the time of receipt; it is looked at only where the provider names a date.
    fn classify(&self, status: StatusCode, headers: &HeaderMap, body: &[u8], now: Timestamp)
    -> ProviderError;

    /// What the headers of any answer say about the quota.
    fn quota_hint(&self, headers: &HeaderMap, now: Timestamp) -> Option<QuotaHint>;

    /// The provider's id of the request, for its support.
    fn request_id<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str>;
}

/// Turns the bytes of one streamed chat answer into chunks, and knows when it is complete.
pub trait ChatDecoder: Send {
    /// Feeds bytes as they came; appends finished chunks to `out`.
    ///
    /// # Errors
    /// The stream is broken or carried an error. Chunks decoded before it are in `out`. Whatever is fed
    /// afterwards is an error too.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<ChatChunk>) -> Result<(), ProviderError>;

    /// [`ChatDecoder::push`] for someone who passes the bytes on as they are: the same judgement, and of the chunks only
    /// what the clocks and the limiter want to know.
    ///
    /// # Errors
    /// As [`ChatDecoder::push`].
    fn glance(&mut self, bytes: &[u8]) -> Result<Glimpse, ProviderError> {
        let mut chunks = Vec::new();
        self.push(bytes, &mut chunks)?;
        Ok(Glimpse::of(&chunks))
    }

    /// [`ChatDecoder::glance`] for a piece that is exactly one event of the kind that nearly all events of a stream are.
    ///
    /// `None`: it is not known to be that, and nothing of it was taken; it is still to be fed.
    fn glance_event(&mut self, piece: &[u8]) -> Option<Glimpse> {
        let _ = piece;
        None
    }

    /// The body ended cleanly.
    ///
    /// # Errors
    /// The provider's terminator was not seen: what came is not a whole answer.
    fn finish(&mut self, out: &mut Vec<ChatChunk>) -> Result<(), ProviderError>;

    /// True once the terminator proper was seen: nothing more will come, finalise at once.
    fn is_done(&self) -> bool;
}

/// What was seen in passing of some chunks of a streamed answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glimpse {
    /// Bytes of the answer in them; `None` if they carry none of it.
    pub content: Option<usize>,
    /// What it cost, where they say so.
    pub usage: Option<omega_policy::Usage>,
    /// There is a chunk that says only what it cost.
    pub reports_usage: bool,
}

impl Glimpse {
    /// So many bytes of text.
    pub(crate) fn text(bytes: usize) -> Self {
        Self { content: (bytes > 0).then_some(bytes), ..Self::default() }
    }

    /// What is seen of all of these.
    pub fn of(chunks: &[ChatChunk]) -> Self {
        let mut seen = Self::default();
        chunks.iter().for_each(|chunk| seen.note(chunk));
        seen
    }

    /// Takes note of one chunk more.
    pub fn note(&mut self, chunk: &ChatChunk) {
        self.add(Self {
            content: chunk.content_bytes(),
            usage: chunk.usage.as_ref().map(omega_policy::Usage::from),
            reports_usage: chunk.choices.is_empty() && chunk.usage.is_some(),
        });
    }

    /// Adds what was seen after it.
    pub fn add(&mut self, later: Self) {
        if let Some(bytes) = later.content {
            self.content = Some(self.content.unwrap_or(0) + bytes);
        }
        self.usage = later.usage.or(self.usage);
        self.reports_usage |= later.reports_usage;
    }
}

/// Turns the bytes of one streamed response (Responses API) into events, and knows when it is complete.
pub trait ResponsesDecoder: Send {
    /// Feeds bytes as they came; appends finished events to `out`.
    ///
    /// # Errors
    /// As [`ChatDecoder::push`].
    fn push(&mut self, bytes: &[u8], out: &mut Vec<ResponseEvent>) -> Result<(), ProviderError>;

    /// As [`ChatDecoder::glance_event`].
    fn glance_event(&mut self, piece: &[u8]) -> Option<Glimpse> {
        let _ = piece;
        None
    }

    /// The body ended cleanly.
    ///
    /// # Errors
    /// Neither `response.completed` nor `response.incomplete` was seen.
    fn finish(&mut self, out: &mut Vec<ResponseEvent>) -> Result<(), ProviderError>;

    /// True once the terminator was seen.
    fn is_done(&self) -> bool;
}

/// The decoder of a protocol without a Responses API. Its request cannot be encoded, so nothing reaches it.
struct NoResponses(Dialect);

impl ResponsesDecoder for NoResponses {
    fn push(&mut self, _bytes: &[u8], _out: &mut Vec<ResponseEvent>) -> Result<(), ProviderError> {
        Err(not_offered(self.0, "responses"))
    }

    fn finish(&mut self, _out: &mut Vec<ResponseEvent>) -> Result<(), ProviderError> {
        Err(not_offered(self.0, "responses"))
    }

    fn is_done(&self) -> bool {
        false
    }
}

/// Where a protocol that puts its model into the body is spoken.
fn passed_to(
    dialect: Dialect,
    paths: &[(CallerProtocol, &str)],
    endpoint: &Endpoint,
    protocol: CallerProtocol,
    body: Bytes,
) -> Result<Request<Bytes>, EncodeError> {
    match paths.iter().find(|(spoken, _)| *spoken == protocol) {
        Some((_, path)) => endpoint.post(path, body),
        None => Err(EncodeError::Unsupported { dialect, operation: "such calls" }),
    }
}

fn not_offered(dialect: Dialect, operation: &str) -> ProviderError {
    ProviderError::new(
        FailureKind::UnknownModel,
        format!("{dialect} has no {operation} in the API this crate speaks"),
    )
}
