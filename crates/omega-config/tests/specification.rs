//! `docs/specification.md` against the code: every default it prints is the default, every snippet of YAML loads as it
//! stands, every variable is heeded. Nothing here repeats a number of the specification: the document is the test.

use std::time::Duration;

use omega_config::{Arguments, Config, Environment, FileChoice, Sources};
use omega_policy::{Jitter, LimiterConfig, TokenLimits};

const SPECIFICATION: &str = include_str!("../../../docs/specification.md");
const TROUBLESHOOTING: &str = include_str!("../../../docs/troubleshooting.md");
const MIGRATION: &str = include_str!("../../../docs/migration.md");

/// The fenced blocks of `document` in this language, in order.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let found: Vec<String> = document
        .split(&fence)
        .skip(1)
        .map(|rest| rest.split("```").next().expect("split yields at least one part").to_owned())
        .collect();
    assert!(!found.is_empty(), "no {language} block was found: has the document moved?");
    found
}

fn load(yaml: &str, variables: &[(&str, &str)]) -> Config {
    let sources = Sources {
        file: FileChoice::Text { name: "snippet.yaml".to_owned(), yaml: yaml.to_owned() },
        environment: Environment::from_pairs(variables.iter().copied()),
        arguments: Arguments::default(),
    };
    match Config::load(&sources) {
        Ok(loaded) => loaded.config,
        Err(error) => panic!("{yaml}\n{variables:?}\nis refused:\n{error}"),
    }
}

/// Everything that decides, for one provider, as one comparable text.
fn effective(config: &Config, provider: &str) -> String {
    format!("{:?}", config.pipeline(provider))
}

#[test]
fn the_printed_configuration_is_the_default() {
    let default = load("", &[]);
    let mut compared = 0;
    for snippet in blocks(SPECIFICATION, "yaml").iter().filter(|snippet| !snippet.contains("Reduce from")) {
        if snippet.contains("Increase from") {
            continue;
        }
        let loaded = load(snippet, &[]);
        for provider in ["openai", "anthropic", "google", "grok"] {
            assert_eq!(effective(&loaded, provider), effective(&default, provider), "{snippet}");
        }
        compared += 1;
    }
    assert_eq!(compared, 3, "circuit breaker, backoff, rate limiting");
}

#[test]
fn every_printed_snippet_loads_as_it_stands() {
    for document in [SPECIFICATION, TROUBLESHOOTING] {
        for snippet in blocks(document, "yaml") {
            load(&snippet, &[]);
        }
    }
}

#[test]
fn the_troubleshooting_snippets_change_what_they_say() {
    let all = blocks(SPECIFICATION, "yaml");
    let find =
        |text: &str| all.iter().find(|snippet| snippet.contains(text)).expect("the snippet is printed");
    let limits = load(find("Reduce from 90000"), &[]).pipeline("openai").limiter;
    assert_eq!((limits.requests_per_minute, limits.tokens), (Some(30), TokenLimits::Total(Some(45_000))));
    assert_eq!(load(find("failure_threshold: 10"), &[]).pipeline("openai").breaker.failure_threshold, 10);
    let retry = load(find("max_retries: 2"), &[]).pipeline("openai").retry;
    assert_eq!((retry.max_attempts, retry.backoff.max_delay), (2, Duration::from_secs(30)));
}

#[test]
fn the_printed_variables_are_the_defaults_and_each_is_heeded() {
    let default = load("", &[]);
    let block = blocks(SPECIFICATION, "bash").concat();
    let exports: Vec<(&str, &str)> = block
        .lines()
        .filter_map(|line| line.strip_prefix("export "))
        .map(|line| line.split_once('=').expect("export NAME=value"))
        .collect();
    assert_eq!(exports.len(), 9, "{exports:?}");
    let loaded = load("", &exports);
    for provider in ["openai", "anthropic", "google", "grok"] {
        assert_eq!(effective(&loaded, provider), effective(&default, provider));
    }
    for (name, value) in exports {
        let other = match value {
            "true" => "false".to_owned(),
            number => (number.parse::<f64>().expect("a number or a switch") + 1.0).to_string(),
        };
        let changed = load("", &[(name, &other)]);
        assert_ne!(
            effective(&changed, "openai"),
            effective(&default, "openai"),
            "{name}={other} changed nothing"
        );
    }
}

