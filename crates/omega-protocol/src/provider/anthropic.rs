//! Anthropic's Messages API, in both of its versions: chat requests out, answers and streams in.
//!
//! The request goes through `encode`, whole answers through `decode`, streams through `stream`, and what is no answer
//! through `errors`. What OpenAI's shape has no place for (signed thinking, server tools, citations) is kept on the
//! assistant's message, so that the next request can echo it unchanged, as the provider demands.
//!
//! Source: platform.claude.com, `anthropic` 2.12.0 and `@anthropic-ai/sdk` 1.12.0, read 2026-11-23.

mod conversation;
mod decode;
mod encode;
mod errors;
mod glance;
mod stream;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use jiff::Timestamp;
use omega_policy::QuotaHint;

use super::{ChatDecoder, Dialect, Provider, Streaming, passed_to};
use crate::{CallerProtocol, ChatRequest, ChatResponse, EncodeError, Endpoint, ProviderError, hints};

/// Anthropic's protocol.
#[derive(Debug)]
pub(super) struct Anthropic;

/// Where the caller's own protocol is spoken.
const PATHS: [(CallerProtocol, &str); 1] = [(CallerProtocol::Messages, "/v1/messages")];

impl Provider for Anthropic {
    fn dialect(&self) -> Dialect {
        Dialect::Anthropic
    }

    fn encode_chat(
        &self,
        endpoint: &Endpoint,
        request: &ChatRequest,
        streaming: Streaming,
    ) -> Result<Request<Bytes>, EncodeError> {
        endpoint.post("/v1/messages", encode::body(request, endpoint.anthropic_version(), streaming)?)
    }

    fn decode_chat(&self, body: &[u8]) -> Result<ChatResponse, ProviderError> {
        decode::answer(body)
    }

    fn chat_decoder(&self) -> Box<dyn ChatDecoder> {
        Box::new(stream::Decoder::default())
    }

    fn encode_passed(
        &self,
        endpoint: &Endpoint,
        protocol: CallerProtocol,
        _model: &str,
        _streaming: Streaming,
        body: Bytes,
    ) -> Result<Request<Bytes>, EncodeError> {
        passed_to(self.dialect(), &PATHS, endpoint, protocol, body)
    }

    fn encode_count(
        &self,
        endpoint: &Endpoint,
        protocol: CallerProtocol,
        _model: &str,
        body: Bytes,
    ) -> Result<Request<Bytes>, EncodeError> {
        let paths = [(CallerProtocol::Messages, "/v1/messages/count_tokens")];
        passed_to(self.dialect(), &paths, endpoint, protocol, body)
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

    fn quota_hint(&self, headers: &HeaderMap, now: Timestamp) -> Option<QuotaHint> {
        errors::quota_hint(headers, now)
    }

    fn request_id<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        hints::header(headers, "request-id")
    }
}
