//! What was measured, and whether it is good enough.

use serde::Serialize;

/// One subject in one round.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Round {
    /// Whole answers per second with 64 callers.
    pub per_second: f64,
    /// Processor time of the subject for each of them, in microseconds.
    pub cpu_us: f64,
    /// At 400 requests a second, in milliseconds.
    pub p50_ms: f64,
    /// The same.
    pub p99_ms: f64,
    /// With 100 streams: until the first token, in milliseconds.
    pub first_p50_ms: f64,
    /// The same.
    pub first_p99_ms: f64,
    /// With 100 streams: processor time of the subject for each event, in microseconds.
    pub cpu_per_token_us: f64,
    /// With 200 streams: until the first token, in milliseconds.
    pub first_200_p99_ms: f64,
    /// With 200 streams: between two pieces, in milliseconds.
    pub gap_200_p99_ms: f64,
    /// Memory after all of it, in MiB.
    pub memory_mib: f64,
    /// Requests that went wrong.
    pub failed: usize,
}

/// One subject over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Result {
    /// Its name.
    pub name: String,
    /// From its start to its first readiness, in milliseconds.
    pub ready_ms: f64,
    /// Memory before anybody called, in MiB.
    pub at_rest_mib: f64,
    /// The longest gap in a thousand streams at once, in milliseconds; absent if it was not measured.
    pub stall_ms: Option<f64>,
    /// The median of each number.
    pub median: Round,
    /// Every round.
    pub rounds: Vec<Round>,
}

impl Result {
    /// The median of each number.
    pub fn new(
        name: &str,
        ready_ms: f64,
        at_rest_mib: f64,
        stall_ms: Option<f64>,
        rounds: Vec<Round>,
    ) -> Self {
        let of = |read: fn(&Round) -> f64| median(rounds.iter().map(read).collect());
        let middle = Round {
            per_second: of(|round| round.per_second),
            cpu_us: of(|round| round.cpu_us),
            p50_ms: of(|round| round.p50_ms),
            p99_ms: of(|round| round.p99_ms),
            first_p50_ms: of(|round| round.first_p50_ms),
            first_p99_ms: of(|round| round.first_p99_ms),
            cpu_per_token_us: of(|round| round.cpu_per_token_us),
            first_200_p99_ms: of(|round| round.first_200_p99_ms),
            gap_200_p99_ms: of(|round| round.gap_200_p99_ms),
            memory_mib: of(|round| round.memory_mib),
            failed: rounds.iter().map(|round| round.failed).sum(),
        };
        Self { name: name.to_owned(), ready_ms, at_rest_mib, stall_ms, median: middle, rounds }
    }
}

/// The middle of these; 0 of none.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        count if count % 2 == 1 => numbers[count / 2],
        count => f64::midpoint(numbers[count / 2 - 1], numbers[count / 2]),
    }
}

/// The number below which this share of them lies, by nearest rank; 0 of none.
pub fn percentile(numbers: &[f64], share: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// A bar, and whether it was reached.
#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    /// What was asked.
    pub name: &'static str,
    /// What was measured.
    pub value: f64,
    /// The most it may be; the least for what is better large.
    pub bar: f64,
    /// Whether it was reached.
    pub held: bool,
}

/// Holds `omega` against the bars of the gateway, by the same run's other subjects.
pub fn bars(results: &[Result]) -> Vec<Bar> {
    let named = |name: &str| results.iter().find(|result| result.name == name);
    let Some(omega) = named("omega") else { return Vec::new() };
    let mut bars = Vec::new();
    let mut most = |name, value: f64, bar: f64| bars.push(Bar { name, value, bar, held: value <= bar });
    if let Some(nginx) = named("nginx") {
        let (own, plain) = (&omega.median, &nginx.median);
        most("CPU per request, times nginx", own.cpu_us / plain.cpu_us, 2.5);
        most("CPU per token, times nginx", own.cpu_per_token_us / plain.cpu_per_token_us, 1.5);
        most("throughput of nginx, times ours", plain.per_second / own.per_second, 2.0);
    }
    if let Some(direct) = named("direct") {
        let (own, plain) = (&omega.median, &direct.median);
        most("added p99 at 400/s, ms", own.p99_ms - plain.p99_ms, 1.0);
        most("added p99 to first token, 100 streams, ms", own.first_p99_ms - plain.first_p99_ms, 1.0);
    }
    if let Some(stall) = omega.stall_ms {
        most("longest gap in 1,000 streams, ms", stall, 1_000.0);
    }
    most("memory at rest, MiB", omega.at_rest_mib, 25.0);
    most("ready after, ms", omega.ready_ms, 100.0);
    most("requests that failed", omega.median.failed as f64, 0.0);
    bars
}

/// For people.
pub fn table(results: &[Result]) -> String {
    type Row = (&'static str, fn(&Result) -> f64);
    const ROWS: [Row; 13] = [
        ("whole answers/s, 64 callers", |of| of.median.per_second),
        ("CPU per request, us", |of| of.median.cpu_us),
        ("p50 at 400/s, ms", |of| of.median.p50_ms),
        ("p99 at 400/s, ms", |of| of.median.p99_ms),
        ("first token p50, 100 streams, ms", |of| of.median.first_p50_ms),
        ("first token p99, 100 streams, ms", |of| of.median.first_p99_ms),
        ("CPU per token, 100 streams, us", |of| of.median.cpu_per_token_us),
        ("first token p99, 200 streams, ms", |of| of.median.first_200_p99_ms),
        ("gap p99, 200 streams, ms", |of| of.median.gap_200_p99_ms),
        ("longest gap, 1,000 streams, ms", |of| of.stall_ms.unwrap_or(0.0)),
        ("memory at rest, MiB", |of| of.at_rest_mib),
        ("memory after load, MiB", |of| of.median.memory_mib),
        ("ready after, ms", |of| of.ready_ms),
    ];
    let mut out = format!("{:36}", "");
    results.iter().for_each(|result| out.push_str(&format!("{:>12}", result.name)));
    out.push('\n');
    for (name, read) in ROWS {
        out.push_str(&format!("{name:36}"));
        for result in results {
            let value = read(result);
            let shown = if value >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.2}") };
            out.push_str(&format!("{shown:>12}"));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_what_they_are() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(
            (percentile(&hundred, 0.99), percentile(&hundred, 0.5), percentile(&[], 0.5)),
            (99.0, 50.0, 0.0)
        );
    }

    #[test]
    fn a_bar_that_is_missed_says_so() {
        let round = |cpu_us| Round { cpu_us, cpu_per_token_us: 1.0, per_second: 1.0, ..Round::default() };
        let result = |name: &str, cpu| Result::new(name, 50.0, 10.0, None, vec![round(cpu)]);
        let bars = bars(&[result("nginx", 10.0), result("omega", 26.0)]);
        let missed: Vec<&str> = bars.iter().filter(|bar| !bar.held).map(|bar| bar.name).collect();
        assert_eq!(missed, ["CPU per request, times nginx"]);
    }
}
