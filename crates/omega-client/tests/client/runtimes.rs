//! One client in several runtimes: places in the queue and permits cross from one to the other.

use std::time::Duration;

use crate::support::*;

#[test]
fn two_runtimes_share_one_client() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let upstream = Upstream::sequence([openai::answer("ok").after(Duration::from_millis(2))]);
    let yaml = "rate_limiting: {openai: {max_requests_per_minute: 100000, max_tokens_per_minute: 1000000000, max_concurrent_requests: 1}}";
    let client = configured(&upstream, yaml).build().unwrap();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            std::thread::spawn(move || {
                runtime().block_on(async {
                    // One slot for both: each waits for permits that the other runtime gives back.
                    let calls = (0..25).map(|_| client.chat("Hi"));
                    futures_util::future::join_all(calls).await.into_iter().filter(Result::is_ok).count()
                })
            })
        })
        .collect();
    let answered: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(answered, 50);
    assert_nothing_held(&client);
}

#[test]
fn a_runtime_that_ends_takes_its_waiters_along_and_nobody_elses() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let upstream = Upstream::sequence([openai::answer("ok").after(Duration::from_millis(5))]);
    let yaml = "rate_limiting: {openai: {max_requests_per_minute: 100000, max_concurrent_requests: 1}}";
    let client = configured(&upstream, yaml).build().unwrap();
    let gone = runtime();
    for _ in 0..5 {
        let client = client.clone();
        gone.spawn(async move { client.chat("Hi").await });
    }
    gone.block_on(async { tokio::time::sleep(Duration::from_millis(2)).await });
    drop(gone);
    let answer = runtime().block_on(client.chat("Hi"));
    assert_eq!(answer.unwrap().text(), "ok");
    assert_nothing_held(&client);
}

#[test]
fn calls_and_streams_can_be_sent_between_threads() {
    fn is_send<T: Send>(_: T) {}
    fn is_shared<T: Send + Sync>(_: &T) {}
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let client = client(&upstream);
    is_shared(&client);
    is_send(client.chat("Hi"));
    is_send(client.chat_stream("Hi"));
    is_send(client.responses_stream(omega_client::ResponsesRequest::default()));
    fn stream_is_send() -> impl Fn(omega_client::ChatStream) {
        |stream| is_send(stream)
    }
    let _ = stream_is_send();
}

#[test]
fn a_client_with_real_connections_can_be_built_outside_of_a_runtime() {
    use omega_client::{Environment, FileChoice, Sources, UnifiedLLMClient};
    let sources = Sources { file: FileChoice::None, environment: Environment::empty(), ..Sources::default() };
    let client = UnifiedLLMClient::builder().sources(sources).build().unwrap();
    assert_eq!(client.pool_stats().unwrap().connections(), 0);
    drop(client);
}

#[test]
fn many_threads_drop_and_finish_calls_at_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let upstream = Upstream::sequence([openai::answer("ok").after(Duration::from_millis(1))]);
    let yaml = "rate_limiting: {openai: {max_requests_per_minute: 1000000, max_tokens_per_minute: 1000000000, max_concurrent_requests: 7}}";
    let client = configured(&upstream, yaml).build().unwrap();
    let answered = runtime.block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for at in 0..2_000u64 {
            let client = client.clone();
            calls.spawn(async move {
                let call = client.chat("Hi");
                match at % 2 {
                    0 => call.await.is_ok(),
                    // Dropped wherever it then is; some of these end in time.
                    _ => tokio::time::timeout(Duration::from_micros(at * 50), call)
                        .await
                        .is_ok_and(|it| it.is_ok()),
                }
            });
        }
        let mut answered = 0;
        while let Some(call) = calls.join_next().await {
            answered += usize::from(call.unwrap());
        }
        answered
    });
    assert!(answered >= 1_000, "{answered}: every call that was not dropped is answered");
    assert_nothing_held(&client);
    assert_eq!(client.resilience_stats().details.providers["openai"].transitions_total, 0);
}
