//! The demonstration, on a slice short enough for a test: the quota binds, the first provider fails and recovers.

use omega_program::demo::{self, Demands, Progress, Run, Settings, Step, Tally, Trace, Unwatched};

/// A minute and a half of the built-in trace: six seconds at this speed.
fn settings() -> Settings {
    let trace = Trace::built_in().first_seconds(90.0).expect("a slice");
    // A shorter slice is an easier demonstration: what is asked of it is a fraction of what the whole one must show.
    let demands =
        Demands { upstream_calls: 400, waited_share: 0.05, unprotected_429s: 30.0, wall_seconds: None };
    Settings { trace, demands, ..Settings::built_in() }
}

#[derive(Default)]
struct Watched(std::sync::Mutex<Vec<String>>);

impl Watched {
    fn add(&self, line: String) {
        self.0.lock().expect("nobody panicked").push(line);
    }
}

impl Progress for Watched {
    fn begin(&self, run: Run, _: &demo::Plan) {
        self.add(format!("begin {run:?}"));
    }

    fn happened(&self, _: f64, what: &str) {
        self.add(what.to_owned());
    }

    fn step(&self, step: &Step) {
        assert!(step.answered + step.failed <= step.requests);
    }

    fn end(&self, run: Run, tally: &Tally) {
        self.add(format!("end {run:?} {}", tally.requests));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_protection_holds_and_its_absence_shows() {
    let settings = settings();
    let requests = settings.trace.arrivals().len() as u64;
    let watched = Watched::default();
    let report = demo::run(&settings, &watched).await.expect("it runs");
    let text = demo::render::report(&report);
    assert!(report.held(), "{text}");

    let lines = watched.0.into_inner().expect("nobody panicked");
    let position = |line: &str| {
        lines.iter().position(|found| found == line).unwrap_or_else(|| panic!("{line} is not in {lines:?}"))
    };
    assert!(position("begin Protected") < position("openai goes down"));
    assert!(position("openai goes down") < position("circuit openai: closed -> open"));
    assert!(position("circuit openai: closed -> open") < position("circuit openai: half_open -> closed"));
    assert!(position(&format!("end Protected {requests}")) < position("begin Unprotected"));

    json_has_exactly_the_promised_fields(&report, requests);
    assert!(text.contains("│ ├─ openai    [CLOSED]  opened"), "{text}");
    assert!(text.contains("RPM, ") && text.contains("TPM]"), "{text}");
    let drawing: Vec<usize> =
        text.lines().take_while(|line| !line.is_empty()).map(|line| line.chars().count()).collect();
    assert!(
        drawing.len() > 10 && drawing.iter().all(|width| *width == drawing[0]),
        "the drawing is crooked:\n{text}"
    );
    assert!(report.unprotected.answered < report.protected.answered);
    assert_eq!(report.unprotected.retries + report.unprotected.failovers, 0);
}

fn json_has_exactly_the_promised_fields(report: &demo::Report, requests: u64) {
    let json = report.json();
    let mut fields: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "answered",
            "answered_share",
            "breaker_transitions",
            "failovers",
            "provider_429s",
            "refused_by_us",
            "requests",
            "retries",
            "stats",
            "waits_s"
        ]
    );
    assert_eq!(json["requests"], requests);
    let first = &json["breaker_transitions"][0];
    assert_eq!(
        (first["provider"].as_str(), first["from"].as_str(), first["to"].as_str()),
        (Some("openai"), Some("closed"), Some("open"))
    );
    let at_s = first["at_s"].as_f64().expect("a number");
    let outage = report.plan.outage;
    assert!(at_s >= outage.from_s && at_s <= report.plan.span_s, "{at_s} {outage:?}");
    assert!(json["waits_s"]["p50"].as_f64() <= json["waits_s"]["p99"].as_f64());
    for provider in ["openai", "anthropic", "google", "grok"] {
        assert!(json["stats"]["circuit_breakers"][provider]["state"].is_string());
        assert!(json["stats"]["rate_limiters"][provider]["max_requests_per_minute"].is_u64());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demonstration_that_shows_too_little_does_not_hold() {
    let arrivals = (0..30)
        .map(|number| demo::Arrival { at_s: f64::from(number) / 10.0, input_tokens: 50, output_tokens: 5 })
        .collect();
    let trace = Trace::new("thirty requests", arrivals).expect("a trace");
    let settings = Settings { trace, ..Settings::built_in() };
    let report = demo::run(&settings, &Unwatched).await.expect("it runs");
    assert!(!report.held());
    let failed: Vec<&str> =
        report.checks.iter().filter(|check| !check.held).map(|check| check.what.as_str()).collect();
    assert!(failed.contains(&"at least 2000 calls reach the providers"), "{failed:?}");
    assert!(demo::render::report(&report).contains("the protection did not hold"));
}
