//! Bad input over a raw socket: a clean answer, nothing spent, and the next caller served at once.

use std::time::Duration;

use omega_emulator::EmulatorConfig;
use omega_gateway::GatewayOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::house::{House, QUICK, chat, streamed_chat};

const TIGHT: &str = "
gateway: {max_body_bytes: 20000, max_header_bytes: 8192, header_timeout_seconds: 0.3, body_timeout_seconds: 0.3, write_timeout_seconds: 0.5}
";

async fn tight() -> House {
    House::new(TIGHT).await
}

/// A request that is right but for its body.
fn request(body: &str) -> Vec<u8> {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The status, and that nothing was sent on and the next caller is served.
async fn refused(house: &House, bytes: &[u8], status: &str, words: &str) {
    let before = house.seen().len();
    let said = house.raw(bytes).await;
    let shown: String = String::from_utf8_lossy(bytes).chars().take(200).collect();
    assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}\n→ {said}");
    assert!(said.contains(words), "{shown}\n→ {said}");
    assert_eq!(house.seen().len(), before, "{shown}: nobody was to be asked");
    let answer = house.post("/v1/chat/completions", chat("gpt-5.2", "hi")).await;
    assert_eq!(answer.status, 200, "after {shown}");
}

#[tokio::test]
async fn malformed_http_is_refused() {
    let house = tight().await;
    for bytes in [
        &b"nonsense\r\n\r\n"[..],
        b"POST /v1/chat/completions HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /health HTTP/9.9\r\nhost: localhost\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx: \x00\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ] {
        refused(&house, bytes, "400", "").await;
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let house = tight().await;
    let large = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    refused(&house, large.as_bytes(), "431", "").await;
    let many = format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: 1\r\n".repeat(500));
    refused(&house, many.as_bytes(), "431", "").await;
}

#[tokio::test]
async fn smuggling_is_refused_or_read_one_way_only() {
    let house = tight().await;
    // Two lengths that differ, a length that is no number, both ways to say where a body ends, an unknown coding.
    for headers in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: +5",
        "content-length: 5, 6",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
    ] {
        let bytes = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n\
             {headers}\r\n\r\n{{}}GET /v1/models HTTP/1.1\r\n\r\n"
        );
        let said = house.raw(bytes.as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{headers}\n→ {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{headers}: one request, one answer\n→ {said}");
    }
    // Chunked wins over a length, and the connection ends with it (RFC 9112, 6.3).
    let body = chat("gpt-5.2", "hi").to_string();
    let bytes = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let said = house.raw(bytes.as_bytes()).await;
    assert!(said.matches("HTTP/1.1 ").count() == 1, "{said}");
    assert!(house.seen().len() <= 1);
}

#[tokio::test]
async fn bodies_that_are_no_request_are_refused_with_the_place() {
    let house = tight().await;
    let deep = format!("{{\"model\":\"gpt-5.2\",\"messages\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    for (body, words) in [
        ("", "JSON"),
        ("{", "JSON"),
        ("nonsense", "JSON"),
        ("[]", "object"),
        ("{\"model\":\"gpt-5.2\",\"messages\":[],}", "JSON"),
        ("{\"model\":7,\"messages\":[]}", "model"),
        ("{\"model\":\"gpt-5.2\",\"stream\":\"yes\",\"messages\":[]}", "stream"),
        ("{\"model\":\"gpt-5.2\",\"model\":\"o3\",\"messages\":[]}", "model"),
        ("{\"model\":\"gpt-5.2\",\"fallbacks\":\"x\",\"messages\":[]}", "fallbacks"),
        ("{\"model\":\"gpt-5.2\",\"messages\":\"\\ud800\"}", ""),
        (deep.as_str(), ""),
    ] {
        refused(&house, &request(body), "400", words).await;
    }
    let mut bytes = request("{\"model\":\"gpt-5.2\",\"messages\":\"xx\"}");
    let at = bytes.len() - 4;
    bytes[at] = 0xff;
    refused(&house, &bytes, "400", "").await;
}

#[tokio::test]
async fn bodies_that_are_too_large_are_refused_before_they_are_read() {
    let house = tight().await;
    let announced =
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
        connection: close\r\ncontent-length: 99999999\r\n\r\n{";
    refused(&house, announced, "413", "request_too_large").await;
    let chunk = format!("{:x}\r\n{}\r\n", 4_096, "x".repeat(4_096));
    let chunked = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(6)
    );
    refused(&house, chunked.as_bytes(), "413", "request_too_large").await;
}

#[tokio::test]
async fn slow_senders_are_left() {
    let house = tight().await;
    refused(&house, b"POST /v1/chat/comple", "408", "slow_request").await;
    let half = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
        connection: close\r\ncontent-length: 100\r\n\r\n{\"model\":";
    refused(&house, half, "408", "slow_request").await;
}

#[tokio::test]
async fn a_caller_that_stops_reading_is_left_and_everything_given_back() {
    let house = tight().await;
    let mut body = streamed_chat("gpt-5.2", "[[output-tokens:400000]] hi");
    body["max_completion_tokens"] = 400_000.into();
    let mut stream = TcpStream::connect(house.gateway.address()).await.expect("a connection");
    stream.write_all(&request(&body.to_string())).await.expect("sent");
    let mut first = [0; 1];
    stream.read_exact(&mut first).await.expect("it begins");
    // Nothing more is read; the gateway must notice by itself.
    house.settled().await;
    drop(stream);
}

#[tokio::test]
async fn a_caller_that_hangs_up_frees_what_it_held() {
    let house = House::new("").await;
    house.scenario("rules: [{fault: 'stall-after:2', stream: true}, {fault: hang}]");
    for body in [streamed_chat("gpt-5.2", "hi"), chat("gpt-5.2", "hi")] {
        let before = house.seen().len();
        let mut stream = TcpStream::connect(house.gateway.address()).await.expect("a connection");
        stream.write_all(&request(&body.to_string())).await.expect("sent");
        while house.seen().len() == before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(stream);
        house.settled().await;
    }
    let metrics = house.get("/metrics").await;
    assert!(metrics.text().contains("status=\"499\""), "{}", metrics.text());
}

#[tokio::test]
async fn hostile_providers_are_survived() {
    let house = House::with(
        EmulatorConfig::default(),
        &format!("{QUICK}\nstreaming: {{first_byte_seconds: 2, first_content_seconds: 2, reasoning_first_content_seconds: 2}}"),
        GatewayOptions::default(),
    )
    .await;
    for fault in [
        "hostile-retry-after:huge",
        "hostile-retry-after:negative",
        "hostile-retry-after:garbage",
        "hostile-retry-after:infinite",
        "endless-event",
        "malformed-chunk:1",
        "malformed-body",
        "bad-gateway-html",
    ] {
        for stream in [false, true] {
            let model = format!("gpt-5.2+{fault}");
            let mut body = chat(&model, "hi");
            body["stream"] = stream.into();
            body["fallbacks"] = serde_json::json!(["claude-opus-5-5"]);
            let answer = house.post("/v1/chat/completions", body).await;
            assert!(answer.is_whole, "{fault}: an error or an answer, and never a cut body");
            if let Some(wait) = answer.headers.get("retry-after") {
                let seconds: u64 = wait.to_str().expect("text").parse().expect("a number");
                assert!(seconds <= 300, "{fault}: {seconds}");
            }
            assert!(answer.status.is_success() || answer.status.as_u16() >= 400, "{fault}");
        }
    }
    let answer = house.post("/v1/chat/completions", chat("claude-opus-5-5", "hi")).await;
    assert_eq!(answer.status, 200);
    // What a caller's number means is for the provider to say, and it does.
    for wrong in [serde_json::json!(-1), serde_json::json!(1e99), serde_json::json!("many")] {
        let mut body = chat("grok-4.5", "hi");
        body["max_completion_tokens"] = wrong;
        let status = house.post("/v1/chat/completions", body).await.status.as_u16();
        assert!(matches!(status, 400 | 422), "{status}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_say_it_is_json_is_refused() {
    let house = tight().await;
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let bytes = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\nconnection: close\r\n\
             content-length: 2\r\n\r\n{{}}"
        );
        refused(&house, bytes.as_bytes(), "415", "content-type").await;
    }
}
