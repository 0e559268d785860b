//! How an explanation is shown: on a terminal while it is measured and at the
//! end, as plain lines in a pipe, and as JSON.

use std::{
    fmt::Write as _,
    io::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use kldtrace_exporters::model::{Event, Family};
use serde_json::{Map, Value, json};

use super::{
    draw::style,
    lines::rfc3339,
    octaves,
    screen::{Line, Painter},
    session::{Format, Source},
    text,
};
use crate::explain::{Group, Request, explain};

/// Groups that are shown to people; the rest is in the JSON.
const GROUPS: usize = 8;

/// Slow operations that are remembered; of more, the newest.
const EVENTS: usize = 10_000;

/// How often slow operations are taken in, and Ctrl-C is seen.
const LOOK: Duration = Duration::from_millis(200);

/// Columns of text on the widest terminal: longer lines are hard to read.
const WIDEST: usize = 100;

/// What to explain, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is explained.
    pub request: Request,
    /// How long is measured.
    pub duration: Duration,
    /// Time between two frames on a terminal.
    pub interval: Duration,
    /// Output format.
    pub format: Format,
}

/// An explanation with its frame.
pub struct Explained<'a> {
    /// What was asked.
    pub request: &'a Request,
    /// The groups.
    pub groups: &'a [Group],
    /// Time since the start.
    pub elapsed: Duration,
    /// How long is measured; `None`: this is the end.
    pub of: Option<Duration>,
}

