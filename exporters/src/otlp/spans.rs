//! Operations that took time as OTLP's spans.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{ResourceSpans, ScopeSpans, Span, span::SpanKind},
};

use super::{
    ids::Ids,
    logs::attributes,
    resource::{Resource, SCHEMA_URL},
    value::text,
};
use crate::record::{self, Record};

/// The spans of all `records` that are one; `None` where none is.
pub fn request(records: &[Record<'_>], resource: &Resource) -> Option<ExportTraceServiceRequest> {
    let mut spans = Vec::new();
    for record in records {
        if let Some(span) = &record.span {
            add(&mut spans, record, span, resource);
        }
    }
    (!spans.is_empty()).then(|| ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.message()),
            scope_spans: vec![ScopeSpans {
                scope: Some(resource.scope()),
                spans,
                schema_url: SCHEMA_URL.to_owned(),
            }],
            schema_url: SCHEMA_URL.to_owned(),
        }],
    })
}

/// Adds an operation and, as its children, its stages: laid end to end from its
/// start, for their order in time is not known, and their lengths are.
fn add(spans: &mut Vec<Span>, record: &Record<'_>, span: &record::Span<'_>, resource: &Resource) {
    let ids = Ids::of(resource, record);
    let end = record.time_ns;
    let start = end.saturating_sub(span.duration_ns);
    spans.push(Span {
        trace_id: ids.trace.to_vec(),
        span_id: ids.span(0).to_vec(),
        name: span.name.clone(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes: attributes(record),
        ..Span::default()
    });
    let mut from = start;
    for ((stage, took_ns), number) in span.stages.iter().zip(1..) {
        let to = from.saturating_add(*took_ns).min(end);
        spans.push(Span {
            trace_id: ids.trace.to_vec(),
            span_id: ids.span(number).to_vec(),
            parent_span_id: ids.span(0).to_vec(),
            name: (*stage).to_owned(),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: from,
            end_time_unix_nano: to,
            attributes: vec![text("kldtrace.stage.order", "unknown")],
            ..Span::default()
        });
        from = to;
    }
}
