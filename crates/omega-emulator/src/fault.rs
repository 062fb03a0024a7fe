//! The fault catalogue: every way a provider is known to fail, each under one stable name. What a fault looks like on
//! the wire differs by provider and is written in `replies.rs` (whole answers) and `stream.rs` (broken bodies).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The parameter a fault takes after a colon.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Parameter {
    /// None.
    None,
    /// Seconds of trace time, with this default.
    Seconds(f64),
    /// A count (mostly of content events), with this default.
    Count(u32),
    /// One of these words; the first is the default.
    Choice(&'static [&'static str]),
}

macro_rules! catalogue {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $parameter:expr, $description:literal;)*) => {
        /// A way to fail. `Fault::ALL` lists them; [`FaultSpec`] adds a parameter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Fault { $(#[doc = $description] $variant,)* }

        impl Fault {
            /// The whole catalogue, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name, for headers, model suffixes and scenario files.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it does, in one line.
            pub fn description(self) -> &'static str {
                match self { $(Self::$variant => $description,)* }
            }

            /// The parameter it takes.
            pub fn parameter(self) -> Parameter {
                match self { $(Self::$variant => $parameter,)* }
            }
        }
    };
}

catalogue! {
    RateLimited, "rate-limited", Parameter::Seconds(1.0), "429 with the provider's own hint to come back in N seconds";
    RateLimitedNoHint, "rate-limited-no-hint", Parameter::None, "429 that does not say when to come back";
    RateLimitedMs, "rate-limited-ms", Parameter::Seconds(0.3), "429 with `retry-after-ms` only";
    RateLimitedDate, "rate-limited-date", Parameter::Seconds(2.0), "429 whose `retry-after` is an HTTP-date N seconds ahead";
    RateLimitedRequestedOverLimit, "rate-limited-requested-over-limit", Parameter::None, "429 that waiting cannot cure: the request alone is larger than the limit";
    SlowDown, "slow-down", Parameter::Seconds(2.0), "429 because traffic grew too fast (`slow_down`, `ramp_limit_exceeded`)";
    InsufficientQuota, "insufficient-quota", Parameter::Choice(&["credit_balance_exhausted", "organization_spend_limit_exceeded", "project_spend_limit_exceeded", "organization_usage_limit_exceeded", "insufficient_quota"]), "credits or spend limit gone, as a 429 (xAI: credits text); the parameter is OpenAI's code";
    BillingNotActive, "billing-not-active", Parameter::None, "the account is not active (OpenAI 429 `billing_not_active`)";
    SpendLimit, "spend-limit", Parameter::Choice(&["enforced", "contract", "usage-limits", "credit-balance"]), "Anthropic's four spend refusals: two 429s without a hint, two 400s; the others' nearest equivalent";
    PaymentRequired, "payment-required", Parameter::None, "402 (Gemini RESOURCE_EXHAUSTED, Anthropic billing_error)";
    PerDayQuota, "per-day-quota", Parameter::Seconds(46.0), "429 for a daily quota; Gemini adds a misleadingly short RetryInfo";
    LimitZero, "limit-zero", Parameter::None, "429 for a quota of zero: this model will never be served to this key";
    ServerError, "server-error", Parameter::None, "500";
    BadGatewayHtml, "bad-gateway-html", Parameter::None, "502 with the HTML page of an edge server";
    Unavailable, "unavailable", Parameter::Seconds(0.0), "503; with a parameter also `retry-after`";
    Overloaded, "overloaded", Parameter::Seconds(0.0), "the provider's word for overload: 529, 503 `server_is_overloaded`, UNAVAILABLE; with a parameter also `retry-after`";
    GatewayTimeout, "gateway-timeout", Parameter::None, "504";
    Edge520, "edge-520", Parameter::None, "520 with the HTML page of an edge server (unknown error)";
    Edge521, "edge-521", Parameter::None, "521 with the HTML page of an edge server (origin down)";
    Edge522, "edge-522", Parameter::None, "522 with the HTML page of an edge server (connection timed out)";
    Edge523, "edge-523", Parameter::None, "523 with the HTML page of an edge server (origin unreachable)";
    Edge524, "edge-524", Parameter::None, "524 with the HTML page of an edge server (a timeout occurred)";
    Conflict, "conflict", Parameter::None, "409";
    RequestTimeout, "request-timeout", Parameter::None, "408";
    TooEarly, "too-early", Parameter::None, "425";
    BadKey, "bad-key", Parameter::None, "the key is refused: 401, Gemini 400 API_KEY_INVALID, xAI 400";
    Forbidden, "forbidden", Parameter::None, "403";
    ModelNotFound, "model-not-found", Parameter::None, "404 for the model";
    InvalidRequest, "invalid-request", Parameter::None, "400 naming a parameter";
    TooLarge, "too-large", Parameter::None, "413";
    Unprocessable, "unprocessable", Parameter::None, "422";
    ContextLength, "context-length", Parameter::None, "400: the prompt does not fit the model's window";
    ContentFilter, "content-filter", Parameter::None, "200, but the answer is withheld (`content_filter`, `refusal`, `promptFeedback`)";
    ShouldRetryFalse, "should-retry-false", Parameter::None, "429 with `x-should-retry: false`";
    ShouldRetryTrue, "should-retry-true", Parameter::None, "400 with `x-should-retry: true`";
    ResetBeforeHeaders, "reset-before-headers", Parameter::None, "the connection is reset (RST) before any answer";
    CloseBeforeHeaders, "close-before-headers", Parameter::None, "the connection is closed (FIN) before any answer";
    Hang, "hang", Parameter::None, "the request is accepted and never answered";
    SlowHeaders, "slow-headers", Parameter::Seconds(5.0), "silence for N seconds, then a healthy answer";
    SlowFirstToken, "slow-first-token", Parameter::Seconds(5.0), "headers at once, then silence for N seconds before the first content";
    PingsOnly, "pings-only", Parameter::Seconds(0.5), "headers, then keep-alives every N seconds and never any content";
    CutAfter, "cut-after", Parameter::Count(3), "the connection breaks abruptly after N content events";
    EndAfter, "end-after", Parameter::Count(3), "the body ends cleanly after N content events, without its terminator";
    StallAfter, "stall-after", Parameter::Count(3), "silence for ever after N content events";
    MalformedChunk, "malformed-chunk", Parameter::Count(3), "after N content events one event that is not JSON, then the rest";
    MalformedBody, "malformed-body", Parameter::None, "200 with a body that is not JSON";
    ErrorInStream, "error-in-stream", Parameter::Count(3), "after N content events the provider's error event, then the end (Responses: nested form, Gemini: bare JSON)";
    ErrorInStreamAlternative, "error-in-stream-alternative", Parameter::Count(3), "the same in the other known form (Responses: flat, Gemini: with `data:`, chat: with `event: error`, xAI: its own body)";
    MissingDone, "missing-done", Parameter::None, "everything up to and including the finish reason, but no closing terminator line";
    EndlessEvent, "endless-event", Parameter::None, "one event that never ends";
    HugeBody, "huge-body", Parameter::Count(64), "a correct answer padded to N MiB";
    HostileRetryAfter, "hostile-retry-after", Parameter::Choice(&["huge", "negative", "garbage", "infinite"]), "429 whose `retry-after` is nonsense";
    StatusFailed, "status-failed", Parameter::Choice(&["server_error", "rate_limit_exceeded", "invalid_prompt"]), "Responses: 200 with status `failed` and this code; elsewhere an error event at once";
    Trickle, "trickle", Parameter::Seconds(0.05), "the body arrives a few bytes at a time, every N seconds";
}

