//! Bytes go on as they came, whatever the pieces they came in, and nothing that the provider's decoder refuses leaves.

use omega_protocol::Dialect;

use super::*;

/// Everything that leaves, and whether the stream was whole.
fn passed(decoder: &mut FrameDecoder, pieces: &[&[u8]]) -> (Vec<u8>, Result<(), ProviderError>) {
    let (mut out, mut frames) = (Vec::new(), Vec::new());
    let mut run = || {
        for piece in pieces {
            decoder.push(&Bytes::copy_from_slice(piece), &mut frames)?;
        }
        decoder.finish(&mut frames)
    };
    let ended = run();
    frames.iter().for_each(|frame| out.extend_from_slice(&frame.bytes));
    (out, ended)
}

fn openai(asked_usage: bool) -> FrameDecoder {
    FrameDecoder::passing(CallerProtocol::ChatCompletions, Dialect::OpenAi.provider(), false, asked_usage)
}

fn openai_tracking(tracks: bool) -> FrameDecoder {
    FrameDecoder::passing(CallerProtocol::ChatCompletions, Dialect::OpenAi.provider(), tracks, true)
}

fn piece(delta: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}"
    )
}

const FINISH: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}";
const USAGE: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}}";

/// A healthy stream with everything that may stand between events.
fn healthy(end: &str) -> Vec<u8> {
    let events = [
        ": keep-alive".to_owned(),
        piece("{\"role\":\"assistant\",\"content\":\"\"}"),
        format!("event: message{end}id: 7{end}{}", piece("{\"content\":\"H\u{e9}\u{4e16}\"}")),
        piece("{\"content\":\"llo\"}"),
        FINISH.to_owned(),
        "data: [DONE]".to_owned(),
    ];
    events.iter().flat_map(|event| format!("{event}{end}{end}").into_bytes()).collect()
}

#[test]
fn bytes_pass_untouched_in_pieces_of_every_size() {
    for end in ["\n", "\r\n"] {
        let stream = healthy(end);
        for size in 1..=stream.len() {
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            let (out, ended) = passed(&mut openai(true), &pieces);
            ended.unwrap_or_else(|error| panic!("{size}: {error}"));
            assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&stream), "pieces of {size}");
        }
    }
}

/// Content and usage that the clocks and the limiter hear of.
fn heard(tracks: bool, pieces: &[&[u8]]) -> (usize, Option<Usage>) {
    let mut decoder =
        FrameDecoder::passing(CallerProtocol::ChatCompletions, Dialect::OpenAi.provider(), tracks, true);
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(&Bytes::copy_from_slice(piece), &mut frames).expect("healthy");
    }
    decoder.finish(&mut frames).expect("whole");
    (
        frames.iter().filter_map(Frames::content_bytes).sum(),
        frames.iter().filter_map(Frames::usage).next_back(),
    )
}

#[test]
fn what_is_heard_of_a_stream_does_not_depend_on_how_closely_it_is_looked_at() {
    for end in ["\n", "\r\n", "\r"] {
        let stream = healthy(end).into_iter().chain(format!("{USAGE}{end}{end}").into_bytes());
        // The usage comes before the last line.
        let stream: Vec<u8> = stream.collect();
        let text = String::from_utf8(stream).expect("text").replace(&format!("data: [DONE]{end}{end}"), "");
        let stream = format!("{text}data: [DONE]{end}{end}").into_bytes();
        for size in 1..=stream.len() {
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            let (content, usage) = heard(true, &pieces);
            assert_eq!((content, usage), heard(false, &pieces), "pieces of {size}");
            assert_eq!(content, "H\u{e9}\u{4e16}llo".len(), "pieces of {size}");
            assert_eq!(usage.map(|usage| usage.output_tokens), Some(2), "pieces of {size}");
        }
    }
}

/// Feeds `usual` twice, then each of these, then `usual` twice again: whether event by event and with a glance, or byte
/// by byte and with a long look, the same leaves and the same is said of the whole. Returns how many were refused before
/// the stream's own `end`.
fn judged_alike(
    decoder: impl Fn(bool) -> FrameDecoder,
    [start, usual, end]: [&str; 3],
    before: &[&str],
) -> usize {
    let mut refused = 0;
    for before in before {
        let events = start.split_inclusive("\n\n").chain([usual, usual, before, usual, usual, end]);
        let pieces: Vec<&[u8]> = events.map(str::as_bytes).collect();
        let whole = pieces.concat();
        let (out, ended) = passed(&mut decoder(false), &pieces);
        let bytewise: Vec<&[u8]> = whole.chunks(1).collect();
        let (expected, verdict) = passed(&mut decoder(true), &bytewise);
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected), "{before:?}");
        let text = |verdict: Result<(), ProviderError>| verdict.map_err(|error| error.to_string());
        refused += usize::from(verdict.is_err());
        assert_eq!(text(ended), text(verdict), "{before:?}");
    }
    refused
}

