//! The frame that `kldtrace latency` shows on a terminal.
//!
//! For each signal a heading, a table of its groups and, below, the histogram
//! of all of them together. Counts, quantiles and histogram run from the start,
//! as in bcc's and libbpf-tools' summaries, so that p99.9 settles; RATE/S and
//! P99 NOW are those of the last interval, as in `top`, so that a change shows
//! at once. On a narrow terminal columns go, on a low one rows and histograms.

use std::{fmt::Write as _, time::Duration};

use kldtrace_exporters::model::Histogram;

use super::{
    group::{Row, Selection, Shown, total},
    octaves,
    screen::Line,
    table, text,
};
use crate::quantile::Summary;

/// The frame's styles.
pub mod style {
    use anstyle::{AnsiColor, Style};

    /// Numbers and names.
    pub const PLAIN: Style = Style::new();
    /// A signal's name.
    pub const HEADING: Style = Style::new().bold();
    /// What explains the rest.
    pub const DIM: Style = Style::new().dimmed();
    /// Bars.
    pub const BAR: Style = AnsiColor::Cyan.on_default();
}

/// With more signals than these, those that measured nothing share a line.
const MANY: usize = 3;

/// What happened in a stretch of time.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// Its groups.
    pub rows: Vec<Row>,
    /// Its length in seconds.
    pub seconds: f64,
}

impl Stretch {
    /// The rows of one signal.
    pub fn of<'a>(&'a self, signal: &'a Shown) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.shown == *signal)
    }
}

/// All that a frame shows.
pub struct Frame<'a> {
    /// What the person asked for: `sched`.
    pub target: &'a str,
    /// The target's signals.
    pub shown: &'a [Shown],
    /// Groups and filters.
    pub selection: &'a Selection,
    /// What is not shown, and why; "" if there is nothing to say.
    pub left_out: &'a str,
    /// Everything since the start.
    pub total: &'a Stretch,
    /// The last interval; `None` in the final frame.
    pub last: Option<&'a Stretch>,
    /// Time since the start.
    pub elapsed: Duration,
    /// When it will end, if it will by itself.
    pub duration: Option<Duration>,
}

