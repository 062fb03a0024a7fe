//! Several keys or endpoints of one provider: whoever has room is asked, and one that fails is passed over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use omega_client::{
    Answer, Attempt, AttemptOutcome, Builder, CallerProtocol, ChatCall, ChatRequest, ChatResponse,
    Environment, ErrorKind, FileChoice, Message, RelayRequest, RelayStream, Relayed, Sources,
};
use tokio::time::Instant;

use crate::cancellation::Polls;
use crate::support::*;

/// `eu` stands beside OpenAI, with a key and an address of its own.
const BESIDE: &str = "
model: gpt-4.1
providers:
  eu: {protocol: openai, pool: openai, api_key_env: EU_KEY, base_url: 'http://eu/v1'}
";
/// One call at a time for each.
const NARROW: &str =
    "rate_limiting: {openai: {max_concurrent_requests: 1}, eu: {max_concurrent_requests: 1}}\n";
/// Chance decides who is asked first; of so many seeds, each is asked first by some.
const SEEDS: std::ops::Range<u64> = 0..12;

fn pooled(upstream: &Arc<Upstream>, more: &str) -> Builder {
    let pairs =
        [("OPENAI_API_KEY", "sk-head-key-1"), ("EU_KEY", "sk-eu-key-22"), ("ANTHROPIC_API_KEY", "sk-ant-3")];
    let environment = Environment::from_pairs(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let sources = Sources { file: FileChoice::None, environment, ..Sources::default() };
    bare(upstream).sources(sources).config_text("test.yaml", format!("{BESIDE}{more}"))
}

fn by(attempts: &[Attempt]) -> Vec<&str> {
    attempts.iter().map(|attempt| attempt.provider.as_str()).collect()
}

fn providers(answers: &[Answer<ChatResponse>]) -> BTreeSet<&str> {
    answers.iter().map(|answer| answer.provider.as_str()).collect()
}

fn at(model: &str) -> ChatRequest {
    ChatRequest::new(model, [Message::user("Hi")])
}

#[tokio::test(start_paused = true)]
async fn two_calls_at_once_go_to_whoever_has_room() {
    for seed in SEEDS {
        let upstream = Upstream::sequence([openai::answer("ok").after(Duration::from_secs(8))]);
        let client = pooled(&upstream, NARROW).seed(seed).build().unwrap();
        let start = Instant::now();
        let answers = join_all((0..2).map(|_| async { client.chat("Hi").await.unwrap() })).await;
        assert_eq!(providers(&answers), BTreeSet::from(["openai", "eu"]));
        assert!(answers.iter().all(|answer| answer.attempts.len() == 1), "nobody was refused on the way");
        assert!(
            start.elapsed() < Duration::from_secs(9),
            "nobody waited for the other: {:?}",
            start.elapsed()
        );
        let keys: BTreeSet<_> = upstream.seen().into_iter().filter_map(|seen| seen.key).collect();
        assert_eq!(keys, ["sk-head-key-1", "sk-eu-key-22"].map(String::from).into());
        let stats = client.resilience_stats();
        for name in ["openai", "eu"] {
            assert_eq!(stats.rate_limiters[name].requests_last_minute, 1, "{name} has limits of its own");
            assert!(stats.circuit_breakers.contains_key(name));
        }
        assert_nothing_held(&client);
    }
}

#[tokio::test(start_paused = true)]
async fn where_nobody_has_room_it_waits_where_its_turn_comes_first() {
    // One is free again after two seconds, the other after twenty.
    let limits = "rate_limiting: {openai: {max_requests_per_minute: 30, burst_seconds: 2}, \
                  eu: {max_requests_per_minute: 3, burst_seconds: 20}}\n";
    for seed in SEEDS {
        let upstream = Upstream::sequence([openai::answer("ok")]);
        let client = pooled(&upstream, limits).seed(seed).build().unwrap();
        let both = join_all((0..2).map(|_| async { client.chat("Hi").await.unwrap() })).await;
        assert_eq!(providers(&both).len(), 2);
        let start = Instant::now();
        let answer = client.chat("Hi").await.unwrap();
        assert_eq!((answer.provider.as_str(), answer.attempts.len()), ("openai", 1), "seed {seed}");
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert_nothing_held(&client);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_key_does_not_fail_a_call_while_another_lives() {
    let refused = || openai::error(401, "invalid_request_error", "invalid_api_key", "Incorrect API key");
    for dead in [refused as fn() -> Reply, openai::insufficient_quota] {
        let mut met = 0;
        for seed in SEEDS {
            let upstream = Upstream::by_provider(move |name, _| match name {
                "openai" => dead(),
                _ => openai::answer("from the living"),
            });
            let client = pooled(&upstream, "").seed(seed).build().unwrap();
            let answer = client.chat("Hi").await.unwrap();
            assert_eq!((answer.provider.as_str(), answer.model.as_str()), ("eu", "gpt-4.1"));
            assert!(upstream.asked("openai") <= 1, "a dead key is not tried twice");
            met += upstream.asked("openai");
            assert_nothing_held(&client);
        }
        assert!(met > 0, "the dead one was asked first by some");
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_of_one_leaves_the_other() {
    let upstream = Upstream::by_provider(|name, _| match name {
        "openai" => openai::server_error(),
        _ => openai::answer("ok"),
    });
    let yaml = "circuit_breaker: {failure_threshold: 1}\nresilience: {max_retries: 1}\n";
    let client = pooled(&upstream, yaml).build().unwrap();
    // Until chance has sent one there.
    while upstream.asked("openai") == 0 {
        assert_eq!(client.chat("Hi").await.unwrap().provider, "eu");
    }
    for _ in 0..10 {
        let answer = client.chat("Hi").await.unwrap();
        assert_eq!(by(&answer.attempts), ["eu"], "who is shut is not in the way");
    }
    assert_eq!(upstream.asked("openai"), 1);
}

#[tokio::test(start_paused = true)]
async fn those_beside_it_are_asked_before_any_fallback() {
    let upstream = Upstream::by_provider(|name, _| match name {
        "anthropic" => anthropic::answer("from the fallback"),
        _ => openai::server_error(),
    });
    for seed in SEEDS {
        let client = pooled(&upstream, "resilience: {max_retries: 1}\n").seed(seed).build().unwrap();
        let answer = client.chat(ChatCall::from("Hi").fallbacks(["claude-opus-5-5"])).await.unwrap();
        let asked = by(&answer.attempts);
        assert_eq!(asked[2..], ["anthropic"], "{asked:?}");
        assert_eq!(BTreeSet::from_iter(&asked[..2]), BTreeSet::from([&"openai", &"eu"]));
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_asked_for_by_its_own_name_is_meant_alone() {
    let upstream = Upstream::by_provider(|_, _| openai::server_error());
    let client = pooled(&upstream, "resilience: {max_retries: 1}\n").build().unwrap();
    let error = client.chat(at("eu/gpt-4.1")).await.unwrap_err();
    assert_eq!((by(error.attempts()), upstream.asked("openai")), (vec!["eu"], 0));

    // With the other one as its fallback it is waited for all the same, as long as any target is.
    let upstream = Upstream::sequence([openai::answer("ok").after(Duration::from_secs(2))]);
    let client = pooled(&upstream, NARROW).build().unwrap();
    let call = || ChatCall::new(at("eu/gpt-4.1")).fallbacks(["gpt-4.1"]);
    let answers = join_all((0..2).map(|_| async { client.chat(call()).await.unwrap() })).await;
    assert_eq!(providers(&answers), BTreeSet::from(["eu"]));
}

#[tokio::test(start_paused = true)]
async fn a_head_without_a_key_is_nobody_to_ask_while_another_has_one() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let environment = Environment::from_pairs([("EU_KEY".to_owned(), "sk-eu-key-22".to_owned())]);
    let sources = Sources { file: FileChoice::None, environment, ..Sources::default() };
    for seed in SEEDS {
        let builder = bare(&upstream).sources(sources.clone()).config_text("test.yaml", BESIDE);
        let answer = builder.seed(seed).build().unwrap().chat("Hi").await.unwrap();
        assert_eq!(by(&answer.attempts), ["eu"]);
    }
}

fn conversation(begins: &str, stream: bool) -> RelayRequest {
    let body = serde_json::json!({
        "model": "gpt-4.1", "stream": stream, "messages": [{"role": "user", "content": begins}]
    });
    RelayRequest::read(CallerProtocol::ChatCompletions, Bytes::from(body.to_string())).unwrap()
}

/// Who answers: a whole answer's provider.
async fn served(client: &omega_client::UnifiedLLMClient, begins: &str) -> String {
    match client.relay(conversation(begins, false)).await.unwrap() {
        Relayed::Whole(answer) => answer.provider,
        Relayed::Stream(_) => panic!("it was asked for whole"),
    }
}

fn whole() -> Reply {
    let body = serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_000_000, "model": "gpt-4.1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]
    });
    Reply {
        headers: vec![("content-type", "application/json".into())],
        ..Reply::new(200, [text(body.to_string())])
    }
}

#[tokio::test(start_paused = true)]
async fn a_conversation_stays_where_it_is_while_there_is_room() {
    let upstream = Upstream::sequence([whole().after(Duration::from_secs(2))]);
    let client = pooled(&upstream, NARROW).build().unwrap();
    let mut homes = BTreeSet::new();
    for begins in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        let home = served(&client, begins).await;
        assert_eq!(
            (served(&client, begins).await, served(&client, begins).await),
            (home.clone(), home.clone())
        );
        let (first, second) = tokio::join!(served(&client, begins), served(&client, begins));
        assert_eq!(first, home);
        assert_ne!(second, home, "its own place is taken, and the other's is free");
        homes.insert(home);
    }
    assert_eq!(homes.len(), 2, "conversations are spread");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn conversations_are_spread_call_by_call_where_they_are_not_to_stay() {
    let upstream = Upstream::sequence([whole()]);
    let client = pooled(&upstream, "gateway: {sticky: false}\n").build().unwrap();
    let mut homes = BTreeSet::new();
    for _ in 0..20 {
        homes.insert(served(&client, "the same").await);
    }
    assert_eq!(homes.len(), 2);
}

async fn read(mut stream: RelayStream) -> (String, RelayStream) {
    let mut said = String::new();
    while let Some(bytes) = stream.next().await {
        said.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    (said, stream)
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_gone_on_with_by_one_that_had_no_room_before() {
    // Whoever is asked second breaks off, and has nothing more to say.
    let upstream = Upstream::new(|_, at| match at {
        0 => Reply::new(
            200,
            [openai::role(), openai::content("first"), wait(1.0), openai::finish(), openai::done()],
        ),
        1 => Reply::new(200, [openai::role(), openai::content("Hel"), wait(3.0), Step::Break]),
        2 => openai::answer("Hello"),
        _ => openai::server_error(),
    });
    let yaml = format!("{NARROW}streaming: {{on_stream_break: restart}}\n");
    let client = pooled(&upstream, &yaml).build().unwrap();
    let relay = || async {
        match client.relay(conversation("the same", true)).await.unwrap() {
            Relayed::Stream(stream) => stream,
            Relayed::Whole(_) => panic!("it was asked for as a stream"),
        }
    };
    let (first, second) = (relay().await, relay().await);
    let ((_, first), (said, second)) = tokio::join!(read(first), read(second));
    assert!(first.is_whole() && second.is_whole(), "{said}");
    let hosts: Vec<String> = upstream.seen().into_iter().map(|seen| seen.host).collect();
    assert_eq!(hosts.len(), 3);
    assert_eq!(hosts[0], hosts[2], "the one that had no room has it now");
    assert_ne!(hosts[0], hosts[1]);
    assert!(said.contains("Hel") && said.contains("lo") && !said.contains("Hello"), "{said}");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn another_key_of_the_same_provider_is_no_hedge() {
    const WARM: usize = 120;
    let upstream =
        Upstream::new(|_, at| openai::answer("ok").after(Duration::from_secs(if at < WARM { 1 } else { 8 })));
    let free = "{max_requests_per_minute: unlimited, max_tokens_per_minute: unlimited}";
    let yaml =
        format!("hedging: {{enabled: true, percent: 100}}\nrate_limiting: {{openai: {free}, eu: {free}}}\n");
    let client = pooled(&upstream, &yaml).build().unwrap();
    for _ in 0..WARM + 4 {
        client.chat("Hi").await.unwrap();
    }
    assert!(upstream.asked("eu") > 40 && upstream.asked("openai") > 40, "both know what is slow");
    assert_eq!(client.resilience_stats().details.calls.hedged, 0);
    assert_eq!(upstream.count(), WARM + 4);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_moment_gives_back_what_it_held_at_each() {
    let mut ended = false;
    for left in 0..1_000 {
        let upstream = Upstream::by_provider(|name, at| match (name, at) {
            (_, 0) => openai::answer("goes first").after(Duration::from_secs(1)),
            ("openai", _) => Reply::new(500, [wait(0.2), text("{}")]),
            _ => Reply::new(
                200,
                [openai::role(), wait(0.3), openai::content("a"), openai::finish(), openai::done()],
            ),
        });
        let client = pooled(&upstream, &format!("{NARROW}resilience: {{max_retries: 1}}\n")).build().unwrap();
        let call = async {
            // Both are taken, so the last one waits.
            join_all((0..3).map(|_| client.chat("Hi"))).await
        };
        let all = Polls { future: Box::pin(call), left }.await;
        assert_nothing_held(&client);
        if let Some(all) = all {
            assert!(all.iter().all(Result::is_ok), "{all:?}");
            ended = true;
            break;
        }
    }
    assert!(ended);
}

#[tokio::test(start_paused = true)]
async fn when_all_of_them_fail_each_is_named() {
    let upstream = Upstream::by_provider(|_, _| openai::insufficient_quota());
    let error = pooled(&upstream, "").build().unwrap().chat("Hi").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QuotaExhausted);
    let text = error.to_string();
    assert!(text.contains("openai") && text.contains("eu"), "{text}");
    let failed = |attempt: &Attempt| matches!(attempt.outcome, AttemptOutcome::Failed { .. });
    assert!(error.attempts().len() == 2 && error.attempts().iter().all(failed));
}
