//! Work that may take long, or for ever, on something that only one may have.
//!
//! A pool that hangs lets whoever reads its state hang as well, and a thread
//! in the kernel cannot be called back. So such work is done by a thread of
//! its own, which takes the thing along; whoever waits for it waits until a
//! deadline and goes on without. The thing comes back when the work is done.

use std::{
    io,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Instant,
};

use super::own::CollectorState;

type Work<T, R> = Box<dyn FnOnce(&mut T) -> R + Send>;

/// Something and the thread that works on it. `R` is what work comes to.
pub(super) struct Worker<T, R> {
    name: &'static str,
    place: Option<T>,
    /// Something was started that may be waited for. What was away before is
    /// not: that would be the same wait again and again.
    started: bool,
    left_out: u64,
    work: Sender<(T, Work<T, R>)>,
    done: Receiver<(T, R)>,
}

impl<T: Send + 'static, R: Send + 'static> Worker<T, R> {
    /// # Errors
    /// When there can be no thread.
    pub fn new(name: &'static str, thing: T) -> io::Result<Self> {
        let (work, to_do) = mpsc::channel::<(T, Work<T, R>)>();
        let (report, done) = mpsc::channel();
        thread::Builder::new().name(name.into()).spawn(move || {
            for (mut thing, work) in to_do {
                let result = work(&mut thing);
                // Nobody waits for it any more: the thing ends here.
                if report.send((thing, result)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            name,
            place: Some(thing),
            started: false,
            left_out: 0,
            work,
            done,
        })
    }

    /// How it stands: whether the thing is here, and how often one went on
    /// without it.
    pub fn state(&self) -> CollectorState {
        CollectorState {
            name: self.name,
            answers: self.place.is_some(),
            left_out: self.left_out,
        }
    }

    /// The thing; `None`: it is being worked on.
    pub fn here(&self) -> Option<&T> {
        self.place.as_ref()
    }

    /// Gives the thing away to be worked on, unless that is so already.
    pub fn start(&mut self, work: impl FnOnce(&mut T) -> R + Send + 'static) {
        if let Some(thing) = self.place.take() {
            // A thread that is gone has panicked, and the thing with it: there
            // was none to give away.
            self.started = self.work.send((thing, Box::new(work))).is_ok();
        }
    }

    /// Waits until the deadline for what was started. `None`: it is not done
    /// and is left out, or nothing was started.
    pub fn finish(&mut self, until: Instant) -> Option<R> {
        if self.place.is_some() {
            return None;
        }
        if std::mem::take(&mut self.started) {
            let left = until.saturating_duration_since(Instant::now());
            if let Ok(done) = self.done.recv_timeout(left) {
                return Some(self.take_back(done));
            }
        }
        self.left_out += 1;
        if self.left_out.is_power_of_two() {
            let (collector, times) = (self.name, self.left_out);
            tracing::warn!(collector, times, "does not answer in time and is left out");
        }
        None
    }

    /// What became of work that was not done in time; `None`: nothing yet.
    pub fn late(&mut self) -> Option<R> {
        let done = self.done.try_recv().ok()?;
        tracing::info!(collector = self.name, "answers again");
        Some(self.take_back(done))
    }

    fn take_back(&mut self, (thing, result): (T, R)) -> R {
        self.place = Some(thing);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn work_that_is_done_comes_back_with_its_thing() {
        let mut worker = Worker::new("test", vec![1]).unwrap();
        for number in 2..100 {
            worker.start(move |list: &mut Vec<i32>| {
                list.push(number);
                list.len()
            });
            assert!(worker.here().is_none());
            assert_eq!(
                worker.finish(soon()),
                Some(usize::try_from(number).unwrap())
            );
        }
        assert_eq!(worker.here().unwrap().len(), 99);
        assert_eq!(worker.finish(soon()), None, "nothing was started");
    }

    #[test]
    fn work_that_hangs_is_left_alone_and_comes_back_later() {
        let (release, hang) = mpsc::channel::<()>();
        let mut worker = Worker::new("test", 0).unwrap();
        worker.start(move |count| {
            let _ = hang.recv();
            *count += 1;
            "late"
        });
        assert_eq!(worker.finish(Instant::now()), None);
        // What is asked meanwhile is not done, and nobody waits.
        worker.start(|count| {
            *count += 100;
            "never"
        });
        assert_eq!(worker.finish(Instant::now()), None);
        assert_eq!(worker.late(), None);
        // Nor does anybody wait for what was away before: this is a day.
        let tomorrow = Instant::now() + Duration::from_hours(24);
        assert_eq!(worker.finish(tomorrow), None);
        let state = worker.state();
        assert_eq!((state.answers, state.left_out), (false, 3));
        release.send(()).unwrap();
        let late = std::iter::repeat_with(|| worker.late()).find_map(|late| late);
        assert_eq!(late, Some("late"));
        assert_eq!(worker.here(), Some(&1));
        assert!(worker.state().answers);
        worker.start(|count| {
            *count += 1;
            "in time"
        });
        assert_eq!(worker.finish(soon()), Some("in time"));
    }

    #[test]
    fn a_panic_ends_the_thing_and_nothing_else() {
        let mut worker = Worker::<i32, ()>::new("test", 0).unwrap();
        worker.start(|_| panic!("on purpose"));
        assert_eq!(worker.finish(soon()), None);
        worker.start(|_| ());
        assert_eq!((worker.finish(soon()), worker.here()), (None, None));
    }
}
