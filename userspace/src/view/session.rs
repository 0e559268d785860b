//! The loop of `kldtrace latency`: snapshots, differences, output.

use std::{
    io::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use kldtrace_exporters::model::{Event, Family};

use super::{
    draw::{Frame, Stretch},
    group::{self, Row, Selection, Shown},
    lines,
    screen::{Painter, Screen},
};
use crate::catalogue::Signal;

/// How long a signal such as Ctrl-C may wait to be seen.
const REACTION: Duration = Duration::from_millis(50);

/// How often a frame is redrawn at least, so that the progress bar moves.
const REDRAW: Duration = Duration::from_secs(1);

/// Where snapshots come from: a running daemon, or probes of our own.
pub trait Source {
    /// All families as they are now, counted since whenever.
    ///
    /// # Errors
    /// If the source has gone or answers what cannot be understood.
    fn snapshot(&mut self) -> anyhow::Result<Vec<Family>>;

    /// The events since the last call, as far as they are kept; all that are
    /// kept, the first time.
    ///
    /// # Errors
    /// As [`Self::snapshot`].
    fn events(&mut self) -> anyhow::Result<Vec<Event>> {
        Ok(Vec::new())
    }

    /// Why a signal is not in the last snapshot, where that is known here.
    fn reason(&self, _signal: &Signal) -> Option<String> {
        None
    }
}

/// What the output is for.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    /// A frame drawn in place, cumulative since the start.
    Terminal(Screen),
    /// Plain lines for each interval and a sum at the end.
    Plain,
    /// One JSON object for each interval; they add up to the whole.
    Json,
}

/// What to show, how and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the person asked for: `sched`.
    pub target: String,
    /// The target's histogram signals. Other families are ignored.
    pub shown: Vec<Shown>,
    /// Groups and filters.
    pub selection: Selection,
    /// What is not shown, and why; "" if there is nothing to say.
    pub left_out: String,
    /// Time between snapshots; at least a millisecond.
    pub interval: Duration,
    /// Ends after so long; `None` runs until stopped.
    pub duration: Option<Duration>,
    /// Output format.
    pub format: Format,
}