/// Measures, and explains until the duration is over or `stop` is set.
///
/// # Errors
/// If the source fails or `out` cannot be written. A closed pipe is a normal
/// end.
pub fn run(
    source: &mut dyn Source,
    options: &Options,
    stop: &AtomicBool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    source.events()?;
    let mut measured = Measured {
        before: source.snapshot()?,
        events: Vec::new(),
        start: Instant::now(),
        began: SystemTime::now(),
    };
    let shown = match options.format {
        Format::Terminal(screen) => {
            let mut painter = Painter::new(out, screen);
            loop {
                let over = measured.wait(source, options, options.interval, stop)?;
                let groups = measured.groups(&options.request, &source.snapshot()?);
                let (columns, rows) = (screen.size)();
                let frame = Explained {
                    request: &options.request,
                    groups: &groups,
                    elapsed: measured.start.elapsed(),
                    of: (!over).then_some(options.duration),
                };
                let mut lines = frame.lines(columns, true);
                if !over {
                    lines.truncate(rows.saturating_sub(1));
                }
                if let Err(error) = painter.show(lines) {
                    break Err(error);
                }
                if over {
                    break Ok(());
                }
            }
        }
        Format::Plain | Format::Json => {
            measured.wait(source, options, options.duration, stop)?;
            let groups = measured.groups(&options.request, &source.snapshot()?);
            let explained = Explained {
                request: &options.request,
                groups: &groups,
                elapsed: measured.start.elapsed(),
                of: None,
            };
            match options.format {
                Format::Json => writeln!(out, "{}", explained.json(measured.began)),
                _ => explained.plain(out),
            }
        }
    };
    match shown {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

struct Measured {
    before: Vec<Family>,
    events: Vec<Event>,
    start: Instant,
    began: SystemTime,
}

impl Measured {
    /// Waits for so long and takes in slow operations; whether it is the end.
    fn wait(
        &mut self,
        source: &mut dyn Source,
        options: &Options,
        time: Duration,
        stop: &AtomicBool,
    ) -> anyhow::Result<bool> {
        let until = self.start.elapsed().saturating_add(time);
        let mut over = false;
        loop {
            self.events.extend(source.events()?);
            let too_many = self.events.len().saturating_sub(EVENTS);
            self.events.drain(..too_many);
            let now = self.start.elapsed();
            over |= now >= options.duration || stop.load(Ordering::Relaxed);
            if over || now >= until {
                return Ok(over);
            }
            let end = until.min(options.duration);
            thread::sleep(end.saturating_sub(now).min(LOOK));
        }
    }

    fn groups(&self, request: &Request, after: &[Family]) -> Vec<Group> {
        explain(request, &self.before, after, &self.events)
    }
}

impl Explained<'_> {
    /// The lines of the frame, with bars if there is room for them.
    pub fn lines(&self, columns: usize, bars: bool) -> Vec<Line> {
        let columns = if bars { columns.min(WIDEST) } else { columns };
        let mut lines = vec![self.title()];
        if self.groups.is_empty() {
            let nothing = "No file operation on a dataset has ended.";
            lines.push(Line::default());
            lines.push(Line::default().with(style::PLAIN, nothing));
        }
        for group in self.groups.iter().take(GROUPS) {
            lines.push(Line::default());
            let headline = group.headline(self.request.quantile);
            for part in wrapped(&headline, columns) {
                lines.push(Line::default().with(style::HEADING, part));
            }
            let sentences = group.sentences(self.request.quantile);
            let (basis, sentences) = sentences.split_last().unzip();
            for sentence in sentences.unwrap_or_default() {
                for part in wrapped(sentence, columns.saturating_sub(2)) {
                    lines.push(Line::default().with(style::PLAIN, format!("  {part}")));
                }
            }
            lines.extend(stages(group, columns, bars));
            for part in wrapped(basis.map_or("", String::as_str), columns.saturating_sub(2)) {
                lines.push(Line::default().with(style::DIM, format!("  {part}")));
            }
        }
        if let Some(more) = self.groups.len().checked_sub(GROUPS).filter(|n| *n > 0) {
            let more =
                format!("… and {more} more, with less time: use --filter, or --json for all");
            lines.push(Line::default());
            lines.push(Line::default().with(style::DIM, text::truncated(&more, columns)));
        }
        lines
    }

    fn title(&self) -> Line {
        let mut asked = format!(
            "explain zfs {} by {}",
            self.request.quantile,
            self.request.by.join(", ")
        );
        for filter in &self.request.filters {
            let _ = write!(asked, " {filter}");
        }
        let elapsed = match self.of {
            Some(of) => format!(
                "  {} of {}",
                text::elapsed(self.elapsed.min(of)),
                text::elapsed(of)
            ),
            None => format!("  {}", text::elapsed(self.elapsed)),
        };
        Line::default()
            .with(style::PLAIN, text::harmless(&asked))
            .with(style::DIM, elapsed)
    }

    /// Writes plain lines.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn plain(&self, out: &mut dyn Write) -> io::Result<()> {
        for line in self.lines(usize::MAX, false) {
            writeln!(out, "{}", line.render(false))?;
        }
        Ok(())
    }

    /// One JSON object. Times are in seconds.
    pub fn json(&self, began: SystemTime) -> Value {
        let quantile = self.request.quantile;
        let finite = |seconds: f64| if seconds.is_finite() { seconds } else { 1024.0 };
        let groups = self.groups.iter().map(|group| {
            let labels = group.labels.iter();
            let labels: Map<String, Value> = labels
                .map(|(name, value)| (name.clone(), json!(**value)))
                .collect();
            json!({
                "labels": labels,
                "count": group.count,
                "sum_seconds": group.sum_ns as f64 / 1e9,
                "quantile_seconds": finite(group.quantile),
                "at_or_above": group.tail,
                "basis": group.basis,
                "stages": group.stages,
                "evidence": group.evidence,
                "headline": group.headline(quantile),
                "sentences": group.sentences(quantile),
            })
        });
        json!({
            "start": rfc3339(began),
            "seconds": self.elapsed.as_secs_f64(),
            "quantile": quantile.ratio(),
            "groups": groups.collect::<Vec<_>>(),
        })
    }
}

