//! What a caller may say about one call beside the request itself.

use std::time::Duration;

use omega_protocol::{ChatRequest, EmbeddingsRequest, Message, ResponsesRequest};

/// A request and what holds for this call only. A request converts into it, so `client.chat(request)` just works.
#[derive(Clone, Debug, Default)]
pub struct Call<R> {
    /// The request. An empty model means the client's preferred one.
    pub request: R,
    /// See [`Call::fallbacks`].
    pub fallbacks: Option<Vec<String>>,
    /// See [`Call::timeout`].
    pub timeout: Option<Duration>,
    /// See [`Call::max_wait`].
    pub max_wait: Option<Duration>,
    /// See [`Call::max_attempts`].
    pub max_attempts: Option<u32>,
}

/// A chat call.
pub type ChatCall = Call<ChatRequest>;
/// An embeddings call.
pub type EmbeddingsCall = Call<EmbeddingsRequest>;
/// A call of OpenAI's Responses API.
pub type ResponsesCall = Call<ResponsesRequest>;

impl<R> Call<R> {
    /// A call with the client's settings.
    pub fn new(request: R) -> Self {
        Self { request, fallbacks: None, timeout: None, max_wait: None, max_attempts: None }
    }

    /// Models to turn to, in order, instead of the configured ones. An empty list means none.
    #[must_use]
    pub fn fallbacks<M: Into<String>>(mut self, models: impl IntoIterator<Item = M>) -> Self {
        self.fallbacks = Some(models.into_iter().map(Into::into).collect());
        self
    }

    /// How long the call may take in all: queueing, sleeping and calling, over all targets.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long its first admission may take. Zero: never wait for quota.
    #[must_use]
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = Some(wait);
        self
    }

    /// Attempts at each target, the first included. It can only lower the configured `max_retries`; at least 1.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts.max(1));
        self
    }
}

impl<R> From<R> for Call<R> {
    fn from(request: R) -> Self {
        Self::new(request)
    }
}

impl From<Vec<Message>> for ChatCall {
    fn from(messages: Vec<Message>) -> Self {
        Self::new(ChatRequest::new("", messages))
    }
}

impl<const N: usize> From<[Message; N]> for ChatCall {
    fn from(messages: [Message; N]) -> Self {
        Self::new(ChatRequest::new("", messages))
    }
}

/// One message from the user.
impl From<&str> for ChatCall {
    fn from(prompt: &str) -> Self {
        Self::from([Message::user(prompt)])
    }
}

/// One message from the user.
impl From<String> for ChatCall {
    fn from(prompt: String) -> Self {
        Self::from([Message::user(prompt)])
    }
}