impl Fault {
    /// The fault of a name, as [`Fault::name`] spells it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|fault| fault.name() == name)
    }

    /// The name with its parameter, as the catalogue shows it: `cut-after:N`.
    pub fn usage(self) -> String {
        match self.parameter() {
            Parameter::None => self.name().to_owned(),
            Parameter::Seconds(_) => format!("{}:SECONDS", self.name()),
            Parameter::Count(_) => format!("{}:N", self.name()),
            Parameter::Choice(_) => format!("{}:WORD", self.name()),
        }
    }

    /// The default of the parameter, in words; empty where there is none.
    pub fn parameter_default(self) -> String {
        match self.parameter() {
            Parameter::None => String::new(),
            Parameter::Seconds(seconds) => seconds.to_string(),
            Parameter::Count(count) => count.to_string(),
            Parameter::Choice(words) => words.join(", "),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fault, its parameter and how often it happens: `NAME[:PARAMETER][,times=K][,id=WORD]`.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultSpec {
    /// Which fault.
    pub fault: Fault,
    /// The parameter as written, already checked; `None` means the default.
    pub parameter: Option<String>,
    /// Only the first K requests that carry this very text, counted per provider. `None`: every time.
    pub times: Option<u32>,
    /// Keeps two counts of the same fault apart.
    pub id: Option<String>,
}

impl FaultSpec {
    /// A fault with its default parameter, every time.
    pub fn new(fault: Fault) -> Self {
        Self { fault, parameter: None, times: None, id: None }
    }

    /// The parameter in trace seconds. 0 where the fault takes none.
    pub(crate) fn seconds(&self) -> f64 {
        let default = if let Parameter::Seconds(default) = self.fault.parameter() { default } else { 0.0 };
        self.parameter.as_deref().and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    /// The parameter as a count. 0 where the fault takes none.
    pub(crate) fn count(&self) -> u32 {
        let default = if let Parameter::Count(default) = self.fault.parameter() { default } else { 0 };
        self.parameter.as_deref().and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    /// The parameter as one of its words. Empty where the fault takes none.
    pub(crate) fn word(&self) -> &str {
        let default =
            if let Parameter::Choice(words) = self.fault.parameter() { words[0] } else { Default::default() };
        self.parameter.as_deref().unwrap_or(default)
    }

    fn check_parameter(&self) -> Result<(), FaultParseError> {
        let Some(text) = self.parameter.as_deref() else { return Ok(()) };
        let name = self.fault.name();
        let wrong = |expected: String| Err(FaultParseError(format!("`{name}:{text}`: expected {expected}")));
        match self.fault.parameter() {
            Parameter::None => Err(FaultParseError(format!("`{name}` takes no parameter, found `{text}`"))),
            Parameter::Seconds(_) => match text.parse::<f64>() {
                Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => Ok(()),
                _ => wrong("a number of seconds, 0 or more".into()),
            },
            Parameter::Count(_) if text.parse::<u32>().is_ok() => Ok(()),
            Parameter::Count(_) => wrong("a whole number, 0 or more".into()),
            Parameter::Choice(words) if words.contains(&text) => Ok(()),
            Parameter::Choice(words) => wrong(format!("one of {}", words.join(", "))),
        }
    }
}

impl From<Fault> for FaultSpec {
    fn from(fault: Fault) -> Self {
        Self::new(fault)
    }
}

impl FromStr for FaultSpec {
    type Err = FaultParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',').map(str::trim);
        let head = parts.next().unwrap_or_default();
        let (name, parameter) = match head.split_once(':') {
            Some((name, parameter)) => (name.trim(), Some(parameter.trim().to_owned())),
            None => (head, None),
        };
        let fault = Fault::from_name(name).ok_or_else(|| FaultParseError::unknown(name))?;
        let mut spec = Self { fault, parameter, times: None, id: None };
        for part in parts {
            match part.split_once('=') {
                Some(("times", count)) => {
                    let count = count.parse().map_err(|_| {
                        FaultParseError(format!("`times={count}`: expected a whole number, 0 or more"))
                    })?;
                    spec.times = Some(count);
                }
                Some(("id", id)) => spec.id = Some(id.to_owned()),
                _ => return Err(FaultParseError(format!("`{part}`: expected `times=K` or `id=WORD`"))),
            }
        }
        spec.check_parameter()?;
        Ok(spec)
    }
}

impl fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fault.name())?;
        if let Some(parameter) = &self.parameter {
            write!(f, ":{parameter}")?;
        }
        if let Some(times) = self.times {
            write!(f, ",times={times}")?;
        }
        if let Some(id) = &self.id {
            write!(f, ",id={id}")?;
        }
        Ok(())
    }
}

