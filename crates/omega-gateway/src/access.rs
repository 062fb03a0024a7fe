//! One line for each request: by default only for those that failed or needed help, so that what is written is read.
//!
//! No prompt, answer or key is ever in it; names that callers chose are bounded and kept on one line.

use std::fmt::Write as _;
use std::time::Duration;

use crate::visit::{Kind, Record, WENT_AWAY};

/// Names of callers' making are cut here.
const NAME_MAX: usize = 100;
/// An error's text is cut here; the whole of it went to the caller.
pub(crate) const ERROR_MAX: usize = 300;

/// Writes the line of a request that is over.
pub(crate) fn tell(id: &str, kind: Kind, record: &Record, elapsed: Duration) {
    // The gateway's own trouble and its providers' is the operator's; a caller's mistake, or its leaving, is not.
    let is_trouble =
        record.status >= 500 || record.status == 429 || record.error.is_some() && record.status == 200;
    let needed_help = record.attempts.len() > 1 || record.continued > 0;
    match (is_trouble, needed_help) {
        (true, _) => tracing::warn!(target: crate::ACCESS_TARGET, "{}", line(id, kind, record, elapsed)),
        (false, true) => tracing::info!(target: crate::ACCESS_TARGET, "{}", line(id, kind, record, elapsed)),
        _ if tracing::enabled!(target: crate::ACCESS_TARGET, tracing::Level::INFO) => {
            tracing::info!(target: crate::ACCESS_TARGET, "{}", line(id, kind, record, elapsed));
        }
        _ => {}
    }
}

fn line(id: &str, kind: Kind, record: &Record, elapsed: Duration) -> String {
    let mut line = format!("{} {}", record.status, kind.name());
    if record.streams {
        line.push_str(" stream");
    }
    let asked = cut(&record.asked, NAME_MAX);
    match (record.provider.as_deref(), record.model.as_deref()) {
        (Some(provider), Some(model)) if model == record.asked => {
            let _ = write!(line, " {asked} from {provider}");
        }
        (Some(provider), Some(model)) => {
            let _ = write!(line, " {asked} answered by {provider}/{}", cut(model, NAME_MAX));
        }
        _ if !asked.is_empty() => {
            let _ = write!(line, " {asked}");
        }
        _ => {}
    }
    let _ = write!(line, " in {}", seconds(elapsed));
    if let Some(first) = record.first {
        let _ = write!(line, " (first content after {})", seconds(first));
    }
    if record.queued >= Duration::from_millis(1) {
        let _ = write!(line, ", {} of it queued", seconds(record.queued));
    }
    let sent = record.attempts.iter().filter(|attempt| attempt.was_sent()).count();
    if sent > 1 {
        let _ = write!(line, ", {sent} attempts");
    }
    if record.continued > 0 {
        let _ = write!(line, ", {} breaks mended", record.continued);
    }
    if let Some(usage) = record.usage {
        let _ = write!(line, ", {}+{} tokens", usage.input_tokens, usage.output_tokens);
    }
    if let Some(key) = &record.key {
        let _ = write!(line, ", key {}", key.name);
    }
    let _ = write!(line, " [{id}]");
    if let Some((code, text)) = record.error.as_ref().filter(|_| record.status != WENT_AWAY) {
        let _ = write!(line, ": {code}: {}", cut(text, ERROR_MAX));
    }
    line
}

fn seconds(span: Duration) -> String {
    match span.as_secs_f64() {
        short if short < 10.0 => format!("{short:.3} s"),
        long => format!("{long:.1} s"),
    }
}

/// On one line, and not longer than this.
pub(crate) fn cut(text: &str, most: usize) -> String {
    let mut shown: String = text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use omega_client::CallerProtocol;

    use super::*;

    #[test]
    fn a_line_says_who_answered_how_long_it_took_and_what_went_wrong() {
        let mut record = Record {
            asked: "gpt-5.2".into(),
            status: 200,
            provider: Some("anthropic".into()),
            model: Some("claude-opus-5-5".into()),
            queued: Duration::from_millis(250),
            streams: true,
            first: Some(Duration::from_millis(800)),
            ..Record::default()
        };
        let kind = Kind::Chat(CallerProtocol::ChatCompletions);
        assert_eq!(
            line("req_1", kind, &record, Duration::from_millis(1_500)),
            "200 chat_completions stream gpt-5.2 answered by anthropic/claude-opus-5-5 in 1.500 s (first content after 0.800 s), 0.250 s of it queued [req_1]"
        );
        record.error = Some(("stream_broken", "it\nbroke".into()));
        let text = line("req_1", kind, &record, Duration::from_secs(20));
        assert!(text.ends_with("[req_1]: stream_broken: it broke"), "{text}");
    }

    #[test]
    fn names_that_callers_made_up_stay_short_and_on_one_line() {
        assert_eq!(cut("a\r\nb", 10), "a  b");
        assert_eq!(cut(&"é".repeat(5), 3), "ééé…");
    }
}
