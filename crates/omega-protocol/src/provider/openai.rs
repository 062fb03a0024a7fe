//! OpenAI's Chat Completions, Embeddings and Responses, and servers that speak like them.
//!
//! The request types of this crate are already OpenAI's, so encoding is one pass of serde with a few turns that depend
//! on who listens ([`Flavour`]).
//!
//! Source: developers.openai.com and the types of `openai` 3.54.0 (PyPI) and 7.57.0 (npm), read 2026-11-23.

mod encode;
mod error;
mod glance;
mod quota;
mod responses;
mod stream;

pub(super) use encode::WireResponses;
pub(crate) use encode::{Flavour, WireChat, WireMessage};
pub(super) use error::{Vendor, classify};
pub(super) use quota::quota_hint;
pub(super) use responses::{ResponsesStream, decode_responses};
pub(super) use stream::ChatStream;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use jiff::Timestamp;
use omega_policy::QuotaHint;

use super::{ChatDecoder, Dialect, Provider, ResponsesDecoder, Streaming, passed_to};
use crate::{
    CallerProtocol, ChatRequest, ChatResponse, EmbeddingsRequest, EmbeddingsResponse, EncodeError, Endpoint,
    ProviderError, ResponsesRequest, ResponsesResponse, Usage, hints,
};

/// Where callers' own protocols are spoken.
pub(super) const PATHS: [(CallerProtocol, &str); 2] =
    [(CallerProtocol::ChatCompletions, "/chat/completions"), (CallerProtocol::Responses, "/responses")];

/// OpenAI and its likes.
pub(super) struct OpenAi;

impl Provider for OpenAi {
    fn dialect(&self) -> Dialect {
        Dialect::OpenAi
    }

    fn encode_chat(
        &self,
        endpoint: &Endpoint,
        request: &ChatRequest,
        streaming: Streaming,
    ) -> Result<Request<Bytes>, EncodeError> {
        let flavour =
            if endpoint.is_compatible() { Flavour::compatible(&request.model) } else { Flavour::OPENAI };
        let body = WireChat { request, flavour, streaming: Some(streaming) }.to_json()?;
        endpoint.post("/chat/completions", body)
    }

    fn decode_chat(&self, body: &[u8]) -> Result<ChatResponse, ProviderError> {
        decode_chat(Vendor::OpenAi, body)
    }

    fn chat_decoder(&self) -> Box<dyn ChatDecoder> {
        Box::new(ChatStream::new(Vendor::OpenAi))
    }

    fn encode_embeddings(
        &self,
        endpoint: &Endpoint,
        request: &EmbeddingsRequest,
    ) -> Result<Request<Bytes>, EncodeError> {
        endpoint.post("/embeddings", serde_json::to_vec(request)?)
    }

    fn decode_embeddings(&self, body: &[u8]) -> Result<EmbeddingsResponse, ProviderError> {
        let mut response: EmbeddingsResponse = serde_json::from_slice(body)
            .map_err(|parse| error::in_body(Vendor::OpenAi, body, "a list of embeddings", &parse))?;
        if let Some(error) = error::hidden_in(Vendor::OpenAi, &response.extra, response.data.is_empty()) {
            return Err(error);
        }
        if response.data.is_empty() {
            return Err(ProviderError::malformed("the answer has no embeddings"));
        }
        if let Some(usage) = &mut response.usage {
            normalise(Vendor::OpenAi, usage);
        }
        Ok(response)
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
        decode_responses(Vendor::OpenAi, body)
    }

    fn responses_decoder(&self) -> Box<dyn ResponsesDecoder> {
        Box::new(ResponsesStream::new(Vendor::OpenAi))
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

    fn encode_embeddings_passed(
        &self,
        endpoint: &Endpoint,
        body: Bytes,
    ) -> Result<Request<Bytes>, EncodeError> {
        endpoint.post("/embeddings", body)
    }

    fn classify(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> ProviderError {
        classify(Vendor::OpenAi, status, headers, body, now)
    }

    fn quota_hint(&self, headers: &HeaderMap, _now: Timestamp) -> Option<QuotaHint> {
        quota_hint(headers)
    }

    fn request_id<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        hints::header(headers, "x-request-id")
    }
}

/// The answer in a 2xx body, or the failure that it is in spite of its status.
pub(super) fn decode_chat(vendor: Vendor, body: &[u8]) -> Result<ChatResponse, ProviderError> {
    let mut response: ChatResponse = serde_json::from_slice(body)
        .map_err(|parse| error::in_body(vendor, body, "a chat completion", &parse))?;
    if let Some(error) = error::hidden_in(vendor, &response.extra, response.choices.is_empty()) {
        return Err(error);
    }
    if response.choices.is_empty() {
        return Err(ProviderError::malformed("the answer has no choices"));
    }
    for choice in &mut response.choices {
        choice.finish_reason.take_if(|reason| reason.as_str().is_empty());
    }
    if let Some(usage) = &mut response.usage {
        normalise(vendor, usage);
    }
    if response.choices.iter().any(|choice| choice.finish_reason.is_none()) {
        // The body is whole, the answer need not be: a proxy that put a cut stream together leaves this out.
        let mut error = ProviderError::malformed("a choice has no `finish_reason`: it is not finished");
        error.failure.seen = response.usage.as_ref().map(Into::into);
        return Err(error);
    }
    Ok(response)
}

/// Gives `completion_tokens` its one meaning: reasoning included.
///
/// xAI leaves reasoning out: 703 prompt + 4 completion + 250 reasoning = 957 total (recorded twice by third parties).
/// Should xAI begin to include it, the total says so and nothing is added.
fn normalise(vendor: Vendor, usage: &mut Usage) {
    let reasoning = usage.reasoning_tokens();
    if vendor == Vendor::Grok {
        let visible_only = usage.prompt_tokens.saturating_add(usage.completion_tokens);
        if usage.total_tokens != visible_only {
            usage.completion_tokens = usage.completion_tokens.saturating_add(reasoning);
        }
    }
    if usage.total_tokens == 0 {
        usage.total_tokens = usage.prompt_tokens.saturating_add(usage.completion_tokens);
    }
}
