//! What is wrong with a configuration, and where.

use std::fmt;

/// Problems that are kept and printed.
const SHOWN: usize = 20;

/// Why a configuration was refused: one line for each problem, as
/// `kldtrace.toml:7:1: unknown key "adress" in [listen] (did you mean …?)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    origin: String,
    problems: Vec<Problem>,
    /// Problems beyond those kept.
    more: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    /// Line and column, both from 1, the column in characters; `None` for
    /// the file as a whole.
    place: Option<(usize, usize)>,
    message: String,
}

impl ConfigError {
    /// A problem of the file as a whole.
    pub(crate) fn whole(origin: &str, message: String) -> Self {
        let place = None;
        Self {
            origin: origin.to_owned(),
            problems: vec![Problem { place, message }],
            more: 0,
        }
    }

    /// The file exceeds [`super::MAX_FILE`].
    pub(super) fn too_large(origin: &str) -> Self {
        Self::whole(origin, "larger than 1MiB: not a configuration".to_owned())
    }

    /// Problems, each with the byte of `text` where it is.
    pub(crate) fn at(origin: &str, text: &str, mut found: Vec<(usize, String)>) -> Self {
        found.sort_by_key(|(offset, _)| *offset);
        let more = found.len().saturating_sub(SHOWN);
        // Finding a place reads the text up to there: not for each of the
        // hundred thousand problems that a file of garbage has.
        let problems = found.into_iter().take(SHOWN);
        let problems = problems.map(|(offset, message)| Problem {
            place: Some(place(text, offset)),
            message,
        });
        Self {
            origin: origin.to_owned(),
            problems: problems.collect(),
            more,
        }
    }
}

/// Line and column of byte `offset`, both from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    // The parser may point behind the end, at the missing rest.
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.problems.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.origin)?;
            if let Some((line, column)) = problem.place {
                write!(f, "{line}:{column}:")?;
            }
            write!(f, " {}", problem.message)?;
        }
        if self.more > 0 {
            write!(f, "\n{}: and {} more errors", self.origin, self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
