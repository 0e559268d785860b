//! The drawn histogram: a row for each power of two of a second.

use kldtrace_exporters::model::Histogram;

use super::{draw::style, screen::Line, text};

/// The octave of the zero bucket, up to 2^-30 s.
const FIRST: i32 = -30;
/// The octave of what took longer than 2^10 s.
const LAST: i32 = 11;

/// Parts of a character cell, in eighths.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// A row: durations in (2^(first-1) s, 2^last s].
#[derive(Clone)]
struct Row {
    first: i32,
    last: i32,
    count: u64,
    /// Also everything above; in an empty row: a gap of many.
    above: bool,
}

/// So many empty rows on end are drawn as one.
const GAP: usize = 3;

/// Number of rows that [`draw`] wants.
pub fn height(histogram: &Histogram) -> usize {
    rows(histogram, 1).len()
}

/// Draws `histogram` in at most `height` rows of `columns` columns. If that is
/// less than there are octaves, rows hold two octaves, or three, and so on:
/// the shape stays, from the fastest to the slowest. Empty rows on end are one
/// row.
pub fn draw(histogram: &Histogram, height: usize, columns: usize) -> Vec<Line> {
    if height == 0 {
        return Vec::new();
    }
    // The smallest step that fits, or that comes nearest.
    let wanted = |step: &i32| rows(histogram, *step).len().max(height);
    let step = (1..=LAST - FIRST).min_by_key(wanted).unwrap_or(1);
    let mut rows = rows(histogram, step);
    // What is in the zero bucket or has overflowed stays by itself, so very few
    // rows may still not do.
    while rows.len() > height {
        if let (Some(slowest), Some(next)) = (rows.pop(), rows.last_mut()) {
            next.last = slowest.last;
            next.count += slowest.count;
            next.above = true;
        }
    }
    let most = rows.iter().map(|row| row.count).max().unwrap_or(0);
    let line = |row: &Row| {
        let label = format!("  {}  {:>8}  ", row.label(), text::count(row.count));
        let cells = columns.saturating_sub(text::width(&label));
        Line::default()
            .with(style::PLAIN, label)
            .with(style::BAR, bar(row.count, most, cells))
    };
    rows.iter().map(line).collect()
}

impl Row {
    /// Both bounds, aligned at the dots.
    fn label(&self) -> String {
        let bound = |octave: i32| text::duration(f64::from(octave).exp2());
        let alone = |text: &str| format!("{text:>7}  {:<6}", "");
        let lower = match self.first {
            LAST => return alone(&text::duration(f64::INFINITY)),
            FIRST if self.last == FIRST => return alone("0"),
            octave => bound(octave - 1),
        };
        if self.above && self.count > 0 {
            return alone(&format!(">{lower}"));
        }
        if self.count == 0 && self.above {
            return alone("…");
        }
        format!("{lower:>7}..{:<6}", bound(self.last))
    }
}

/// The octaves from the first to the last that is not empty, `step` in a row.
fn rows(histogram: &Histogram, step: i32) -> Vec<Row> {
    let mut counts = [0_u64; (LAST - FIRST + 1) as usize];
    let mut add = |octave: i32, count: u64| {
        let slot = octave.clamp(FIRST, LAST).abs_diff(FIRST) as usize;
        counts[slot] = counts[slot].saturating_add(count);
    };
    add(FIRST, histogram.zero);
    add(LAST, histogram.overflow);
    for (index, count) in &histogram.buckets {
        // Bucket 8k is the last of octave k.
        add(index.saturating_add(7).div_euclid(8), *count);
    }
    let used = |count: &u64| *count > 0;
    let Some(first) = counts.iter().position(used) else {
        return Vec::new();
    };
    let last = counts.iter().rposition(used).unwrap_or(first);
    let mut rows: Vec<Row> = Vec::new();
    for (octave, count) in (FIRST..).zip(counts).take(last + 1).skip(first) {
        let alone = [FIRST, LAST].contains(&octave);
        match rows.last_mut() {
            Some(row) if !alone && row.first != FIRST && octave.rem_euclid(step) != 0 => {
                row.last = octave;
                row.count += count;
            }
            _ => rows.push(Row {
                first: octave,
                last: octave,
                count,
                above: false,
            }),
        }
    }
    join_gaps(&rows)
}

/// Joins empty rows on end where there are many.
fn join_gaps(rows: &[Row]) -> Vec<Row> {
    rows.chunk_by(|a, b| a.count == 0 && b.count == 0)
        .flat_map(|run| match run {
            [first, .., last] if run.len() >= GAP => vec![Row {
                first: first.first,
                last: last.last,
                count: 0,
                above: true,
            }],
            run => run.to_vec(),
        })
        .collect()
}

/// A bar of `count` out of `most` in `cells` character cells, in eighths of a
/// cell; whatever is not zero shows.
pub fn bar(count: u64, most: u64, cells: usize) -> String {
    let eighths = u128::from(count) * cells as u128 * 8 / u128::from(most.max(1));
    let eighths = (eighths as usize).max(usize::from(count > 0 && cells > 0));
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(histogram: &Histogram, height: usize) -> String {
        let lines = draw(histogram, height, 40);
        let lines: Vec<_> = lines.iter().map(|line| line.render(false)).collect();
        lines.join("\n")
    }

    #[test]
    fn octaves_hold_their_own_buckets() {
        // The first and the last bucket of (0.5 s, 1 s], and one on each side.
        let histogram = Histogram {
            buckets: vec![(-8, 1), (-7, 10), (0, 10), (1, 5)],
            ..Histogram::default()
        };
        let expected = "\
250ms..500ms          1  ▌
    500ms..1.00s         20  ███████████
    1.00s..2.00s          5  ██▊";
        assert_eq!(drawn(&histogram, 9).trim_start(), expected);
        assert_eq!(height(&histogram), 3);
    }

    #[test]
    fn zero_overflow_and_folding() {
        let histogram = Histogram {
            zero: 4,
            buckets: vec![(Histogram::LAST_INDEX, 2)],
            overflow: 1,
            ..Histogram::default()
        };
        let expected = "\
0                 4  ███████████
        …                 0
     512s..1024s          2  █████▌
   >1024s                 1  ██▊";
        assert_eq!(drawn(&histogram, 4).trim_start(), expected);
        // Too few rows even for these: the slowest go together.
        let expected = "\
0                 4  ███████████
        …                 0
    >512s                 3  ████████▎";
        assert_eq!(drawn(&histogram, 3).trim_start(), expected);
        assert_eq!(drawn(&histogram, 0), "");
        assert_eq!(drawn(&Histogram::default(), 4), "");
    }

    #[test]
    fn bars_fill_by_eighths_and_never_vanish() {
        assert_eq!(bar(8, 8, 2), "██");
        assert_eq!(bar(3, 16, 1), "▏");
        assert_eq!(bar(1, u64::MAX, 10), "▏");
        assert_eq!(bar(0, 9, 10), "");
        assert_eq!(bar(u64::MAX, u64::MAX, 3), "███");
        assert_eq!(bar(1, 1, 0), "");
    }
}
