//! What OpenAI's and xAI's errors mean, wherever they stand: in an error answer, in a 200, in a stream.

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use omega_policy::{Dimension, FailureKind, Scope};
use serde_json::Value;

use crate::classify::{
    CONTEXT_LENGTH, OVERLOADED, apply_headers, bounded, by_status, message_of_unreadable, not_the_form, says,
};
use crate::hints::{self, find_ignore_case};
use crate::{Extra, ProviderError};

/// Whose errors they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vendor {
    OpenAi,
    Grok,
}

/// Types and codes that mean the money is gone; any of them, in either place.
/// Source: OpenAI's error guide, read 2026-11-23; `billing_not_active` from long-standing practice.
const OUT_OF_QUOTA: [&str; 6] = [
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_not_active",
];

/// Codes of a refusal on policy. Source: OpenAI's error guide and the error codes of `openai` 3.54.0; `content_filter`
/// is Azure's.
const CONTENT_FILTER: [&str; 5] = [
    "content_policy_violation",
    "invalid_prompt",
    "bio_policy",
    "misalignment_policy_violation",
    "content_filter",
];

/// xAI's words for a team without credits. Recorded with 429 and, elsewhere, 403; matched because its `code` is a
/// sentence. Source: reports of 2026.
const GROK_OUT_OF_CREDITS: [&str; 2] = ["used all available credits", "spending limit"];

/// xAI's words for a key it does not know: it answers 400, not 401. Source: recorded answers of 2026.
const GROK_WRONG_KEY: [&str; 2] = ["incorrect api key", "invalid api key"];

/// What an answer other than 2xx means.
pub(crate) fn classify(
    vendor: Vendor,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> ProviderError {
    let status = status.as_u16();
    let fields = serde_json::from_slice::<Value>(body).ok().and_then(|body| ErrorFields::of(&body));
    let fields = fields.unwrap_or_else(|| ErrorFields {
        message: message_of_unreadable(status, body),
        ..ErrorFields::default()
    });
    let mut error = fields.into_error(vendor, status);
    apply_headers(&mut error, headers, now);
    error.request_id = hints::header(headers, "x-request-id").map(str::to_owned);
    if error.failure.kind == FailureKind::Throttled {
        let empty = super::quota::exhausted(headers);
        error.failure.exhausted = error.failure.exhausted.or(empty.map(|(dimension, _)| dimension));
        // The order of belief: headers, the message, the reset of an empty bucket.
        let waits =
            [error.failure.retry_after, hints::in_text(&error.message), empty.and_then(|(_, reset)| reset)];
        error.failure.retry_after = waits.into_iter().flatten().next();
    }
    error
}

/// The error of a 200 whose body is not what was asked for.
pub(super) fn in_body(vendor: Vendor, body: &[u8], wanted: &str, parse: &serde_json::Error) -> ProviderError {
    if let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(body)
        && let Some(error) = hidden_in(vendor, &body, true)
    {
        return error;
    }
    not_the_form(wanted, body, parse)
}

/// The error that stands among the unknown fields of something that parsed as an answer.
///
/// - `empty`: the answer holds nothing else, so a bare `message` is an error too (vLLM's form).
pub(super) fn hidden_in(vendor: Vendor, extra: &Extra, empty: bool) -> Option<ProviderError> {
    let named = extra.get("error").is_some_and(|error| match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        _ => true,
    });
    let bare = empty && extra.get("message").is_some_and(Value::is_string);
    if !named && !bare {
        return None;
    }
    // An `error` of a form nobody knows (`true`, a list) is still one.
    Some(of_fields(vendor, extra))
}

/// The error of an object that is known to be one (`response.error`, an `error` event).
pub(super) fn of_fields(vendor: Vendor, error: &Extra) -> ProviderError {
    without_headers(vendor, ErrorFields::of_object(error).unwrap_or_else(|| ErrorFields::flat(error)))
}

/// An error inside a 2xx has no headers and no status of its own: the message is the only hint of how long to wait.
fn without_headers(vendor: Vendor, fields: ErrorFields) -> ProviderError {
    let status = fields.status(vendor);
    let mut error = fields.into_error(vendor, status);
    if error.failure.kind == FailureKind::Throttled {
        error.failure.retry_after = hints::in_text(&error.message);
    }
    if error.message.is_empty() {
        "the provider ended the answer with an error and no words".clone_into(&mut error.message);
    }
    error
}

/// An error as the many servers of this shape write it.
#[derive(Debug, Default)]
struct ErrorFields {
    error_type: Option<String>,
    code: Option<String>,
    param: Option<String>,
    message: String,
}

impl ErrorFields {
    fn of(body: &Value) -> Option<Self> {
        match body {
            Value::Object(body) => Self::of_object(body),
            // Google's compatible endpoint wraps its errors so.
            Value::Array(list) => list.first().and_then(Value::as_object).and_then(Self::of_object),
            _ => None,
        }
    }

