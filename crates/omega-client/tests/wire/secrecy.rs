//! No key and no prompt in any log, error, `Debug` or statistic, whatever the vendor answers: searched for at the most
//! talkative level of every crate, with TLS and HTTP/2 underneath.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use omega_client::{ChatCall, ChatRequest, Message, UnifiedLLMClient};
use omega_emulator::{Emulator, EmulatorConfig, Tls};
use omega_transport::TransportConfig;
use tracing_subscriber::util::SubscriberInitExt;

use crate::support::*;

const PROMPT: &str = "PROMPT-OF-A-PERSON";
const WRONG: &str = "sk-KEYTHATISWRONG";

/// An emulator on threads of its own, where nobody listens to what it logs: a server knows the keys it is sent.
struct Far {
    emulator: Option<Emulator>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Far {
    async fn start(config: EmulatorConfig) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let emulator = runtime.spawn(Emulator::start(config)).await.unwrap().unwrap();
        Self { emulator: Some(emulator), runtime: Some(runtime) }
    }

    fn emulator(&self) -> &Emulator {
        self.emulator.as_ref().unwrap()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        drop(self.emulator.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Everything the client can be made to show about one call.
async fn shown(client: &UnifiedLLMClient, vendor: &Vendor) -> String {
    let request = ChatRequest::new(vendor.model, [Message::user(PROMPT)]);
    let call = ChatCall::new(request).timeout(Duration::from_secs(20));
    let mut said = format!("{call:?}\n");
    let mut tell = |error: omega_client::Error| {
        let mut said = format!("{error}\n{error:?}\n{error:#?}\n{:?}\n", error.attempts());
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            write!(said, "{inner}\n{inner:?}\n").unwrap();
            source = inner.source();
        }
        said
    };
    said.push_str(&client.chat(call.clone()).await.map_or_else(&mut tell, |answer| format!("{answer:?}\n")));
    match client.chat_stream(call).await {
        Err(error) => said.push_str(&tell(error)),
        Ok(mut stream) => {
            while let Some(chunk) = stream.next().await {
                said.push_str(&chunk.map_or_else(&mut tell, |chunk| format!("{chunk:?}\n")));
            }
            write!(said, "{stream:?}\n{:?}\n", stream.attempts()).unwrap();
        }
    }
    said
}

#[tokio::test]
async fn keys_and_prompts_appear_nowhere() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer({
            let lines = lines.clone();
            move || lines.clone()
        })
        .finish();
    // Takes the records of the `log` crate too: rustls writes them.
    let _guard = subscriber.set_default();

    let mut said = String::new();
    for tls in [true, false] {
        let far = Far::start(EmulatorConfig { tls: tls.then(Tls::default), ..config() }).await;
        let emulator = far.emulator();
        let mut transport = TransportConfig::default();
        transport.ca_pem = emulator.ca_pem().unwrap_or_default().into_bytes();
        let built = |key: Option<&str>| {
            // The circuits stay on and speak, but must not keep the later faults from being met.
            let mut builder = builder(emulator, "circuit_breaker: {failure_threshold: 1000}")
                .max_retries(2)
                .transport_config(transport.clone());
            for vendor in &VENDORS[..4] {
                builder = key.into_iter().fold(builder, |builder, key| builder.api_key(vendor.name, key));
            }
            let shown = format!("{builder:?}\n");
            (builder.build().unwrap(), shown)
        };
        let (client, shown_builder) = built(None);
        let (stranger, shown_other) = built(Some(WRONG));
        said.push_str(&shown_builder);
        said.push_str(&shown_other);
        let faults = [
            "",
            "bad-key",
            "forbidden",
            "insufficient-quota",
            "rate-limited:0.01",
            "server-error",
            "bad-gateway-html",
            "overloaded",
            "invalid-request",
            "model-not-found",
            "context-length",
            "content-filter",
            "reset-before-headers",
            "close-before-headers",
            "cut-after:1",
            "end-after:1",
            "malformed-chunk:1",
            "malformed-body",
            "error-in-stream:1",
            "error-in-stream-alternative:1",
            "missing-done",
            "limit-zero",
            // The last: it ends the day for some of them.
            "per-day-quota",
        ];
        for fault in faults {
            if fault.is_empty() {
                heal(emulator)
            } else {
                fail(emulator, None, fault)
            }
            for vendor in &VENDORS {
                said.push_str(&shown(&client, vendor).await);
            }
        }
        heal(emulator);
        for vendor in &VENDORS[..4] {
            said.push_str(&shown(&stranger, vendor).await);
        }
        for client in [client, stranger] {
            let stats = client.resilience_stats();
            writeln!(said, "{client:?}\n{stats:?}\n{}", serde_json::to_string(&stats).unwrap()).unwrap();
            writeln!(said, "{:?}\n{:#?}", client.configuration(), client.configuration().config).unwrap();
            writeln!(said, "{:?}", client.pool_stats()).unwrap();
        }
        let spoken: Vec<_> =
            emulator.requests().iter().map(|seen| seen.headers.http_version.clone()).collect();
        assert!(spoken.iter().all(|version| version == if tls { "HTTP/2.0" } else { "HTTP/1.1" }));
        assert!(spoken.len() > 300, "{} requests were made", spoken.len());
    }

    let log = lines.text();
    for target in ["omega_client: ", " h2::", " rustls::"] {
        assert!(log.contains(target), "nothing was heard of{target}");
    }
    let keys = VENDORS.iter().map(|vendor| vendor.key);
    for secret in keys.chain([WRONG, PROMPT]) {
        for (place, text) in [("the log", &log), ("what was shown", &said)] {
            let found = text.lines().find(|line| line.contains(secret));
            assert_eq!(found, None, "{secret} in {place}");
        }
    }
    // It was looked for in the right place: the answers repeat the prompt, and the client was talkative.
    assert!(log.lines().count() > 1_000 && said.lines().count() > 1_000);
}
