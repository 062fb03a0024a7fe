//! Google's Gemini API with a key (`generateContent`), in both of its versions: chat requests out, answers and streams
//! in.
//!
//! The request goes through `encode`, whole answers through `decode`, streams through `stream`, and what is no answer
//! through `errors`. Thought signatures travel in `extra_content`, as Google's own OpenAI-compatible API has them, so
//! that the next request can return them unchanged, as the provider demands.
//!
//! Source: ai.google.dev, `google-genai` 3.4.0 and `@google/genai` 3.1.0, read 2026-11-23.

mod conversation;
mod decode;
mod embeddings;
mod encode;
mod errors;
mod glance;
mod stream;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use jiff::Timestamp;
use omega_policy::QuotaHint;

use super::{ChatDecoder, Dialect, Provider, Streaming};
use crate::{
    CallerProtocol, ChatRequest, ChatResponse, EmbeddingsRequest, EmbeddingsResponse, EncodeError, Endpoint,
    ProviderError,
};

/// Google's protocol.
#[derive(Debug)]
pub(super) struct Google;

impl Provider for Google {
    fn dialect(&self) -> Dialect {
        Dialect::Google
    }

    fn encode_chat(
        &self,
        endpoint: &Endpoint,
        request: &ChatRequest,
        streaming: Streaming,
    ) -> Result<Request<Bytes>, EncodeError> {
        let path = encode::path(endpoint.google_version(), &request.model, encode::method(streaming))?;
        endpoint.post(&path, encode::body(request)?)
    }

    fn decode_chat(&self, body: &[u8]) -> Result<ChatResponse, ProviderError> {
        decode::answer(body)
    }

    fn chat_decoder(&self) -> Box<dyn ChatDecoder> {
        Box::new(stream::Decoder::default())
    }

    fn encode_embeddings(
        &self,
        endpoint: &Endpoint,
        request: &EmbeddingsRequest,
    ) -> Result<Request<Bytes>, EncodeError> {
        let path = encode::path(endpoint.google_version(), &request.model, "batchEmbedContents")?;
        endpoint.post(&path, embeddings::body(request)?)
    }

    fn decode_embeddings(&self, body: &[u8]) -> Result<EmbeddingsResponse, ProviderError> {
        embeddings::answer(body)
    }

    fn encode_passed(
        &self,
        endpoint: &Endpoint,
        protocol: CallerProtocol,
        model: &str,
        streaming: Streaming,
        body: Bytes,
    ) -> Result<Request<Bytes>, EncodeError> {
        if protocol != CallerProtocol::GenerateContent {
            return Err(EncodeError::Unsupported { dialect: Dialect::Google, operation: "such calls" });
        }
        let path = encode::path(endpoint.google_version(), model, encode::method(streaming))?;
        endpoint.post(&path, body)
    }

    fn encode_count(
        &self,
        endpoint: &Endpoint,
        protocol: CallerProtocol,
        model: &str,
        body: Bytes,
    ) -> Result<Request<Bytes>, EncodeError> {
        if protocol != CallerProtocol::GenerateContent {
            return Err(EncodeError::Unsupported { dialect: Dialect::Google, operation: "such calls" });
        }
        endpoint.post(&encode::path(endpoint.google_version(), model, "countTokens")?, body)
    }

    fn classify(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> ProviderError {
        errors::classify(status, headers, body, now)
    }

    /// Google documents no limit headers.
    fn quota_hint(&self, _headers: &HeaderMap, _now: Timestamp) -> Option<QuotaHint> {
        None
    }

    /// Google documents no request id.
    fn request_id<'h>(&self, _headers: &'h HeaderMap) -> Option<&'h str> {
        None
    }
}
