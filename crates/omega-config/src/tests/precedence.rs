//! Defaults, then the file, then variables, then arguments.

use std::time::Duration;

use omega_policy::{Jitter, TokenLimits};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{load, load_with, problem, setting};
use crate::{Arguments, Config, Environment, FileChoice, OnStreamBreak, Origin, Preset, Sources};

#[test]
fn each_source_wins_over_the_weaker_ones() {
    let yaml = "resilience:\n  max_retries: 4\n";
    let from_file = Origin::File { path: "test.yaml".into(), line: 2 };
    assert_eq!(setting(&load("", &[]).unwrap(), "resilience.max_retries"), (json!(3), Origin::Default));
    assert_eq!(setting(&load(yaml, &[]).unwrap(), "resilience.max_retries"), (json!(4), from_file));
    let variables = [("OMEGA_MAX_RETRIES", "5")];
    let from_variable = Origin::Environment(String::from("OMEGA_MAX_RETRIES"));
    assert_eq!(
        setting(&load(yaml, &variables).unwrap(), "resilience.max_retries"),
        (json!(5), from_variable)
    );
    let arguments = Arguments { max_retries: Some(6), ..Arguments::default() };
    let loaded = load_with(yaml, &variables, arguments).unwrap();
    let from_argument = Origin::Argument(String::from("max_retries"));
    assert_eq!(setting(&loaded, "resilience.max_retries"), (json!(6), from_argument));
    assert_eq!(loaded.config.pipeline("openai").retry.max_attempts, 6);
}

#[test]
fn a_variable_wins_over_an_argument_nobody_gave_and_loses_to_one_given() {
    let variables = [("OMEGA_CIRCUIT_BREAKER_ENABLED", "false"), ("OMEGA_RATE_LIMITING_ENABLED", "off")];
    let loaded = load("circuit_breaker: {enabled: true}", &variables).unwrap();
    assert!(!loaded.config.breaker.enabled);
    assert!(!loaded.config.pipeline("openai").limiter.enabled);
    let arguments = Arguments {
        enable_circuit_breaker: Some(true),
        enable_rate_limiting: Some(true),
        ..Arguments::default()
    };
    let loaded = load_with("", &variables, arguments).unwrap();
    assert!(loaded.config.breaker.enabled && loaded.config.pipeline("grok").limiter.enabled);
}

#[test]
fn every_argument_arrives() {
    let arguments = Arguments {
        preferred_model: Some(String::from("claude-sonnet-5")),
        fallbacks: Some(vec![String::from("gpt-5.2")]),
        timeout: Some(Duration::from_millis(1_500)),
        base_urls: [(String::from("xai"), String::from("http://127.0.0.1:9/v1/"))].into(),
        ca_file: Some("/tmp/ca.pem".into()),
        api_keys: [(String::from("xai"), "xai-key".into()), (String::from("openai"), " sk-key\n".into())]
            .into(),
        settings: vec![(String::from("rate_limiting.grok.burst_seconds"), String::from("2.5"))],
        ..Arguments::default()
    };
    let config = load_with("fallbacks: [a, b]", &[("XAI_API_KEY", "other")], arguments).unwrap().config;
    assert_eq!(config.model, "claude-sonnet-5");
    assert_eq!(config.fallbacks, ["gpt-5.2"]);
    assert_eq!(config.timeout, Duration::from_millis(1_500));
    assert_eq!(config.tls.ca_file, Some("/tmp/ca.pem".into()));
    let grok = config.provider("grok").unwrap();
    assert_eq!(grok.base_url.as_deref(), Some("http://127.0.0.1:9/v1"));
    assert_eq!(grok.api_key.as_ref().unwrap().expose_secret(), "xai-key");
    assert_eq!(grok.limits.burst, Duration::from_millis(2_500));
    assert_eq!(config.provider("openai").unwrap().api_key.as_ref().unwrap().expose_secret(), "sk-key");
}

