//! Segments: the spool's files, and the frames in them.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::frame::{ByLane, HEADER, Header, MAGIC};

/// What a segment begins with: a name and the version of what follows.
pub const PREFIX: &[u8; 12] = b"kldspool\x01\0\0\0";

/// Where the first frame is.
pub const START: u64 = PREFIX.len() as u64;

const EXTENSION: &str = "spool";

/// How much is looked through at once behind a damage.
const WINDOW: usize = 64 << 10;

/// A segment's file.
pub fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.{EXTENSION}"))
}

/// Numbers of the segments that are there, in order.
pub fn list(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = PathBuf::from(entry?.file_name());
        let stem = name.file_stem().and_then(|stem| stem.to_str());
        if name.extension().is_some_and(|end| end == EXTENSION)
            && let Some(number) = stem.and_then(|stem| stem.parse().ok())
            && path(directory, number).ends_with(&name)
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes an empty segment, in place of one that a crash left without frames.
pub fn create(directory: &Path, number: u64) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path(directory, number))?;
    file.write_all_at(PREFIX, 0)?;
    Ok(file)
}

/// A good frame and what was not one before it.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the frame begins.
    pub at: u64,
    /// Its header.
    pub header: Header,
    /// Bytes before it that are no frame.
    pub damaged: u64,
}

/// The first good frame at `at` or behind it, its body in `body`. `end`: where
/// the written part of the segment ends.
pub fn next(file: &File, at: u64, end: u64, body: &mut Vec<u8>) -> io::Result<Option<Found>> {
    let mut place = at.max(START);
    while place < end {
        if let Some(header) = read(file, place, end, body)? {
            let damaged = place - at.max(START);
            return Ok(Some(Found {
                at: place,
                header,
                damaged,
            }));
        }
        place = magic(file, place + 1, end)?;
    }
    body.clear();
    Ok(None)
}

/// The frame at `at`, if there is a good one.
fn read(file: &File, at: u64, end: u64, body: &mut Vec<u8>) -> io::Result<Option<Header>> {
    if end - at < HEADER as u64 {
        return Ok(None);
    }
    let mut bytes = [0; HEADER];
    if !all(file, &mut bytes, at)? {
        return Ok(None);
    }
    let Some(header) = Header::parse(&bytes) else {
        return Ok(None);
    };
    let start = at + HEADER as u64;
    if end - start < header.length as u64 {
        return Ok(None);
    }
    body.resize(header.length, 0);
    if !all(file, body, start)? || !header.covers(&bytes, body) {
        return Ok(None);
    }
    Ok(Some(header))
}

/// Fills `bytes`; false: the file is shorter than it was.
fn all(file: &File, bytes: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where the next [`MAGIC`] at `at` or behind it begins; `end` if there is
/// none.
fn magic(file: &File, at: u64, end: u64) -> io::Result<u64> {
    let mut window = vec![0; WINDOW];
    let mut from = at;
    while from < end {
        let length = (end - from).min(WINDOW as u64) as usize;
        let read = file.read_at(&mut window[..length], from)?;
        let found = window[..read]
            .windows(MAGIC.len())
            .position(|bytes| bytes == MAGIC);
        if let Some(found) = found {
            return Ok(from + found as u64);
        }
        if read < MAGIC.len() {
            break;
        }
        // The next window may begin in the middle of one.
        from += (read - (MAGIC.len() - 1)) as u64;
    }
    Ok(end)
}

/// Entries before a segment's first good frame; `None`: it has no good frame.
pub fn before(file: &File) -> io::Result<Option<ByLane>> {
    let end = file.metadata()?.len();
    let first = next(file, START, end, &mut Vec::new())?;
    Ok(first.map(|found| found.header.before))
}

/// Where a segment's last good frame ends, and entries up to there; `None`: it
/// has no good frame.
pub fn last(file: &File) -> io::Result<Option<(u64, ByLane)>> {
    let end = file.metadata()?.len();
    let mut body = Vec::new();
    let mut last = None;
    let mut at = START;
    while let Some(found) = next(file, at, end, &mut body)? {
        at = found.at + (HEADER + found.header.length) as u64;
        last = Some((at, found.header.after()));
    }
    Ok(last)
}
