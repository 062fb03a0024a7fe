use serde_json::{Value, json};

use super::*;
use crate::{ChatRequest, TokenCounter};

fn read(body: &str) -> (Envelope, Bytes) {
    let body = Bytes::from(body.to_owned());
    let envelope = Envelope::read(CallerProtocol::ChatCompletions, &body).expect("a readable request");
    (envelope, body)
}

fn refused(body: &str) -> String {
    let body = Bytes::from(body.to_owned());
    Envelope::read(CallerProtocol::ChatCompletions, &body).expect_err("a request to refuse").message
}

#[test]
fn a_request_with_nothing_to_change_goes_out_as_the_same_bytes() {
    let (envelope, body) = read("{ \"model\":\"m\", \"messages\":[ ] }");
    let out = envelope.rewrite(&body, "m", false);
    assert_eq!(out.as_ptr(), body.as_ptr(), "not even copied");
}

#[test]
fn only_the_named_spans_are_exchanged() {
    let (envelope, body) =
        read(r#"{"temperature": 1.0, "model" : "alias" ,"models":["a","b"], "messages": [ {"x":1e3} ]}"#);
    assert_eq!(envelope.fallbacks.as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));
    let out = envelope.rewrite(&body, "gpt-5.2", false);
    assert_eq!(out, r#"{"temperature": 1.0, "model" : "gpt-5.2" , "messages": [ {"x":1e3} ]}"#.as_bytes());
}

#[test]
fn what_is_taken_out_leaves_valid_json_wherever_it_stood() {
    let (model, other, fallbacks) = (r#""model":"m""#, r#""n":1"#, r#""fallbacks" : ["x"]"#);
    for order in [
        [model, other, fallbacks],
        [model, fallbacks, other],
        [fallbacks, model, other],
        [fallbacks, other, model],
    ] {
        for separator in [",", " , ", ",\n"] {
            let text = format!("{{{}}}", order.join(separator));
            let (envelope, body) = read(&text);
            let out = envelope.rewrite(&body, "m", true);
            let value: Value = serde_json::from_slice(&out).unwrap_or_else(|_| panic!("{text} -> {out:?}"));
            assert_eq!(value, json!({"model": "m", "n": 1, "stream_options": {"include_usage": true}}));
        }
    }
    let (envelope, body) = read(r#" {"fallbacks":["x"]} "#);
    assert_eq!(envelope.rewrite(&body, "m", false), &b" {} "[..]);
    assert_eq!(envelope.rewrite(&body, "m", true), &br#" {"stream_options":{"include_usage":true}} "#[..]);
}

#[test]
fn the_usage_is_asked_for_beside_what_the_caller_said_of_its_stream() {
    let (envelope, body) = read(r#"{"stream_options":{"include_obfuscation":false},"model":"m"}"#);
    let out: Value = serde_json::from_slice(&envelope.rewrite(&body, "m", true)).expect("JSON");
    assert_eq!(out["stream_options"], json!({"include_obfuscation": false, "include_usage": true}));
    let (envelope, body) = read(r#"{"stream_options":{"include_usage":true},"model":"m"}"#);
    assert_eq!(envelope.rewrite(&body, "m", true), body);
    let (envelope, body) = read(r#"{"stream_options":null,"model":"m"}"#);
    let out: Value = serde_json::from_slice(&envelope.rewrite(&body, "m", true)).expect("JSON");
    assert_eq!(out["stream_options"], json!({"include_usage": true}));
}

#[test]
fn the_limit_counts_for_every_answer_asked_for() {
    assert_eq!(read(r#"{"max_tokens":10,"n":3}"#).0.max_output_tokens, Some(30));
    assert_eq!(read(r#"{"max_completion_tokens":10}"#).0.max_output_tokens, Some(10));
    assert_eq!(read(r#"{"max_output_tokens":null}"#).0.max_output_tokens, None);
    let google = read(r#"{"generationConfig":{"maxOutputTokens":7,"candidateCount":2}}"#).0;
    assert_eq!(google.max_output_tokens, Some(14));
    assert_eq!(read(r#"{"max_tokens":18446744073709551615,"n":2}"#).0.max_output_tokens, Some(u64::MAX));
}

#[test]
fn two_meanings_of_one_body_are_refused() {
    assert!(refused(r#"{"model":"a","model":"b"}"#).contains("`model`: is there twice"));
    assert!(refused(r#"{"stream":true,"stream":false}"#).contains("`stream`"));
    assert!(refused(r#"{"fallbacks":["a"],"models":["b"]}"#).contains("another name"));
    assert!(refused(r#"{"fallb\u0061cks":["a"]}"#).contains("without escapes"));
    // An escaped name of a known field is that field.
    assert!(refused(r#"{"model":"a","mod\u0065l":"b"}"#).contains("twice"));
}

#[test]
fn wrong_types_of_the_envelope_are_named_and_everything_else_is_the_providers() {
    assert!(refused(r#"{"model":7}"#).contains("`model`: must be a model's name"));
    assert!(refused(r#"{"model":""}"#).contains("`model`: is empty"));
    assert!(refused(r#"{"stream":"yes"}"#).contains("`stream`"));
    assert!(refused(r#"{"models":"a"}"#).contains("`models`: must be a list"));
    assert!(refused(r#"[1]"#).contains("cannot be read"));
    assert!(refused(r#"{"model":"#).contains("not valid JSON"));
    assert!(refused("{} x").contains("not valid JSON"));
    let deep = format!("{{\"messages\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    assert!(refused(&deep).contains("recursion"));
    read(r#"{"max_tokens":"ten","n":[],"messages":{"not":"a list"},"tools":5,"reasoning":3}"#);
}

#[test]
fn it_weighs_what_the_typed_request_weighs() {
    let tool = json!({"type": "function", "function": {"name": "lookup", "description": "Looks up a word",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}}});
    let picture = format!("data:image/png;base64,{}", "A".repeat(80_000));
    let bodies = [
        json!({"model": "gpt-5.2", "messages": [{"role": "user", "content": "Why is the sky blue? ".repeat(40)}]}),
        json!({"model": "gpt-5.2", "tools": [tool], "messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "one two three"}]}),
        json!({"model": "gpt-5.2", "messages": [{"role": "user", "content": [
            {"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": picture}}]}]}),
    ];
    for body in bodies {
        let bytes = Bytes::from(body.to_string());
        let envelope = Envelope::read(CallerProtocol::ChatCompletions, &bytes).expect("readable");
        let typed: ChatRequest = serde_json::from_value(body.clone()).expect("a chat request");
        let (raw, typed) = (envelope.input("gpt-5.2"), TokenCounter::by_bytes().chat(&typed, "gpt-5.2"));
        assert_eq!(raw.kind, typed.kind, "{body}");
        let (raw, typed) = (raw.tokens as f64, typed.tokens as f64);
        assert!((raw - typed).abs() <= (typed * 0.1).max(8.0), "{raw} against {typed}");
    }
}

#[test]
fn media_of_every_protocol_is_no_text() {
    let data = format!("iVBORw0KGgo{}", "A".repeat(80_000));
    let bodies = [
        json!({"messages": [{"role": "user", "content": [{"type": "image", "source":
            {"type": "base64", "media_type": "image/png", "data": data}}]}]}),
        json!({"contents": [{"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": data}}]}]}),
        json!({"input": [{"role": "user", "content": [{"type": "input_image",
            "image_url": format!("data:image/png;base64,{data}")}]}]}),
    ];
    for body in bodies {
        let bytes = Bytes::from(body.to_string());
        let envelope = Envelope::read(CallerProtocol::Messages, &bytes).expect("readable");
        let input = envelope.input("gpt-5.2");
        assert!(input.tokens < 1_100, "{}", input.tokens);
        assert_eq!(input.kind, crate::InputKind::Media);
    }
}

#[test]
fn equal_beginnings_are_told_by_one_number() {
    let long = "x".repeat(5_000);
    let of = |text: &str| {
        read(&json!({"messages": [{"role": "system", "content": text}]}).to_string()).0.beginning
    };
    assert_eq!(of(&long), of(&format!("{long} and more")));
    assert_ne!(of("a"), of("b"));
}

proptest::proptest! {
    #[test]
    fn no_body_panics(bytes in proptest::collection::vec(0_u8..255, 0..300)) {
        let _ = Envelope::read(CallerProtocol::Responses, &Bytes::from(bytes));
    }

    #[test]
    fn whatever_surrounds_them_the_spans_are_right(
        before in "[a-z ]{0,8}", value in "[a-zA-Z\"\\\\\u{1F600}é]{1,12}", after in "[a-z ]{0,8}",
    ) {
        let body = json!({"before": before, "model": value, "messages": [after], "fallbacks": ["x"], "after": 1});
        let bytes = Bytes::from(body.to_string());
        let envelope = Envelope::read(CallerProtocol::ChatCompletions, &bytes).expect("readable");
        proptest::prop_assert_eq!(&envelope.model, &value);
        let out: Value = serde_json::from_slice(&envelope.rewrite(&bytes, "new", true)).expect("JSON");
        let mut expected = body;
        expected["model"] = json!("new");
        expected["stream_options"] = json!({"include_usage": true});
        expected.as_object_mut().expect("an object").shift_remove("fallbacks");
        proptest::prop_assert_eq!(out, expected);
    }
}
