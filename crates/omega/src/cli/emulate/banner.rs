//! What `omega emulate` says first: where the providers are and how to point programs at them.

use std::path::Path;

use omega_emulator::{Emulator, Provider};
use serde_json::{Value, json};

/// The variables that make each official SDK talk to the emulator. Source: the sources of openai 3.54.0, anthropic
/// 2.12.0 and google-genai 3.4.0 (Python packages, read 2026-11-23); xAI's models are called through OpenAI's SDK.
const SDK_VARIABLES: [(&str, &str, &str); 3] = [
    ("openai", "OPENAI_BASE_URL", "OPENAI_API_KEY"),
    ("anthropic", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
    ("google", "GOOGLE_GEMINI_BASE_URL", "GEMINI_API_KEY"),
];

pub(super) fn text(emulator: &Emulator, ca_file: Option<&Path>) -> String {
    let mut lines = vec![format!("emulating on {}", emulator.url()), String::new()];
    for provider in Provider::ALL {
        lines.push(format!("  {:9}  {}", provider.name(), emulator.base_url(provider.name())));
    }
    lines.extend([
        String::new(),
        String::from("for the official SDKs (any key will do unless --settings lists some):"),
    ]);
    for (provider, url, key) in SDK_VARIABLES {
        lines.push(format!("  export {url}={} {key}=emulated", emulator.base_url(provider)));
    }
    lines.push(format!("  xAI: the OpenAI SDK with base_url={}", emulator.base_url("grok")));
    lines.extend([String::new(), String::from("for omega:")]);
    for provider in Provider::ALL {
        let upper = provider.name().to_uppercase();
        lines.push(format!(
            "  export OMEGA_PROVIDERS_{upper}_BASE_URL={}",
            emulator.base_url(provider.name())
        ));
    }
    lines.push(String::from(
        "  export OPENAI_API_KEY=emulated ANTHROPIC_API_KEY=emulated GEMINI_API_KEY=emulated XAI_API_KEY=emulated",
    ));
    if let Some(path) = ca_file {
        let path = path.display();
        lines.push(format!("  export OMEGA_TLS_CA_FILE={path}    (Python SDKs: SSL_CERT_FILE={path}, Node: NODE_EXTRA_CA_CERTS={path})"));
    }
    lines.extend([
        String::new(),
        format!("requests seen: {}/__emulator/requests     Ctrl-C stops", emulator.url()),
    ]);
    lines.join("\n")
}

pub(super) fn json(emulator: &Emulator, ca_file: Option<&Path>) -> Value {
    let urls: serde_json::Map<String, Value> = Provider::ALL
        .iter()
        .map(|provider| (provider.name().into(), json!(emulator.base_url(provider.name()))))
        .collect();
    json!({
        "url": emulator.url(),
        "base_urls": urls,
        "control": format!("{}/__emulator", emulator.url()),
        "ca_file": ca_file.map(|path| path.display().to_string()),
    })
}