#[test]
fn a_wrong_argument_names_itself_and_the_nearest_setting() {
    let wrong = |arguments| problem(load_with("", &[], arguments));
    let zero = wrong(Arguments { max_retries: Some(0), ..Arguments::default() });
    assert_eq!(
        zero,
        "argument max_retries: expected a whole number from 1 to 100, found `0`; attempts are counted, the first included: 1 means no retry"
    );
    let unknown = wrong(Arguments {
        settings: vec![(String::from("backof.max_delay"), String::from("5"))],
        ..Arguments::default()
    });
    assert!(unknown.contains("Did you mean `backoff.max_delay`?"), "{unknown}");
    let provider = wrong(Arguments {
        api_keys: [(String::from("opneai"), "sk-secret".into())].into(),
        ..Arguments::default()
    });
    assert!(provider.contains("Did you mean `openai`?") && !provider.contains("sk-secret"), "{provider}");
    let endless = wrong(Arguments { timeout: Some(Duration::MAX), ..Arguments::default() });
    assert!(endless.starts_with("argument timeout: expected seconds from 0.1 to 86400"), "{endless}");
}

#[test]
fn the_specifications_partial_snippets_load_as_they_stand() {
    let lower_limits = "rate_limiting:\n  openai:\n    max_requests_per_minute: 30  # Reduce from 60\n    max_tokens_per_minute: 45000  # Reduce from 90000\n";
    let limiter = load(lower_limits, &[]).unwrap().config.pipeline("openai").limiter;
    assert_eq!((limiter.requests_per_minute, limiter.tokens), (Some(30), TokenLimits::Total(Some(45_000))));
    assert_eq!((limiter.max_concurrent, limiter.burst.as_secs()), (Some(10), 60), "what is not said stays");
    let threshold = "circuit_breaker:\n  failure_threshold: 10  # Increase from 5\n";
    let breaker = load(threshold, &[]).unwrap().config.breaker;
    assert_eq!((breaker.failure_threshold, breaker.success_threshold), (10, 2));
    let retries =
        "backoff:\n  max_delay: 30.0  # Reduce from 60.0\n\nresilience:\n  max_retries: 2  # Reduce from 3\n";
    let config = load(retries, &[]).unwrap().config;
    assert_eq!((config.backoff.max_delay.as_secs(), config.max_retries), (30, 2));
    let printed = "circuit_breaker:\n  failure_threshold: 5        # Failures before opening\n  success_threshold: 2        # Successes before closing\n  timeout_seconds: 60.0       # Time before testing recovery\n  half_open_max_calls: 3      # Max test calls in half-open\nbackoff:\n  base_delay: 1.0            # Initial delay (seconds)\n  max_delay: 60.0            # Maximum delay (seconds)\n  exponential_base: 2.0      # Multiplier (2x each retry)\n  jitter: true               # Add randomization\nrate_limiting:\n  openai:\n    max_requests_per_minute: 60      # Adjust for your tier\n    max_tokens_per_minute: 90000     # Adjust for your tier\n    max_concurrent_requests: 10\n";
    let loaded = load(printed, &[]).unwrap();
    for row in crate::keys::all() {
        for place in row.places(&loaded.config) {
            let (here, there) = ((row.get)(&loaded.config, &place), (row.get)(&Config::default(), &place));
            assert!(here.same(&there), "the specification's {} is the default", row.path);
        }
    }
}

#[test]
fn every_variable_the_specification_prints_works() {
    let loaded = load(
        "",
        &[
            ("OMEGA_CIRCUIT_BREAKER_ENABLED", "true"),
            ("OMEGA_CIRCUIT_FAILURE_THRESHOLD", "7"),
            ("OMEGA_CIRCUIT_TIMEOUT_SECONDS", "45"),
            ("OMEGA_RATE_LIMITING_ENABLED", "true"),
            ("OMEGA_OPENAI_MAX_RPM", "61"),
            ("OMEGA_OPENAI_MAX_TPM", "90001"),
            ("OMEGA_BACKOFF_BASE_DELAY", "1.5"),
            ("OMEGA_BACKOFF_MAX_DELAY", "61.0"),
            ("OMEGA_MAX_RETRIES", "4"),
            ("OMEGA_ANTHROPIC_MAX_CONCURRENT", "3"),
            ("OMEGA_GROK_MAX_RPM", "unlimited"),
        ],
    )
    .unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let config = loaded.config;
    assert_eq!((config.breaker.failure_threshold, config.breaker.timeout.as_secs()), (7, 45));
    let openai = config.pipeline("openai").limiter;
    assert_eq!((openai.requests_per_minute, openai.tokens), (Some(61), TokenLimits::Total(Some(90_001))));
    assert_eq!((config.backoff.base_delay.as_millis(), config.backoff.max_delay.as_secs()), (1_500, 61));
    assert_eq!(config.max_retries, 4);
    assert_eq!(config.pipeline("anthropic").limiter.max_concurrent, Some(3));
    assert_eq!(config.pipeline("grok").limiter.requests_per_minute, None);
}

