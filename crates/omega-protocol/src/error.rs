//! What can go wrong before a request is sent, and what a provider answered instead of an answer.

use std::borrow::Cow;
use std::fmt;

use omega_policy::{Failure, FailureKind};

use crate::Dialect;

/// A request that cannot be said in a provider's protocol. Sending it elsewhere may work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A field has no equivalent there.
    #[error("`{field}` cannot be sent to {dialect}: {reason}")]
    Field {
        /// The provider's protocol.
        dialect: Dialect,
        /// The field, as the request names it.
        field: Cow<'static, str>,
        /// Why, and what would work.
        reason: Cow<'static, str>,
    },
    /// The protocol has no such call.
    #[error("{dialect} has no {operation} in the API this crate speaks; choose another provider for it")]
    Unsupported {
        /// The provider's protocol.
        dialect: Dialect,
        /// `embeddings` or `responses`.
        operation: &'static str,
    },
    /// The model's name does not fit into an address.
    #[error("the model name does not fit into a request address; check its spelling")]
    Address,
    /// The caller's own key is none.
    #[error("the key sent with the request cannot be used: {0}")]
    Key(String),
    /// The request is of another protocol and cannot be translated.
    #[error(transparent)]
    Request(#[from] crate::RequestError),
    /// A value that JSON cannot carry.
    #[error("the request does not fit into JSON: {0}")]
    Json(String),
}

impl EncodeError {
    /// The field that is in the way, as the request names it.
    pub fn named_field(&self) -> Option<&str> {
        match self {
            Self::Field { field, .. } => Some(field),
            Self::Request(error) => error.field.as_deref(),
            _ => None,
        }
    }

    /// A field that has no equivalent.
    pub(crate) fn field(
        dialect: Dialect,
        field: impl Into<Cow<'static, str>>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Field { dialect, field: field.into(), reason: reason.into() }
    }
}

impl From<serde_json::Error> for EncodeError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error.to_string())
    }
}

/// An endpoint that cannot be used. The message never shows the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The base URL is not one.
    #[error("the base URL is not usable: {reason}; write something like https://api.example.com/v1")]
    BaseUrl {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The key is empty or not printable ASCII.
    #[error("the API key is empty or contains characters that no key has (spaces, line breaks, non-ASCII)")]
    Key,
    /// A header cannot be sent.
    #[error(
        "the header `{name}` is not usable: its name or value contains characters that HTTP forbids, or the transport \
         writes it itself (`host`, `content-length` and the like)"
    )]
    Header {
        /// Its name.
        name: String,
    },
}

/// A name that is no dialect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown protocol `{0}`; known are openai, anthropic, google and grok (or xai)")]
pub struct UnknownDialect(pub String);

/// What a provider said instead of answering.
///
/// Displayed as `429 insufficient_quota (project_spend_limit_exceeded): You exceeded …`: status, type and code are what
/// people search for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderError {
    /// What it means to retry, breaker and limiter.
    pub failure: Failure,
    /// The HTTP status; for an error inside a stream or inside a 200, the status the same error has on its own.
    pub status: Option<u16>,
    /// The provider's error type.
    pub error_type: Option<String>,
    /// The provider's error code.
    pub code: Option<String>,
    /// The request field it complains about.
    pub param: Option<String>,
    /// The provider's own words, bounded. They may quote the request.
    pub message: String,
    /// The provider's id of the request, for its support.
    pub request_id: Option<String>,
}

impl ProviderError {
    /// An error of this kind without any of the provider's fields.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            failure: Failure::new(kind),
            status: None,
            error_type: None,
            code: None,
            param: None,
            message: message.into(),
            request_id: None,
        }
    }

    /// A stream that was cut, is malformed or ended without its terminator.
    pub fn stream_broken(message: impl Into<String>) -> Self {
        Self::new(FailureKind::StreamBroken, message)
    }

    /// A body that is not what the protocol says: the provider's failure, and worth another try.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Server, message)
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut begun = false;
        if let Some(status) = self.status {
            write!(f, "{status}")?;
            begun = true;
        }
        if let Some(error_type) = &self.error_type {
            write!(f, "{}{error_type}", if begun { " " } else { "" })?;
            begun = true;
        }
        if let Some(code) = &self.code {
            if begun {
                write!(f, " ({code})")?
            } else {
                f.write_str(code)?
            }
            begun = true;
        }
        match (begun, self.message.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => write!(f, ": {}", self.message),
            (false, _) => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ProviderError {}

impl From<crate::sse::EventTooLarge> for ProviderError {
    fn from(error: crate::sse::EventTooLarge) -> Self {
        Self::stream_broken(error.to_string())
    }
}
