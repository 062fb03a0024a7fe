//! What `omega serve` says first: where it is, who can be called through it, and how to point programs at it.

use omega_client::ResilienceStats;
use omega_gateway::Gateway;
use serde_json::{Value, json};

pub(super) fn text(gateway: &Gateway) -> String {
    let address = gateway.address();
    let url = format!("http://{address}");
    let callers = match (gateway.has_keys(), address.ip().is_loopback()) {
        (true, _) => "callers with a key",
        (false, true) => "programs of this machine, without a key",
        (false, false) => "ANYBODY who can reach it: there are no keys (--allow-anyone)",
    };
    let client = gateway.client();
    let file = client.configuration().file.as_ref();
    let file =
        file.map_or_else(|| String::from("defaults and environment"), |file| file.display().to_string());
    let mut lines = vec![
        format!("serving on {url}"),
        String::new(),
        format!("  configuration  {file}"),
        format!("  callers        {callers}"),
    ];
    lines.extend(providers(&client.resilience_stats()).into_iter().map(|(name, unusable)| match unusable {
        None => format!("  {name:13}  ready"),
        Some(why) => format!("  {name:13}  not used: {why}"),
    }));
    lines.extend([
        String::new(),
        String::from("for the official SDKs (with a key of the gateway's, or any if it wants none):"),
        format!("  export OPENAI_BASE_URL={url}/v1"),
        format!("  export ANTHROPIC_BASE_URL={url}"),
        format!("  export GOOGLE_GEMINI_BASE_URL={url}"),
        String::new(),
        format!("statistics: {url}/stats   metrics: {url}/metrics   Ctrl-C stops"),
    ]);
    lines.join("\n")
}

pub(super) fn json(gateway: &Gateway) -> Value {
    let client = gateway.client();
    let providers: serde_json::Map<String, Value> = providers(&client.resilience_stats())
        .into_iter()
        .map(|(name, unusable)| (name, json!({"usable": unusable.is_none(), "reason": unusable})))
        .collect();
    json!({
        "url": format!("http://{}", gateway.address()),
        "address": gateway.address().to_string(),
        "keys_required": gateway.has_keys(),
        "configuration": client.configuration().file.as_ref().map(|file| file.display().to_string()),
        "providers": providers,
        "pid": std::process::id(),
    })
}

/// Each provider, and why it cannot be called, if so.
fn providers(stats: &ResilienceStats) -> Vec<(String, Option<String>)> {
    let details = &stats.details.providers;
    details.iter().map(|(name, details)| (name.clone(), details.unusable.clone())).collect()
}
