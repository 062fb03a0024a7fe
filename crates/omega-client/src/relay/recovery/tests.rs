//! What a continuation adds is what the caller lacks, and nothing else is ever joined.

use omega_protocol::{ChunkChoice, Delta, FinishReason, ToolCallDelta};

use super::*;

fn chunk(text: &str) -> ChatChunk {
    let delta = Delta { content: Some(text.to_owned()), ..Delta::default() };
    ChatChunk { choices: vec![ChunkChoice { delta, ..ChunkChoice::default() }], ..ChatChunk::default() }
}

/// What goes to the caller of these pieces, or nothing if they are another answer.
fn joined(mut splice: Splice, pieces: &[&str]) -> Option<String> {
    let mut all = String::new();
    for piece in pieces {
        let mut chunk = chunk(piece);
        if !splice.join(&mut chunk) {
            return None;
        }
        all.push_str(chunk.choices[0].delta.content.as_deref().unwrap_or_default());
    }
    Some(all)
}

/// A text in pieces of so many characters.
fn pieces(text: &str, size: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(size).map(|piece| piece.iter().collect()).collect()
}

#[test]
fn an_answer_begun_again_gives_what_is_missing_whatever_its_pieces() {
    let whole = "Héllo wörld, 世界 is large 🙂!";
    for (at, _) in whole.char_indices() {
        for size in 1..12 {
            let pieces = pieces(whole, size);
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let said = joined(Splice::new(Joint::Restart, &whole[..at]), &pieces);
            assert_eq!(said.as_deref(), Some(&whole[at..]), "cut at {at}, pieces of {size}");
        }
    }
}

#[test]
fn another_answer_is_never_joined() {
    for (delivered, pieces) in [
        ("Hello", &["Hallo"][..]),
        ("Hello", &["He", "lp me"]),
        // Two characters whose first byte is the same: a comparison by bytes that ends in the middle of one.
        ("né", &["nè"]),
        ("n\u{e9}", &["n", "\u{e8}"]),
    ] {
        assert_eq!(joined(Splice::new(Joint::Restart, delivered), pieces), None, "{delivered}: {pieces:?}");
    }
}

#[test]
fn an_answer_that_ends_before_what_was_delivered_is_another_one() {
    let mut splice = Splice::new(Joint::Restart, "Hello");
    assert!(splice.join(&mut chunk("Hel")));
    let mut end = chunk("");
    end.choices[0].finish_reason = Some(FinishReason::Stop);
    assert!(!splice.join(&mut end));
    let mut splice = Splice::new(Joint::Restart, "Hello");
    let mut calls = chunk("");
    calls.choices[0].delta.tool_calls.push(ToolCallDelta::default());
    assert!(!splice.join(&mut calls), "it wants something called instead");
}

#[test]
fn an_answer_that_ends_exactly_there_is_the_same() {
    let mut splice = Splice::new(Joint::Restart, "Hello");
    let mut end = chunk("Hello");
    end.choices[0].finish_reason = Some(FinishReason::Stop);
    assert!(splice.join(&mut end));
    assert_eq!(end.choices[0].delta.content, None);
}

#[test]
fn reasoning_before_the_answer_begun_again_is_not_shown_twice() {
    let mut splice = Splice::new(Joint::Restart, "Hello");
    let mut thought = chunk("");
    thought.choices[0].delta.reasoning_content = Some("hm".into());
    assert!(splice.join(&mut thought));
    assert_eq!(thought.choices[0].delta.reasoning_content, None);
    assert_eq!(joined(splice, &["Hello", " you"]).as_deref(), Some(" you"));
}

#[test]
fn white_space_that_a_prefill_may_not_end_with_comes_once() {
    for (delivered, pieces, expected) in [
        ("Hello", &[" you"][..], " you"),
        ("Hello ", &[" you"], "you"),
        ("Hello ", &["", " you"], "you"),
        ("Hello ", &["you"], "you"),
        ("Hello\n\n", &["\n\nyou"], "you"),
    ] {
        let said = joined(Splice::new(Joint::Prefill, delivered), pieces);
        assert_eq!(said.as_deref(), Some(expected), "{delivered:?} {pieces:?}");
    }
}
