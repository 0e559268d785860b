//! A terminal on which a frame is drawn over the one before.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
};

use anstyle::Style;

use super::text;

/// A line in pieces, each with its style. Holds harmless text only.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line(Vec<(Style, String)>);

impl Line {
    /// Appends text.
    #[must_use]
    pub fn with(mut self, style: Style, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    /// Columns that the line takes.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text::width(text)).sum()
    }

    /// The line cut to `columns`, so that the terminal does not wrap it.
    #[must_use]
    fn cut(mut self, columns: usize) -> Self {
        let mut left = columns;
        for (_, text) in &mut self.0 {
            *text = text::truncated(text, left);
            left = left.saturating_sub(text::width(text));
        }
        self
    }

    /// The line as written, with colours or without.
    pub fn render(&self, color: bool) -> String {
        let mut rendered = String::new();
        for (style, text) in &self.0 {
            if color && *style != Style::new() && !text.is_empty() {
                let _ = write!(rendered, "{style}{text}{style:#}");
            } else {
                rendered.push_str(text);
            }
        }
        rendered.truncate(rendered.trim_end_matches(' ').len());
        rendered
    }
}

/// What the terminal can show.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// Columns and rows at this moment: people resize windows.
    pub size: fn() -> (usize, usize),
    /// Whether colours are wanted.
    pub color: bool,
}

impl Screen {
    /// The terminal that standard output goes to; `None` if it goes elsewhere
    /// or the terminal cannot move its cursor (`TERM=dumb`).
    ///
    /// Colours are off where `NO_COLOR` is set and not empty (no-color.org).
    pub fn stdout() -> Option<Self> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if dumb || !io::stdout().is_terminal() {
            return None;
        }
        Some(Self {
            size: stdout_size,
            color: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        })
    }
}

fn stdout_size() -> (usize, usize) {
    match terminal_size::terminal_size() {
        // A serial console says that it has no size at all.
        Some((terminal_size::Width(columns), terminal_size::Height(rows)))
            if columns > 0 && rows > 0 =>
        {
            (columns.into(), rows.into())
        }
        _ => (80, 24),
    }
}

/// Draws frames in place and, at the end, gives the cursor back.
pub struct Painter<'a> {
    out: &'a mut dyn Write,
    screen: Screen,
    /// Widths of the lines of the frame on the screen.
    drawn: Vec<usize>,
}

impl<'a> Painter<'a> {
    /// A painter that has drawn nothing yet.
    pub fn new(out: &'a mut dyn Write, screen: Screen) -> Self {
        Self {
            out,
            screen,
            drawn: Vec::new(),
        }
    }

    /// Replaces the frame on the screen by `lines`.
    ///
    /// Each line is overwritten and its rest erased, rather than the screen
    /// cleared first, and it all goes out in one write as a synchronised
    /// update (mode 2026, ignored where unknown): nothing flickers.
    pub fn show(&mut self, lines: Vec<Line>) -> io::Result<()> {
        let columns = (self.screen.size)().0.max(1);
        let mut frame = String::from("\x1b[?2026h\x1b[?25l\r");
        // A window made narrower has wrapped the lines of the last frame.
        let rows = |width: &usize| width.div_ceil(columns).max(1);
        let up: usize = self.drawn.iter().map(rows).sum();
        if up > 0 {
            let _ = write!(frame, "\x1b[{up}A");
        }
        self.drawn.clear();
        for line in lines {
            let line = line.cut(columns);
            frame.push_str(&line.render(self.screen.color));
            // Behind a full line the cursor stands on its last character,
            // which must not be erased.
            let end = if line.width() < columns {
                "\x1b[K\n"
            } else {
                "\n"
            };
            frame.push_str(end);
            self.drawn.push(line.width());
        }
        frame.push_str("\x1b[J\x1b[?2026l");
        self.out.write_all(frame.as_bytes())?;
        self.out.flush()
    }
}

impl Drop for Painter<'_> {
    fn drop(&mut self) {
        // The terminal may be gone; there is nobody left to tell.
        let _ = self.out.write_all(b"\x1b[?25h");
        let _ = self.out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_over_the_frame_before() {
        let lines = |texts: &[&str]| {
            let line = |text: &&str| Line::default().with(Style::new(), *text);
            texts.iter().map(line).collect::<Vec<_>>()
        };
        let screen = Screen {
            size: || (8, 24),
            color: false,
        };
        let mut out = Vec::new();
        let mut painter = Painter::new(&mut out, screen);
        painter.show(lines(&["one", "twotwotwo"])).unwrap();
        painter.screen.size = || (4, 24);
        painter.show(lines(&["three"])).unwrap();
        drop(painter);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\x1b[?2026h\x1b[?25l\rone\x1b[K\ntwotwot…\n\x1b[J\x1b[?2026l\
             \x1b[?2026h\x1b[?25l\r\x1b[3Athr…\n\x1b[J\x1b[?2026l\x1b[?25h"
        );
    }

    #[test]
    fn colours_only_where_wanted() {
        let line = Line::default().with(Style::new().bold(), "x");
        assert_eq!(line.render(true), "\x1b[1mx\x1b[0m");
        assert_eq!(line.render(false), "x");
    }
}
