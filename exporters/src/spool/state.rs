//! What the spool knows of its files, and all that changes them.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    Error, Settings, Statistics,
    cursor::Place,
    frame::{self, ByLane, LANES, MAX_ENTRY},
    progress::Progress,
    segment::{self, START},
};
use crate::push::Lane;

/// How long is waited for another process to let go.
const PATIENCE: Duration = Duration::from_secs(1);

/// A file with frames.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// Entries before its first frame.
    before: ByLane,
    /// Bytes that are written.
    pub(super) end: u64,
}

/// The spool, for whoever holds its lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) settings: Settings,
    /// In order; the last is written to. Never empty.
    pub(super) segments: VecDeque<Segment>,
    file: Arc<File>,
    /// Entries since the spool was made.
    pub(super) total: ByLane,
    pub(super) readers: Vec<Progress>,
    /// Full segments that the disk may not have yet.
    full: Vec<(PathBuf, Arc<File>)>,
    /// Whether the disk may not have all of the last.
    dirty: bool,
    buffer: Vec<u8>,
    failed: u64,
    /// Held for as long as the spool is open.
    _lock: File,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |error| Error::Disk {
        path: path.to_owned(),
        error,
    }
}

impl State {
    pub(super) fn open(
        settings: Settings,
        readers: &[(&'static str, &[Lane])],
    ) -> Result<Self, Error> {
        let directory = &settings.directory;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(at(directory))?;
        let lock = hold(directory)?;
        let mut segments = segments(directory).map_err(at(directory))?;
        let mut total = segments.back().map_or([0; LANES], |last| last.before);
        let file = match segments.back_mut() {
            Some(last) => {
                let path = segment::path(directory, last.number);
                let file = File::options()
                    .read(true)
                    .write(true)
                    .open(&path)
                    .map_err(at(&path))?;
                if let Some((end, after)) = segment::last(&file).map_err(at(&path))? {
                    last.end = end;
                    total = after;
                }
                // What a crash left behind the last good frame.
                file.set_len(last.end).map_err(at(&path))?;
                file
            }
            None => {
                let path = segment::path(directory, 1);
                let file = segment::create(directory, 1).map_err(at(&path))?;
                segments.push_back(Segment {
                    number: 1,
                    before: total,
                    end: START,
                });
                file
            }
        };
        let mut state = Self {
            settings,
            segments,
            file: Arc::new(file),
            total,
            readers: Vec::new(),
            full: Vec::new(),
            dirty: true,
            buffer: Vec::new(),
            failed: 0,
            _lock: lock,
        };
        state.readers(readers)?;
        state.forget();
        Ok(state)
    }

    fn readers(&mut self, readers: &[(&'static str, &[Lane])]) -> Result<(), Error> {
        let directory = self.settings.directory.clone();
        for (name, lanes) in readers {
            let progress = Progress::open(&directory, name, lanes, self.oldest());
            let mut progress = progress.map_err(at(&directory))?;
            let done = &mut progress.done;
            // A place behind the end is one whose entries went with the power.
            match self.find(done.segment) {
                Some(segment) => done.at = done.at.min(segment.end),
                None => *done = self.end(),
            }
            for (seen, total) in done.seen.iter_mut().zip(self.total) {
                *seen = total.min(*seen);
            }
            self.readers.push(progress);
        }
        Ok(())
    }

    fn find(&self, number: u64) -> Option<&Segment> {
        self.segments.iter().find(|one| one.number == number)
    }

    fn oldest(&self) -> Place {
        let first = self.segments.front().expect("there is a segment");
        Place::beginning(first.number, first.before)
    }

    fn end(&self) -> Place {
        let last = self.segments.back().expect("there is a segment");
        Place {
            segment: last.number,
            at: last.end,
            seen: self.total,
        }
    }

    pub(super) fn append(&mut self, entries: &[(Lane, &[u8])]) -> Result<(), Error> {
        let done = self.write(entries);
        if matches!(done, Err(Error::Disk { .. })) {
            self.failed += 1;
        }
        done
    }

    fn write(&mut self, entries: &[(Lane, &[u8])]) -> Result<(), Error> {
        if let Some((_, bytes)) = entries.iter().find(|(_, bytes)| bytes.len() > MAX_ENTRY) {
            return Err(Error::TooLarge(bytes.len()));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut total = self.total;
        frame::write(&mut buffer, &mut total, entries.iter().copied());
        let written = self.place(&buffer);
        // A burst must not leave its memory behind.
        buffer.shrink_to(MAX_ENTRY);
        self.buffer = buffer;
        written?;
        self.total = total;
        Ok(())
    }

    fn place(&mut self, frames: &[u8]) -> Result<(), Error> {
        let more = frames.len() as u64;
        if more > self.settings.bytes / 4 {
            return Err(Error::TooLarge(frames.len()));
        }
        let last = self.segments.back().expect("there is a segment");
        if last.end > START && last.end + more > self.settings.segment() {
            self.roll()?;
        }
        while self.bytes() + more > self.settings.bytes && self.segments.len() > 1 {
            self.drop_oldest();
        }
        let last = self.segments.back_mut().expect("there is a segment");
        let path = segment::path(&self.settings.directory, last.number);
        let synced = self.settings.sync.is_some_and(|every| every.is_zero());
        let written = self.file.write_all_at(frames, last.end).and_then(|()| {
            if synced {
                self.file.sync_data()
            } else {
                Ok(())
            }
        });
        if let Err(error) = written {
            // What is behind the end is written over, or cut off at the next
            // start; but now it would take room.
            let _ = self.file.set_len(last.end);
            return Err(Error::Disk { path, error });
        }
        last.end += more;
        self.dirty = !synced;
        Ok(())
    }

    fn roll(&mut self) -> Result<(), Error> {
        let last = self.segments.back().expect("there is a segment");
        let old = segment::path(&self.settings.directory, last.number);
        let number = last.number + 1;
        let path = segment::path(&self.settings.directory, number);
        let file = segment::create(&self.settings.directory, number).map_err(at(&path))?;
        let full = std::mem::replace(&mut self.file, Arc::new(file));
        if self.dirty && self.settings.sync.is_some() {
            self.full.push((old, full));
        }
        self.segments.push_back(Segment {
            number,
            before: self.total,
            end: START,
        });
        self.forget();
        Ok(())
    }

    /// Removes the oldest segment, and counts what nobody had read of it.
    fn drop_oldest(&mut self) {
        let Some(gone) = self.segments.pop_front() else {
            return;
        };
        self.remove(gone.number);
        let oldest = self.oldest();
        for reader in &mut self.readers {
            reader.skip_to(oldest);
        }
    }

    /// Removes the segments that everybody has read.
    fn forget(&mut self) {
        let last = self.segments.back().map_or(0, |last| last.number);
        let needed = self.readers.iter().map(|reader| reader.done.segment);
        let needed = needed.min().unwrap_or(last);
        while let Some(first) = self.segments.front()
            && first.number < needed.min(last)
        {
            let number = first.number;
            self.segments.pop_front();
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        let path = segment::path(&self.settings.directory, number);
        self.full.retain(|(one, _)| *one != path);
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "a segment cannot be removed");
        }
    }

    /// The reader has passed on what it had in its hands.
    pub(super) fn acknowledge(&mut self, reader: usize) {
        if self.readers[reader].acknowledge() {
            self.forget();
        }
    }

    /// Files that the disk may not have, which are left to the caller.
    pub(super) fn unsynced(&mut self) -> Vec<(PathBuf, Arc<File>)> {
        let mut files = std::mem::take(&mut self.full);
        if self.settings.sync.is_some() && std::mem::take(&mut self.dirty) {
            let last = self.segments.back().expect("there is a segment");
            let path = segment::path(&self.settings.directory, last.number);
            files.push((path, self.file.clone()));
        }
        files
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }

    pub(super) fn statistics(&self) -> Statistics {
        let readers = self.readers.iter();
        Statistics {
            bytes: self.bytes(),
            failed: self.failed,
            readers: readers
                .map(|reader| (reader.name, reader.standing(&self.total)))
                .collect(),
        }
    }
}

/// Makes sure that no other process writes here.
fn hold(directory: &Path) -> Result<File, Error> {
    let path = directory.join("lock");
    let file = File::create(&path).map_err(at(&path))?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // A daemon that is just ending, or a child of ours that has not
            // yet become another program.
            Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                thread::sleep(PATIENCE / 50);
            }
            Err(TryLockError::WouldBlock) => return Err(Error::Locked(directory.to_owned())),
            Err(TryLockError::Error(error)) => return Err(Error::Disk { path, error }),
        }
    }
}

/// The segments that are there. One without a good frame counts as empty.
fn segments(directory: &Path) -> io::Result<VecDeque<Segment>> {
    let mut segments = VecDeque::new();
    let mut after: Option<ByLane> = None;
    for number in segment::list(directory)?.into_iter().rev() {
        let file = File::open(segment::path(directory, number))?;
        let before = segment::before(&file)?.or(after).unwrap_or([0; LANES]);
        after = Some(before);
        segments.push_front(Segment {
            number,
            before,
            end: file.metadata()?.len().max(START),
        });
    }
    Ok(segments)
}
