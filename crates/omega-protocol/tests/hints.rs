//! Waits as providers write them, and as an enemy would.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use omega_protocol::hints::{
    LONGEST, count, go_duration, http_date, in_text, protobuf_duration, retry_after, rfc3339, should_retry,
};
use proptest::prelude::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    pairs.iter().map(pair).collect()
}

fn now() -> Timestamp {
    "1994-11-06T08:49:30Z".parse().unwrap()
}

fn wait(value: &str) -> Option<Duration> {
    retry_after(&headers(&[("retry-after", value)]), now())
}

const fn ms(milliseconds: u64) -> Option<Duration> {
    Some(Duration::from_millis(milliseconds))
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    assert_eq!(wait("3"), ms(3_000));
    assert_eq!(wait("0"), ms(0));
    assert_eq!(wait("2.5"), ms(2_500));
    assert_eq!(wait(" 7 "), ms(7_000));
    assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), ms(7_000));
    assert_eq!(wait("Sunday, 06-Nov-94 08:49:37 GMT"), ms(7_000));
    assert_eq!(wait("Sun Nov  6 08:49:37 1994"), ms(7_000));
}

#[test]
fn milliseconds_come_first() {
    assert_eq!(retry_after(&headers(&[("retry-after-ms", "250"), ("retry-after", "9")]), now()), ms(250));
    assert_eq!(retry_after(&headers(&[("retry-after-ms", "soon"), ("retry-after", "9")]), now()), ms(9_000));
    assert_eq!(retry_after(&headers(&[("retry-after-ms", "0.5")]), now()), Some(Duration::from_micros(500)));
    assert_eq!(retry_after(&HeaderMap::new(), now()), None);
}

#[test]
fn dates_are_measured_against_the_answers_own_clock() {
    let skewed = headers(&[("date", "Sun, 06 Nov 1994 08:49:35 GMT")]);
    assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT", &skewed, now()), ms(2_000));
    assert_eq!(rfc3339("1994-11-06T08:49:36Z", &skewed, now()), ms(1_000));
    assert_eq!(rfc3339("1994-11-06T08:49:36.5Z", &HeaderMap::new(), now()), ms(6_500));
    assert_eq!(rfc3339("1994-11-06T10:49:36+02:00", &HeaderMap::new(), now()), ms(6_000));
    let broken = headers(&[("date", "yesterday")]);
    assert_eq!(rfc3339("1994-11-06T08:49:36Z", &broken, now()), ms(6_000));
}

#[test]
fn hostile_waits_are_harmless() {
    assert_eq!(wait("999999999"), Some(LONGEST));
    assert_eq!(wait(&"9".repeat(300)), Some(LONGEST));
    assert_eq!(wait(&"9".repeat(5_000)), None, "it is no finite number");
    assert_eq!(wait("-5"), ms(0));
    assert_eq!(wait("-0"), ms(0));
    assert_eq!(wait("Tue, 06 Nov 1990 08:49:37 GMT"), ms(0), "in the past");
    assert_eq!(wait("Fri, 31 Dec 9999 23:59:59 GMT"), Some(LONGEST));
    for nonsense in
        ["NaN", "nan", "inf", "-inf", "infinity", "1e9", "0x10", "soon", "1 2", "--1", ".", "-", "3 s"]
    {
        assert_eq!(wait(nonsense), None, "{nonsense}");
    }
    assert_eq!(rfc3339("9999-12-30T00:00:00Z", &HeaderMap::new(), now()), Some(LONGEST));
    assert_eq!(rfc3339("soon", &HeaderMap::new(), now()), None);
    let mut binary = HeaderMap::new();
    binary.insert("retry-after", http::HeaderValue::from_bytes(b"\xff\xfe").unwrap());
    assert_eq!(retry_after(&binary, now()), None);
}

