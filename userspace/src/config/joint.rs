//! Settings that only make sense together.

use super::{Config, OtlpSignal};

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
    push(config, &mut faults);
    journal(config, &mut faults);
    faults
}

fn push(config: &Config, faults: &mut Vec<(&'static str, &'static str)>) {
    let (loki, otlp) = (&config.loki, &config.otlp);
    let has_token_or_user = otlp.token_file.is_some() || otlp.username.is_some();
    let checks = [
        (
            loki.tls_certificate.is_some() != loki.tls_key.is_some(),
            "loki",
            "tls_certificate and tls_key in [loki] go together: one is missing",
        ),
        (
            loki.username.is_some() != loki.password_file.is_some(),
            "loki",
            "username and password_file in [loki] go together: one is missing",
        ),
        (
            loki.username.is_some() && loki.token_file.is_some(),
            "loki",
            "username and token_file in [loki] exclude each other: one request has one of them",
        ),
        (
            otlp.tls_certificate.is_some() != otlp.tls_key.is_some(),
            "otlp",
            "tls_certificate and tls_key in [otlp] go together: one is missing",
        ),
        (
            otlp.username.is_some() != otlp.password_file.is_some(),
            "otlp",
            "username and password_file in [otlp] go together: one is missing",
        ),
        (
            otlp.username.is_some() && otlp.token_file.is_some(),
            "otlp",
            "username and token_file in [otlp] exclude each other: one request has one of them",
        ),
        (
            has_token_or_user && otlp.headers.contains_key("authorization"),
            "otlp",
            "username and token_file in [otlp] exclude a header \"authorization\" in headers",
        ),
    ];
    let found = checks.into_iter().filter(|(is_wrong, ..)| *is_wrong);
    faults.extend(found.map(|(_, section, what)| (section, what)));
}

fn journal(config: &Config, faults: &mut Vec<(&'static str, &'static str)>) {
    let by_otlp = config.otlp.url.is_some() && config.otlp.signals.contains(&OtlpSignal::Logs);
    if config.journal.enabled && config.loki.url.is_none() && !by_otlp {
        faults.push((
            "journal",
            "enabled in [journal] needs url in [loki], or url in [otlp] with \"logs\" among its \
             signals: there is nowhere to push to",
        ));
    }
}
