//! Text for people: numbers with units, and label values made harmless.

use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A duration in seconds with three digits and its unit, at most six columns:
/// `954ns`, `1.23µs`, `45.6ms`, `>1024s`.
pub fn duration(seconds: f64) -> String {
    if seconds == 0.0 {
        return "0".to_owned();
    }
    if seconds.is_infinite() {
        return ">1024s".to_owned();
    }
    for (factor, unit) in [(1e9, "ns"), (1e6, "µs"), (1e3, "ms")] {
        // Below what would be rounded to 1000.
        if seconds * factor < 999.5 {
            return digits(seconds * factor) + unit;
        }
    }
    digits(seconds) + "s"
}

/// Time that has passed, for people who wait: `12.3s`, `2m05s`, `1h02m`.
pub fn elapsed(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", time.as_millis() as f64 / 1e3),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// A count: exact up to six digits, then three digits with k, M, G, T, P or E.
pub fn count(count: u64) -> String {
    if count < 1_000_000 {
        return count.to_string();
    }
    scaled(count as f64)
}

/// Something per second.
pub fn rate(per_second: f64) -> String {
    if per_second < 1e6 {
        return digits(per_second);
    }
    scaled(per_second)
}

/// Three digits, or as many as stand before the point.
fn digits(value: f64) -> String {
    let places = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.places$}")
}

fn scaled(mut value: f64) -> String {
    for unit in ["", "k", "M", "G", "T", "P"] {
        if value < 999.5 {
            return digits(value) + unit;
        }
        value /= 1e3;
    }
    digits(value) + "E"
}

/// `text` without anything that a terminal would obey or that would hide or
/// reorder what stands beside it: control characters, escape sequences,
/// direction marks and combining characters are shown as `\u{1b}`.
pub fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // Not dangerous, and systemd's names are full of backslashes.
            '\\' | '\'' | '"' => harmless.push(c),
            _ => harmless.extend(c.escape_debug()),
        }
    }
    harmless
}

/// Columns that harmless text takes on a terminal.
pub fn width(text: &str) -> usize {
    text.width()
}

/// `text` in at most `columns` columns, with … for what was cut off.
pub fn truncated(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut used = 0;
    let fitting = text.chars().take_while(|c| {
        used += c.width().unwrap_or(0);
        used < columns
    });
    let mut fitting: String = fitting.collect();
    if columns > 0 {
        fitting.push('…');
    }
    fitting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        for (seconds, text) in [
            (0.0, "0"),
            (0.931e-9, "0.93ns"),
            (12.34e-9, "12.3ns"),
            (999.4e-9, "999ns"),
            (999.6e-9, "1.00µs"),
            (9.996e-6, "10.0µs"),
            (0.123_456, "123ms"),
            (0.9999, "1.00s"),
            (1024.0, "1024s"),
            (f64::INFINITY, ">1024s"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn waiting_is_told_in_whole_units() {
        for (millis, text) in [
            (0, "0.0s"),
            (12_340, "12.3s"),
            (125_000, "2m05s"),
            (3_725_000, "1h02m"),
        ] {
            assert_eq!(elapsed(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn counts_and_rates_stay_short() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999_999), "999999");
        assert_eq!(count(1_000_000), "1.00M");
        assert_eq!(count(12_345_678_901), "12.3G");
        assert_eq!(count(u64::MAX), "18.4E");
        assert_eq!(rate(0.5), "0.50");
        assert_eq!(rate(99_999.0), "99999");
        assert_eq!(rate(1.5e6), "1.50M");
    }

    #[test]
    fn hostile_text_is_shown_not_obeyed() {
        assert_eq!(harmless("a\x1b[2J\r\nb"), r"a\u{1b}[2J\r\nb");
        assert_eq!(harmless("\u{202e}x\u{200b}"), r"\u{202e}x\u{200b}");
        assert_eq!(harmless("a\u{301}\u{9b}"), r"a\u{301}\u{9b}");
        assert_eq!(harmless(r"dev-a\x2db é 日本"), r"dev-a\x2db é 日本");
        let all: String = ('\0'..=char::MAX).collect();
        assert!(!harmless(&all).chars().any(char::is_control));
    }

    #[test]
    fn cuts_to_columns() {
        assert_eq!(truncated("systemd", 7), "systemd");
        assert_eq!(truncated("systemd", 6), "syste…");
        assert_eq!(truncated("日本語", 5), "日本…");
        assert_eq!(truncated("日本語", 4), "日…");
        assert_eq!(truncated("x", 0), "");
    }
}
