//! The event parser against the standard, and against another implementation of it.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use omega_protocol::ProviderError;
use omega_protocol::sse::{EventTooLarge, Item, SseParser};
use proptest::prelude::*;

type Parsed = (Vec<(Vec<u8>, Vec<u8>)>, Vec<Vec<u8>>);

/// Events and stray lines of a stream that comes in these pieces.
fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Parsed {
    let mut parser = SseParser::new();
    let (mut events, mut strays) = (Vec::new(), Vec::new());
    for piece in pieces {
        let pushed: Result<(), EventTooLarge> = parser.push(piece, |item| {
            match item {
                Item::Event { name, data } => events.push((name.to_vec(), data.to_vec())),
                Item::Stray(line) => strays.push(line.to_vec()),
            }
            Ok(())
        });
        pushed.unwrap();
    }
    (events, strays)
}

fn events(text: &str) -> Vec<(String, String)> {
    let text_of = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    parse([text.as_bytes()]).0.into_iter().map(|(name, data)| (text_of(name), text_of(data))).collect()
}

fn pair(name: &str, data: &str) -> (String, String) {
    (name.to_owned(), data.to_owned())
}

#[test]
fn lines_end_in_lf_cr_or_crlf() {
    for end in ["\n", "\r", "\r\n"] {
        let text = format!("event: a{end}data: 1{end}{end}data: 2{end}data:3{end}{end}");
        assert_eq!(events(&text), [pair("a", "1"), pair("", "2\n3")], "{end:?}");
    }
}

#[test]
fn only_one_space_after_the_colon_is_taken_off() {
    assert_eq!(events("data:  two\n\ndata:none\n\ndata\n\n"), [pair("", " two"), pair("", "none")]);
}

#[test]
fn a_byte_order_mark_is_taken_off_once() {
    assert_eq!(events("\u{feff}data: x\n\n"), [pair("", "x")]);
    assert_eq!(events("\n\u{feff}data: x\n\n"), []);
    let (parsed, _) = parse([&b"\xef"[..], b"\xbb", b"\xbfdata: x\n\n"]);
    assert_eq!(parsed, [(vec![], b"x".to_vec())]);
}

#[test]
fn comments_ids_and_retries_say_nothing_and_other_lines_are_shown() {
    let (parsed, strays) = parse([&b": c\nid: 1\nretry: 5\n{\n \"error\": 1\n}\ndata: x\n\n"[..]]);
    assert_eq!(parsed, [(vec![], b"x".to_vec())]);
    assert_eq!(strays, [b"{".to_vec(), b" \"error\": 1".to_vec(), b"}".to_vec()]);
}

#[test]
fn a_name_without_data_is_no_event_and_is_forgotten() {
    assert_eq!(events("event: a\n\ndata: x\n\n"), [pair("", "x")]);
}

#[test]
fn what_is_unfinished_is_shown_at_the_end_only() {
    let mut parser = SseParser::new();
    let mut seen = Vec::new();
    let mut take = |item: Item<'_>| -> Result<(), ProviderError> {
        if let Item::Event { data, .. } = item {
            seen.push(data.to_vec());
        }
        Ok(())
    };
    parser.push(b"data: a\ndata: b", &mut take).unwrap();
    parser.finish(&mut take).unwrap();
    parser.finish(&mut take).unwrap();
    assert_eq!(seen, [b"a\nb".to_vec()]);
}

#[test]
fn an_event_may_be_as_large_as_the_limit_and_no_larger() {
    let push = |text: &[u8]| {
        let mut parser = SseParser::with_max_event_bytes(10);
        text.iter().try_for_each(|byte| parser.push::<EventTooLarge>(std::slice::from_ref(byte), |_| Ok(())))
    };
    assert_eq!(push(b"data: 1234\n\ndata: 5678\n\n"), Ok(()));
    assert_eq!(push(b"data: 12345\n\n"), Err(EventTooLarge { limit: 10 }));
    assert_eq!(push(b"data:12\ndata:34\ndata:56\ndata:78\n\n"), Err(EventTooLarge { limit: 10 }));
    assert_eq!(push(b"data: 12\n\ndata: 34\n\ndata: 56\n\ndata: 78\n\n"), Ok(()));
    assert_eq!(push(b": a comment that never ends"), Err(EventTooLarge { limit: 10 }));
}

#[test]
fn an_error_of_the_sink_ends_the_parsing() {
    let mut count = 0;
    let result: Result<(), ProviderError> = SseParser::new().push(b"data: 1\n\ndata: 2\n\n", |_| {
        count += 1;
        Err(ProviderError::stream_broken("enough"))
    });
    assert!(result.is_err());
    assert_eq!(count, 1);
}

