//! What a wrong file is told.

use std::fs;
use std::path::Path;

use super::{Directory, load, problem};
use crate::{Arguments, Config, ConfigError, Environment, FileChoice, Loaded, Sources};

#[test]
fn an_unknown_key_names_its_place_and_the_nearest_valid_one() {
    let text = problem(load("circuit_breaker:\n  failure_treshold: 10\n", &[]));
    assert_eq!(
        text,
        "test.yaml:2:3: unknown key `circuit_breaker.failure_treshold`. Did you mean `failure_threshold`?\n  |\n2 |   failure_treshold: …\n  |   ^^^^^^^^^^^^^^^^"
    );
}

#[test]
fn a_key_in_the_wrong_section_is_told_where_it_belongs() {
    let text = problem(load("max_retries: 3\n", &[]));
    assert!(
        text.starts_with("test.yaml:1:1: unknown key `max_retries`. Did you mean `resilience.max_retries`?")
    );
    let text = problem(load("backoff: {colour: red}\n", &[]));
    assert!(text.contains("Known here: base_delay, max_delay, exponential_base, jitter"), "{text}");
}

#[test]
fn a_wrong_value_is_underlined_and_its_range_named() {
    let text = problem(load("rate_limiting:\n  openai:\n    max_requests_per_minute: 0\n", &[]));
    assert_eq!(
        text,
        "test.yaml:3:30: `rate_limiting.openai.max_requests_per_minute`: expected a whole number from 1 to 1,000,000,000,000, or `unlimited`, found `0`\n  |\n3 |     max_requests_per_minute: 0\n  |                              ^"
    );
    for (yaml, part) in [
        ("resilience: {max_retries: 0}", "1 means no retry"),
        ("resilience: {max_retries: 2.5}", "found `2.5`"),
        ("resilience: {max_retries: '3'}", "found `3`"),
        ("resilience: {max_retries: [3]}", "found a list"),
        ("resilience: {max_retries: {a: 3}}", "found a section"),
        ("circuit_breaker: {open_growth: 11}", "a number from 1 to 10"),
        ("circuit_breaker: {timeout_seconds: -1}", "seconds from 0.001 to 86400"),
        ("circuit_breaker: {mode: half}", "`auto`, `forced_open` or `metrics_only`"),
        ("circuit_breaker: {failure_rate: {percent: 101}}", "or `off`"),
        ("streaming: {on_stream_break: resume}", "expected `error`, `continue` or `restart`, found `resume`"),
        ("rate_limiting: {openai: {max_tokens_per_minute: auto}}", "`auto` is not available in this version"),
        ("model: 5", "put it in quotes"),
        ("fallbacks: [gpt-5.2, 4]", "test.yaml:1:22: `fallbacks`: expected a name, found `4`"),
        ("rate_limiting: 5", "`rate_limiting` is a section"),
        ("rate_limiting: {openai: 60}", "`openai` is a section"),
        ("- a", "expected sections"),
        ("state: 'mysql://:hunter2@store'", "or `redis://host:port`, found `mysql://`"),
        ("state: {url: 'redis:hunter2'}", "or `redis://host:port`, found `redis`"),
        ("state: {url: memory, timeout_seconds: 9}", "seconds from 0.001 to 1"),
        ("state: {namespace: 'a b'}", "letters, digits"),
        ("state: [a]", "found a list"),
        ("providers: {openai: {api_version: 'a b'}}", "expected a version"),
    ] {
        let text = problem(load(yaml, &[]));
        assert!(text.contains(part) && !text.contains("hunter2"), "{yaml}: {text}");
    }
}

#[test]
fn every_problem_of_a_file_is_reported_at_once() {
    let yaml = "colour: red\nresilience: {max_retries: 0}\nbackof: {}\nrate_limiting: {opneai: {}, grok: {burst_seconds: 0}}\n";
    let error = load(yaml, &[]).unwrap_err();
    let places: Vec<&str> = error.problems.iter().map(|problem| problem.place.as_str()).collect();
    assert_eq!(
        places,
        ["test.yaml:1:1", "test.yaml:2:27", "test.yaml:3:1", "test.yaml:4:17", "test.yaml:4:51"]
    );
}

#[test]
fn an_unknown_provider_hears_which_there_are() {
    let text = problem(load("rate_limiting: {opnai: {max_queue: 5}}", &[]));
    assert!(text.contains("unknown provider `opnai`. Did you mean `openai`?"), "{text}");
    let text = problem(load("rate_limiting: {xai: {max_queue: 5}}", &[]));
    assert!(text.contains("unknown provider `xai`. Did you mean `grok`?"), "{text}");
    let text = problem(load("rate_limiting: {zzzzzz: {max_queue: 5}}", &[]));
    assert!(text.contains("Known: openai, anthropic, google, grok"), "{text}");
    let text = problem(load("rate_limiting: {enable: true}", &[]));
    assert!(text.contains("Did you mean `enabled`?"), "{text}");
}

