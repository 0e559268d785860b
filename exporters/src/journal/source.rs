//! The source itself: reads the journal through journalctl, ships its lines
//! into the spool, and keeps its place.
//!
//! A batch of lines is appended to the spool, the spool synced, and only then
//! the place behind the batch kept: whatever happens in between, lines come
//! twice rather than never. While the spool takes nothing, nothing is read: the
//! journal itself is the buffer.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    batch::Batch,
    counters::Counters,
    cursor::{Cursor, Loaded, Place, Store},
    export::Parser,
    fields::CURSOR,
    filter,
    journalctl::{Error, Following, From, Journalctl},
    own::Own,
    rate, redact,
    stage::Stage,
    ticks::Ticks,
    trail::Trail,
};
use crate::{
    push::{Backoff, Trouble},
    spool::{self, Spool},
};

/// How the journal is read, and what of it is shipped.
#[derive(Clone, Debug)]
pub struct Settings {
    /// journalctl.
    pub program: PathBuf,
    /// Where the journal is; `None`: where this node's is.
    pub directory: Option<PathBuf>,
    /// Where to begin if there is no place from before.
    pub since: Since,
    /// The file that the place is kept in.
    pub place: PathBuf,
    /// This node's host name, which is not repeated in each line.
    pub host: String,
    /// Our own process, whose lines are left out.
    pub own: Option<Own>,
    /// Which lines are shipped.
    pub filter: filter::Settings,
    /// How many of each unit; `None`: all.
    pub limit: Option<rate::Limit>,
    /// What is redacted.
    pub redact: redact::Settings,
    /// Longest line in bytes, at most [`fields::BODY`](super::fields::BODY).
    pub line: usize,
    /// How long a line waits for others at most, before the spool gets it.
    pub age: Duration,
}

/// Where a journal is begun that was never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With what is written from now on.
    Now,
    /// With the first entry of this boot.
    Boot,
    /// With the oldest entry.
    Oldest,
}

/// How much is read at once.
const READ: usize = 64 << 10;
/// The longest wait before journalctl is started again.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// How long a disk is left alone that did not take something.
const AGAIN: Duration = Duration::from_secs(1);

/// Reads a journal. One for each spool.
pub struct Source {
    journalctl: Journalctl,
    since: Since,
    store: Store,
    age: Duration,
    parser: Parser,
    stage: Stage,
    trail: Trail,
    batch: Batch,
    /// Where reading goes on after what the spool has; `None`: the file has it.
    place: Option<Place>,
    spool: Spool,
    counters: Arc<Counters>,
    read_trouble: Trouble,
    spool_trouble: Trouble,
    place_trouble: Trouble,
}

impl Source {
    /// A source that goes on where the one before it was.
    ///
    /// # Errors
    /// When a rule of redaction is none.
    pub fn new(
        settings: Settings,
        spool: Spool,
        counters: Arc<Counters>,
    ) -> Result<Self, redact::Error> {
        let stage = Stage {
            host: settings.host,
            own: settings.own,
            filter: settings.filter,
            limiter: settings.limit.map(rate::Limiter::new),
            redactor: redact::Redactor::new(&settings.redact)?,
            line: settings.line,
            ticks: Ticks::default(),
            counters: counters.clone(),
        };
        let mut source = Self {
            journalctl: Journalctl {
                program: settings.program,
                directory: settings.directory,
            },
            since: settings.since,
            store: Store::new(settings.place),
            age: settings.age,
            parser: Parser::new(),
            stage,
            trail: Trail::new(counters.clone()),
            batch: Batch::default(),
            place: None,
            spool,
            counters,
            read_trouble: Trouble::default(),
            spool_trouble: Trouble::default(),
            place_trouble: Trouble::default(),
        };
        source.load();
        Ok(source)
    }

    /// Where the one before it was.
    fn load(&mut self) {
        match self.store.load() {
            Loaded::Nothing => {}
            Loaded::Kept(Place::Oldest) => self.since = Since::Oldest,
            Loaded::Kept(Place::Behind(cursor)) => {
                if let Some(us) = cursor.time_us() {
                    self.stage.ticks.resume(us);
                }
                self.trail.behind(cursor);
            }
            Loaded::Damaged(error) => {
                tracing::error!(
                    error,
                    "the kept place in the journal is of no use: all of the journal is read"
                );
                self.counters.cursor_resets.fetch_add(1, Relaxed);
                self.since = Since::Oldest;
            }
        }
    }

    /// Reads until `stop` is true or its sender gone. Blocks while the disk
    /// does: it is to have a thread of its own.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut running = None;
        tokio::select! {
            () = self.follow(&mut running) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.counters.reading.store(false, Relaxed);
        if let Some(running) = running {
            running.kill().await;
        }
        // What does not get into the spool now is read again.
        if let Err(error) = self.deposit() {
            tracing::warn!(%error, "lines of the journal wait there for the next start");
        }
    }

    /// Keeps journalctl running.
    async fn follow(&mut self, running: &mut Option<Following>) {
        let mut backoff = Backoff::new(LONGEST_WAIT);
        loop {
            let before = self.trail.last().cloned();
            let ended = self.read(running).await;
            self.counters.reading.store(false, Relaxed);
            self.counters.restarts.fetch_add(1, Relaxed);
            if self.trail.last() != before.as_ref() {
                backoff = Backoff::new(LONGEST_WAIT);
            }
            let why = match ended {
                Ok(()) => "journalctl ended".to_owned(),
                Err(error) => error.to_string(),
            };
            if let Some(lasts) = self.read_trouble.fails(&why) {
                let seconds = lasts.as_secs();
                tracing::warn!(why, seconds, "the journal is not read; it is tried again");
            }
            self.commit().await;
            tokio::time::sleep(backoff.wait(None)).await;
        }
    }

