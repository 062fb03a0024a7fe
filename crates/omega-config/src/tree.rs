//! The file layer: walks the YAML tree along the table of settings.
//!
//! Every key must be a row, a section of rows, or a name where the table has a place for one. All problems of a file
//! are collected, so that one look at the messages mends the whole file.

use std::path::PathBuf;

use crate::callers::CallerKey;
use crate::config::Config;
use crate::error::Problem;
use crate::file::FileText;
use crate::keys::{self, Place, canonical_provider, check_provider_name};
use crate::layers::{Layers, Origin, Said, refusal};
use crate::nearest::nearest;
use crate::provider::{ProviderSettings, built_in};
use crate::value::shortened;
use crate::yaml::{self, Entry, Node, Raw};

/// Reads `file` into `layers`, and the providers and models it names into `config`.
pub(crate) fn read(file: &FileText, config: &mut Config, layers: &mut Layers, problems: &mut Vec<Problem>) {
    let text = file.text.strip_prefix('\u{feff}').unwrap_or(&file.text);
    let root = match yaml::parse(text) {
        Ok(root) => root,
        Err(error) => {
            problems.push(Problem::in_file(&file.name, text, error.at, false, error.message));
            return;
        }
    };
    let mut walk = Walk { name: &file.name, text, is_argument: file.is_argument, config, layers, problems };
    match &root.raw {
        Raw::Null => {}
        Raw::Map(entries) => {
            walk.declare_providers(entries);
            walk.section("", &Place::default(), entries);
        }
        other => {
            let message = format!("expected sections such as `circuit_breaker:`, found {}", other.shown());
            walk.problem(&root, message);
        }
    }
}