#[test]
fn the_printed_tiers_are_the_presets() {
    // "- **Tier 2**: 5000 RPM, 2M TPM"
    let number = |text: &str| -> u64 {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let scale = if text.contains('M') {
            1_000_000
        } else if text.contains('k') {
            1_000
        } else {
            1
        };
        digits.parse::<u64>().expect("a number") * scale
    };
    let mut tiers = 0;
    for line in SPECIFICATION.lines().filter(|line| line.starts_with("- **") && line.contains(" RPM, ")) {
        let (name, limits) = line.trim_start_matches("- **").split_once("**: ").expect("name and limits");
        let (requests, tokens) = limits.split_once(" RPM, ").expect("requests and tokens");
        let tier = if name == "Free Tier" { "free".to_owned() } else { name.to_lowercase().replace(' ', "") };
        let config = load(&format!("rate_limiting: {{openai: {{tier: {tier}}}}}"), &[]);
        let limits = config.pipeline("openai").limiter;
        assert_eq!(limits.requests_per_minute, Some(number(requests)), "{line}");
        assert_eq!(
            limits.tokens,
            TokenLimits::Total(Some(number(tokens.trim_end_matches(" TPM")))),
            "{line}"
        );
        tiers += 1;
    }
    assert_eq!(tiers, 4);
}

#[test]
fn the_drawn_limits_are_the_defaults() {
    // "│  ├─ anthropic [8/50 RPM, 6k/100k TPM]                  │"
    let default = load("", &[]);
    let mut drawn = 0;
    for line in SPECIFICATION.lines().filter(|line| line.contains(" RPM, ") && line.starts_with('│')) {
        let (provider, rest) =
            line.split("─ ").nth(1).and_then(|rest| rest.split_once('[')).expect("name [limits]");
        let mut limits = rest.split(']').next().expect("a bracket").split(", ");
        let mut limit =
            || limits.next().and_then(|part| part.split('/').nth(1)).expect("used/limit").to_owned();
        let requests: u64 = limit().trim_end_matches(" RPM").parse().expect("a number");
        let tokens: u64 = limit().trim_end_matches("k TPM").parse().expect("thousands");
        let LimiterConfig { requests_per_minute, tokens: token_limits, max_concurrent, .. } =
            default.pipeline(provider.trim()).limiter;
        assert_eq!(requests_per_minute, Some(requests), "{line}");
        assert_eq!(token_limits, TokenLimits::Total(Some(tokens * 1_000)), "{line}");
        assert_eq!(max_concurrent, Some(10), "{line}");
        drawn += 1;
    }
    assert_eq!(drawn, 4);
}

#[test]
fn jitter_true_is_the_default_and_false_is_none() {
    assert_eq!(
        load("backoff: {jitter: true}", &[]).pipeline("openai").retry.backoff.jitter,
        Jitter::Proportional
    );
    assert_eq!(load("backoff: {jitter: false}", &[]).pipeline("openai").retry.backoff.jitter, Jitter::None);
}

#[test]
fn settings_named_in_the_migration_guide_exist() {
    for snippet in
        ["backoff: {base_delay: 1.0, max_delay: 60.0, jitter: full}", "providers: {vllm: {protocol: openai"]
    {
        assert!(MIGRATION.contains(snippet), "the guide no longer shows {snippet}");
    }
    load("backoff: {base_delay: 1.0, max_delay: 60.0, jitter: full}", &[]);
    load(
        "providers: {vllm: {protocol: openai, base_url: \"http://localhost:8000/v1\", api_key_env: VLLM_API_KEY}}",
        &[],
    );
}
