//! Embeddings that are passed on for somebody else.

use bytes::Bytes;
use omega_policy::Usage;
use omega_protocol::{
    CallerProtocol, EmbeddingsRequest, EncodeError, Endpoint, Envelope, Provider, RequestError, Streaming,
    estimate_embeddings_tokens,
};

use crate::exchange::{Encoded, Exchange, Incoming, Received};
use crate::watch::Fault;

/// A request for embeddings in OpenAI's protocol, as it came.
#[derive(Clone, Debug)]
pub struct RelayEmbeddings {
    body: Bytes,
    envelope: Envelope,
    request: EmbeddingsRequest,
}

impl RelayEmbeddings {
    /// Reads it.
    ///
    /// # Errors
    /// The body is no request for embeddings.
    pub fn read(body: Bytes) -> Result<Self, RequestError> {
        let envelope = Envelope::read(CallerProtocol::ChatCompletions, &body)?;
        let mut request: EmbeddingsRequest = serde_json::from_slice(&body).map_err(|error| RequestError {
            field: None,
            message: format!("the request cannot be read: {error}"),
        })?;
        // Ours, and not the providers' to refuse.
        for ours in ["fallbacks", "models"] {
            request.extra.shift_remove(ours);
        }
        Ok(Self { body, envelope, request })
    }

    /// The model asked for.
    pub fn model(&self) -> &str {
        &self.envelope.model
    }

    /// What it weighs, by bytes.
    pub fn input_tokens(&self) -> u64 {
        estimate_embeddings_tokens(&self.request)
    }

    pub(crate) fn fallbacks(&self) -> Option<&Vec<String>> {
        self.envelope.fallbacks.as_ref()
    }
}

/// How the answer is read.
#[derive(Clone, Copy)]
pub(crate) enum How {
    /// As it came.
    Passed,
    /// In OpenAI's words; as base64 where that was asked for.
    Translated { as_base64: bool },
}

/// An answer of relayed embeddings.
pub(crate) struct Vectors {
    pub(crate) body: Bytes,
    pub(crate) usage: Option<Usage>,
    pub(crate) request_id: Option<String>,
}

impl Exchange for RelayEmbeddings {
    type Asked = EmbeddingsRequest;
    type Answer = Vectors;
    type How = How;
    const GENERATES: bool = false;

    fn asked(&self) -> &EmbeddingsRequest {
        &self.request
    }

    fn asked_mut(&mut self) -> &mut EmbeddingsRequest {
        &mut self.request
    }

    fn wants_whole(&self) -> bool {
        true
    }

    fn encode(
        &self,
        provider: &dyn Provider,
        endpoint: &Endpoint,
        _guard: bool,
    ) -> Result<Encoded<How>, EncodeError> {
        let streaming = Streaming::Whole;
        let body = self.envelope.rewrite(&self.body, &self.request.model, false);
        match provider.encode_embeddings_passed(endpoint, body) {
            Ok(request) => return Ok(Encoded { request, streaming, how: How::Passed }),
            Err(EncodeError::Unsupported { .. }) => {}
            Err(error) => return Err(error),
        }
        let as_base64 = self.request.encoding_format.as_deref() == Some("base64");
        let plain = EmbeddingsRequest {
            encoding_format: self.request.encoding_format.clone().filter(|_| !as_base64),
            ..self.request.clone()
        };
        let request = provider.encode_embeddings(endpoint, &plain)?;
        Ok(Encoded { request, streaming, how: How::Translated { as_base64 } })
    }

    async fn receive(mut incoming: Incoming<'_>, how: How) -> Result<Received<Vectors>, Fault> {
        let provider = incoming.provider;
        let request_id = provider.request_id(&incoming.headers).map(str::to_owned);
        let body = incoming.whole_body().await?;
        let mut answer = provider.decode_embeddings(&body)?;
        let usage = answer.usage.as_ref().map(Usage::from);
        let now = incoming.watch.now();
        incoming.facts.came(incoming.held, &incoming.watch, Some(now));
        let body = match how {
            How::Passed => body,
            How::Translated { as_base64 } => {
                if as_base64 {
                    for one in &mut answer.data {
                        one.embedding = std::mem::take(&mut one.embedding).into_base64();
                    }
                }
                serde_json::to_vec(&answer).expect("embeddings are plain data").into()
            }
        };
        Ok(Received::whole(Vectors { body, usage, request_id }, usage))
    }
}
