//! Streams over HTTP/2: how many connections, what happens at the limit, and what is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use omega_transport::{HttpTransport, Transport, TransportErrorKind};
use tokio::sync::{Barrier, Notify, Semaphore};
use tokio::task::JoinSet;

use crate::servers::*;
use crate::trust::Authority;

/// Sends `count` requests at once to a server that answers none before all have arrived.
async fn all_at_once(transport: Arc<HttpTransport>, url: String, count: usize) {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let (transport, url) = (transport.clone(), url.clone());
        calls.spawn(async move { fetch(&transport, &url).await.expect("an answer") });
    }
    within(async {
        while let Some(answer) = calls.join_next().await {
            assert_eq!(answer.expect("no panic"), "all here");
        }
    })
    .await;
}

async fn meeting_point(speaks: Speaks, count: usize) -> Server {
    let barrier = Arc::new(Barrier::new(count));
    Server::start(speaks, move |_| {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
            text("all here")
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_streams_make_progress_at_once_when_a_connection_allows_a_hundred() {
    let authority = Authority::new();
    let speaks = Speaks::Tls { acceptor: authority.acceptor(&["h2", "http/1.1"]), streams: 100 };
    let server = meeting_point(speaks, 500).await;
    let transport = Arc::new(transport(|config| config.ca_pem = authority.pem().into_bytes()));

    all_at_once(transport.clone(), server.https("/"), 500).await;

    assert_eq!(server.accepted(), 5);
    let stats = transport.stats();
    assert_eq!((stats.in_flight(), stats.waiting(), stats.connections()), (0, 0, 5));
    assert_eq!(stats.origins[0].stream_capacity, 500);
}

#[tokio::test]
async fn a_limit_below_the_assumed_one_opens_as_many_connections_as_it_takes() {
    let server = meeting_point(Speaks::Http2(Some(3)), 20).await;
    let transport = Arc::new(http2_transport(|_| {}));

    all_at_once(transport.clone(), server.url("/"), 20).await;

    assert_eq!(server.accepted(), 7);
    assert_eq!(transport.stats().in_flight(), 0);
}

#[tokio::test]
async fn a_server_without_a_limit_gets_one_connection_up_to_our_own_bound() {
    let server = meeting_point(Speaks::Http2(None), 90).await;
    let transport = Arc::new(http2_transport(|_| {}));
    all_at_once(transport.clone(), server.url("/"), 90).await;
    assert_eq!(server.accepted(), 1);

    let server = meeting_point(Speaks::Http2(None), 9).await;
    let transport = Arc::new(http2_transport(|config| config.max_streams_per_connection = 3));
    all_at_once(transport.clone(), server.url("/"), 9).await;
    assert_eq!(server.accepted(), 3);
}

#[tokio::test]
async fn a_dropped_request_frees_its_stream() {
    let arrived = Arc::new(Notify::new());
    let server = Server::start(Speaks::Http2(Some(1)), {
        let arrived = arrived.clone();
        move |request| {
            let arrived = arrived.clone();
            async move {
                if request.uri().path() == "/silent" {
                    arrived.notify_one();
                    std::future::pending::<()>().await;
                }
                text("answered")
            }
        }
    })
    .await;
    let transport = http2_transport(|config| config.max_connections_per_origin = Some(1));
    let silent = server.url("/silent");
    {
        let mut dropped = transport.send(get(&silent));
        tokio::select! {
            _ = &mut dropped => panic!("the server never answers"),
            () = arrived.notified() => {}
        }
        assert_eq!(transport.stats().in_flight(), 1);
    }
    assert_eq!(transport.stats().in_flight(), 0);
    assert_eq!(within(fetch(&transport, &server.url("/"))).await.expect("an answer"), "answered");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_dropped_body_frees_its_stream() {
    let server = Server::start(Speaks::Http2(Some(1)), |request| async move {
        if request.uri().path() == "/endless" { endless("first") } else { text("answered") }
    })
    .await;
    let transport = http2_transport(|config| config.max_connections_per_origin = Some(1));
    let mut response = within(transport.send(get(&server.url("/endless")))).await.expect("a head");
    assert_eq!(within(response.body.chunk()).await.expect("a chunk").expect("bytes"), "first");
    assert_eq!(transport.stats().in_flight(), 1);
    drop(response);
    assert_eq!(transport.stats().in_flight(), 0);
    assert_eq!(within(fetch(&transport, &server.url("/"))).await.expect("an answer"), "answered");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn requests_beyond_the_connection_limit_wait_in_order_and_leave_the_queue_when_dropped() {
    let gate = Arc::new(Semaphore::new(0));
    let server = Server::start(Speaks::Http2(Some(1)), {
        let gate = gate.clone();
        move |request| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.expect("open").forget();
                text(request.uri().path().to_owned())
            }
        }
    })
    .await;
    let transport = Arc::new(http2_transport(|config| config.max_connections_per_origin = Some(1)));
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut calls = JoinSet::new();
    let mut handles = Vec::new();
    for path in ["/1", "/2", "/dropped", "/3"] {
        let (transport_, order, url) = (transport.clone(), order.clone(), server.url(path));
        handles.push(calls.spawn(async move {
            let answer = fetch(&transport_, &url).await.expect("an answer");
            order.lock().expect("no panic").push(answer);
        }));
        let expected = handles.len();
        eventually("the request is queued", || {
            let stats = transport.stats();
            stats.in_flight() + stats.waiting() == expected
        })
        .await;
    }
    assert_eq!((transport.stats().in_flight(), transport.stats().waiting()), (1, 3));

    handles[2].abort();
    eventually("the dropped request left the queue", || transport.stats().waiting() == 2).await;
    for done in 1..=3 {
        gate.add_permits(1);
        eventually("one more answer", || order.lock().expect("no panic").len() == done).await;
    }
    assert_eq!(*order.lock().expect("no panic"), ["/1", "/2", "/3"]);
    assert_eq!((transport.stats().in_flight(), transport.stats().waiting()), (0, 0));
}

#[tokio::test]
async fn after_goaway_new_requests_use_a_new_connection_and_old_ones_finish() {
    let (gate, arrived) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = Server::start(Speaks::Http2(Some(10)), {
        let (gate, arrived) = (gate.clone(), arrived.clone());
        move |request| {
            let (gate, arrived) = (gate.clone(), arrived.clone());
            async move {
                if request.uri().path() == "/slow" {
                    arrived.notify_one();
                    gate.notified().await;
                }
                text(request.uri().path().to_owned())
            }
        }
    })
    .await;
    let transport = Arc::new(http2_transport(|_| {}));
    let mut slow = JoinSet::new();
    let (transport_, url) = (transport.clone(), server.url("/slow"));
    slow.spawn(async move { fetch(&transport_, &url).await });
    within(arrived.notified()).await;

    server.say_goodbye();
    // Dropped at once, without a request that has to find out.
    eventually("the connection left the pool", || transport.stats().connections() == 0).await;
    assert_eq!(transport.stats().in_flight(), 1);
    assert_eq!(within(fetch(&transport, &server.url("/new"))).await.expect("an answer"), "/new");
    assert_eq!(server.accepted(), 2);

    gate.notify_one();
    let slow = within(slow.join_next()).await.expect("one call").expect("no panic");
    assert_eq!(slow.expect("carried to its end"), "/slow");
    assert_eq!(transport.stats().in_flight(), 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let server = Server::start(Speaks::Http2(Some(10)), |_| async { text("hello") }).await;
    let transport = http2_transport(|config| config.idle_timeout = Duration::from_millis(50));
    within(fetch(&transport, &server.url("/"))).await.expect("an answer");
    eventually("the idle connection is closed", || transport.stats().connections() == 0).await;
    within(fetch(&transport, &server.url("/"))).await.expect("an answer");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_refused_stream_is_known_not_to_have_been_processed() {
    let refused = Arc::new(AtomicUsize::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let mut server = JoinSet::new();
    server.spawn({
        let refused = refused.clone();
        async move {
            let (tcp, _) = listener.accept().await.expect("a connection");
            let mut connection = h2::server::handshake(tcp).await.expect("a handshake");
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let first = refused.fetch_add(1, Ordering::SeqCst) == 0;
                respond.send_reset(if first {
                    h2::Reason::REFUSED_STREAM
                } else {
                    h2::Reason::INTERNAL_ERROR
                });
            }
        }
    });
    let transport = http2_transport(|_| {});

    let error = failure(&transport, &url).await;
    assert_eq!((error.kind(), error.sent()), (TransportErrorKind::Reset, false), "{error}");
    let error = failure(&transport, &url).await;
    assert_eq!((error.kind(), error.sent()), (TransportErrorKind::Reset, true), "{error}");
    // A reset stream is the stream's affair; the connection stays.
    assert_eq!((transport.stats().connections(), transport.stats().in_flight()), (1, 0));
}

#[tokio::test]
async fn a_server_that_sends_no_settings_is_given_up_after_the_connect_timeout() {
    let server = RawServer::start(|_, mut stream| wait_for_close(&mut stream));
    let transport = Arc::new(http2_transport(|config| config.connect_timeout = Duration::from_millis(200)));
    let mut calls = JoinSet::new();
    for _ in 0..3 {
        let (transport, url) = (transport.clone(), server.url("/"));
        calls.spawn(async move { failure(&transport, &url).await });
    }
    let mut unsent = 0;
    while let Some(error) = within(calls.join_next()).await {
        let error = error.expect("no panic");
        unsent += usize::from(!error.sent());
        assert_ne!(error.kind(), TransportErrorKind::Other, "{error}");
    }
    // One request may go ahead of the settings; those that waited were never sent.
    assert_eq!(unsent, 2);
    assert_eq!((transport.stats().in_flight(), transport.stats().waiting()), (0, 0));
}

#[tokio::test]
async fn an_http1_server_taken_for_http2_is_a_protocol_error() {
    let server = RawServer::start(|_, mut stream| {
        read_head(&mut stream);
        write(&mut stream, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        wait_for_close(&mut stream);
    });
    let error = failure(&http2_transport(|_| {}), &server.url("/")).await;
    assert_eq!(error.kind(), TransportErrorKind::Protocol, "{error:?}");
}
