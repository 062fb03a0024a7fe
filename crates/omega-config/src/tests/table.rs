//! The table itself: every row can be written, read back, and set by each of its names.

use std::collections::BTreeSet;

use serde_json::json;

use super::load;
use crate::keys::{self, Place};
use crate::provider::ProviderSettings;
use crate::value::{Kind, Value};
use crate::{Config, Dialect, Tokenizer};

/// A configuration with one more provider and one model with limits, so that every row has a place.
fn furnished() -> Config {
    let mut config = Config::default();
    config.providers.push(ProviderSettings::compatible("my-llm", Dialect::OpenAi));
    config.keys.push(crate::callers::CallerKey::new("team-a"));
    config.aliases.insert(String::from("fast"), vec![String::from("gpt-5.2-mini")]);
    let openai = config.provider_mut("openai").unwrap();
    openai.model_limits.insert(String::from("gpt-5.2"), omega_policy::ModelLimits::default());
    config
}

const HASH: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Values of `kind` to try: both ends of every range, every word, and the word for "none".
fn samples(key: &keys::Key) -> Vec<Value> {
    let mut samples = match key.kind {
        Kind::Switch => vec![Value::Switch(true), Value::Switch(false)],
        Kind::Count { min, max } => vec![Value::Count(min), Value::Count(max)],
        Kind::Number { min, max } => vec![Value::Number(min), Value::Number(max)],
        Kind::Seconds { min, max } => [min, max]
            .map(|seconds| Value::Seconds(std::time::Duration::from_secs_f64(seconds)))
            .into_iter()
            .collect(),
        // `none` and `false` are the same jitter; the specification's word is read back.
        Kind::Word(words) => {
            words.iter().filter(|word| **word != "none").map(|word| Value::Word(word)).collect()
        }
        Kind::Text { .. } => {
            let text = match key.path.rsplit('.').next() {
                Some("base_url") => "https://llm.example.com/v1",
                Some("api_key_env") => "OMEGA_OWN_KEY",
                Some("state") => "memory",
                Some("listen") => "127.0.0.1:9000",
                Some("pool") => "openai",
                Some("hash") => HASH,
                _ => "v1",
            };
            vec![Value::Text(String::from(text))]
        }
        Kind::List { .. } if key.path == "gateway.allowed_origins" => {
            vec![Value::List(vec![String::from("https://a.example")]), Value::List(Vec::new())]
        }
        Kind::List { .. } if key.path == "gateway.allowed_hosts" => {
            vec![Value::List(vec![String::from("a.example"), String::from("[::1]")])]
        }
        Kind::List { .. } => {
            vec![Value::List(vec![String::from("a"), String::from("b*")]), Value::List(Vec::new())]
        }
        Kind::Headers => vec![Value::Headers(vec![(String::from("x-team"), "red".into())])],
    };
    if key.absent.is_some() {
        samples.push(Value::Absent);
    }
    samples
}

#[test]
fn every_row_reads_back_what_was_written_at_every_place() {
    for key in keys::all() {
        let places = key.places(&furnished());
        assert!(!places.is_empty(), "{}", key.path);
        for place in places {
            for sample in samples(key) {
                let mut config = furnished();
                // Their sections are switched on by another row.
                config.breaker.failure_rate =
                    Some(omega_policy::FailureRate { percent: 9, min_calls: 9, window: config.timeout });
                config.breaker.slow_first_token = Some(omega_policy::SlowFirstToken {
                    threshold: config.timeout,
                    percent: 9,
                    min_calls: 9,
                    window: config.timeout,
                });
                (key.set)(&mut config, &place, sample.clone());
                let back = (key.get)(&config, &place);
                assert!(back.same(&sample), "{}: wrote {sample:?}, read {back:?}", key.path_at(&place));
            }
        }
    }
}

#[test]
fn every_row_changes_nothing_but_itself() {
    for (row, key) in keys::all().enumerate() {
        // A tier sets two rows, a split limit replaces a common one, a common clock is every provider's: by design.
        let shared = ["tier", "max_input_tokens_per_minute", "max_output_tokens_per_minute"];
        let sets_others =
            shared.iter().any(|name| key.path.ends_with(name)) || key.path.starts_with("streaming.");
        if sets_others {
            continue;
        }
        let place = key.places(&furnished()).remove(0);
        let sample = samples(key).remove(0);
        let mut config = furnished();
        (key.set)(&mut config, &place, sample);
        for (other_row, other) in keys::all().enumerate() {
            for other_place in other.places(&config) {
                if (other_row, &other_place) == (row, &place) {
                    continue;
                }
                let (before, after) =
                    ((other.get)(&furnished(), &other_place), (other.get)(&config, &other_place));
                assert!(
                    before.same(&after) || other.path.starts_with("circuit_breaker.failure_rate"),
                    "{} changed {}",
                    key.path_at(&place),
                    other.path_at(&other_place)
                );
            }
        }
    }
}

