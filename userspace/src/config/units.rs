//! Durations and sizes as people write them: a number and its unit.
//!
//! A bare number is an error, since "10" is seconds to one reader and
//! milliseconds to the next.

use std::time::Duration;

/// Units of time with their length in nanoseconds.
const TIMES: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Units of size with their bytes.
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Reads a duration such as `10s`, `250ms` or `1.5h`, exact to the nanosecond.
///
/// # Errors
/// The sentence for the person who wrote it, if the unit is missing or
/// unknown, or the number is none, negative or longer than 584 years.
pub fn duration(text: &str) -> Result<Duration, String> {
    scaled(text, TIMES, "ns, us, ms, s, m, h or d", ["s", "ms"]).map(Duration::from_nanos)
}

/// Reads a size in bytes such as `64MiB` or `1.5GB`.
///
/// # Errors
/// The sentence for the person who wrote it, if the unit is missing or
/// unknown, or the number is none, negative or above 2^64 - 1 bytes.
pub fn size(text: &str) -> Result<u64, String> {
    scaled(
        text,
        SIZES,
        "B, KiB, MiB, GiB, kB, MB or GB",
        ["MiB", "KiB"],
    )
}

/// `bytes` in the largest binary unit that divides it.
pub fn format_size(bytes: u64) -> String {
    let (unit, factor) = SIZES[..4]
        .iter()
        .rev()
        .find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor))
        .unwrap_or(&SIZES[0]);
    format!("{}{unit}", bytes / factor)
}

/// Whole milliseconds of `time` in the largest unit up to hours that divides
/// them.
pub(super) fn format_duration(time: Duration) -> String {
    let ms = time.as_millis();
    let (unit, factor) = [("h", 3_600_000), ("m", 60_000), ("s", 1000)]
        .into_iter()
        .find(|(_, factor)| ms != 0 && ms.is_multiple_of(*factor))
        .unwrap_or(("ms", 1));
    format!("{}{unit}", ms / factor)
}

/// What a number without a unit could have meant, for the error.
pub(super) fn examples(number: &str, units: [&str; 2]) -> String {
    format!("\"{number}{}\" or \"{number}{}\"", units[0], units[1])
}

fn scaled(text: &str, units: &[(&str, u64)], known: &str, usual: [&str; 2]) -> Result<u64, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = (&text[..split], text[split..].trim_start());
    if number.is_empty() {
        return Err(format!(
            "{text:?} is not a number with a unit, such as {}",
            examples("10", usual)
        ));
    }
    if unit.is_empty() {
        return Err(format!(
            "{text:?} has no unit: write {}",
            examples(number, usual)
        ));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("unknown unit {unit:?} in {text:?}: use {known}"));
    };
    exact(number, *factor).ok_or_else(|| format!("{text:?} is not a number in range"))
}

/// `number * factor` in whole units, rounded down, without the rounding of
/// floating point.
fn exact(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // Twelve decimals are finer than a nanosecond of a day needs, and keep
    // the product within 128 bits.
    if fraction.is_empty() || fraction.len() > 12 || fraction.contains('.') {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let fraction_value: u128 = fraction.parse().ok()?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = fraction_value * u128::from(factor) / scale;
    whole
        .checked_mul(factor)?
        .checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations_exactly() {
        for (text, expected) in [
            ("10s", 10_000_000_000),
            ("250ms", 250_000_000),
            ("1.5h", 5_400_000_000_000),
            ("0.000000001s", 1),
            ("7 µs", 7_000),
            ("0s", 0),
            ("2d", 172_800_000_000_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(expected)), "{text}");
        }
    }

    #[test]
    fn reads_and_writes_sizes() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1.5GB"), Ok(1_500_000_000));
        for bytes in [0, 1, 1023, 1024, 64 << 10, 3 << 29, u64::MAX] {
            assert_eq!(size(&format_size(bytes)), Ok(bytes));
        }
        assert_eq!(format_size(64 << 10), "64KiB");
    }

    #[test]
    fn says_which_unit_to_write() {
        for (text, message) in [
            ("10", r#""10" has no unit: write "10s" or "10ms""#),
            (
                "10sec",
                r#"unknown unit "sec" in "10sec": use ns, us, ms, s, m, h or d"#,
            ),
            (
                "",
                r#""" is not a number with a unit, such as "10s" or "10ms""#,
            ),
            (
                "-1s",
                r#""-1s" is not a number with a unit, such as "10s" or "10ms""#,
            ),
            ("1.2.3s", r#""1.2.3s" is not a number in range"#),
            (
                "99999999999999999999s",
                r#""99999999999999999999s" is not a number in range"#,
            ),
            ("300000d", r#""300000d" is not a number in range"#),
        ] {
            assert_eq!(duration(text), Err(message.to_owned()));
        }
        assert_eq!(
            size("64"),
            Err(r#""64" has no unit: write "64MiB" or "64KiB""#.to_owned())
        );
        assert_eq!(
            size("64MB/s"),
            Err(
                r#"unknown unit "MB/s" in "64MB/s": use B, KiB, MiB, GiB, kB, MB or GB"#.to_owned()
            )
        );
    }
}
