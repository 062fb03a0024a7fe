//! YAML text into a tree whose every node knows its line and column.
//!
//! serde-saphyr parses; this module bounds what it may spend (size, depth, nodes, aliases) and keeps the positions,
//! so that a problem found later in a value can still point at the place where it was written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{MessageFormatter as _, Spanned};

use crate::value::shortened;

/// A value and where it stands, 1-based.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) raw: Raw,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// What was written.
#[derive(Debug)]
pub(crate) enum Raw {
    Null,
    Switch(bool),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map, where it stands, and its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) value: Node,
}

/// Why a text is not YAML we read.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) message: String,
    pub(crate) at: Option<(u32, u32)>,
}

/// The largest configuration file read: far above any real one, far below what could hurt.
pub(crate) const MAX_BYTES: u64 = 1024 * 1024;

impl Raw {
    /// How a message names it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Null => String::from("nothing"),
            Self::Switch(on) => format!("`{on}`"),
            Self::Number(number) => format!("`{number}`"),
            Self::Text(text) => format!("`{}`", shortened(text)),
            Self::List(_) => String::from("a list"),
            Self::Map(_) => String::from("a section"),
        }
    }
}

/// Parses one YAML document. An empty one is `Null`.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let budget = serde_saphyr::budget! {
        max_depth: 24,
        max_nodes: 50_000,
        max_events: 200_000,
        max_aliases: 500,
        max_anchors: 500,
        max_documents: 1,
        max_merge_keys: 500,
        max_total_scalar_bytes: 4 * 1024 * 1024,
    };
    let options = serde_saphyr::options! { budget: budget, with_snippet: false };
    serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options).map(Node::from).map_err(|error| {
        let message = serde_saphyr::DefaultMessageFormatter.format_message(&error).into_owned();
        let at = error.location().map(|at| (position(at.line()), position(at.column())));
        SyntaxError { message, at }
    })
}

impl From<Spanned<Raw>> for Node {
    fn from(spanned: Spanned<Raw>) -> Self {
        // Through an alias, the place of use is the one the reader looks at.
        Self {
            raw: spanned.value,
            line: position(spanned.referenced.line()),
            column: position(spanned.referenced.column()),
        }
    }
}

fn position(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, on: bool) -> Result<Raw, E> {
        Ok(Raw::Switch(on))
    }

    // Counts are compared with ranges that end far below 2^53, so a double keeps every number that can be right.
    fn visit_i64<E>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw::Number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Raw, E> {
        Ok(Raw::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Raw, E> {
        Ok(Raw::Number(number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(String::from(text)))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Raw>>()? {
            list.push(Node::from(item));
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        // The parser refuses a key that is written twice.
        let mut map = Vec::new();
        while let Some((key, value)) = entries.next_entry::<Spanned<String>, Spanned<Raw>>()? {
            map.push(Entry {
                line: position(key.referenced.line()),
                column: position(key.referenced.column()),
                key: key.value,
                value: Node::from(value),
            });
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(node: &'a Node, key: &str) -> &'a Entry {
        let Raw::Map(entries) = &node.raw else { panic!("not a map: {node:?}") };
        entries.iter().find(|entry| entry.key == key).expect("the key is there")
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let tree = parse("a:\n  b: 1.5\n  'c': [x, \"2\"]\n").unwrap();
        let b = entry(&entry(&tree, "a").value, "b");
        assert_eq!((b.line, b.column, b.value.line, b.value.column), (2, 3, 2, 6));
        let c = entry(&entry(&tree, "a").value, "c");
        assert_eq!((c.line, c.column), (3, 3));
        let Raw::List(items) = &c.value.raw else { panic!("not a list") };
        assert_eq!((items[1].line, items[1].column), (3, 12));
        assert!(matches!(&items[1].raw, Raw::Text(text) if text == "2"));
    }

    #[test]
    fn an_alias_points_at_the_place_of_use() {
        let tree = parse("a: &x 5\nb: *x\n").unwrap();
        let b = entry(&tree, "b");
        assert_eq!((b.value.line, b.value.column), (2, 4));
        assert!(matches!(b.value.raw, Raw::Number(5.0)));
    }

    #[test]
    fn an_empty_document_is_nothing() {
        assert!(matches!(parse("").unwrap().raw, Raw::Null));
        assert!(matches!(parse("# only a comment\n").unwrap().raw, Raw::Null));
    }

    #[test]
    fn a_key_written_twice_is_an_error_at_its_place() {
        let error = parse("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(error.at.map(|at| at.0), Some(3), "{error:?}");
    }

    #[test]
    fn an_alias_bomb_ends_in_an_error() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let inner = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} ["));
            bomb.push_str(&format!("*a{inner}, ").repeat(10));
            bomb.push_str("]\n");
        }
        assert!(parse(&bomb).is_err());
    }

    #[test]
    fn deep_nesting_ends_in_an_error() {
        assert!(parse(&"[".repeat(100_000)).is_err());
        let mut nested = String::new();
        for depth in 0..60 {
            nested.push_str(&format!("{}a:\n", "  ".repeat(depth)));
        }
        assert!(parse(&nested).is_err());
    }

    #[test]
    fn a_second_document_is_an_error() {
        assert!(parse("a: 1\n---\nb: 2\n").is_err());
    }

    #[test]
    fn malformed_yaml_names_its_line() {
        let error = parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(error.at.is_some_and(|at| at.0 >= 2), "{error:?}");
    }
}
