//! Every setting there is: one table, one row each.
//!
//! A row says where the setting stands in the file, what it may be, what it means, and how it is written into and
//! read from a [`Config`]. Rows are applied in the order of the table; where one row replaces what another set
//! (a tier before explicit limits, common clocks before a provider's own), that order is the rule.

mod callers;
mod gateway;
mod limits;
mod providers;
mod resilience;

use std::time::Duration;

use crate::config::Config;
use crate::provider::BUILT_IN;
use crate::value::{Kind, Value};

pub(crate) use callers::{HASH, NO_HASH, check_key_name};
pub(crate) use limits::TIERS;
pub(crate) use providers::is_loopback;

/// One setting.
pub(crate) struct Key {
    /// Where it stands: `rate_limiting.<provider>.max_queue`. `<provider>`, `<name>` and `<model>` are names.
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    /// The word for "none" at this key.
    pub(crate) absent: Option<&'static str>,
    /// Names the specification prints, which win over the generic one. `<PROVIDER>` is a provider's name.
    pub(crate) variables: &'static [&'static str],
    /// One sentence for users.
    pub(crate) meaning: &'static str,
    /// Added to a message that refuses a value, where the range alone does not explain it.
    pub(crate) note: Option<&'static str>,
    pub(crate) get: Get,
    pub(crate) set: Set,
}

type Get = fn(&Config, &Place) -> Value;
type Set = fn(&mut Config, &Place, Value);

/// Which provider and model a row's path is about; empty where its path names none.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) provider: String,
    /// The model; for the rows of callers the key or the alias.
    pub(crate) model: String,
}

impl Place {
    pub(crate) fn provider(name: &str) -> Self {
        Self { provider: String::from(name), model: String::new() }
    }

    /// A place that is no provider's.
    fn named(name: &str) -> Self {
        Self { provider: String::new(), model: String::from(name) }
    }
}

impl Place {
    /// A path of the table with this place's names in it.
    pub(crate) fn fill(&self, path: &str) -> String {
        path.replace("<provider>", &self.provider)
            .replace("<name>", &self.provider)
            .replace("<model>", &self.model)
            .replace("<key>", &self.model)
            .replace("<alias>", &self.model)
    }
}

impl Key {
    const fn new(path: &'static str, kind: Kind, meaning: &'static str, get: Get, set: Set) -> Self {
        Self { path, kind, absent: None, variables: &[], meaning, note: None, get, set }
    }

    /// `word` stands for "none".
    const fn or(mut self, word: &'static str) -> Self {
        self.absent = Some(word);
        self
    }

    /// Also set by these variables, which win over the generic name.
    const fn also(mut self, variables: &'static [&'static str]) -> Self {
        self.variables = variables;
        self
    }

    const fn note(mut self, note: &'static str) -> Self {
        self.note = Some(note);
        self
    }

    /// The path with its names filled in.
    pub(crate) fn path_at(&self, place: &Place) -> String {
        place.fill(self.path)
    }

    /// The variables that set it at `place`, the strongest first; none for maps.
    pub(crate) fn variables_at(&self, place: &Place) -> Vec<String> {
        if matches!(self.kind, Kind::Headers) {
            return Vec::new();
        }
        let special = self
            .variables
            .iter()
            .map(|name| name.replace("<PROVIDER>", &spelled_in_capitals(&place.provider)));
        let generic = generic_variable(&self.path_at(place));
        let mut names: Vec<String> = special.filter(|name| *name != generic).collect();
        names.push(generic);
        names
    }

    /// The names it takes for the documentation: the specification's, then the generic one.
    pub(crate) fn variables_documented(&self) -> Vec<String> {
        let model = match self.path.split('.').nth(1) {
            Some("<key>") => "<KEY>",
            Some("<alias>") => "<ALIAS>",
            _ => "<MODEL>",
        };
        let place = Place { provider: String::from("<PROVIDER>"), model: String::from(model) };
        if matches!(self.kind, Kind::Headers) {
            return Vec::new();
        }
        let path = self.path_at(&place);
        let generic = path
            .split('.')
            .map(|part| if part.starts_with('<') { String::from(part) } else { spelled_in_capitals(part) })
            .collect::<Vec<_>>()
            .join("_");
        let generic = format!("OMEGA_{generic}");
        let mut names: Vec<String> =
            self.variables.iter().filter(|name| **name != generic).map(|name| String::from(*name)).collect();
        names.push(generic);
        names
    }

    pub(crate) fn per_provider(&self) -> bool {
        self.path.contains("<provider>") || self.path.contains("<name>")
    }

    /// Whether it has a place only where a file names one.
    pub(crate) fn is_named(&self) -> bool {
        self.path.contains('<')
    }

    pub(crate) fn per_model(&self) -> bool {
        self.path.contains("<model>")
    }

    /// Every place this row has in `config`.
    pub(crate) fn places(&self, config: &Config) -> Vec<Place> {
        if self.path.contains("<key>") {
            return config.keys.iter().map(|key| Place::named(&key.name)).collect();
        }
        if self.path.contains("<alias>") {
            return config.aliases.keys().map(|alias| Place::named(alias)).collect();
        }
        if !self.per_provider() {
            return vec![Place::default()];
        }
        let mut places = Vec::new();
        for provider in config.providers() {
            if self.per_model() {
                places.extend(
                    provider
                        .model_limits
                        .keys()
                        .map(|model| Place { provider: provider.name.clone(), model: model.clone() }),
                );
            } else {
                places.push(Place::provider(&provider.name));
            }
        }
        places
    }
}