#[test]
fn a_provider_needs_a_fitting_name_and_an_address() {
    for (name, part) in [
        ("enabled", "cannot be called `enabled`"),
        ("xai", "built in under the name `grok`"),
        ("Gemini Pro", "lower-case letters"),
        ("a.b", "lower-case letters"),
    ] {
        let text = problem(load(&format!("providers: {{'{name}': {{base_url: 'http://127.0.0.1'}}}}"), &[]));
        assert!(text.contains(part), "{text}");
    }
    let text = problem(load("providers: {vllm: {models: [a]}}", &[]));
    assert_eq!(text, "test.yaml: provider `vllm` needs an address: set `providers.vllm.base_url`");
    let text = problem(load("providers: {openai: {protocol: anthropic}}", &[]));
    assert!(text.contains("speaks its own protocol"), "{text}");
    let url = "base_url: 'http://127.0.0.1'";
    let text = problem(load(&format!("providers: {{my-llm: {{{url}}}, my_llm: {{{url}}}}}"), &[]));
    assert!(text.contains("would share the variables of MY_LLM"), "{text}");
}

#[test]
fn an_address_must_be_one_that_can_be_printed_and_extended() {
    for (url, part) in [
        ("https://user:hunter2@example.com", "must not carry a user name or password"),
        ("https://example.com/v1?key=hunter2", "must not carry a query"),
        ("ftp://example.com", "begins with `https://`"),
        ("example.com", "begins with `https://`"),
        ("not an address", "expected an address"),
    ] {
        let text = problem(load(&format!("providers:\n  openai:\n    base_url: {url}\n"), &[]));
        assert!(text.contains(part) && !text.contains("hunter2"), "{url}: {text}");
        let text = problem(load("", &[("OMEGA_PROVIDERS_OPENAI_BASE_URL", url)]));
        assert!(text.contains(part) && !text.contains("hunter2"), "{url}: {text}");
    }
}

#[test]
fn a_key_in_the_file_is_refused_and_never_repeated() {
    for yaml in [
        "providers:\n  openai:\n    api_key: sk-hunter2\n",
        "providers:\n  openai: {api_key: sk-hunter2}\n",
        "openai_api_key: sk-hunter2\n",
        "providers:\n  openai:\n    api_key_env: sk-hunter2\n",
        "providers:\n  openai:\n    headers: {authorization: Bearer hunter2}\n",
        "providers:\n  openai:\n    headers:\n      x-odd: \"hunter2\\n\"\n",
        "providers:\n  openai:\n    headers: [hunter2]\n",
        "providers:\n  openai:\n    api_key: \"sk-hunter2\n",
        "providers: {openai: {headers: {x-a: b, x-api-key: hunter2}}}",
    ] {
        let error = load(yaml, &[]).expect_err(yaml);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{yaml}: {error}");
    }
    let text = problem(load("providers:\n  openai:\n    api_key: sk-1\n", &[]));
    assert!(text.contains("Keys never stand in a file: name their variable in `api_key_env`"), "{text}");
}

