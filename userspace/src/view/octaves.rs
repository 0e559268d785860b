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
struct Row {
    first: i32,
    last: i32,
    count: u64,
    /// Also everything below.
    below: bool,
    /// Also everything above.
    above: bool,
}

/// Fewer empty octaves in a row than this are shown one by one.
const GAP: i32 = 3;

/// Number of rows that [`draw`] wants.
pub fn height(histogram: &Histogram) -> usize {
    rows(histogram).len()
}

/// Draws `histogram` in at most `height` rows of `columns` columns. If there
/// are fewer rows than octaves, the fastest go together while they are less
/// than a hundredth of all, then the slowest: the shape stays, and the table
/// above has p99.9 and the longest. A long row of empty octaves is one row.
pub fn draw(histogram: &Histogram, height: usize, columns: usize) -> Vec<Line> {
    let mut rows = rows(histogram);
    if height == 0 {
        return Vec::new();
    }
    let total: u64 = rows.iter().map(|row| row.count).sum();
    while rows.len() > height {
        if rows[0].count.saturating_mul(100) < total {
            let fastest = rows.remove(0);
            rows[0].first = fastest.first;
            rows[0].count += fastest.count;
            rows[0].below = true;
        } else if let (Some(slowest), Some(next)) = (rows.pop(), rows.last_mut()) {
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
            _ if self.below => String::new(),
            FIRST if self.last == FIRST => return alone("0"),
            octave => bound(octave - 1),
        };
        if self.above && self.count > 0 {
            return alone(&format!(">{lower}"));
        }
        if self.count == 0 && self.last - self.first + 1 >= GAP {
            return alone("…");
        }
        format!("{lower:>7}..{:<6}", bound(self.last))
    }
}

/// The octaves from the first to the last that is not empty.
fn rows(histogram: &Histogram) -> Vec<Row> {
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
        rows.push(Row {
            first: octave,
            last: octave,
            count,
            below: false,
            above: false,
        });
        join_gap(&mut rows);
    }
    rows
}

/// Joins the empty rows at the end once there are enough of them.
fn join_gap(rows: &mut Vec<Row>) {
    let empty = rows.iter().rev().take_while(|row| row.count == 0).count();
    let start = rows.len() - empty;
    let (Some(first), Some(last)) = (rows.get(start), rows.last()) else {
        return;
    };
    let (first, last) = (first.first, last.last);
    if empty > 1 && last - first + 1 >= GAP {
        rows.truncate(start + 1);
        rows[start].last = last;
    }
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
        // The fastest are most of it: the slowest go together.
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
