//! What can go wrong between a request and the last byte of its answer.
//!
//! A [`TransportError`] answers two questions a policy asks: what broke ([`TransportError::kind`]), and could the
//! request have reached the server's application ([`TransportError::sent`])? Only a request that did not is safe to
//! send again without thinking about its effects. Messages name hosts and ports, never a path, a query, a header or
//! a body.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Why a request has no answer, or an answer has no end. Cheap to clone: several waiting requests may share the
/// failure of one connection.
#[derive(Clone)]
pub struct TransportError {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: TransportErrorKind,
    sent: bool,
    timeout: bool,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// The host name could not be resolved.
    Dns,
    /// No connection could be made: refused, unreachable, or not in time.
    Connect,
    /// The TLS handshake failed, or the certificates to trust could not be loaded.
    Tls,
    /// The proxy could not be reached or refused the tunnel.
    Proxy,
    /// The peer reset the connection or the stream.
    Reset,
    /// The peer closed the connection before the answer was complete.
    Closed,
    /// The peer broke the rules of HTTP.
    Protocol,
    /// The answer is larger than the limit set for it.
    TooLarge,
    /// The transport was shut down.
    Cancelled,
    /// The request cannot be sent as it is, for instance because its address has no host.
    Other,
}

impl TransportErrorKind {
    /// Whether a failure of this kind leaves it possible that the request was received.
    fn may_be_sent(self) -> bool {
        match self {
            Self::Dns | Self::Connect | Self::Tls | Self::Proxy | Self::Cancelled | Self::Other => false,
            Self::Reset | Self::Closed | Self::Protocol | Self::TooLarge => true,
        }
    }
}

impl TransportError {
    /// An error of `kind` with a `message` for people, for scripted transports and for this crate.
    ///
    /// [`sent`](Self::sent) follows from the kind (false up to the handshakes, true afterwards) until
    /// [`with_sent`](Self::with_sent) says otherwise. The message must not contain a key, a prompt or a query.
    pub fn new(kind: TransportErrorKind, message: impl Into<String>) -> Self {
        let inner =
            Inner { kind, sent: kind.may_be_sent(), timeout: false, message: message.into(), source: None };
        Self { inner: Arc::new(inner) }
    }

    /// The same error with the error it came from.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Arc::make_mut(&mut self.inner).source = Some(Arc::from(source.into()));
        self
    }

    /// The same error with another answer to [`sent`](Self::sent).
    #[must_use]
    pub fn with_sent(mut self, sent: bool) -> Self {
        Arc::make_mut(&mut self.inner).sent = sent;
        self
    }

    /// The same error, marked as the end of a time limit.
    #[must_use]
    pub(crate) fn timed_out(mut self) -> Self {
        Arc::make_mut(&mut self.inner).timeout = true;
        self
    }

    /// The step that failed.
    pub fn kind(&self) -> TransportErrorKind {
        self.inner.kind
    }

    /// Whether the request could have reached the server's application.
    ///
    /// `false` is a promise: no handler saw it, so it may be sent again without a second effect. `true` is only a
    /// possibility.
    pub fn sent(&self) -> bool {
        self.inner.sent
    }

    /// Whether a time limit of the transport ended the attempt (the connect timeout, an unanswered ping).
    pub fn is_timeout(&self) -> bool {
        self.inner.timeout
    }

    /// What an exchange with `peer` (host and port) failed with, read from hyper's error.
    pub(crate) fn from_hyper(error: hyper::Error, peer: &str) -> Self {
        let (kind, sent) = classify(&error);
        let timeout = error.is_timeout();
        let what = match kind {
            TransportErrorKind::Reset => "reset the exchange",
            TransportErrorKind::Closed if timeout => "stopped answering HTTP/2 pings",
            TransportErrorKind::Closed => "closed the connection before the answer was complete",
            TransportErrorKind::TooLarge => "sent a response head above the size limit",
            TransportErrorKind::Protocol => "broke the HTTP protocol",
            _ => "could not be sent this request",
        };
        let built = Self::new(kind, format!("{peer} {what}: {}", root_cause(&error)));
        let built = built.with_sent(sent).with_source(error);
        if timeout { built.timed_out() } else { built }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportError")
            .field("kind", &self.inner.kind)
            .field("sent", &self.inner.sent)
            .field("message", &self.inner.message)
            .finish_non_exhaustive()
    }
}

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// Kind and `sent` of a failed exchange. The order matters: an HTTP/2 failure carries an io error too, and the frame
/// that ended the stream says more than the socket does.
fn classify(error: &hyper::Error) -> (TransportErrorKind, bool) {
    if error.is_timeout() {
        return (TransportErrorKind::Closed, true);
    }
    if let Some(h2) = find::<h2::Error>(error) {
        return classify_h2(h2);
    }
    if let Some(io) = find::<io::Error>(error) {
        return (kind_of_io(io), true);
    }
    if error.is_parse() {
        // hyper keeps the reason of a parse error private on the client side; only its text tells a head that is
        // too large from a malformed one. A test pins the wording.
        let too_large = error.to_string().contains("too large");
        let kind = if too_large { TransportErrorKind::TooLarge } else { TransportErrorKind::Protocol };
        return (kind, true);
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return (TransportErrorKind::Closed, true);
    }
    if error.is_user() {
        // Our bodies cannot fail, so what is left is "the task that drove the connection is gone": its runtime was
        // shut down, or the transport was.
        return (TransportErrorKind::Closed, true);
    }
    (TransportErrorKind::Protocol, true)
}

