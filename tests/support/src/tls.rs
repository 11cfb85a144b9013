//! A throw-away certificate authority, ECDSA P-256.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

/// A certificate authority that exists as long as the value does.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) certificate_pem: String,
    pub(crate) key: KeyPair,
}

impl Authority {
    /// Makes a new authority; `name` is its common name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("an ECDSA key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a CA certificate");

        let directory = TempDir::with_prefix("authority-").expect("a temporary directory");
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).expect("ca.pem written");
        open_to_all(directory.path());
        Self { issuer, directory }
    }

    /// The file with the authority's certificate, PEM.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Issues a certificate for host names and IP addresses; returns the files of certificate and
    /// key, PEM. They live as long as the authority.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> (PathBuf, PathBuf) {
        let identity = self.identity(names, false);
        let stem = names.first().copied().unwrap_or("none").replace(['*', '/', ':'], "_");
        let certificate = self.directory.path().join(format!("{stem}.pem"));
        let key = self.directory.path().join(format!("{stem}.key"));
        std::fs::write(&certificate, identity.certificate_pem).expect("certificate written");
        std::fs::write(&key, identity.key.serialize_pem()).expect("key written");
        (certificate, key)
    }

    pub(crate) fn identity(&self, names: &[&str], expired: bool) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let common_name = names.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(names).expect("valid subject names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if expired {
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().expect("an ECDSA key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { certificate: certificate.der().clone(), certificate_pem: certificate.pem(), key }
    }

    /// TLS 1.2 and 1.3 with resumption; asks for a client certificate of this authority when
    /// `ask_client` is set, and serves clients without one all the same.
    pub(crate) fn server(&self, identity: &Identity, ask_client: bool) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3");
        let builder = if ask_client {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider())
                    .allow_unauthenticated()
                    .build()
                    .expect("a verifier of client certificates");
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(identity.key.serialize_der()).expect("a PKCS #8 key");
        let mut config = builder
            .with_single_cert(vec![identity.certificate.clone(), self.issuer.der().clone()], key)
            .expect("a certificate that fits its key");
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(8192);
        Arc::new(config)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a CA certificate");
        roots
    }
}

/// A client configuration that trusts the certificates in `ca_file`, PEM.
pub fn client(ca_file: &Path, alpn: &[&str]) -> Arc<ClientConfig> {
    use rustls::pki_types::pem::PemObject;

    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", ca_file.display()))
    {
        roots.add(certificate.expect("a certificate")).expect("a CA certificate");
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// nginx's workers may run as another user than the test.
pub(crate) fn open_to_all(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;

    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory, permissions).expect("a readable directory");
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
