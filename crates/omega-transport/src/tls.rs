//! TLS as every connection of the transport speaks it.
//!
//! rustls with the aws-lc-rs provider, handed over explicitly so that no process-wide provider need be installed,
//! and the platform's certificate verifier, so that a company's own authorities work where the system trusts them.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::{Http2, TransportConfig};
use crate::error::{TransportError, TransportErrorKind};

/// The two client configurations: towards servers (HTTP/2 offered) and towards `https://` proxies.
pub(crate) struct Tls {
    pub server: Arc<ClientConfig>,
    pub proxy: Arc<ClientConfig>,
}

impl Tls {
    /// `extra` are the authorities read by [`extra_roots`].
    ///
    /// # Errors
    ///
    /// The platform has no authorities at all and none were given.
    pub fn new(
        config: &TransportConfig,
        extra: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TransportError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider.clone()).map_err(|error| {
                let message = format!(
                    "no certificate authorities to trust ({error}); install the system's CA certificates or set \
                     tls.ca_file"
                );
                TransportError::new(TransportErrorKind::Tls, message).with_source(error)
            })?;
        let verifier: Arc<dyn ServerCertVerifier> = Arc::new(verifier);
        let protocols: &[&[u8]] = match config.http2 {
            Http2::Off => &[b"http/1.1"],
            Http2::Auto | Http2::PriorKnowledge => &[b"h2", b"http/1.1"],
        };
        Ok(Self {
            server: client(&provider, &verifier, protocols)?,
            proxy: client(&provider, &verifier, &[b"http/1.1"])?,
        })
    }
}

fn client(
    provider: &Arc<CryptoProvider>,
    verifier: &Arc<dyn ServerCertVerifier>,
    protocols: &[&[u8]],
) -> Result<Arc<ClientConfig>, TransportError> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            TransportError::new(TransportErrorKind::Tls, format!("TLS cannot be set up: {error}"))
                .with_source(error)
        })?;
    // "dangerous" is rustls' word for any verifier but its own; this one is the platform's.
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(verifier.clone()).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The authorities of `ca_file` and `ca_pem`.
///
/// # Errors
///
/// An unreadable file, a file without a certificate, or a certificate that is not valid; the message names which.
pub(crate) fn extra_roots(config: &TransportConfig) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let mut roots = Vec::new();
    if let Some(path) = &config.ca_file {
        let pem = std::fs::read(path).map_err(|error| {
            refused(&format!("the certificate file {} cannot be read: {error}", path.display()))
                .with_source(error)
        })?;
        certificates(&pem, &named(path), &mut roots)?;
    }
    if !config.ca_pem.is_empty() {
        certificates(&config.ca_pem, "the given PEM text", &mut roots)?;
    }
    Ok(roots)
}

fn named(path: &Path) -> String {
    format!("the certificate file {}", path.display())
}

fn certificates(
    pem: &[u8],
    origin: &str,
    roots: &mut Vec<CertificateDer<'static>>,
) -> Result<(), TransportError> {
    let before = roots.len();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let number = index + 1;
        let certificate = certificate.map_err(|error| {
            refused(&format!("certificate {number} of {origin} is not readable PEM: {error}"))
                .with_source(error)
        })?;
        // A trial, so that the message can name the certificate; the verifier's own error names none.
        RootCertStore::empty().add(certificate.clone()).map_err(|error| {
            refused(&format!("certificate {number} of {origin} is not a valid authority: {error}"))
                .with_source(error)
        })?;
        roots.push(certificate);
    }
    if roots.len() == before {
        return Err(refused(&format!(
            "{origin} holds no certificate; expected PEM with BEGIN CERTIFICATE lines"
        )));
    }
    Ok(())
}

fn refused(message: &str) -> TransportError {
    TransportError::new(TransportErrorKind::Tls, message)
}
