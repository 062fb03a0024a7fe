//! The rows of the call itself: model, attempts, deadline, breaker, backoff, budget, streams, estimates, certificates.

use std::path::PathBuf;
use std::time::Duration;

use omega_policy::{BreakerMode, BreakerScope, FailureRate, Jitter, SlowFirstToken};

use super::{DAY, Key, TICK, count, names, seconds, text};
use crate::config::{OnStreamBreak, Tokenizer};
use crate::preset::Preset;
use crate::state::StoreAddress;
use crate::value::{Kind, Value};

pub(super) static KEYS: [Key; 52] = [
    // Before everything it sets; explicit settings override it, wherever they come from.
    Key::new(
        "preset",
        Kind::Word(&["spec", "adaptive"]),
        "What the settings you leave out start from: `spec`: the specification's numbers; `adaptive`: short growing open periods, overload answered by pacing, more and bounded retries, learned clocks.",
        |c, _| Value::word_of(&c.preset, &PRESETS),
        |c, _, v| c.apply(v.chosen(&PRESETS)),
    ),
    Key::new(
        "model",
        text("a model's name", not_blank),
        "The model used when a request names none (the constructor's `preferred_model`).",
        |c, _| Value::Text(c.model.clone()),
        |c, _, v| c.model = v.text(),
    ),
    Key::new(
        "fallbacks",
        names("a list of model names"),
        "Models to turn to, in order, when a call cannot be served.",
        |c, _| Value::List(c.fallbacks.clone()),
        |c, _, v| c.fallbacks = v.list(),
    ),
    Key::new(
        "state",
        text("`memory`, `sqlite:///path` or `redis://…`", store),
        "Where limits and breakers live: in this process, in a file that the processes of one machine share, or in Redis or Valkey (docs/shared-state.md). With the keys below, a section in which this one is called `url`.",
        |c, _| Value::Text(c.state.store.to_string()),
        |c, _, v| c.state.store = StoreAddress::read(&v.text()).unwrap_or(StoreAddress::Memory),
    ),
    Key::new(
        "state.offline_share",
        Kind::Number { min: 0.0, max: 1.0 },
        "The part of every limit that a process which has never reached the store allows itself. One that had a share goes on with that.",
        |c, _| Value::Number(c.state.offline_share),
        |c, _, v| c.state.offline_share = v.number(),
    ),
    Key::new(
        "state.timeout_seconds",
        seconds(0.001, 1.0),
        "How long an answer of the store is waited for. No call waits longer for it.",
        |c, _| Value::Seconds(c.state.timeout),
        |c, _, v| c.state.timeout = v.seconds(),
    ),
    Key::new(
        "state.namespace",
        text("up to 64 letters, digits, `-`, `_` and `.`", namespace),
        "What the names of everything in the store begin with: processes share what has the same.",
        |c, _| Value::Text(c.state.namespace.clone()),
        |c, _, v| c.state.namespace = v.text(),
    ),
    Key::new(
        "resilience.max_retries",
        count(1, 100),
        "Attempts in all, the first included: 1 means no retry.",
        |c, _| Value::Count(c.max_retries.into()),
        |c, _, v| c.max_retries = v.count32(),
    )
    .also(&["OMEGA_MAX_RETRIES"])
    .note("attempts are counted, the first included: 1 means no retry"),
    Key::new(
        "resilience.timeout_seconds",
        seconds(0.1, DAY),
        "How long a call may take in all: queueing, sleeping and calling.",
        |c, _| Value::Seconds(c.timeout),
        |c, _, v| c.timeout = v.seconds(),
    ),
    Key::new(
        "resilience.failover_wait_seconds",
        seconds(0.0, 3_600.0),
        "Up to this long a wait is waited out although a fallback would admit at once; a longer one fails over.",
        |c, _| Value::Seconds(c.failover_wait),
        |c, _, v| c.failover_wait = v.seconds(),
    ),
    Key::new(
        "circuit_breaker.enabled",
        Kind::Switch,
        "The switch. Off: never refuses, and reads `closed`.",
        |c, _| Value::Switch(c.breaker.enabled),
        |c, _, v| c.breaker.enabled = v.on(),
    ),
    Key::new(
        "circuit_breaker.failure_threshold",
        count(1, 1_000_000),
        "Consecutive failures before the circuit opens.",
        |c, _| Value::Count(c.breaker.failure_threshold.into()),
        |c, _, v| c.breaker.failure_threshold = v.count32(),
    )
    .also(&["OMEGA_CIRCUIT_FAILURE_THRESHOLD"]),
    Key::new(
        "circuit_breaker.success_threshold",
        count(1, 1_000_000),
        "Successes in half-open before it closes.",
        |c, _| Value::Count(c.breaker.success_threshold.into()),
        |c, _, v| c.breaker.success_threshold = v.count32(),
    ),
    Key::new(
        "circuit_breaker.timeout_seconds",
        seconds(TICK, DAY),
        "How long it stays open before recovery is tested.",
        |c, _| Value::Seconds(c.breaker.timeout),
        |c, _, v| c.breaker.timeout = v.seconds(),
    )
    .also(&["OMEGA_CIRCUIT_TIMEOUT_SECONDS"]),
    Key::new(
        "circuit_breaker.half_open_max_calls",
        count(1, 100_000),
        "Test calls in flight at once in half-open.",
        |c, _| Value::Count(c.breaker.half_open_max_calls.into()),
        |c, _, v| c.breaker.half_open_max_calls = v.count32(),
    ),
    Key::new(
        "circuit_breaker.half_open_timeout_seconds",
        seconds(TICK, DAY),
        "How long test calls may leave a half-open circuit undecided before that counts as a failure.",
        |c, _| Value::Seconds(c.breaker.half_open_timeout),
        |c, _, v| c.breaker.half_open_timeout = v.seconds(),
    ),
    Key::new(
        "circuit_breaker.open_growth",
        Kind::Number { min: 1.0, max: 10.0 },
        "Factor by which each successive open period grows; 1 keeps it constant.",
        |c, _| Value::Number(c.breaker.open_growth),
        |c, _, v| c.breaker.open_growth = v.number(),
    ),
    Key::new(
        "circuit_breaker.max_open_seconds",
        seconds(TICK, DAY),
        "The longest open period when `open_growth` is above 1.",
        |c, _| Value::Seconds(c.breaker.max_open),
        |c, _, v| c.breaker.max_open = v.seconds(),
    ),
    Key::new(
        "circuit_breaker.failure_rate.percent",
        count(1, 100),
        "Also open when this share of the calls in the window failed.",
        |c, _| failure_rate(c, |rate| rate.percent.into()),
        |c, _, v| {
            c.breaker.failure_rate = v.count_or_none().map(|_| FailureRate {
                percent: v.count32(),
                min_calls: MIN_CALLS,
                window: WINDOW,
            });
        },
    )
    .or("off"),
    Key::new(
        "circuit_breaker.failure_rate.min_calls",
        count(1, 1_000_000),
        "Calls in the window before the share means anything.",
        |c, _| Value::Count(c.breaker.failure_rate.as_ref().map_or(MIN_CALLS, |rate| rate.min_calls).into()),
        |c, _, v| {
            if let Some(rate) = &mut c.breaker.failure_rate {
                rate.min_calls = v.count32();
            }
        },
    ),
    Key::new(
        "circuit_breaker.failure_rate.window_seconds",
        seconds(1.0, 3_600.0),
        "The window of the failure rate.",
        |c, _| Value::Seconds(c.breaker.failure_rate.as_ref().map_or(WINDOW, |rate| rate.window)),
        |c, _, v| {
            if let Some(rate) = &mut c.breaker.failure_rate {
                rate.window = v.seconds();
            }
        },
    ),
    Key::new(
        "circuit_breaker.slow_first_token.threshold_seconds",
        seconds(TICK, DAY),
        "Also open when too many first tokens come this late.",
        |c, _| {
            c.breaker.slow_first_token.as_ref().map_or(Value::Absent, |slow| Value::Seconds(slow.threshold))
        },
        |c, _, v| {
            c.breaker.slow_first_token = match v {
                Value::Seconds(threshold) => Some(SlowFirstToken {
                    threshold,
                    percent: SLOW_PERCENT,
                    min_calls: MIN_CALLS,
                    window: WINDOW,
                }),
                _ => None,
            };
        },
    )
    .or("off"),
    Key::new(
        "circuit_breaker.slow_first_token.percent",
        count(1, 100),
        "The share of slow calls in the window at which the circuit opens.",
        |c, _| {
            Value::Count(c.breaker.slow_first_token.as_ref().map_or(SLOW_PERCENT, |slow| slow.percent).into())
        },
        |c, _, v| {
            if let Some(slow) = &mut c.breaker.slow_first_token {
                slow.percent = v.count32();
            }
        },
    ),
    Key::new(
        "circuit_breaker.slow_first_token.min_calls",
        count(1, 1_000_000),
        "Calls in the window before the share means anything.",
        |c, _| {
            Value::Count(c.breaker.slow_first_token.as_ref().map_or(MIN_CALLS, |slow| slow.min_calls).into())
        },
        |c, _, v| {
            if let Some(slow) = &mut c.breaker.slow_first_token {
                slow.min_calls = v.count32();
            }
        },
    ),
    Key::new(
        "circuit_breaker.slow_first_token.window_seconds",
        seconds(1.0, 3_600.0),
        "The window of the slow calls.",
        |c, _| Value::Seconds(c.breaker.slow_first_token.as_ref().map_or(WINDOW, |slow| slow.window)),
        |c, _, v| {
            if let Some(slow) = &mut c.breaker.slow_first_token {
                slow.window = v.seconds();
            }
        },
    ),
    Key::new(
        "circuit_breaker.overload_counts",
        Kind::Switch,
        "Overload (529, 503 that says so) counts as a consecutive failure. Off: it weighs in the failure rate alone.",
        |c, _| Value::Switch(c.breaker.overload_counts),
        |c, _, v| c.breaker.overload_counts = v.on(),
    ),
    Key::new(
        "circuit_breaker.fresh_evidence",
        Kind::Switch,
        "Count consecutive failures by fresh evidence: a first token ends a run of failures before content, a success of a call sent before the run does not.",
        |c, _| Value::Switch(c.breaker.fresh_evidence),
        |c, _, v| c.breaker.fresh_evidence = v.on(),
    ),
    Key::new(
        "circuit_breaker.queue_when_open",
        Kind::Switch,
        "Calls without another target wait while the circuit is open, if their time reaches beyond it. Off: they are refused at once.",
        |c, _| Value::Switch(c.breaker.queue_when_open),
        |c, _, v| c.breaker.queue_when_open = v.on(),
    ),
    Key::new(
        "circuit_breaker.ramp_seconds",
        seconds(0.0, 3_600.0),
        "After closing, let a growing share of calls through over this long; 0: all at once.",
        |c, _| Value::Seconds(c.breaker.ramp),
        |c, _, v| c.breaker.ramp = v.seconds(),
    ),
    Key::new(
        "circuit_breaker.scope",
        Kind::Word(&["provider", "model"]),
        "One circuit per provider, or one per provider and model.",
        |c, _| Value::word_of(&c.breaker.scope, &SCOPES),
        |c, _, v| c.breaker.scope = v.chosen(&SCOPES),
    ),
    Key::new(
        "circuit_breaker.mode",
        Kind::Word(&["auto", "forced_open", "metrics_only"]),
        "`auto`: the circuit decides. `forced_open`: refuse everything. `metrics_only`: count, never refuse.",
        |c, _| Value::word_of(&c.breaker.mode, &MODES),
        |c, _, v| c.breaker.mode = v.chosen(&MODES),
    ),
    Key::new(
        "backoff.base_delay",
        seconds(0.0, 3_600.0),
        "The first delay, in seconds.",
        |c, _| Value::Seconds(c.backoff.base_delay),
        |c, _, v| c.backoff.base_delay = v.seconds(),
    ),
    Key::new(
        "backoff.max_delay",
        seconds(0.0, DAY),
        "The longest delay, in seconds. At least `base_delay`.",
        |c, _| Value::Seconds(c.backoff.max_delay),
        |c, _, v| c.backoff.max_delay = v.seconds(),
    ),
    Key::new(
        "backoff.exponential_base",
        Kind::Number { min: 1.0, max: 10.0 },
        "The factor by which each delay grows.",
        |c, _| Value::Number(c.backoff.exponential_base),
        |c, _, v| c.backoff.exponential_base = v.number(),
    ),
    Key::new(
        "backoff.jitter",
        Kind::Word(&["true", "false", "full", "equal", "decorrelated", "none"]),
        "Randomisation of a delay d: `true` adds up to d, `false` and `none` nothing, `full` draws from 0 to d, `equal` from d/2 to d, `decorrelated` from the base to three times the delay before.",
        |c, _| Value::word_of(&c.backoff.jitter, &JITTERS),
        |c, _, v| c.backoff.jitter = v.chosen(&JITTERS),
    ),
    Key::new(
        "retry_budget.enabled",
        Kind::Switch,
        "The switch. Off: retries are bounded by `max_retries` and the deadline alone.",
        |c, _| Value::Switch(c.retry_budget_enabled),
        |c, _, v| c.retry_budget_enabled = v.on(),
    ),
    Key::new(
        "retry_budget.ratio",
        Kind::Number { min: 0.0, max: 10.0 },
        "Retries allowed as a share of recent first tries; read to the hundredth.",
        |c, _| Value::Number(f64::from(c.retry_budget.percent) / 100.0),
        |c, _, v| c.retry_budget.percent = (v.number() * 100.0).round() as u32,
    ),
    Key::new(
        "retry_budget.per_second",
        count(0, 1_000_000),
        "Retries per second allowed whatever the traffic.",
        |c, _| Value::Count(c.retry_budget.per_second.into()),
        |c, _, v| c.retry_budget.per_second = v.count32(),
    ),
    Key::new(
        "retry_budget.opening",
        count(0, 1_000_000),
        "Retries in hand at the start.",
        |c, _| Value::Count(c.retry_budget.opening.into()),
        |c, _, v| c.retry_budget.opening = v.count32(),
    ),
    Key::new(
        "hedging.enabled",
        Kind::Switch,
        "Send a call that is slow to begin to a fallback as well, and take whichever begins to answer first. Each such hedge is a second request that is paid for.",
        |c, _| Value::Switch(c.hedging.enabled),
        |c, _, v| c.hedging.enabled = v.on(),
    ),
    Key::new(
        "hedging.percent",
        count(1, 100),
        "Hedges as a share of the calls that have a fallback, at most. Slow is what takes longer than 95 % of the model's recent first tokens.",
        |c, _| Value::Count(c.hedging.percent.into()),
        |c, _, v| c.hedging.percent = v.count32(),
    ),
    Key::new(
        "streaming.first_byte_seconds",
        seconds(TICK, DAY),
        "How long until a response's first byte.",
        |c, _| Value::Seconds(c.streaming.first_byte),
        |c, _, v| each_clock(c, |clocks| clocks.first_byte = v.seconds()),
    ),
    Key::new(
        "streaming.first_content_seconds",
        seconds(TICK, DAY),
        "How long until the first content of models and requests not known to reason first.",
        |c, _| Value::Seconds(c.streaming.first_content),
        |c, _, v| each_clock(c, |clocks| clocks.first_content = v.seconds()),
    ),
    Key::new(
        "streaming.reasoning_first_content_seconds",
        seconds(TICK, DAY),
        "The same for models and requests known to reason first.",
        |c, _| Value::Seconds(c.streaming.reasoning_first_content),
        |c, _, v| each_clock(c, |clocks| clocks.reasoning_first_content = v.seconds()),
    ),
    Key::new(
        "streaming.gap_seconds",
        seconds(TICK, DAY),
        "How long between two pieces of content; keep-alives do not count.",
        |c, _| Value::Seconds(c.streaming.gap),
        |c, _, v| each_clock(c, |clocks| clocks.gap = v.seconds()),
    ),
    Key::new(
        "streaming.learned_first_content",
        Kind::Switch,
        "Where a fallback exists, learn a shorter first-content clock from what the model lately did.",
        |c, _| Value::Switch(c.streaming.learned_first_content),
        |c, _, v| each_clock(c, |clocks| clocks.learned_first_content = v.on()),
    ),
    Key::new(
        "streaming.learned_without_fallback",
        Kind::Switch,
        "Use the learned first-content clock also where no fallback exists: the call is then tried again on the same target.",
        |c, _| Value::Switch(c.streaming.learned_without_fallback),
        |c, _, v| each_clock(c, |clocks| clocks.learned_without_fallback = v.on()),
    ),
    Key::new(
        "streaming.on_stream_break",
        Kind::Word(&["error", "continue", "restart"]),
        "When a stream breaks after part of it reached the caller: `error` ends it with a clear error event; `continue` lets the next target go on from where it stopped, by an assistant prefill where it takes one, otherwise as `restart`; `restart` starts again on the next target and goes on only if the new answer begins with what was delivered. A whole answer that breaks is tried again unseen, whatever stands here.",
        |c, _| Value::word_of(&c.on_stream_break, &STREAM_BREAKS),
        |c, _, v| c.on_stream_break = v.chosen(&STREAM_BREAKS),
    ),
    Key::new(
        "streaming.guard_whole_answers",
        Kind::Switch,
        "Ask for a stream upstream even when the caller wants a whole answer, so that the clocks guard it too.",
        |c, _| Value::Switch(c.guard_whole_answers),
        |c, _, v| c.guard_whole_answers = v.on(),
    ),
    Key::new(
        "estimates.tokenizer",
        Kind::Word(&["exact"]),
        "Count the text of OpenAI's models by their own tokenizer instead of by bytes; takes a build with the cargo feature `tokenizer`.",
        |c, _| match c.estimates.tokenizer {
            Tokenizer::Off => Value::Absent,
            Tokenizer::Exact => Value::Word("exact"),
        },
        |c, _, v| {
            c.estimates.tokenizer =
                if matches!(v, Value::Word(_)) { Tokenizer::Exact } else { Tokenizer::Off };
        },
    )
    .or("off"),
    Key::new(
        "estimates.exact_bytes_max",
        count(0, 256 * 1024),
        "With the tokenizer: a request with more bytes of text than this is estimated by bytes, so that none can burn time.",
        |c, _| Value::Count(c.estimates.exact_bytes_max),
        |c, _, v| c.estimates.exact_bytes_max = v.count(),
    ),
    Key::new(
        "tls.ca_file",
        text("the path of a PEM file", not_blank),
        "Certificate authorities to trust besides the platform's.",
        |c, _| c.tls.ca_file.as_ref().map_or(Value::Unset, |path| Value::Text(path.display().to_string())),
        |c, _, v| c.tls.ca_file = Some(PathBuf::from(v.text())),
    ),
];

