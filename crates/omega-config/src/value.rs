//! What a setting may be: its kind and range, and the checked value read from a file, a variable or an argument.
//!
//! A [`Raw`] is what somebody wrote; [`Kind::read`] turns it into a [`Value`] or says what was expected. After that
//! nobody validates again.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::yaml::{Node, Raw};

/// A checked value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Never set, and nothing stands in its place.
    Unset,
    /// The word for "none": `unlimited`, `off`.
    Absent,
    Switch(bool),
    Count(u64),
    Number(f64),
    Seconds(Duration),
    Word(&'static str),
    Text(String),
    List(Vec<String>),
    Headers(Vec<(String, SecretString)>),
}

/// What may stand at a key.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Count { min: u64, max: u64 },
    /// A number.
    Number { min: f64, max: f64 },
    /// A time in seconds, fractions allowed.
    Seconds { min: f64, max: f64 },
    /// One of a few words.
    Word(&'static [&'static str]),
    /// Text with a rule of its own; `shape` names it.
    Text { shape: &'static str, check: fn(&str) -> Result<(), String> },
    /// Names, in order, each with this rule.
    List { shape: &'static str, check: fn(&str) -> Result<(), String> },
    /// Header names and values.
    Headers,
}

/// What is wrong with a value, without its place.
#[derive(Debug, PartialEq)]
pub(crate) struct Wrong {
    /// The sentence, beginning with what was expected.
    pub(crate) message: String,
    /// The 1-based line and column of the part at fault, when it lies inside a list or map.
    pub(crate) at: Option<(u32, u32)>,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), at: None }
    }
}

impl Kind {
    /// Reads what a YAML file says. `absent` is the word that stands for "no value" at this key.
    pub(crate) fn read(self, node: &Node, absent: Option<&str>) -> Result<Value, Wrong> {
        match (&node.raw, absent) {
            (Raw::Text(text), Some(word)) if text == word => return Ok(Value::Absent),
            // YAML 1.1 reads a plain `off` as false.
            (Raw::Switch(false), Some("off")) => return Ok(Value::Absent),
            _ => {}
        }
        match self {
            Self::Switch => match &node.raw {
                Raw::Switch(on) => Ok(Value::Switch(*on)),
                Raw::Text(text) => self.switch(text),
                other => Err(self.expected(&other.shown(), absent)),
            },
            Self::Count { .. } | Self::Number { .. } | Self::Seconds { .. } => match &node.raw {
                Raw::Number(number) => self.number(*number, &node.raw.shown(), absent),
                other => Err(self.expected(&other.shown(), absent)),
            },
            Self::Word(words) => match &node.raw {
                Raw::Text(text) => self.word(words, text),
                Raw::Switch(on) => self.word(words, if *on { "true" } else { "false" }),
                other => Err(self.expected(&other.shown(), absent)),
            },
            Self::Text { check, .. } => match &node.raw {
                Raw::Text(text) => text_value(text, check),
                Raw::Number(_) | Raw::Switch(_) => {
                    Err(Wrong::new(format!("expected text, found {}; put it in quotes", node.raw.shown())))
                }
                other => Err(self.expected(&other.shown(), absent)),
            },
            Self::List { check, .. } => self.list(check, node, absent),
            Self::Headers => self.headers(node),
        }
    }

