//! What must hold for every cell, judged by what the emulator saw.

use std::time::Duration;

use omega_emulator::{Fault, Provider};

use super::DEADLINE;
use super::cell::{Cell, Ending, TIME_SCALE};
use crate::demo::Check;

/// A timer fires late on a busy machine. This much beyond the deadline is the machine's fault.
const SLACK: Duration = Duration::from_millis(750);

/// The emulator's clock and ours round differently.
const ROUNDING_S: f64 = 0.005;

/// Every rule, with the cells that break it.
pub(super) fn checks(cells: &[Cell]) -> Vec<Check> {
    [
        ("every call ends inside its deadline", check(cells, |_| true, ends_in_time)),
        ("no truncated answer is a success", check(cells, |_| true, is_whole_or_an_error)),
        (
            "no attempt comes earlier than a provider's hint",
            check(cells, |cell| hint(cell).is_some(), heeds_the_hint),
        ),
        (
            "a silent provider is not asked again while another target exists",
            check(
                cells,
                |cell| cell.has_fallback && is_silent(cell.fault.fault),
                |cell| cell.asked.len() == 1,
            ),
        ),
        (
            "a request that is rejected as invalid is asked once",
            check(cells, is_invalid, |cell| cell.asked.len() + cell.asked_elsewhere == 1),
        ),
        ("every provider that fails was really asked", check(cells, |_| true, |cell| !cell.asked.is_empty())),
    ]
    .into_iter()
    .map(|(what, (held, found))| Check { what: String::from(what), found, held })
    .collect()
}

/// Applies a rule to the cells it concerns.
fn check(cells: &[Cell], concerns: impl Fn(&Cell) -> bool, holds: impl Fn(&Cell) -> bool) -> (bool, String) {
    let concerned: Vec<&Cell> = cells.iter().filter(|cell| concerns(cell)).collect();
    let broken: Vec<String> = concerned.iter().filter(|cell| !holds(cell)).map(|cell| name(cell)).collect();
    if broken.is_empty() {
        (true, format!("{} calls", concerned.len()))
    } else {
        (false, format!("not in {} of {}: {}", broken.len(), concerned.len(), broken.join("; ")))
    }
}

fn name(cell: &Cell) -> String {
    let fallback = if cell.has_fallback { "with fallback" } else { "alone" };
    format!("{} {} {fallback}", cell.fault, cell.call.name())
}

fn ends_in_time(cell: &Cell) -> bool {
    cell.elapsed <= DEADLINE + SLACK
}

/// An answer with an ordinary end must be word for word what a healthy provider says. One that a filter withheld says
/// so in its finish reason, and a provider's `length` would too.
fn is_whole_or_an_error(cell: &Cell) -> bool {
    match &cell.ending {
        Ending::Answered { finish, is_whole, .. } => *is_whole || matches!(finish.as_str(), "content_filter"),
        Ending::Failed { .. } => true,
    }
}

/// Real seconds before which this fault's provider does not want to be asked again; infinite where the hint reaches
/// past every deadline.
fn hint(cell: &Cell) -> Option<f64> {
    let parameter: Option<f64> = cell.fault.parameter.as_deref().and_then(|text| text.parse().ok());
    match cell.fault.fault {
        Fault::RateLimited
        | Fault::RateLimitedMs
        | Fault::SlowDown
        | Fault::Unavailable
        | Fault::Overloaded => parameter.map(|seconds| seconds / TIME_SCALE),
        // An HTTP-date has no fractions: it may name a moment up to a second earlier than the emulator meant.
        Fault::RateLimitedDate => parameter.map(|seconds| seconds / TIME_SCALE - 1.0),
        Fault::HostileRetryAfter => Some(f64::INFINITY),
        _ => None,
    }
}

fn heeds_the_hint(cell: &Cell) -> bool {
    let Some(hint) = hint(cell) else { return true };
    cell.asked.windows(2).all(|pair| {
        let [(asked, ended), (again, _)] = pair else { return true };
        again - ended.unwrap_or(*asked) >= hint - ROUNDING_S
    })
}

/// Faults in which the provider says nothing before any clock ends.
fn is_silent(fault: Fault) -> bool {
    matches!(fault, Fault::Hang | Fault::SlowHeaders | Fault::SlowFirstToken | Fault::PingsOnly)
}

