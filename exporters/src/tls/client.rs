//! The side that pushes.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
    version::TLS13,
};

use super::{Error, Files, Follow, Refreshed, State, files::Material, follow::Followed, provider};

/// TLS for pushes: the certificate to show, if there is one, and the
/// authorities to trust, which are the node's own where no file is named.
#[derive(Clone)]
pub struct Client(Arc<Followed<Parts>>);

/// What changes with the files.
struct Parts {
    pair: Option<Arc<CertifiedKey>>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl Client {
    /// Reads the files.
    ///
    /// # Errors
    /// When the files cannot be used.
    pub fn new(files: Files) -> Result<Self, Error> {
        let path = files.authorities.clone();
        let followed = Followed::new(files, move |material| {
            parts(material).map_err(|reason| Error::Authorities {
                path: path
                    .clone()
                    .unwrap_or_else(|| PathBuf::from("the node's own list")),
                reason,
            })
        })?;
        Ok(Self(Arc::new(followed)))
    }

    /// For a connector whose addresses are never those of TLS: trusts nobody.
    ///
    /// # Panics
    /// Never: every provider has TLS 1.3.
    pub fn nobody() -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider());
        builder
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth()
    }

    /// For a connector, which may keep it: each new connection uses what the
    /// files hold by then. `alpn`: what is spoken inside, such as `h2`.
    ///
    /// # Panics
    /// Never: every provider has TLS 1.3.
    pub fn config(&self, alpn: &[&str]) -> ClientConfig {
        let following = Arc::new(Following(self.0.clone()));
        let builder = ClientConfig::builder_with_provider(provider());
        let mut config = builder
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(following.clone())
            .with_client_cert_resolver(following);
        // A resumed session would go on with the certificate of the first.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

impl Follow for Client {
    fn refresh(&self) -> Result<Refreshed, Error> {
        self.0.refresh()
    }

    fn state(&self) -> State {
        self.0.state()
    }
}

fn parts(material: &Material) -> Result<Parts, String> {
    let roots = match &material.authorities {
        Some(roots) => roots.clone(),
        None => Arc::new(of_node()?),
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider());
    Ok(Parts {
        pair: material.pair.clone(),
        verifier: verifier.build().map_err(|error| error.to_string())?,
    })
}

/// The authorities that this node trusts. What cannot be read of them is left
/// out, as other programs do.
fn of_node() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        let why = found.errors.first().map(ToString::to_string);
        return Err(why.unwrap_or_else(|| "it is empty (install ca-certificates)".to_owned()));
    }
    Ok(roots)
}

/// Decides by what the files hold at the moment.
struct Following(Arc<Followed<Parts>>);

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Following")
    }
}

impl ResolvesClientCert for Following {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.current().pair.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.current().pair.is_some()
    }
}

impl ServerCertVerifier for Following {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verifier = &self.0.current().verifier;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let verifier = &self.0.current().verifier;
        verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let verifier = &self.0.current().verifier;
        verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.current().verifier.supported_verify_schemes()
    }
}
