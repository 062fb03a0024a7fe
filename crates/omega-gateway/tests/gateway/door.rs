//! Who is let in, and what each caller may use.

use std::time::Duration;

use http::StatusCode;
use omega_emulator::EmulatorConfig;
use omega_gateway::{GatewayError, GatewayOptions, KeySecret, new_key};
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::house::{House, QUICK, chat, sources, start};

/// A configuration with these keys: a name, and what it is told beside its hash.
fn keys(told: &[(&str, &str)]) -> (String, Vec<String>) {
    let made: Vec<KeySecret> = told.iter().map(|_| new_key().expect("random bytes")).collect();
    let lines = told.iter().zip(&made).map(|((name, said), key)| {
        format!("  {name}: {{hash: '{}'{}{said}}}\n", key.hash, if said.is_empty() { "" } else { ", " })
    });
    let yaml = format!("\nkeys:\n{}", lines.collect::<String>());
    (yaml, made.iter().map(|key| key.secret.expose_secret().to_owned()).collect())
}

#[tokio::test]
async fn without_keys_pages_and_strange_names_are_kept_out() {
    let house =
        House::new("\ngateway: {allowed_origins: ['https://chat.example.com'], allowed_hosts: [llm.lan]}")
            .await;
    let hello = || chat("gpt-5.2", "hi");
    let path = "/v1/chat/completions";
    for (name, value, expected) in [
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("origin", "https://chat.example.com", 200),
        ("host", "evil.example", 403),
        ("host", "127.0.0.1.evil.example:80", 403),
        ("host", "llm.lan:8080", 200),
        ("host", "localhost:1234", 200),
        ("host", "[::1]:8080", 200),
    ] {
        let answer = house.post_as(path, &[(name, value)], hello()).await;
        assert_eq!(answer.status.as_u16(), expected, "{name}: {value}: {}", answer.text());
    }
    let allowed = house.post_as(path, &[("origin", "https://chat.example.com")], hello()).await;
    assert_eq!(allowed.headers["access-control-allow-origin"], "https://chat.example.com");
    let plain = house.post(path, hello()).await;
    assert!(!plain.headers.contains_key("access-control-allow-origin"));
    let asked = "OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\norigin: https://chat.example.com\r\n\
        access-control-request-method: POST\r\naccess-control-request-headers: authorization\r\nconnection: close\r\n\r\n";
    let said = house.raw(asked.as_bytes()).await;
    assert!(
        said.starts_with("HTTP/1.1 204") && said.contains("access-control-allow-headers: authorization"),
        "{said}"
    );
    let said = house.raw(asked.replace("chat.example", "evil.example").as_bytes()).await;
    assert!(!said.contains("access-control-allow"), "{said}");
}