    /// Reads what a variable or an argument says.
    pub(crate) fn parse(self, text: &str, absent: Option<&str>) -> Result<Value, Wrong> {
        let text = text.trim();
        if absent == Some(text) {
            return Ok(Value::Absent);
        }
        match self {
            Self::Switch => self.switch(text),
            Self::Count { .. } | Self::Number { .. } | Self::Seconds { .. } => match decimal(text) {
                Some(number) => self.number(number, &format!("`{text}`"), absent),
                None => Err(self.expected(&format!("`{}`", shortened(text)), absent)),
            },
            Self::Word(words) => self.word(words, text),
            Self::Text { check, .. } => text_value(text, check),
            Self::List { check, .. } => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                items.map(|item| list_item(item, check)).collect::<Result<_, _>>().map(Value::List)
            }
            Self::Headers => Err(Wrong::new("headers come only from the file")),
        }
    }

    /// The range in words: `1 to 100`, `true or false`.
    pub(crate) fn range(self, absent: Option<&str>) -> String {
        let range = match self {
            Self::Switch => String::from("true or false"),
            Self::Count { min, max } => format!("a whole number from {} to {}", grouped(min), grouped(max)),
            Self::Number { min, max } => format!("a number from {min} to {max}"),
            Self::Seconds { min, max } => format!("seconds from {min} to {max}"),
            Self::Word(words) => match words {
                [one] => format!("`{one}`"),
                [rest @ .., last] => {
                    format!(
                        "{} or `{last}`",
                        rest.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
                    )
                }
                [] => String::new(),
            },
            Self::Text { shape, .. } | Self::List { shape, .. } => String::from(shape),
            Self::Headers => String::from("header names and their values"),
        };
        match absent {
            Some(word) => format!("{range}, or `{word}`"),
            None => range,
        }
    }

    fn expected(self, found: &str, absent: Option<&str>) -> Wrong {
        if found == "`auto`" && absent == Some("unlimited") {
            return Wrong::new(
                "`auto` is not available in this version; give a number, or `unlimited` for no limit",
            );
        }
        Wrong::new(format!("expected {}, found {found}", self.range(absent)))
    }

    fn switch(self, text: &str) -> Result<Value, Wrong> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(Value::Switch(true)),
            "false" | "0" | "no" | "off" => Ok(Value::Switch(false)),
            _ => Err(self.expected(&format!("`{}`", shortened(text)), None)),
        }
    }

    fn word(self, words: &'static [&'static str], text: &str) -> Result<Value, Wrong> {
        match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
            Some(word) => Ok(Value::Word(word)),
            None => Err(self.expected(&format!("`{}`", shortened(text)), None)),
        }
    }

    fn number(self, number: f64, shown: &str, absent: Option<&str>) -> Result<Value, Wrong> {
        let (min, max) = match self {
            Self::Count { min, max } => (min as f64, max as f64),
            Self::Number { min, max } | Self::Seconds { min, max } => (min, max),
            _ => return Err(self.expected(shown, absent)),
        };
        if !(min..=max).contains(&number) {
            return Err(self.expected(shown, absent));
        }
        match self {
            // Within `max`, which is far below 2^53, the conversion is exact.
            Self::Count { .. } if number.fract() == 0.0 => Ok(Value::Count(number as u64)),
            Self::Count { .. } => Err(self.expected(shown, absent)),
            Self::Seconds { .. } => Duration::try_from_secs_f64(number)
                .map(Value::Seconds)
                .map_err(|_| self.expected(shown, absent)),
            _ => Ok(Value::Number(number)),
        }
    }

    fn list(
        self,
        check: fn(&str) -> Result<(), String>,
        node: &Node,
        absent: Option<&str>,
    ) -> Result<Value, Wrong> {
        match &node.raw {
            Raw::List(items) => items
                .iter()
                .map(|item| match &item.raw {
                    Raw::Text(text) if !text.trim().is_empty() => list_item(text.trim(), check)
                        .map_err(|wrong| Wrong { at: Some((item.line, item.column)), ..wrong }),
                    other => Err(Wrong {
                        message: format!("expected a name, found {}", other.shown()),
                        at: Some((item.line, item.column)),
                    }),
                })
                .collect::<Result<_, _>>()
                .map(Value::List),
            // One name needs no brackets.
            Raw::Text(text) => self.parse(text, absent),
            other => Err(self.expected(&other.shown(), absent)),
        }
    }

    fn headers(self, node: &Node) -> Result<Value, Wrong> {
        let Raw::Map(entries) = &node.raw else {
            return Err(self.expected(&node.raw.shown(), None));
        };
        let mut headers = Vec::with_capacity(entries.len());
        for entry in entries {
            let wrong = |message: String| Wrong { message, at: Some((entry.line, entry.column)) };
            let name = header_name(&entry.key).map_err(&wrong)?;
            let text = match &entry.value.raw {
                Raw::Text(text) => text.clone(),
                _ => {
                    return Err(wrong(format!(
                        "the value of header `{name}` must be text; put it in quotes"
                    )));
                }
            };
            if http::HeaderValue::from_str(&text).is_err() {
                // The value itself stays unsaid: it may be a credential.
                return Err(wrong(format!(
                    "the value of header `{name}` has characters a header cannot carry"
                )));
            }
            headers.push((name, SecretString::from(text)));
        }
        Ok(Value::Headers(headers))
    }
}

