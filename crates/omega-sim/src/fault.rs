//! What goes wrong at the provider, and when.

use std::str::FromStr;

/// A span of virtual time, in nanoseconds since the start of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first moment.
    pub start: u64,
    /// The first moment after it.
    pub end: u64,
}

impl Window {
    /// Is `at` inside?
    pub fn contains(&self, at: u64) -> bool {
        self.start <= at && at < self.end
    }
}

/// `START+LENGTH`, in seconds: `600+300` is the five minutes after the tenth.
impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not START+LENGTH in seconds; for instance 600+300");
        let (start, length) = text.split_once('+').ok_or_else(wrong)?;
        let seconds = |part: &str| {
            let part = part.trim().trim_end_matches('s');
            part.parse::<f64>().ok().filter(|value| (0.0..=1e8).contains(value)).ok_or_else(wrong)
        };
        let (start, length) = (seconds(start)?, seconds(length)?);
        if length <= 0.0 {
            return Err(format!("{text:?} has no length; for instance 600+300"));
        }
        Ok(Self { start: (start * 1e9).round() as u64, end: ((start + length) * 1e9).round() as u64 })
    }
}

/// The ways a provider fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultKind {
    /// Answers 500 after a second, and charges nothing.
    Down,
    /// Takes the call and never says a byte.
    Hang,
    /// Everything takes 1.5 times as long, and this share of calls fails at its end, charged.
    Brown(f64),
    /// This share of calls gets 529 after 0.3 s; the request is charged, tokens are not.
    Overload(f64),
}

/// A failure and its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// To calls that reach the provider in this window.
    pub window: Window,
}

/// `down`, `hang`, `brown:SHARE` or `overload:SHARE`, then `@START+LENGTH`: `brown:0.3@600+1200`.
impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, window) = text.split_once('@').ok_or_else(|| {
            format!("{text:?} has no time; for instance down@600+300 or brown:0.3@600+1200")
        })?;
        let (name, share) = match kind.split_once(':') {
            Some((name, share)) => (name, Some(share)),
            None => (kind, None),
        };
        let share = |name: &str| {
            let share = share.ok_or_else(|| format!("{name} needs a share: {name}:0.3@600+300"))?;
            let value: f64 =
                share.parse().map_err(|_| format!("{share:?} is not a share between 0 and 1"))?;
            if (0.0..=1.0).contains(&value) {
                Ok(value)
            } else {
                Err(format!("{share:?} is not a share between 0 and 1"))
            }
        };
        let kind = match name {
            "down" => FaultKind::Down,
            "hang" => FaultKind::Hang,
            "brown" => FaultKind::Brown(share("brown")?),
            "overload" => FaultKind::Overload(share("overload")?),
            other => {
                return Err(format!(
                    "unknown fault {other:?}; known: down, hang, brown:SHARE, overload:SHARE"
                ));
            }
        };
        Ok(Self { kind, window: window.parse()? })
    }
}