#[test]
fn a_tier_sets_both_limits_and_explicit_numbers_override_it() {
    for (tier, requests, tokens) in [
        ("free", 60, 90_000),
        ("tier1", 500, 200_000),
        ("tier2", 5_000, 2_000_000),
        ("tier3", 10_000, 10_000_000),
    ] {
        let loaded = load(&format!("rate_limiting: {{openai: {{tier: {tier}}}}}"), &[]).unwrap();
        let limiter = loaded.config.pipeline("openai").limiter;
        assert_eq!(
            (limiter.requests_per_minute, limiter.tokens),
            (Some(requests), TokenLimits::Total(Some(tokens)))
        );
        let (value, origin) = setting(&loaded, "rate_limiting.openai.max_requests_per_minute");
        assert_eq!((value, origin), (json!(requests), Origin::Tier(tier)));
    }
    let yaml = "rate_limiting: {openai: {max_requests_per_minute: 30}}";
    let limiter = load(yaml, &[("OMEGA_RATE_LIMITING_OPENAI_TIER", "tier1")])
        .unwrap()
        .config
        .pipeline("openai")
        .limiter;
    assert_eq!((limiter.requests_per_minute, limiter.tokens), (Some(30), TokenLimits::Total(Some(200_000))));
    let other = problem(load("rate_limiting: {grok: {tier: tier1}}", &[]));
    assert!(other.contains("tiers are known for `openai` only"), "{other}");
}

#[test]
fn input_and_output_can_be_limited_apart_but_not_also_together() {
    let yaml = "rate_limiting:\n  anthropic:\n    max_input_tokens_per_minute: 30000\n    max_output_tokens_per_minute: 8000\n";
    let limiter = load(yaml, &[]).unwrap().config.pipeline("anthropic").limiter;
    assert_eq!(limiter.tokens, TokenLimits::Split { input: Some(30_000), output: Some(8_000) });
    let both = problem(load(yaml, &[("OMEGA_ANTHROPIC_MAX_TPM", "5")]));
    assert!(both.contains("OMEGA_ANTHROPIC_MAX_TPM") && both.contains("test.yaml:3"), "{both}");
}

#[test]
fn model_limits_stand_inside_the_providers() {
    let yaml = "rate_limiting:\n  openai:\n    models:\n      gpt-5.2: {max_requests_per_minute: 30, max_concurrent_requests: unlimited}\n";
    let loaded =
        load(yaml, &[("OMEGA_RATE_LIMITING_OPENAI_MODELS_GPT_5_2_MAX_TOKENS_PER_MINUTE", "45000")]).unwrap();
    let limits: Vec<_> = loaded.config.model_limits("openai").collect();
    assert_eq!(limits.len(), 1);
    assert_eq!(limits[0].0, "gpt-5.2");
    assert_eq!(limits[0].1.requests_per_minute, Some(30));
    assert_eq!(limits[0].1.tokens_per_minute, Some(45_000));
    assert_eq!(limits[0].1.max_concurrent, None);
    assert_eq!(loaded.config.model_limits("grok").count(), 0);
}

#[test]
fn a_configured_server_has_its_own_limits_clocks_and_key() {
    let yaml = "providers:\n  vllm:\n    protocol: openai\n    base_url: https://vllm.example.com/v1/\n    api_key_env: OMEGA_VLLM_KEY\n    models: [llama-*, qwen3]\n    headers: {X-Team: red}\n    streaming: {gap_seconds: 5}\nrate_limiting:\n  vllm: {max_requests_per_minute: unlimited}\nstreaming: {gap_seconds: 50, first_byte_seconds: 10}\n";
    let variables = [("OMEGA_VLLM_KEY", "vllm-secret"), ("OMEGA_VLLM_MAX_TPM", "7")];
    let loaded = load(yaml, &variables).unwrap();
    let vllm = loaded.config.provider("vllm").unwrap();
    assert_eq!(vllm.base_url.as_deref(), Some("https://vllm.example.com/v1"));
    assert_eq!(vllm.api_key.as_ref().unwrap().expose_secret(), "vllm-secret");
    assert_eq!(vllm.models, ["llama-*", "qwen3"]);
    assert_eq!(vllm.headers[0].0, "x-team");
    assert_eq!((vllm.streaming.gap.as_secs(), vllm.streaming.first_byte.as_secs()), (5, 10));
    assert_eq!(loaded.config.provider("openai").unwrap().streaming.gap.as_secs(), 50);
    let limiter = loaded.config.pipeline("vllm").limiter;
    assert_eq!((limiter.requests_per_minute, limiter.tokens), (None, TokenLimits::Total(Some(7))));
    assert!(!vllm.is_built_in());
    assert_eq!(loaded.config.providers().count(), 5);
}

