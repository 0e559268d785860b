//! Matching names and suggesting the one that was meant, for the command line
//! and the configuration alike.

pub use kldtrace_exporters::glob::matches;

/// The text in bytes of the kernel, which end at a zero unless they are full.
/// Names there may have any bytes.
pub fn until_zero(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

/// The candidate that somebody who wrote `word` most likely meant, or `None`
/// if nothing is near: at most one slip in three letters.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Names are short; a longer word is no typing slip, and the distance
    // takes time in the square of the length.
    if word.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| distance * 3 <= candidate.chars().count().max(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// ` (did you mean "…"?)`, or nothing: the end of an error about `word`.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    closest(word, candidates).map_or_else(String::new, |candidate| {
        format!(" (did you mean {candidate:?}?)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_end_at_a_zero_or_where_they_are_full() {
        assert_eq!(until_zero(b"a\xffb\0c"), "a\u{fffd}b");
        assert_eq!(until_zero(b"no end"), "no end");
        assert_eq!(until_zero(b""), "");
    }

    #[test]
    fn suggests_only_what_is_near() {
        let names = ["address", "socket", "socket_group"];
        assert_eq!(closest("adress", names), Some("address"));
        assert_eq!(closest("socketgroup", names), Some("socket_group"));
        assert_eq!(closest("scoket", names), Some("socket"));
        assert_eq!(closest("interval", names), None);
        assert_eq!(
            did_you_mean("adress", names),
            r#" (did you mean "address"?)"#
        );
        assert_eq!(did_you_mean(&"x".repeat(1_000_000), names), "");
    }
}
