//! What a caller may say about one call beside the request itself.

use std::time::Duration;

use omega_policy::Priority;
use omega_protocol::{CallerProtocol, ChatRequest, EmbeddingsRequest, Message, ResponsesRequest};

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
    /// See [`Call::priority`].
    pub priority: Priority,
    /// See [`Call::tenant`].
    pub tenant: Option<String>,
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
        Self {
            request,
            fallbacks: None,
            timeout: None,
            max_wait: None,
            max_attempts: None,
            priority: Priority::Normal,
            tenant: None,
        }
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

    /// How urgent it is. While calls wait for quota, those of a higher priority go first; one that was passed
    /// over for long gets a turn (`rate_limiting.<provider>.aging_seconds`), so that none is starved.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Whose it is: a customer, a team, a job. While calls wait for quota, tenants are served in equal parts (or by the
    /// weights of [`Builder::tenant_weight`](crate::Builder::tenant_weight)), however many calls each has
    /// waiting. The first 4,095 names are told apart; calls of any other share one part.
    #[must_use]
    pub fn tenant(mut self, name: impl Into<String>) -> Self {
        self.tenant = Some(name.into());
        self
    }
}

/// Everything of a [`Call`] but the request.
pub(crate) struct Options {
    pub(crate) fallbacks: Option<Vec<String>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_wait: Option<Duration>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) priority: Priority,
    pub(crate) tenant: Option<String>,
    /// Calls with the same number go to the same member of a pool while it has room.
    pub(crate) wish: Option<u64>,
    /// The call has a key of its own, for a provider that speaks this protocol.
    pub(crate) own_key: Option<CallerProtocol>,
}

impl<R> Call<R> {
    pub(crate) fn split(self) -> (R, Options) {
        let Self { request, fallbacks, timeout, max_wait, max_attempts, priority, tenant } = self;
        let (wish, own_key) = (None, None);
        let options = Options { fallbacks, timeout, max_wait, max_attempts, priority, tenant, wish, own_key };
        (request, options)
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
