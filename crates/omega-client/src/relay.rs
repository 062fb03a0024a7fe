//! Calls that are passed on for somebody else: bytes in, bytes out, in the caller's own protocol.
//!
//! Where the provider speaks that protocol too, its bytes reach the caller untouched, checked event by event; elsewhere
//! they are translated. The loop, the layers and the clocks are those of every other call.

mod counting;
mod decoder;
mod embeddings;
mod exchange;
mod recovery;
mod stream;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use omega_policy::Usage;
use omega_protocol::{CallerProtocol, ChatRequest, Envelope, RequestError, Streaming};
use secrecy::SecretString;

use crate::answer::Attempt;

pub use counting::Counted;
pub(crate) use decoder::{Frame, Frames};
pub use embeddings::RelayEmbeddings;
pub(crate) use embeddings::Vectors;
pub(crate) use exchange::{Answered, Relay, is_native};
pub(crate) use recovery::Terms;
pub use stream::RelayStream;

/// A request of somebody who speaks one of the protocols, as it came.
#[derive(Clone, Debug)]
pub struct RelayRequest(Core);

/// What every attempt shares.
#[derive(Clone)]
pub(crate) struct Core {
    pub(crate) protocol: CallerProtocol,
    pub(crate) body: Bytes,
    pub(crate) envelope: Envelope,
    pub(crate) streaming: Streaming,
    /// For providers that speak the protocol.
    pub(crate) headers: HeaderMap,
    /// The caller's own key.
    pub(crate) credential: Option<SecretString>,
    /// The request in our own words, for the others. Read when it is first needed.
    typed: OnceLock<Result<Arc<ChatRequest>, RequestError>>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("protocol", &self.protocol)
            .field("bytes", &self.body.len())
            .field("streaming", &self.streaming)
            .finish_non_exhaustive()
    }
}

impl RelayRequest {
    /// Reads what must be known of a request; the rest is the provider's.
    ///
    /// # Errors
    /// See [`Envelope::read`].
    pub fn read(protocol: CallerProtocol, body: Bytes) -> Result<Self, RequestError> {
        let envelope = Envelope::read(protocol, &body)?;
        let streaming = if envelope.stream { Streaming::Stream } else { Streaming::Whole };
        let (headers, credential) = (HeaderMap::new(), None);
        Ok(Self(Core { protocol, body, envelope, streaming, headers, credential, typed: OnceLock::new() }))
    }

    /// The model, for a protocol that names it in the path.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.0.envelope.model = model.into();
        self
    }

    /// Whether the caller wants a stream, for a protocol that says it in the path.
    #[must_use]
    pub fn streaming(mut self, streaming: Streaming) -> Self {
        self.0.streaming = streaming;
        self
    }

    /// A header that goes on to a provider of the same protocol, in the place of ours.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// The caller's own key, for the provider of the model it asks for if that speaks its protocol. Nobody else gets it:
    /// no fallback at another provider, and nobody else of the same pool, which is not used then. Has no effect unless
    /// `gateway.pass_through_keys` is on.
    #[must_use]
    pub fn credential(mut self, key: SecretString) -> Self {
        self.0.credential = Some(key);
        self
    }

    /// What was read of it.
    pub fn envelope(&self) -> &Envelope {
        &self.0.envelope
    }

    /// Whether the caller wants a stream.
    pub fn is_stream(&self) -> bool {
        self.0.streaming == Streaming::Stream
    }

    pub(crate) fn into_core(self) -> Core {
        self.0
    }
}

impl Core {
    /// The same, if it has been read already.
    pub(crate) fn typed_if_known(&self) -> Option<&ChatRequest> {
        self.typed.get()?.as_ref().ok().map(|request| &**request)
    }

    /// The request in our own words.
    pub(crate) fn typed(&self) -> Result<&Arc<ChatRequest>, RequestError> {
        let read = self.typed.get_or_init(|| {
            let mut request = self.protocol.format().read_request(&self.body)?;
            // Ours, and not the providers' to refuse.
            for ours in ["fallbacks", "models"] {
                request.extra.shift_remove(ours);
            }
            Ok(Arc::new(request))
        });
        read.as_ref().map_err(Clone::clone)
    }
}

/// What became of a relayed call.
#[derive(Debug)]
pub enum Relayed {
    /// The answer in one piece.
    Whole(RelayedAnswer),
    /// The answer as it is written.
    Stream(RelayStream),
}

/// A whole answer in the caller's protocol.
#[derive(Clone, Debug)]
pub struct RelayedAnswer {
    /// The body.
    pub body: Bytes,
    /// The provider that really served it.
    pub provider: String,
    /// The model that was asked there.
    pub model: String,
    /// Every attempt, in order; the last one is the answer.
    pub attempts: Vec<Attempt>,
    /// How long the call waited for quota, over all attempts.
    pub queued: Duration,
    /// What it cost, where the provider said so.
    pub usage: Option<Usage>,
    /// The provider's id of the request, for its support.
    pub request_id: Option<String>,
}
