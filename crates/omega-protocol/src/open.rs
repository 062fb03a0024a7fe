//! Objects that stay open: every field this crate knows is typed, every other one survives in `extra`.
//!
//! Providers add fields weekly, and a caller may use one before this crate has heard of it. `#[serde(flatten)]` would do
//! the same, but it buffers what it does not know twice and loses the place of an error; the visitors written by these
//! macros read known fields straight into place and unknown ones straight into a [`Map`](serde_json::Map).

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// Writes `Deserialize` and `Serialize` for a struct with a field `extra: Extra`.
///
/// One line per field: `"key" | "alias" => field mode via Type`. Modes: `required` (missing is an error), `always`
/// (missing or null is the default; always written), `optional` (left out when absent). `via` reads another type and
/// converts it. A tag such as `"object" = "chat.completion"` is written and, on reading, ignored.
macro_rules! open_object {
    ($($definition:tt)*) => {
        $crate::open::read_object! { $($definition)* }
        $crate::open::write_object! { $($definition)* }
    };
}

/// The reading half of `open_object!`.
macro_rules! read_object {
    ($type:ident $(, $tag_key:literal = $tag:literal)? {
        $( $key:literal $(| $alias:literal)* => $field:ident $mode:ident $(via $via:ty)? ),* $(,)?
    }) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[allow(non_camel_case_types, dead_code, reason = "variants carry the names of the fields")]
                enum Key { $($field,)* Tag_, Unknown_(String) }
                struct KeyVisitor;
                impl serde::de::Visitor<'_> for KeyVisitor {
                    type Value = Key;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a field name")
                    }
                    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Key, E> {
                        Ok(match key {
                            $($key $(| $alias)* => Key::$field,)*
                            $($tag_key => Key::Tag_,)?
                            other => Key::Unknown_(other.to_owned()),
                        })
                    }
                }
                impl<'de> serde::Deserialize<'de> for Key {
                    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                        deserializer.deserialize_identifier(KeyVisitor)
                    }
                }
                struct ObjectVisitor;
                impl<'de> serde::de::Visitor<'de> for ObjectVisitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$type, A::Error> {
                        $(let mut $field = None;)*
                        let mut unknown = $crate::Extra::new();
                        while let Some(key) = map.next_key::<Key>()? {
                            match key {
                                // Null is the same as absent, and never hides what an alias has already said.
                                $(Key::$field => {
                                    let value = $crate::open::read_field!(map $(, $via)?);
                                    if value.is_some() { $field = value; }
                                })*
                                Key::Tag_ => { map.next_value::<serde::de::IgnoredAny>()?; }
                                Key::Unknown_(key) => { unknown.insert(key, map.next_value()?); }
                            }
                        }
                        Ok($type { $($field: $crate::open::take_field!($mode, $field, $key),)* extra: unknown })
                    }
                }
                deserializer.deserialize_map(ObjectVisitor)
            }
        }
    };
}

/// The writing half of `open_object!`. A key of `extra` that names a known field is left out: no object ever carries
/// the same key twice.
macro_rules! write_object {
    ($type:ident $(, $tag_key:literal = $tag:literal)? {
        $( $key:literal $(| $alias:literal)* => $field:ident $mode:ident $(via $via:ty)? ),* $(,)?
    }) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap;
                let mut map = serializer.serialize_map(None)?;
                $(map.serialize_entry($tag_key, $tag)?;)?
                $($crate::open::write_field!(map, $mode, $key, self.$field);)*
                for (key, value) in &self.extra {
                    if !matches!(key.as_str(), $($key $(| $alias)* )|* $(| $tag_key)?) {
                        map.serialize_entry(key, value)?;
                    }
                }
                map.end()
            }
        }
    };
}

macro_rules! read_field {
    ($map:ident) => {
        $map.next_value::<Option<_>>()?
    };
    ($map:ident, $via:ty) => {
        $map.next_value::<Option<$via>>()?.map(Into::into)
    };
}

macro_rules! take_field {
    (required, $field:ident, $key:literal) => {
        $field.ok_or_else(|| <A::Error as serde::de::Error>::missing_field($key))?
    };
    ($mode:ident, $field:ident, $key:literal) => {
        $field.unwrap_or_default()
    };
}

