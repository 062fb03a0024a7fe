//! The statistics as a table: what a person wants to know first, one line for each provider.

use serde_json::Value;

const HEADS: [&str; 10] = [
    "provider",
    "circuit",
    "requests/min",
    "tokens/min",
    "in flight",
    "queued",
    "sent",
    "failed",
    "429",
    "retries",
];

/// One table of providers, one of callers with limits of their own if there are any.
pub(super) fn text(stats: &Value) -> String {
    let mut rows = vec![HEADS.map(str::to_owned).to_vec()];
    let breakers = stats["circuit_breakers"].as_object().into_iter().flatten();
    for (provider, breaker) in breakers {
        let (limiter, details) =
            (&stats["rate_limiters"][provider], &stats["details"]["providers"][provider]);
        // Nobody asks about a provider that cannot be called and never was.
        if details["unusable"].is_string() && number(&details["sent_total"]) == 0 {
            continue;
        }
        rows.push(vec![
            provider.clone(),
            circuit(breaker, details),
            used(&limiter["requests_last_minute"], &limiter["max_requests_per_minute"]),
            used(&limiter["tokens_last_minute"], &limiter["max_tokens_per_minute"]),
            shown(&limiter["concurrent_requests"]),
            shown(&details["queued"]),
            shown(&details["sent_total"]),
            shown(&details["failed_total"]),
            shown(&details["throttled_total"]),
            shown(&details["retries_total"]),
        ]);
    }
    let gateway = &stats["gateway"];
    let mut out = format!(
        "up {}, {} requests in flight on {} connections{}\n\n",
        span(gateway["uptime_seconds"].as_f64().unwrap_or_default()),
        shown(&gateway["requests_in_flight"]),
        shown(&gateway["connections"]),
        if gateway["stopping"] == true { ", STOPPING" } else { "" },
    );
    out.push_str(&aligned(&rows));
    if rows.len() == 1 {
        out.push_str("  no provider can be called; `omega check` says what is missing\n");
    }
    let keys: Vec<_> = gateway["keys"].as_object().into_iter().flatten().collect();
    if !keys.is_empty() {
        let mut rows =
            vec![vec!["key".to_owned(), "requests/min".into(), "tokens/min".into(), "in flight".into()]];
        rows.extend(keys.into_iter().map(|(name, usage)| {
            let said = ["requests_last_minute", "tokens_last_minute", "concurrent_requests"];
            let cells = said.map(|field| shown(&usage[field]));
            std::iter::once(name.clone()).chain(cells).collect()
        }));
        out.push('\n');
        out.push_str(&aligned(&rows));
    }
    out
}

fn circuit(breaker: &Value, details: &Value) -> String {
    let state = breaker["state"].as_str().unwrap_or("?");
    match details["paused_until"].as_str() {
        Some(_) => format!("{state}, paused"),
        None => state.to_owned(),
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

fn used(used: &Value, limit: &Value) -> String {
    match limit.as_u64() {
        Some(limit) => format!("{} of {limit}", shown(used)),
        None => shown(used),
    }
}

fn span(seconds: f64) -> String {
    let whole = seconds as u64;
    match (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, ..) => format!("{d} d {h} h"),
    }
}

/// The first column to the left, numbers to the right.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(at, cell)| match at {
            0 | 1 => format!("{cell:<width$}", width = widths[at]),
            _ => format!("{cell:>width$}", width = widths[at]),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        out.push_str("  ");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_shows_who_is_in_use_and_leaves_out_who_cannot_be() {
        let stats = json!({
            "circuit_breakers": {"openai": {"state": "half_open"}, "google": {"state": "closed"}},
            "rate_limiters": {"openai": {"requests_last_minute": 7, "max_requests_per_minute": 60,
                "tokens_last_minute": 700, "max_tokens_per_minute": null, "concurrent_requests": 2}},
            "details": {"providers": {
                "openai": {"queued": 1, "sent_total": 12, "failed_total": 3, "throttled_total": 2,
                    "retries_total": 1, "paused_until": "2026-01-01T00:00:00Z"},
                "google": {"unusable": "there is no key", "sent_total": 0}}},
            "gateway": {"uptime_seconds": 3_723.4, "requests_in_flight": 3, "connections": 4, "keys": {
                "team-a": {"requests_last_minute": 5, "tokens_last_minute": 50, "concurrent_requests": 0}}},
        });
        let text = text(&stats);
        assert!(text.starts_with("up 1 h 2 min, 3 requests in flight on 4 connections\n"), "{text}");
        assert!(
            text.contains("half_open, paused") && text.contains("7 of 60") && text.contains("team-a"),
            "{text}"
        );
        assert!(!text.contains("google"), "{text}");
    }
}
