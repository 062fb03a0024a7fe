//! Quotas on the wire, the control endpoint, HTTP/2 and TLS, limits of size, starting and stopping, and the manual.

mod support;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use omega_emulator::{
    Emulator, EmulatorConfig, EmulatorError, Fault, Finished, Provider, Quota, Scenario, Tls,
};
use serde_json::{Value, json};
use support::{Call, End, Reply, configured, healthy};
use tokio::net::TcpStream;

fn chat_body() -> Value {
    json!({"model": "gpt-4.1", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]})
}

async fn openai(emulator: &Emulator) -> Reply {
    Call::post("/v1/chat/completions", chat_body()).send(emulator.addr()).await
}

#[tokio::test]
async fn openai_shows_what_is_left_and_refuses_with_hints() {
    let emulator = configured("providers: {openai: {quota: {rpm: 2, tpm: 1000}}}").await;
    let first = openai(&emulator).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("x-ratelimit-limit-requests"), Some("2"));
    assert_eq!(first.header("x-ratelimit-remaining-requests"), Some("1"));
    // 8 tokens of input and 10 of max_tokens are taken, whatever is produced.
    let remaining: u64 =
        first.header("x-ratelimit-remaining-tokens").and_then(|n| n.parse().ok()).expect("a number");
    assert_eq!(1_000 - remaining, emulator.requests()[0].tokens_charged);
    assert!(first.header("x-ratelimit-reset-requests").is_some_and(|reset| reset.ends_with('s')));
    openai(&emulator).await;
    let refused = openai(&emulator).await;
    assert_eq!(refused.status, 429);
    let error = refused.json()["error"].clone();
    assert_eq!((&error["type"], &error["code"]), (&json!("requests"), &json!("rate_limit_exceeded")));
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("Limit 2, Used 2, Requested 1. Please try again in"), "{message}");
    let seconds: u64 = refused.header("retry-after").and_then(|n| n.parse().ok()).expect("whole seconds");
    let millis: u64 = refused.header("retry-after-ms").and_then(|n| n.parse().ok()).expect("milliseconds");
    assert!(seconds == 30 && millis <= 30_000 && millis > 25_000, "{seconds} {millis}");
    assert_eq!(emulator.requests()[2].fault.as_deref(), Some("quota"));
}

#[tokio::test]
async fn headers_say_what_was_left_when_the_quota_decided() {
    let yaml = "providers: {openai: {quota: {rpm: 600, burst_seconds: 1}, latency: {base_s: 0.3}}}";
    let emulator = configured(yaml).await;
    // By the time the answer comes three more requests would be there: the bucket of ten would look full again.
    let reply = openai(&emulator).await;
    assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some("9"));
}

#[tokio::test]
async fn a_request_brings_its_own_size_and_times() {
    let emulator = configured("time_scale: 10").await;
    let text =
        "hi [[input-tokens:5000]] [[output-tokens:20]] [[first-token-us:2000000]] [[writing-us:1000000]]";
    for stream in [false, true] {
        let body =
            json!({"model": "gpt-4.1", "stream": stream, "messages": [{"role": "user", "content": text}]});
        Call::post("/v1/chat/completions", body).send(emulator.addr()).await;
        let record = emulator.requests().pop().expect("it was recorded");
        assert_eq!((record.input_tokens, record.output_tokens), (5_000, 20));
        let took = record.finished_at.expect("it ended") - record.at;
        assert!((3.0..6.0).contains(&took), "{took} trace seconds, stream {stream}");
    }
}

#[tokio::test]
async fn a_request_above_the_limit_is_told_to_shrink_instead_of_waiting() {
    let emulator = configured("providers: {openai: {quota: {tpm: 10}}}").await;
    let refused = openai(&emulator).await;
    assert!(refused.status == 429 && refused.text().contains("Request too large"));
    assert_eq!(refused.header("retry-after"), None);
}

