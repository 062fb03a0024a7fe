//! Connections over HTTP/1.1: kept when the answer was read to its end, closed in every other case.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use omega_transport::{Transport, TransportErrorKind};
use tokio::sync::{Barrier, Notify};
use tokio::task::JoinSet;

use crate::servers::*;

#[tokio::test]
async fn an_answer_read_to_its_end_gives_the_connection_back() {
    let server = Server::start(Speaks::Http1, |_| async { text("hello") }).await;
    let transport = transport(|_| {});
    for _ in 0..20 {
        assert_eq!(within(fetch(&transport, &server.url("/"))).await.expect("an answer"), "hello");
        eventually("the connection is idle", || transport.stats().origins[0].idle_connections == 1).await;
    }
    let stats = transport.stats();
    assert_eq!(server.accepted(), 1);
    assert_eq!(
        (stats.in_flight(), stats.origins[0].requests_total, stats.origins[0].opened_total),
        (0, 20, 1)
    );
}

#[tokio::test]
async fn an_unread_body_closes_its_connection() {
    let server = Server::start(Speaks::Http1, |request| async move {
        if request.uri().path() == "/endless" { endless("first") } else { text("hello") }
    })
    .await;
    let transport = transport(|_| {});
    let mut response = within(transport.send(get(&server.url("/endless")))).await.expect("a head");
    assert_eq!(within(response.body.chunk()).await.expect("a chunk").expect("bytes"), "first");
    drop(response);
    assert_eq!(transport.stats().in_flight(), 0);
    eventually("the connection is closed", || transport.stats().connections() == 0).await;
    within(fetch(&transport, &server.url("/"))).await.expect("an answer");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_dropped_request_closes_its_connection() {
    let arrived = Arc::new(Notify::new());
    let server = Server::start(Speaks::Http1, {
        let arrived = arrived.clone();
        move |_| {
            arrived.notify_one();
            async {
                std::future::pending::<()>().await;
                text("never")
            }
        }
    })
    .await;
    let transport = transport(|_| {});
    tokio::select! {
        _ = transport.send(get(&server.url("/"))) => panic!("the server never answers"),
        () = arrived.notified() => {}
    }
    assert_eq!(transport.stats().in_flight(), 0);
    eventually("the connection is closed", || transport.stats().connections() == 0).await;
}

#[tokio::test]
async fn concurrent_requests_each_get_a_connection_and_the_surplus_is_closed() {
    let barrier = Arc::new(Barrier::new(30));
    let server = Server::start(Speaks::Http1, move |_| {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
            text("all here")
        }
    })
    .await;
    let transport = Arc::new(transport(|config| config.max_idle_per_origin = 4));
    let mut calls = JoinSet::new();
    for _ in 0..30 {
        let (transport, url) = (transport.clone(), server.url("/"));
        calls.spawn(async move { fetch(&transport, &url).await.expect("an answer") });
    }
    within(calls.join_all()).await;
    assert_eq!(server.accepted(), 30);
    eventually("the surplus is closed", || transport.stats().connections() == 4).await;
    assert_eq!(transport.stats().in_flight(), 0);
}

