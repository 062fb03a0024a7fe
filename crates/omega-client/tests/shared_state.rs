//! Several clients with one quota, over real HTTP and a real store. Each client has scopes and leases of its own, as
//! processes have; `--example fleet` does the same with processes.
#![allow(clippy::disallowed_methods, reason = "tests read the real clock and spawn what they await")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use omega_client::{ChatCall, ChatRequest, Error, FileChoice, Message, Sources, UnifiedLLMClient};
use omega_emulator::{Emulator, EmulatorConfig, Provider, Quota, Scenario};

/// A server of a test's own.
struct RedisServer {
    child: Child,
    port: u16,
}

impl RedisServer {
    fn start(folder: &Path) -> Self {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--appendonly", "no", "--dir"])
            .arg(folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed: `apt-get install redis-server`");
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        Self { child, port }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn provider(requests_per_minute: u64, burst_seconds: f64) -> Emulator {
    let mut config = EmulatorConfig::default();
    config.providers[Provider::OpenAi].quota =
        Quota { rpm: Some(requests_per_minute), burst_seconds, ..Quota::default() };
    Emulator::start(config).await.expect("it starts")
}

/// A client that shares through `state`. A machine under load may take longer than 25 ms for what is a store's answer.
fn client(emulator: &Emulator, state: &str, limits: &str) -> UnifiedLLMClient {
    let yaml = format!(
        "state: {{url: '{state}', timeout_seconds: 0.5}}\nresilience: {{max_retries: 1}}\n\
         rate_limiting: {{openai: {{max_tokens_per_minute: unlimited, {limits}}}}}\n\
         providers: {{openai: {{base_url: '{}'}}}}\n",
        emulator.base_url("openai")
    );
    let file = FileChoice::Text { name: "test.yaml".into(), yaml };
    let sources = Sources { file, ..Sources::default() };
    UnifiedLLMClient::builder()
        .sources(sources)
        .openai_api_key("sk-shared".to_owned())
        .build()
        .expect("it is valid")
}

async fn call(client: &UnifiedLLMClient) -> Result<(), Error> {
    let request = ChatRequest::new("gpt-5.2", [Message::user("Hello")]).max_tokens(10);
    client.chat(ChatCall::new(request).timeout(Duration::from_secs(60))).await.map(drop)
}

fn shared(client: &UnifiedLLMClient) -> omega_client::SharedDetails {
    client.resilience_stats().details.providers["openai"].shared.clone().expect("its limits are shared")
}

/// Four clients ask for a burst and half of it again: nobody draws a 429, and the last is served when its quota has
/// flowed in, not much later.
async fn share_one_burst(state: &str) {
    // 600 a minute: ten a second, twenty at once.
    let emulator = provider(600, 2.0).await;
    let limits = "max_requests_per_minute: 600, max_concurrent_requests: 100, burst_seconds: 2";
    let clients: Vec<_> = (0..4).map(|_| client(&emulator, state, limits)).collect();
    let began = Instant::now();
    let calls = (0..30).map(|number| call(&clients[number % clients.len()]));
    for result in join_all(calls).await {
        result.expect("it waits its turn");
    }
    let took = began.elapsed();
    let records = emulator.requests();
    let throttled = records.iter().filter(|record| record.status == Some(429)).count();
    assert_eq!((records.len(), throttled), (30, 0));
    // Twelve more than the burst less its margin: 1.2 seconds.
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(8), "{took:?}");
    let report = &clients[0].fleet().await.expect("the store answers")["openai"];
    assert_eq!((report.ledger.members, report.holders.len()), (4, 4));
    // Who was served a second ago and has nothing in hand may be at rest again.
    assert!(clients.iter().all(|client| ["shared", "idle"].contains(&shared(client).standing)));
    drop(clients);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_holds_clients_to_one_quota() {
    let folder = tempfile::tempdir().expect("a folder");
    share_one_burst(&format!("sqlite://{}", folder.path().join("state.db").display())).await;
}

mod real_redis {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn redis_holds_clients_to_one_quota() {
        let folder = tempfile::tempdir().expect("a folder");
        let server = RedisServer::start(folder.path());
        share_one_burst(&format!("redis://127.0.0.1:{}", server.port)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_killed_store_holds_up_no_call() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = RedisServer::start(folder.path());
        let emulator = provider(60_000, 6.0).await;
        let limits = "max_requests_per_minute: 60000, max_concurrent_requests: 100";
        let state = format!("redis://127.0.0.1:{}", server.port);
        let clients = [client(&emulator, &state, limits), client(&emulator, &state, limits)];
        for client in &clients {
            call(client).await.expect("it is answered");
        }
        while clients.iter().any(|client| shared(client).processes < 2) {
            for client in &clients {
                call(client).await.expect("it is answered");
            }
        }
        server.kill();
        for round in 0..20 {
            let began = Instant::now();
            call(&clients[round % 2]).await.expect("it goes on with its share");
            // The time limit of these clients is half a second, for the first of each that finds nobody.
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        }
        while clients.iter().any(|client| shared(client).standing == "shared") {
            for client in &clients {
                call(client).await.expect("it goes on with its share");
            }
        }
        assert!(
            clients.iter().all(|client| shared(client).standing == "away" && shared(client).processes == 2)
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_circuit_that_opens_in_one_client_is_open_in_the_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let server = RedisServer::start(folder.path());
        let emulator = provider(60_000, 6.0).await;
        let limits = "max_requests_per_minute: 60000, max_concurrent_requests: 100";
        let state = format!("redis://127.0.0.1:{}", server.port);
        let clients = [client(&emulator, &state, limits), client(&emulator, &state, limits)];
        for client in &clients {
            call(client).await.expect("it is answered");
        }
        let down = "rules: [{fault: server-error}]";
        emulator.set_scenario(Scenario::parse(down).expect("it is well-formed"));
        for _ in 0..5 {
            call(&clients[0]).await.expect_err("the provider is down");
        }
        emulator.set_scenario(Scenario::default());
        let tripped = Instant::now();
        while clients[1].resilience_stats().circuit_breakers["openai"].state.name() != "open" {
            assert!(tripped.elapsed() < Duration::from_secs(20), "nobody told the other");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let error = call(&clients[1]).await.expect_err("it knows");
        assert_eq!(error.kind(), omega_client::ErrorKind::CircuitOpen);
    }
}
