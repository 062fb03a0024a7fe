//! What callers are told: refusals in the protocol they asked in, and the headers that say what was decided.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use omega_client::{Attempt, CallerError, CallerProtocol, Error, ErrorKind};

/// What a caller cannot have, before a protocol has words for it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// A word for programs.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// The field of the request that it is about.
    pub(crate) param: Option<String>,
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), param: None, retry_after: None }
    }

    pub(crate) fn about(mut self, field: Option<String>) -> Self {
        self.param = field;
        self
    }

    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// As an answer in this protocol.
    pub(crate) fn answer(&self, protocol: CallerProtocol, id: &str) -> Response {
        let error = CallerError {
            status: self.status.as_u16(),
            message: Cow::Borrowed(&self.message),
            error_type: None,
            code: Some(Cow::Borrowed(self.code)),
            param: self.param.as_deref().map(Cow::Borrowed),
            request_id: Some(Cow::Borrowed(id)),
            retry_after: self.retry_after,
        };
        let mut response = json(self.status, protocol.format().write_error(&error));
        say_when(response.headers_mut(), self.retry_after);
        identify(response.headers_mut(), id);
        response
    }
}

/// An error of the client, as an answer in this protocol.
pub(crate) fn failed(error: &Error, protocol: CallerProtocol, id: &str) -> Response {
    let said = error.for_caller(id);
    let status = StatusCode::from_u16(said.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = json(status, protocol.format().write_error(&said));
    let headers = response.headers_mut();
    say_when(headers, error.retry_after());
    if !is_worth_asking_again(error) {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if let Some(provider) = error.provider() {
        insert(headers, PROVIDER, provider);
    }
    tell_story(headers, error.attempts(), error.attempts().iter().map(|attempt| attempt.queued).sum());
    identify(headers, id);
    response
}

/// The longest wait that the official SDKs sit out by themselves; on a longer `Retry-After` they come back at once or
/// give up. Source: `openai` 3.54.0 and `anthropic` 2.12.0 (`_base_client.py`), read 2026-11-23.
const SDK_WAIT_MAX: Duration = Duration::from_secs(60);

/// Whether a caller that simply asks again may get another answer, and is not one of many who all do so after we have
/// tried as often as makes sense.
fn is_worth_asking_again(error: &Error) -> bool {
    let sent = error.attempts().iter().filter(|attempt| attempt.was_sent()).count();
    if error.retry_after().is_some_and(|wait| wait > SDK_WAIT_MAX) {
        return false;
    }
    match error.kind() {
        // Nothing was sent, and it says when to come back.
        ErrorKind::RateLimited | ErrorKind::CircuitOpen => sent <= 1,
        ErrorKind::Provider | ErrorKind::Transport => sent <= 1,
        // Spent, broken half-way, too late, or wrong: the same again is the same again.
        _ => false,
    }
}

pub(crate) const PROVIDER: HeaderName = HeaderName::from_static("x-omega-provider");
pub(crate) const MODEL: HeaderName = HeaderName::from_static("x-omega-model");
pub(crate) const ATTEMPTS: HeaderName = HeaderName::from_static("x-omega-attempts");
pub(crate) const QUEUED_MS: HeaderName = HeaderName::from_static("x-omega-queued-ms");
pub(crate) const UPSTREAM_ID: HeaderName = HeaderName::from_static("x-omega-upstream-request-id");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where Anthropic's SDKs look for it.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// Who answered, and how it came to that.
pub(crate) struct Story<'s> {
    pub(crate) provider: &'s str,
    pub(crate) model: &'s str,
    pub(crate) attempts: &'s [Attempt],
    pub(crate) queued: Duration,
    pub(crate) upstream_id: Option<&'s str>,
}

impl Story<'_> {
    /// Writes it into the headers of the answer.
    pub(crate) fn tell(&self, headers: &mut HeaderMap, id: &str) {
        insert(headers, PROVIDER, self.provider);
        insert(headers, MODEL, self.model);
        tell_story(headers, self.attempts, self.queued);
        if let Some(upstream) = self.upstream_id {
            insert(headers, UPSTREAM_ID, upstream);
        }
        identify(headers, id);
    }
}

fn tell_story(headers: &mut HeaderMap, attempts: &[Attempt], queued: Duration) {
    let sent = attempts.iter().filter(|attempt| attempt.was_sent()).count();
    headers.insert(ATTEMPTS, HeaderValue::from(sent));
    headers.insert(QUEUED_MS, HeaderValue::from(u64::try_from(queued.as_millis()).unwrap_or(u64::MAX)));
}

/// Under which id the request is in the log.
pub(crate) fn identify(headers: &mut HeaderMap, id: &str) {
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(ANTHROPIC_REQUEST_ID, value.clone());
        headers.insert(REQUEST_ID, value);
    }
}

fn say_when(headers: &mut HeaderMap, wait: Option<Duration>) {
    let Some(wait) = wait else { return };
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    headers.insert(RETRY_AFTER, HeaderValue::from(whole));
    let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    headers.insert(RETRY_AFTER_MS, HeaderValue::from(ms));
}

/// A name may have characters that a header may not.
fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// A JSON body.
pub(crate) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    with_type(status, "application/json", body)
}

/// A body of this kind.
pub(crate) fn with_type(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The head of a stream that is passed on piece by piece.
pub(crate) fn stream(kind: &'static str, body: Body) -> Response {
    let mut response = with_type(StatusCode::OK, kind, body);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx in front of us would keep the pieces until its buffer is full.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_said_in_whole_seconds_that_are_long_enough_and_in_milliseconds() {
        let mut headers = HeaderMap::new();
        say_when(&mut headers, Some(Duration::from_millis(1_200)));
        assert_eq!(headers[RETRY_AFTER], "2");
        assert_eq!(headers[RETRY_AFTER_MS], "1200");
        let mut headers = HeaderMap::new();
        say_when(&mut headers, None);
        assert!(headers.is_empty());
    }

    #[test]
    fn a_refusal_speaks_the_protocol_it_was_asked_in() {
        let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "no_key", "who are you?");
        let response = refusal.answer(CallerProtocol::ChatCompletions, "req_1");
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["x-request-id"], "req_1");
        assert_eq!(response.headers()["request-id"], "req_1");
    }

    #[test]
    fn a_name_that_fits_no_header_is_left_out() {
        let mut headers = HeaderMap::new();
        insert(&mut headers, PROVIDER, "a\nb");
        assert!(headers.is_empty());
    }
}