#[test]
fn an_api_version_is_one_the_protocol_has() {
    for (provider, version) in
        [("anthropic", "2023-06-01"), ("anthropic", "2026-10-21"), ("google", "v1beta")]
    {
        let loaded = load(&format!("providers: {{{provider}: {{api_version: '{version}'}}}}"), &[]).unwrap();
        assert_eq!(loaded.config.provider(provider).unwrap().api_version.as_deref(), Some(version));
    }
    for (provider, part) in [
        ("anthropic", "`2023-06-01` and `2026-10-21`"),
        ("google", "`v1beta`"),
        ("openai", "has no versions"),
    ] {
        let text = problem(load(&format!("providers: {{{provider}: {{api_version: v9}}}}"), &[]));
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn contradictions_name_both_sides() {
    let text = problem(load("backoff: {base_delay: 5, max_delay: 2}", &[]));
    assert!(text.contains("`backoff.max_delay` (2 s) is below `backoff.base_delay` (5 s)"), "{text}");
    let text = problem(load("", &[("OMEGA_BACKOFF_BASE_DELAY", "61")]));
    assert!(text.starts_with("OMEGA_BACKOFF_BASE_DELAY: "), "{text}");
    assert!(load("backoff: {base_delay: 2, max_delay: 2}", &[]).is_ok());
}

#[test]
fn settings_without_effect_are_warned_about() {
    let loaded = load("circuit_breaker: {failure_rate: {min_calls: 5}}", &[]).unwrap();
    assert_eq!(
        loaded.warnings,
        [
            "`circuit_breaker.failure_rate.min_calls` (test.yaml:1) has no effect while `circuit_breaker.failure_rate.percent` is off"
        ]
    );
    let loaded = load("estimates: {exact_bytes_max: 100}", &[]).unwrap();
    assert_eq!(
        loaded.warnings,
        ["`estimates.exact_bytes_max` (test.yaml:1) has no effect while `estimates.tokenizer` is off"]
    );
    let loaded = load("circuit_breaker: {failure_rate: {percent: 90, min_calls: 5}}", &[]).unwrap();
    assert!(loaded.warnings.is_empty());
    let rate = loaded.config.breaker.failure_rate.unwrap();
    assert_eq!((rate.percent, rate.min_calls, rate.window.as_secs()), (90, 5, 60));
}

#[test]
fn sections_and_keys_without_a_value_count_as_not_given() {
    let yaml = "model:\nresilience:\nrate_limiting:\n  openai:\n    models:\n  grok: {max_queue: }\nproviders:\n  vllm:\n";
    let loaded = load(yaml, &[]).unwrap();
    assert_eq!(loaded.config.model, "gpt-5.2");
    assert_eq!(loaded.config.providers().count(), 4);
}

#[test]
fn broken_yaml_names_its_line() {
    let text = problem(load("model: gpt\nresilience: [1, 2\nstate: memory\n", &[]));
    assert!(text.starts_with("test.yaml:"), "{text}");
    let text = problem(load("model: a\nstate: memory\nmodel: b\n", &[]));
    assert!(text.starts_with("test.yaml:3:1: ") && text.contains("model"), "{text}");
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_key() {
    assert_eq!(load("\u{feff}model: a\n", &[]).unwrap().config.model, "a");
}

#[test]
fn control_characters_never_reach_a_terminal() {
    for yaml in [
        "rate_limiting: {openai: {models: {\"a\\e[2J\": {max_concurrent_requests: 1}}}}",
        "\"a\\e[2J\": 1",
        "model: \"a\\e[2J\"",
        "fallbacks: [\"a\\e[2J\"]",
        "state: \"a\\e[2J\"",
        "rate_limiting: {\"a\\e[2J\": {}}",
    ] {
        let text = load(yaml, &[]).expect_err(yaml).to_string();
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}

fn load_file(path: &Path) -> Result<Loaded, ConfigError> {
    Config::load(&Sources {
        file: FileChoice::Explicit(path.to_path_buf()),
        environment: Environment::empty(),
        arguments: Arguments::default(),
    })
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let own = Directory::new("unreadable");
    let directory = own.path();
    let missing = problem(load_file(&directory.join("missing.yaml")));
    assert!(missing.ends_with("missing.yaml: there is no such file"), "{missing}");
    let is_directory = problem(load_file(directory));
    assert!(is_directory.contains("this is a directory"), "{is_directory}");
    fs::write(directory.join("latin1.yaml"), b"model: a\n# caf\xe9\n").unwrap();
    let latin1 = problem(load_file(&directory.join("latin1.yaml")));
    assert!(latin1.contains("line 2 is not valid UTF-8"), "{latin1}");
    fs::write(directory.join("huge.yaml"), vec![b'#'; 1024 * 1024 + 1]).unwrap();
    let huge = problem(load_file(&directory.join("huge.yaml")));
    assert!(huge.contains("larger than 1024 KiB"), "{huge}");
}

#[test]
fn the_file_named_by_the_variable_is_read_and_must_exist() {
    let own = Directory::new("named");
    let path = own.path().join("omega.yaml");
    fs::write(&path, "model: from-variable\n").unwrap();
    let search = |value: &str| {
        Config::load(&Sources {
            file: FileChoice::Search,
            environment: Environment::from_pairs([("OMEGA_CONFIG", value)]),
            arguments: Arguments::default(),
        })
    };
    let loaded = search(path.to_str().unwrap()).unwrap();
    assert_eq!(loaded.config.model, "from-variable");
    assert_eq!((loaded.file, loaded.file_found_by_itself), (Some(path), false));
    let missing = problem(search("/no/such/file.yaml"));
    assert_eq!(missing, "/no/such/file.yaml: there is no such file (named by OMEGA_CONFIG)");
}
