//! Which format a scraper gets: the HTTP `Accept` header.

use super::Format;

/// Chooses the format for a request with this `Accept` header.
///
/// The range with the highest `q` wins; among equals it is protobuf, then
/// OpenMetrics, then text, because each carries less than the one before.
/// Wildcards mean text: whoever does not name a format reads it with their
/// eyes or with an old parser. So does whatever cannot be understood, as text
/// serves a scraper better than status 406.
pub fn negotiate(accept: Option<&str>) -> Format {
    accept
        .unwrap_or_default()
        .split(',')
        .filter_map(media_range)
        .max_by(|(a, a_quality), (b, b_quality)| a_quality.total_cmp(b_quality).then(a.cmp(b)))
        .map_or(Format::Text, |(format, _)| format)
}

/// The format that a media range names and its quality; `None` if that is not
/// one of ours, or not acceptable (`q=0`), or not to be understood.
fn media_range(range: &str) -> Option<(Format, f32)> {
    let mut parts = range.split(';').map(str::trim);
    let media_type = parts.next()?;
    let mut quality = 1.0;
    let (mut version, mut message, mut encoding) = (None, None, None);
    for parameter in parts {
        let Some((name, value)) = parameter.split_once('=') else {
            continue;
        };
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => quality = value.parse().ok()?,
            "version" => version = Some(value),
            "proto" => message = Some(value),
            "encoding" => encoding = Some(value),
            _ => {}
        }
    }
    // Not a number is in no range.
    if quality == 0.0 || !(0.0..=1.0).contains(&quality) {
        return None;
    }
    let format = match media_type.to_ascii_lowercase().as_str() {
        "application/vnd.google.protobuf"
            if message == Some("io.prometheus.client.MetricFamily")
                && encoding == Some("delimited") =>
        {
            Format::Protobuf
        }
        "application/openmetrics-text" if version.is_none_or(|version| version == "1.0.0") => {
            Format::OpenMetrics
        }
        "text/plain" if version.is_none_or(|version| version == "0.0.4") => Format::Text,
        "text/*" | "*/*" => Format::Text,
        _ => return None,
    };
    Some((format, quality))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &str) -> Format {
        negotiate(Some(accept))
    }

    #[test]
    fn prometheus_gets_what_it_asks_for() {
        // 2.42 with native histograms.
        assert_eq!(
            chosen(
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                 encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,\
                 application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
            ),
            Format::Protobuf
        );
        // 2.42 without.
        assert_eq!(
            chosen(
                "application/openmetrics-text;version=1.0.0,\
                 application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
            ),
            Format::OpenMetrics
        );
        // 3.x with native histograms.
        assert_eq!(
            chosen(
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                 encoding=delimited;q=0.6,\
                 application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
            ),
            Format::Protobuf
        );
    }

    #[test]
    fn people_and_old_parsers_get_text() {
        assert_eq!(negotiate(None), Format::Text);
        assert_eq!(chosen(""), Format::Text);
        assert_eq!(chosen("*/*"), Format::Text);
        assert_eq!(
            chosen("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            Format::Text
        );
        assert_eq!(chosen("text/plain; version=\"0.0.4\""), Format::Text);
    }

    #[test]
    fn quality_decides_and_zero_refuses() {
        let openmetrics = "application/openmetrics-text";
        assert_eq!(
            chosen(&format!("text/plain;q=0.4,{openmetrics};q=0.5")),
            Format::OpenMetrics
        );
        assert_eq!(
            chosen(&format!("text/plain;q=0.5,{openmetrics};q=0.4")),
            Format::Text
        );
        assert_eq!(
            chosen(&format!("text/plain,{openmetrics}")),
            Format::OpenMetrics
        );
        assert_eq!(chosen(&format!("{openmetrics};q=0")), Format::Text);
        assert_eq!(chosen(&format!("{openmetrics};q=0.000")), Format::Text);
        assert_eq!(
            chosen("APPLICATION/OpenMetrics-Text ; VERSION = 1.0.0"),
            Format::OpenMetrics
        );
    }

    #[test]
    fn only_the_encoding_that_exists_counts() {
        let protobuf = "application/vnd.google.protobuf";
        assert_eq!(chosen(protobuf), Format::Text);
        assert_eq!(
            chosen(&format!(
                "{protobuf};proto=io.prometheus.client.MetricFamily;encoding=text"
            )),
            Format::Text
        );
        assert_eq!(
            chosen("application/openmetrics-text;version=9"),
            Format::Text
        );
    }

    #[test]
    fn hostile_headers_get_text() {
        for accept in [
            ";;;===,,,",
            ";q=",
            "*/*;q=nan",
            "application/openmetrics-text;q=nan",
            "application/openmetrics-text;q=inf",
            "application/openmetrics-text;q=-1",
            "application/openmetrics-text;q=1e99",
            "application/openmetrics-text;q=\"",
            "\u{0}\u{7f}é;q=½",
            &",".repeat(100_000),
        ] {
            assert_eq!(chosen(accept), Format::Text, "{accept:?}");
        }
    }
}
