//! The three requests of OTLP and their answers.

use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use prost::{DecodeError, Message as _};

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Logs,
    Traces,
    Metrics,
}

impl Signal {
    pub const ALL: [Self; 3] = [Self::Logs, Self::Traces, Self::Metrics];

    /// What a receiver counts of it.
    pub fn items(self) -> &'static str {
        match self {
            Self::Logs => "log records",
            Self::Traces => "spans",
            Self::Metrics => "data points",
        }
    }
}

/// One of the three.
pub enum Request {
    Logs(ExportLogsServiceRequest),
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
}

/// What of a request was not taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Partial {
    /// How many records, spans or points; not negative from one who is sane.
    pub rejected: i64,
    /// The receiver's words.
    pub message: String,
}

impl Request {
    /// Where it is posted to.
    pub fn path(&self) -> &'static str {
        match self {
            Self::Logs(_) => "/v1/logs",
            Self::Traces(_) => "/v1/traces",
            Self::Metrics(_) => "/v1/metrics",
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Logs(request) => request.encode_to_vec(),
            Self::Traces(request) => request.encode_to_vec(),
            Self::Metrics(request) => request.encode_to_vec(),
        }
    }

    /// Reads the answer to it.
    pub fn answer(&self, bytes: &[u8]) -> Result<Partial, DecodeError> {
        Ok(match self {
            Self::Logs(_) => ExportLogsServiceResponse::decode(bytes)?.into(),
            Self::Traces(_) => ExportTraceServiceResponse::decode(bytes)?.into(),
            Self::Metrics(_) => ExportMetricsServiceResponse::decode(bytes)?.into(),
        })
    }
}

impl From<ExportLogsServiceResponse> for Partial {
    fn from(response: ExportLogsServiceResponse) -> Self {
        response
            .partial_success
            .map_or_else(Self::default, |partial| Self {
                rejected: partial.rejected_log_records,
                message: partial.error_message,
            })
    }
}

impl From<ExportTraceServiceResponse> for Partial {
    fn from(response: ExportTraceServiceResponse) -> Self {
        response
            .partial_success
            .map_or_else(Self::default, |partial| Self {
                rejected: partial.rejected_spans,
                message: partial.error_message,
            })
    }
}

impl From<ExportMetricsServiceResponse> for Partial {
    fn from(response: ExportMetricsServiceResponse) -> Self {
        response
            .partial_success
            .map_or_else(Self::default, |partial| Self {
                rejected: partial.rejected_data_points,
                message: partial.error_message,
            })
    }
}
