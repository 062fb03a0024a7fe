//! The documents agree with the code: the default file, docs/configuration.md, the schema, the explanations.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::{load, load_with};
use crate::error::Problem;
use crate::file::FileText;
use crate::keys;
use crate::layers::Layers;
use crate::{Arguments, Config, reference, tree};

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn default_file() -> String {
    fs::read_to_string(repository().join("config/resilience.yaml")).unwrap()
}

#[test]
fn the_documented_file_is_the_default_configuration() {
    let loaded = load(&default_file(), &[]).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let defaults = Config::default();
    for key in keys::all() {
        for place in key.places(&defaults) {
            let (documented, default) = ((key.get)(&loaded.config, &place), (key.get)(&defaults, &place));
            assert!(documented.same(&default), "{}: {documented:?}, not {default:?}", key.path_at(&place));
        }
    }
    assert_eq!(loaded.config.providers().count(), 4);
}

#[test]
fn the_documented_file_shows_every_setting() {
    let uncommented: String = default_file()
        .lines()
        .map(|line| {
            let indent = line.len() - line.trim_start().len();
            match line.trim_start().strip_prefix('#') {
                // `#key:` is a setting, `# text` is prose.
                Some(rest) if rest.starts_with(|c: char| c.is_ascii_alphanumeric()) => {
                    format!("{}{rest}\n", " ".repeat(indent))
                }
                _ => format!("{line}\n"),
            }
        })
        .collect();
    let (mut config, mut layers, mut problems) =
        (Config::default(), Layers::default(), Vec::<Problem>::new());
    let file = FileText {
        name: String::from("resilience.yaml"),
        path: None,
        text: uncommented,
        found: false,
        is_argument: false,
    };
    tree::read(&file, &mut config, &mut layers, &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    let shown: BTreeSet<&str> = layers.iter().map(|(key, ..)| key.path).collect();
    for key in keys::all() {
        assert!(shown.contains(key.path), "config/resilience.yaml does not show {}", key.path);
    }
    // Examples that are shown for a tier or a window must not drift from what they say of the defaults.
    for (path, default) in [
        ("circuit_breaker.failure_rate.min_calls", json!(20)),
        ("circuit_breaker.failure_rate.window_seconds", json!(60)),
        ("circuit_breaker.slow_first_token.percent", json!(50)),
    ] {
        let (key, place, said) = layers.iter().find(|(key, ..)| key.path == path).unwrap();
        assert_eq!(said.value.to_json(None), default, "{path}");
        assert_eq!((key.get)(&Config::default(), place).to_json(None), default, "{path}");
    }
}

#[test]
fn every_setting_in_the_documented_file_has_a_comment_that_says_something() {
    for key in keys::all() {
        assert!(key.meaning.len() > 15 && key.meaning.ends_with('.'), "{}: {}", key.path, key.meaning);
    }
}

/// The document with its generated tables put between their markers.
fn documentation(current: &str) -> String {
    let mut text = String::from(current);
    for (marker, table) in [("keys", reference::tables()), ("providers", reference::provider_table())] {
        let (begin, end) = (format!("<!-- {marker}: begin -->"), format!("<!-- {marker}: end -->"));
        let from = text.find(&begin).expect("the marker is there") + begin.len();
        let to = text.find(&end).expect("the marker is there");
        text.replace_range(from..to, &format!("\n{}\n", table.trim_end()));
    }
    text
}

#[test]
fn the_tables_of_the_documentation_are_the_codes() {
    let current = fs::read_to_string(repository().join("docs/configuration.md")).unwrap();
    assert_eq!(
        documentation(&current),
        current,
        "run `cargo test -p omega-config -- --ignored rewrite` and read what changed"
    );
}

#[test]
#[ignore = "rewrites the tables of docs/configuration.md and the schema's snapshot; run it after changing the table"]
fn rewrite_the_generated_documents() {
    let path = repository().join("docs/configuration.md");
    let current = fs::read_to_string(&path).unwrap();
    fs::write(&path, documentation(&current)).unwrap();
    let schema = serde_json::to_string_pretty(&crate::schema()).unwrap();
    fs::write(repository().join("config/resilience.schema.json"), format!("{schema}\n")).unwrap();
}

#[test]
fn the_examples_of_the_documentation_load() {
    for (page, least) in [("docs/configuration.md", 5), ("docs/hedging.md", 1)] {
        let text = fs::read_to_string(repository().join(page)).unwrap();
        let examples: Vec<&str> =
            text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(examples.len() >= least, "{page}: {}", examples.len());
        for example in examples {
            load(example, &[]).unwrap_or_else(|error| panic!("{page}\n{example}\n{error}"));
        }
    }
}

#[test]
fn the_schema_in_the_repository_is_the_codes() {
    let text = fs::read_to_string(repository().join("config/resilience.schema.json")).unwrap();
    let stored: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(stored, crate::schema(), "run `cargo test -p omega-config -- --ignored rewrite`");
}

/// YAML as the schema's instance.
fn instance(yaml: &str) -> serde_json::Value {
    use crate::yaml::Raw;
    fn json_of(raw: &Raw) -> serde_json::Value {
        match raw {
            Raw::Null => json!(null),
            Raw::Switch(on) => json!(on),
            Raw::Number(number) if number.fract() == 0.0 => json!(*number as i64),
            Raw::Number(number) => json!(number),
            Raw::Text(text) => json!(text),
            Raw::List(items) => items.iter().map(|item| json_of(&item.raw)).collect(),
            Raw::Map(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), json_of(&entry.value.raw))).collect()
            }
        }
    }
    json_of(&crate::yaml::parse(yaml).unwrap().raw)
}