struct Walk<'a> {
    name: &'a str,
    text: &'a str,
    is_argument: bool,
    config: &'a mut Config,
    layers: &'a mut Layers,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    /// Providers first: their limits may stand above their section in the file.
    fn declare_providers(&mut self, entries: &[Entry]) {
        let Some(Raw::Map(providers)) =
            entries.iter().find(|entry| entry.key == "providers").map(|entry| &entry.value.raw)
        else {
            return;
        };
        let mut names: Vec<&Entry> = providers.iter().collect();
        names.sort_by(|a, b| a.key.cmp(&b.key));
        for entry in names {
            let is_known = self.is_argument && self.config.provider(&entry.key).is_some();
            if is_known || built_in(&entry.key).is_some() || matches!(entry.value.raw, Raw::Null) {
                continue;
            }
            match check_provider_name(&entry.key) {
                Ok(()) => self.config.providers.push(declared(entry)),
                Err(message) => self.problem_at_key(entry, message),
            }
        }
    }

    /// One section: `pattern` is its path in the table, with `<provider>` and the like left in.
    fn section(&mut self, pattern: &str, place: &Place, entries: &[Entry]) {
        for entry in entries {
            // `state: …` and `state: {url: …}` say the same.
            let inner = if pattern == "state" && entry.key == "url" {
                "state".to_owned()
            } else {
                joined(pattern, &entry.key)
            };
            let opens = inner == "state" && pattern.is_empty() && matches!(entry.value.raw, Raw::Map(_));
            if opens {
                self.descend(&inner, place.clone(), entry);
            } else if let Some((row, key)) = keys::all().enumerate().find(|(_, key)| key.path == inner) {
                self.value(row, key, place, entry);
            } else if is_section(&inner) {
                self.descend(&inner, place.clone(), entry);
            } else {
                match name_below(pattern) {
                    Some("<key>") => self.caller(entry),
                    Some("<alias>") => self.alias(entry),
                    Some(name @ "<model>") => {
                        let place = Place { model: entry.key.clone(), ..place.clone() };
                        if self.model(&place, entry) {
                            self.descend(&joined(pattern, name), place, entry);
                        }
                    }
                    Some(name) if self.config.provider(&entry.key).is_some() => {
                        self.descend(&joined(pattern, name), Place::provider(&entry.key), entry);
                    }
                    Some(name) => self.unknown_provider(pattern, name, entry),
                    None => self.unknown_key(pattern, place, entry),
                }
            }
        }
    }

    fn descend(&mut self, pattern: &str, place: Place, entry: &Entry) {
        match &entry.value.raw {
            Raw::Map(entries) => self.section(pattern, &place, entries),
            // A section whose lines are all commented out.
            Raw::Null => {}
            _ => self.no_section(pattern, entry),
        }
    }

    fn no_section(&mut self, pattern: &str, entry: &Entry) {
        let below = match children(pattern).join("`, `") {
            none if none.is_empty() => String::from("names of your own below it"),
            names => format!("keys such as `{names}` below it"),
        };
        let message = format!("`{}` is a section: expected {below}", entry.key);
        // Where a caller's key is described, its secret may stand by mistake.
        match pattern == "keys" || pattern == "keys.<key>" {
            true => self.problem_at_key(entry, message),
            false => self.problem(&entry.value, format!("{message}, found {}", entry.value.raw.shown())),
        }
    }

    fn value(&mut self, row: usize, key: &keys::Key, place: &Place, entry: &Entry) {
        if matches!(entry.value.raw, Raw::Null) {
            // A key without a value is a key not given.
            return;
        }
        match key.kind.read(&entry.value, key.absent) {
            Ok(value) => {
                let origin = match self.is_argument {
                    true => Origin::Argument(String::from(self.name)),
                    false => Origin::File { path: PathBuf::from(self.name), line: entry.line },
                };
                let at = Some((entry.value.line, entry.value.column));
                self.layers.say(row, place.clone(), Said { value, origin, at });
            }
            Err(wrong) => {
                // Where a hash belongs, a secret may stand by mistake, and be taken for a number or a list.
                let is_hash = key.path == keys::HASH;
                let wrong_with = if is_hash { keys::NO_HASH.to_owned() } else { refusal(key, &wrong) };
                let message = format!("`{}`: {wrong_with}", key.path_at(place));
                let at = wrong.at.unwrap_or((entry.value.line, entry.value.column));
                let key_only =
                    is_hash || key.path == "state" || matches!(key.kind, crate::value::Kind::Headers);
                self.problems.push(Problem::in_file(self.name, self.text, Some(at), key_only, message));
            }
        }
    }

    /// Notes a model that has limits of its own.
    fn model(&mut self, place: &Place, entry: &Entry) -> bool {
        if !self.is_model_name(place, entry) {
            return false;
        }
        if let Some(provider) = self.config.provider_mut(&place.provider) {
            provider.model_limits.entry(place.model.clone()).or_default();
        }
        true
    }

    fn is_model_name(&mut self, place: &Place, entry: &Entry) -> bool {
        const LONGEST: usize = 200;
        let printable = !place.model.chars().any(char::is_control);
        let fits = !place.model.trim().is_empty() && place.model.len() <= LONGEST && printable;
        if !fits {
            self.problem_at_key(entry, format!("a model's name has 1 to {LONGEST} printable characters"));
        }
        fits
    }

    /// One key of a caller.
    fn caller(&mut self, entry: &Entry) {
        if let Err(message) = keys::check_key_name(&entry.key) {
            return self.problem_at_key(entry, message);
        }
        if !matches!(entry.value.raw, Raw::Map(_) | Raw::Null) {
            return self.no_section("keys.<key>", entry);
        }
        if !(self.is_argument && self.config.keys.iter().any(|key| key.name == entry.key)) {
            self.config.keys.push(CallerKey::new(&entry.key));
        }
        let place = Place { model: entry.key.clone(), ..Place::default() };
        self.descend("keys.<key>", place, entry);
    }

    /// One name for models.
    fn alias(&mut self, entry: &Entry) {
        let place = Place { model: entry.key.clone(), ..Place::default() };
        if !self.is_model_name(&place, entry) || matches!(entry.value.raw, Raw::Null) {
            return;
        }
        self.config.aliases.entry(entry.key.clone()).or_default();
        if let Some((row, key)) = keys::all().enumerate().find(|(_, key)| key.path == "aliases.<alias>") {
            self.value(row, key, &place, entry);
        }
    }

    fn unknown_provider(&mut self, pattern: &str, name: &str, entry: &Entry) {
        if pattern == "providers" {
            // Its name was refused when the providers were declared, or the section is empty.
            return;
        }
        let known: Vec<&str> = self.config.providers().map(|provider| provider.name.as_str()).collect();
        let fixed = children(pattern);
        let canonical = canonical_provider(&entry.key);
        let suggestion =
            match nearest(&entry.key, known.iter().copied().chain(fixed.iter().map(String::as_str))) {
                _ if canonical != entry.key => Some(canonical),
                found => found,
            };
        let message = match (&entry.value.raw, suggestion) {
            (_, Some(meant)) => {
                format!("unknown provider `{}`. Did you mean `{meant}`?", shortened(&entry.key))
            }
            (Raw::Map(_) | Raw::Null, None) => format!(
                "unknown provider `{}`. Known: {}. Another server is declared under `providers`",
                shortened(&entry.key),
                known.join(", ")
            ),
            _ => self.unknown_message(&joined(pattern, &entry.key), &entry.key, &joined(pattern, name)),
        };
        self.problem_at_key(entry, message);
    }

    fn unknown_key(&mut self, pattern: &str, place: &Place, entry: &Entry) {
        let shown = place.fill(pattern);
        let path = joined(&shown, &shortened(&entry.key));
        let message = if pattern == "providers.<name>" && entry.key.to_ascii_lowercase().contains("key") {
            format!("unknown key `{path}`. Keys never stand in a file: name their variable in `api_key_env`")
        } else {
            self.unknown_message(&path, &entry.key, pattern)
        };
        self.problem_at_key(entry, message);
    }

    fn unknown_message(&self, path: &str, key: &str, pattern: &str) -> String {
        let siblings = children(pattern);
        if let Some(meant) = nearest(key, siblings.iter().map(String::as_str)) {
            return format!("unknown key `{path}`. Did you mean `{meant}`?");
        }
        // The right key in the wrong section is the other common slip.
        let elsewhere: Vec<&str> = keys::all()
            .map(|row| row.path)
            .filter(|row| row.rsplit('.').next() == Some(key) && !row.contains('<'))
            .collect();
        match elsewhere.as_slice() {
            [one] => format!("unknown key `{path}`. Did you mean `{one}`?"),
            _ => format!("unknown key `{path}`. Known here: {}", siblings.join(", ")),
        }
    }

    fn problem(&mut self, node: &Node, message: String) {
        self.problems.push(Problem::in_file(
            self.name,
            self.text,
            Some((node.line, node.column)),
            false,
            message,
        ));
    }

    /// A problem with a key: what stands behind it is not shown, since an unknown key may hold anything.
    fn problem_at_key(&mut self, entry: &Entry, message: String) {
        self.problems.push(Problem::in_file(
            self.name,
            self.text,
            Some((entry.line, entry.column)),
            true,
            message,
        ));
    }
}

