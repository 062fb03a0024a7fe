//! What an operator does and sees: statistics, metrics, reloads, the end; and what must never slow a caller down.

use std::time::Duration;

use omega_client::FileChoice;
use omega_emulator::{Emulator, EmulatorConfig};
use omega_gateway::GatewayOptions;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::house::{House, QUICK, chat, posted, sources, streamed_chat};

#[tokio::test]
async fn statistics_are_the_specifications_dictionary_with_the_gateway_beside_it() {
    let house = House::new("").await;
    house.post("/v1/chat/completions", chat("gpt-5.2", "hi")).await;
    let stats = house.get("/stats").await.json();
    for provider in ["openai", "anthropic", "google", "grok"] {
        assert_eq!(stats["circuit_breakers"][provider]["state"], "closed");
    }
    assert_eq!(stats["rate_limiters"]["openai"]["requests_last_minute"], 1);
    assert_eq!(stats["details"]["providers"]["openai"]["answered_total"], 1);
    assert_eq!(stats["gateway"]["stopping"], false);
}

#[tokio::test]
async fn metrics_say_what_calls_cost_and_what_we_added() {
    let house = House::new("").await;
    house.post("/v1/chat/completions", chat("gpt-5.2", "hi")).await;
    house.post("/v1/chat/completions", streamed_chat("gpt-5.2", "hi")).await;
    house.post("/v1/chat/completions", chat("gpt-5.2+invalid-request", "hi")).await;
    let metrics = house.get("/metrics").await;
    assert!(
        metrics.headers["content-type"].to_str().expect("text").starts_with("application/openmetrics-text")
    );
    let text = metrics.text();
    for line in [
        "omega_requests_total{protocol=\"chat_completions\",status=\"200\"} 2",
        "omega_requests_total{protocol=\"chat_completions\",status=\"400\"} 1",
        "omega_overhead_seconds_count 2",
        "omega_requests_in_flight 0",
        "omega_upstream_in_flight{provider=\"openai\"} 0",
        "omega_upstream_sent_total{provider=\"openai\"} 3",
        "omega_circuit_state{provider=\"openai\",state=\"closed\"} 1",
        "error_type=\"invalid_request\"} 1",
        "gen_ai_client_operation_time_to_first_chunk_seconds_count{gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\",gen_ai_request_model=\"gpt-5.2\"} 1",
        "gen_ai_token_type=\"output\"} 6.0",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

/// A gateway whose configuration stands in a file.
async fn with_file(watch: bool) -> (House, tempfile::TempDir, std::path::PathBuf) {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("an emulator");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gateway.yaml");
    std::fs::write(&file, QUICK).expect("written");
    let mut sources = sources(&emulator, "");
    sources.file = FileChoice::Explicit(file.clone());
    let options = GatewayOptions { sources: Some(sources), watch, ..GatewayOptions::default() };
    let mut house = House::with(EmulatorConfig::default(), "", options).await;
    house.emulator = emulator;
    (house, folder, file)
}

#[tokio::test]
async fn a_reload_takes_up_a_changed_file_and_keeps_what_is_counted() {
    let (house, _folder, file) = with_file(false).await;
    assert_eq!(house.post("/v1/chat/completions", chat("quick", "hi")).await.status, 404);
    house.post("/v1/chat/completions", chat("gpt-5.2", "hi")).await;
    std::fs::write(&file, format!("{QUICK}\naliases: {{quick: gpt-5.2-mini}}")).expect("written");
    assert_eq!(house.post("/reload", json!({})).await.status, 200);
    assert_eq!(house.post("/v1/chat/completions", chat("quick", "hi")).await.json()["model"], "gpt-5.2-mini");
    let stats = house.get("/stats").await.json();
    assert_eq!(stats["rate_limiters"]["openai"]["requests_last_minute"], 2);
    assert_eq!(stats["details"]["calls"]["answered"], 2);
}

#[tokio::test]
async fn a_wrong_file_is_refused_with_its_place_and_what_runs_goes_on() {
    let (house, _folder, file) = with_file(false).await;
    std::fs::write(&file, "resilience: {max_retries: 0}").expect("written");
    let refused = house.post("/reload", json!({})).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("gateway.yaml:1"), "{}", refused.text());
    assert_eq!(house.post("/v1/chat/completions", chat("gpt-5.2", "hi")).await.status, 200);
    let metrics = house.get("/metrics").await;
    assert!(metrics.text().contains("omega_reloads_total{outcome=\"refused\"} 1"), "{}", metrics.text());
}

#[tokio::test]
async fn a_file_that_is_replaced_is_taken_up_by_itself() {
    let (house, folder, file) = with_file(true).await;
    // As editors and Kubernetes do it: another file is put in its place.
    let other = folder.path().join("next.yaml");
    let taken_up = async {
        let mut round = 0;
        while house.post("/v1/chat/completions", chat("quick", "hi")).await.status != 200 {
            // The watch may not stand yet when the first one is put in place.
            round += 1;
            std::fs::write(&other, format!("{QUICK}\naliases: {{quick: gpt-5.2-mini}}\n# {round}"))
                .expect("written");
            std::fs::rename(&other, &file).expect("replaced");
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), taken_up).await.expect("it is taken up");
}

#[tokio::test]
async fn a_stop_lets_streams_end_and_takes_no_new_ones() {
    let mut config = EmulatorConfig::default();
    config.providers.openai.latency =
        omega_emulator::Latency { tokens_per_s: 50.0, ..omega_emulator::Latency::none() };
    let house = House::with(config, QUICK, GatewayOptions::default()).await;
    let (address, url) = (house.gateway.address(), house.url(""));
    let (_, mut body) =
        house.stream("/v1/chat/completions", streamed_chat("gpt-5.2", &"word ".repeat(20))).await;
    body.chunk().await.expect("a frame").expect("bytes");
    let House { gateway, emulator, .. } = house;
    let stopping = async {
        gateway.shutdown().await;
        assert!(TcpStream::connect(address).await.is_err(), "{url} is closed");
    };
    let reading = async {
        let mut said = Vec::new();
        while let Some(frame) = body.chunk().await {
            said.extend_from_slice(&frame.expect("a frame"));
        }
        assert!(said.ends_with(b"data: [DONE]\n\n"), "{}", String::from_utf8_lossy(&said));
    };
    tokio::join!(stopping, reading);
    emulator.shutdown().await;
}

#[tokio::test]
async fn what_does_not_end_in_time_is_ended_with_an_error() {
    let yaml = format!("{QUICK}\ngateway: {{drain_seconds: 0.2}}");
    let house = House::with(EmulatorConfig::default(), &yaml, GatewayOptions::default()).await;
    house.scenario("rules: [{fault: 'stall-after:2', stream: true}, {fault: hang}]");
    let (_, mut body) = house.stream("/v1/chat/completions", streamed_chat("gpt-5.2", "hi")).await;
    body.chunk().await.expect("a frame").expect("bytes");
    let mut whole = TcpStream::connect(house.gateway.address()).await.expect("a connection");
    whole.write_all(&posted(&chat("gpt-5.2", "hi"))).await.expect("sent");
    while house.gateway.in_flight() < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let House { gateway, emulator, .. } = house;
    gateway.shutdown().await;
    let mut said = Vec::new();
    while let Some(Ok(frame)) = body.chunk().await {
        said.extend_from_slice(&frame);
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("the gateway is being stopped") && !said.contains("[DONE]"), "{said}");
    let mut answer = String::new();
    whole.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("gateway_stopping"), "{answer}");
    drop(emulator);
}

