//! Requests of OTLP as they lie on the wire.

use std::io::Read as _;

use flate2::read::GzDecoder;
use http::{HeaderMap, Method, request::Parts};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    logs::v1::LogRecord,
    metrics::v1::Metric,
    resource::v1::Resource,
    trace::v1::Span,
};
use prost::Message as _;

/// What a request holds.
#[derive(Clone, Debug)]
pub enum Body {
    Logs(ExportLogsServiceRequest),
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
}

impl Body {
    pub fn logs(self) -> Vec<LogRecord> {
        let Self::Logs(request) = self else {
            return Vec::new();
        };
        let scopes = request.resource_logs.into_iter();
        let scopes = scopes.flat_map(|one| one.scope_logs);
        scopes.flat_map(|one| one.log_records).collect()
    }

    pub fn spans(self) -> Vec<Span> {
        let Self::Traces(request) = self else {
            return Vec::new();
        };
        let scopes = request.resource_spans.into_iter();
        let scopes = scopes.flat_map(|one| one.scope_spans);
        scopes.flat_map(|one| one.spans).collect()
    }

    pub fn metrics(self) -> Vec<Metric> {
        let Self::Metrics(request) = self else {
            return Vec::new();
        };
        let scopes = request.resource_metrics.into_iter();
        let scopes = scopes.flat_map(|one| one.scope_metrics);
        scopes.flat_map(|one| one.metrics).collect()
    }

    /// The one resource.
    pub fn resource(self) -> Resource {
        let resources: Vec<_> = match self {
            Self::Logs(request) => request
                .resource_logs
                .into_iter()
                .map(|one| one.resource)
                .collect(),
            Self::Traces(request) => request
                .resource_spans
                .into_iter()
                .map(|one| one.resource)
                .collect(),
            Self::Metrics(request) => request
                .resource_metrics
                .into_iter()
                .map(|one| one.resource)
                .collect(),
        };
        assert_eq!(resources.len(), 1);
        resources[0].clone().expect("a resource")
    }
}

type Read = Result<(Body, bool), &'static str>;

/// A unary call: one message, with a flag for compression and its length before
/// it (PROTOCOL-HTTP2.md of gRPC).
pub fn grpc(head: &Parts, bytes: &[u8]) -> Read {
    let headers = &head.headers;
    let kind = text(headers, "content-type");
    if head.method != Method::POST
        || kind != "application/grpc"
        || text(headers, "te") != "trailers"
    {
        return Err("no call of gRPC");
    }
    let Some((prefix, message)) = bytes.split_first_chunk::<5>() else {
        return Err("no message");
    };
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if message.len() != length as usize {
        return Err("not one message");
    }
    let gzip = match (prefix[0], text(headers, "grpc-encoding")) {
        (0, _) => false,
        (1, "gzip") => true,
        _ => return Err("an unknown compression"),
    };
    let package = "/opentelemetry.proto.collector.";
    let method = head.uri.path().strip_prefix(package).unwrap_or("");
    decode(method, &plain(message, gzip)?).map(|body| (body, gzip))
}

/// A POST of OTLP.
pub fn http(head: &Parts, bytes: &[u8]) -> Read {
    let headers = &head.headers;
    if head.method != Method::POST || text(headers, "content-type") != "application/x-protobuf" {
        return Err("no request of OTLP");
    }
    let gzip = match text(headers, "content-encoding") {
        "" => false,
        "gzip" => true,
        _ => return Err("an unknown compression"),
    };
    decode(head.uri.path(), &plain(bytes, gzip)?).map(|body| (body, gzip))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or("")
}

fn plain(bytes: &[u8], gzip: bool) -> Result<Vec<u8>, &'static str> {
    if !gzip {
        return Ok(bytes.to_vec());
    }
    let mut plain = Vec::new();
    let read = GzDecoder::new(bytes).read_to_end(&mut plain);
    read.map(|_| plain).map_err(|_| "not gzip")
}

fn decode(place: &str, bytes: &[u8]) -> Result<Body, &'static str> {
    match place {
        "/v1/logs" | "logs.v1.LogsService/Export" => {
            ExportLogsServiceRequest::decode(bytes).map(Body::Logs)
        }
        "/v1/traces" | "trace.v1.TraceService/Export" => {
            ExportTraceServiceRequest::decode(bytes).map(Body::Traces)
        }
        "/v1/metrics" | "metrics.v1.MetricsService/Export" => {
            ExportMetricsServiceRequest::decode(bytes).map(Body::Metrics)
        }
        _ => return Err("an unknown path"),
    }
    .map_err(|_| "not protobuf")
}
