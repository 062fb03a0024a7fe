//! Each way an exchange can break, and the kind it is reported as.

use std::io::Read as _;
use std::net::TcpListener;
use std::time::Duration;

use omega_transport::{HttpTransport, Transport, TransportConfig, TransportErrorKind};

use crate::servers::*;

fn plain() -> HttpTransport {
    transport(|_| {})
}

#[tokio::test]
async fn a_refused_connection() {
    let address =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let error = failure(&plain(), &format!("http://{address}/v1?key=secret")).await;
    assert_eq!((error.kind(), error.sent()), (TransportErrorKind::Connect, false), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    // A label above 63 characters is refused by the resolver itself, without asking the network.
    let error = failure(&plain(), &format!("http://{}.invalid/", "a".repeat(64))).await;
    assert_eq!((error.kind(), error.sent()), (TransportErrorKind::Dns, false), "{error}");
}

#[tokio::test]
async fn a_connection_that_does_not_become_usable_in_time() {
    let server = RawServer::start(|_, mut stream| wait_for_close(&mut stream));
    let transport = transport(|config| config.connect_timeout = Duration::from_millis(100));
    let error = failure(&transport, &format!("https://{}/", server.address)).await;
    assert_eq!((error.kind(), error.sent(), error.is_timeout()), (TransportErrorKind::Connect, false, true));
    assert!(error.to_string().contains("the TLS handshake"), "{error}");
    assert_eq!((transport.stats().waiting(), transport.stats().origins[0].connecting), (0, 0));
}

#[tokio::test]
async fn a_reset_before_the_head() {
    let server = RawServer::start(|_, stream| {
        // Closing a socket that holds unread bytes resets the connection.
        let _ = stream.peek(&mut [0]);
    });
    let error = failure(&plain(), &server.url("/")).await;
    assert_eq!((error.kind(), error.sent()), (TransportErrorKind::Reset, true), "{error:?}");
}

#[tokio::test]
async fn a_body_cut_in_the_middle() {
    let server = RawServer::start(|number, mut stream| {
        read_head(&mut stream);
        let head = if number == 0 { "Content-Length: 100" } else { "Transfer-Encoding: chunked" };
        let body = if number == 0 { "only this" } else { "9\r\nonly this\r\n" };
        write(&mut stream, &format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}"));
    });
    let transport = plain();
    for _ in 0..2 {
        let mut response = within(transport.send(get(&server.url("/")))).await.expect("a head");
        assert_eq!(within(response.body.chunk()).await.expect("a chunk").expect("bytes"), "only this");
        let error = within(response.body.chunk()).await.expect("not the end").expect_err("cut");
        assert_eq!((error.kind(), error.sent()), (TransportErrorKind::Closed, true), "{error:?}");
        assert!(within(response.body.chunk()).await.is_none());
    }
    assert_eq!(transport.stats().in_flight(), 0);
}

#[tokio::test]
async fn a_body_reset_in_the_middle() {
    let server = RawServer::start(|_, mut stream| {
        // The last byte of the request stays unread, so that closing resets.
        let mut byte = [0];
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r") && matches!(stream.read(&mut byte), Ok(1)) {
            head.push(byte[0]);
        }
        let _ = stream.peek(&mut [0]);
        write(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
    });
    let error = failure(&plain(), &server.url("/")).await;
    assert_eq!((error.kind(), error.sent()), (TransportErrorKind::Reset, true), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_is_not_http() {
    let server = RawServer::start(|_, mut stream| {
        read_head(&mut stream);
        write(&mut stream, "SSH-2.0-OpenSSH_9.2\r\n\r\n");
        wait_for_close(&mut stream);
    });
    let error = failure(&plain(), &server.url("/")).await;
    assert_eq!(error.kind(), TransportErrorKind::Protocol, "{error:?}");
}

#[tokio::test]
async fn a_head_above_the_limit() {
    let server = RawServer::start(|_, mut stream| {
        read_head(&mut stream);
        let filler = "x".repeat(40_000);
        write(
            &mut stream,
            &format!("HTTP/1.1 200 OK\r\nA: {filler}\r\nB: {filler}\r\nContent-Length: 0\r\n\r\n"),
        );
        wait_for_close(&mut stream);
    });
    let error = failure(&plain(), &server.url("/")).await;
    assert_eq!(error.kind(), TransportErrorKind::TooLarge, "{error:?}");
    let roomy = transport(|config| config.max_response_head_bytes = 128 * 1024);
    within(fetch(&roomy, &server.url("/"))).await.expect("an answer");
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_by_its_announced_length() {
    let server = RawServer::start(|_, mut stream| {
        read_head(&mut stream);
        write(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n");
        wait_for_close(&mut stream);
    });
    let transport = plain();
    let error = failure(&transport, &server.url("/")).await;
    assert_eq!(error.kind(), TransportErrorKind::TooLarge, "{error:?}");
    eventually("the connection is closed", || transport.stats().connections() == 0).await;
}

#[tokio::test]
async fn addresses_that_cannot_be_sent_to() {
    let transport = plain();
    for address in ["/v1/models", "ftp://example.com/", "https://user:hunter2@example.com/"] {
        let error = failure(&transport, address).await;
        assert_eq!((error.kind(), error.sent()), (TransportErrorKind::Other, false), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn a_request_outside_a_runtime_is_refused_rather_than_a_panic() {
    let transport = HttpTransport::new(TransportConfig::default()).expect("a transport");
    let mut sending = transport.send(get("http://127.0.0.1:1/"));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Err(error)) = sending.as_mut().poll(&mut cx) else {
        panic!("expected an error")
    };
    assert_eq!(error.kind(), TransportErrorKind::Other);
}