const PRESETS: [(&str, Preset); 2] = [("spec", Preset::Spec), ("adaptive", Preset::Adaptive)];

const SCOPES: [(&str, BreakerScope); 2] =
    [("provider", BreakerScope::Provider), ("model", BreakerScope::Model)];

const MODES: [(&str, BreakerMode); 3] = [
    ("auto", BreakerMode::Auto),
    ("forced_open", BreakerMode::ForcedOpen),
    ("metrics_only", BreakerMode::MetricsOnly),
];

const STREAM_BREAKS: [(&str, OnStreamBreak); 3] = [
    ("error", OnStreamBreak::Error),
    ("continue", OnStreamBreak::Continue),
    ("restart", OnStreamBreak::Restart),
];

/// `none` stands behind `false`, so that reading back gives the specification's word.
const JITTERS: [(&str, Jitter); 6] = [
    ("true", Jitter::Proportional),
    ("false", Jitter::None),
    ("full", Jitter::Full),
    ("equal", Jitter::Equal),
    ("decorrelated", Jitter::Decorrelated),
    ("none", Jitter::None),
];

/// What the two optional windows start from: at least 20 calls in 60 s, and half of them slow.
const MIN_CALLS: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
const SLOW_PERCENT: u32 = 50;

fn failure_rate(config: &crate::Config, part: fn(&FailureRate) -> u64) -> Value {
    Value::count_or_absent(config.breaker.failure_rate.as_ref().map(part))
}

/// Sets a common clock, and with it every provider's: their own rows come later in the table.
fn each_clock(config: &mut crate::Config, set: impl Fn(&mut crate::StreamClocks)) {
    set(&mut config.streaming);
    config.providers.iter_mut().for_each(|provider| set(&mut provider.streaming));
}

fn not_blank(text: &str) -> Result<(), String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(String::from("expected text without line breaks or control characters"));
    }
    Ok(())
}

fn store(text: &str) -> Result<(), String> {
    StoreAddress::read(text).map(drop)
}

/// Names in the store begin with it, and some of them are joined with colons and braces.
fn namespace(text: &str) -> Result<(), String> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    match text.chars().all(plain) && (1..=64).contains(&text.len()) {
        true => Ok(()),
        false => Err(String::from("expected up to 64 letters, digits, `-`, `_` and `.`")),
    }
}
