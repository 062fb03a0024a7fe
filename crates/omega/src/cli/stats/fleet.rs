//! `omega stats --fleet`: who shares each provider's limits, as the store has it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use omega_client::{FleetReport, UnifiedLLMClient};
use serde_json::{Value, json};

use super::table::aligned;
use crate::cli::{Context, Failure};

/// What the configuration's store says.
pub(super) struct Fleet {
    client: UnifiedLLMClient,
    store: String,
}

/// A person waits longer than a call would.
const PATIENCE: Duration = Duration::from_secs(5);

impl Fleet {
    /// Of the processes that are configured like this one.
    pub(super) fn of(context: &Context) -> Result<Self, Failure> {
        let client = UnifiedLLMClient::builder().sources(context.sources()).build();
        let client = client.map_err(|error| Failure::configuration(error.to_string()))?;
        let store = client.configuration().config.state.store.clone();
        if store.is_memory() {
            return Err(Failure::configuration(
                "nothing is shared: `state` is `memory`; set it to sqlite:///path or redis://host:6379, as the processes have it",
            ));
        }
        Ok(Self { client, store: store.to_string() })
    }

    pub(super) async fn ask(&self) -> Result<BTreeMap<String, FleetReport>, Failure> {
        let silent = |why: String| Failure::with_code(6, format!("{} does not answer: {why}", self.store));
        match tokio::time::timeout(PATIENCE, self.client.fleet()).await {
            Ok(Ok(reports)) => Ok(reports),
            Ok(Err(error)) => Err(silent(error.to_string())),
            Err(_) => Err(silent(format!("nothing came within {} s", PATIENCE.as_secs()))),
        }
    }
}

/// Two tables for each provider: what is left of its limits, and who takes part.
pub(super) fn text(reports: &BTreeMap<String, FleetReport>) -> String {
    if reports.is_empty() {
        return String::from("nobody is there: no process has asked the store for anything lately\n");
    }
    let mut out = String::new();
    for (provider, report) in reports {
        let FleetReport { now, ledger, holders } = report;
        let _ = writeln!(out, "{provider}: {} processes{}", ledger.members, mood(report));
        let mut rows = vec![heads(["limit", "per minute", "left", "held", "deep"])];
        for (name, bucket) in &ledger.buckets {
            let flown = ((now - bucket.as_of).max(0.0) * bucket.limit / 60.0).max(0.0);
            let left = (bucket.level + flown).min(bucket.depth - bucket.held);
            rows.push(vec![
                limit(name),
                whole(bucket.limit),
                whole(left),
                whole(bucket.held),
                whole(bucket.depth),
            ]);
        }
        for (model, slots) in &ledger.slots {
            let name = limit(&format!("in flight/{model}"));
            rows.push(vec![name, "-".into(), "-".into(), slots.held.to_string(), "-".into()]);
        }
        out.push_str(&aligned(&rows));
        let mut rows = vec![heads(["process", "heard of", "for", "of the quota", "holds", "in flight"])];
        for holder in holders.values() {
            let holds: Vec<String> = holder
                .buckets
                .iter()
                .filter(|(_, held)| held.held >= 1.0)
                .map(|(name, held)| format!("{} {}", whole(held.held), limit(name)))
                .collect();
            let slots: u32 = holder.slots.values().map(|(held, _)| held).sum();
            rows.push(vec![
                if holder.label.is_empty() { "?".into() } else { holder.label.clone() },
                format!("{:.1} s ago", (now - holder.seen).max(0.0)),
                span(now - holder.since),
                format!("{:.1} %", holder.weight * 100.0),
                if holds.is_empty() { "nothing".into() } else { holds.join(", ") },
                slots.to_string(),
            ]);
        }
        out.push('\n');
        out.push_str(&aligned(&rows));
        out.push('\n');
    }
    out
}

/// The same for programs.
pub(super) fn json(reports: &BTreeMap<String, FleetReport>) -> Value {
    json!({ "fleet": reports })
}

fn mood(report: &FleetReport) -> String {
    let ledger = &report.ledger;
    let mut words = Vec::new();
    if ledger.learning > report.now {
        words.push(format!("learning for {:.1} s", ledger.learning - report.now));
    }
    for (model, pause) in ledger.pauses.iter().filter(|(_, pause)| pause.until > report.now) {
        let what = if pause.spent { "quota spent" } else { "paused" };
        words.push(format!("{what}{} for {}", of(model), span(pause.until - report.now)));
    }
    for (model, _) in ledger.circuits.iter().filter(|(_, circuit)| circuit.open) {
        words.push(format!("circuit{} open", of(model)));
    }
    match words.is_empty() {
        true => String::new(),
        false => format!(", {}", words.join(", ")),
    }
}

fn of(model: &str) -> String {
    if model.is_empty() { String::new() } else { format!(" of {model}") }
}

/// `tokens/` is the provider's, `tokens/gpt-5.2` one model's.
fn limit(name: &str) -> String {
    let (dimension, model) = name.split_once('/').unwrap_or((name, ""));
    format!("{}{}", dimension.replace('_', " "), of(model))
}

fn heads<const N: usize>(heads: [&str; N]) -> Vec<String> {
    heads.map(str::to_owned).to_vec()
}

fn whole(amount: f64) -> String {
    format!("{:.0}", amount.floor() + 0.0)
}

fn span(seconds: f64) -> String {
    match seconds.max(0.0) as u64 {
        seconds @ ..60 => format!("{seconds} s"),
        seconds @ ..3_600 => format!("{} min", seconds / 60),
        seconds => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use omega_client::{Holder, Ledger};

    use super::*;

    #[test]
    fn a_fleet_is_shown_with_what_it_holds_and_what_is_left() {
        let mut ledger = Ledger { members: 1, turns: 1, ..Ledger::default() };
        ledger.buckets.insert(
            "requests/".into(),
            serde_json::from_value(
                json!({"level": 3.0, "as_of": 90.0, "limit": 6.0, "depth": 9.0, "held": 2.0}),
            )
            .expect("a bucket"),
        );
        ledger.circuits.insert(
            "gpt-5.2".into(),
            serde_json::from_value(json!({"turn": 1, "open": true, "until": 130.0, "probes": 0}))
                .expect("a circuit"),
        );
        let mut holder = Holder { label: "web-1:42".into(), seen: 99.5, since: 40.0, ..Holder::default() };
        holder.buckets.insert(
            "requests/".into(),
            serde_json::from_value(json!({"held": 2.0, "granted": 2.0, "owed": 0.0, "returned": 0.0}))
                .expect("a holding"),
        );
        let holders = BTreeMap::from([("one".to_owned(), holder)]);
        let reports = BTreeMap::from([("openai".to_owned(), FleetReport { now: 100.0, ledger, holders })]);
        let shown = text(&reports);
        for words in
            ["openai: 1 processes, circuit of gpt-5.2 open", "web-1:42", "2 requests", "0.5 s ago", "1 min"]
        {
            assert!(shown.contains(words), "{words} in\n{shown}");
        }
        assert!(
            shown.lines().any(|line| {
                let cells: Vec<&str> = line.split_whitespace().collect();
                cells == ["requests", "6", "4", "2", "9"]
            }),
            "three and ten seconds of six a minute: {shown}"
        );
        assert!(text(&BTreeMap::new()).contains("nobody is there"));
    }
}
