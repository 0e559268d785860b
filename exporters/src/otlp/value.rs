//! Attributes as OTLP writes them.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};

use crate::record::Attribute;

/// Any value.
pub fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

/// An attribute.
pub fn attribute(name: &str, value: Value) -> KeyValue {
    KeyValue {
        key: name.to_owned(),
        value: Some(any(value)),
        ..KeyValue::default()
    }
}

/// An attribute that is text.
pub fn text(name: &str, value: &str) -> KeyValue {
    attribute(name, Value::StringValue(value.to_owned()))
}

/// An attribute that is a whole number. OTLP has none above 2^63 - 1: those
/// become text, and lose nothing.
pub fn integer(name: &str, value: u64) -> KeyValue {
    let value = i64::try_from(value)
        .map_or_else(|_| Value::StringValue(value.to_string()), Value::IntValue);
    attribute(name, value)
}

/// An attribute of a record.
pub fn of_record(name: &str, value: &Attribute<'_>) -> KeyValue {
    match value {
        Attribute::Text(value) => text(name, value),
        Attribute::Integer(value) => integer(name, *value),
        Attribute::Float(value) => attribute(name, Value::DoubleValue(*value)),
    }
}
