//! The usual event of a Messages stream, seen without being taken apart.

use crate::provider::plain::raw_text;

/// More text of one block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MoreText {
    /// The block's number.
    pub(super) index: u64,
    /// Bytes of text.
    pub(super) bytes: usize,
}

impl MoreText {
    /// Reads a piece of a stream that is exactly one such event as Anthropic writes it; `None` for everything else.
    ///
    /// It is narrower than the decoder in every point: what reads here reads there, with the same content.
    pub(super) fn read(piece: &[u8]) -> Option<Self> {
        let rest = piece.strip_prefix(b"event: content_block_delta\ndata: ")?;
        let rest = rest.strip_prefix(br#"{"type":"content_block_delta","index":"#)?;
        let (index, rest) = number(rest)?;
        let rest = rest.strip_prefix(br#","delta":{"type":""#)?;
        let rest = rest
            .strip_prefix(br#"text_delta","text":""#)
            .or_else(|| rest.strip_prefix(br#"thinking_delta","thinking":""#))?;
        let (text, rest) = raw_text(rest)?;
        let rest = rest.strip_prefix(br#""}"#)?;
        // Padding against listeners who measure lengths.
        let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
        (rest[spaces..] == *b"}\n\n").then_some(Self { index, bytes: text.len() })
    }
}

/// A small whole number, as JSON writes it, and what stands behind it.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    const DIGITS_MAX: usize = 6;
    let digits = text.iter().take(DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at(digits);
    let is_canonical = number == b"0" || !number.starts_with(b"0");
    if !(1..=DIGITS_MAX).contains(&digits) || !is_canonical {
        return None;
    }
    Some((number.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(index: &str, delta: &str) -> Option<(u64, usize)> {
        let piece = format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{index},\"delta\":{{{delta}\n\n"
        );
        MoreText::read(piece.as_bytes()).map(|more| (more.index, more.bytes))
    }

    #[test]
    fn text_and_thinking_are_seen_and_all_else_is_left() {
        assert_eq!(read("0", r#""type":"text_delta","text":"Hi"}}"#), Some((0, 2)));
        assert_eq!(read("217", r#""type":"thinking_delta","thinking":"世"}    }"#), Some((217, 3)));
        for delta in [
            r#""type":"text_delta","text":"a\n"}}"#,
            "\"type\":\"text_delta\",\"text\":\"a\tb\"}}",
            "\"type\":\"text_delta\",\"text\":\"a\n\nb\"}}",
            r#""type":"text_delta","text":"a","x":1}}"#,
            r#""type":"text_delta","text":"a"}"#,
            r#""type":"text_delta","text":"a"}} "#,
            r#""type":"text_delta","text":"a"},"x":1}"#,
            r#""type":"text_delta","text":1}}"#,
            r#""type":"text_delta","thinking":"a"}}"#,
            r#""type":"input_json_delta","partial_json":"a"}}"#,
            r#""type":"signature_delta","signature":"a"}}"#,
            r#""text":"a","type":"text_delta"}}"#,
        ] {
            assert_eq!(read("0", delta), None, "{delta}");
        }
        for index in ["", "00", "01", "-1", "1.0", "1e3", " 1", "1234567", "18446744073709551616"] {
            assert_eq!(read(index, r#""type":"text_delta","text":"Hi"}}"#), None, "{index}");
        }
        assert_eq!(MoreText::read(b""), None);
    }

    #[test]
    fn bytes_that_are_no_text_are_left() {
        let mut piece =
            b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\n".to_vec();
        let at = piece.windows(2).position(|part| part == b"Hi").expect("the text");
        piece[at] = 0xff;
        assert_eq!(MoreText::read(&piece), None);
    }
}
