//! What is wrong with a configuration, all of it at once, each problem with its place.
//!
//! A problem in a file shows the line and underlines the spot. What may be a secret is never repeated: lines that
//! look as if they held one are cut after the key.

use std::fmt;

/// The configuration cannot be used; nothing of it was applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Every problem found, in the order of the sources. Never empty.
    pub problems: Vec<Problem>,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Where it was written: `config/resilience.yaml:3:5`, `OMEGA_MAX_RETRIES`, `argument max_retries`.
    pub place: String,
    /// What is wrong and what would be right.
    pub message: String,
    /// The line of the file with the spot underlined, where there is one.
    pub snippet: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        if let Some(snippet) = &self.snippet {
            write!(f, "\n{snippet}")?;
        }
        Ok(())
    }
}

impl Problem {
    pub(crate) fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into(), snippet: None }
    }

    /// A problem at a spot of a file's text; `key_only` when nothing behind the key may be shown.
    pub(crate) fn in_file(
        name: &str,
        text: &str,
        at: Option<(u32, u32)>,
        key_only: bool,
        message: impl Into<String>,
    ) -> Self {
        match at {
            Some((line, column)) if line > 0 => Self {
                place: format!("{name}:{line}:{column}"),
                message: message.into(),
                snippet: snippet(text, line, column, key_only),
            },
            _ => Self::new(name, message),
        }
    }
}

/// The line, numbered, and carets under the word at `column`.
fn snippet(text: &str, line: u32, column: u32, key_only: bool) -> Option<String> {
    /// Lines longer than this are cut: a megabyte on one line helps nobody.
    const WIDTH: usize = 120;
    let whole = text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let shown = if key_only || looks_secret(whole) { without_value(whole) } else { String::from(whole) };
    let shown: String = shown.chars().take(WIDTH).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let start = usize::try_from(column).ok()?.saturating_sub(1);
    if shown.trim().is_empty() || start >= shown.chars().count() {
        return None;
    }
    let rest = shown.chars().skip(start);
    let quoted = rest.clone().next().filter(|c| matches!(c, '"' | '\''));
    let length = match quoted {
        Some(quote) => rest.skip(1).take_while(|c| *c != quote).count() + 2,
        None => rest.take_while(|c| !c.is_whitespace() && !matches!(c, ':' | ',' | ']' | '}' | '#')).count(),
    };
    let length = length.clamp(1, shown.chars().count() - start);
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    Some(format!("{margin} |\n{number} | {shown}\n{margin} | {}{}", " ".repeat(start), "^".repeat(length)))
}

/// Might this line hold a credential, a header or an address with a password?
fn looks_secret(line: &str) -> bool {
    const SIGNS: [&str; 11] = [
        "_key:",
        "apikey:",
        "authorization",
        "secret",
        "password",
        "passwd",
        "bearer",
        "token:",
        "sk-",
        "xai-",
        "aiza",
    ];
    let lower = line.to_ascii_lowercase();
    SIGNS.iter().any(|sign| lower.contains(sign))
        || lower.split_once("://").is_some_and(|(_, rest)| rest.contains(['@', '?']))
}

/// The line up to its first colon.
fn without_value(line: &str) -> String {
    match line.split_once(':') {
        Some((key, _)) => format!("{key}: …"),
        None => format!("{}…", line.chars().take_while(|c| c.is_whitespace()).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snippet_underlines_the_word_at_its_column() {
        let text = "circuit_breaker:\n  failure_treshold: 10  # note\n";
        let shown = snippet(text, 2, 3, false).expect("there is a line 2");
        assert_eq!(shown, "  |\n2 |   failure_treshold: 10  # note\n  |   ^^^^^^^^^^^^^^^^");
    }

    #[test]
    fn a_snippet_never_shows_what_may_be_a_secret() {
        for line in [
            "api_key: sk-live-123456",
            "  token: abcdefgh12345",
            "base_url: https://user:hunter2@example.com",
            "base_url: https://example.com/?key=hunter2",
            "- sk-live-123456",
        ] {
            let shown = snippet(line, 1, 1, false).unwrap_or_default();
            assert!(
                !shown.contains("123456") && !shown.contains("12345") && !shown.contains("hunter2"),
                "{shown}"
            );
        }
    }

    #[test]
    fn a_position_outside_the_text_has_no_snippet() {
        assert_eq!(snippet("a: 1", 7, 1, false), None);
        assert_eq!(snippet("a: 1", 1, 99, false), None);
    }
}
