//! What the sources say, laid over one another: for each setting the strongest value and where it was written.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::keys::{self, Key, Place};
use crate::value::{Value, Wrong};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The preset of this usage tier.
    Tier(&'static str),
    /// A line of the configuration file.
    File {
        /// The file, or the name its text was given.
        path: PathBuf,
        /// The line, counted from 1.
        line: u32,
    },
    /// A variable.
    Environment(String),
    /// An argument of the constructor or the command line.
    Argument(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Tier(name) => write!(f, "tier {name}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Argument(name) => write!(f, "argument {name}"),
        }
    }
}

/// Every setting somebody gave, by row and place, the strongest source last to speak.
#[derive(Default)]
pub(crate) struct Layers {
    said: BTreeMap<(usize, Place), Said>,
}

/// One given value.
pub(crate) struct Said {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
    /// The spot in the file, for problems found later.
    pub(crate) at: Option<(u32, u32)>,
}

impl Layers {
    /// Lays a value over whatever weaker sources said.
    pub(crate) fn say(&mut self, row: usize, place: Place, said: Said) {
        self.said.insert((row, place), said);
    }

    pub(crate) fn get(&self, row: usize, place: &Place) -> Option<&Said> {
        self.said.get(&(row, place.clone()))
    }

    /// What was said at `path`, an instance such as `tls.ca_file` or, with a place, `providers.<name>.base_url`.
    pub(crate) fn at(&self, pattern: &str, place: &Place) -> Option<&Said> {
        let row = keys::all().position(|key| key.path == pattern)?;
        self.get(row, place)
    }

    /// Everything said, in the order of the table.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Key, &Place, &Said)> {
        self.said.iter().filter_map(|((row, place), said)| Some((keys::all().nth(*row)?, place, said)))
    }
}

/// A message that refuses a value, with the row's note.
pub(crate) fn refusal(key: &Key, wrong: &Wrong) -> String {
    match key.note {
        Some(note) => format!("{}; {note}", wrong.message),
        None => wrong.message.clone(),
    }
}
