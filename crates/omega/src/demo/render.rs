//! The report in words: the policies at both time scales, the architecture with its real states, both runs side by
//! side, and what had to hold. Pure text; columns line up without colours.

use std::time::Duration;

use super::plan::Plan;
use super::report::{Check, Report};
use super::tally::{ProviderTally, Tally};

/// What will be replayed, and every scaled duration in trace time and in real time.
pub fn plan(plan: &Plan) -> String {
    let mut text = format!(
        "{} requests of {:.0} s ({}), replayed {} times faster over real HTTP against four emulated providers\n\n",
        grouped(plan.requests),
        plan.span_s,
        plan.trace,
        plan.time_scale,
    );
    for provider in &plan.providers {
        let role = if provider.name() == plan.primary().name() { "asked first" } else { "fallback" };
        text.push_str(&format!(
            "  {:9}  {:16}  {:>5} requests, {:>9} tokens a minute  {role}\n",
            provider.name(),
            provider.model,
            grouped(provider.requests_per_minute),
            grouped(provider.tokens_per_minute),
        ));
    }
    text.push_str(&format!(
        "\n  {} is down from {:.0} s to {:.0} s\n\n  {:34}  {:>10}  {:>9}\n",
        plan.primary().name(),
        plan.outage.from_s,
        plan.outage.until_s,
        "policy",
        "trace time",
        "real time"
    ));
    for (name, trace, real) in plan.policies() {
        text.push_str(&format!("  {name:34}  {:>10}  {:>9}\n", span(trace), span(real)));
    }
    text.push_str(&format!(
        "  {:34}  {:>10}  {:>9}\n",
        "quotas per minute",
        "as above",
        format!("x {}", plan.time_scale)
    ));
    text.push_str(
        "\n  The time this machine needs to compute is not compressed: hence stream clocks above the defaults, and a\n  \
         client that believes in less than the providers' burst (burst_seconds).\n",
    );
    text
}

/// The whole report.
pub fn report(report: &Report) -> String {
    let mut text = picture(&report.protected);
    text.push('\n');
    text.push_str(&side_by_side(report));
    text.push('\n');
    text.push_str(&checks(&report.checks));
    text.push_str(&format!(
        "\n{} ({:.1} s for both runs)\n",
        if report.held() { "the protection held" } else { "the protection did not hold" },
        report.wall.as_secs_f64()
    ));
    text
}

/// What had to hold, one line each.
pub fn checks(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.what.chars().count()).max().unwrap_or_default();
    let line = |check: &Check| {
        format!("  {}  {:width$}  {}\n", if check.held { "pass" } else { "FAIL" }, check.what, check.found)
    };
    checks.iter().map(line).collect()
}

/// The specification's drawing of the architecture, with the states and numbers of the end of the protected run.
pub fn picture(tally: &Tally) -> String {
    /// Characters between the two borders of the drawing.
    const WIDTH: usize = 69;
    let mut lines = vec![
        format!("{:^WIDTH$}", "UnifiedLLMClient"),
        String::new(),
        String::from(" ┌─────────────────────────────────────────────────────────────────┐"),
        format!(
            " │ {:63} │",
            format!("chat()  {} requests, {} answered", grouped(tally.requests), grouped(tally.answered))
        ),
        format!(
            " │ {:63} │",
            format!(
                "├─ Retry Loop          {} retries, {} failovers",
                grouped(tally.retries),
                grouped(tally.failovers)
            )
        ),
        format!(
            " │ {:63} │",
            format!(
                "│  ├─ Rate Limiter     {} waited, p50 {:.1} s, p99 {:.1} s",
                grouped(tally.waited),
                tally.wait_p50_s,
                tally.wait_p99_s
            )
        ),
        format!(
            " │ {:63} │",
            format!(
                "│  ├─ Circuit Breaker  {} transitions, {} refused by us",
                tally.transitions.len(),
                grouped(tally.refused_by_us)
            )
        ),
        format!(
            " │ {:63} │",
            format!(
                "│  │  └─ API Call      {} upstream, {} got 429",
                grouped(tally.upstream_calls),
                grouped(tally.provider_429s)
            )
        ),
        String::from(" └─────────────────────────────────────────────────────────────────┘"),
        String::new(),
        String::from(" Circuit Breakers (per provider):"),
    ];
    lines.extend(branches(&tally.providers, |provider| {
        let state = provider.state.to_uppercase();
        match tally.opened(provider.name) {
            0 => format!("[{state}]"),
            1 => format!("[{state}]  opened once"),
            times => format!("[{state}]  opened {times} times"),
        }
    }));
    lines.extend([String::new(), String::from(" Rate Limiters (per provider, last minute of trace time):")]);
    lines.extend(branches(&tally.providers, |provider| {
        format!(
            "[{}/{} RPM, {}/{} TPM]",
            provider.requests_last_minute,
            provider.requests_per_minute,
            thousands(provider.tokens_last_minute),
            thousands(provider.tokens_per_minute),
        )
    }));
    let bar = "─".repeat(WIDTH);
    let mut text = format!("┌{bar}┐\n");
    for line in lines {
        text.push_str(&format!("│{line:WIDTH$}│\n"));
    }
    text.push_str(&format!("└{bar}┘\n"));
    text
}

