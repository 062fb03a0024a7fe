//! The one public error: a kind for each thing a caller can *do*, and the facts to do it with.
//!
//! Its text keeps the provider's status, type and code (`429`, `insufficient_quota`), so that logs and callers can
//! search for them. It never contains a key or a prompt that OMEGA itself put there; the provider's own words are
//! bounded.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use omega_policy::{Failure, FailureKind, HINT_MAX, Scope};
use omega_protocol::{CallerError, ProviderError};

use crate::Attempt;

/// A call that has no answer, or a client that cannot be built.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    origin: Origin,
    provider: Option<String>,
    model: Option<String>,
    message: String,
    retry_after: Option<Duration>,
    status: Option<u16>,
    code: Option<String>,
    error_type: Option<String>,
    param: Option<String>,
    request_id: Option<String>,
    attempts: Vec<Attempt>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The provider is down and was not asked. Come back after [`Error::retry_after`], or use a fallback.
    CircuitOpen,
    /// Too fast. [`Error::origin`] says whether OMEGA refused ([`Origin::Local`]) or the provider did; wait for
    /// [`Error::retry_after`].
    RateLimited,
    /// Credit or a day's allowance is spent: a billing matter. Waiting does not help.
    QuotaExhausted,
    /// The key is wrong or may not do this.
    Authentication,
    /// The request is wrong, or names an unknown model. Change it.
    InvalidRequest,
    /// The prompt is longer than the model's window. Shorten it, or use a model with a larger one.
    ContextLength,
    /// The provider refused on policy.
    ContentFilter,
    /// The provider failed (5xx, overloaded, malformed) until attempts or budget ran out.
    Provider,
    /// A stream was cut, stalled or ended without its terminator. What was delivered is not a whole answer.
    StreamBroken,
    /// Time ran out: the call's own deadline ([`Origin::Local`]), or a provider that stayed silent
    /// ([`Origin::Provider`]).
    Deadline,
    /// The provider could not be reached.
    Transport,
    /// The client's configuration cannot be used: a value, or a missing key.
    Config,
    /// The target's protocol cannot express the request; the message names the field.
    Unsupported,
}

/// Who said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// OMEGA, before or instead of sending.
    Local,
    /// The provider, or the way to it.
    Provider,
}

impl Origin {
    /// `local` or `provider`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Provider => "provider",
        }
    }
}

/// The code of a model that nobody is known to serve; OpenAI's word for it.
pub(crate) const UNKNOWN_MODEL: &str = "model_not_found";

impl ErrorKind {
    /// A word for it, where the provider has none.
    pub fn code(self) -> &'static str {
        match self {
            Self::CircuitOpen => "circuit_open",
            Self::RateLimited => "rate_limit_exceeded",
            Self::QuotaExhausted => "insufficient_quota",
            Self::Authentication => "authentication_failed",
            Self::InvalidRequest => "invalid_request",
            Self::ContextLength => "context_length_exceeded",
            Self::ContentFilter => "content_filter",
            Self::Provider => "provider_error",
            Self::StreamBroken => "stream_broken",
            Self::Deadline => "deadline_exceeded",
            Self::Transport => "provider_unreachable",
            Self::Config => "not_configured",
            Self::Unsupported => "unsupported",
        }
    }

    /// The kind of a provider's failure.
    pub(crate) fn of(failure: FailureKind) -> Self {
        match failure {
            FailureKind::Throttled => Self::RateLimited,
            FailureKind::OutOfQuota => Self::QuotaExhausted,
            FailureKind::Timeout => Self::Deadline,
            FailureKind::Transport => Self::Transport,
            FailureKind::StreamBroken => Self::StreamBroken,
            FailureKind::Auth => Self::Authentication,
            FailureKind::Invalid | FailureKind::UnknownModel => Self::InvalidRequest,
            FailureKind::ContextLength => Self::ContextLength,
            FailureKind::ContentFilter => Self::ContentFilter,
            // Overloaded, Transient, Server, and whatever a later version adds: the provider failed.
            _ => Self::Provider,
        }
    }
}