#[tokio::test]
async fn more_requests_than_there_is_room_for_are_refused_at_once() {
    let house = House::new("\ngateway: {max_requests: 1}").await;
    house.scenario("rules: [{fault: hang, first: 1}]");
    let mut first = TcpStream::connect(house.gateway.address()).await.expect("a connection");
    first.write_all(&posted(&chat("gpt-5.2", "hi"))).await.expect("sent");
    while house.seen().is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let answer = house.post("/v1/chat/completions", chat("gpt-5.2", "hi")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"]["code"].as_str()),
        (503, Some("gateway_overloaded"))
    );
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(house.get("/health").await.status, 200);
    drop(first);
    house.settled().await;
    assert_eq!(house.post("/v1/chat/completions", chat("gpt-5.2", "hi")).await.status, 200);
}

/// A peer loses 42 ms per reply when a short answer waits for the acknowledgement of the one before (Nagle's algorithm
/// against delayed acknowledgements). With `TCP_NODELAY` and one write for each answer there is nothing to wait for.
#[tokio::test]
async fn short_answers_on_one_connection_do_not_wait_for_acknowledgements() {
    let house = House::new("").await;
    let mut stream = TcpStream::connect(house.gateway.address()).await.expect("a connection");
    let body = chat("gpt-5.2", "hi").to_string();
    let (head, rest) = body.split_at(10);
    let mut answers = Vec::new();
    for _ in 0..20 {
        let start = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{head}",
            body.len()
        );
        stream.write_all(start.as_bytes()).await.expect("sent");
        stream.write_all(rest.as_bytes()).await.expect("sent");
        let mut buffer = vec![0; 64 * 1024];
        let read = stream.read(&mut buffer).await.expect("an answer");
        answers.push(buffer[..read].to_vec());
    }
    // Each came in one piece: its head and all of its body.
    for answer in answers {
        let text = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        assert_eq!(body.len().to_string(), length, "one write for each answer");
    }
}
