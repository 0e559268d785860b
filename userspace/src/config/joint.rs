//! Settings that only make sense together.

use super::Config;

/// What is wrong with settings that are each right: the section, and what.
pub(super) fn faults(config: &Config) -> Vec<(&'static str, &'static str)> {
    let listen = &config.listen;
    let mut faults = Vec::new();
    if listen.tls_certificate.is_some() != listen.tls_key.is_some() {
        faults.push((
            "listen",
            "tls_certificate and tls_key in [listen] go together: one is missing",
        ));
    }
    if listen.tls_client_ca.is_some() && listen.tls_certificate.is_none() {
        faults.push((
            "listen",
            "tls_client_ca in [listen] needs tls_certificate and tls_key",
        ));
    }
    if !listen.tls_client_names.is_empty() && listen.tls_client_ca.is_none() {
        faults.push((
            "listen",
            "tls_client_names in [listen] needs tls_client_ca, which certifies them",
        ));
    }
    faults
}
