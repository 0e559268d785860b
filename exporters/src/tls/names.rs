//! What a certificate says: names, and until when it holds.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

/// When a certificate expires, in seconds since 1970.
pub(crate) fn end(certificate: &[u8]) -> Result<i64, String> {
    let (_, certificate) = parse_x509_certificate(certificate).map_err(|e| e.to_string())?;
    Ok(certificate.validity().not_after.timestamp())
}

/// Whether a certificate has one of the names: a DNS name (whose case does not
/// matter) or a URI, to the letter, among its subject alternative names. The
/// common name counts for nothing, and a wildcard is a name like others.
///
/// # Errors
/// What it has in their place.
pub(crate) fn has_one(certificate: &[u8], names: &[String]) -> Result<(), NotListed> {
    let mut not_listed = NotListed(Vec::new());
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else {
        return Err(not_listed);
    };
    // Two lists, or one that is no list, are an error: nobody is named.
    let Ok(Some(listed)) = certificate.subject_alternative_name() else {
        return Err(not_listed);
    };
    for name in &listed.value.general_names {
        let (name, is_listed) = match name {
            GeneralName::DNSName(dns) => {
                let same = |name: &String| name.eq_ignore_ascii_case(dns);
                (dns, names.iter().any(same))
            }
            GeneralName::URI(uri) => (uri, names.iter().any(|name| name == uri)),
            _ => continue,
        };
        if is_listed {
            return Ok(());
        }
        if not_listed.0.len() < SHOWN {
            not_listed.0.push(name.chars().take(LONGEST).collect());
        }
    }
    Err(not_listed)
}

/// Names that are shown of a certificate, and characters of each.
const SHOWN: usize = 3;
const LONGEST: usize = 100;

/// The names of somebody who is not let in.
pub(crate) struct NotListed(Vec<String>);

impl fmt::Display for NotListed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Escaped: it is for a log, and somebody else wrote it.
        write!(f, "none of its names is listed: {:?}", self.0)
    }
}

/// rustls shows it so.
impl fmt::Debug for NotListed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for NotListed {}

/// Lets in whom another verifier lets in, if they have a name that is listed.
#[derive(Debug)]
pub(super) struct Listed {
    pub inner: Arc<dyn ClientCertVerifier>,
    pub names: Vec<String>,
}

impl ClientCertVerifier for Listed {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        has_one(end_entity, &self.names)
            .map(|()| verified)
            .map_err(|error| CertificateError::Other(OtherError(Arc::new(error))).into())
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate() -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["prom.example".to_owned()]).unwrap();
        let uri = "spiffe://kldload/prometheus".try_into().unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI(uri));
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "common.example");
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn names_are_those_of_the_alternatives() {
        let certificate = certificate();
        let has = |name: &str| has_one(&certificate, &[name.to_owned()]).is_ok();
        assert!(has("prom.example") && has("PROM.example"));
        assert!(has("spiffe://kldload/prometheus"));
        for not in [
            "spiffe://kldload/Prometheus",
            "spiffe://kldload/",
            "example",
            "*.example",
            "prom.example.",
            "common.example",
            "",
        ] {
            assert!(!has(not), "{not}");
        }
        let said = has_one(&certificate, &[]).unwrap_err().to_string();
        let names = r#"["prom.example", "spiffe://kldload/prometheus"]"#;
        assert_eq!(said, format!("none of its names is listed: {names}"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = end(&bytes);
            let _ = has_one(&bytes, &["a".to_owned()]);
        }

        #[test]
        fn no_change_to_a_certificate_makes_it_panic(at: prop::sample::Index, to: u8, cut: bool) {
            let mut bytes = certificate();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if cut {
                bytes.truncate(at);
            }
            let _ = end(&bytes);
            let _ = has_one(&bytes, &["a".to_owned()]);
        }
    }
}
