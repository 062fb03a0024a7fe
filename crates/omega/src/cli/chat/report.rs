//! What a call came to, in words for stderr, in JSON for programs, and as an exit code.

use std::borrow::Cow;
use std::time::Duration;

use omega_client::{Answer, Attempt, AttemptOutcome, Error, ErrorKind, Origin, TokenUsage};
use omega_protocol::{ChatResponse, FinishReason};
use serde_json::{Value, json};

use crate::cli::{Context, Failure};

/// The exit code of an error: who said no, ourselves or the provider, or nobody in time.
pub(super) fn exit_code(kind: ErrorKind, origin: Origin) -> u8 {
    match (kind, origin) {
        (ErrorKind::Config, _) | (ErrorKind::Authentication, Origin::Local) => 3,
        (ErrorKind::Unsupported, _) => 2,
        (ErrorKind::CircuitOpen, _) | (ErrorKind::RateLimited | ErrorKind::QuotaExhausted, Origin::Local) => {
            4
        }
        (ErrorKind::Deadline | ErrorKind::Transport | ErrorKind::StreamBroken, _) => 6,
        _ => 5,
    }
}

/// An error as the end of the program: its words, the next step, and its exit code.
pub(super) fn failure(error: &Error) -> Failure {
    let mut message = error.to_string();
    let skipped = |attempt: &&Attempt| !matches!(attempt.outcome, AttemptOutcome::Answered);
    if error.attempts().iter().filter(skipped).count() > 1 {
        for attempt in error.attempts().iter().filter(skipped) {
            message.push_str(&format!(
                "\n  {} ({}): {}",
                attempt.provider,
                attempt.model,
                outcome(&attempt.outcome)
            ));
        }
    }
    if let Some(wait) = error.retry_after() {
        message.push_str(&format!("\n  worth another try in {}", span(wait)));
    }
    if error.kind() == ErrorKind::Config {
        message.push_str(
            "\n  (`omega demo` needs no key and no network; `omega check` shows the configuration)",
        );
    }
    if let Some(id) = error.request_id() {
        message.push_str(&format!("\n  the provider's id of the request: {id}"));
    }
    Failure::with_code(exit_code(error.kind(), error.origin()), message)
}

/// Says on stderr why an answer is shorter or other than one might think.
pub(super) fn finish_note(finish: Option<&FinishReason>, context: &Context) {
    match finish {
        Some(FinishReason::Length) => context.note("the answer was cut at its longest length (--max-tokens)"),
        Some(FinishReason::ContentFilter) => {
            context.note("the provider's content filter withheld the answer or a part of it")
        }
        _ => {}
    }
}

/// Says on stderr who answered if it was not the first one asked, and everything with --verbose.
pub(super) fn story(
    provider: &str,
    model: &str,
    attempts: &[Attempt],
    usage: Option<TokenUsage>,
    context: &Context,
) {
    let others: Vec<&Attempt> =
        attempts.iter().filter(|attempt| !matches!(attempt.outcome, AttemptOutcome::Answered)).collect();
    // A hedge that lost to the answer was asked after it.
    let answered = attempts.last().map_or(Duration::ZERO, |answer| answer.started);
    if others.iter().any(|attempt| attempt.provider != provider && attempt.started <= answered) {
        context.note(&format!("answered by {provider} ({model}), because:"));
        for attempt in &others {
            context.note(&format!(
                "  {} ({}): {}",
                attempt.provider,
                attempt.model,
                outcome(&attempt.outcome)
            ));
        }
    }
    if !context.is_verbose() {
        return;
    }
    let queued = attempts.iter().map(|attempt| attempt.queued).sum();
    let mut line =
        format!("{provider}, {model}, attempts {}, waited for quota {}", attempts.len(), span(queued));
    if let Some(usage) = usage {
        line.push_str(&format!(", tokens {} in {} out", usage.input_tokens, usage.output_tokens));
    }
    context.note(&line);
}

/// One JSON object for an answer.
pub(super) fn answer_json(answer: &Answer<ChatResponse>) -> Value {
    json!({
        "answer": answer.text(),
        "finish_reason": answer.finish_reason(),
        "provider": answer.provider,
        "model": answer.model,
        "attempts": answer.attempts.iter().map(attempt_json).collect::<Vec<_>>(),
        "queued_ms": millis(answer.queued),
        "usage": answer.usage,
    })
}

/// One JSON object for a call without an answer.
pub(super) fn error_json(error: &Error) -> Value {
    json!({
        "error": {
            "kind": kind(error.kind()),
            "origin": error.origin().as_str(),
            "message": error.to_string(),
            "provider": error.provider(),
            "model": error.model(),
            "status": error.status(),
            "type": error.error_type(),
            "code": error.code(),
            "request_id": error.request_id(),
            "retry_after_s": error.retry_after().map(|wait| wait.as_secs_f64()),
            "exit_code": exit_code(error.kind(), error.origin()),
        },
        "attempts": error.attempts().iter().map(attempt_json).collect::<Vec<_>>(),
    })
}

