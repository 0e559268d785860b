//! The table of a signal's groups on a terminal.

use std::fmt::Write as _;

use super::{draw::style, screen::Line, text};
use crate::quantile::Summary;

/// A row of the table.
pub struct Entry {
    /// The group, made harmless.
    pub name: String,
    /// Since the start.
    pub summary: Summary,
    /// Durations per second.
    pub rate: f64,
    /// 99th percentile of the last interval in seconds, if it had any.
    pub now: Option<f64>,
}

struct Column {
    title: &'static str,
    width: usize,
    cell: fn(&Entry) -> String,
}

/// Columns in order, of which the names' comes first.
const COLUMNS: [Column; 8] = [
    column("COUNT", 6, |entry| text::count(entry.summary.count)),
    column("RATE/S", 6, |entry| text::rate(entry.rate)),
    column("P50", 6, |entry| text::duration(entry.summary.p50)),
    column("P90", 6, |entry| text::duration(entry.summary.p90)),
    column("P99", 6, |entry| text::duration(entry.summary.p99)),
    column("P99.9", 6, |entry| text::duration(entry.summary.p999)),
    column("MAX", 6, |entry| text::duration(entry.summary.max)),
    column(NOW, 7, |entry| {
        entry.now.map_or_else(|| "-".to_owned(), text::duration)
    }),
];

const NOW: &str = "P99 NOW";

/// What goes first where there is no room.
const EXPENDABLE: [&str; 6] = [NOW, "P90", "P99.9", "RATE/S", "P50", "MAX"];

/// Columns that a group's name gets before columns go.
const NAME: usize = 12;

const fn column(title: &'static str, width: usize, cell: fn(&Entry) -> String) -> Column {
    Column { title, width, cell }
}

/// Draws the table, `title` above the names, in `columns` columns. Without
/// `live`, the column of the last interval is left out.
pub fn draw(title: &str, entries: &[Entry], columns: usize, live: bool) -> Vec<Line> {
    let names = entries.iter().map(|entry| text::width(&entry.name));
    let longest = names.chain([text::width(title)]).max().unwrap_or(0);
    let mut shown: Vec<_> = COLUMNS
        .iter()
        .filter(|column| live || column.title != NOW)
        .collect();
    // Two blanks before the name and behind it, one between columns.
    let taken = |shown: &[&Column]| 3 + shown.iter().map(|c| c.width + 1).sum::<usize>();
    for title in EXPENDABLE {
        if taken(&shown) + longest.min(NAME) <= columns {
            break;
        }
        shown.retain(|column| column.title != title);
    }
    let width = longest.min(columns.saturating_sub(taken(&shown)));

    let row = |name: &str, cell: &dyn Fn(&Column) -> String| {
        let name = text::truncated(name, width);
        let mut row = format!("  {name}{} ", " ".repeat(width - text::width(&name)));
        for column in &shown {
            let _ = write!(row, " {:>1$}", cell(column), column.width);
        }
        row
    };
    let header = row(title, &|column| column.title.to_owned());
    let mut lines = vec![Line::default().with(style::DIM, header)];
    for entry in entries {
        let row = row(&entry.name, &|column| (column.cell)(entry));
        lines.push(Line::default().with(style::PLAIN, row));
    }
    lines
}
