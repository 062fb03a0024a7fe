//! What a request weighs that is passed on untouched: the sums of [`TokenCounter`](super::TokenCounter), made while its
//! JSON is read once, without knowing the parts of a message.

use super::{
    AUDIO_BASE64_BYTES_PER_TOKEN, FILE_BASE64_BYTES_PER_TOKEN, InputEstimate, InputKind, PER_IMAGE,
    PER_MESSAGE, PER_TOOL, PER_UNSEEN_FILE, inline_tokens, is_hosted, tokens_of_bytes,
};
use crate::provider::data_url;

/// Shorter texts are not looked at as media: no picture, sound or page is.
const MEDIA_MIN: usize = 64;

/// The sums over one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weight {
    text_bytes: u64,
    tokens: u64,
    media: bool,
    /// The provider adds to it what cannot be seen from here.
    pub(crate) unseen: bool,
}

impl Weight {
    /// In tokens of the provider that serves `model`.
    pub(crate) fn estimate(&self, model: &str) -> InputEstimate {
        let kind = match (self.unseen, self.media) {
            (true, _) => InputKind::Unseen,
            (false, true) => InputKind::Media,
            (false, false) => InputKind::Text,
        };
        // The answer's beginning is framed like a message.
        InputEstimate { tokens: tokens_of_bytes(self.text_bytes, model) + self.tokens + PER_MESSAGE, kind }
    }

    /// JSON that the model reads as it stands.
    pub(crate) fn json(&mut self, bytes: u64) {
        self.text_bytes += bytes;
    }

    pub(crate) fn message(&mut self) {
        self.tokens += PER_MESSAGE;
    }

    pub(crate) fn tool(&mut self) {
        self.tokens += PER_TOOL;
    }

    pub(crate) fn kind_of_tool(&mut self, kind: &str) {
        self.unseen |= is_hosted(kind);
    }

    /// A text of a message, or media in the place of one.
    pub(crate) fn string(&mut self, key: &str, text: &str) {
        match key {
            "type" | "role" | "id" | "status" | "detail" | "media_type" | "mimeType" | "mime_type"
            | "format" => {}
            "file_id" | "file_url" | "file_uri" | "fileUri" => self.is_media(PER_UNSEEN_FILE),
            "url" | "image_url" => match data_url(text) {
                Some((media_type, data)) => self.is_media(inline_tokens(media_type, data)),
                None => self.is_media(PER_IMAGE),
            },
            "data" | "file_data" | "fileData" if text.len() >= MEDIA_MIN => {
                let data = data_url(text);
                self.is_media(
                    data.map_or_else(|| base64_tokens(text), |(kind, data)| inline_tokens(kind, data)),
                );
            }
            // Not text to the model, but a state it takes up again.
            "encrypted_content" | "signature" | "thoughtSignature" | "thought_signature" => {
                self.tokens += text.len() as u64 / 4;
            }
            _ => self.text_bytes += text.len() as u64,
        }
    }

    fn is_media(&mut self, tokens: u64) {
        self.tokens += tokens;
        self.media = true;
    }
}

/// Media whose kind stands elsewhere: told by its first bytes, which every such format begins with.
///
/// Source: the signatures of PNG, JPEG, GIF, RIFF (WebP, WAVE), ID3 and MPEG audio, Ogg and FLAC, in base64.
fn base64_tokens(data: &str) -> u64 {
    let size = data.len() as u64;
    let is = |begin: &str| data.starts_with(begin);
    let riff = |kind: &str| is("UklGR") && data.get(12..16) == Some(kind);
    if is("iVBORw0KGgo") || is("/9j/") || is("R0lGOD") || riff("RUJQ") {
        PER_IMAGE
    } else if is("SUQz") || is("//") || is("T2dnUw") || is("ZkxhQ") || riff("QVZF") {
        size / AUDIO_BASE64_BYTES_PER_TOKEN
    } else {
        size / FILE_BASE64_BYTES_PER_TOKEN
    }
}
