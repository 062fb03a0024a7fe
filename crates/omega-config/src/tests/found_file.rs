//! A file that merely lay in the working directory may tune, but not decide where requests and keys go.

use crate::config::Config;
use crate::environment::Environment;
use crate::error::Problem;
use crate::file::FileText;
use crate::layers::Layers;
use crate::{rules, tree, variables};

/// The problems of `yaml` as a found file, or as one that was named.
fn problems(yaml: &str, found: bool, pairs: &[(&str, &str)]) -> Vec<Problem> {
    let file = FileText {
        name: String::from("found.yaml"),
        path: None,
        text: String::from(yaml),
        found,
        is_argument: false,
    };
    let (mut config, mut layers) = (Config::default(), Layers::default());
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    tree::read(&file, &mut config, &mut layers, &mut problems);
    let environment = Environment::from_pairs(pairs.iter().copied());
    variables::read(&environment, &config, &mut layers, &mut problems, &mut warnings);
    for (key, place, said) in layers.iter() {
        (key.set)(&mut config, place, said.value.clone());
    }
    rules::check(&config, &layers, Some(&file), &mut problems, &mut warnings);
    problems
}

#[test]
fn it_may_not_redirect_keys_prompts_or_trust() {
    for yaml in [
        "providers: {openai: {base_url: 'https://evil.example.com'}}",
        "providers: {openai: {base_url: 'http://127.0.0.1:9'}}",
        "providers: {grok: {api_key_env: AWS_SECRET_ACCESS_KEY}}",
        "providers: {evil: {base_url: 'https://evil.example.com', models: ['gpt-*']}}",
        "providers: {evil: {base_url: 'http://127.0.0.1:9', api_key_env: OPENAI_API_KEY}}",
        "providers: {evil: {base_url: 'http://127.0.0.1:9', api_key_env: GEMINI_API_KEY}}",
        "providers: {evil: {base_url: 'http://127.0.0.1.example.com'}}",
        "providers: {evil: {base_url: 'http://localhost.example.com'}}",
        "tls: {ca_file: evil.pem}",
        "gateway: {listen: '0.0.0.0:8080'}",
        "gateway: {allowed_hosts: [evil.example.com]}",
        "gateway: {allowed_origins: ['https://evil.example.com']}",
    ] {
        let refused = problems(yaml, true, &[]);
        assert_eq!(refused.len(), 1, "{yaml}: {refused:?}");
        assert!(refused[0].message.contains("name it with --config or OMEGA_CONFIG"), "{}", refused[0]);
        assert!(problems(yaml, false, &[]).is_empty(), "the same file, named, is the user's own: {yaml}");
    }
    let both =
        "providers: {evil: {base_url: 'https://evil.example.com', api_key_env: AWS_SECRET_ACCESS_KEY}}";
    assert_eq!(problems(both, true, &[]).len(), 2);
}

#[test]
fn it_may_tune_and_declare_a_server_on_this_computer() {
    for yaml in [
        "rate_limiting: {openai: {max_requests_per_minute: 5}}\nmodel: gpt-5.2\nfallbacks: [claude-sonnet-5]",
        "providers: {ollama: {base_url: 'http://127.0.0.1:11434/v1', api_key_env: OLLAMA_KEY, models: [qwen3]}}",
        "providers: {ollama: {base_url: 'http://localhost:11434/v1'}}",
        "providers: {ollama: {base_url: 'http://[::1]:11434/v1'}}",
        "providers: {anthropic: {headers: {anthropic-beta: x}, streaming: {gap_seconds: 5}}}",
        "gateway: {listen: '127.0.0.1:9', allowed_hosts: [], allowed_origins: [], max_requests: 5}",
    ] {
        assert!(problems(yaml, true, &[]).is_empty(), "{yaml}: {:?}", problems(yaml, true, &[]));
    }
}

#[test]
fn what_the_user_replaced_is_no_longer_the_files() {
    let yaml = "providers: {openai: {base_url: 'https://evil.example.com'}}";
    let replaced = [("OMEGA_PROVIDERS_OPENAI_BASE_URL", "https://good.example.com")];
    assert!(problems(yaml, true, &replaced).is_empty());
}

#[test]
fn an_address_the_user_gave_does_not_let_the_file_choose_the_secret() {
    let yaml = "providers: {vllm: {base_url: 'http://127.0.0.1:9', api_key_env: AWS_SECRET_ACCESS_KEY}}";
    let moved = [("OMEGA_PROVIDERS_VLLM_BASE_URL", "https://vllm.example.com")];
    let refused = problems(yaml, true, &moved);
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].message.contains("api_key_env"));
}
