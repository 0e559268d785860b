//! The files that certificates come from, read and checked together.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash as _, Hasher as _},
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use super::{Error, names, provider};

/// Largest file that is read, in bytes (1 MiB): a system's list of authorities
/// takes a quarter of it.
pub const MAX_FILE: u64 = 1 << 20;

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// PEM: the certificate, then those between it and the authority.
    pub certificate: PathBuf,
    /// PEM: the private key (PKCS#8, PKCS#1 or SEC1), without a passphrase.
    pub key: PathBuf,
}

/// Where certificates are read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Who we are; `None`: nobody.
    pub pair: Option<Pair>,
    /// PEM: the authorities that others must be certified by.
    pub authorities: Option<PathBuf>,
}

/// What the files hold.
pub(super) struct Material {
    pub pair: Option<Arc<CertifiedKey>>,
    pub authorities: Option<Arc<RootCertStore>>,
    /// When the first certificate of our chain expires, in seconds since 1970.
    pub not_after: Option<i64>,
}

/// The bytes of the files at one moment.
pub(super) struct Bytes {
    certificate: Option<Result<Vec<u8>, Error>>,
    key: Option<Result<Vec<u8>, Error>>,
    authorities: Option<Result<Vec<u8>, Error>>,
}

impl Files {
    /// Reads all of them.
    pub(super) fn bytes(&self) -> Bytes {
        let pair = self.pair.as_ref();
        Bytes {
            certificate: pair.map(|pair| read(&pair.certificate)),
            key: pair.map(|pair| read(&pair.key)),
            authorities: self.authorities.as_deref().map(read),
        }
    }

    /// Makes of the bytes what TLS needs, if they are whole and fit together.
    pub(super) fn material(&self, bytes: Bytes) -> Result<Material, Error> {
        let mut not_after = None;
        let pair = match (&self.pair, bytes.certificate, bytes.key) {
            (Some(pair), Some(certificate), Some(key)) => {
                let chain = certificates(&pair.certificate, &certificate?)?;
                not_after = Some(first_end(&pair.certificate, &chain)?);
                Some(Arc::new(certified(pair, chain, &key?)?))
            }
            _ => None,
        };
        let authorities = match (&self.authorities, bytes.authorities) {
            (Some(path), Some(bytes)) => Some(Arc::new(roots(path, &bytes?)?)),
            _ => None,
        };
        Ok(Material {
            pair,
            authorities,
            not_after,
        })
    }
}

impl Bytes {
    /// A number that changes with what the files hold, or with why they cannot
    /// be read. Keys need not be kept to be compared.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for bytes in [&self.certificate, &self.key, &self.authorities] {
            match bytes {
                None => 0.hash(&mut hasher),
                Some(Ok(bytes)) => (1, bytes).hash(&mut hasher),
                Some(Err(error)) => (2, error.to_string()).hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| Error::Unreadable {
            path: path.to_owned(),
            error,
        })?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

fn malformed(path: &Path, reason: &dyn ToString) -> Error {
    Error::Malformed {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(path, &error))?;
    if chain.is_empty() {
        return Err(Error::NoCertificate(path.to_owned()));
    }
    Ok(chain)
}

/// When the first of a chain expires.
fn first_end(path: &Path, chain: &[CertificateDer<'_>]) -> Result<i64, Error> {
    let mut first = i64::MAX;
    for certificate in chain {
        first = first.min(names::end(certificate).map_err(|reason| malformed(path, &reason))?);
    }
    Ok(first)
}

fn certified(
    pair: &Pair,
    chain: Vec<CertificateDer<'static>>,
    pem: &[u8],
) -> Result<CertifiedKey, Error> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| malformed(&pair.key, &error))?;
    // It compares the public keys of both.
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| Error::Pair {
        certificate: pair.certificate.clone(),
        key: pair.key.clone(),
        reason: error.to_string(),
    })
}

fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|error| Error::Authorities {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(roots)
}