impl Serialize for FaultSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FaultSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A fault text that cannot be understood; the message says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FaultParseError(String);

impl FaultParseError {
    fn unknown(name: &str) -> Self {
        let nearest = Fault::ALL.iter().min_by_key(|fault| distance(fault.name(), name));
        let hint = nearest
            .filter(|fault| distance(fault.name(), name) <= 3)
            .map_or_else(String::new, |fault| format!("; did you mean `{fault}`?"));
        Self(format!("unknown fault `{name}`{hint}"))
    }
}

/// Levenshtein distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_unique_kebab_case_and_parses_back() {
        for (index, fault) in Fault::ALL.iter().enumerate() {
            let name = fault.name();
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
            assert!(Fault::ALL[index + 1..].iter().all(|other| other.name() != name), "{name} twice");
            assert_eq!(name.parse::<FaultSpec>().expect(name).fault, *fault);
            assert!(!fault.description().is_empty());
        }
    }

    #[test]
    fn a_parameter_a_count_and_an_id_are_read_and_printed_back() {
        let spec: FaultSpec = "cut-after:7, times=2, id=a".parse().expect("a fault");
        assert_eq!((spec.fault, spec.count(), spec.times), (Fault::CutAfter, 7, Some(2)));
        assert_eq!(spec.to_string(), "cut-after:7,times=2,id=a");
    }

    #[test]
    fn defaults_apply_without_a_parameter() {
        assert_eq!("slow-headers".parse::<FaultSpec>().expect("a fault").seconds(), 5.0);
        assert_eq!(
            "insufficient-quota".parse::<FaultSpec>().expect("a fault").word(),
            "credit_balance_exhausted"
        );
    }

    #[test]
    fn mistakes_are_named_with_the_nearest_right_name() {
        let error = |text: &str| text.parse::<FaultSpec>().expect_err("must not parse").to_string();
        assert_eq!(error("overload"), "unknown fault `overload`; did you mean `overloaded`?");
        assert_eq!(error("zebra-crossing"), "unknown fault `zebra-crossing`");
        assert_eq!(error("server-error:3"), "`server-error` takes no parameter, found `3`");
        assert_eq!(error("cut-after:x"), "`cut-after:x`: expected a whole number, 0 or more");
        assert_eq!(error("slow-headers:-1"), "`slow-headers:-1`: expected a number of seconds, 0 or more");
        assert_eq!(error("hang,often"), "`often`: expected `times=K` or `id=WORD`");
        assert_eq!(error("hang,times=x"), "`times=x`: expected a whole number, 0 or more");
        assert!(error("spend-limit:lots").contains("expected one of enforced, contract"));
    }
}
