//! Records as OTLP's log records.

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
};

use super::{
    ids::Ids,
    resource::{Resource, SCHEMA_URL},
    value::{any, of_record, text},
};
use crate::record::Record;

/// All of `records` in one request. `observed_ns`: when they are sent, in
/// nanoseconds since 1970 (UTC).
pub fn request(
    records: &[Record<'_>],
    resource: &Resource,
    observed_ns: u64,
) -> ExportLogsServiceRequest {
    let records = records.iter();
    let log_records = records.map(|record| log_record(record, resource, observed_ns));
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource.message()),
            scope_logs: vec![ScopeLogs {
                scope: Some(resource.scope()),
                log_records: log_records.collect(),
                schema_url: SCHEMA_URL.to_owned(),
            }],
            schema_url: SCHEMA_URL.to_owned(),
        }],
    }
}

fn log_record(record: &Record<'_>, resource: &Resource, observed_ns: u64) -> LogRecord {
    let ids = record.span.as_ref().map(|_| Ids::of(resource, record));
    LogRecord {
        time_unix_nano: record.time_ns,
        observed_time_unix_nano: observed_ns,
        severity_number: record.severity.number().into(),
        severity_text: record.severity.as_str().to_owned(),
        body: Some(any(Value::StringValue(record.body.to_owned()))),
        attributes: attributes(record),
        event_name: record.kind.to_owned(),
        trace_id: ids.as_ref().map_or_else(Vec::new, |ids| ids.trace.to_vec()),
        span_id: ids.map_or_else(Vec::new, |ids| ids.span(0).to_vec()),
        ..LogRecord::default()
    }
}

/// All that is known of a record, under the conventions' names where there is
/// one. They have none for a plane or a systemd unit: those are named as the
/// labels of metrics are.
pub fn attributes(record: &Record<'_>) -> Vec<KeyValue> {
    let places = [("plane", record.plane), ("unit", record.unit)];
    let places = places.into_iter().filter(|(_, value)| !value.is_empty());
    let others = record.attributes.iter();
    places
        .map(|(name, value)| text(name, value))
        .chain(others.map(|(name, value)| of_record(conventional(name), value)))
        .collect()
}

/// The conventions' name of an attribute.
fn conventional(name: &str) -> &str {
    match name {
        "pid" | "process" => "process.pid",
        "tid" => "thread.id",
        other => other,
    }
}
