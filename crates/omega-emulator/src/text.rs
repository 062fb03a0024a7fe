//! The emulator's own measure of text. A token is at most four bytes of whole characters: close to the published
//! rule of thumb of about four characters (ai.google.dev, token guide, read 2026-11-23), cheap, and the same for
//! input and output, so that usage always adds up. It is no vendor's tokenizer and does not pretend to be one.

const TOKEN_BYTES: usize = 4;

/// Splits text into tokens; together they are the text again.
pub(crate) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut end = 0;
        for (at, character) in rest.char_indices() {
            if at > 0 && at + character.len_utf8() > TOKEN_BYTES {
                break;
            }
            end = at + character.len_utf8();
        }
        let (token, tail) = rest.split_at(end);
        rest = tail;
        (!token.is_empty()).then_some(token)
    })
}

/// How many tokens a text has.
pub(crate) fn count(text: &str) -> u64 {
    if text.is_ascii() { text.len().div_ceil(TOKEN_BYTES) as u64 } else { tokens(text).count() as u64 }
}

/// One token of filler text: a blank and three letters.
pub(crate) fn filler(dice: &mut fastrand::Rng) -> &'static str {
    const WORDS: [&str; 32] = [
        " air", " ant", " arc", " bay", " bee", " box", " cup", " day", " dew", " elm", " fig", " fir",
        " fox", " hay", " ice", " ink", " jar", " key", " log", " map", " net", " oak", " owl", " pea",
        " ray", " sea", " sky", " sun", " tea", " web", " yak", " zip",
    ];
    WORDS[dice.usize(..WORDS.len())]
}

/// A number written in the text as `[[name:N]]`: how a prompt asks the emulator for something.
pub(crate) fn marker(text: &str, name: &str) -> Option<u64> {
    let start = text.rfind(&format!("[[{name}:"))? + name.len() + 3;
    let (number, _) = text[start..].split_once("]]")?;
    number.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_the_text_again_and_are_counted_alike() {
        for text in ["", "a", "Hello, world", "日本語のテキスト", "naïve café 🙂🙂!", "abcd", "abcde"]
        {
            assert_eq!(tokens(text).collect::<String>(), text);
            assert_eq!(tokens(text).count() as u64, count(text), "{text}");
        }
        assert_eq!(count("abcd"), 1);
        assert_eq!(count("abcde"), 2);
        assert_eq!(count("日本"), 2);
    }

    #[test]
    fn filler_is_one_token_each() {
        let mut dice = fastrand::Rng::with_seed(4);
        let text: String = (0..100).map(|_| filler(&mut dice)).collect();
        assert_eq!(count(&text), 100);
    }

    #[test]
    fn the_last_marker_of_a_name_counts() {
        assert_eq!(marker("x [[output-tokens:12]] [[output-tokens: 7 ]]", "output-tokens"), Some(7));
        assert_eq!(marker("[[output-tokens:x]]", "output-tokens"), None);
        assert_eq!(marker("[[output-tokens:3", "output-tokens"), None);
        assert_eq!(marker("nothing", "output-tokens"), None);
    }
}