/// Shows `source` on `out` until the duration is over or `stop` is set, which
/// is seen within 50 ms, and returns the sum of everything shown.
///
/// Sums are those of the intervals, so that a series which the source drops or
/// makes anew on the way still counts in full.
///
/// # Errors
/// If the source fails or `out` cannot be written. A closed pipe is a normal
/// end: whoever read it has seen enough.
pub fn run(
    source: &mut dyn Source,
    options: &Options,
    stop: &AtomicBool,
    out: &mut dyn Write,
) -> anyhow::Result<Stretch> {
    let mut session = Session {
        options,
        output: match options.format {
            Format::Terminal(screen) => Output::Terminal(Painter::new(out, screen), screen),
            Format::Plain => Output::Plain(out),
            Format::Json => Output::Json(out),
        },
        start: Instant::now(),
        began: SystemTime::now(),
        total: Stretch::default(),
        last: Stretch::default(),
    };
    match session.measure(source, stop) {
        Err(End::Output(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Err(End::Source(error)) => Err(error),
        Ok(()) | Err(End::Output(_)) => Ok(session.total),
    }
}

/// Why measuring ended early. Apart, since a source's closed socket is a
/// failure while a closed pipe behind us is none.
enum End {
    Source(anyhow::Error),
    Output(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

enum Output<'a> {
    Terminal(Painter<'a>, Screen),
    Plain(&'a mut dyn Write),
    Json(&'a mut dyn Write),
}

struct Session<'a> {
    options: &'a Options,
    output: Output<'a>,
    /// When the first snapshot was there.
    start: Instant,
    /// The same on the wall clock; what is written is this plus what `start`
    /// says, so that setting the clock does not tear a hole.
    began: SystemTime,
    total: Stretch,
    last: Stretch,
}

impl Session<'_> {
    fn measure(&mut self, source: &mut dyn Source, stop: &AtomicBool) -> Result<(), End> {
        let interval = self.options.interval.max(Duration::from_millis(1));
        let mut before = source.snapshot().map_err(End::Source)?;
        self.start = Instant::now();
        self.began = SystemTime::now();
        self.begin()?;
        let mut since = Duration::ZERO;
        let mut tick = interval;
        loop {
            let end = self.options.duration.unwrap_or(Duration::MAX);
            let stopped = self.wait(tick.min(end), stop)?;
            let after = match source.snapshot() {
                Ok(after) => after,
                // A daemon that went down with the same Ctrl-C takes the
                // last part of an interval with it, not what was measured.
                Err(_) if stopped => break,
                Err(error) => {
                    self.finish()?;
                    return Err(End::Source(error));
                }
            };
            let now = self.start.elapsed();
            let rows = group::rows(
                &self.options.shown,
                &self.options.selection,
                &before,
                &after,
            );
            self.add(rows, since, now);
            self.interval(since)?;
            if stopped || now >= end {
                break;
            }
            before = after;
            since = now;
            // A snapshot that took longer than the interval leaves out ticks
            // rather than hurrying after them.
            while tick <= now {
                tick += interval;
            }
        }
        Ok(self.finish()?)
    }

    /// Sleeps until `until` after the start; whether it was stopped before.
    fn wait(&mut self, until: Duration, stop: &AtomicBool) -> io::Result<bool> {
        let mut drawn = self.start.elapsed();
        loop {
            let now = self.start.elapsed();
            if stop.load(Ordering::Relaxed) {
                return Ok(true);
            }
            let Some(left) = until.checked_sub(now).filter(|left| !left.is_zero()) else {
                return Ok(false);
            };
            if now.saturating_sub(drawn) >= REDRAW {
                self.draw(false)?;
                drawn = now;
            }
            thread::sleep(left.min(REACTION));
        }
    }

    fn add(&mut self, rows: Vec<Row>, since: Duration, now: Duration) {
        let sums = std::mem::take(&mut self.total.rows).into_iter();
        self.total = Stretch {
            rows: group::together(&self.options.shown, sums.chain(rows.iter().cloned())),
            seconds: now.as_secs_f64(),
        };
        self.last = Stretch {
            rows,
            seconds: now.saturating_sub(since).as_secs_f64(),
        };
    }

    fn begin(&mut self) -> io::Result<()> {
        match &mut self.output {
            Output::Plain(out) => {
                if !self.options.left_out.is_empty() {
                    writeln!(out, "# {}", self.options.left_out)?;
                }
                lines::header(*out, &self.options.shown)
            }
            Output::Json(_) => Ok(()),
            Output::Terminal(..) => self.draw(false),
        }
    }

    fn interval(&mut self, since: Duration) -> io::Result<()> {
        let start = self.began + since;
        match &mut self.output {
            Output::Plain(out) => lines::plain(*out, &self.options.shown, start, &self.last),
            Output::Json(out) => lines::json(*out, start, &self.last),
            Output::Terminal(..) => self.draw(false),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match &mut self.output {
            Output::Plain(out) => {
                writeln!(out, "# total of {:.3} s", self.total.seconds)?;
                lines::plain(*out, &self.options.shown, self.began, &self.total)
            }
            Output::Json(_) => Ok(()),
            Output::Terminal(..) => self.draw(true),
        }
    }

    /// Draws the frame on a terminal; the final one in full, however long.
    fn draw(&mut self, last: bool) -> io::Result<()> {
        let Output::Terminal(painter, screen) = &mut self.output else {
            return Ok(());
        };
        let (columns, rows) = (screen.size)();
        let frame = Frame {
            target: &self.options.target,
            shown: &self.options.shown,
            selection: &self.options.selection,
            left_out: &self.options.left_out,
            total: &self.total,
            last: (!last).then_some(&self.last),
            elapsed: self.start.elapsed(),
            duration: self.options.duration,
        };
        // The cursor stands on a row of its own below the frame.
        let rows = if last {
            usize::MAX
        } else {
            rows.saturating_sub(1)
        };
        painter.show(frame.lines(columns, rows))
    }
}
