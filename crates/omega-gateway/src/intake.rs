//! Takes a request's body in: whole, no larger than allowed, and no slower.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;

use crate::answer::Refusal;

/// The whole body.
///
/// - `most`: in bytes; a larger one is refused before it is read, or as soon as it turns out to be larger.
/// - `pause`: the longest between two pieces.
pub(crate) async fn whole<B>(
    headers: &HeaderMap,
    mut body: B,
    most: u64,
    pause: Duration,
) -> Result<Bytes, Refusal>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most) {
        return Err(too_large(most));
    }
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = tokio::time::timeout(pause, body.frame()).await.map_err(|_| too_slow(pause))? {
        let frame = frame.map_err(|_| {
            Refusal::new(StatusCode::BAD_REQUEST, "broken_body", "the body broke off or is malformed")
        })?;
        // Trailers say nothing that we ask for.
        let Ok(data) = frame.into_data() else { continue };
        let so_far = first.as_ref().map_or(0, Bytes::len).max(rest.len());
        if (so_far + data.len()) as u64 > most {
            return Err(too_large(most));
        }
        match &first {
            None => first = Some(data),
            Some(before) => {
                if rest.is_empty() {
                    // What was announced is what will come; a caller that announces and does not send pays nothing.
                    rest.reserve(
                        (before.len() + data.len()).max(ROOM_MAX.min(announced.unwrap_or(0)) as usize),
                    );
                    rest.extend_from_slice(before);
                }
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(match rest.is_empty() {
        true => first.unwrap_or_default(),
        false => rest.freeze(),
    })
}

/// As much room is made for a body on its word alone.
const ROOM_MAX: u64 = 1024 * 1024;

fn too_large(most: u64) -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "request_too_large",
        format!("the body is larger than {most} bytes (gateway.max_body_bytes)"),
    )
}

fn too_slow(pause: Duration) -> Refusal {
    Refusal::new(
        StatusCode::REQUEST_TIMEOUT,
        "slow_request",
        format!("no more of the body came within {} s (gateway.body_timeout_seconds)", pause.as_secs_f64()),
    )
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{Full, StreamBody};

    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    fn pieces(pieces: &[&'static str]) -> impl http_body::Body<Data = Bytes> + Unpin {
        let frames: Vec<Result<_, Infallible>> = pieces
            .iter()
            .map(|piece| Ok(http_body::Frame::data(Bytes::from_static(piece.as_bytes()))))
            .collect();
        StreamBody::new(futures_util::stream::iter(frames))
    }

    #[tokio::test]
    async fn a_body_is_put_together_and_one_piece_is_not_copied() {
        let none = HeaderMap::new();
        let whole_body = whole(&none, pieces(&["ab", "", "cd", "e"]), 5, PAUSE).await.expect("it fits");
        assert_eq!(whole_body, "abcde");
        let one = Bytes::from_static(b"abcde");
        let same = whole(&none, Full::new(one.clone()), 5, PAUSE).await.expect("it fits");
        assert_eq!(same.as_ptr(), one.as_ptr());
        assert_eq!(whole(&none, pieces(&[]), 5, PAUSE).await.expect("nothing"), "");
    }

    #[tokio::test]
    async fn too_much_is_refused_before_and_while_it_is_read() {
        let none = HeaderMap::new();
        let error = whole(&none, pieces(&["abc", "def"]), 5, PAUSE).await.expect_err("too large");
        assert_eq!(error.status, 413);
        let mut announced = HeaderMap::new();
        announced.insert(CONTENT_LENGTH, 6.into());
        let error = whole(&announced, pieces(&[]), 5, PAUSE).await.expect_err("too large");
        assert_eq!(error.status, 413);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_left() {
        let frames = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
        let error = whole(&HeaderMap::new(), StreamBody::new(frames), 5, PAUSE).await.expect_err("too slow");
        assert_eq!(error.status, 408);
    }
}
