//! A loaded configuration in words and as JSON: for `omega check` and `omega check --explain`.
//!
//! Pure: these functions build text, the program prints it. Secrets were replaced before they came here.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::error::ConfigError;
use crate::layers::Origin;
use crate::load::{Loaded, Setting};

/// Every effective value and where it comes from, one a line, in aligned columns.
pub fn render_explain(loaded: &Loaded) -> String {
    let rows: Vec<(&str, String, String)> = loaded
        .settings
        .iter()
        .map(|setting| (setting.path.as_str(), shown(&setting.value), setting.origin.to_string()))
        .collect();
    let width = |of: fn(&(&str, String, String)) -> usize| rows.iter().map(of).max().unwrap_or_default();
    let path_width = width(|row| row.0.chars().count());
    // One very long value must not push every origin off the screen.
    const WIDEST: usize = 40;
    let value_width = width(|row| row.1.chars().count()).min(WIDEST);
    let mut text = header(loaded);
    for (path, value, origin) in rows {
        let _ = writeln!(text, "{path:path_width$}  {value:value_width$}  {origin}");
    }
    text.push_str(&warnings(loaded));
    text
}

/// The same as JSON: `file`, `file_found_by_itself`, `settings` (`path`, `value`, `origin`), `warnings`.
pub fn explain_json(loaded: &Loaded) -> Value {
    json!({
        "file": loaded.file.as_ref().map(|path| path.display().to_string()),
        "file_found_by_itself": loaded.file_found_by_itself,
        "settings": loaded.settings.iter().map(setting_json).collect::<Vec<_>>(),
        "warnings": loaded.warnings,
    })
}

/// What `omega check` says of a configuration that is in order: which file, which keys were found, what to mind.
pub fn render_check(loaded: &Loaded) -> String {
    let mut text = header(loaded);
    text.push_str("the configuration is valid\n");
    for provider in loaded.config.providers() {
        let path = format!("providers.{}.api_key", provider.name);
        let origin =
            loaded.settings.iter().find(|setting| setting.path == path).map(|setting| &setting.origin);
        let key = match origin {
            Some(Origin::Default) | None => String::from("no key"),
            Some(origin) => format!("key from {origin}"),
        };
        let _ = writeln!(text, "  {}: {key}", provider.name);
    }
    text.push_str(&warnings(loaded));
    text
}

/// What `omega check --json` says: `valid`, and the problems or the explanation.
pub fn check_json(result: &Result<Loaded, ConfigError>) -> Value {
    match result {
        Ok(loaded) => {
            let mut report = explain_json(loaded);
            report["valid"] = json!(true);
            report["problems"] = json!([]);
            report
        }
        Err(error) => json!({
            "valid": false,
            "problems": error
                .problems
                .iter()
                .map(|problem| {
                    json!({"place": problem.place, "message": problem.message, "snippet": problem.snippet})
                })
                .collect::<Vec<_>>(),
        }),
    }
}

fn header(loaded: &Loaded) -> String {
    match (&loaded.file, loaded.file_found_by_itself) {
        (Some(path), true) => format!("file: {} (found in the working directory)\n", path.display()),
        (Some(path), false) => format!("file: {}\n", path.display()),
        (None, _) => String::from("file: none\n"),
    }
}

fn warnings(loaded: &Loaded) -> String {
    loaded.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect()
}

fn setting_json(setting: &Setting) -> Value {
    let origin = match &setting.origin {
        Origin::Default => json!({"source": "default"}),
        Origin::Tier(tier) => json!({"source": "tier", "name": tier}),
        Origin::File { path, line } => {
            json!({"source": "file", "file": path.display().to_string(), "line": line})
        }
        Origin::Environment(name) => json!({"source": "environment", "name": name}),
        Origin::Argument(name) => json!({"source": "argument", "name": name}),
    };
    json!({"path": setting.path, "value": setting.value, "origin": origin})
}

/// A value as a line shows it; `-` for what was never set.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::from("-"),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => String::from("none"),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(","),
        Value::Object(map) if map.is_empty() => String::from("none"),
        Value::Object(map) => map.keys().cloned().collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
