//! By OTLP a family has a name that leads back to the one in `/metrics`.

#[path = "../../../exporters/tests/otlp/translator.rs"]
mod translator;

use std::{sync::Arc, time::SystemTime};

use kldtrace_exporters::model::{Family, Histogram, Kind, Series, Value};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message as _;

use self::translator::{Type, escaped, label, unescaped};
use crate::{catalogue::exported, config::Config, push::metrics};

#[test]
fn every_family_has_one_name() {
    let config = Config::default();
    for exported in exported() {
        let (value, kind) = match exported.kind {
            Kind::Counter => (Value::Integer(1), Type::Counter),
            Kind::Gauge => (Value::Integer(1), Type::Gauge),
            Kind::Histogram => (Value::Histogram(Histogram::default()), Type::Histogram),
        };
        let labels = exported.labels.iter();
        let labels = labels.map(|name| ((*name).into(), Arc::from("x")));
        let family = Family {
            name: exported.metric.into(),
            help: exported.help.into(),
            kind: exported.kind,
            unit: exported.unit,
            series: vec![Series {
                labels: labels.collect(),
                value,
            }],
        };
        let parcels = metrics(&config, &[family], SystemTime::UNIX_EPOCH);
        let (_, bytes) = parcels[0].entries()[0];
        let request = ExportMetricsServiceRequest::decode(bytes).unwrap();
        let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
        for translate in [escaped, unescaped] {
            let name = translate(&metric.name, &metric.unit, kind);
            assert_eq!(name, exported.name());
        }
        for name in exported.labels {
            assert_eq!(label(name), name);
        }
    }
}