/// How long the provider asked to be left alone. A hostile number is capped as the policies cap it; a quota of one
/// model that resets at a known time is not a hint but a fact.
fn advised_wait(failure: &Failure) -> Option<Duration> {
    match failure.scope {
        Scope::Model { resets_in: Some(resets_in) } => Some(resets_in),
        _ => failure.retry_after.map(|wait| wait.min(HINT_MAX)),
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            origin: Origin::Local,
            provider: None,
            model: None,
            message: message.into(),
            retry_after: None,
            status: None,
            code: None,
            error_type: None,
            param: None,
            request_id: None,
            attempts: Vec::new(),
            source: None,
        }))
    }

    /// What a provider said, as an error.
    pub(crate) fn provider_said(provider: &str, model: &str, error: ProviderError) -> Self {
        let mut this = Self::new(ErrorKind::of(error.failure.kind), format!("{provider}: {error}"));
        let inner = &mut *this.0;
        inner.origin = Origin::Provider;
        inner.provider = Some(provider.to_owned());
        inner.model = Some(model.to_owned());
        inner.retry_after = advised_wait(&error.failure);
        inner.status = error.status;
        inner.request_id.clone_from(&error.request_id);
        inner.param.clone_from(&error.param);
        inner.code.clone_from(&error.code);
        inner.error_type.clone_from(&error.error_type);
        inner.source = Some(Arc::new(error));
        this
    }

    pub(crate) fn at(mut self, provider: &str, model: &str) -> Self {
        self.0.provider = Some(provider.to_owned());
        self.0.model = Some(model.to_owned());
        self
    }

    /// Names the field of the request that is in the way.
    pub(crate) fn about(mut self, field: Option<String>) -> Self {
        self.0.param = field;
        self
    }

    /// Gives it a code of ours.
    pub(crate) fn with_code(mut self, code: &str) -> Self {
        self.0.code = Some(code.to_owned());
        self
    }

    pub(crate) fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        self.0.retry_after = wait;
        self
    }

    pub(crate) fn with_attempts(mut self, attempts: Vec<Attempt>) -> Self {
        self.0.attempts = attempts;
        self
    }

    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// The same, of a stream that had begun: whatever broke it, what was delivered is not whole. What the provider
    /// said about itself (status, type, code) stays.
    pub(crate) fn into_broken_stream(mut self) -> Self {
        self.0.kind = ErrorKind::StreamBroken;
        self
    }

    /// A stream that broke, and not by a word of its provider's.
    pub(crate) fn stream_broken(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::StreamBroken, message)
    }

    /// The same for somebody who was to get the answer in a protocol of its own.
    ///
    /// - `request_id`: under which the call is logged.
    pub fn for_caller<'e>(&'e self, request_id: &'e str) -> CallerError<'e> {
        let text = |text: Option<&'e str>| text.map(Cow::Borrowed);
        CallerError {
            status: self.status_for_caller(),
            message: Cow::Owned(self.to_string()),
            error_type: text(self.error_type()),
            code: Some(Cow::Borrowed(self.code().unwrap_or(self.kind().code()))),
            param: text(self.param()),
            request_id: (!request_id.is_empty()).then_some(Cow::Borrowed(request_id)),
            retry_after: self.retry_after(),
        }
    }

    /// The HTTP status for a caller: the provider's own, where it answered with an error.
    fn status_for_caller(&self) -> u16 {
        match (self.status(), self.kind()) {
            (Some(status @ 400..=599), _) => status,
            (_, ErrorKind::RateLimited | ErrorKind::QuotaExhausted) => 429,
            (_, ErrorKind::CircuitOpen) => 503,
            (_, ErrorKind::Authentication) => 401,
            (_, ErrorKind::InvalidRequest) if self.code() == Some(UNKNOWN_MODEL) => 404,
            (_, ErrorKind::InvalidRequest | ErrorKind::ContextLength) => 400,
            (_, ErrorKind::ContentFilter | ErrorKind::Unsupported) => 400,
            (_, ErrorKind::Deadline) => 504,
            (_, ErrorKind::Config) => 500,
            (_, ErrorKind::Provider | ErrorKind::StreamBroken | ErrorKind::Transport) => 502,
        }
    }

    /// Adds to the message.
    pub(crate) fn with_note(mut self, note: &str) -> Self {
        self.0.message.push_str(note);
        self
    }

    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Who said no.
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// Which provider it is about.
    pub fn provider(&self) -> Option<&str> {
        self.0.provider.as_deref()
    }

    /// Which model was asked for.
    pub fn model(&self) -> Option<&str> {
        self.0.model.as_deref()
    }

    /// How long to wait before it can be different, from now. `None` where waiting does not help or nobody knows.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Everything that was tried, in order.
    pub fn attempts(&self) -> &[Attempt] {
        &self.0.attempts
    }

    /// The provider's HTTP status.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The provider's error code.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The provider's error type.
    pub fn error_type(&self) -> Option<&str> {
        self.0.error_type.as_deref()
    }

    /// The field of the request that it is about.
    pub fn param(&self) -> Option<&str> {
        self.0.param.as_deref()
    }

    /// The provider's id of the request, for its support.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// The message, without the story that `Display` adds.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

/// The message; then, if it took more than one attempt, how many.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match self.0.attempts.iter().filter(|attempt| attempt.was_sent()).count() {
            0 | 1 => Ok(()),
            sent => write!(f, " (after {sent} attempts)"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("origin", &self.0.origin)
            .field("provider", &self.0.provider)
            .field("model", &self.0.model)
            .field("status", &self.0.status)
            .field("type", &self.0.error_type)
            .field("code", &self.0.code)
            .field("retry_after", &self.0.retry_after)
            .field("message", &self.0.message)
            .field("attempts", &self.0.attempts.len())
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
