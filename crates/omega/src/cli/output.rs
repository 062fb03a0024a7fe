//! Where words go: data to stdout, everything else to stderr; and whether colours may be used.

use std::io::{self, IsTerminal, StderrLock, StdoutLock, Write};

use serde::Serialize;

/// Stdout. Every write may fail because the reader went away; callers pass that on with `?`.
#[derive(Debug)]
pub(crate) struct Output {
    is_terminal: bool,
}

impl Output {
    pub(crate) fn stdout() -> Self {
        Self { is_terminal: io::stdout().is_terminal() }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Writes text as it is and hands it to the reader at once.
    pub(crate) fn write(&mut self, text: &str) -> io::Result<()> {
        let mut stdout: StdoutLock<'_> = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// Writes text and ends its line.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        let mut whole = String::with_capacity(text.len() + 1);
        whole.push_str(text.trim_end_matches('\n'));
        whole.push('\n');
        self.write(&whole)
    }

    /// Writes one JSON value: indented for people, on one line for programs.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text =
            if self.is_terminal { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        self.line(&text.map_err(io::Error::other)?)
    }
}

/// Writes a line to stderr. If nobody reads there, nothing can be said about it, so failure is ignored.
pub(crate) fn say(text: &str) {
    let mut stderr: StderrLock<'_> = io::stderr().lock();
    let _ = writeln!(stderr, "{text}");
}

/// Whether stderr shows colours: it is a terminal that can, and nobody said `NO_COLOR` (no-color.org: present and
/// not empty).
pub(crate) fn colours_on_stderr() -> bool {
    let refused = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !refused && variable("TERM").is_none_or(|term| term != "dumb")
}

/// The program's one look at the environment beside the configuration and `OMEGA_LOG`, which clap reads: conventions
/// of terminals that are no settings of OMEGA.
#[expect(
    clippy::disallowed_methods,
    reason = "the door for what terminals agree on; settings come through omega-config"
)]
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}
