//! Counting series in what a scrape returns.

/// The value of a series without labels.
pub fn value(text: &str, name: &str) -> Option<f64> {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    rest.split(' ').next()?.parse().ok()
}

/// Series in the text formats: every line that is not a comment.
pub fn in_text(body: &[u8]) -> usize {
    let lines = body.split(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.is_empty() && line[0] != b'#')
        .count()
}

/// Series in delimited `io.prometheus.client.MetricFamily` messages: field 4
/// is a metric, and a native histogram is one series. `None` where the bytes
/// are no such messages.
pub fn in_protobuf(mut body: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !body.is_empty() {
        let mut family = message(&mut body)?;
        while !family.is_empty() {
            let tag = varint(&mut family)?;
            match tag & 7 {
                0 => {
                    varint(&mut family)?;
                }
                2 => {
                    message(&mut family)?;
                    count += usize::from(tag >> 3 == 4);
                }
                _ => return None,
            }
        }
    }
    Some(count)
}

/// Takes a length and that many bytes.
fn message<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(bytes)?).ok()?;
    let (message, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(message)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a b\n# TYPE a counter\na_total 1\na_seconds 0.25 123\n\
                        a_seconds_bucket{le=\"1\"} 2\n# EOF\n";

    #[test]
    fn text() {
        assert_eq!(in_text(TEXT.as_bytes()), 3);
        assert_eq!(value(TEXT, "a_seconds"), Some(0.25));
        assert_eq!(value(TEXT, "a"), None);
    }

    #[test]
    fn protobuf() {
        // name "a", type counter, two empty metrics; then a family without.
        let body = [
            9, 0x0a, 1, b'a', 0x18, 0, 0x22, 0, 0x22, 0, 3, 0x0a, 1, b'b',
        ];
        assert_eq!(in_protobuf(&body), Some(2));
        assert_eq!(in_protobuf(&body[..12]), None);
        assert_eq!(in_protobuf(TEXT.as_bytes()), None);
    }
}