/// Headers that belong to the transport or carry the credential: a file must not replace them.
const RESERVED_HEADERS: [&str; 17] = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "cookie",
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "accept-encoding",
];

fn header_name(name: &str) -> Result<String, String> {
    let lower = name.to_ascii_lowercase();
    if http::HeaderName::from_bytes(lower.as_bytes()).is_err() {
        return Err(format!("`{}` is not a header name", shortened(name)));
    }
    if RESERVED_HEADERS.contains(&lower.as_str()) {
        return Err(format!(
            "header `{lower}` is set by OMEGA itself; for a credential name its variable in `api_key_env`"
        ));
    }
    Ok(lower)
}

/// A name in a list. It is printed in logs, hence no control characters.
fn list_item(text: &str, check: fn(&str) -> Result<(), String>) -> Result<String, Wrong> {
    if text.chars().any(char::is_control) {
        return Err(Wrong::new(format!("expected a name, found `{}`", shortened(text))));
    }
    check(text).map_err(Wrong::new)?;
    Ok(String::from(text))
}

fn text_value(text: &str, check: fn(&str) -> Result<(), String>) -> Result<Value, Wrong> {
    let text = text.trim();
    check(text).map_err(Wrong::new)?;
    Ok(Value::Text(String::from(text)))
}

/// A plain decimal number, as YAML reads it; neither `inf` nor `nan`. Underscores may group digits.
fn decimal(text: &str) -> Option<f64> {
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E' | '_');
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))
        || !text.chars().all(plain)
    {
        return None;
    }
    text.replace('_', "").parse().ok().filter(|number: &f64| number.is_finite())
}

/// `text` cut to what is useful in a message, with control characters made visible.
pub(crate) fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// `1000000` as `1,000,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

impl Value {
    /// As JSON, secrets replaced by `(set)`. `absent` is the word for "no value" at this key.
    pub(crate) fn to_json(&self, absent: Option<&str>) -> serde_json::Value {
        match self {
            Self::Unset => serde_json::Value::Null,
            Self::Absent => absent.map_or(serde_json::Value::Null, |word| json!(word)),
            Self::Switch(on) => json!(on),
            Self::Count(count) => json!(count),
            Self::Number(number) => whole_or_fraction(*number),
            Self::Seconds(span) => whole_or_fraction(span.as_secs_f64()),
            Self::Word("true") => json!(true),
            Self::Word("false") => json!(false),
            Self::Word(word) => json!(word),
            Self::Text(text) => json!(text),
            Self::List(items) => json!(items),
            Self::Headers(headers) => {
                headers.iter().map(|(name, _)| (name.clone(), json!("(set)"))).collect()
            }
        }
    }

    /// The value as a variable would carry it, for values that a variable can carry.
    #[cfg(test)]
    pub(crate) fn to_variable(&self, absent: Option<&str>) -> Option<String> {
        match self.to_json(absent) {
            serde_json::Value::String(text) => Some(text),
            serde_json::Value::Array(items) => {
                Some(items.iter().filter_map(|item| item.as_str()).collect::<Vec<_>>().join(","))
            }
            serde_json::Value::Null | serde_json::Value::Object(_) => None,
            other => Some(other.to_string()),
        }
    }

    /// Are both the same value? Headers are compared by name and content.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Headers(ours), Self::Headers(theirs)) => {
                ours.len() == theirs.len()
                    && ours.iter().zip(theirs).all(|((name, value), (their_name, their_value))| {
                        name == their_name && value.expose_secret() == their_value.expose_secret()
                    })
            }
            _ => self.to_json(None) == other.to_json(None),
        }
    }
}

/// `60.0` as `60`, `0.5` as `0.5`.
fn whole_or_fraction(number: f64) -> serde_json::Value {
    // Every range ends far below 2^53, so whole numbers convert exactly.
    if number.fract() == 0.0 && number.abs() < 9e15 { json!(number as i64) } else { json!(number) }
}
