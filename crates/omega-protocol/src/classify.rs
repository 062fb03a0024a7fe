//! What error answers of all vendors have in common: bodies that are not JSON, statuses without a code, phrases that
//! decide, and the order in which hints are believed. What only one vendor says stands in that vendor's file.

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use omega_policy::FailureKind;

use crate::ProviderError;
use crate::hints::{self, find_ignore_case};

/// How much of a provider's message is kept, in bytes. The longest genuine ones, Gemini's lists of exceeded quotas, have
/// about 2 KB; an edge's HTML page has up to 15 KB that help nobody.
pub(crate) const MESSAGE_MAX: usize = 4096;

/// What a status means when the body says nothing more.
///
/// Source: the unified error classes over the four vendors' documentation, read 2026-11-23.
pub(crate) fn by_status(status: u16) -> FailureKind {
    match status {
        401 | 403 | 407 => FailureKind::Auth,
        402 => FailureKind::OutOfQuota,
        // A redirect is a wrong address, like a path that is not there: nothing follows it with a key in hand.
        404 | 300..=399 => FailureKind::UnknownModel,
        408 | 409 | 425 => FailureKind::Transient,
        429 => FailureKind::Throttled,
        529 => FailureKind::Overloaded,
        400..=499 => FailureKind::Invalid,
        _ => FailureKind::Server,
    }
}

/// Whether a text contains one of these phrases (lower-case ASCII), whatever its letter case.
pub(crate) fn says(text: &str, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| find_ignore_case(text, phrase).is_some())
}

/// Words for a prompt that is longer than the window, of all vendors and of common compatible servers.
///
/// Source: OpenAI, Anthropic, Google and xAI error texts recorded in 2025 and 2026; vLLM and llama.cpp say
/// "maximum context length" and "context size" too.
pub(crate) const CONTEXT_LENGTH: &[&str] = &[
    "maximum context length",
    "exceeds the context window",
    "exceed context limit",
    "maximum prompt length",
    "prompt is too long",
    "exceeds the maximum number of tokens allowed",
    "exceeds the available context size",
    "context_length_exceeded",
];

/// Words for a provider that has no capacity now.
pub(crate) const OVERLOADED: &[&str] = &["overloaded", "high demand", "at capacity", "over capacity"];

/// A text cut to [`MESSAGE_MAX`], at a character.
pub(crate) fn bounded(text: &str) -> String {
    let text = text.trim();
    if text.len() <= MESSAGE_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MESSAGE_MAX);
    format!("{}…", &text[..end])
}

/// A message from a body that is not the vendor's JSON: an HTML page's title, or the first bytes.
pub(crate) fn message_of_unreadable(status: u16, body: &[u8]) -> String {
    // A title stands early; a body without one may be large.
    let text = String::from_utf8_lossy(&body[..body.len().min(16 * 1024)]);
    let text = text.trim();
    if text.is_empty() {
        let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        return reason.unwrap_or("the answer has no body").to_owned();
    }
    if !text.starts_with('<') {
        return bounded(text);
    }
    let title = find_ignore_case(text, "<title>").and_then(|at| {
        let title = &text[at + "<title>".len()..];
        Some(title[..find_ignore_case(title, "</title>")?].split_whitespace().collect::<Vec<_>>().join(" "))
    });
    match title.filter(|title| !title.is_empty()) {
        Some(title) => bounded(&format!("an HTML page, not the API: {title}")),
        None => {
            let end = text.floor_char_boundary(text.len().min(200));
            format!("an HTML page, not the API: {}", &text[..end])
        }
    }
}

/// The error of a 2xx body that is not what the protocol says. The parser's own words would quote values, and values are
/// prompts and answers.
pub(crate) fn not_the_form(wanted: &str, body: &[u8], parse: &serde_json::Error) -> ProviderError {
    if body.trim_ascii_start().starts_with(b"<") {
        return ProviderError::malformed(message_of_unreadable(200, body));
    }
    ProviderError::malformed(format!(
        "the body is not {wanted} (line {} column {})",
        parse.line(),
        parse.column()
    ))
}

/// Fills in what the headers say about retrying: the explicit word, then `retry-after-ms`, then `retry-after`.
///
/// Later hints of the vendor's body and of reset headers are used only if this leaves `retry_after` empty.
pub(crate) fn apply_headers(error: &mut ProviderError, headers: &HeaderMap, now: Timestamp) {
    error.failure.should_retry = hints::should_retry(headers);
    if let Some(wait) = hints::retry_after(headers, now) {
        error.failure.retry_after = Some(wait);
    }
}