fn branches(providers: &[ProviderTally], of: impl Fn(&ProviderTally) -> String) -> Vec<String> {
    let last = providers.len().saturating_sub(1);
    let line = |(index, provider): (usize, &ProviderTally)| {
        let branch = if index == last { "└─" } else { "├─" };
        format!(" {branch} {:9} {}", provider.name, of(provider))
    };
    providers.iter().enumerate().map(line).collect()
}

fn side_by_side(report: &Report) -> String {
    let (with, without) = (&report.protected, &report.unprotected);
    let percent = |tally: &Tally| format!("{:.1} %", tally.answered_share() * 100.0);
    let rows: [(&str, String, String); 11] = [
        ("requests", grouped(with.requests), grouped(without.requests)),
        ("answered", grouped(with.answered), grouped(without.answered)),
        ("answered, share", percent(with), percent(without)),
        ("refused by us", grouped(with.refused_by_us), grouped(without.refused_by_us)),
        ("failed", grouped(with.failed), grouped(without.failed)),
        ("calls that reached a provider", grouped(with.upstream_calls), grouped(without.upstream_calls)),
        ("429s from providers", grouped(with.provider_429s), grouped(without.provider_429s)),
        ("calls wasted on the outage", grouped(with.wasted_calls), grouped(without.wasted_calls)),
        ("retries", grouped(with.retries), grouped(without.retries)),
        ("failovers", grouped(with.failovers), grouped(without.failovers)),
        ("wait for quota, p99", format!("{:.1} s", with.wait_p99_s), format!("{:.1} s", without.wait_p99_s)),
    ];
    let mut text = format!("  {:30}  {:>10}  {:>11}\n", "", "protected", "unprotected");
    for (name, with, without) in rows {
        text.push_str(&format!("  {name:30}  {with:>10}  {without:>11}\n"));
    }
    for transition in &with.transitions {
        text.push_str(&format!(
            "  at {:5.1} s  circuit {}: {} -> {}\n",
            transition.at_s, transition.provider, transition.from, transition.to
        ));
    }
    text
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `12400` as `12k`, as the specification's drawing does.
fn thousands(number: u64) -> String {
    if number < 1_000 { number.to_string() } else { format!("{}k", grouped((number + 500) / 1_000)) }
}

fn span(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    if seconds >= 1.0 || seconds == 0.0 {
        let text = format!("{seconds:.2}");
        format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
    } else {
        format!("{:.0} ms", seconds * 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_spans_are_short() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([999, 12_400, 1_500_000].map(thousands), ["999", "12k", "1,500k"]);
        assert_eq!(span(Duration::from_millis(250)), "250 ms");
        assert_eq!(span(Duration::from_millis(1_500)), "1.5 s");
        assert_eq!(span(Duration::from_secs(600)), "600 s");
    }

    #[test]
    fn every_check_says_whether_it_held() {
        let check = |held| Check { what: String::from("a thing"), found: String::from("seen"), held };
        assert_eq!(checks(&[check(true), check(false)]), "  pass  a thing  seen\n  FAIL  a thing  seen\n");
    }
}
