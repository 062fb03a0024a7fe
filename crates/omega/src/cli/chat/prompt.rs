//! From the command line and stdin to a chat request: the prompt, the system text, the pictures.

use std::io::{IsTerminal, Read};

use base64::Engine;
use omega_protocol::{ChatRequest, ContentPart, Message};

use super::ChatArgs;
use crate::cli::Failure;

/// What is read of stdin and of one picture at most. The largest request any of the four providers documents is
/// Anthropic's 32 MB (Messages API, request size limits, read 2026-11-23).
const INPUT_LIMIT: u64 = 32 * 1024 * 1024;

/// Builds the request; the model stays empty, which means the configured one.
pub(super) async fn request(arguments: &ChatArgs) -> Result<ChatRequest, Failure> {
    let text = text(arguments).await?;
    let mut messages = Vec::new();
    if let Some(system) = &arguments.system {
        messages.push(Message::system(system.as_str()));
    }
    if arguments.images.is_empty() {
        messages.push(Message::user(text));
    } else {
        let mut parts = vec![ContentPart::text(text)];
        for image in &arguments.images {
            parts.push(ContentPart::image_url(image_url(image).await?));
        }
        messages.push(Message::user_parts(parts));
    }
    let mut request = ChatRequest::new("", messages);
    request.max_tokens = arguments.max_tokens;
    request.temperature = arguments.temperature;
    Ok(request)
}

/// The prompt, then whatever is piped in.
async fn text(arguments: &ChatArgs) -> Result<String, Failure> {
    let prompt = arguments.prompt.as_deref().filter(|prompt| *prompt != "-");
    let is_terminal = std::io::stdin().is_terminal();
    if is_terminal && arguments.prompt.is_none() {
        return Err(Failure::usage(
            "there is nothing to ask; give a prompt (omega chat \"Hello\") or pipe text in (see omega chat --help)",
        ));
    }
    let piped = if is_terminal && prompt.is_some() { String::new() } else { stdin().await? };
    let piped = piped.trim_end();
    let text = match prompt {
        Some(prompt) if piped.is_empty() => prompt.to_owned(),
        Some(prompt) => format!("{prompt}\n\n{piped}"),
        None => piped.to_owned(),
    };
    if text.trim().is_empty() {
        return Err(Failure::usage("there is nothing to ask; the prompt is empty, and so is stdin"));
    }
    Ok(text)
}

async fn stdin() -> Result<String, Failure> {
    let read = tokio::task::spawn_blocking(|| {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(INPUT_LIMIT + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    let bytes = match read.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return Err(Failure::unexpected(format!("cannot read stdin: {error}"))),
        Err(error) => return Err(Failure::unexpected(format!("cannot read stdin: {error}"))),
    };
    if bytes.len() as u64 > INPUT_LIMIT {
        return Err(Failure::usage(format!("stdin holds more than {} MiB", INPUT_LIMIT / 1024 / 1024)));
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage("stdin is not valid UTF-8 text"))
}

/// An address as it is; a file as a `data:` address.
async fn image_url(image: &str) -> Result<String, Failure> {
    if ["https://", "http://", "data:"].iter().any(|scheme| image.starts_with(scheme)) {
        return Ok(image.to_owned());
    }
    let size = match tokio::fs::metadata(image).await {
        Ok(metadata) => metadata.len(),
        Err(error) => return Err(Failure::usage(format!("cannot read the picture {image}: {error}"))),
    };
    if size > INPUT_LIMIT {
        return Err(Failure::usage(format!(
            "the picture {image} has more than {} MiB",
            INPUT_LIMIT / 1024 / 1024
        )));
    }
    let bytes = tokio::fs::read(image)
        .await
        .map_err(|error| Failure::usage(format!("cannot read the picture {image}: {error}")))?;
    let Some(kind) = media_type(&bytes) else {
        return Err(Failure::usage(format!("{image} is none of PNG, JPEG, GIF and WebP")));
    };
    Ok(format!("data:{kind};base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes)))
}

/// By the first bytes: a name may lie. These four are what all four providers take.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_known_by_its_first_bytes() {
        assert_eq!(media_type(b"\x89PNG\r\n\x1a\n...."), Some("image/png"));
        assert_eq!(media_type(b"\xff\xd8\xff\xe0"), Some("image/jpeg"));
        assert_eq!(media_type(b"GIF89a"), Some("image/gif"));
        assert_eq!(media_type(b"RIFF\0\0\0\0WEBPVP8 "), Some("image/webp"));
        assert_eq!(media_type(b"<svg>"), None);
        assert_eq!(media_type(b""), None);
    }
}
