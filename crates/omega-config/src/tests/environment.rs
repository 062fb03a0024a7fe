//! Variables: exact names, clear refusals.

use super::{load, problem};

#[test]
fn an_unknown_variable_is_an_error_that_names_the_nearest() {
    let text = problem(load("", &[("OMEGA_MAX_RETIRES", "3")]));
    assert_eq!(text, "OMEGA_MAX_RETIRES: no setting has this name. Did you mean OMEGA_MAX_RETRIES?");
    let text = problem(load("", &[("OMEGA_XAI_MAX_RPM", "3")]));
    assert_eq!(text, "OMEGA_XAI_MAX_RPM: no setting has this name. Did you mean OMEGA_GROK_MAX_RPM?");
    let text = problem(load("", &[("OMEGA_COLOUR_OF_THE_SKY", "3")]));
    assert!(text.contains("lists every setting"), "{text}");
}

#[test]
fn variables_that_are_no_settings_are_left_alone() {
    let loaded =
        load("", &[("OMEGA_LOG", "debug"), ("OMEGA_CONFIG", "x.yaml"), ("OMEGAVERSE", "1"), ("PATH", "/")]);
    assert!(loaded.is_ok());
}

#[test]
fn a_blank_variable_is_not_set() {
    assert_eq!(load("", &[("OMEGA_MAX_RETRIES", "")]).unwrap().config.max_retries, 3);
    assert_eq!(load("", &[("OMEGA_NO_SUCH_THING", " ")]).unwrap().config.max_retries, 3);
}

#[test]
fn a_wrong_value_names_variable_value_and_range() {
    assert_eq!(
        problem(load("", &[("OMEGA_CIRCUIT_TIMEOUT_SECONDS", "soon")])),
        "OMEGA_CIRCUIT_TIMEOUT_SECONDS: expected seconds from 0.001 to 86400, found `soon`"
    );
    assert_eq!(
        problem(load("", &[("OMEGA_OPENAI_MAX_RPM", "0")])),
        "OMEGA_OPENAI_MAX_RPM: expected a whole number from 1 to 1,000,000,000,000, or `unlimited`, found `0`"
    );
    let zero = problem(load("", &[("OMEGA_MAX_RETRIES", "0")]));
    assert!(zero.ends_with("attempts are counted, the first included: 1 means no retry"), "{zero}");
    let auto = problem(load("", &[("OMEGA_OPENAI_MAX_RPM", "auto")]));
    assert!(auto.contains("`auto` is not available in this version"), "{auto}");
    let switch = problem(load("", &[("OMEGA_CIRCUIT_BREAKER_ENABLED", "maybe")]));
    assert_eq!(switch, "OMEGA_CIRCUIT_BREAKER_ENABLED: expected true or false, found `maybe`");
}

#[test]
fn a_printed_name_wins_over_the_generic_one_and_says_so() {
    let variables = [("OMEGA_MAX_RETRIES", "5"), ("OMEGA_RESILIENCE_MAX_RETRIES", "7")];
    let loaded = load("", &variables).unwrap();
    assert_eq!(loaded.config.max_retries, 5);
    assert_eq!(
        loaded.warnings,
        [
            "OMEGA_MAX_RETRIES and OMEGA_RESILIENCE_MAX_RETRIES both set `resilience.max_retries`; OMEGA_MAX_RETRIES wins"
        ]
    );
    let same = load(
        "",
        &[("OMEGA_OPENAI_MAX_RPM", "5"), ("OMEGA_RATE_LIMITING_OPENAI_MAX_REQUESTS_PER_MINUTE", "5")],
    );
    assert!(same.unwrap().warnings.is_empty(), "both say the same");
}

#[test]
fn lists_are_separated_by_commas() {
    let config = load("", &[("OMEGA_FALLBACKS", "claude-sonnet-5, gemini-3-pro,")]).unwrap().config;
    assert_eq!(config.fallbacks, ["claude-sonnet-5", "gemini-3-pro"]);
}

#[test]
fn maps_come_only_from_the_file() {
    let headers = load("", &[("OMEGA_PROVIDERS_OPENAI_HEADERS", "a: b")]);
    assert!(problem(headers).contains("no setting has this name"));
    let provider = load("", &[("OMEGA_PROVIDERS_VLLM_BASE_URL", "http://127.0.0.1/v1")]);
    assert!(problem(provider).starts_with("OMEGA_PROVIDERS_VLLM_BASE_URL: no setting has this name"));
}

#[test]
fn a_variable_with_two_meanings_is_refused_only_when_it_is_used() {
    let yaml = "rate_limiting: {openai: {models: {gpt-5.2: {}, gpt-5_2: {}}}}";
    assert!(load(yaml, &[]).is_ok());
    let text =
        problem(load(yaml, &[("OMEGA_RATE_LIMITING_OPENAI_MODELS_GPT_5_2_MAX_TOKENS_PER_MINUTE", "5")]));
    assert!(text.contains("this could be"), "{text}");
}

#[test]
fn all_wrong_variables_are_reported_together() {
    let error =
        load("", &[("OMEGA_MAX_RETRIES", "0"), ("OMEGA_MODE", "x"), ("OMEGA_BACKOFF_JITTER", "some")]);
    assert_eq!(error.unwrap_err().problems.len(), 3);
}

#[test]
fn a_key_with_blanks_inside_is_refused_without_being_shown() {
    let text = problem(load("", &[("OPENAI_API_KEY", "sk-first\nsk-second")]));
    assert!(text.starts_with("OPENAI_API_KEY: ") && !text.contains("sk-"), "{text}");
}

#[test]
fn a_provider_without_its_named_key_is_a_warning() {
    let yaml = "providers: {vllm: {base_url: 'https://vllm.example.com', api_key_env: VLLM_KEY}}";
    assert_eq!(load(yaml, &[]).unwrap().warnings, ["`vllm` has no key: VLLM_KEY is not set"]);
}

#[test]
fn keys_on_unusual_ways_are_warned_about() {
    let yaml = "providers: {vllm: {base_url: 'http://vllm.example.com', api_key_env: OPENAI_API_KEY}}";
    let warnings = load(yaml, &[("OPENAI_API_KEY", "sk-secret")]).unwrap().warnings;
    assert_eq!(
        warnings,
        [
            "the key of `vllm` travels unencrypted to http://vllm.example.com",
            "the key of `openai` is sent to http://vllm.example.com as that of `vllm`",
        ]
    );
}
