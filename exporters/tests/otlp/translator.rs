//! The names that Prometheus gives to metrics of OTLP, by the specification
//! ("Prometheus and OpenMetrics Compatibility", OTLP metric points to
//! Prometheus) and as `prometheus/otlptranslator` has it, which Prometheus,
//! Mimir and the Collector use.

/// What names go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A sum that is cumulative and monotonic.
    Counter,
    Gauge,
    Histogram,
}

/// The unit as a word at the end of names; counts have none.
fn word(unit: &str) -> Option<&'static str> {
    match unit {
        "" | "1" => None,
        "s" => Some("seconds"),
        "By" => Some("bytes"),
        other => panic!("the catalogue has no unit {other}"),
    }
}

/// `UnderscoreEscapingWithSuffixes`, which is Prometheus' default: the words of
/// the name, then the unit if no word is it, and then what the type demands,
/// which stands nowhere else.
pub fn escaped(name: &str, unit: &str, kind: Type) -> String {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || c == ':';
    let mut words: Vec<&str> = name.split(|c| !is_fine(c)).collect();
    words.retain(|word| !word.is_empty());
    words.extend(word(unit).filter(|unit| !words.contains(unit)));
    let last = match kind {
        Type::Counter => Some("total"),
        Type::Gauge if unit == "1" => Some("ratio"),
        _ => None,
    };
    if let Some(last) = last {
        words.retain(|word| *word != last);
        words.push(last);
    }
    let digit = name.starts_with(|c: char| c.is_ascii_digit());
    format!("{}{}", if digit { "_" } else { "" }, words.join("_"))
}

/// `NoUTF8EscapingWithSuffixes`: the name as it is, and ends that it does not
/// have yet.
pub fn unescaped(name: &str, unit: &str, kind: Type) -> String {
    let last = match kind {
        Type::Counter => "_total",
        Type::Gauge if unit == "1" => "_ratio",
        _ => "",
    };
    let mut name = name.strip_suffix(last).unwrap_or(name).to_owned();
    if let Some(unit) = word(unit).filter(|unit| !name.ends_with(unit)) {
        name = format!("{name}_{unit}");
    }
    name + last
}

/// A label of the name of an attribute.
pub fn label(name: &str) -> String {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let fine: String = name
        .chars()
        .map(|c| if is_fine(c) { c } else { '_' })
        .collect();
    match fine.as_bytes() {
        [b'0'..=b'9', ..] => format!("key_{fine}"),
        [b'_', b'_', ..] => fine,
        [b'_', ..] => format!("key{fine}"),
        _ => fine,
    }
}
