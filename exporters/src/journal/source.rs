//! The source itself: reads the journal through journalctl, from where the last
//! one was, and takes its lines to the depot.
//!
//! While the spool takes nothing, nothing is read: the journal itself is the
//! buffer.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    counters::Counters,
    cursor::{Cursor, Loaded, Place, Store},
    depot::Depot,
    export::Parser,
    fields::CURSOR,
    filter,
    journalctl::{Begin, Error, Following, Journalctl},
    own::Own,
    rate, redact,
    stage::Stage,
    ticks::Ticks,
    trail::Trail,
};
use crate::{
    push::{Backoff, Trouble},
    spool::Spool,
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

/// Reads a journal. One for each spool.
pub struct Source {
    journalctl: Journalctl,
    since: Since,
    age: Duration,
    parser: Parser,
    stage: Stage,
    trail: Trail,
    depot: Depot,
    counters: Arc<Counters>,
    trouble: Trouble,
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
            age: settings.age,
            parser: Parser::new(),
            stage,
            trail: Trail::new(counters.clone()),
            depot: Depot::new(spool, Store::new(settings.place), counters.clone()),
            counters,
            trouble: Trouble::default(),
        };
        source.load();
        Ok(source)
    }

    /// Where the one before it was.
    fn load(&mut self) {
        match self.depot.load() {
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
        if let Some(running) = running {
            running.kill().await;
        }
        // What does not get into the spool now is read again.
        if let Err(error) = self.depot.deposit(&mut self.stage, &self.trail) {
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
            if let Some(lasts) = self.trouble.fails(&why) {
                let seconds = lasts.as_secs();
                tracing::warn!(why, seconds, "the journal is not read; it is tried again");
            }
            self.depot.commit(&mut self.stage, &self.trail).await;
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
                () = self.depot.batch.due(self.age) => {
                    self.depot.commit(&mut self.stage, &self.trail).await;
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
    async fn begin(&mut self) -> Result<Begin, Error> {
        let Some(last) = self.trail.last() else {
            return match self.since {
                Since::Oldest => Ok(Begin::Oldest),
                Since::Boot => Ok(Begin::Boot),
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
                Ok(Begin::Time(us))
            }
            _ => Ok(Begin::Cursor(last.clone())),
        }
    }

    /// A place before what comes from now on, which is kept at once: lines that
    /// come before the first batch are not missed by a restart.
    async fn begin_now(&mut self) -> Result<Begin, Error> {
        let (from, place) = match self.journalctl.newest().await? {
            Some(cursor) => {
                self.trail.behind(cursor.clone());
                (Begin::Cursor(cursor.clone()), Place::Behind(cursor))
            }
            None => {
                tracing::warn!("journalctl shows no entry: is the journal where it looks for it?");
                self.since = Since::Oldest;
                (Begin::Oldest, Place::Oldest)
            }
        };
        self.depot.place(place);
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
                if self.trouble.over().is_some() {
                    tracing::info!("the journal is read again");
                }
                let added = self.stage.take(entry, &mut self.depot.batch.parcel);
                self.depot.batch.took(added);
                self.counters.behind.store(true, Relaxed);
            }
            if self.depot.batch.is_full() {
                self.depot.commit(&mut self.stage, &self.trail).await;
            }
        }
        let resyncs = self.parser.resyncs - resyncs;
        self.counters.resyncs.fetch_add(resyncs, Relaxed);
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // Also after a fault of ours.
        self.counters.reading.store(false, Relaxed);
    }
}
