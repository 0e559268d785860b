//! TLS 1.3 for whatever listens or pushes, with certificates that change while
//! it runs.
//!
//! [`Server`] and [`Client`] hold what they read from [`Files`] and read it
//! again in [`Follow::refresh`]. New connections get the new certificate, old
//! ones go on; a file that cannot be used changes nothing and is counted.

mod client;
mod error;
mod files;
mod follow;
pub(crate) mod names;
mod server;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use client::Client;
pub use error::Error;
pub use files::{Files, MAX_FILE, Pair};
pub use follow::{Follow, Refreshed, State};
pub use server::Server;

#[cfg(not(any(feature = "ring", feature = "fips")))]
compile_error!("choose the feature `ring` or `fips`: TLS needs cryptography");

/// The cryptography that is built in.
///
/// # Panics
/// Where a FIPS build finds itself without FIPS: it must not go on.
pub fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "fips")]
    {
        let provider = rustls::crypto::default_fips_provider();
        assert!(provider.fips(), "built for FIPS, but aws-lc-rs is not");
        Arc::new(provider)
    }
    #[cfg(not(feature = "fips"))]
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Its name, for people.
pub const PROVIDER: &str = if cfg!(feature = "fips") {
    "aws-lc-rs (FIPS)"
} else {
    "ring"
};
