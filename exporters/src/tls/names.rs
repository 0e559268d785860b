//! What a certificate says: names, and until when it holds.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

/// When a certificate expires, in seconds since 1970.
pub(super) fn end(certificate: &[u8]) -> Result<i64, String> {
    let (_, certificate) = parse_x509_certificate(certificate).map_err(|e| e.to_string())?;
    Ok(certificate.validity().not_after.timestamp())
}

/// Whether a certificate has one of the names: a DNS name (whose case does not
/// matter) or a URI, to the letter, among its subject alternative names. The
/// common name counts for nothing, and a wildcard is a name like others.
pub(super) fn has_one(certificate: &[u8], names: &[String]) -> bool {
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else {
        return false;
    };
    // Two lists, or one that is no list, are an error: nobody is named.
    let Ok(Some(listed)) = certificate.subject_alternative_name() else {
        return false;
    };
    listed.value.general_names.iter().any(|name| match name {
        GeneralName::DNSName(dns) => names.iter().any(|name| name.eq_ignore_ascii_case(dns)),
        GeneralName::URI(uri) => names.iter().any(|name| name == uri),
        _ => false,
    })
}

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
        if has_one(end_entity, &self.names) {
            return Ok(verified);
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
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
        let has = |name: &str| has_one(&certificate, &[name.to_owned()]);
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
        assert!(!has_one(&certificate, &[]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = end(&bytes);
            has_one(&bytes, &["a".to_owned()]);
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
            has_one(&bytes, &["a".to_owned()]);
        }
    }
}