/// Text that looks like a stream, with every line ending and every oddity in it.
fn stream_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("data: "),
        Just("data:"),
        Just("data"),
        Just("event: "),
        Just("event"),
        Just("id: 1"),
        Just("retry: 5"),
        Just(": comment"),
        Just(":"),
        Just(" "),
        Just("\n"),
        Just("\r"),
        Just("\r\n"),
        Just("\n\n"),
        Just("\r\n\r\n"),
        Just("x"),
        Just("{\"a\":1}"),
        Just("ü"),
        Just("\u{feff}"),
        Just("[DONE]"),
        Just("datax: 1"),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// The bytes in pieces, cut at these places.
fn cut(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|window| bytes[window[0]..window[1]].to_vec()).collect()
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    proptest::collection::vec(any::<prop::sample::Index>(), 0..12)
}

proptest! {
    #[test]
    fn events_are_those_of_another_implementation(text in stream_like(), cuts in cuts()) {
        let pieces = cut(text.as_bytes(), &cuts);
        let (ours, _) = parse(pieces.iter().map(Vec::as_slice));
        let bytes = stream::iter(pieces.into_iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece))));
        let theirs: Vec<_> = sse_stream::SseStream::from_bytes_stream(bytes)
            .collect::<Vec<_>>()
            .now_or_never()
            .expect("everything is there")
            .into_iter()
            .map(|event| event.expect("the text is UTF-8"))
            // It shows blocks without data too, and events with empty data, which are none here.
            .filter_map(|event| Some((event.event.unwrap_or_default(), event.data.filter(|data| !data.is_empty())?)))
            .map(|(name, data)| (name.into_bytes(), data.into_bytes()))
            .collect();
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn where_a_stream_is_cut_makes_no_difference(bytes in proptest::collection::vec(any::<u8>(), 0..300), cuts in cuts()) {
        let pieces = cut(&bytes, &cuts);
        prop_assert_eq!(parse(pieces.iter().map(Vec::as_slice)), parse([bytes.as_slice()]));
        prop_assert_eq!(parse(bytes.chunks(1)), parse([bytes.as_slice()]));
    }
}

/// Cuts a stream into whole events, fed in pieces of these sizes.
fn events_of(stream: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let (mut ends, mut events, mut held) =
        (omega_protocol::sse::EventEnds::default(), Vec::new(), Vec::new());
    let (mut rest, mut sizes) = (stream, sizes.iter().cycle());
    while !rest.is_empty() {
        let size = (*sizes.next().expect("it is endless")).clamp(1, rest.len());
        let (mut piece, after) = rest.split_at(size);
        while let Some(end) = ends.next_end(piece) {
            held.extend_from_slice(&piece[..end]);
            events.push(std::mem::take(&mut held));
            piece = &piece[end..];
        }
        held.extend_from_slice(piece);
        rest = after;
    }
    events.push(held);
    events
}

#[test]
fn events_end_at_their_blank_line_whatever_ends_the_lines() {
    for newline in ["\n", "\r\n", "\r"] {
        let stream = "data: a\n\nevent: x\ndata: b\n\n: ping\n\ndata: c".replace('\n', newline);
        for sizes in [[1_usize, 1], [2, 3], [7, 100], [1000, 1]] {
            let events = events_of(stream.as_bytes(), &sizes);
            let texts: Vec<&str> =
                events.iter().map(|event| std::str::from_utf8(event).expect("text")).collect();
            assert_eq!(texts.concat(), stream, "nothing is lost");
            assert_eq!(texts.len(), 4, "{newline:?} {sizes:?}: {texts:?}");
            assert!(texts[1].starts_with("event: x"), "{texts:?}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_cut_event_holds_two(stream in "(data: [a-z]{0,3}|:|\n|\r|\r\n){0,40}", sizes in proptest::collection::vec(1_usize..9, 1..6)) {
        let events = events_of(stream.as_bytes(), &sizes);
        proptest::prop_assert_eq!(events.concat(), stream.as_bytes());
        for event in events {
            let mut seen = 0;
            let mut parser = SseParser::new();
            let mut note = |item: Item<'_>| -> Result<(), omega_protocol::sse::EventTooLarge> {
                seen += usize::from(matches!(item, Item::Event { .. }));
                Ok(())
            };
            parser.push(&event, &mut note).expect("small");
            parser.finish(&mut note).expect("small");
            proptest::prop_assert!(seen <= 1, "{:?} holds {}", event, seen);
        }
    }
}
