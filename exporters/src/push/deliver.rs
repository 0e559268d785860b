//! Delivers what a spool has to one destination: in batches, each until it is
//! taken.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{Aside, Backoff, Counters, Destination, Entry, Trouble, Verdict, told::Told};
use crate::spool::{Batch, Reader};

/// How batches are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes in the spool at which a batch is sent at once.
    pub bytes: usize,
    /// How long an entry waits for others at most.
    pub age: Duration,
    /// The longest wait between two tries.
    pub longest_wait: Duration,
}

/// One destination and what it reads from.
pub struct Delivery<D> {
    /// The destination's name, for people.
    pub name: &'static str,
    /// Its own reader.
    pub reader: Reader,
    /// Where to.
    pub destination: D,
    /// How.
    pub settings: Settings,
    /// What comes of it.
    pub counters: Arc<Counters>,
    /// Where the refused go.
    pub aside: Arc<Aside>,
}

/// What has been told of pushes that were taken.
#[derive(Default)]
struct Remarks {
    refused: Told,
    warned: Told,
}

impl<D: Destination> Delivery<D> {
    /// Delivers until `stop` is true or its sender gone, and then what is
    /// there already, for up to `grace`. What is not taken by then stays in the
    /// spool.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, grace: Duration) {
        let mut ending = stop.clone();
        let end = async {
            let _ = ending.wait_for(|stop| *stop).await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            () = self.deliver(&mut stop) => {}
            () = end => {}
        }
    }

    async fn deliver(&mut self, stop: &mut watch::Receiver<bool>) {
        let mut batch = Batch::default();
        let mut backoff = Backoff::new(self.settings.longest_wait);
        let mut remarks = Remarks::default();
        while self.gather(stop).await {
            match self.reader.read(self.settings.bytes, &mut batch) {
                Ok(()) => backoff = Backoff::new(self.settings.longest_wait),
                Err(error) => {
                    tracing::error!(destination = self.name, %error, "the spool cannot be read");
                    tokio::time::sleep(backoff.wait(None)).await;
                    continue;
                }
            }
            let entries: Vec<_> = batch.entries().collect();
            self.push(&entries, &mut remarks).await;
            self.reader.acknowledge();
        }
    }

    /// Waits until there is a batch; false: it is time to end.
    async fn gather(&mut self, stop: &mut watch::Receiver<bool>) -> bool {
        let stopped = |stop: &watch::Receiver<bool>| *stop.borrow() || stop.has_changed().is_err();
        tokio::select! {
            ahead = self.reader.readable() => if ahead.is_none() { return false },
            _ = stop.wait_for(|stop| *stop) => {}
        }
        let age = tokio::time::sleep(self.settings.age);
        tokio::pin!(age);
        while !stopped(stop) && self.reader.ahead() < self.settings.bytes as u64 {
            tokio::select! {
                () = &mut age => break,
                more = self.reader.changed() => if !more { break },
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        self.reader.ahead() > 0
    }

    /// Pushes all of `entries`, in their order, however long it takes.
    async fn push(&mut self, entries: &[Entry<'_>], remarks: &mut Remarks) {
        let mut backoff = Backoff::new(self.settings.longest_wait);
        let mut trouble = Trouble::default();
        let mut rest: Vec<Range<usize>> = Vec::new();
        rest.push(0..entries.len());
        while let Some(range) = rest.pop() {
            if range.is_empty() {
                continue;
            }
            let part = &entries[range.clone()];
            let verdict = self.destination.send(part).await;
            self.counters.answered(&verdict, part.len() as u64);
            match verdict {
                Verdict::Later { why, after } => {
                    rest.push(range);
                    self.tell(&mut trouble, &why);
                    tokio::time::sleep(backoff.wait(after)).await;
                    continue;
                }
                Verdict::Taken => {}
                Verdict::Partly { refused, why } => self.remark(remarks, refused, &why),
                Verdict::Refused { why } => match part {
                    [one] => self.set_aside(one, &why),
                    _ => {
                        let middle = range.start + part.len() / 2;
                        rest.push(middle..range.end);
                        rest.push(range.start..middle);
                    }
                },
            }
            backoff = Backoff::new(self.settings.longest_wait);
            if let Some(lasted) = trouble.over() {
                let seconds = lasted.as_secs();
                tracing::info!(destination = self.name, seconds, "pushes are taken again");
            }
        }
    }

    fn tell(&self, trouble: &mut Trouble, why: &str) {
        if let Some(lasts) = trouble.fails(why) {
            tracing::warn!(
                destination = self.name,
                why,
                seconds = lasts.as_secs(),
                "pushes are not taken; what comes is kept in the spool"
            );
        }
    }

    /// Tells of a push that was taken, but not as it should be.
    fn remark(&self, remarks: &mut Remarks, refused: u64, why: &str) {
        let (name, now) = (self.name, Instant::now());
        if refused > 0 {
            if let Some(refused) = remarks.refused.more(refused, now) {
                tracing::warn!(
                    destination = name,
                    refused,
                    why,
                    "some entries were refused"
                );
            }
        } else if let Some(pushes) = remarks.warned.more(1, now) {
            tracing::warn!(destination = name, pushes, why, "taken, but with a warning");
        }
    }

    fn set_aside(&self, entry: &Entry<'_>, why: &str) {
        let name = self.name;
        let path = self.aside.path().display();
        tracing::warn!(destination = name, why, %path, "an entry was refused and set aside");
        if let Err(error) = self.aside.keep(name, entry, why) {
            tracing::warn!(destination = name, %error, %path, "a refused entry cannot be kept");
        }
    }
}
