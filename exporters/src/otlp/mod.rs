//! OpenTelemetry's protocol: metrics, logs and spans, by gRPC or HTTP.
//!
//! Messages and gRPC clients are those of the crate `opentelemetry-proto`: the
//! SDK above it aggregates by itself, and what is here is aggregated already.

mod ids;
pub mod logs;
pub mod metrics;
mod over_grpc;
mod over_http;
pub(crate) mod request;
mod resource;
mod settings;
pub mod spans;
mod value;
pub(crate) mod verdict;

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    time::SystemTime,
};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message as _;

use self::{
    over_grpc::OverGrpc,
    over_http::OverHttp,
    request::{Request, Signal},
};
pub use self::{
    resource::{Node, Resource, SCHEMA_URL, SERVICE},
    settings::{Compression, Error, Protocol, Settings, Signals},
};
use crate::{
    push::{Destination, Entry, Lane, Verdict},
    record::{self, Record},
};

/// A receiver of OTLP.
pub struct Otlp {
    transport: Transport,
    resource: Resource,
    signals: Signals,
    taken: Taken,
    refused: Refused,
}

enum Transport {
    Grpc(Box<OverGrpc>),
    Http(Box<OverHttp>),
}

/// What of the entries at hand the receiver has, by signal and the entry's
/// hash: when it takes the logs of a push and not the spans, the next try is of
/// the spans alone. At most those of the last batch are in there.
#[derive(Default)]
struct Taken {
    hasher: RandomState,
    parts: HashSet<(Signal, u64)>,
}

/// What was refused by now of entries that are not through yet.
#[derive(Default)]
struct Refused {
    count: u64,
    why: String,
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
            taken: Taken::default(),
            refused: Refused::default(),
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
        let verdict = match &self.transport {
            Transport::Grpc(grpc) => grpc.send(request, entries.len()).await,
            Transport::Http(http) => http.send(&request, entries.len()).await,
        };
        match verdict {
            Verdict::Taken => {}
            Verdict::Partly { refused, why } => {
                self.refused.count += refused;
                self.refused.why = why;
            }
            other => return Some(other),
        }
        let parts = entries.iter().map(|entry| (signal, keys[*entry]));
        self.taken.parts.extend(parts);
        None
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
                .filter(|(entry, _)| !self.taken.parts.contains(&(signal, keys[*entry])))
                .filter(|(_, record)| signal == Signal::Logs || record.span.is_some())
                .collect();
            let entries: Vec<_> = left.iter().map(|(entry, _)| *entry).collect();
            let left: Vec<_> = left.into_iter().map(|(_, record)| record.clone()).collect();
            let Some(request) = self.request(signal, &left) else {
                continue;
            };
            match self.push(signal, request, &entries, &keys).await {
                Some(refused @ Verdict::Refused { .. }) => refusal = Some(refused),
                Some(verdict) => return Some(verdict),
                None => {}
            }
        }
        for (entry, request) in metrics {
            if self.taken.parts.contains(&(Signal::Metrics, keys[entry])) {
                continue;
            }
            let request = Request::Metrics(request);
            match self.push(Signal::Metrics, request, &[entry], &keys).await {
                Some(refused @ Verdict::Refused { .. }) => refusal = Some(refused),
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
        let hash = |entry: &Entry<'_>| self.taken.hasher.hash_one((entry.lane, entry.bytes));
        let mut parts = Parts {
            keys: entries.iter().map(hash).collect(),
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

    /// Forgets entries that are through.
    fn forget(&mut self, keys: &[u64]) {
        for key in keys {
            for signal in [Signal::Logs, Signal::Traces, Signal::Metrics] {
                self.taken.parts.remove(&(signal, *key));
            }
        }
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
                if entries.len() == 1 {
                    self.forget(&keys);
                }
                refused
            }
            Some(verdict) => verdict,
            None => {
                self.forget(&keys);
                let Refused { count, why } = std::mem::take(&mut self.refused);
                match count {
                    0 => Verdict::Taken,
                    refused => Verdict::Partly { refused, why },
                }
            }
        }
    }
}

/// Nanoseconds since 1970 (UTC).
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}