    fn of_object(body: &Extra) -> Option<Self> {
        match body.get("error") {
            // {"error": {"message", "type", "param", "code"}}: OpenAI, most others.
            Some(Value::Object(error)) => Some(Self::flat(error)),
            // {"code": "<sentence>", "error": "<text>"}: xAI; without a code: Ollama.
            Some(Value::String(message)) => Some(Self { message: bounded(message), ..Self::flat(body) }),
            // {"message", "type", "code"}: vLLM.   {"detail": …}: servers on FastAPI.
            _ => ["message", "detail"].iter().any(|key| body.contains_key(*key)).then(|| Self::flat(body)),
        }
    }

    fn flat(error: &Extra) -> Self {
        let word = |key: &str| match error.get(key)? {
            Value::String(text) if !text.is_empty() => Some(bounded(text)),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let detail = || {
            error.get("detail").filter(|detail| !detail.is_null()).map(|detail| bounded(&detail.to_string()))
        };
        Self {
            // An event's own `type` is not the error's.
            error_type: word("type").filter(|kind| kind != "error"),
            code: word("code"),
            param: word("param"),
            message: word("message").or_else(|| word("detail")).or_else(detail).unwrap_or_default(),
        }
    }

    fn is(&self, words: &[&str]) -> bool {
        [&self.error_type, &self.code].into_iter().flatten().any(|word| words.contains(&word.as_str()))
    }

    /// The status this error has when it stands on its own.
    fn status(&self, vendor: Vendor) -> u16 {
        if vendor == Vendor::Grok && says(&self.message, &GROK_OUT_OF_CREDITS) {
            return 429;
        }
        if vendor == Vendor::Grok && says(&self.message, &GROK_WRONG_KEY) {
            return 400;
        }
        let number = self.code.as_deref().and_then(|code| code.parse().ok());
        if let Some(status) = number.filter(|status| (400..=599).contains(status)) {
            return status;
        }
        const STATUS: [(&[&str], u16); 8] = [
            (&OUT_OF_QUOTA, 429),
            (&["rate_limit_exceeded", "rate_limit_error", "slow_down", "tokens", "requests"], 429),
            (&["server_is_overloaded", "service_unavailable_error", "overloaded_error"], 503),
            (&["server_error", "api_error", "internal_server_error"], 500),
            (&["invalid_api_key", "authentication_error"], 401),
            (&["permission_error", "unsupported_country_region_territory", "request_forbidden"], 403),
            (&["model_not_found", "not_found_error", "NotFoundError"], 404),
            (&["invalid_request_error", "BadRequestError", "context_length_exceeded"], 400),
        ];
        let known = STATUS.iter().find(|(words, _)| self.is(words)).map(|(_, status)| *status);
        known.unwrap_or_else(|| {
            if self.is(&CONTENT_FILTER) || says(&self.message, CONTEXT_LENGTH) {
                400
            } else if says(&self.message, OVERLOADED) {
                503
            } else if says(&self.message, &["rate limit", "too many requests", "too many tokens"]) {
                429
            } else {
                500
            }
        })
    }

    fn into_error(self, vendor: Vendor, status: u16) -> ProviderError {
        let kind = self.kind(vendor, status);
        let mut error = ProviderError::new(kind, "");
        if kind == FailureKind::Throttled {
            error.failure.exhausted = self.dimension();
        }
        if kind == FailureKind::OutOfQuota && self.limit_is_zero() {
            error.failure.scope = Scope::Model { resets_in: None };
        }
        error.status = Some(status);
        error.error_type = self.error_type;
        error.code = self.code;
        error.param = self.param;
        error.message = self.message;
        error
    }

    /// What it means: by code, then type, then the status; by words only where the vendor has no codes for it.
    fn kind(&self, vendor: Vendor, status: u16) -> FailureKind {
        let text = self.message.as_str();
        if status == 402 || self.is(&OUT_OF_QUOTA) {
            return FailureKind::OutOfQuota;
        }
        if vendor == Vendor::Grok && matches!(status, 400 | 403 | 429) && says(text, &GROK_OUT_OF_CREDITS) {
            return FailureKind::OutOfQuota;
        }
        if self.is(&["invalid_api_key"])
            || (vendor == Vendor::Grok && status == 400 && says(text, &GROK_WRONG_KEY))
        {
            return FailureKind::Auth;
        }
        if self.is(&["model_not_found"]) {
            return FailureKind::UnknownModel;
        }
        if self.is(&["context_length_exceeded"])
            || (matches!(status, 400 | 413 | 422) && says(text, CONTEXT_LENGTH))
        {
            return FailureKind::ContextLength;
        }
        if self.is(&CONTENT_FILTER) {
            return FailureKind::ContentFilter;
        }
        match status {
            // This model is not part of the account's quota at all; others are.
            429 if self.limit_is_zero() => FailureKind::OutOfQuota,
            // Waiting cannot make room for it, and the request is not wrong either: like a prompt that is too long, it is
            // never sent here again, does not count against the provider, and may fit another one.
            429 if self.asks_more_than_the_limit() => FailureKind::ContextLength,
            // The older form of 429 `slow_down`: traffic grew too fast. Source: OpenAI's error guide, read 2026-11-23.
            503 if self.is(&["slow_down"]) => FailureKind::Throttled,
            500..=599
                if self.is(&["server_is_overloaded", "service_unavailable_error", "overloaded_error"]) =>
            {
                FailureKind::Overloaded
            }
            503 if says(text, OVERLOADED) => FailureKind::Overloaded,
            status => by_status(status),
        }
    }

    /// `Limit 0, … Requested R`: what Gemini writes as `limit: 0`, in OpenAI's words.
    fn limit_is_zero(&self) -> bool {
        number_after(&self.message, "limit") == Some(0) && number_after(&self.message, "requested").is_some()
    }

    /// `Limit L, … Requested R` with R above L. Source: recorded answers, 2026.
    fn asks_more_than_the_limit(&self) -> bool {
        let (limit, requested) =
            (number_after(&self.message, "limit"), number_after(&self.message, "requested"));
        match (limit, requested) {
            (Some(limit), Some(requested)) => requested > limit,
            _ => false,
        }
    }

    /// Which bucket is empty, by the type (`tokens`, `requests`) or the message.
    fn dimension(&self) -> Option<Dimension> {
        match self.error_type.as_deref() {
            Some("tokens") => return Some(Dimension::Tokens),
            Some("requests") => return Some(Dimension::Requests),
            _ => {}
        }
        if says(&self.message, &["tokens per min", "(tpm)", "tokens per day", "(tpd)", "too many tokens"]) {
            Some(Dimension::Tokens)
        } else if says(
            &self.message,
            // Not "too many requests": that is the name of the status, and every empty answer gets it.
            &["requests per min", "(rpm)", "requests per day", "(rpd)", "requests per second"],
        ) {
            Some(Dimension::Requests)
        } else {
            None
        }
    }
}

/// The number that follows a word, past colons and spaces: `Limit 500000`, `limit: 30,000`.
fn number_after(text: &str, word: &str) -> Option<u64> {
    let mut rest = text;
    while let Some(at) = find_ignore_case(rest, word) {
        rest = rest[at + word.len()..].trim_start_matches([':', ' ']);
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != ',').unwrap_or(rest.len());
        if let Some(number) = hints::count(&rest[..end]) {
            return Some(number);
        }
    }
    None
}