impl Frame<'_> {
    /// The frame for a terminal of `columns` columns and at most `rows` rows,
    /// without the row on which the cursor stands below.
    pub fn lines(&self, columns: usize, rows: usize) -> Vec<Line> {
        let mut lines = vec![self.title()];
        if !self.left_out.is_empty() {
            let left_out = text::truncated(self.left_out, columns);
            lines.push(Line::default().with(style::DIM, left_out));
        }
        let mut bottom = Vec::new();
        if let (Some(duration), Some(_)) = (self.duration, self.last) {
            bottom = vec![Line::default(), self.progress(duration, columns)];
        }
        let active = |signal: &Shown| self.total.of(signal).next().is_some();
        let (measured, mut idle): (Vec<&Shown>, Vec<&Shown>) =
            self.shown.iter().partition(|signal| active(signal));
        let mut waiting = measured.len();
        if self.shown.len() > MANY && idle.len() > 1 {
            let idle: Vec<_> = idle.drain(..).map(|signal| signal.signal).collect();
            let nothing = format!("nothing measured: {}", idle.join(", "));
            let nothing = Line::default().with(style::DIM, text::truncated(&nothing, columns));
            bottom.splice(..0, [Line::default(), nothing]);
        }
        // Blank line and heading of each, and a table header if active.
        let fixed = lines.len() + bottom.len() + 2 * idle.len() + 3 * waiting;
        let mut left = rows.saturating_sub(fixed);
        let together = |signal: &&Shown| active(signal) || idle.contains(signal);
        for signal in self.shown.iter().filter(together) {
            lines.push(Line::default());
            let heading = Line::default().with(style::HEADING, signal.signal);
            if !active(signal) {
                lines.push(heading.with(style::DIM, "  nothing measured"));
                continue;
            }
            lines.push(heading.with(style::DIM, format!("  {}", signal.help)));
            // What one signal does not need is there for the next.
            let body = self.body(signal, columns, left / waiting);
            left = left.saturating_sub(body.len().saturating_sub(1));
            waiting -= 1;
            lines.extend(body);
        }
        lines.truncate(rows.saturating_sub(bottom.len()));
        lines.extend(bottom);
        lines.truncate(rows);
        lines
    }

    fn title(&self) -> Line {
        let mut asked = String::new();
        if !self.selection.by.is_empty() {
            asked = format!(" by {}", self.selection.by.join(", "));
        }
        for filter in &self.selection.filters {
            let _ = write!(asked, " {filter}");
        }
        let end = match (self.last, self.duration) {
            (Some(_), None) => ", Ctrl-C ends",
            _ => "",
        };
        let elapsed = text::elapsed(self.elapsed);
        Line::default()
            .with(style::PLAIN, format!("latency {}", self.target))
            .with(style::PLAIN, text::harmless(&asked))
            .with(style::DIM, format!("  {elapsed}{end}"))
    }

    fn progress(&self, duration: Duration, columns: usize) -> Line {
        let done = self.elapsed.min(duration);
        let label = format!("  {} of {}", text::elapsed(done), text::elapsed(duration));
        let cells = columns.saturating_sub(text::width(&label) + 2).min(50);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let bar = octaves::bar(millis(done), millis(duration), cells);
        let rest = " ".repeat(cells - text::width(&bar));
        Line::default()
            .with(style::DIM, "▕")
            .with(style::BAR, bar)
            .with(style::DIM, format!("{rest}▏{label}"))
    }

    /// Table header and rows, and the histogram as far as `space` rows allow;
    /// at least one row of the table.
    fn body(&self, signal: &Shown, columns: usize, space: usize) -> Vec<Line> {
        let groups: Vec<_> = self.total.of(signal).collect();
        let all = total(groups.iter().copied());
        let wanted = groups.len() + usize::from(groups.len() > 1);
        let octaves = octaves::height(&all);
        // Half for the table, or what the histogram leaves.
        let table = wanted.min(space.saturating_sub(octaves).max(space.div_ceil(2)).max(1));
        let drawn = match space.saturating_sub(table) {
            // Two rows show no shape.
            0..=2 if octaves > 2 => 0,
            rest => rest.min(octaves),
        };
        let table = match drawn {
            0 => wanted.min(space.max(1)),
            _ => table,
        };
        let mut lines = self.table(signal, &groups, columns, table);
        lines.extend(octaves::draw(&all, drawn, columns));
        lines
    }

    /// The table in `height` rows below its header.
    fn table(&self, signal: &Shown, groups: &[&Row], columns: usize, height: usize) -> Vec<Line> {
        let mut entries = Vec::new();
        if groups.len() > 1 {
            let now = self.last.map(|last| total(last.of(signal)));
            let all = total(groups.iter().copied());
            entries.push(self.entry("all".to_owned(), &all, now.as_ref()));
        }
        let mut room = height.saturating_sub(entries.len());
        let left_out = groups.len() > room && height > 1;
        // The last row says how many have none.
        room -= usize::from(left_out && room > 0);
        for group in groups.iter().take(room) {
            let mut last = self.last.into_iter().flat_map(|last| last.of(signal));
            let now = last.find(|row| row.labels == group.labels);
            let now = now.map(|row| &row.histogram);
            entries.push(self.entry(self.name(group), &group.histogram, now));
        }
        let by = self.selection.by_of(signal);
        let title = text::harmless(&by.join(" / ").to_uppercase());
        let mut lines = table::draw(&title, &entries, columns, self.last.is_some());
        if left_out {
            let more = format!("  … and {} more", groups.len() - room);
            lines.push(Line::default().with(style::DIM, more));
        }
        lines
    }

    /// A row of the table; in the final frame, the rate is that since the start.
    fn entry(&self, name: String, total: &Histogram, now: Option<&Histogram>) -> table::Entry {
        let summary = Summary::of(total);
        let now = Summary::of(now.unwrap_or(&Histogram::default()));
        let (count, seconds) = match self.last {
            Some(last) => (now.count, last.seconds),
            None => (summary.count, self.total.seconds),
        };
        table::Entry {
            name,
            summary,
            rate: per_second(count, seconds),
            now: (now.count > 0).then_some(now.p99),
        }
    }

    /// The group's label values in the order of `by`.
    fn name(&self, row: &Row) -> String {
        let by = self.selection.by_of(&row.shown).into_iter();
        let values = by.map(|label| {
            let value = row.labels.iter().find(|(name, _)| name == label);
            value.map_or_else(|| "-".to_owned(), |(_, value)| text::harmless(value))
        });
        values.collect::<Vec<_>>().join(" / ")
    }
}

/// `count` in `seconds`; 0 if no time has passed.
pub fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}