/// Each changes what the same bytes behind it mean, or must not.
const BEFORE: [&str; 10] = [
    "",
    ": comment\n\n",
    ": half a comment ",
    "event: error\n",
    "event: ping\n",
    "id: 7\r",
    "\r",
    "data: 1\n",
    "data: {",
    "data: {\"error\":{\"message\":\"no\"}}\n\n",
];

#[test]
fn an_event_like_the_last_is_judged_by_what_stands_before_it() {
    let usual = format!("{}\n\n", piece("{\"content\":\" sky\"}"));
    let end = format!("{FINISH}\n\ndata: [DONE]\n\n");
    let own = [
        &*end,
        "data: [DONE]\n\n",
        "event: message\n",
        "data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{\"content\":\"a\"}}]}\n\n",
    ];
    let refused = judged_alike(openai_tracking, ["", &usual, &end], &[&BEFORE[..], &own].concat());
    assert_eq!(refused, 5, "the error's name, the two broken ones, the error and the end before its time");
}

#[test]
fn a_piece_that_is_one_event_is_not_copied() {
    let event = Bytes::from(format!("{}\n\n", piece("{\"content\":\"a\"}")));
    let mut frames = Vec::new();
    openai(true).push(&event, &mut frames).expect("an event");
    assert_eq!(frames[0].bytes.as_ptr(), event.as_ptr());
}

#[test]
fn the_usage_that_we_asked_for_is_ours() {
    let stream = format!("{}\n\n{FINISH}\n\n{USAGE}\n\ndata: [DONE]\n\n", piece("{\"content\":\"a\"}"));
    for (asked, kept) in [(true, true), (false, false)] {
        let mut decoder = openai(asked);
        let mut frames = Vec::new();
        decoder.push(&Bytes::from(stream.clone()), &mut frames).expect("a stream");
        let out: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes.to_vec()).collect();
        assert_eq!(String::from_utf8_lossy(&out).contains("\"usage\":{"), kept);
        let known: Vec<_> = frames.iter().filter_map(Frames::usage).collect();
        assert_eq!(known.len(), 1, "and known either way");
    }
}

#[test]
fn a_last_line_that_is_missing_is_added_and_one_that_is_there_is_not_doubled() {
    let without = format!("{}\n\n{FINISH}\n\n", piece("{\"content\":\"a\"}"));
    let (out, ended) = passed(&mut openai(true), &[without.as_bytes()]);
    ended.expect("whole");
    assert!(out.ends_with(b"data: [DONE]\n\n"));
    let (out, ended) = passed(&mut openai(true), &[&healthy("\n")]);
    ended.expect("whole");
    assert_eq!(String::from_utf8_lossy(&out).matches("[DONE]").count(), 1);
}

#[test]
fn what_is_no_event_never_leaves() {
    let good = format!("{}\n\n", piece("{\"content\":\"a\"}"));
    for bad in ["data: {oops\n\n", "data: {\"error\":{\"message\":\"m\",\"type\":\"server_error\"}}\n\n"] {
        let stream = format!("{good}{bad}{good}");
        for size in [1, 10, stream.len()] {
            let pieces: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
            let (out, ended) = passed(&mut openai(true), &pieces);
            ended.expect_err("a break");
            assert_eq!(String::from_utf8_lossy(&out), good, "{bad}");
        }
    }
}

#[test]
fn a_stream_without_its_terminator_is_no_whole_one() {
    let (_, ended) = passed(&mut openai(true), &[format!("{}\n\n", piece("{\"content\":\"a\"}")).as_bytes()]);
    ended.expect_err("it was cut");
}

#[test]
fn an_event_that_never_ends_is_given_up() {
    let mut decoder = openai(true);
    let mut frames = Vec::new();
    let filler = Bytes::from(vec![b'a'; 1024 * 1024]);
    decoder.push(&Bytes::from_static(b"data: "), &mut frames).expect("a beginning");
    let refused = (0..64).find_map(|_| decoder.push(&filler, &mut frames).err());
    refused.expect("it is bounded");
    assert!(frames.is_empty());
}

/// A Messages stream, event by event; the fourth is the usual one.
const MESSAGES: [&str; 7] = [
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"c\",\"content\":[],\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n",
    "event: ping\ndata: {\"type\":\"ping\"}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\n",
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":2}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
];

/// A stream of the Responses API; the second event is the usual one.
const RESPONSES: [&str; 3] = [
    "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r\",\"object\":\"response\",\"created_at\":1,\"status\":\"in_progress\",\"model\":\"m\",\"output\":[]}}\n\n",
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":1,\"item_id\":\"i\",\"output_index\":0,\"content_index\":0,\"delta\":\"Hi\"}\n\n",
    "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":2,\"response\":{\"id\":\"r\",\"object\":\"response\",\"created_at\":1,\"status\":\"completed\",\"model\":\"m\",\"output\":[],\"usage\":{\"input_tokens\":1,\"output_tokens\":2,\"total_tokens\":3}}}\n\n",
];