#[test]
fn every_row_is_set_by_each_of_its_variables() {
    let yaml = "providers: {my-llm: {base_url: 'http://127.0.0.1:1/v1'}}\n\
                rate_limiting: {openai: {models: {gpt-5.2: {}}}}\n\
                aliases: {fast: gpt-5.2-mini}\n";
    let yaml = &format!("{yaml}keys: {{team-a: {{hash: '{HASH}'}}}}\n");
    let mut tried = 0;
    for key in keys::all() {
        for place in key.places(&furnished()) {
            for sample in samples(key) {
                let Some(text) = sample.to_variable(key.absent).filter(|text| !text.is_empty()) else {
                    continue;
                };
                for name in key.variables_at(&place) {
                    let path = key.path_at(&place);
                    // Rules between settings refuse these on their own; they have their own tests.
                    let odd = path.ends_with(".tier") && place.provider != "openai"
                        || path.ends_with(".protocol") && place.provider != "my-llm"
                        || path.ends_with(".api_version") && place.provider != "google"
                        || path.ends_with(".pool") && place.provider != "my-llm"
                        || path == "backoff.base_delay"
                        || path == "backoff.max_delay";
                    if odd {
                        continue;
                    }
                    let mut variables = vec![(name.as_str(), text.as_str())];
                    if path.starts_with("circuit_breaker.failure_rate.") && !path.ends_with("percent") {
                        variables.push(("OMEGA_CIRCUIT_BREAKER_FAILURE_RATE_PERCENT", "9"));
                    }
                    if path.starts_with("circuit_breaker.slow_first_token.")
                        && !path.ends_with("threshold_seconds")
                    {
                        variables.push(("OMEGA_CIRCUIT_BREAKER_SLOW_FIRST_TOKEN_THRESHOLD_SECONDS", "9"));
                    }
                    let loaded =
                        load(yaml, &variables).unwrap_or_else(|error| panic!("{name}={text}: {error}"));
                    let (value, origin) = super::setting(&loaded, &path);
                    assert_eq!(value, sample.to_json(key.absent), "{name}={text}");
                    assert_eq!(origin, crate::Origin::Environment(name.clone()), "{name}={text}");
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 200, "only {tried} variables were tried");
}

#[test]
fn no_two_settings_share_a_variable() {
    let config = furnished();
    let mut seen = BTreeSet::new();
    for key in keys::all() {
        for place in key.places(&config) {
            for name in key.variables_at(&place) {
                assert!(seen.insert(name.clone()), "{name} is used twice");
            }
        }
    }
}

#[test]
fn values_just_outside_every_range_are_refused() {
    for key in keys::all() {
        let (below, above) = match key.kind {
            Kind::Count { min, max } => (min as f64 - 1.0, max as f64 + 1.0),
            Kind::Number { min, max } | Kind::Seconds { min, max } => (min - 0.001, max + 0.001),
            _ => continue,
        };
        for number in [below, above, -1e300, 1e300] {
            let read = key.kind.parse(&number.to_string(), key.absent);
            assert!(read.is_err(), "{} accepted {number}", key.path);
        }
        for text in ["inf", "nan", "-inf", "1e999", "", "12x", "0x10", "--1", "1,5"] {
            assert!(key.kind.parse(text, key.absent).is_err(), "{} accepted {text}", key.path);
        }
        if let Kind::Count { .. } = key.kind {
            assert!(key.kind.parse("1.5", key.absent).is_err(), "{} accepted 1.5", key.path);
        }
    }
}

#[test]
fn the_defaults_are_the_specifications() {
    let config = Config::default();
    let expected = [
        ("openai", 60, 90_000, 60),
        ("anthropic", 50, 100_000, 10),
        ("google", 60, 120_000, 60),
        ("grok", 60, 100_000, 1),
        ("somebody-else", 60, 100_000, 6),
    ];
    for (name, requests, tokens, burst) in expected {
        let pipeline = config.pipeline(name);
        assert_eq!(pipeline.limiter.requests_per_minute, Some(requests), "{name}");
        assert_eq!(pipeline.limiter.tokens, omega_policy::TokenLimits::Total(Some(tokens)), "{name}");
        assert_eq!(pipeline.limiter.burst.as_secs(), burst, "{name}");
        assert_eq!(pipeline.limiter.max_concurrent, Some(10), "{name}");
        assert_eq!(pipeline.limiter.depth_margin.as_millis(), 500, "{name}");
        assert!(pipeline.limiter.enabled && pipeline.breaker.enabled, "{name}");
        assert_eq!(pipeline.retry.max_attempts, 3, "{name}");
        assert_eq!(pipeline.breaker, omega_policy::BreakerConfig::default(), "{name}");
        assert_eq!(pipeline.retry.backoff, omega_policy::Backoff::default(), "{name}");
        assert_eq!(pipeline.retry.budget, Some(omega_policy::BudgetConfig::default()), "{name}");
    }
    assert_eq!(
        config.providers().map(|provider| provider.name.as_str()).collect::<Vec<_>>(),
        ["openai", "anthropic", "google", "grok"]
    );
    for provider in config.providers() {
        assert_eq!(provider.max_wait.as_secs(), 30);
        let clocks = &provider.streaming;
        let seconds = [clocks.first_byte, clocks.first_content, clocks.reasoning_first_content, clocks.gap];
        assert_eq!(seconds.map(|clock| clock.as_secs()), [30, 120, 300, 60]);
    }
    assert_eq!((config.timeout.as_secs(), config.failover_wait.as_secs()), (600, 5));
}

#[test]
fn the_tokenizer_is_off_unless_it_is_asked_for_by_name() {
    let estimates = |yaml: &str| load(yaml, &[]).unwrap().config.estimates;
    assert_eq!(estimates(""), crate::Estimates { tokenizer: Tokenizer::Off, exact_bytes_max: 65_536 });
    assert_eq!(estimates("estimates: {tokenizer: off}").tokenizer, Tokenizer::Off);
    let wanted = estimates("estimates: {tokenizer: exact, exact_bytes_max: 4096}");
    assert_eq!(wanted, crate::Estimates { tokenizer: Tokenizer::Exact, exact_bytes_max: 4_096 });
    let variables = [("OMEGA_ESTIMATES_TOKENIZER", "exact")];
    assert_eq!(load("", &variables).unwrap().config.estimates.tokenizer, Tokenizer::Exact);
    for yaml in
        ["estimates: {tokenizer: on}", "estimates: {tokenizer: o200k}", "estimates: {exact_bytes_max: -1}"]
    {
        assert!(load(yaml, &[]).is_err(), "{yaml}");
    }
}

#[test]
fn a_switch_is_written_in_any_of_the_usual_ways() {
    for (text, on) in [
        ("true", true),
        ("1", true),
        ("yes", true),
        ("on", true),
        ("TRUE", true),
        ("On", true),
        ("false", false),
        ("0", false),
        ("no", false),
        ("off", false),
        ("False", false),
    ] {
        let read = Kind::Switch.parse(text, None).unwrap();
        assert_eq!(read.to_json(None), json!(on), "{text}");
        let yaml = format!("circuit_breaker: {{enabled: {}}}\n", text.to_lowercase());
        // A bare 0 or 1 is a number in YAML, and a number is no switch there.
        if !matches!(text, "0" | "1") {
            assert_eq!(load(&yaml, &[]).unwrap().config.breaker.enabled, on, "{yaml}");
        }
    }
    assert!(Kind::Switch.parse("maybe", None).is_err());
}

#[test]
fn a_place_fills_in_its_names_once() {
    let key = keys::all().find(|key| key.path.ends_with("models.<model>.max_requests_per_minute")).unwrap();
    let place = Place { provider: String::from("my-llm"), model: String::from("gpt-5.2") };
    assert_eq!(key.path_at(&place), "rate_limiting.my-llm.models.gpt-5.2.max_requests_per_minute");
    assert_eq!(
        key.variables_at(&place),
        ["OMEGA_RATE_LIMITING_MY_LLM_MODELS_GPT_5_2_MAX_REQUESTS_PER_MINUTE"]
    );
}