/// Every row, in the order of application and of documentation.
pub(crate) fn all() -> impl Iterator<Item = &'static Key> {
    resilience::KEYS
        .iter()
        .chain(&providers::KEYS)
        .chain(&limits::KEYS)
        .chain(&gateway::KEYS)
        .chain(&callers::KEYS)
}

/// `OMEGA_` and the path in capitals, everything that is neither letter nor digit as `_`.
pub(crate) fn generic_variable(path: &str) -> String {
    format!("OMEGA_{}", spelled_in_capitals(path))
}

/// A name as a variable spells it.
pub(crate) fn spelled_in_capitals(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Names people use for two of the built-in providers; understood for keys given as arguments, suggested elsewhere.
pub(crate) fn canonical_provider(name: &str) -> &str {
    match name {
        "xai" | "x-ai" => "grok",
        "gemini" => "google",
        other => other,
    }
}

/// Is `name` fit for a configured provider?
pub(crate) fn check_provider_name(name: &str) -> Result<(), String> {
    const LONGEST: usize = 64;
    if name == "enabled" {
        return Err(String::from(
            "a provider cannot be called `enabled`: that word is the switch of `rate_limiting`; choose another name",
        ));
    }
    if let "xai" | "x-ai" | "gemini" = name {
        return Err(format!("`{name}` is built in under the name `{}`; use that", canonical_provider(name)));
    }
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > LONGEST || !name.chars().all(fits) {
        return Err(format!(
            "`{}` cannot name a provider; use up to {LONGEST} lower-case letters, digits, `-` and `_`",
            crate::value::shortened(name)
        ));
    }
    Ok(())
}

/// The built-in provider that reads its key from `variable`.
pub(crate) fn owner_of_key_variable(variable: &str) -> Option<&'static str> {
    BUILT_IN.iter().find(|provider| provider.key_variables.contains(&variable)).map(|provider| provider.name)
}

/// The value of a row is what its kind says: each row's `set` is only handed values its own kind has read, which the
/// round trip of every row in the tests shows.
impl Value {
    fn on(&self) -> bool {
        matches!(self, Self::Switch(true))
    }

    fn count(&self) -> u64 {
        match self {
            Self::Count(count) => *count,
            other => unreachable!("a count was read, not {other:?}"),
        }
    }

    fn count32(&self) -> u32 {
        u32::try_from(self.count()).expect("the row's range lies within u32")
    }

    fn count_or_none(&self) -> Option<u64> {
        match self {
            Self::Count(count) => Some(*count),
            _ => None,
        }
    }

    fn number(&self) -> f64 {
        match self {
            Self::Number(number) => *number,
            other => unreachable!("a number was read, not {other:?}"),
        }
    }

    fn seconds(&self) -> Duration {
        match self {
            Self::Seconds(span) => *span,
            other => unreachable!("a time was read, not {other:?}"),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            other => unreachable!("text was read, not {other:?}"),
        }
    }

    fn list(self) -> Vec<String> {
        match self {
            Self::List(items) => items,
            other => unreachable!("a list was read, not {other:?}"),
        }
    }

    /// The choice whose word was read; the first one if the table lacks it.
    fn chosen<T: Copy>(&self, choices: &[(&'static str, T)]) -> T {
        choices
            .iter()
            .find(|(word, _)| matches!(self, Self::Word(chosen) if chosen == word))
            .map_or(choices[0].1, |choice| choice.1)
    }

    /// The word of `choice`.
    fn word_of<T: PartialEq>(choice: &T, choices: &[(&'static str, T)]) -> Self {
        choices.iter().find(|(_, each)| each == choice).map_or(Self::Unset, |(word, _)| Self::Word(word))
    }

    fn count_or_absent(count: Option<u64>) -> Self {
        count.map_or(Self::Absent, Self::Count)
    }
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

const fn seconds(min: f64, max: f64) -> Kind {
    Kind::Seconds { min, max }
}

const fn text(shape: &'static str, check: fn(&str) -> Result<(), String>) -> Kind {
    Kind::Text { shape, check }
}

/// A list of names without a rule of their own.
const fn names(shape: &'static str) -> Kind {
    Kind::List { shape, check: any_name }
}

fn any_name(_: &str) -> Result<(), String> {
    Ok(())
}

/// A day: longer than any call, wait or pause that makes sense.
const DAY: f64 = 86_400.0;

/// The shortest period of a clock or circuit. Zero would mean "at once, always", which is never what is meant.
const TICK: f64 = 0.001;