fn attempt_json(attempt: &Attempt) -> Value {
    let (status, code) = match &attempt.outcome {
        AttemptOutcome::Failed { status, code, .. } => (*status, code.as_deref()),
        AttemptOutcome::Refused { kind: why, .. } => (None, Some(kind(*why))),
        _ => (None, None),
    };
    json!({
        "provider": attempt.provider,
        "model": attempt.model,
        "outcome": attempt.outcome.name(),
        "status": status,
        "code": code,
        "message": attempt.outcome.message(),
        "started_ms": millis(attempt.started),
        "elapsed_ms": millis(attempt.elapsed),
        "queued_ms": millis(attempt.queued),
    })
}

fn outcome(outcome: &AttemptOutcome) -> String {
    match outcome {
        AttemptOutcome::Answered => String::from("answered"),
        AttemptOutcome::Failed { message, .. } => format!("failed: {message}"),
        AttemptOutcome::Refused { message, .. } => format!("not asked: {message}"),
        AttemptOutcome::Cancelled => String::from("cancelled: the other one of a hedged pair was first"),
        AttemptOutcome::Skipped { message } => format!("skipped: {message}"),
        other => format!("{other:?}"),
    }
}

/// The stable word for an error kind in JSON.
fn kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::CircuitOpen => "circuit_open",
        ErrorKind::RateLimited => "rate_limited",
        ErrorKind::QuotaExhausted => "quota_exhausted",
        ErrorKind::Authentication => "authentication",
        ErrorKind::InvalidRequest => "invalid_request",
        ErrorKind::ContextLength => "context_length",
        ErrorKind::ContentFilter => "content_filter",
        ErrorKind::Provider => "provider",
        ErrorKind::StreamBroken => "stream_broken",
        ErrorKind::Deadline => "deadline",
        ErrorKind::Transport => "transport",
        ErrorKind::Config => "config",
        ErrorKind::Unsupported => "unsupported",
        _ => "other",
    }
}

/// Text of a model, made safe for a terminal: an answer must not move the cursor, change colours or retitle the window.
pub(super) fn printable(text: &str, is_terminal: bool) -> Cow<'_, str> {
    let hostile = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if is_terminal && text.contains(hostile) {
        Cow::Owned(
            text.replace("\r\n", "\n").chars().map(|c| if hostile(c) { '\u{fffd}' } else { c }).collect(),
        )
    } else {
        Cow::Borrowed(text)
    }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Rounded up: who waits as long as it says must not come too early.
fn span(span: std::time::Duration) -> String {
    let seconds = span.as_secs_f64();
    if seconds >= 10.0 {
        format!("{} s", seconds.ceil())
    } else {
        format!("{:.1} s", (seconds * 10.0).ceil() / 10.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_say_who_refused() {
        let codes = [
            (ErrorKind::Config, Origin::Local, 3),
            (ErrorKind::Unsupported, Origin::Local, 2),
            (ErrorKind::CircuitOpen, Origin::Local, 4),
            (ErrorKind::RateLimited, Origin::Local, 4),
            (ErrorKind::RateLimited, Origin::Provider, 5),
            (ErrorKind::QuotaExhausted, Origin::Provider, 5),
            (ErrorKind::Authentication, Origin::Provider, 5),
            (ErrorKind::InvalidRequest, Origin::Provider, 5),
            (ErrorKind::ContextLength, Origin::Provider, 5),
            (ErrorKind::ContentFilter, Origin::Provider, 5),
            (ErrorKind::Provider, Origin::Provider, 5),
            (ErrorKind::Deadline, Origin::Local, 6),
            (ErrorKind::Deadline, Origin::Provider, 6),
            (ErrorKind::Transport, Origin::Provider, 6),
            (ErrorKind::StreamBroken, Origin::Provider, 6),
        ];
        for (kind, origin, code) in codes {
            assert_eq!(exit_code(kind, origin), code, "{kind:?} {origin:?}");
        }
    }

    #[test]
    fn a_wait_is_rounded_up() {
        for (millis, said) in
            [(0, "0.0 s"), (1_201, "1.3 s"), (9_960, "10.0 s"), (17_780, "18 s"), (60_000, "60 s")]
        {
            assert_eq!(span(std::time::Duration::from_millis(millis)), said);
        }
    }

    #[test]
    fn an_answer_cannot_command_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\nc\td\x07", true), "a\u{fffd}[2Jb\nc\td\u{fffd}");
        assert_eq!(printable("a\x1b[2Jb", false), "a\x1b[2Jb");
        assert_eq!(printable("plain\ntext", true), "plain\ntext");
    }
}