#[test]
fn jitter_takes_the_specifications_switch_and_the_other_names() {
    for (text, jitter) in [
        ("true", Jitter::Proportional),
        ("false", Jitter::None),
        ("none", Jitter::None),
        ("full", Jitter::Full),
        ("equal", Jitter::Equal),
        ("decorrelated", Jitter::Decorrelated),
    ] {
        assert_eq!(load(&format!("backoff: {{jitter: {text}}}"), &[]).unwrap().config.backoff.jitter, jitter);
        assert_eq!(load("", &[("OMEGA_BACKOFF_JITTER", text)]).unwrap().config.backoff.jitter, jitter);
    }
}

#[test]
fn keys_come_from_the_usual_variables_in_their_order() {
    let key = |variables: &[(&str, &str)], provider: &str| {
        let config = load("", variables).unwrap().config;
        config.provider(provider).unwrap().api_key.as_ref().map(|key| String::from(key.expose_secret()))
    };
    assert_eq!(key(&[("OPENAI_API_KEY", "a")], "openai").as_deref(), Some("a"));
    assert_eq!(key(&[("ANTHROPIC_API_KEY", "a")], "anthropic").as_deref(), Some("a"));
    assert_eq!(key(&[("GOOGLE_API_KEY", "b")], "google").as_deref(), Some("b"));
    assert_eq!(key(&[("GOOGLE_API_KEY", "b"), ("GEMINI_API_KEY", "a")], "google").as_deref(), Some("a"));
    assert_eq!(key(&[("GROK_API_KEY", "b"), ("XAI_API_KEY", "a")], "grok").as_deref(), Some("a"));
    assert_eq!(key(&[("GROK_API_KEY", "b"), ("XAI_API_KEY", "")], "grok").as_deref(), Some("b"));
    assert_eq!(key(&[], "openai"), None);
}

#[test]
fn proxies_are_captured_and_their_passwords_stay_hidden() {
    let variables = [("HTTPS_PROXY", "http://user:hunter2@proxy:8080"), ("NO_PROXY", "localhost,.internal")];
    let loaded = load("", &variables).unwrap();
    assert_eq!(loaded.config.proxy.https.as_ref().unwrap().expose_secret(), "http://user:hunter2@proxy:8080");
    assert_eq!(loaded.config.proxy.no.as_deref(), Some("localhost,.internal"));
    let everything = format!("{loaded:?}{}{}", crate::render_explain(&loaded), crate::explain_json(&loaded));
    assert!(!everything.contains("hunter2"));
    let cgi = load("", &[("HTTP_PROXY", "http://evil"), ("REQUEST_METHOD", "GET")]).unwrap();
    assert!(cgi.config.proxy.http.is_none());
}

#[test]
fn no_sources_at_all_is_the_default_configuration() {
    let sources = Sources { file: FileChoice::None, environment: Environment::empty(), ..Sources::default() };
    let loaded = Config::load(&sources).unwrap();
    assert_eq!(loaded.file, None);
    assert!(loaded.warnings.is_empty());
    for setting in &loaded.settings {
        assert_eq!(setting.origin, Origin::Default, "{}", setting.path);
    }
}

