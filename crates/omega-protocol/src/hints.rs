//! What providers write about time: how long to wait, and when a quota is full again.
//!
//! Every answer is a [`Duration`] from receipt, never a date. Nothing here trusts its input: what is not a wait is
//! `None`, what lies in the past is zero, and what is absurdly far is cut to [`LONGEST`]; how much of it is obeyed is
//! the policies' business.
//!
//! Source of forms and order: the retry code of `openai` 3.54.0 and `anthropic` 2.12.0, RFC 9110 section 10.2.3,
//! ai.google.dev (`RetryInfo`), read 2026-11-23.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use jiff::Timestamp;

/// The longest wait ever returned. It only keeps sums of durations and instants from overflowing.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The text of a header, if it is there and ASCII.
pub fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim).filter(|value| !value.is_empty())
}

/// `x-should-retry: true | false`: the provider's explicit word.
pub fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match header(headers, "x-should-retry")? {
        value if value.eq_ignore_ascii_case("true") => Some(true),
        value if value.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// `retry-after-ms`, then `retry-after`: a number of seconds (integer or float) or an HTTP date.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let milliseconds = header(headers, "retry-after-ms").and_then(number).map(|value| seconds(value / 1e3));
    milliseconds.or_else(|| {
        let value = header(headers, "retry-after")?;
        number(value).map(seconds).or_else(|| http_date(value, headers, now))
    })
}

/// An HTTP date (IMF-fixdate, RFC 850 or asctime) as the time from the answer's own `Date`, or from `now` without one.
pub fn http_date(value: &str, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    Some(until(parse_http_date(value)?, headers, now))
}

/// An RFC 3339 instant as the time from the answer's own `Date`, or from `now` without one: the provider's clock and
/// ours need not agree.
pub fn rfc3339(value: &str, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let instant: Timestamp = value.trim().parse().ok()?;
    Some(until(instant, headers, now))
}

/// A Go duration such as `1m2.5s`, `720ms` or `1h2m3s`; a bare number is seconds.
pub fn go_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(value) = number(text) {
        return Some(seconds(value));
    }
    let (duration, rest) = go_duration_prefix(text)?;
    rest.is_empty().then_some(duration)
}

/// A protobuf duration in JSON: decimal seconds and `s`, such as `1.681s`.
pub fn protobuf_duration(text: &str) -> Option<Duration> {
    number(text.trim().strip_suffix('s')?).map(seconds)
}

/// A wait spoken of in a message: `Please try again in 720ms`, `Please retry in 10h17m5.7s.`, `try again in 20 seconds`.
pub fn in_text(message: &str) -> Option<Duration> {
    ["try again in ", "retry in ", "retry after "].iter().find_map(|phrase| {
        let at = find_ignore_case(message, phrase)?;
        wait_prefix(message[at + phrase.len()..].trim_start())
    })
}

/// A count as headers write it: thousands separators are tolerated.
pub fn count(value: &str) -> Option<u64> {
    let value = value.trim();
    if !value.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    value.bytes().filter(|byte| !matches!(byte, b',' | b'_')).try_fold(0u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    })
}

/// Where a phrase (in lower-case ASCII) stands in a text, whatever its letter case.
pub(crate) fn find_ignore_case(text: &str, phrase: &str) -> Option<usize> {
    let (text, phrase) = (text.as_bytes(), phrase.as_bytes());
    let (first, _) = phrase.split_first()?;
    let mut from = 0;
    while let Some(at) = memchr::memchr2(*first, first.to_ascii_uppercase(), &text[from..]) {
        let at = from + at;
        let end = at + phrase.len();
        if end > text.len() {
            return None;
        }
        if text[at..end].eq_ignore_ascii_case(phrase) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

fn parse_http_date(value: &str) -> Option<Timestamp> {
    let date = httpdate::parse_http_date(value.trim()).ok()?;
    let since_epoch = date.duration_since(UNIX_EPOCH).ok()?;
    let second = since_epoch.as_secs().try_into().unwrap_or(i64::MAX);
    // A date beyond what can be counted is as far as any.
    Some(Timestamp::from_second(second).unwrap_or(Timestamp::MAX))
}

fn until(instant: Timestamp, headers: &HeaderMap, now: Timestamp) -> Duration {
    let from = header(headers, "date").and_then(parse_http_date).unwrap_or(now);
    Duration::try_from(instant.duration_since(from)).unwrap_or(Duration::ZERO).min(LONGEST)
}

/// A finite decimal number: no exponent, no `inf`, no `nan`.
fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'+' | b'-'));
    text.parse::<f64>().ok().filter(|value| plain && value.is_finite())
}

/// Seconds, not below zero and not above [`LONGEST`].
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value.max(0.0)).map_or(LONGEST, |duration| duration.min(LONGEST))
}

/// A Go duration at the beginning of a text, and what follows it.
fn go_duration_prefix(text: &str) -> Option<(Duration, &str)> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    loop {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let Some(value) = number(&rest[..digits]) else { break };
        // `ms` before `m`, or milliseconds are taken for minutes.
        let units = [
            ("ns", 1e-9),
            ("us", 1e-6),
            ("µs", 1e-6),
            ("μs", 1e-6),
            ("ms", 1e-3),
            ("s", 1.0),
            ("m", 60.0),
            ("h", 3600.0),
        ];
        let unit = units.iter().find_map(|(unit, scale)| Some((rest[digits..].strip_prefix(unit)?, scale)));
        let Some((after, scale)) = unit else { break };
        sum = sum.saturating_add(seconds(value * scale)).min(LONGEST);
        rest = after;
    }
    (rest.len() < text.len()).then_some((sum, rest))
}

/// A wait at the beginning of a text: a Go duration, or a number with a unit in words.
fn wait_prefix(text: &str) -> Option<Duration> {
    if let Some((duration, _)) = go_duration_prefix(text) {
        return Some(duration);
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let value = number(text[..digits].trim_end_matches('.'))?;
    let unit = text[digits..].trim_start();
    let scale = [("milli", 1e-3), ("sec", 1.0), ("min", 60.0), ("hour", 3600.0), ("day", 86_400.0)]
        .iter()
        .find_map(|(word, scale)| (find_ignore_case(unit, word) == Some(0)).then_some(*scale));
    // "try again in 20" without a unit is read as seconds, as the headers are.
    scale.or_else(|| unit.is_empty().then_some(1.0)).map(|scale| seconds(value * scale))
}
