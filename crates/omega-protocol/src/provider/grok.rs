//! xAI: OpenAI's protocol with its own errors and its own way of counting.
//!
//! The one provider file that looks at another: everything but the differences is OpenAI's. They are: the error body
//! `{"code": "<sentence>", "error": "<text>"}`, 400 for a key it does not know, `completion_tokens` without reasoning,
//! fewer words for `reasoning_effort`, and many chunks with an empty delta while the model reasons.
//!
//! Source: docs.x.ai, `xai-org/xai-proto` (May 2026), the types of `xai-sdk` 1.21.0, and recorded answers, read
//! 2026-11-23.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use jiff::Timestamp;
use omega_policy::QuotaHint;

use super::openai::{
    self, ChatStream, Flavour, ResponsesStream, Vendor, WireChat, WireResponses, decode_chat,
    decode_responses,
};
use super::{ChatDecoder, Dialect, Provider, ResponsesDecoder, Streaming, passed_to};
use crate::{
    CallerProtocol, ChatRequest, ChatResponse, EncodeError, Endpoint, ProviderError, ResponsesRequest,
    ResponsesResponse, hints,
};

/// xAI.
pub(super) struct Grok;

impl Provider for Grok {
    fn dialect(&self) -> Dialect {
        Dialect::Grok
    }

    fn encode_chat(
        &self,
        endpoint: &Endpoint,
        request: &ChatRequest,
        streaming: Streaming,
    ) -> Result<Request<Bytes>, EncodeError> {
        if request.extra.get("deferred").is_some_and(|deferred| *deferred == true) {
            return Err(EncodeError::field(
                Dialect::Grok,
                "deferred",
                "a deferred answer is fetched later by its id, which this crate does not do; leave the field out",
            ));
        }
        let wire = WireChat { request, flavour: Flavour::GROK, streaming: Some(streaming) };
        endpoint.post("/chat/completions", wire.to_json()?)
    }

    fn decode_chat(&self, body: &[u8]) -> Result<ChatResponse, ProviderError> {
        decode_chat(Vendor::Grok, body)
    }

    fn chat_decoder(&self) -> Box<dyn ChatDecoder> {
        Box::new(ChatStream::new(Vendor::Grok))
    }

    fn encode_responses(
        &self,
        endpoint: &Endpoint,
        request: &ResponsesRequest,
        streaming: Streaming,
    ) -> Result<Request<Bytes>, EncodeError> {
        endpoint.post("/responses", serde_json::to_vec(&WireResponses { request, streaming })?)
    }

    fn decode_responses(&self, body: &[u8]) -> Result<ResponsesResponse, ProviderError> {
        decode_responses(Vendor::Grok, body)
    }

    fn responses_decoder(&self) -> Box<dyn ResponsesDecoder> {
        Box::new(ResponsesStream::new(Vendor::Grok))
    }

    fn encode_passed(
        &self,
        endpoint: &Endpoint,
        protocol: CallerProtocol,
        _model: &str,
        _streaming: Streaming,
        body: Bytes,
    ) -> Result<Request<Bytes>, EncodeError> {
        passed_to(self.dialect(), &openai::PATHS, endpoint, protocol, body)
    }

    fn classify(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> ProviderError {
        openai::classify(Vendor::Grok, status, headers, body, now)
    }

    fn quota_hint(&self, headers: &HeaderMap, _now: Timestamp) -> Option<QuotaHint> {
        openai::quota_hint(headers)
    }

    fn request_id<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        hints::header(headers, "x-request-id")
    }
}
