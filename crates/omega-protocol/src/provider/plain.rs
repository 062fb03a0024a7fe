//! Reading the usual event of a stream without keeping anything of it.
//!
//! What reads here is narrower in every point than what the decoders take: it reads there as well, with the same content.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

/// The data of a piece that is one event as nearly everybody writes it: one line of data, and the blank one behind it.
pub(super) fn data_line(piece: &[u8]) -> Option<&[u8]> {
    let data = piece.strip_prefix(b"data: ")?;
    let data = data.strip_suffix(b"\n\n").or_else(|| data.strip_suffix(b"\r\n\r\n"))?;
    memchr::memchr2(b'\n', b'\r', data).is_none().then_some(data)
}

/// The inside of a JSON text up to its first quote or escape, and what stands from there on; `None` if it is none.
pub(super) fn raw_text(inside: &[u8]) -> Option<(&[u8], &[u8])> {
    let (text, rest) = inside.split_at(memchr::memchr2(b'"', b'\\', inside)?);
    // Control characters are no JSON.
    let is_text = text.iter().all(|byte| *byte >= b' ') && std::str::from_utf8(text).is_ok();
    is_text.then_some((text, rest))
}

/// Reads an event's data as an object of this form; `None` if it is anything else.
pub(super) fn read<'d, T: Deserialize<'d>>(data: &'d [u8]) -> Option<T> {
    serde_json::from_slice(data).ok().map(|Object(event)| event)
}

/// An object, and not the array of its fields that derived readers take for one.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// The length of a text.
#[derive(Default)]
pub(super) struct Length<'a> {
    pub(super) bytes: usize,
    /// The text where it stands in the data, if nothing in it is escaped.
    pub(super) raw: Option<&'a str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Length<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Measure;
        impl<'de> Visitor<'de> for Measure {
            type Value = Length<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Length<'de>, E> {
                Ok(Length { bytes: text.len(), raw: Some(text) })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Length<'de>, E> {
                Ok(Length { bytes: text.len(), raw: None })
            }
        }
        deserializer.deserialize_str(Measure)
    }
}

/// No value but `null` reads as this.
pub(super) enum Nothing {}

impl<'de> Deserialize<'de> for Nothing {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(de::Error::custom("more than a glance is needed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_data_and_nothing_beside_it() {
        assert_eq!(data_line(b"data: {}\n\n"), Some(&b"{}"[..]));
        assert_eq!(data_line(b"data: {}\r\n\r\n"), Some(&b"{}"[..]));
        let others: [&[u8]; 9] = [
            b"",
            b"data: {}\n",
            b"data: {}\r\n",
            b"data: {}\r\r",
            b"data: {}\n\n\n",
            b"data:{}\n\n",
            b"data: {\ndata: }\n\n",
            b"data: 1\n\ndata: 2\n\n",
            b"id: 1\ndata: {}\n\n",
        ];
        for piece in others {
            assert_eq!(data_line(piece), None, "{}", piece.escape_ascii());
        }
    }
}
