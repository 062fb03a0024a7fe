//! Counting text exactly, for models whose encoding is public: OpenAI's. Built with the cargo feature `tokenizer`.
//!
//! The tables are part of the program; nothing is downloaded. A tokenizer spends time in proportion to what a stranger
//! sends, and most on text without the boundaries it splits at, so two guards stand in front of it: how much text a
//! request may have in all, and how long a stretch of it may be without a boundary. Beyond either, bytes are counted.
//! Measured (release build, 2 shared cores): both tables take 0.16 s to unpack and 31 MB; 64 KiB of documentation are
//! counted in 1 ms, the worst 64 KiB the guards let through (4,000 spaces, a letter, and again) in 13 ms.
//!
//! Chosen: `tiktoken` 4.1.2, 97 MB/s on mixed text; `bpe-openai` 0.3.2 reads 16 MB/s and keeps 67 MB, and
//! `tiktoken-rs` 0.12.1 panics on a million spaces. All three count alike (60,000 random strings). Should it go idle, this
//! file is the only one to change.

use std::fmt;

use tiktoken::CoreBpe;

/// The longest stretch without a boundary, in bytes. The merge of one piece takes `n log n`; ordinary text has a
/// boundary every few bytes, and Chinese without punctuation one every few hundred.
const STRETCH_MAX: usize = 4 * 1024;

/// The exact counter.
#[derive(Clone, Copy)]
pub(super) struct Exact {
    bytes_max: u64,
    o200k: &'static CoreBpe,
    cl100k: &'static CoreBpe,
}

impl Exact {
    /// Unpacks the tables, which takes some tenths of a second the first time in a process.
    pub(super) fn try_new(bytes_max: u64) -> Result<Self, super::TokenizerMissing> {
        let table = |name| tiktoken::get_encoding(name).ok_or(super::TokenizerMissing);
        Ok(Self { bytes_max, o200k: table("o200k_base")?, cl100k: table("cl100k_base")? })
    }

    /// Whether this model's encoding is known.
    pub(super) fn knows(self, model: &str) -> bool {
        self.encoding(model).is_some()
    }

    /// The tokens of these texts, each by itself; `None` if the guards or the model forbid counting.
    pub(super) fn count(self, model: &str, texts: &[&str]) -> Option<u64> {
        let encoding = self.encoding(model)?;
        let bytes: u64 = texts.iter().map(|text| text.len() as u64).sum();
        if bytes > self.bytes_max || texts.iter().any(|text| has_long_stretch(text)) {
            return None;
        }
        Some(texts.iter().map(|text| encoding.count(text) as u64).sum())
    }

    /// By the crate's table of OpenAI's models, which is that of OpenAI's own `tiktoken/model.py` and its successors.
    /// What differs between `o200k_harmony` and `o200k_base` are special tokens, which ordinary text has none of.
    fn encoding(self, model: &str) -> Option<&'static CoreBpe> {
        let bare = model.rsplit('/').next().unwrap_or(model).trim().to_ascii_lowercase();
        match tiktoken::model_to_encoding(&bare)? {
            "o200k_base" | "o200k_harmony" => Some(self.o200k),
            "cl100k_base" => Some(self.cl100k),
            _ => None,
        }
    }
}

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exact").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

/// Whether some stretch is longer than [`STRETCH_MAX`]: letters, white space or signs without a change from one to
/// another. Both encodings split at such changes (and within digits), so no piece is longer than two stretches.
fn has_long_stretch(text: &str) -> bool {
    if text.len() <= STRETCH_MAX {
        return false;
    }
    let (mut classes, mut length) = (0, 0);
    for letter in text.chars() {
        let next = classes_of(letter);
        (classes, length) = match classes & next {
            DIGIT | 0 => (next, letter.len_utf8()),
            both => (both, length + letter.len_utf8()),
        };
        if length > STRETCH_MAX {
            return true;
        }
    }
    false
}

/// The classes a character may belong to, as the patterns of the encodings see it: a set, since the standard library
/// does not tell letters, marks and signs apart, and since the two patterns differ over marks. Known beyond ASCII is
/// what writes text without spaces.
fn classes_of(letter: char) -> u8 {
    match letter {
        'a'..='z' | 'A'..='Z' => LETTER,
        _ if letter.is_whitespace() => SPACE,
        _ if letter.is_numeric() => DIGIT,
        _ if letter.is_ascii() => SIGN,
        // Han, kana, Hangul.
        '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' => LETTER,
        '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{ac00}'..='\u{d7a3}' => LETTER,
        // Their punctuation, and dashes, quotes and dots.
        '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}' | '\u{2010}'..='\u{2027}' => SIGN,
        '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}' => SIGN,
        _ => LETTER | SIGN,
    }
}

const LETTER: u8 = 1;
const SIGN: u8 = 2;
const SPACE: u8 = 4;
const DIGIT: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn exact() -> Exact {
        Exact::try_new(64 * 1024).unwrap()
    }

    /// Counts published with the encodings. Source: tiktoken's README and OpenAI's cookbook, "How to count tokens with
    /// tiktoken": "tiktoken is great!" is 6 tokens of `cl100k_base` and of `o200k_base`.
    #[test]
    fn published_counts_are_met() {
        for model in
            ["gpt-5.2", "openai/gpt-4o", "GPT-4", "o3-mini", "text-embedding-3-small", "gpt-oss-120b"]
        {
            assert_eq!(exact().count(model, &["tiktoken is great!"]), Some(6), "{model}");
            assert_eq!(exact().count(model, &["hello world"]), Some(2), "{model}");
            assert_eq!(exact().count(model, &["hello world", "", "hello world"]), Some(4), "{model}");
        }
    }

    #[test]
    fn models_of_other_makers_are_not_known() {
        for model in ["claude-opus-5-5", "gemini-3-pro", "grok-5", "deepseek-v3", "qwen3-32b", "llama-4", ""]
        {
            assert!(!exact().knows(model), "{model}");
            assert_eq!(exact().count(model, &["hello world"]), None, "{model}");
        }
    }

    #[test]
    fn words_that_look_like_special_tokens_are_ordinary_text() {
        assert!(exact().count("gpt-5.2", &["<|endoftext|>"]) > Some(1));
    }

    #[test]
    fn more_text_than_allowed_is_not_counted() {
        let word = "word ".repeat(13_108);
        assert_eq!(exact().count("gpt-5.2", &[&word[..65_536]]), Some(13_108));
        assert_eq!(exact().count("gpt-5.2", &[&word[..65_537]]), None);
        assert_eq!(exact().count("gpt-5.2", &[&word[..40_000], &word[..40_000]]), None);
    }

    #[test]
    fn a_stretch_without_boundaries_is_not_counted() {
        for unit in ["a", " ", "\n", "=", "中", "a\u{301}", "-\u{301}", "!Ⓐ", "é"] {
            let long = unit.repeat(STRETCH_MAX / unit.len() + 1);
            assert_eq!(exact().count("gpt-5.2", &[&long]), None, "{unit:?}");
            let shorter = unit.repeat(STRETCH_MAX / unit.len());
            assert!(exact().count("gpt-5.2", &[&shorter]).is_some(), "{unit:?}");
        }
        for ordinary in [
            "Ordinary prose, with stops. ",
            "1234567890",
            "{\"a\": [1, 2]}\n",
            "中文，没有空格。",
            "हिन्दी में ",
        ] {
            let long = ordinary.repeat(60_000 / ordinary.len());
            assert!(exact().count("gpt-5.2", &[&long]).is_some(), "{ordinary:?}");
        }
    }
}