#[test]
fn the_schema_accepts_what_loads_and_refuses_what_does_not() {
    let validator = jsonschema::draft202012::new(&crate::schema()).unwrap();
    let accepted = [
        default_file(),
        String::from("rate_limiting: {openai: {models: {gpt-5.2: {max_tokens_per_minute: unlimited}}}}"),
        String::from(
            "circuit_breaker: {failure_rate: {percent: off}}\nbackoff: {jitter: full}\nresilience:\n",
        ),
        String::from("providers: {vllm: {base_url: 'https://a.example', models: [a], headers: {x-a: b}}}"),
        String::from("fallbacks: gpt-5.2"),
    ];
    for yaml in accepted {
        let errors: Vec<String> =
            validator.iter_errors(&instance(&yaml)).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{yaml}: {errors:?}");
        assert!(load(&yaml, &[]).is_ok(), "{yaml}");
    }
    for yaml in [
        "colour: red",
        "resilience: {max_retries: 0}",
        "resilience: {max_retries: 1.5}",
        "resilience: {max_retries: '3'}",
        "rate_limiting: {enabled: 5}",
        "rate_limiting: {openai: 60}",
        "rate_limiting: {openai: {burst: 60}}",
        "rate_limiting: {openai: {max_tokens_per_minute: auto}}",
        "rate_limiting: {openai: {models: {gpt-5.2: {burst_seconds: 5}}}}",
        "backoff: {jitter: some}",
        "circuit_breaker: []",
        "fallbacks: [5]",
        "providers: {vllm: {headers: [a]}}",
    ] {
        assert!(!validator.is_valid(&instance(yaml)), "the schema accepts {yaml}");
        assert!(load(yaml, &[]).is_err(), "loading accepts {yaml}");
    }
}

#[test]
fn the_explanation_lists_every_value_with_its_origin() {
    let yaml = "rate_limiting:\n  openai:\n    tier: tier1\nbackoff: {max_delay: 30.0}\n";
    let variables = [("OMEGA_MAX_RETRIES", "4"), ("OPENAI_API_KEY", "sk-hunter2")];
    let arguments = Arguments { preferred_model: Some(String::from("grok-4")), ..Arguments::default() };
    let loaded = load_with(yaml, &variables, arguments).unwrap();
    let text = crate::render_explain(&loaded);
    let line = |path: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(path));
        line.unwrap_or_else(|| panic!("no line for {path} in\n{text}"))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(line("model"), "model grok-4 argument preferred_model");
    assert_eq!(line("resilience.max_retries"), "resilience.max_retries 4 OMEGA_MAX_RETRIES");
    assert_eq!(line("backoff.max_delay"), "backoff.max_delay 30 test.yaml:4");
    assert_eq!(
        line("rate_limiting.openai.max_requests_per_minute"),
        "rate_limiting.openai.max_requests_per_minute 500 tier tier1"
    );
    assert_eq!(line("providers.openai.api_key"), "providers.openai.api_key (set) OPENAI_API_KEY");
    assert_eq!(line("providers.grok.api_key"), "providers.grok.api_key - default");
    assert_eq!(line("fallbacks"), "fallbacks none default");
    let report = crate::explain_json(&loaded);
    let settings = report["settings"].as_array().unwrap();
    assert!(settings.contains(&json!({
        "path": "backoff.max_delay",
        "value": 30,
        "origin": {"source": "file", "file": "test.yaml", "line": 4},
    })));
    assert!(crate::render_check(&loaded).contains("openai: key from OPENAI_API_KEY"));
    for shown in [text, report.to_string(), crate::render_check(&loaded), format!("{loaded:?}")] {
        assert!(!shown.contains("hunter2"));
    }
}

#[test]
fn the_check_report_carries_problems_or_the_explanation() {
    let good = crate::check_json(&load("model: a", &[]));
    assert_eq!((&good["valid"], &good["problems"]), (&json!(true), &json!([])));
    let bad = crate::check_json(&load("modle: a", &[]));
    assert_eq!(bad["valid"], json!(false));
    assert_eq!(bad["problems"][0]["place"], json!("test.yaml:1:1"));
    assert!(bad["problems"][0]["message"].as_str().unwrap().contains("Did you mean `model`?"));
}

#[test]
fn the_explanation_keeps_each_provider_together() {
    let loaded = load("providers: {vllm: {base_url: 'http://127.0.0.1'}}", &[]).unwrap();
    let mut groups: Vec<String> = Vec::new();
    for setting in &loaded.settings {
        let group = setting.path.split('.').take(2).collect::<Vec<_>>().join(".");
        if setting.path.matches('.').count() >= 2 && groups.last() != Some(&group) {
            assert!(!groups.contains(&group), "{group} appears in two places");
            groups.push(group);
        }
    }
    assert!(groups.contains(&String::from("rate_limiting.vllm")), "{groups:?}");
}