    /// Reads what one journalctl writes.
    async fn read(&mut self, running: &mut Option<Following>) -> Result<(), Error> {
        let from = self.begin().await?;
        self.parser.restart();
        self.trail.resume();
        let journalctl = running.insert(self.journalctl.follow(&from)?);
        self.counters.reading.store(true, Relaxed);
        let mut buffer = vec![0; READ];
        loop {
            let read = tokio::select! {
                biased;
                () = self.batch.due(self.age) => {
                    self.commit().await;
                    continue;
                }
                read = journalctl.read(&mut buffer) => read?,
            };
            if read == 0 {
                break;
            }
            self.take(&buffer[..read]).await;
        }
        match running.take() {
            Some(ended) => ended.end().await,
            None => Ok(()),
        }
    }

    /// Where journalctl is to begin.
    async fn begin(&mut self) -> Result<From, Error> {
        let Some(last) = self.trail.last() else {
            return match self.since {
                Since::Oldest => Ok(From::Oldest),
                Since::Boot => Ok(From::Boot),
                Since::Now => self.begin_now().await,
            };
        };
        // Without this entry journalctl goes by its number, and where numbers
        // are given again shows nothing up to it: a silent gap.
        let found = self.journalctl.at(last).await?;
        let near = found.is_some_and(|found| found.is(last) || found.is_after(last));
        match last.time_us() {
            Some(us) if !near => {
                self.trail.lose();
                Ok(From::Time(us))
            }
            _ => Ok(From::Cursor(last.clone())),
        }
    }

    /// A place before what comes from now on, which is kept at once: lines that
    /// come before the first batch are not missed by a restart.
    async fn begin_now(&mut self) -> Result<From, Error> {
        let (from, place) = match self.journalctl.newest().await? {
            Some(cursor) => {
                self.trail.behind(cursor.clone());
                (From::Cursor(cursor.clone()), Place::Behind(cursor))
            }
            None => {
                self.since = Since::Oldest;
                (From::Oldest, Place::Oldest)
            }
        };
        self.place = Some(place);
        self.keep();
        Ok(from)
    }

    /// Takes what journalctl wrote.
    async fn take(&mut self, mut bytes: &[u8]) {
        let resyncs = self.parser.resyncs;
        while let Some(entry) = self.parser.next(&mut bytes) {
            let Some(cursor) = entry.at(CURSOR).and_then(Cursor::new) else {
                self.counters.unreadable.fetch_add(1, Relaxed);
                continue;
            };
            if self.trail.step(cursor) {
                if self.read_trouble.over().is_some() {
                    tracing::info!("the journal is read again");
                }
                let added = self.stage.take(entry, &mut self.batch.parcel);
                self.batch.took(added);
            }
            if self.batch.is_full() {
                self.commit().await;
            }
        }
        let resyncs = self.parser.resyncs - resyncs;
        self.counters.resyncs.fetch_add(resyncs, Relaxed);
        self.counters.behind.store(!self.batch.is_empty(), Relaxed);
    }

    /// Has the spool take the batch, however long that takes.
    async fn commit(&mut self) {
        while let Err(error) = self.deposit() {
            self.counters.refused.fetch_add(1, Relaxed);
            if self.spool_trouble.fails(&error.to_string()).is_some() {
                tracing::error!(%error, "the spool takes no lines; the journal keeps them meanwhile");
            }
            tokio::time::sleep(AGAIN).await;
        }
        if self.spool_trouble.over().is_some() {
            tracing::info!("the spool takes lines again");
        }
    }

    /// Gives the batch to the spool, and keeps the place behind it.
    fn deposit(&mut self) -> Result<(), spool::Error> {
        self.stage.left_out(&mut self.batch.parcel);
        let parcel = &self.batch.parcel;
        if !parcel.is_empty() {
            self.spool.append(&parcel.entries())?;
            self.counters.shipped.fetch_add(self.batch.lines, Relaxed);
        }
        if !self.batch.is_empty() {
            self.place = self.trail.last().cloned().map(Place::Behind);
            self.batch.clear();
        }
        self.keep();
        self.counters.behind.store(false, Relaxed);
        Ok(())
    }

    /// Keeps the place once the disk has all that is before it. If that fails,
    /// it is tried again with the next batch.
    fn keep(&mut self) {
        let Some(place) = &self.place else { return };
        let synced = self.spool.sync().map_err(|error| error.to_string());
        let kept = synced.and_then(|()| self.store.save(place).map_err(|error| error.to_string()));
        match kept {
            Ok(()) => {
                self.place = None;
                if self.place_trouble.over().is_some() {
                    tracing::info!("the place in the journal is kept again");
                }
            }
            Err(error) => {
                self.counters.unsaved.fetch_add(1, Relaxed);
                if self.place_trouble.fails(&error).is_some() {
                    tracing::error!(
                        error,
                        "the place in the journal cannot be kept: after a restart, lines come twice"
                    );
                }
            }
        }
    }
}
