//! The life of connections beyond a request: several runtimes, the end of the transport, and shutdown.

use std::future::{Future as _, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use omega_transport::{Transport, TransportConfig, TransportErrorKind};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::servers::*;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[test]
fn connections_of_an_ended_runtime_leave_the_pool_and_another_runtime_opens_its_own() {
    let servers = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    for speaks in [Speaks::Http1, Speaks::Http2(Some(100))] {
        let http2 = matches!(speaks, Speaks::Http2(_));
        let server = servers.block_on(Server::start(speaks, |_| async { text("hello") }));
        let transport = if http2 { http2_transport(|_| {}) } else { transport(|_| {}) };
        let (first, second) = (runtime(), runtime());

        first.block_on(async { within(fetch(&transport, &server.url("/"))).await.expect("an answer") });
        // The first runtime stands still now; a request that waited for it would hang.
        second.block_on(async { within(fetch(&transport, &server.url("/"))).await.expect("an answer") });
        assert_eq!(server.accepted(), 2);
        assert_eq!(transport.stats().origins.len(), 1);

        drop(first);
        assert_eq!(transport.stats().connections(), 1);
        drop(second);
        assert_eq!((transport.stats().connections(), transport.stats().in_flight()), (0, 0));
        runtime().block_on(async { within(fetch(&transport, &server.url("/"))).await.expect("an answer") });
    }
}

#[test]
fn a_body_outliving_its_runtime_ends_with_an_error() {
    let servers = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    for speaks in [Speaks::Http1, Speaks::Http2(Some(100))] {
        let http2 = matches!(speaks, Speaks::Http2(_));
        let server = servers.block_on(Server::start(speaks, |_| async { endless("first") }));
        let transport = if http2 { http2_transport(|_| {}) } else { transport(|_| {}) };
        let first = runtime();
        let mut response = first.block_on(transport.send(get(&server.url("/")))).expect("a head");
        drop(first);
        let error = runtime().block_on(async {
            loop {
                match within(response.body.chunk()).await.expect("not a clean end") {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            }
        });
        assert!(error.sent(), "{error:?}");
        assert_eq!(transport.stats().in_flight(), 0);
    }
}

#[tokio::test]
async fn dropping_the_transport_closes_idle_connections_and_lets_an_answer_finish() {
    let gate = Arc::new(tokio::sync::Notify::new());
    for speaks in [Speaks::Http1, Speaks::Http2(Some(100))] {
        let http2 = matches!(speaks, Speaks::Http2(_));
        let server = Server::start(speaks, {
            let gate = gate.clone();
            move |_| {
                let gate = gate.clone();
                async move {
                    use futures_util::StreamExt as _;
                    let first = futures_util::stream::iter(["first "]);
                    let last = futures_util::stream::once(async move {
                        gate.notified().await;
                        "last"
                    });
                    streamed(first.chain(last))
                }
            }
        })
        .await;
        let transport = if http2 { http2_transport(|_| {}) } else { transport(|_| {}) };
        let mut response = within(transport.send(get(&server.url("/")))).await.expect("a head");
        drop(transport);
        gate.notify_one();
        let body = within(response.body.collect(100)).await.expect("the whole answer");
        assert_eq!(body, "first last");
    }
}

#[tokio::test]
async fn shutdown_ends_everything_and_refuses_what_comes_after() {
    for speaks in [Speaks::Http1, Speaks::Http2(Some(100))] {
        let http2 = matches!(speaks, Speaks::Http2(_));
        let server = Server::start(speaks, |_| async { endless("first") }).await;
        let transport = if http2 { http2_transport(|_| {}) } else { transport(|_| {}) };
        let mut response = within(transport.send(get(&server.url("/")))).await.expect("a head");
        assert_eq!(within(response.body.chunk()).await.expect("a chunk").expect("bytes"), "first");

        within(transport.shutdown()).await;

        assert!(within(response.body.chunk()).await.expect("not a clean end").is_err());
        let error = failure(&transport, &server.url("/")).await;
        assert_eq!((error.kind(), error.sent()), (TransportErrorKind::Cancelled, false), "{error:?}");
        let other = failure(&transport, "http://127.0.0.1:9/").await;
        assert_eq!(other.kind(), TransportErrorKind::Cancelled, "{other:?}");
        assert_eq!((transport.stats().in_flight(), transport.stats().connections()), (0, 0));
        assert_eq!(server.accepted.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn shutdown_also_ends_connections_being_made() {
    let server = RawServer::start(|_, mut stream| wait_for_close(&mut stream));
    let transport = Arc::new(transport(|_| {}));
    let mut calls = JoinSet::new();
    let (sender, url) = (transport.clone(), format!("https://{}/", server.address));
    calls.spawn(async move { failure(&sender, &url).await });
    eventually("a handshake hangs", || transport.stats().waiting() == 1).await;
    within(transport.shutdown()).await;
    let error = within(calls.join_next()).await.expect("one call").expect("no panic");
    assert_eq!((error.kind(), error.sent()), (TransportErrorKind::Cancelled, false), "{error:?}");
    assert_eq!(transport.stats().origins[0].connecting, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_dropped_at_any_moment_leave_nothing_behind() {
    for speaks in [Speaks::Http1, Speaks::Http2(Some(7))] {
        let http2 = matches!(speaks, Speaks::Http2(_));
        let server = Server::start(speaks, |_| async { text("hello") }).await;
        let limit = |config: &mut TransportConfig| config.max_connections_per_origin = Some(5);
        let transport = Arc::new(if http2 { http2_transport(limit) } else { transport(limit) });
        let mut calls = JoinSet::new();
        for number in 0..1_000_usize {
            let (transport, url) = (transport.clone(), server.url("/"));
            calls.spawn(async move {
                let mut call = std::pin::pin!(fetch(&transport, &url));
                if number.is_multiple_of(2) {
                    return assert_eq!(call.await.expect("an answer"), "hello");
                }
                // Dropped after this many polls, wherever the call is by then.
                for _ in 0..number % 13 {
                    if poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
        within(async {
            while let Some(outcome) = calls.join_next().await {
                outcome.expect("no panic");
            }
        })
        .await;
        let stats = transport.stats();
        assert_eq!((stats.in_flight(), stats.waiting()), (0, 0), "{stats:?}");
        assert!(stats.connections() <= 5, "{stats:?}");
        assert_eq!(within(fetch(&transport, &server.url("/"))).await.expect("still works"), "hello");
    }
}