#[tokio::test]
async fn anthropic_shows_its_three_limits_and_google_none() {
    let yaml = "providers:
  anthropic: {quota: {rpm: 50, itpm: 30000, otpm: 8000}}
  google: {quota: {rpm: 1}}
";
    let emulator = configured(yaml).await;
    let body =
        json!({"model": "claude-opus-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    let reply = Call::post("/v1/messages", body).send(emulator.addr()).await;
    assert_eq!(reply.header("anthropic-ratelimit-requests-remaining"), Some("49"));
    assert_eq!(reply.header("anthropic-ratelimit-input-tokens-limit"), Some("30000"));
    assert_eq!(reply.header("anthropic-ratelimit-output-tokens-remaining"), Some("8000"));
    assert!(
        reply
            .header("anthropic-ratelimit-requests-reset")
            .is_some_and(|at| at.ends_with('Z') && at.len() == 20)
    );
    let google = json!({"contents": [{"parts": [{"text": "hi"}]}]});
    let path = "/google/v1/models/gemini-2.5-flash:generateContent";
    let served = Call::post(path, google.clone()).send(emulator.addr()).await;
    let refused = Call::post(path, google).send(emulator.addr()).await;
    assert_eq!((served.status, refused.status), (200, 429));
    assert!(refused.headers.iter().all(|(name, _)| !name.contains("ratelimit") && name != "retry-after"));
    assert!(refused.text().contains("retryDelay"));
}

#[tokio::test]
async fn under_a_time_scale_obeying_the_hint_is_enough() {
    let emulator =
        configured("time_scale: 100\nproviders: {openai: {quota: {rpm: 6, burst_seconds: 10}}}").await;
    let served = openai(&emulator).await;
    assert_eq!(served.status, 200);
    assert_eq!(served.header("x-ratelimit-limit-requests"), Some("600"), "per real minute");
    let refused = openai(&emulator).await;
    assert_eq!(refused.status, 429);
    // Ten trace seconds, a tenth of a real one. The refusal took the rest of the bucket, so the hint counts anew.
    let seconds: f64 = refused.header("retry-after").and_then(|n| n.parse().ok()).expect("a fraction");
    assert!(seconds <= 0.1, "{seconds}");
    tokio::time::sleep(Duration::from_secs_f64(seconds + 0.05)).await;
    assert_eq!(openai(&emulator).await.status, 200);
}

#[tokio::test]
async fn latency_is_divided_by_the_time_scale() {
    let yaml = "time_scale: 100\nproviders: {openai: {latency: {base_s: 10, tokens_per_s: 1}}}";
    let emulator = configured(yaml).await;
    openai(&emulator).await;
    let request = &emulator.requests()[0];
    // 10 s and 3 tokens of a second each.
    let took = request.finished_at.expect("finished") - request.at;
    assert!((13.0..60.0).contains(&took), "{took}");
}

#[tokio::test]
async fn the_control_endpoint_reports_and_changes() {
    let emulator = healthy().await;
    let address = emulator.addr();
    assert_eq!(Call::get("/__emulator/health").send(address).await.json()["status"], "ok");
    let call = Call::post("/v1/chat/completions", chat_body())
        .header("user-agent", "Test/1")
        .header("x-stainless-retry-count", "2");
    call.send(address).await;
    let seen = Call::get("/__emulator/requests").send(address).await;
    assert!(!seen.text().contains("test-key"), "keys are never reported");
    let request = &seen.json()["requests"][0];
    assert_eq!(request["provider"], "openai");
    assert_eq!(request["endpoint"], "chat_completions");
    assert_eq!(request["finished"], "completed");
    assert_eq!(request["headers"]["user_agent"], "Test/1");
    assert_eq!(request["headers"]["retry_count"], "2");
    assert_eq!(request["headers"]["auth"], json!(["authorization"]));
    let put =
        |what: &str, body: &str| Call::new("PUT", &format!("/__emulator/{what}"), body.into()).send(address);
    assert_eq!(put("scenario", "rules: [{fault: overloaded}]").await.status, 200);
    assert_eq!(openai(&emulator).await.status, 503);
    let wrong = put("scenario", "rules: [{fault: overlod}]").await;
    assert!(wrong.status == 400 && wrong.text().contains("did you mean `overloaded`?"));
    assert_eq!(put("scenario", "rules: []").await.status, 200);
    assert_eq!(put("quota", "openai: {rpm: 1}").await.status, 200);
    assert_eq!(openai(&emulator).await.status, 200);
    assert_eq!(openai(&emulator).await.status, 429);
    assert!(put("quota", "openai: {rpm: 0}").await.text().contains("rpm must be 1 or more"));
    assert_eq!(Call::new("DELETE", "/__emulator/requests", String::new()).send(address).await.status, 200);
    assert!(emulator.requests().is_empty());
    let faults = Call::get("/__emulator/faults").send(address).await.json();
    assert_eq!(faults["faults"].as_array().map(Vec::len), Some(Fault::ALL.len()));
    assert_eq!(Call::get("/__emulator/unknown").send(address).await.status, 404);
    assert_eq!(Call::get("/__emulator/scenario").send(address).await.status, 405);
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_with_413() {
    let emulator = configured("body_limit_bytes: 1000").await;
    let body = json!({"model": "gpt-4.1", "messages": [{"role": "user", "content": "x".repeat(2_000)}]});
    let reply = Call::post("/v1/chat/completions", body).send(emulator.addr()).await;
    assert_eq!((reply.status, reply.end), (413, End::Complete));
}

#[tokio::test]
async fn prompts_above_the_window_are_refused() {
    let emulator = configured("providers: {openai: {context_tokens: 20}}").await;
    let body = json!({"model": "gpt-4.1", "messages": [{"role": "user", "content": "x".repeat(200)}]});
    let reply = Call::post("/v1/chat/completions", body).send(emulator.addr()).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("context_length_exceeded")));
}

type H2 = http2::SendRequest<Full<Bytes>>;

async fn h2_over(io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static) -> H2 {
    let (sender, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(io)).await.expect("HTTP/2");
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(connection);
    sender
}

fn h2_call(fault: Option<&str>) -> http::Request<Full<Bytes>> {
    let mut request =
        http::Request::post("http://emulator/v1/chat/completions").header("authorization", "Bearer k");
    if let Some(fault) = fault {
        request = request.header("x-emulate-fault", fault);
    }
    let mut body = chat_body();
    body["stream"] = true.into();
    request.body(Full::new(Bytes::from(body.to_string()))).expect("a request")
}

#[tokio::test]
async fn http2_is_spoken_without_tls_and_a_broken_stream_leaves_the_connection_alive() {
    let emulator = healthy().await;
    let socket = TcpStream::connect(emulator.addr()).await.expect("connected");
    let mut sender = h2_over(socket).await;
    let served = sender.send_request(h2_call(None)).await.expect("an answer");
    assert_eq!(served.status(), 200);
    let body = served.into_body().collect().await.expect("a body").to_bytes();
    assert!(body.ends_with(b"data: [DONE]\n\n"));
    sender.send_request(h2_call(Some("reset-before-headers"))).await.expect_err("the stream is reset");
    let cut = sender.send_request(h2_call(Some("cut-after:1"))).await.expect("headers");
    cut.into_body().collect().await.expect_err("the stream is reset");
    assert_eq!(sender.send_request(h2_call(None)).await.expect("the connection lives").status(), 200);
    let requests = emulator.requests();
    assert_eq!(requests[0].headers.http_version, "HTTP/2.0");
    assert_eq!(requests[2].finished, Finished::Cut);
}

#[tokio::test]
async fn tls_offers_http2_by_alpn_with_a_certificate_of_the_test_authority() {
    let config = EmulatorConfig { tls: Some(Tls::default()), ..EmulatorConfig::default() };
    let emulator = Emulator::start(config).await.expect("started");
    assert!(emulator.base_url("openai").starts_with("https://127.0.0.1:"));
    let pem = emulator.ca_pem().expect("a certificate");
    let mut roots = rustls::RootCertStore::empty();
    use rustls_pki_types::pem::PemObject;
    roots
        .add(rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM"))
        .expect("a root");
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(client));
    let socket = TcpStream::connect(emulator.addr()).await.expect("connected");
    let name = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
    let stream = connector.connect(name, socket).await.expect("a trusted handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut sender = h2_over(stream).await;
    assert_eq!(sender.send_request(h2_call(None)).await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn http2_streams_above_the_limit_wait_for_a_place() {
    let emulator = configured("http2_max_concurrent_streams: 1").await;
    let socket = TcpStream::connect(emulator.addr()).await.expect("connected");
    let mut sender = h2_over(socket).await;
    // The first answer makes sure the server's settings have arrived.
    let first = sender.send_request(h2_call(None)).await.expect("an answer");
    first.into_body().collect().await.expect("a body");
    let stalled = sender.send_request(h2_call(Some("stall-after:1"))).await.expect("headers");
    let second = sender.send_request(h2_call(None));
    let second = tokio::time::timeout(Duration::from_millis(200), second).await;
    assert!(second.is_err(), "there is no place for a second stream");
    drop(stalled);
    let third = tokio::time::timeout(support::PATIENCE, sender.send_request(h2_call(None))).await;
    assert_eq!(third.expect("a place is free").expect("an answer").status(), 200);
}

#[tokio::test]
async fn shutting_down_ends_open_requests_and_frees_the_address() {
    let emulator = healthy().await;
    let address = emulator.addr();
    let hanging = Call::post("/v1/chat/completions", chat_body()).fault("hang").silence(support::PATIENCE);
    let hanging = hanging.send(address);
    let stopping = async {
        while emulator.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::timeout(Duration::from_secs(5), emulator.shutdown()).await.expect("all tasks end");
    };
    let (reply, ()) = tokio::join!(hanging, stopping);
    assert!(matches!(reply.end, End::Closed | End::Reset), "{:?}", reply.end);
    let again = Emulator::start(EmulatorConfig { listen: address, ..EmulatorConfig::default() }).await;
    assert!(again.is_ok(), "{:?}", again.err());
}

#[tokio::test]
async fn dropping_ends_the_service() {
    let emulator = healthy().await;
    let address = emulator.addr();
    drop(emulator);
    let gone = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, gone).await.expect("nobody listens");
}

#[tokio::test]
async fn a_taken_address_and_nonsense_are_named() {
    let emulator = healthy().await;
    let taken = EmulatorConfig { listen: emulator.addr(), ..EmulatorConfig::default() };
    assert!(matches!(Emulator::start(taken).await, Err(EmulatorError::Listen { .. })));
    let nonsense = EmulatorConfig { time_scale: -1.0, ..EmulatorConfig::default() };
    assert!(matches!(Emulator::start(nonsense).await, Err(EmulatorError::Invalid(_))));
}

#[tokio::test]
async fn base_urls_are_what_the_sdks_take() {
    let emulator = healthy().await;
    let url = emulator.url();
    for (provider, suffix) in [
        ("openai", "/openai/v1"),
        ("anthropic", "/anthropic"),
        ("google", "/google"),
        ("grok", "/grok/v1"),
        ("xai", "/grok/v1"),
    ] {
        assert_eq!(emulator.base_url(provider), format!("{url}{suffix}"));
    }
}

#[tokio::test]
async fn requests_of_clients_that_leave_are_closed() {
    let emulator = healthy().await;
    emulator.set_quota(Provider::OpenAi, Quota { tpm: Some(100_000), ..Quota::default() });
    for fault in ["stall-after:1", "hang", "slow-headers:9", "pings-only:9"] {
        for _ in 0..15 {
            let mut body = chat_body();
            body["stream"] = true.into();
            let call = Call::post("/v1/chat/completions", body).fault(fault);
            call.silence(Duration::from_millis(20)).send(emulator.addr()).await;
        }
    }
    assert_eq!(emulator.requests().len(), 60);
    let closed = async {
        while emulator.requests().iter().any(|request| request.finished == Finished::InProgress) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, closed).await.expect("every request is closed");
    assert!(emulator.requests().iter().all(|request| request.finished == Finished::ClientDisconnected));
}

/// The manual's text. It lies beside the workspace's other pages.
fn manual() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/emulator.md");
    std::fs::read_to_string(path).expect("docs/emulator.md")
}

#[test]
fn the_manuals_catalogue_is_the_catalogue() {
    let manual = manual();
    let rows: Vec<Vec<String>> = manual
        .lines()
        .filter(|line| line.starts_with("| `") && line.matches(" | ").count() == 2)
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .filter(|cells: &Vec<String>| {
            Fault::from_name(cells[0].trim_matches('`').split(':').next().unwrap_or("")).is_some()
        })
        .collect();
    let expected: Vec<Vec<String>> = Fault::ALL
        .iter()
        .map(|fault| {
            vec![format!("`{}`", fault.usage()), fault.parameter_default(), fault.description().to_owned()]
        })
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_manuals_examples_load() {
    let manual = manual();
    let blocks: Vec<&str> =
        manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 2);
    for block in blocks {
        if block.contains("providers:") || block.contains("scenario:") {
            EmulatorConfig::from_yaml(block).unwrap_or_else(|error| panic!("{error}\n{block}"));
        } else {
            Scenario::parse(block).unwrap_or_else(|error| panic!("{error}\n{block}"));
        }
    }
}