/// Faults that say the request itself is wrong. Google knows no 422: there the emulator sends FAILED_PRECONDITION with
/// it, which means a region or billing, not the request.
/// Source: Gemini API, error codes (`FAILED_PRECONDITION`), read 2026-11-23.
fn is_invalid(cell: &Cell) -> bool {
    match cell.fault.fault {
        Fault::InvalidRequest | Fault::TooLarge => true,
        Fault::Unprocessable => cell.provider != Provider::Google,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use omega_client::ErrorKind;
    use omega_emulator::FaultSpec;

    use super::*;
    use crate::faults::Call;

    /// A well-behaved meeting: asked once, ended at once with an error.
    fn cell(fault: &str) -> Cell {
        Cell {
            fault: fault.parse::<FaultSpec>().expect("a fault"),
            call: Call::Chat,
            has_fallback: true,
            ending: Ending::Failed {
                kind: ErrorKind::Provider,
                status: None,
                message: String::new(),
                delivered: 0,
            },
            elapsed: Duration::from_millis(10),
            asked: vec![(1.0, Some(1.1))],
            asked_elsewhere: 0,
            provider: Provider::OpenAi,
            other: Provider::Anthropic,
            models: [String::from("one"), String::from("other")],
        }
    }

    fn broken(cell: Cell) -> Vec<String> {
        checks(&[cell]).into_iter().filter(|check| !check.held).map(|check| check.what).collect()
    }

    fn answered(finish: &str, is_whole: bool) -> Ending {
        Ending::Answered { by: String::from("openai"), finish: finish.to_owned(), is_whole }
    }

    #[test]
    fn nothing_is_broken_by_a_call_that_behaves() {
        for fault in ["server-error", "hang", "invalid-request", "rate-limited:10"] {
            assert_eq!(broken(cell(fault)), [""; 0], "{fault}");
        }
    }

    #[test]
    fn a_call_beyond_its_deadline_is_noticed() {
        let late = Cell { elapsed: DEADLINE + SLACK + Duration::from_millis(1), ..cell("server-error") };
        assert_eq!(broken(late), ["every call ends inside its deadline"]);
    }

    #[test]
    fn a_truncated_answer_is_noticed_and_a_withheld_one_is_not_truncated() {
        let ended = |ending| Cell { ending, ..cell("cut-after") };
        assert_eq!(broken(ended(answered("stop", false))), ["no truncated answer is a success"]);
        assert_eq!(broken(ended(answered("none", false))), ["no truncated answer is a success"]);
        assert_eq!(broken(ended(answered("stop", true))), [""; 0]);
        assert_eq!(broken(ended(answered("content_filter", false))), [""; 0]);
    }

    #[test]
    fn an_attempt_before_the_hint_is_noticed() {
        let rule = ["no attempt comes earlier than a provider's hint"];
        let asked =
            |fault: &str, again: f64| Cell { asked: vec![(1.0, Some(1.1)), (again, None)], ..cell(fault) };
        assert_eq!(broken(asked("rate-limited:10", 2.05)), rule);
        assert_eq!(broken(asked("rate-limited:10", 2.11)), [""; 0]);
        assert_eq!(broken(asked("rate-limited-date:20", 2.05)), rule);
        assert_eq!(broken(asked("hostile-retry-after", 500.0)), rule);
    }

    #[test]
    fn asking_a_silent_provider_again_is_noticed_only_with_another_target_at_hand() {
        let twice = Cell { asked: vec![(1.0, Some(2.0)), (2.1, Some(3.1))], ..cell("hang") };
        assert_eq!(
            broken(twice.clone()),
            ["a silent provider is not asked again while another target exists"]
        );
        assert_eq!(broken(Cell { has_fallback: false, ..twice }), [""; 0]);
    }

    #[test]
    fn asking_an_invalid_request_again_is_noticed_anywhere() {
        let rule = ["a request that is rejected as invalid is asked once"];
        assert_eq!(broken(Cell { asked_elsewhere: 1, ..cell("invalid-request") }), rule);
        assert_eq!(broken(Cell { asked: vec![(1.0, None), (2.0, None)], ..cell("too-large") }), rule);
        let google = Cell { asked_elsewhere: 1, provider: Provider::Google, ..cell("unprocessable") };
        assert_eq!(broken(google), [""; 0]);
    }

    #[test]
    fn a_provider_that_was_never_asked_proves_nothing() {
        let silent = Cell { asked: Vec::new(), ..cell("server-error") };
        assert_eq!(broken(silent), ["every provider that fails was really asked"]);
    }
}
