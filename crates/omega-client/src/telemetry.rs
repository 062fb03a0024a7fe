//! From events to words: every log line of the client is written here, and nowhere else.
//!
//! The nine lines of the specification are exact to the character. Text that came from a provider is cut and made
//! one line first ([`one_line`]), because it may echo prompts and forge log lines. Keys never come near this file.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use omega_policy::{Dimension, FailureKind};
use omega_protocol::ProviderError;
use tracing::{debug, error, info, warn};

/// The `tracing` target of every line.
pub const LOG_TARGET: &str = "omega_client";

/// Provider's words in a log line are cut here: enough for the reason, too little for a prompt.
const QUOTED_CHARS: usize = 300;

pub(crate) fn circuit_breakers_initialized() {
    info!(target: LOG_TARGET, "🔱 Circuit breakers initialized for all providers");
}

pub(crate) fn rate_limiters_initialized() {
    info!(target: LOG_TARGET, "🔱 Rate limiters initialized for all providers");
}

/// The wait before a retry; `attempt` counts the retries from 1.
pub(crate) fn backing_off(delay: Duration, attempt: u32) {
    info!(target: LOG_TARGET, "⏳ Backing off for {:.2}s (attempt {attempt})", delay.as_secs_f64());
}

/// A failed attempt: one line, whichever of the two the failure calls for.
pub(crate) fn attempt_failed(attempt: u32, attempts: u32, failure: &ProviderError) {
    match failure.failure.kind {
        FailureKind::Throttled | FailureKind::OutOfQuota => {
            warn!(
                target: LOG_TARGET,
                "🚨 Quota/Rate limit error on attempt {attempt}/{attempts}: {}",
                QuotaReason(failure)
            );
        }
        _ => {
            warn!(
                target: LOG_TARGET,
                "⚠️ LLM call failed on attempt {attempt}/{attempts}: {}",
                one_line(failure)
            );
        }
    }
}

/// An attempt that the call's own deadline ended.
pub(crate) fn attempt_out_of_time(attempt: u32, attempts: u32, message: &str) {
    warn!(target: LOG_TARGET, "⚠️ LLM call failed on attempt {attempt}/{attempts}: {message}");
}

/// The name of a quota error: its type and its code, once if they are the same; its status if it has neither.
struct QuotaReason<'a>(&'a ProviderError);

impl fmt::Display for QuotaReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        match (error.error_type.as_deref(), error.code.as_deref()) {
            (Some(name), Some(code)) if name != code => write!(f, "{} ({})", one_line(name), one_line(code)),
            (Some(name), _) | (None, Some(name)) => write!(f, "{}", one_line(name)),
            (None, None) => match error.status {
                Some(status) => write!(f, "{status}"),
                None => write!(f, "{}", one_line(&error.message)),
            },
        }
    }
}

pub(crate) fn circuit_opened(circuit: &str, failures: u32) {
    error!(target: LOG_TARGET, "🚨 Circuit breaker '{circuit}' OPEN after {failures} failures");
}

pub(crate) fn circuit_half_opened(circuit: &str) {
    info!(target: LOG_TARGET, "🔄 Circuit '{circuit}' entering HALF_OPEN state");
}

pub(crate) fn circuit_closed(circuit: &str) {
    info!(target: LOG_TARGET, "✅ Circuit '{circuit}' CLOSED (recovered)");
}

/// Other processes cannot be heard of: `share` of the limits from now on.
pub(crate) fn store_lost(provider: &str, share: f64, why: &str) {
    let why = one_line(why);
    warn!(target: LOG_TARGET, "🔌 Shared state of {provider} is out of reach ({why}): going on with {:.1}% of its limits", share * 100.0);
}

/// They can again.
pub(crate) fn store_joined(provider: &str, processes: u32) {
    info!(target: LOG_TARGET, "🔗 Shared state of {provider} is back: {processes} processes share its limits");
}

/// An episode of limiting begins. What ran out decides which number helps.
pub(crate) fn limit_hit(provider: &str, dimension: Dimension, requests: u64, tokens: u64, in_flight: u64) {
    match dimension {
        Dimension::Requests => {
            warn!(target: LOG_TARGET, "⏸️ Rate limit hit for {provider}: {requests} requests in last minute");
        }
        Dimension::Tokens | Dimension::InputTokens | Dimension::OutputTokens => {
            warn!(target: LOG_TARGET, "⏸️ Rate limit hit for {provider}: {tokens} tokens in last minute");
        }
        Dimension::Concurrency => {
            warn!(target: LOG_TARGET, "⏸️ Rate limit hit for {provider}: {in_flight} requests in flight");
        }
    }
}

pub(crate) fn limit_cleared(provider: &str) {
    debug!(target: LOG_TARGET, "nobody waits for {provider}'s limits any more");
}

pub(crate) fn paused(provider: &str, wait: Duration) {
    info!(
        target: LOG_TARGET,
        "{provider} asked for a pause of {:.2}s; calls to it wait until then",
        wait.as_secs_f64()
    );
}

