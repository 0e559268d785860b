//! OpenTelemetry's protocol: metrics, logs and spans, by gRPC or HTTP.
//!
//! Messages and gRPC clients are those of the crate `opentelemetry-proto`: the
//! SDK above it aggregates by itself, and what is here is aggregated already.

mod ids;
pub mod logs;
pub mod metrics;
mod over_grpc;
mod over_http;
pub(crate) mod progress;
pub(crate) mod request;
mod resource;
mod settings;
pub mod spans;
mod value;
pub(crate) mod verdict;

use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message as _;

use self::{
    over_grpc::OverGrpc,
    over_http::OverHttp,
    progress::Progress,
    request::{Request, Signal},
};
pub use self::{
    resource::{Node, Resource, SCHEMA_URL, SERVICE},
    settings::{Compression, Error, Protocol, Settings, Signals},
};
use crate::{
    push::{Auth, Destination, Entry, Lane, Verdict, answer::words_without},
    record::{self, Record},
};

/// A receiver of OTLP.
pub struct Otlp {
    transport: Transport,
    resource: Resource,
    signals: Signals,
    auth: Auth,
    progress: Progress,
}

enum Transport {
    Grpc(Box<OverGrpc>),
    Http(Box<OverHttp>),
}

/// A push, entry by entry.
struct Parts<'a> {
    /// Each entry's hash.
    keys: Vec<u64>,
    /// Which entry, and what it holds.
    records: Vec<(usize, Record<'a>)>,
    metrics: Vec<(usize, ExportMetricsServiceRequest)>,
}

impl Otlp {
    /// A receiver. `resource` is who reports.
    ///
    /// # Errors
    /// When the settings make no sense.
    pub fn new(settings: &Settings, resource: Resource) -> Result<Self, Error> {
        let endpoint = settings.endpoint()?;
        over_http::check(&endpoint)?;
        let headers = settings.headers()?;
        let transport = match settings.protocol {
            Protocol::Grpc => Transport::Grpc(Box::new(OverGrpc::new(settings, endpoint, headers))),
            Protocol::Http => Transport::Http(Box::new(OverHttp::new(settings, endpoint, headers))),
        };
        Ok(Self {
            transport,
            resource,
            signals: settings.signals,
            auth: settings.auth.clone(),
            progress: Progress::default(),
        })
    }

    /// Sends one request with what `entries` (their numbers) hold, and
    /// remembers what is taken. `None`: go on.
    async fn push(
        &mut self,
        signal: Signal,
        request: Request,
        entries: &[usize],
        keys: &[u64],
    ) -> Option<Verdict> {
        let credentials = match self.auth.read() {
            Ok(credentials) => credentials,
            Err(why) => return Some(verdict::later(why)),
        };
        let header = credentials.as_ref().map(|own| &own.header);
        let answer = match &self.transport {
            Transport::Grpc(grpc) => grpc.send(request, header).await,
            Transport::Http(http) => http.send(&request, header).await,
        };
        let secrets = credentials.as_ref().map_or(&[][..], |own| &own.secrets);
        match answer {
            Ok(mut partial) => {
                partial.message = words_without(secrets, &partial.message);
                let keys: Vec<_> = entries.iter().map(|entry| keys[*entry]).collect();
                self.progress.took(signal, &keys, partial);
                None
            }
            Err(verdict) => Some(verdict::shown(verdict, secrets)),
        }
    }

    /// Sends what is not taken yet: the first refusal, if nothing else is wrong.
    async fn push_all(&mut self, parts: Parts<'_>) -> Option<Verdict> {
        let Parts {
            keys,
            records,
            metrics,
        } = parts;
        let mut refusal = None;
        for signal in [Signal::Logs, Signal::Traces] {
            let left: Vec<_> = records
                .iter()
                .filter(|(entry, _)| self.progress.lacks(signal, keys[*entry]))
                .filter(|(_, record)| signal == Signal::Logs || record.span.is_some())
                .collect();
            let entries: Vec<_> = left.iter().map(|(entry, _)| *entry).collect();
            let left: Vec<_> = left.into_iter().map(|(_, record)| record.clone()).collect();
            let Some(request) = self.request(signal, &left) else {
                continue;
            };
            match self.push(signal, request, &entries, &keys).await {
                Some(refused @ Verdict::Refused { .. }) => refusal = refusal.or(Some(refused)),
                Some(verdict) => return Some(verdict),
                None => {}
            }
        }
        for (entry, request) in metrics {
            if !self.progress.lacks(Signal::Metrics, keys[entry]) {
                continue;
            }
            let request = Request::Metrics(request);
            match self.push(Signal::Metrics, request, &[entry], &keys).await {
                Some(refused @ Verdict::Refused { .. }) => refusal = refusal.or(Some(refused)),
                Some(verdict) => return Some(verdict),
                None => {}
            }
        }
        refusal
    }

    /// The request for logs or spans, where that signal is wanted and there is
    /// something to say.
    fn request(&self, signal: Signal, records: &[Record<'_>]) -> Option<Request> {
        match signal {
            Signal::Logs if self.signals.logs && !records.is_empty() => {
                let request = logs::request(records, &self.resource, now_ns());
                Some(Request::Logs(request))
            }
            Signal::Traces if self.signals.traces => {
                spans::request(records, &self.resource).map(Request::Traces)
            }
            _ => None,
        }
    }

    fn read<'a>(&self, entries: &[Entry<'a>]) -> Result<Parts<'a>, String> {
        let mut parts = Parts {
            keys: entries.iter().map(|one| self.progress.key(one)).collect(),
            records: Vec::new(),
            metrics: Vec::new(),
        };
        for (number, entry) in entries.iter().enumerate() {
            match entry.lane {
                Lane::Events | Lane::Journal => {
                    let record = record::decode(entry.bytes);
                    let record = record.map_err(|error| format!("not a record: {error}"))?;
                    parts.records.push((number, record));
                }
                Lane::Metrics if self.signals.metrics => {
                    let request = ExportMetricsServiceRequest::decode(entry.bytes);
                    let request = request.map_err(|error| format!("not metrics: {error}"))?;
                    parts.metrics.push((number, request));
                }
                Lane::Metrics => {}
            }
        }
        Ok(parts)
    }
}

impl Destination for Otlp {
    async fn send(&mut self, entries: &[Entry<'_>]) -> Verdict {
        let parts = match self.read(entries) {
            Ok(parts) => parts,
            // Of several, the halves will tell which.
            Err(why) => return Verdict::Refused { why },
        };
        let keys = parts.keys.clone();
        match self.push_all(parts).await {
            Some(refused @ Verdict::Refused { .. }) => {
                // One alone is set aside; of several, the halves come next.
                if let [key] = keys[..] {
                    self.progress.forget(key);
                }
                refused
            }
            Some(verdict) => verdict,
            None => self.progress.through(&keys),
        }
    }
}

/// Nanoseconds since 1970 (UTC).
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}