/// A provider before anything is said of it: like the one it stands in for, if that is built in.
fn declared(entry: &Entry) -> ProviderSettings {
    let stands_for = match &entry.value.raw {
        Raw::Map(said) => said.iter().find_map(|inner| match &inner.value.raw {
            Raw::Text(name) if inner.key == "pool" => built_in(name),
            _ => None,
        }),
        _ => None,
    };
    match stands_for {
        Some(known) => ProviderSettings { name: entry.key.clone(), ..ProviderSettings::built_in(known) },
        None => ProviderSettings::compatible(&entry.key, crate::Dialect::OpenAi),
    }
}

fn joined(pattern: &str, key: &str) -> String {
    if pattern.is_empty() { String::from(key) } else { format!("{pattern}.{key}") }
}

fn is_section(pattern: &str) -> bool {
    // A name someone chose is never a section of the table, even if it is spelled `<provider>`.
    !pattern.ends_with('>') && keys::all().any(|key| below(key.path, pattern).is_some())
}

/// The part of `path` below the section `pattern`.
fn below<'p>(path: &'p str, pattern: &str) -> Option<&'p str> {
    if pattern.is_empty() { Some(path) } else { path.strip_prefix(pattern)?.strip_prefix('.') }
}

/// The kind of name that may stand below this section, if any.
fn name_below(pattern: &str) -> Option<&'static str> {
    keys::all()
        .find_map(|key| below(key.path, pattern)?.split('.').next().filter(|part| part.starts_with('<')))
}

/// The fixed keys of a section, in the order of the table.
fn children(pattern: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for part in keys::all().filter_map(|key| below(key.path, pattern)?.split('.').next()) {
        if !part.starts_with('<') && !names.iter().any(|name| name == part) {
            names.push(String::from(part));
        }
    }
    names
}