pub(crate) fn limit_looks_low(provider: &str, dimension: Dimension, configured: u64, observed: u64) {
    let (what, key) = match dimension {
        Dimension::Requests => ("requests", "max_requests_per_minute"),
        Dimension::InputTokens => ("input tokens", "max_input_tokens_per_minute"),
        Dimension::OutputTokens => ("output tokens", "max_output_tokens_per_minute"),
        Dimension::Tokens => ("tokens", "max_tokens_per_minute"),
        Dimension::Concurrency => ("requests in flight", "max_concurrent_requests"),
    };
    warn!(
        target: LOG_TARGET,
        "{provider} allows {observed} {what} per minute, but {configured} are configured; \
         to use them set rate_limiting.{provider}.{key}"
    );
}

pub(crate) fn model_blocked(provider: &str, model: &str, wait: Duration) {
    warn!(
        target: LOG_TARGET,
        "{provider}'s quota for {} is spent; it is not asked again for {} s",
        one_line(model),
        wait.as_secs()
    );
}

pub(crate) fn failed_over(from: &str, to: &str, to_model: &str, reason: &dyn fmt::Display) {
    info!(target: LOG_TARGET, "turning from {from} to {to} ({}): {}", one_line(to_model), one_line(reason));
}

/// A stream broke, and another target goes on with it.
pub(crate) fn stream_continued(from: &str, to: &str, model: &str, delivered: usize) {
    warn!(
        target: LOG_TARGET,
        "the stream of {from} broke after {delivered} bytes of text; {to}/{} goes on",
        one_line(model)
    );
}

/// An answer that was begun again is another one than the one that broke.
pub(crate) fn stream_not_joined(provider: &str, model: &str) {
    warn!(
        target: LOG_TARGET,
        "the answer begun again by {provider}/{} is another one and cannot be joined",
        one_line(model)
    );
}

pub(crate) fn hedged(from: &str, to: &str, to_model: &str, waited: Duration) {
    info!(
        target: LOG_TARGET,
        "{from} has not begun to answer after {:.2}s; {to} ({}) is asked as well",
        waited.as_secs_f64(),
        one_line(to_model)
    );
}

pub(crate) fn hedge_won(from: &str, to: &str) {
    info!(target: LOG_TARGET, "{to} answers in the place of {from}");
}

pub(crate) fn configuration_found(path: &Path) {
    info!(target: LOG_TARGET, "configuration read from {} (found in the working directory)", path.display());
}

pub(crate) fn configuration_warning(warning: &str) {
    warn!(target: LOG_TARGET, "{}", one_line(warning));
}

pub(crate) fn circuit_reset(circuit: &str) {
    info!(target: LOG_TARGET, "circuit '{circuit}' was closed by hand");
}

/// `text` on one line, without control characters, cut after [`QUOTED_CHARS`] characters. Runs of white space become
/// one blank.
pub(crate) fn one_line(text: impl fmt::Display) -> String {
    let mut line = Line { text: String::new(), chars: 0, gap: false };
    // An error here only says that the line is full.
    if write!(line, "{text}").is_err() {
        line.text.push('…');
    }
    line.text
}

struct Line {
    text: String,
    chars: usize,
    gap: bool,
}

impl fmt::Write for Line {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        for c in piece.chars() {
            if c.is_whitespace() || is_invisible(c) {
                self.gap = self.chars > 0;
                continue;
            }
            if self.chars + usize::from(self.gap) >= QUOTED_CHARS {
                return Err(fmt::Error);
            }
            if std::mem::take(&mut self.gap) {
                self.text.push(' ');
                self.chars += 1;
            }
            self.text.push(c);
            self.chars += 1;
        }
        Ok(())
    }
}

/// Characters that can hide or forge what a terminal shows: control characters, and those that turn the direction of
/// writing. Source: Unicode Standard Annex 9, explicit formatting characters.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provider_text_becomes_one_clean_line() {
        assert_eq!(one_line("a\r\n\tb\u{1b}[31mc\u{202e}d "), "a b [31mc d");
        assert_eq!(one_line(""), "");
    }

    #[test]
    fn provider_text_is_cut() {
        let long = "x".repeat(10_000);
        let line = one_line(&long);
        assert_eq!(line.chars().count(), QUOTED_CHARS + 1);
        assert!(line.ends_with('…'));
        assert_eq!(one_line("y".repeat(QUOTED_CHARS)).chars().count(), QUOTED_CHARS);
    }

    #[test]
    fn a_quota_error_is_named_by_type_and_code() {
        let mut error = ProviderError::new(FailureKind::OutOfQuota, "You exceeded your current quota");
        error.status = Some(429);
        assert_eq!(QuotaReason(&error).to_string(), "429");
        error.error_type = Some("insufficient_quota".into());
        assert_eq!(QuotaReason(&error).to_string(), "insufficient_quota");
        error.code = Some("insufficient_quota".into());
        assert_eq!(QuotaReason(&error).to_string(), "insufficient_quota");
        error.code = Some("project_spend_limit_exceeded".into());
        assert_eq!(QuotaReason(&error).to_string(), "insufficient_quota (project_spend_limit_exceeded)");
    }
}
