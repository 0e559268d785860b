//! OTLP by gRPC: OpenTelemetry's generated clients over our own connections.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::{self, Client};
use opentelemetry_proto::tonic::collector::{
    logs::v1::logs_service_client::LogsServiceClient,
    metrics::v1::metrics_service_client::MetricsServiceClient,
    trace::v1::trace_service_client::TraceServiceClient,
};
use tonic::{Status, body::Body, codec::CompressionEncoding};

use super::{
    request::{Partial, Request},
    settings::{Compression, Settings},
    verdict::{self, later},
};
use crate::push::{
    Verdict,
    http::{Connector, Version, builder, connector},
};

/// Most of an answer that is read, in bytes: they are a count and a sentence.
const ANSWER: usize = 64 << 10;
/// Most of an answer's headers, in bytes.
const ANSWER_HEADERS: u32 = 16 << 10;
/// How often a connection that waits for an answer is tried.
const PING: Duration = Duration::from_secs(10);

/// Stands among an answer's metadata where its status is the receiver's own,
/// not one that the client makes of an answer which it cannot read.
const OWN: HeaderName = HeaderName::from_static("kldtrace-own-status");
const STATUS: &str = "grpc-status";
const DETAILS: &str = "grpc-status-details-bin";

/// A receiver by gRPC.
pub struct OverGrpc {
    channel: Channel,
    endpoint: Uri,
    compression: Compression,
    deadline: Duration,
}

impl OverGrpc {
    pub fn new(settings: &Settings, endpoint: Uri, headers: HeaderMap) -> Self {
        let client = builder(Version::Two)
            .http2_keep_alive_interval(PING)
            .http2_max_header_list_size(ANSWER_HEADERS)
            .build(connector(settings.tls.as_ref(), Version::Two));
        Self {
            channel: Channel { client, headers },
            endpoint,
            compression: settings.compression,
            deadline: settings.deadline,
        }
    }

    /// Pushes a request; `authorization` is the header of that name.
    pub async fn send(
        &self,
        request: Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Partial, Verdict> {
        let mut channel = self.channel.clone();
        if let Some(value) = authorization {
            channel.headers.insert(header::AUTHORIZATION, value.clone());
        }
        let answer = tokio::time::timeout(self.deadline, self.call(channel, request)).await;
        match answer {
            Ok(Ok(partial)) => Ok(partial),
            Ok(Err(status)) if status.metadata().contains_key(OWN.as_str()) => {
                Err(verdict::of_grpc(&status))
            }
            Ok(Err(status)) => Err(later(reason(&status))),
            Err(_) => Err(later(format!(
                "no answer within {} s",
                self.deadline.as_secs_f64()
            ))),
        }
    }

    async fn call(&self, channel: Channel, request: Request) -> Result<Partial, Status> {
        let origin = self.endpoint.clone();
        let gzip = self.compression == Compression::Gzip;
        // The generated clients have all of this in common but a trait.
        macro_rules! export {
            ($client:ident, $request:expr) => {{
                let mut client =
                    $client::with_origin(channel, origin).max_decoding_message_size(ANSWER);
                if gzip {
                    client = client.send_compressed(CompressionEncoding::Gzip);
                }
                Ok(client.export($request).await?.into_inner().into())
            }};
        }
        match request {
            Request::Logs(request) => export!(LogsServiceClient, request),
            Request::Traces(request) => export!(TraceServiceClient, request),
            Request::Metrics(request) => export!(MetricsServiceClient, request),
        }
    }
}

/// Why there is no status of the receiver's own.
fn reason(status: &Status) -> String {
    let Some(mut error) = std::error::Error::source(status) else {
        return format!("the answer cannot be read: {}", status.message());
    };
    let mut text = error.to_string();
    while let Some(source) = error.source() {
        text = format!("{text}: {source}");
        error = source;
    }
    text
}

/// Connections, with our headers, and answers that tonic can be trusted with.
#[derive(Clone)]
struct Channel {
    client: Client<Connector, Body>,
    headers: HeaderMap,
}

/// Why there is no answer of gRPC.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("no connection")]
    Connection(#[source] legacy::Error),
    #[error("the connection broke (is this a receiver of OTLP by gRPC?)")]
    Broken(#[source] legacy::Error),
    #[error("HTTP {0}, but no answer of gRPC in it (is this a receiver of OTLP by gRPC?)")]
    NotGrpc(u16),
}

impl From<legacy::Error> for NoAnswer {
    fn from(error: legacy::Error) -> Self {
        if error.is_connect() {
            Self::Connection(error)
        } else {
            Self::Broken(error)
        }
    }
}

type Answering =
    Pin<Box<dyn Future<Output = Result<http::Response<Body>, NoAnswer>> + Send + 'static>>;

impl tonic::codegen::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = NoAnswer;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoAnswer>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Answering {
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let answer = self.client.request(request);
        Box::pin(async move {
            let (mut head, body) = answer.await?.into_parts();
            let kind = head.headers.get(header::CONTENT_TYPE);
            if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
                return Err(NoAnswer::NotGrpc(head.status.as_u16()));
            }
            vet(&mut head.headers);
            let body = body.map_frame(|mut frame| {
                if let Some(trailers) = frame.trailers_mut() {
                    vet(trailers);
                }
                frame
            });
            Ok(http::Response::from_parts(head, Body::new(body)))
        })
    }
}

/// Marks a status that the receiver set, and takes away details that tonic
/// 0.14 would panic at: those that are not base64 (`Status::from_header_map`).
fn vet(headers: &mut HeaderMap) {
    const BASE64: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    headers.remove(OWN);
    if headers.contains_key(STATUS) {
        headers.insert(OWN, HeaderValue::from_static("1"));
    }
    let details = headers.get(DETAILS);
    if details.is_some_and(|details| BASE64.decode(details.as_bytes()).is_err()) {
        headers.remove(DETAILS);
    }
}
