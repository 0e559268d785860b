//! OTLP by HTTP, with protobuf in its bodies.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression as Level, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Uri, header};
use http_body_util::Full;

use super::{
    request::{Partial, Request},
    settings::{Compression, Error, Settings},
    verdict::{self, later},
};
use crate::push::{
    Verdict,
    http::{Http, Version},
};

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// A receiver by HTTP.
pub struct OverHttp {
    http: Http,
    endpoint: Uri,
    headers: HeaderMap,
    compression: Compression,
}

impl OverHttp {
    pub fn new(settings: &Settings, endpoint: Uri, mut headers: HeaderMap) -> Self {
        headers.insert(header::CONTENT_TYPE, PROTOBUF);
        if settings.compression == Compression::Gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Self {
            http: Http::new(settings.tls.as_ref(), Version::One, settings.deadline),
            endpoint,
            headers,
            compression: settings.compression,
        }
    }

    /// Pushes a request; `authorization` is the header of that name.
    pub async fn send(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Partial, Verdict> {
        let body = match self.compression {
            Compression::None => request.encode(),
            Compression::Gzip => gzip(&request.encode()),
        };
        let Ok(uri) = address(&self.endpoint, request.path()) else {
            return Err(later("the endpoint is not an address"));
        };
        let mut post = http::Request::post(uri)
            .body(Full::new(Bytes::from(body)))
            .unwrap_or_default();
        *post.headers_mut() = self.headers.clone();
        if let Some(value) = authorization {
            let headers = post.headers_mut();
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        let answer = match self.http.send(post).await {
            Ok(answer) => answer,
            Err(error) => return Err(later(error.to_string())),
        };
        let (head, body) = answer.into_parts();
        if !head.status.is_success() {
            return Err(verdict::of_http(head.status, &head.headers, &body));
        }
        // The specification wants 200 and a message of its type. Prometheus has
        // neither type nor body, Loki 204, Fluent Bit 201: all of them took it.
        if body.is_empty() {
            return Ok(Partial::default());
        }
        // Without the type, anything short could pass for an answer.
        let kind = head.headers.get(header::CONTENT_TYPE);
        let kind = kind.map_or(&b""[..], HeaderValue::as_bytes);
        let kind = kind.split(|c| *c == b';').next().unwrap_or_default();
        match request.answer(&body) {
            Ok(partial) if kind.trim_ascii() == PROTOBUF.as_bytes() => Ok(partial),
            _ => Err(later(format!(
                "HTTP {}, but no answer of OTLP in it (is this a receiver of OTLP?)",
                head.status.as_u16()
            ))),
        }
    }
}

/// Whether the endpoint and each path make an address.
pub fn check(endpoint: &Uri) -> Result<(), Error> {
    address(endpoint, "/v1/metrics")
        .map(drop)
        .map_err(|_| Error::Endpoint)
}

/// A path behind the endpoint's own.
fn address(endpoint: &Uri, path: &str) -> Result<Uri, http::Error> {
    let mut parts = endpoint.clone().into_parts();
    let own = endpoint.path().trim_end_matches('/');
    parts.path_and_query = Some(format!("{own}{path}").parse()?);
    Ok(Uri::from_parts(parts)?)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    // Memory is all that writing takes.
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.expect("a vector takes all bytes")
}