fn classify_h2(error: &h2::Error) -> (TransportErrorKind, bool) {
    if error.is_go_away() && error.is_remote() {
        // h2 gives this error only to streams above the last stream id the server says it will process, and to
        // requests not yet written. Source: RFC 9113 section 6.8; h2 0.4.20, `recv_go_away`.
        return (TransportErrorKind::Closed, false);
    }
    if error.is_reset() && error.is_remote() {
        // "The REFUSED_STREAM error code indicates that the stream is being closed prior to any processing having
        // occurred." Source: RFC 9113 section 8.7.
        let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
        return (TransportErrorKind::Reset, !refused);
    }
    match error.get_io() {
        Some(io) => (kind_of_io(io), true),
        None => (TransportErrorKind::Protocol, true),
    }
}

fn kind_of_io(error: &io::Error) -> TransportErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => TransportErrorKind::Reset,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected => {
            TransportErrorKind::Closed
        }
        io::ErrorKind::InvalidData => TransportErrorKind::Protocol,
        _ => TransportErrorKind::Reset,
    }
}

/// The first error of type `E` in the chain of sources.
pub(crate) fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The innermost error: the one that names what happened ("connection refused") rather than where.
pub(crate) fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_before_the_handshakes_end_promise_that_nothing_was_sent() {
        for kind in [TransportErrorKind::Dns, TransportErrorKind::Connect, TransportErrorKind::Tls] {
            assert!(!TransportError::new(kind, "x").sent(), "{kind:?}");
        }
        for kind in [TransportErrorKind::Reset, TransportErrorKind::Closed, TransportErrorKind::Protocol] {
            assert!(TransportError::new(kind, "x").sent(), "{kind:?}");
        }
        assert!(!TransportError::new(TransportErrorKind::Reset, "x").with_sent(false).sent());
    }

    #[test]
    fn the_source_survives_a_clone() {
        let error = TransportError::new(TransportErrorKind::Connect, "no connection")
            .with_source(io::Error::from(io::ErrorKind::ConnectionRefused));
        let clone = error.clone();
        drop(error);
        let io = find::<io::Error>(&clone).map(io::Error::kind);
        assert_eq!(io, Some(io::ErrorKind::ConnectionRefused));
        assert_eq!(clone.to_string(), "no connection");
    }
}