macro_rules! write_field {
    ($map:ident, optional, $key:literal, $value:expr) => {
        if !$crate::open::Absent::is_absent(&$value) {
            $map.serialize_entry($key, &$value)?;
        }
    };
    ($map:ident, $mode:ident, $key:literal, $value:expr) => {
        $map.serialize_entry($key, &$value)?
    };
}

/// Writes a `Debug` that shows only the fields named: prompts and answers never reach a log through `{:?}`.
macro_rules! private_debug {
    ($type:ident { $($field:ident $(= $show:expr)?),* $(,)? } as $this:ident) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let $this = self;
                f.debug_struct(stringify!($type))
                    $(.field(stringify!($field), $crate::open::shown!($this, $field $(, $show)?)))*
                    .finish_non_exhaustive()
            }
        }
    };
}

macro_rules! shown {
    ($this:ident, $field:ident) => {
        &$this.$field
    };
    ($this:ident, $field:ident, $show:expr) => {
        &$show
    };
}

pub(crate) use {
    open_object, private_debug, read_field, read_object, shown, take_field, write_field, write_object,
};

/// Whether an `optional` field is left out when written.
pub(crate) trait Absent {
    fn is_absent(&self) -> bool;
}

impl<T> Absent for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> Absent for Vec<T> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl Absent for String {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

/// A count as providers write it: an integer, sometimes a float or (as protobuf's JSON has 64-bit integers) a string,
/// never less than zero. A count of an odd form must not cost the caller an answer that is otherwise complete.
#[derive(Clone, Copy)]
pub(crate) struct Count(u64);

impl From<Count> for u64 {
    fn from(count: Count) -> Self {
        count.0
    }
}

impl From<Count> for Option<u64> {
    fn from(count: Count) -> Self {
        Some(count.0)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountVisitor;
        impl Visitor<'_> for CountVisitor {
            type Value = Count;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a count")
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Count, E> {
                Ok(Count(value))
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Count, E> {
                Ok(Count(value.try_into().unwrap_or(0)))
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Count, E> {
                Ok(Count(value as u64)) // saturates; NaN is 0
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<Count, E> {
                Ok(Count(crate::hints::count(value).unwrap_or(0)))
            }
        }
        deserializer.deserialize_any(CountVisitor)
    }
}

/// A list of at most so many. An empty object is three bytes on the wire and hundreds in memory, so a list that only a
/// server gone wrong writes must end while it is read, not after.
pub(crate) struct AtMost<T, const MOST: usize>(Vec<T>);

impl<T, const MOST: usize> From<AtMost<T, MOST>> for Vec<T> {
    fn from(list: AtMost<T, MOST>) -> Self {
        list.0
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for AtMost<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, const MOST: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for ListVisitor<T, MOST> {
            type Value = AtMost<T, MOST>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a list of at most {MOST}")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if list.len() == MOST {
                        return Err(A::Error::invalid_length(MOST + 1, &self));
                    }
                    list.push(item);
                }
                Ok(AtMost(list))
            }
        }
        deserializer.deserialize_seq(ListVisitor(std::marker::PhantomData))
    }
}

/// One string or a list of them, as OpenAI's `stop`.
pub(crate) struct OneOrMany(Vec<String>);

impl From<OneOrMany> for Vec<String> {
    fn from(list: OneOrMany) -> Self {
        list.0
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = OneOrMany;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![value.to_owned()]))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    list.push(item);
                }
                Ok(OneOrMany(list))
            }
        }
        deserializer.deserialize_any(ListVisitor)
    }
}

/// Writes an enum of known words and `Other(String)`: `FromStr`-less, `Serialize`, `Deserialize`, `as_str`.
macro_rules! open_word {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $type {
            $($(#[$variant_doc])* $variant,)*
            /// A word this crate does not know; passed on as it came.
            Other(String),
        }

        impl $type {
            /// The word on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Other(word) => word,
                }
            }
        }

        impl From<&str> for $type {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)*
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct WordVisitor;
                impl serde::de::Visitor<'_> for WordVisitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a string")
                    }
                    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<$type, E> {
                        Ok($type::from(word))
                    }
                }
                deserializer.deserialize_str(WordVisitor)
            }
        }
    };
}

pub(crate) use open_word;
