//! Why a certificate, key or authority cannot be used.

use std::{io, path::PathBuf};

/// What is wrong with which file. No text shows what a key file holds.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("{path}: cannot be read: {error}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// It is larger than [`super::MAX_FILE`].
    #[error("{path}: larger than 1 MiB: not a PEM file of certificates or a key", path = .0.display())]
    TooLarge(PathBuf),
    /// It is no PEM, or what it holds is not whole.
    #[error("{path}: not whole, or no PEM (still being written?): {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// It has no certificate in it.
    #[error("{path}: no certificate in it (wanted: -----BEGIN CERTIFICATE-----)", path = .0.display())]
    NoCertificate(PathBuf),
    /// Certificate and key do not belong together.
    #[error("{certificate} and {key} do not fit one another (is one of them being renewed?): {reason}", certificate = certificate.display(), key = key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The authorities cannot be used to check anybody.
    #[error("{path}: cannot be used as authorities: {reason}", path = path.display())]
    Authorities {
        /// The file; "the node's own list" where none is configured.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// Names are listed, but nothing says who may certify them.
    #[error("names of clients are listed, but no authority that certifies them")]
    NamesWithoutAuthority,
}