/// A row and a bar for each stage.
fn stages(group: &Group, columns: usize, bars: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    for share in &group.stages {
        let row = format!(
            "    {:<10}  {:>6}  {:>5.1}%",
            share.stage,
            text::duration(share.seconds),
            share.share * 100.0
        );
        let room = columns.saturating_sub(text::width(&row) + 2);
        let mut line = Line::default().with(style::PLAIN, row);
        if bars && room > 0 {
            let whole = Duration::from_secs(1);
            let part = whole.mul_f64(share.share.clamp(0.0, 1.0));
            let bar = octaves::bar(part.as_nanos() as u64, whole.as_nanos() as u64, room);
            line = line.with(style::PLAIN, "  ").with(style::BAR, bar);
        }
        lines.push(line);
    }
    lines
}

/// Text in lines of at most so many columns, broken at blanks; a word that is
/// longer is cut.
fn wrapped(words: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in words.split(' ') {
        let room = columns.saturating_sub(text::width(&line) + 1);
        if !line.is_empty() && text::width(word) > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += &text::truncated(word, columns);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::tests::{events, node, request};

    fn explained(bars: bool, columns: usize) -> String {
        let request = request(&[]);
        let groups = explain(&request, &node(0), &node(10), &events());
        let explained = Explained {
            request: &request,
            groups: &groups,
            elapsed: Duration::from_secs(10),
            of: None,
        };
        let lines = explained.lines(columns, bars);
        assert!(
            lines.iter().all(|line| line.width() <= columns),
            "{lines:#?}"
        );
        let lines: Vec<_> = lines.iter().map(|line| line.render(false)).collect();
        lines.join("\n")
    }

    #[test]
    fn golden_explanation() {
        let golden = include_str!("golden/explain.txt").trim_end();
        assert_eq!(explained(true, 80), golden);
    }

    #[test]
    fn an_explanation_fits_any_terminal() {
        for columns in [40, 64, 100, 200] {
            explained(true, columns);
        }
    }

    #[test]
    fn plain_lines_are_not_broken() {
        let plain = explained(false, usize::MAX);
        assert!(!plain.contains('█'));
        assert!(
            plain.lines().any(|line| line.ends_with("; CPU 3.90ms.")),
            "{plain}"
        );
    }

    #[test]
    fn words_are_wrapped_at_blanks() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("eleven", 4), ["ele…"]);
        assert_eq!(wrapped("", 4), [""]);
    }

    struct Prepared(u64, Vec<Event>);

    impl Source for Prepared {
        fn snapshot(&mut self) -> anyhow::Result<Vec<Family>> {
            self.0 += 1;
            Ok(node(self.0))
        }
        fn events(&mut self) -> anyhow::Result<Vec<Event>> {
            // What was told before the start does not count.
            Ok(match self.0 {
                0 => vec![events().remove(0); 20_000],
                _ => std::mem::take(&mut self.1),
            })
        }
    }

    fn ran(format: Format) -> String {
        let options = Options {
            request: request(&[]),
            duration: Duration::from_millis(30),
            interval: Duration::from_millis(10),
            format,
        };
        let mut out = Vec::new();
        let mut source = Prepared(0, events());
        run(&mut source, &options, &AtomicBool::new(false), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_says_all_of_it() {
        let object: Value = serde_json::from_str(&ran(Format::Json)).unwrap();
        let fsync = &object["groups"][0];
        assert_eq!(fsync["labels"]["op"], "fsync");
        assert_eq!(fsync["basis"]["operation"]["event"], 2);
        assert_eq!(fsync["stages"][0]["stage"], "zil_commit");
        assert_eq!(fsync["evidence"][0]["of"], "log_writes");
        assert_eq!(fsync["evidence"][0]["vdev"], "nvme1n1");
        assert_eq!(object["groups"][1]["basis"], "sums");
        assert!(fsync["sentences"][0].as_str().unwrap().contains("no SLOG"));
    }

    #[test]
    fn a_terminal_gets_its_cursor_back() {
        let screen = super::super::Screen {
            size: || (80, 10),
            color: true,
        };
        let out = ran(Format::Terminal(screen));
        assert!(out.ends_with("\x1b[?25h"));
        assert!(out.contains("(no SLOG)"));
    }
}