/// The error of an event that is not what the protocol says.
pub(super) fn in_event(
    vendor: Vendor,
    data: &[u8],
    wanted: &str,
    parse: &serde_json::Error,
) -> ProviderError {
    if let Ok(Value::Object(data)) = serde_json::from_slice::<Value>(data)
        && let Some(error) = hidden_in(vendor, &data, true)
    {
        return error;
    }
    let place = parse.column();
    ProviderError::stream_broken(format!(
        "the stream carries an event that is not {wanted} (at byte {place} of it)"
    ))
}

/// The error of a bare line of JSON between the events of a stream.
pub(super) fn in_stray_line(vendor: Vendor, line: &[u8]) -> ProviderError {
    let fields = serde_json::from_slice::<Value>(line).ok().and_then(|line| ErrorFields::of(&line));
    match fields {
        Some(fields) => without_headers(vendor, fields),
        None => ProviderError::stream_broken("the stream carries text that is no event"),
    }
}

/// The error of an event that is named `error`, whatever its data.
pub(super) fn in_error_event(vendor: Vendor, data: &[u8]) -> ProviderError {
    match serde_json::from_slice(data) {
        Ok(Value::Object(data)) => of_fields(vendor, &data),
        Ok(Value::String(message)) => {
            without_headers(vendor, ErrorFields { message: bounded(&message), ..ErrorFields::default() })
        }
        _ => ProviderError::stream_broken("the stream carries an error that is not JSON"),
    }
}

/// The error of a response that says `failed`.
///
/// Of its codes only `server_error` and `rate_limit_exceeded` are worth another try. Source: the types of `openai`
/// 3.54.0, read 2026-11-23.
pub(super) fn of_response(vendor: Vendor, error: Option<&Value>) -> ProviderError {
    let Some(Value::Object(error)) = error else {
        return ProviderError::malformed("the response failed and does not say why");
    };
    let known_transient = |code: &str| matches!(code, "server_error" | "rate_limit_exceeded");
    let code = error.get("code").and_then(Value::as_str).unwrap_or("server_error");
    let mut result = of_fields(vendor, error);
    if result.failure.kind == FailureKind::Server && !known_transient(code) {
        result.failure.kind = FailureKind::Invalid;
        result.status = Some(400);
    }
    result
}
