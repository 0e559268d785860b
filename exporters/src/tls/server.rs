//! The side that listens.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::SingleCertAndKey,
    version::TLS13,
};

use super::{
    Error, Files, Follow, Refreshed, State,
    files::{Material, Pair},
    follow::Followed,
    names::Listed,
    provider,
};

/// TLS for a listener.
///
/// With authorities in its files, clients must show a certificate of one of
/// them, for clients (extended key usage), and, where names are given, with one
/// of these as a subject alternative name (DNS or URI).
pub struct Server(Followed<ServerConfig>);

impl Server {
    /// Reads the files. `alpn`: what is spoken inside, such as `http/1.1`.
    ///
    /// # Errors
    /// When the files cannot be used.
    pub fn new(
        pair: Pair,
        authorities: Option<PathBuf>,
        names: Vec<String>,
        alpn: &[&str],
    ) -> Result<Self, Error> {
        if authorities.is_none() && !names.is_empty() {
            return Err(Error::NamesWithoutAuthority);
        }
        let files = Files {
            pair: Some(pair),
            authorities,
        };
        let path = files.authorities.clone().unwrap_or_default();
        let alpn: Vec<_> = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Followed::new(files, move |material| {
            configure(material, &names, &alpn).map_err(|reason| Error::Authorities {
                path: path.clone(),
                reason,
            })
        })
        .map(Self)
    }

    /// For the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.current()
    }
}

impl Follow for Server {
    fn refresh(&self) -> Result<Refreshed, Error> {
        self.0.refresh()
    }

    fn state(&self) -> State {
        self.0.state()
    }
}

fn configure(
    material: &Material,
    names: &[String],
    alpn: &[Vec<u8>],
) -> Result<ServerConfig, String> {
    let provider = provider();
    let pair = material.pair.clone().ok_or("no certificate")?;
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?;
    let config = match &material.authorities {
        None => config.with_no_client_auth(),
        Some(roots) => {
            let inner = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider)
                .build()
                .map_err(|error| error.to_string())?;
            config.with_client_cert_verifier(if names.is_empty() {
                inner
            } else {
                Arc::new(Listed {
                    inner,
                    names: names.to_vec(),
                })
            })
        }
    };
    let mut config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    // Who resumes a session is not asked for a certificate again, and ours may
    // have expired since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = alpn.to_vec();
    Ok(config)
}