#[test]
fn a_preset_sets_what_nobody_gave_and_what_was_given_wins_wherever_it_comes_from() {
    let loaded = load("preset: adaptive\n", &[]).unwrap();
    let breaker = &loaded.config.breaker;
    assert_eq!((breaker.timeout, breaker.queue_when_open), (Duration::from_secs(5), true));
    assert_eq!(loaded.config.max_retries, 8);
    assert!(loaded.config.providers().all(|provider| provider.limits.ease_off));
    assert!(loaded.config.pipeline("a server nobody named").limiter.pace_unknown);
    assert_eq!(loaded.warnings, Vec::<String>::new());

    let yaml = "circuit_breaker:\n  timeout_seconds: 40\n";
    let loaded = load(yaml, &[("OMEGA_PRESET", "adaptive"), ("OMEGA_MAX_RETRIES", "2")]).unwrap();
    assert_eq!(
        loaded.config.breaker.timeout,
        Duration::from_secs(40),
        "the file is weaker, and still explicit"
    );
    assert_eq!((loaded.config.max_retries, loaded.config.breaker.failure_threshold), (2, 10));
    let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", loaded.warnings) };
    assert!(warning.contains("OMEGA_PRESET") && warning.contains("and 1 more"), "{warning}");
}

#[test]
fn the_preset_spec_is_the_default() {
    let mut config = Config::default();
    config.apply(Preset::Adaptive);
    config.apply(Preset::Spec);
    let spec = Config::default();
    assert_eq!(config.breaker, spec.breaker);
    assert_eq!((config.max_retries, &config.backoff), (spec.max_retries, &spec.backoff));
    assert_eq!((&config.retry_budget, &config.streaming), (&spec.retry_budget, &spec.streaming));
    for (ours, plain) in config.providers().zip(spec.providers()) {
        assert_eq!((&ours.limits, &ours.streaming), (&plain.limits, &plain.streaming));
    }
}

#[test]
fn a_broken_stream_ends_in_an_error_unless_it_may_go_on() {
    let chosen =
        |yaml: &str, variables: &[(&str, &str)]| load(yaml, variables).unwrap().config.on_stream_break;
    assert_eq!(chosen("", &[]), OnStreamBreak::Error);
    assert_eq!(chosen("streaming: {on_stream_break: continue}", &[]), OnStreamBreak::Continue);
    let variables = [("OMEGA_STREAMING_ON_STREAM_BREAK", "restart")];
    assert_eq!(chosen("streaming: {on_stream_break: continue}", &variables), OnStreamBreak::Restart);
}

#[test]
fn a_part_given_in_code_declares_a_provider_and_wins_over_the_rest() {
    let text = r#"{"providers": {"vllm": {"base_url": "http://127.0.0.1:8000/v1", "models": ["qwen*"]},
        "openai": {"base_url": "http://127.0.0.1:1/v1"}}, "keys": {"team": {"hash": "sha256:0000000000000000000000000000000000000000000000000000000000000000"}}}"#;
    let arguments = Arguments {
        texts: vec![(String::from("providers"), String::from(text))],
        api_keys: [(String::from("vllm"), "local".into())].into(),
        ..Arguments::default()
    };
    let file = "providers:\n  vllm: {base_url: 'http://127.0.0.1:9/v1'}\nrate_limiting:\n  vllm: {max_concurrent_requests: 3}\n";
    let variables = [("OMEGA_PROVIDERS_OPENAI_BASE_URL", "http://127.0.0.1:2/v1")];
    for file in [file, ""] {
        let loaded = load_with(file, &variables, arguments.clone()).unwrap();
        let given = Origin::Argument(String::from("providers"));
        let vllm = setting(&loaded, "providers.vllm.base_url");
        assert_eq!(vllm, ("http://127.0.0.1:8000/v1".into(), given.clone()), "{file}");
        assert_eq!(setting(&loaded, "providers.openai.base_url"), ("http://127.0.0.1:1/v1".into(), given));
        assert_eq!(loaded.config.providers().filter(|provider| provider.name == "vllm").count(), 1);
        assert!(loaded.config.provider("vllm").unwrap().api_key.is_some());
        assert_eq!(loaded.config.keys.len(), 1);
    }
}

#[test]
fn what_is_wrong_in_a_part_given_in_code_is_said_once() {
    let arguments = Arguments {
        texts: vec![(String::from("providers"), String::from(r#"{"providers": {"vllm": {"base_ur": 1}}}"#))],
        ..Arguments::default()
    };
    let text = problem(load_with("", &[], arguments));
    assert!(text.starts_with("providers:1:") && text.contains("Did you mean `base_url`?"), "{text}");
}
