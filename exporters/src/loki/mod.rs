//! Loki: events and lines of the journal as streams of few labels.
//!
//! The messages are those of pkg/push/push.proto in Loki's repository.

pub(crate) mod answer;
mod encode;
mod streams;

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::Full;

use self::{encode::Encoder, streams::Newest};
pub use crate::push::Auth;
use crate::{
    push::{
        Destination, Entry, Lane, Verdict,
        answer::words,
        http::{Http, Version},
    },
    record::{self, Record},
    tls,
};

/// Where Loki takes pushes, unless the address has a path.
const PATH: &str = "/loki/api/v1/push";

/// How a push is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Protobuf by Snappy: the fewest bytes and the least time.
    #[default]
    Protobuf,
    /// JSON by gzip, for receivers that take no other.
    Json,
}

/// Where to push and how.
#[derive(Clone)]
pub struct Settings {
    /// `https://loki:3100`, or with the whole path of the push.
    pub url: String,
    /// How a push is written.
    pub format: Format,
    /// The value of `X-Scope-OrgID`, for a Loki of several tenants.
    pub tenant: Option<String>,
    /// Who we are.
    pub auth: Auth,
    /// The label `node`.
    pub node: String,
    /// For https, and only then.
    pub tls: Option<tls::Client>,
    /// For one push, from its first byte to the last of its answer.
    pub deadline: Duration,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The address is none. It is not shown, as it may hold a password.
    #[error("the address of Loki cannot be used: {0}")]
    Address(&'static str),
    /// No header may have it.
    #[error("the tenant has a character that no header may have")]
    Tenant,
    /// The first colon ends the name.
    #[error("the user's name has a colon or a control character")]
    User,
}

/// Pushes to one Loki.
pub struct Loki {
    http: Http,
    uri: Uri,
    format: Format,
    tenant: Option<HeaderValue>,
    auth: Auth,
    node: String,
    encoder: Encoder,
    newest: Newest,
}

impl fmt::Debug for Loki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loki")
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

impl Loki {
    /// A client without a connection yet.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let uri = address(&settings.url, settings.tls.is_some())?;
        let tenant = settings.tenant.as_deref().map(HeaderValue::from_str);
        let tenant = tenant.transpose().map_err(|_| Error::Tenant)?;
        if !settings.auth.has_sound_name() {
            return Err(Error::User);
        }
        Ok(Self {
            http: Http::new(settings.tls.as_ref(), Version::One, settings.deadline),
            uri,
            format: settings.format,
            tenant,
            auth: settings.auth,
            node: settings.node,
            encoder: Encoder::default(),
            newest: Newest::default(),
        })
    }

    async fn push(&mut self, records: &[Record<'_>]) -> Verdict {
        let later = |why: String| Verdict::Later { why, after: None };
        let streams = streams::group(records, &self.node, &self.newest);
        let body = match self.encoder.encode(self.format, &streams, records) {
            Ok(body) => body,
            Err(error) => return Verdict::Refused { why: error },
        };
        let credentials = match self.auth.read() {
            Ok(credentials) => credentials,
            Err(why) => return later(why),
        };
        let mut request = Request::post(self.uri.clone());
        let (kind, coding) = match self.format {
            Format::Protobuf => ("application/x-protobuf", "snappy"),
            Format::Json => ("application/json", "gzip"),
        };
        request = request
            .header(header::CONTENT_TYPE, kind)
            .header(header::CONTENT_ENCODING, coding);
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        if let Some(credentials) = &credentials {
            request = request.header(header::AUTHORIZATION, &credentials.header);
        }
        let request = match request.body(Full::new(Bytes::from(body))) {
            Ok(request) => request,
            Err(error) => return later(error.to_string()),
        };
        match self.http.send(request).await {
            Err(error) => later(words(&error.to_string())),
            Ok(response) => {
                let secrets = credentials.as_ref().map_or(&[][..], |own| &own.secrets);
                let verdict = answer::judge(&response, secrets);
                if verdict == Verdict::Taken {
                    self.newest.taken(&streams);
                }
                verdict
            }
        }
    }
}

impl Destination for Loki {
    async fn send(&mut self, entries: &[Entry<'_>]) -> Verdict {
        let mut records = Vec::with_capacity(entries.len());
        let mut broken = 0;
        let mut said = String::new();
        for entry in entries {
            if !matches!(entry.lane, Lane::Events | Lane::Journal) {
                continue;
            }
            match record::decode(entry.bytes) {
                Ok(record) => records.push(record),
                Err(error) => {
                    broken += 1;
                    said = format!("not a record (written by another version?): {error}");
                }
            }
        }
        let verdict = if records.is_empty() {
            Verdict::Taken
        } else {
            self.push(&records).await
        };
        match (verdict, entries.len()) {
            (Verdict::Taken, 1) if broken > 0 => Verdict::Refused { why: said },
            (Verdict::Taken, _) if broken > 0 => Verdict::Partly {
                refused: broken,
                why: said,
            },
            (verdict, _) => verdict,
        }
    }
}

fn address(url: &str, tls: bool) -> Result<Uri, Error> {
    let uri: Uri = url.parse().map_err(|_| Error::Address("it is no URL"))?;
    let authority = uri.authority().ok_or(Error::Address("it has no host"))?;
    if authority.as_str().contains('@') {
        return Err(Error::Address("a user or password does not belong in it"));
    }
    if uri.query().is_some() {
        return Err(Error::Address("it has a query"));
    }
    match (uri.scheme_str(), tls) {
        (Some("https"), true) | (Some("http"), false) => {}
        (Some("https"), false) => return Err(Error::Address("https needs TLS")),
        (Some("http"), true) => return Err(Error::Address("TLS needs https")),
        _ => return Err(Error::Address("it is neither http:// nor https://")),
    }
    if uri.path() != "/" {
        return Ok(uri);
    }
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static(PATH));
    Uri::from_parts(parts).map_err(|_| Error::Address("it is no URL"))
}
