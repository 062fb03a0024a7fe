//! Certificates for tests: an authority made at start, and a server certificate signed by it.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use crate::config::Tls;
use crate::error::EmulatorError;

/// What accepts TLS connections, and the authority's certificate in PEM.
pub(crate) fn acceptor(settings: &Tls) -> Result<(TlsAcceptor, String), EmulatorError> {
    let wrong = |error: &dyn std::fmt::Display| EmulatorError::Tls(error.to_string());

    let mut authority = CertificateParams::new(Vec::new()).map_err(|error| wrong(&error))?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "OMEGA emulator test authority");
    authority.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    let authority_key = KeyPair::generate().map_err(|error| wrong(&error))?;
    let authority_certificate = authority.self_signed(&authority_key).map_err(|error| wrong(&error))?;
    let ca_pem = authority_certificate.pem();
    let issuer = Issuer::new(authority, authority_key);

    let mut server = CertificateParams::new(settings.names.clone()).map_err(|error| wrong(&error))?;
    server.distinguished_name.push(DnType::CommonName, "OMEGA emulator");
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_key = KeyPair::generate().map_err(|error| wrong(&error))?;
    let certificate = server.signed_by(&server_key, &issuer).map_err(|error| wrong(&error))?;

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(server_key.serialize_der()).map_err(|error| wrong(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .map_err(|error| wrong(&error))?;
    config.alpn_protocols =
        if settings.http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok((TlsAcceptor::from(Arc::new(config)), ca_pem))
}
