//! Where to push, how and what.

use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use crate::{push::Auth, tls};

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, usually on port 4317.
    Grpc,
    /// HTTP/1.1 with protobuf in its bodies, usually on port 4318.
    Http,
}

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// By gzip, which every receiver takes.
    #[default]
    Gzip,
}

/// Which signals are pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signals {
    /// Log lines and events.
    pub logs: bool,
    /// Metrics.
    pub metrics: bool,
    /// Spans of events that took time.
    pub traces: bool,
}

/// Settings of the destination.
#[derive(Clone)]
pub struct Settings {
    /// `https://collector.example:4318`. What follows the port goes before
    /// `/v1/logs` and the others.
    pub endpoint: String,
    /// How it is spoken.
    pub protocol: Protocol,
    /// Who we are.
    pub auth: Auth,
    /// Headers that every request has: names and values. They may be secrets.
    pub headers: Vec<(String, String)>,
    /// How bodies are compressed.
    pub compression: Compression,
    /// For an endpoint of `https`, and for no other.
    pub tls: Option<tls::Client>,
    /// For one request, from its first byte to the last of its answer.
    pub deadline: Duration,
    /// What is pushed.
    pub signals: Signals,
}

/// Headers may be secrets: their names are shown alone.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Settings")
            .field("protocol", &self.protocol)
            .field("headers", &names)
            .field("compression", &self.compression)
            .field("tls", &self.tls.is_some())
            .field("deadline", &self.deadline)
            .field("signals", &self.signals)
            .finish_non_exhaustive()
    }
}

/// What is wrong with the settings. No text shows a header's value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The endpoint is no address.
    #[error("endpoint: not an address (wanted: https://HOST:PORT)")]
    Endpoint,
    /// There is a name or password in the endpoint.
    #[error("endpoint: no name or password there: put them into a header")]
    UserInfo,
    /// `https` needs TLS, and TLS needs `https`.
    #[error("endpoint: {0}")]
    Tls(&'static str),
    /// A header that cannot be sent.
    #[error("headers: {0}: not the name of a header, or no text in its value")]
    Header(String),
    /// A header that is not for settings.
    #[error("headers: {0}: is set by the protocol")]
    OwnHeader(String),
    /// There are two ways of saying who we are.
    #[error("headers: authorization: there is a user or a token already")]
    Twice,
    /// The first colon ends the name.
    #[error("the user's name has a colon or a control character")]
    User,
}

/// Headers that the protocol sets.
const OWN: [&str; 7] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
];

impl Settings {
    /// The endpoint without a `/` at its end.
    pub(super) fn endpoint(&self) -> Result<Uri, Error> {
        let trimmed = self.endpoint.trim_end_matches('/');
        let uri: Uri = trimmed.parse().map_err(|_| Error::Endpoint)?;
        let authority = uri.authority().ok_or(Error::Endpoint)?;
        if authority.as_str().contains('@') {
            return Err(Error::UserInfo);
        }
        if uri.query().is_some() || authority.host().is_empty() {
            return Err(Error::Endpoint);
        }
        match (uri.scheme_str(), &self.tls) {
            (Some("https"), Some(_)) | (Some("http"), None) => Ok(uri),
            (Some("https"), None) => Err(Error::Tls("https needs TLS")),
            (Some("http"), Some(_)) => Err(Error::Tls("TLS is set, and this is http")),
            _ => Err(Error::Endpoint),
        }
    }

    /// The headers of every request.
    pub(super) fn headers(&self) -> Result<HeaderMap, Error> {
        if !self.auth.has_sound_name() {
            return Err(Error::User);
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let bad = || Error::Header(name.clone());
            let key: HeaderName = name.parse().map_err(|_| bad())?;
            if OWN.contains(&key.as_str()) || key.as_str().starts_with("grpc-") {
                return Err(Error::OwnHeader(name.clone()));
            }
            if key == header::AUTHORIZATION && self.auth != Auth::None {
                return Err(Error::Twice);
            }
            let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        Ok(headers)
    }
}
