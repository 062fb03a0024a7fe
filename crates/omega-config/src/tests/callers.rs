//! Keys of callers, aliases of models, and pools of providers.

use omega_policy::Priority;

use super::{load, problem};
use crate::CallerKey;

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "sha256:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

#[test]
fn a_key_says_whose_it_is_and_what_it_may_use() {
    let yaml = format!(
        "keys:\n  team-a: {{hash: '{A}'}}\n  batch:\n    hash: '{B}'\n    tenant: research\n    weight: 3\n    priority: low\n    max_requests_per_minute: 10\n    max_tokens_per_minute: 1000\n    max_concurrent_requests: 2\n    models: [gpt-5.2, 'claude-*']\n    admin: true\n"
    );
    let keys = load(&yaml, &[]).unwrap().config.keys;
    assert_eq!(keys[0], CallerKey { hash: A.into(), ..CallerKey::new("team-a") });
    assert_eq!((keys[0].tenant(), keys[1].tenant()), ("team-a", "research"));
    let expected = CallerKey {
        hash: B.to_ascii_lowercase(),
        tenant: Some("research".into()),
        weight: 3,
        priority: Priority::Low,
        max_requests_per_minute: Some(10),
        max_tokens_per_minute: Some(1_000),
        max_concurrent_requests: Some(2),
        models: vec!["gpt-5.2".into(), "claude-*".into()],
        admin: true,
        ..CallerKey::new("batch")
    };
    assert_eq!(keys[1], expected);
}

#[test]
fn a_key_without_a_hash_or_with_anothers_is_refused_and_a_secret_never_repeated() {
    assert!(problem(load("keys: {team-a: {weight: 2}}", &[])).contains("omega keys new --name team-a"));
    let twice = format!("keys: {{a: {{hash: '{A}'}}, b: {{hash: '{A}'}}}}");
    assert!(problem(load(&twice, &[])).contains("have the same secret"));
    let said = problem(load("keys: {a: {hash: omk_0123456789}}", &[]));
    assert!(said.contains("and not the secret itself"), "{said}");
    for wrong in [
        "keys: {a: {hash: omk_0123456789}}",
        "keys:\n  a:\n    hash: omk_0123456789\n",
        "keys:\n  a:\n    hash:\n      omk_0123456789\n",
        "keys: {a: {hash: [omk_0123456789]}}",
        "keys: {a: {hash: 70123456789}}",
        "keys: {a: {hash: {omk_0123456789: 1}}}",
        "keys: {a: omk_0123456789}",
        "keys: {a: [omk_0123456789]}",
        "keys: omk_0123456789",
        "keys: [omk_0123456789]",
    ] {
        let said = problem(load(wrong, &[]));
        assert!(!said.contains("0123456789"), "{wrong}: {said}");
    }
    let variable =
        problem(load(&format!("keys: {{a: {{hash: '{A}'}}}}"), &[("OMEGA_KEYS_A_HASH", "omk_0123456789")]));
    assert!(variable.contains("OMEGA_KEYS_A_HASH") && !variable.contains("0123456789"), "{variable}");
    assert!(problem(load("keys: {'a b': {}}", &[])).contains("cannot name a key"));
    assert!(
        problem(load(&format!("keys: {{a: {{hash: '{A}', wieght: 2}}}}"), &[]))
            .contains("Did you mean `weight`?")
    );
}

#[test]
fn an_alias_stands_for_one_model_or_several() {
    let config = load("aliases: {fast: [gpt-5.2-mini, claude-haiku-4-5], smart: claude-opus-5-5}", &[])
        .unwrap()
        .config;
    assert_eq!(config.aliases["fast"], ["gpt-5.2-mini", "claude-haiku-4-5"]);
    assert_eq!(config.aliases["smart"], ["claude-opus-5-5"]);
}

#[test]
fn an_alias_of_nothing_or_of_an_alias_is_refused() {
    assert!(problem(load("aliases: {fast: []}", &[])).contains("stands for nothing"));
    assert!(problem(load("aliases: {a: b, b: gpt-5.2}", &[])).contains("`b`, which is an alias itself"));
    assert!(problem(load("aliases: {a: a}", &[])).contains("an alias itself"));
}

#[test]
fn a_provider_beside_another_begins_with_its_limits_and_needs_only_a_key() {
    let yaml = "providers: {anthropic-2: {protocol: anthropic, pool: anthropic, api_key_env: SECOND_KEY}}";
    let config = load(yaml, &[("SECOND_KEY", "sk-2")]).unwrap().config;
    let (second, first) = (config.provider("anthropic-2").unwrap(), config.provider("anthropic").unwrap());
    assert_eq!(second.limits, first.limits);
    assert_eq!(
        (second.pool.as_deref(), second.is_vendors(), second.is_built_in()),
        (Some("anthropic"), true, false)
    );
    assert!(second.api_key.is_some() && second.base_url.is_none());
}

#[test]
fn a_pool_of_nobody_or_of_another_protocol_is_refused() {
    let with = |said: &str| problem(load(&format!("providers: {{eu: {{{said}}}}}"), &[]));
    assert!(with("pool: opnai, base_url: 'https://a.example'").contains("no provider is called `opnai`"));
    assert!(with("pool: openai").contains("neither a key nor an address of its own"));
    assert!(with("pool: eu, base_url: 'https://a.example'").contains("stands beside another one"));
    assert!(with("protocol: openai, pool: anthropic, api_key_env: A").contains("speaks another protocol"));
    let chain = "providers: {a: {pool: openai, api_key_env: A}, b: {pool: a, base_url: 'https://b.example'}}";
    assert!(problem(load(chain, &[])).contains("`a` stands beside `openai` itself"));
}
