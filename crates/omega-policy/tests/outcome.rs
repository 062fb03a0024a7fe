//! THE TABLE: row by row against a literal copy of the specification's, against the page for users, and what each row
//! does to a pipeline.

mod support;

use omega_policy::Charge::{AsTheRuleSays, Keep, Refund, Seen};
use omega_policy::Closed::{Counts, Ignored};
use omega_policy::FailureKind::*;
use omega_policy::Probing::{Fails, FreesTheSlot};
use omega_policy::Retry::{AnotherTargetFirst, Never, SameTarget};
use omega_policy::*;
use support::*;

fn row(kind: FailureKind, retry: Retry, fallback: bool, closed: Closed, probing: Probing, charge: Charge) {
    assert_eq!(kind.meaning(), Meaning { retry, fallback, closed, probing, charge });

    // A closed circuit.
    let mut rig = Rig::new();
    rig.repeat(4, &failure(Server));
    rig.once(&failure(kind));
    let (state, count) = match closed {
        Counts => (BreakerState::Open, 5),
        Ignored => (BreakerState::Closed, 4),
    };
    assert_eq!(
        (rig.state(), rig.stats().breaker.failure_count),
        (state, count),
        "{kind:?} in a closed circuit"
    );

    // A probe.
    let mut rig = Rig::new();
    rig.open();
    rig.pass(60_000);
    rig.once(&failure(kind));
    let state = match probing {
        Fails => BreakerState::Open,
        FreesTheSlot => BreakerState::HalfOpen,
    };
    assert_eq!((rig.state(), rig.stats().breaker.probes_in_flight), (state, 0), "{kind:?} in a probe");
    assert_eq!(rig.stats().breaker.success_count, 0, "a failure is never a recovery");

    // The verdict, alone and with another target.
    for alternative in [false, true] {
        let mut rig = Rig::new();
        let mut call = Call { alternative, ..rig.call() };
        let verdict = rig.fail(&mut call, Failure::new(kind));
        let expected = match (retry, alternative) {
            (Never, _) => Verdict::GiveUp(GiveUp::NotRetryable),
            (AnotherTargetFirst, true) => Verdict::GiveUp(GiveUp::AnotherTarget),
            _ => Verdict::RetryAt { at: rig.now + seconds(1), delay: seconds(1) },
        };
        assert_eq!(verdict, expected, "{kind:?}, alternative {alternative}");
        assert_eq!(call.attempts, 1);
        assert_eq!(rig.stats().limiter.requests_last_minute, 1, "the request stays charged");
        assert_eq!(rig.stats().limiter.concurrent_requests, 0);
    }

    // The reservation, where unused output is given back: 1,000 in and 500 out, 70 seen. (Every rule: src/limiter.)
    let mut rig = Rig::with(|config| config.limiter.charge = ChargeRule::EstimateThenRefund);
    let mut call =
        Call { demand: Demand { input_tokens: 1_000, max_output_tokens: Some(500) }, ..rig.call() };
    let seen = Some(Usage { input_tokens: 1_000, cached_input_tokens: 0, output_tokens: 70 });
    rig.fail(&mut call, Failure { seen: seen.filter(|_| charge == Seen), ..Failure::new(kind) });
    let charged = match charge {
        Refund => 0,
        AsTheRuleSays => 1_000,
        Keep => 1_500,
        Seen => 1_070,
    };
    assert_eq!(rig.stats().limiter.tokens_last_minute, charged, "{kind:?}");
}

#[test]
fn throttled_pauses_and_moves_no_circuit() {
    row(Throttled, SameTarget, true, Ignored, FreesTheSlot, Refund);
}

#[test]
fn out_of_quota_is_final_here_and_stops_the_hammering() {
    row(OutOfQuota, Never, true, Counts, Fails, Refund);
}

#[test]
fn overloaded_is_retried_and_counts() {
    row(Overloaded, SameTarget, true, Counts, Fails, AsTheRuleSays);
}

#[test]
fn transient_is_retried_and_says_nothing_of_the_provider() {
    row(Transient, SameTarget, true, Ignored, FreesTheSlot, Refund);
}

#[test]
fn server_errors_are_retried_and_count() {
    row(Server, SameTarget, true, Counts, Fails, AsTheRuleSays);
}

#[test]
fn silence_asks_another_target_first() {
    row(Timeout, AnotherTargetFirst, true, Counts, Fails, Keep);
}

#[test]
fn transport_failures_are_retried_count_and_cost_nothing() {
    row(Transport, SameTarget, true, Counts, Fails, Refund);
}

#[test]
fn broken_streams_count_and_are_charged_what_was_seen() {
    row(StreamBroken, SameTarget, true, Counts, Fails, Seen);
}

#[test]
fn auth_is_final_here() {
    row(Auth, Never, true, Ignored, FreesTheSlot, Refund);
}

#[test]
fn invalid_requests_are_asked_once() {
    row(Invalid, Never, false, Ignored, FreesTheSlot, Refund);
}

#[test]
fn an_unknown_model_may_be_known_elsewhere() {
    row(UnknownModel, Never, true, Ignored, FreesTheSlot, Refund);
}

#[test]
fn a_prompt_too_long_here_may_fit_elsewhere() {
    row(ContextLength, Never, true, Ignored, FreesTheSlot, Refund);
}

#[test]
fn a_policy_refusal_is_not_shopped_around() {
    row(ContentFilter, Never, false, Ignored, FreesTheSlot, Seen);
}

#[test]
fn a_caller_who_goes_away_moves_nothing_and_frees_the_slot() {
    let mut rig = Rig::new();
    rig.repeat(4, &failure(Server));
    let permit = rig.exhaust(1).pop().expect("one");
    rig.pipeline.cancel(permit, Spent::Sent { seen: None }, rig.now);
    assert_eq!(rig.stats().breaker.failure_count, 4);
    rig.once(&failure(Server));
    rig.pass(60_000);
    for permit in rig.exhaust(3) {
        rig.pipeline.cancel(permit, Spent::Nothing, rig.now);
    }
    assert_eq!((rig.state(), rig.stats().breaker.probes_in_flight), (BreakerState::HalfOpen, 0));
}

#[test]
fn every_kind_has_one_row_on_the_page_for_users_and_it_says_the_same() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/failures.md"))
        .expect("docs/failures.md is part of the repository");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let names: Vec<_> = rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    let kinds: Vec<_> = FailureKind::ALL.iter().map(|kind| format!("{kind:?}")).collect();
    assert_eq!(names, kinds, "the same rows in the same order");
    for (row, kind) in rows.iter().zip(FailureKind::ALL) {
        let meaning = kind.meaning();
        let retry = match meaning.retry {
            SameTarget => "yes",
            AnotherTargetFirst => "another target first",
            Never => "no",
        };
        let fallback = if meaning.fallback { "yes" } else { "no" };
        let closed = match meaning.closed {
            Counts => "counts",
            Ignored => "ignored",
        };
        let probing = match meaning.probing {
            Fails => "opens again",
            FreesTheSlot => "slot freed",
        };
        let charge = match meaning.charge {
            Refund => "given back",
            AsTheRuleSays => "as the charge rule says",
            Keep => "kept",
            Seen => "what was seen",
        };
        assert_eq!(row[2..], [retry, fallback, closed, probing, charge], "{kind:?}");
    }
}