#[tokio::test]
async fn every_sdk_finds_its_own_way_to_send_a_key() {
    let (yaml, secrets) = keys(&[("team-a", "")]);
    let house = House::new(&yaml).await;
    let path = "/v1/chat/completions";
    let bearer = format!("Bearer {}", secrets[0]);
    for header in
        [("authorization", bearer.as_str()), ("x-api-key", &secrets[0]), ("x-goog-api-key", &secrets[0])]
    {
        let answer = house.post_as(path, &[header], chat("gpt-5.2", "hi")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let with_query = format!("{path}?key={}", secrets[0]);
    assert_eq!(house.post(&with_query, chat("gpt-5.2", "hi")).await.status, 200);
    for header in [("authorization", "Bearer wrong"), ("x-unused", "x")] {
        let answer = house.post_as(path, &[header], chat("gpt-5.2", "hi")).await;
        assert_eq!(answer.status, 401, "{}", answer.text());
        assert!(answer.json()["error"]["code"].as_str().expect("a code").ends_with("_api_key"));
    }
    assert_eq!(house.seen().len(), 4);
    let auth = &house.seen()[0].headers.auth;
    assert!(!format!("{auth:?}").contains("omk_"), "the gateway's own key stays here: {auth:?}");
}

#[tokio::test]
async fn a_key_has_limits_and_models_of_its_own() {
    let (yaml, secrets) = keys(&[
        ("slow", "max_requests_per_minute: 2"),
        ("narrow", "models: [gpt-5.2, 'claude-haiku-*']"),
        ("free", ""),
    ]);
    let house = House::new(&yaml).await;
    let ask = async |key: &str, model: &str| {
        house.post_as("/v1/chat/completions", &[("x-api-key", key)], chat(model, "hi")).await
    };
    assert_eq!(ask(&secrets[0], "gpt-5.2").await.status, 200);
    assert_eq!(ask(&secrets[0], "gpt-5.2").await.status, 200);
    // The third turn comes in half a minute, which is longer than anybody here waits.
    let waited = tokio::time::timeout(Duration::from_millis(300), ask(&secrets[0], "gpt-5.2")).await;
    assert!(waited.is_err(), "it waits its turn");
    assert_eq!(ask(&secrets[2], "gpt-5.2").await.status, 200, "and nobody else does");
    house.settled().await;
    assert_eq!(ask(&secrets[1], "claude-haiku-4-5").await.status, 200);
    let refused = ask(&secrets[1], "claude-opus-5-5").await;
    assert_eq!(
        (refused.status, refused.json()["error"]["code"].as_str()),
        (StatusCode::FORBIDDEN, Some("model_not_allowed"))
    );
    let mut sly = chat("gpt-5.2+overloaded", "hi");
    sly["fallbacks"] = json!(["claude-opus-5-5"]);
    let key = ("x-api-key", secrets[1].as_str());
    let answer = house.post_as("/v1/chat/completions", &[key], sly).await;
    assert_eq!(answer.status, 403, "a fallback is a model too");
    let listed = house.get(&format!("/v1/models?key={}", secrets[1])).await.json();
    let ids: Vec<&str> =
        listed["data"].as_array().expect("models").iter().filter_map(|model| model["id"].as_str()).collect();
    assert_eq!(ids, ["gpt-5.2"]);
}

#[tokio::test]
async fn more_than_a_key_may_use_is_told_when_to_come_back() {
    let (yaml, secrets) = keys(&[("tiny", "max_tokens_per_minute: 100")]);
    let house = House::new(&yaml).await;
    let large = chat("gpt-5.2", &"many words ".repeat(400));
    let answer = house.post_as("/v1/chat/completions", &[("x-api-key", &secrets[0])], large).await;
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!(answer.text().contains("key tiny"), "{}", answer.text());
    assert!(house.seen().is_empty());
}

#[tokio::test]
async fn statistics_are_the_operators() {
    let (yaml, secrets) = keys(&[("team-a", ""), ("ops", "admin: true")]);
    let options = GatewayOptions { listen: "0.0.0.0:0".parse().ok(), ..GatewayOptions::default() };
    let house = House::with(EmulatorConfig::default(), &format!("{QUICK}{yaml}"), options).await;
    for path in ["/stats", "/metrics"] {
        assert_eq!(house.get(path).await.status, 401, "{path}");
        assert_eq!(house.get(&format!("{path}?key={}", secrets[0])).await.status, 403, "{path}");
        assert_eq!(house.get(&format!("{path}?key={}", secrets[1])).await.status, 200, "{path}");
    }
    for path in ["/health", "/ready"] {
        assert_eq!(house.get(path).await.status, 200, "{path}: a balancer has no key");
    }
    assert_eq!(house.post(&format!("/reload?key={}", secrets[0]), json!({})).await.status, 403);
}

#[tokio::test]
async fn nobody_listens_to_the_world_without_keys_unless_told_to() {
    let house = House::new("").await;
    let world = || GatewayOptions { listen: "0.0.0.0:0".parse().ok(), ..GatewayOptions::default() };
    let refused = start(&sources(&house.emulator, QUICK), world()).await.expect_err("unprotected");
    assert!(
        matches!(refused, GatewayError::Unprotected { .. }) && refused.to_string().contains("omega keys new"),
        "{refused}"
    );
    let forced = GatewayOptions { allow_anyone: true, ..world() };
    start(&sources(&house.emulator, QUICK), forced).await.expect("it was told to").shutdown().await;
}

#[tokio::test]
async fn the_callers_own_key_is_passed_on_only_where_it_was_allowed_and_meant() {
    let mut config = EmulatorConfig::default();
    config.providers.openai.keys = vec!["sk-mine".into()];
    config.providers.anthropic.keys = vec!["ours".into()];
    let emulator = omega_emulator::Emulator::start(config).await.expect("an emulator");
    let with = |yaml: &str| {
        let mut sources = sources(&emulator, &format!("{QUICK}{yaml}"));
        let urls = ["openai", "anthropic"].map(|name| {
            (format!("OMEGA_PROVIDERS_{}_BASE_URL", name.to_uppercase()), emulator.base_url(name))
        });
        // OpenAI has no key here; Anthropic has one.
        let key = ("ANTHROPIC_API_KEY".to_owned(), "ours".to_owned());
        sources.environment = omega_client::Environment::from_pairs(urls.into_iter().chain([key]));
        sources
    };
    let on = with("\ngateway: {pass_through_keys: true}");
    let house = House::with(
        EmulatorConfig::default(),
        "",
        GatewayOptions { sources: Some(on), ..Default::default() },
    )
    .await;
    let key = ("authorization", "Bearer sk-mine");
    let mut body = chat("gpt-5.2", "hi");
    assert_eq!(house.post_as("/v1/chat/completions", &[key], body.clone()).await.status, 200);
    body["model"] = "gpt-5.2+overloaded".into();
    body["fallbacks"] = json!(["claude-opus-5-5"]);
    let answer = house.post_as("/v1/chat/completions", &[key], body.clone()).await;
    assert_eq!(
        answer.headers["x-omega-provider"],
        "anthropic",
        "which takes only our key: {}",
        answer.text()
    );
    assert_eq!(answer.status, 200);
    assert_eq!(
        house.post("/v1/chat/completions", chat("gpt-5.2", "hi")).await.status,
        500,
        "nobody has a key"
    );
    let off = with("");
    let options = GatewayOptions { sources: Some(off), ..Default::default() };
    let house = House::with(EmulatorConfig::default(), "", options).await;
    let answer = house.post_as("/v1/chat/completions", &[key], chat("gpt-5.2", "hi")).await;
    assert_eq!(answer.status, 500, "{}", answer.text());
}