#[test]
fn go_durations_are_read() {
    for (text, expected) in [
        ("1s", ms(1_000)),
        ("6m0s", ms(360_000)),
        ("120ms", ms(120)),
        ("8.64s", ms(8_640)),
        ("1h2m3.5s", ms(3_723_500)),
        ("0", ms(0)),
        ("12", ms(12_000)),
        ("5us", Some(Duration::from_micros(5))),
        ("5µs", Some(Duration::from_micros(5))),
        ("7ns", Some(Duration::from_nanos(7))),
        ("10h17m5.7s", ms(37_025_700)),
        ("999999999999h", Some(LONGEST)),
        ("99999999h99999999h", Some(LONGEST)),
        ("", None),
        ("s", None),
        ("1", ms(1_000)),
        ("1x", None),
        ("1s2", None),
        ("1.2.3s", None),
        ("1s trailing", None),
        ("5m ", ms(300_000)),
        ("-1s", None),
    ] {
        assert_eq!(go_duration(text), expected, "{text}");
    }
}

#[test]
fn protobuf_durations_are_read() {
    assert_eq!(protobuf_duration("46s"), ms(46_000));
    assert_eq!(protobuf_duration("1.681s"), ms(1_681));
    assert_eq!(protobuf_duration("-3s"), ms(0));
    for nonsense in ["46", "s", "1m", "", "NaNs", "infs"] {
        assert_eq!(protobuf_duration(nonsense), None, "{nonsense}");
    }
}

#[test]
fn waits_in_messages_are_read() {
    for (text, expected) in [
        ("Rate limit reached. Please try again in 720ms.", ms(720)),
        ("Please try again in 6s. Visit https://platform.openai.com", ms(6_000)),
        ("please TRY AGAIN IN 1m2.5s", ms(62_500)),
        ("Please retry in 46.2s.", ms(46_200)),
        ("Please retry in 10h17m5.7s.", ms(37_025_700)),
        ("try again in 20 seconds", ms(20_000)),
        ("Try again in 5 minutes.", ms(300_000)),
        ("Please retry after 3 seconds", ms(3_000)),
        ("try again in 2 hours", ms(7_200_000)),
        ("try again in 20", ms(20_000)),
        ("Please try again in a moment", None),
        ("Please try again later", None),
        ("try again in ", None),
        ("try again in 3 apples", None),
        ("", None),
    ] {
        assert_eq!(in_text(text), expected, "{text}");
    }
}

#[test]
fn should_retry_is_true_false_or_unsaid() {
    assert_eq!(should_retry(&headers(&[("x-should-retry", "true")])), Some(true));
    assert_eq!(should_retry(&headers(&[("x-should-retry", "False")])), Some(false));
    assert_eq!(should_retry(&headers(&[("x-should-retry", "maybe")])), None);
    assert_eq!(should_retry(&HeaderMap::new()), None);
}

#[test]
fn counts_take_separators_and_saturate() {
    assert_eq!(count("1,000,000"), Some(1_000_000));
    assert_eq!(count(" 42 "), Some(42));
    assert_eq!(count(&"9".repeat(40)), Some(u64::MAX));
    for nonsense in ["", "-1", "1.5", "many", ",", "1a"] {
        assert_eq!(count(nonsense), None, "{nonsense}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_them_panic_or_wait_longer_than_the_longest(text in "[ -~µ]{0,60}", number in any::<f64>()) {
        let number = format!("{number}{text}");
        for text in [&text, &number] {
            let header = headers(&[("retry-after", text), ("retry-after-ms", text), ("date", text)].map(|(name, value)| {
                (name, if value.is_ascii() { value.as_str() } else { "x" })
            }));
            let waits = [
                retry_after(&header, now()), go_duration(text), protobuf_duration(text), in_text(text),
                in_text(&format!("try again in {text}")), rfc3339(text, &header, now()), http_date(text, &header, now()),
            ];
            for wait in waits.into_iter().flatten() {
                prop_assert!(wait <= LONGEST);
            }
            let _ = count(text);
        }
    }
}
