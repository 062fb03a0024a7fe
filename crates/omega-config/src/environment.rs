//! The process environment, read once and handed over as data.
//!
//! [`Environment::process`] is the only place that asks the operating system for variables; everything else, tests
//! included, works on the captured map. Values stay private and are never part of `Debug`, since some are keys.

use std::collections::BTreeMap;
use std::fmt;

/// A captured set of environment variables.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, Value>,
}

#[derive(Clone)]
enum Value {
    Text(String),
    NotUnicode,
}

/// Why a variable has no usable value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotUnicode;

impl Environment {
    /// The environment of this process, as it is now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where settings are read from the environment"
    )]
    pub fn process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.into_string().ok()?;
                let value = value.into_string().map_or(Value::NotUnicode, Value::Text);
                Some((name, value))
            })
            .collect();
        Self { variables }
    }

    /// An environment of just these variables.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let variables =
            pairs.into_iter().map(|(name, value)| (name.into(), Value::Text(value.into()))).collect();
        Self { variables }
    }

    /// No variables at all.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A variable that is not ours to explain (OpenTelemetry's, say); `None` if it is not set, blank or not Unicode.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).ok().flatten()
    }

    /// The value of `name`. A variable that is empty or blank counts as not set, which is what
    /// `NAME=${NAME:-}` in a compose file means.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, NotUnicode> {
        match self.variables.get(name) {
            Some(Value::Text(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
            Some(Value::NotUnicode) => Err(NotUnicode),
            None => Ok(None),
        }
    }

    /// The names that begin with `prefix` and are not blank, in order.
    pub(crate) fn names_with(&self, prefix: &str) -> impl Iterator<Item = &str> {
        self.variables
            .iter()
            .filter(move |(name, value)| {
                name.starts_with(prefix) && !matches!(value, Value::Text(text) if text.trim().is_empty())
            })
            .map(|(name, _)| name.as_str())
    }
}

/// Names only.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_variable_counts_as_not_set() {
        let environment = Environment::from_pairs([("OMEGA_MODEL", "  "), ("OMEGA_STATE", " memory\n")]);
        assert_eq!(environment.get("OMEGA_MODEL"), Ok(None));
        assert_eq!(environment.get("OMEGA_STATE"), Ok(Some("memory")));
        assert_eq!(environment.names_with("OMEGA_").collect::<Vec<_>>(), ["OMEGA_STATE"]);
    }

    #[test]
    fn debug_shows_names_and_no_values() {
        let shown = format!("{:?}", Environment::from_pairs([("OPENAI_API_KEY", "sk-secret")]));
        assert_eq!(shown, r#"{"OPENAI_API_KEY"}"#);
    }

    #[cfg(unix)]
    #[test]
    fn the_process_environment_is_captured() {
        assert!(Environment::process().names_with("PATH").any(|name| name == "PATH"));
    }
}