#[tokio::test]
async fn a_request_on_a_connection_closed_while_idle_is_sent_again() {
    let (both_sent, wait_both_sent) = mpsc::channel();
    let (close, wait_close) = mpsc::channel::<std::net::TcpStream>();
    let wait_close = std::sync::Mutex::new(wait_close);
    let server = RawServer::start(move |number, mut stream| {
        read_head(&mut stream);
        write(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        if number == 0 {
            let mut signal = wait_close.lock().expect("no panic").recv().expect("the test says when");
            drop(stream);
            write(&mut signal, "closed");
            both_sent.send(()).expect("the test listens");
        } else {
            wait_for_close(&mut stream);
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let signal =
        std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let (mut signalled, _) = listener.accept().await.expect("a connection");
    let transport = transport(|_| {});
    assert_eq!(within(fetch(&transport, &server.url("/"))).await.expect("an answer"), "hello");
    eventually("the connection is idle", || transport.stats().origins[0].idle_connections == 1).await;

    // Empty, so that the read below really waits for the runtime's next look at its sockets.
    assert!(signalled.try_read(&mut [0]).is_err());

    // The close and the signal arrive while this blocks the runtime's only thread. Then the runtime learns of both
    // in one look, and polls this test before the connection's task: the request meets a connection that is closed
    // without anybody having noticed.
    close.send(signal).expect("the server waits");
    wait_both_sent.recv().expect("the server closed");
    signalled.read_u8().await.expect("the signal");
    assert_eq!(transport.stats().origins[0].idle_connections, 1);

    assert_eq!(within(fetch(&transport, &server.url("/"))).await.expect("sent again"), "hello");
    let stats = transport.stats();
    assert_eq!((stats.origins[0].opened_total, stats.origins[0].resent_total), (2, 1));
}

/// A program that enters its runtime only for each call lets nobody notice what happens in between.
#[test]
fn a_connection_closed_while_the_runtime_stood_still_is_not_used() {
    let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let servers = servers.expect("a runtime");
    let calls = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for speaks in [Speaks::Http1, Speaks::Http2(Some(10))] {
        let http2 = matches!(speaks, Speaks::Http2(_));
        let server = servers.block_on(Server::start(speaks, |_| async { text("hello") }));
        let transport = if http2 { http2_transport(|_| {}) } else { transport(|_| {}) };
        let call = || calls.block_on(async { within(fetch(&transport, &server.url("/"))).await });
        assert_eq!(call().expect("an answer"), "hello");
        // Not a race: the pool looks twice at connections that rested for a tenth of a second or more.
        std::thread::sleep(Duration::from_millis(120));
        servers.block_on(server.hang_up());
        assert_eq!(call().expect("an answer over a new connection"), "hello");
        assert_eq!(server.accepted(), 2);
    }
}

#[tokio::test]
async fn a_connection_closed_after_the_request_left_is_not_used_for_a_second_try() {
    let requests = Arc::new(AtomicUsize::new(0));
    let server = RawServer::start({
        let requests = requests.clone();
        move |_, mut stream| {
            read_head(&mut stream);
            requests.fetch_add(1, Ordering::SeqCst);
        }
    });
    let error = failure(&transport(|_| {}), &server.url("/")).await;
    assert_eq!((error.kind(), error.sent()), (TransportErrorKind::Closed, true), "{error}");
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let server = Server::start(Speaks::Http1, |_| async { text("hello") }).await;
    let transport = transport(|config| config.idle_timeout = Duration::from_millis(50));
    within(fetch(&transport, &server.url("/"))).await.expect("an answer");
    eventually("the idle connection is closed", || transport.stats().connections() == 0).await;
}

#[tokio::test]
async fn requests_beyond_the_connection_limit_share_what_there_is() {
    let server = Server::start(Speaks::Http1, |_| async { text("hello") }).await;
    let transport = Arc::new(transport(|config| config.max_connections_per_origin = Some(2)));
    let mut calls = JoinSet::new();
    for _ in 0..40 {
        let (transport, url) = (transport.clone(), server.url("/"));
        calls.spawn(async move { fetch(&transport, &url).await.expect("an answer") });
    }
    assert_eq!(within(calls.join_all()).await.len(), 40);
    assert_eq!(server.accepted(), 2);
    assert_eq!((transport.stats().in_flight(), transport.stats().waiting()), (0, 0));
}

#[tokio::test]
async fn the_server_sees_the_path_the_host_and_the_length() {
    let server = RawServer::start(|_, mut stream| {
        let head = read_head(&mut stream);
        let head = head.replace("\r\n", "|");
        let length = head.len();
        write(
            &mut stream,
            &format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{head}"),
        );
        wait_for_close(&mut stream);
    });
    let transport = transport(|_| {});
    let head = within(fetch(&transport, &server.url("/v1/models?limit=3"))).await.expect("an answer");
    assert!(head.starts_with("GET /v1/models?limit=3 HTTP/1.1|"), "{head}");
    assert!(head.contains(&format!("host: {}|", server.address)), "{head}");

    let head = within(fetch(&transport, &server.url(""))).await.expect("an answer");
    assert!(head.starts_with("GET / HTTP/1.1|"), "{head}");
    let post = http::Request::post(server.url("/v1")).body("four".into()).expect("a request");
    let mut response = within(transport.send(post)).await.expect("an answer");
    let head = within(response.body.collect(4096)).await.expect("a body");
    assert!(String::from_utf8_lossy(&head).contains("content-length: 4|"), "{head:?}");
}