/// A stream of Gemini's; the first event is the usual one.
const GEMINI: [&str; 2] = [
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hi\"}],\"role\":\"model\"},\"index\":0}]}\r\n\r\n",
    "data: {\"candidates\":[{\"content\":{\"parts\":[],\"role\":\"model\"},\"finishReason\":\"STOP\",\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":1,\"candidatesTokenCount\":1,\"totalTokenCount\":2}}\r\n\r\n",
];

fn gemini(tracks: bool) -> FrameDecoder {
    FrameDecoder::passing(CallerProtocol::GenerateContent, Dialect::Google.provider(), tracks, true)
}

fn responses(tracks: bool) -> FrameDecoder {
    FrameDecoder::passing(CallerProtocol::Responses, Dialect::OpenAi.provider(), tracks, true)
}

fn anthropic(tracks: bool) -> FrameDecoder {
    FrameDecoder::passing(CallerProtocol::Messages, Dialect::Anthropic.provider(), tracks, true)
}

#[test]
fn the_usual_event_of_every_protocol_is_judged_by_what_stands_before_it() {
    let [start, ping, block, usual, stop, delta, end] = MESSAGES;
    let nowhere = usual.replace("\"index\":0", "\"index\":1");
    let (start, end) = ([start, block].concat(), [stop, delta, end].concat());
    let own = [
        ping,
        stop,
        &nowhere,
        &end,
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"no\"}}\n\n",
    ];
    let refused = judged_alike(anthropic, [&start, usual, &end], &[&BEFORE[..], &own].concat());
    assert_eq!(refused, 4, "a block that never began, the two broken ones and the error that is named so");

    let [created, usual, completed] = RESPONSES;
    let own = [
        usual.replace("output_text", "refusal"),
        usual.replace("\"delta\":\"Hi\"", "\"delta\":1"),
        usual.replace("\"delta\":\"Hi\"", "\"error\":{\"message\":\"no\"}"),
        completed.to_owned(),
        "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\"}}\n\n".to_owned(),
    ];
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let refused = judged_alike(responses, [created, usual, completed], &[&BEFORE[..], &own].concat());
    assert_eq!(refused, 5, "the two broken ones and the three errors");

    let [usual, end] = GEMINI;
    let own = [
        usual.replace("\"index\":0", "\"index\":1"),
        usual.replace("}],\"role\"", "},{\"text\":\"a\"}],\"role\""),
        usual.replace("\r\n", "\n"),
        "{\"error\":{\"code\":503,\"message\":\"no\",\"status\":\"UNAVAILABLE\"}}\r\n".to_owned(),
        "{\"error\":\r\n".to_owned(),
    ];
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let refused = judged_alike(gemini, ["", usual, end], &[&BEFORE[..], &own].concat());
    assert_eq!(refused, 6, "a candidate that never ends, the two broken ones and the three errors");
}

#[test]
fn the_other_protocols_pass_as_well() {
    for (protocol, decoder, stream) in [
        (CallerProtocol::Messages, anthropic as fn(bool) -> FrameDecoder, &*MESSAGES.concat()),
        (CallerProtocol::GenerateContent, gemini, &*GEMINI.concat()),
        (CallerProtocol::Responses, responses, &*RESPONSES.concat()),
    ] {
        let events: Vec<&[u8]> = stream.split_inclusive("\n\n").map(str::as_bytes).collect();
        let sizes = [1, 13, stream.len()];
        let pieces = sizes.map(|size| stream.as_bytes().chunks(size).collect()).into_iter().chain([events]);
        for (pieces, tracks) in pieces.flat_map(|pieces| [(pieces.clone(), true), (pieces, false)]) {
            let mut decoder = decoder(tracks);
            let mut frames = Vec::new();
            for piece in &pieces {
                decoder.push(&Bytes::copy_from_slice(piece), &mut frames).expect("healthy");
            }
            decoder.finish(&mut frames).unwrap_or_else(|error| panic!("{protocol:?}: {error}"));
            let out: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes.to_vec()).collect();
            let name = format!("{protocol:?} in {} pieces", pieces.len());
            assert_eq!(String::from_utf8_lossy(&out), stream, "{name}");
            let content: Vec<usize> = frames.iter().filter_map(Frames::content_bytes).collect();
            assert_eq!(content, [2], "{name}");
        }
    }
}

#[test]
fn for_another_protocol_chunks_go_on_instead_of_bytes() {
    let mut decoder = FrameDecoder::translating(Dialect::OpenAi.provider());
    let mut frames = Vec::new();
    decoder.push(&Bytes::from(healthy("\n")), &mut frames).expect("a stream");
    assert!(frames.iter().all(|frame| frame.bytes.is_empty()));
    let said: String = frames.iter().flat_map(|frame| &frame.chunks).map(ChatChunk::text).collect();
    assert_eq!(said, "H\u{e9}\u{4e16}llo");
}
