//! The daemon: loads what the configuration asks for, serves it, and ends
//! cleanly.

mod api;
pub use api::WINDOW as DOCTOR_WINDOW;
mod http;
mod listen;
mod planes;
mod pushes;
mod renew;
mod serve;
mod told;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use self::{
    pushes::{Pushes, measure},
    told::Told,
};
use crate::{
    config::Config,
    fleet::Fleet,
    kernel::loader::Availability,
    selection,
    signals::{
        reader::Reader,
        serving::{Listener, Serving},
    },
};

/// The reader, shared by those who ask. It is replaced on reload.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Reader>>);

impl Shared {
    /// Runs a piece of work with the reader, off the event loop: reading maps
    /// blocks.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Reader) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let reader = self.0.clone();
        tokio::task::spawn_blocking(move || {
            // A reader that panicked in the middle still has its maps.
            let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut reader)
        })
        .await
        .context("reading the probes failed")
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps it from starting: a configuration, a listener, the kernel. What
/// fails later is logged.
pub fn run(config: Config, path: Option<PathBuf>) -> anyhow::Result<()> {
    // One thread serves; reading the maps has a thread of its own.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_keep_alive(Duration::from_secs(2))
        .build()?
        .block_on(serve(config, path))
}

async fn serve(config: Config, path: Option<PathBuf>) -> anyhow::Result<()> {
    // Before anything is attached: a port in use must not cost an attach.
    let metrics = listen::metrics(&config).await?;
    let tls = listen::tls(&config)?.map(Arc::new);
    let socket = listen::socket(&config)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let (pushes, certificates) = Pushes::start(&config)?;
    let pushes = Arc::new(pushes);
    let counts = |name| Arc::new(Listener::new(name, config.listen.connections));
    let (for_scrapes, for_tool) = (counts("metrics"), counts("socket"));
    let serving = Arc::new(Serving {
        listeners: vec![for_scrapes.clone(), for_tool.clone()],
        certificates: renew::certificates(tls.as_ref(), certificates),
        push: pushes.state(),
    });
    let fleet = Arc::new(RwLock::new(Fleet::new(&config)));
    let shared = Shared(Arc::new(Mutex::new(start(&config, &serving)?)));
    let (stop, stopped) = watch::channel(false);
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(listener) = metrics {
        let router = http::router(shared.clone(), fleet.clone());
        let stopped = stopped.clone();
        tasks.spawn(serve::serve(listener, tls, router, for_scrapes, stopped));
    }
    let router = api::router(shared.clone());
    let listener = socket.listener;
    tasks.spawn(serve::serve(listener, None, router, for_tool, stopped));
    let mut renewal = tokio::spawn(renew::follow(serving.clone()));
    let planes = planes::Follower::start()?;
    let told = Arc::new(Mutex::new(Told::default()));
    let mut events = tokio::spawn(take_events(shared.clone(), told.clone(), pushes.clone()));
    let mut metrics = tokio::spawn(measure(shared.clone(), pushes.clone(), config.clone()));
    let mut statistics = tokio::spawn(sample_costs(shared.clone()));

    let mut config = config;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                // The old ring buffers go with the old reader.
                events.abort();
                renew::now(&serving);
                config = reload(config, path.as_deref(), &shared, &serving, &fleet).await;
                events = tokio::spawn(take_events(shared.clone(), told.clone(), pushes.clone()));
            }
            Some(ended) = tasks.join_next() => {
                ended.context("a listener ended")?;
            }
        }
    }
    tracing::info!("stopping");
    for task in [&mut renewal, &mut events, &mut metrics, &mut statistics] {
        task.abort();
        let _ = task.await;
    }
    // Before the listener closes: then a successor may have its socket there,
    // while we wait for our last clients.
    drop(socket.path);
    // Listeners finish what they answer; who holds on longer is cut off.
    stop.send_replace(true);
    let finish = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(5), finish)
        .await
        .is_err()
    {
        tracing::warn!("a client did not finish in 5 s");
    }
    last_words(&shared, pushes).await;
    planes.stop();
    Ok(())
}

/// Pushes the events of the last moment.
async fn last_words(shared: &Shared, pushes: Arc<Pushes>) {
    let ended = shared.with(move |reader| {
        if let Err(error) = reader.drain() {
            let error = format!("{error:#}");
            tracing::warn!(error, "the last events are not pushed");
        }
        pushes.events(reader.events());
        pushes.end();
    });
    if let Err(error) = ended.await {
        tracing::warn!(%error, "the last pushes");
    }
}

fn start(config: &Config, serving: &Arc<Serving>) -> anyhow::Result<Reader> {
    let mut reader = Reader::attach(
        &selection::signals(config),
        &selection::options(config),
        &selection::labels(config),
    )?;
    reader.set_node(&config.node_name());
    reader.set_serving(serving.clone());
    reader.set_objectives(config.objectives.clone());
    reader.set_patience(config.limits.scrape_deadline);
    reader.keep_events(usize::try_from(config.limits.events)?);
    for (signal, is) in reader.signals() {
        if let Availability::Absent(reason) = is {
            tracing::warn!(signal = signal.name, %reason, "signal absent");
        }
    }
    let objects = reader.loaded();
    tracing::info!(
        programs = objects.iter().map(|one| one.attached.len()).sum::<usize>(),
        milliseconds = objects
            .iter()
            .map(|one| one.took)
            .sum::<Duration>()
            .as_millis(),
        "attached"
    );
    // The kernel's types took megabytes while programs were loaded.
    // SAFETY: malloc_trim only gives free memory back.
    unsafe { libc::malloc_trim(0) };
    Ok(reader)
}

/// Takes the configuration anew. A bad one changes nothing. Listeners stay as
/// they are: they change with a restart.
async fn reload(
    old: Config,
    path: Option<&Path>,
    shared: &Shared,
    serving: &Arc<Serving>,
    fleet: &RwLock<Fleet>,
) -> Config {
    let Some(path) = path else {
        tracing::info!("no configuration file to read again");
        return old;
    };
    let new = match Config::load(path, selection::names()) {
        Ok(new) => new,
        Err(error) => {
            tracing::error!(%error, "the configuration is kept as it was");
            return old;
        }
    };
    // What is in force until a restart is what is remembered: so the next
    // reload says again that it is not what the file has.
    let in_force = Config {
        listen: old.listen.clone(),
        log: old.log.clone(),
        node: old.node.clone(),
        spool: old.spool.clone(),
        loki: old.loki.clone(),
        otlp: old.otlp.clone(),
        journal: old.journal.clone(),
        ..new.clone()
    };
    if in_force != new {
        tracing::warn!(
            "changes of [listen], [log], [node], [spool], [loki], [otlp] and [journal] take a restart"
        );
    }
    let new = in_force;
    *fleet.write().unwrap_or_else(PoisonError::into_inner) = Fleet::new(&new);
    let probes = |config: &Config| {
        (
            config.signals.clone(),
            config.limits.clone(),
            config.zfs.clone(),
            config.planes.clone(),
            config.wireguard.clone(),
            config.hooks.clone(),
        )
    };
    let old = follow_objectives(old, &new, shared).await;
    if probes(&new) == probes(&old) {
        tracing::info!("signals, limits, names, thresholds and hooks have not changed");
        return old;
    }
    let fresh = new.clone();
    let serving = serving.clone();
    // The new probes are attached before the old are let go: no gap. The
    // counters begin anew, as after a restart.
    let replaced = shared
        .with(move |reader| {
            let new = start(&fresh, &serving)?;
            let old = std::mem::replace(reader, new);
            reader.follow_events(old);
            anyhow::Ok(())
        })
        .await
        .and_then(|result| result);
    match replaced {
        Ok(()) => {
            tracing::info!(path = %path.display(), "reloaded");
            new
        }
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "reload failed; the old probes stay"
            );
            old
        }
    }
}

/// Takes other objectives without a new beginning: nothing in the kernel depends on them.
async fn follow_objectives(old: Config, new: &Config, shared: &Shared) -> Config {
    if new.objectives == old.objectives {
        return old;
    }
    let objectives = new.objectives.clone();
    let set = shared.with(move |reader| reader.set_objectives(objectives));
    if let Err(error) = set.await {
        tracing::error!(%error, "objectives stay as they were");
        return old;
    }
    tracing::info!("objectives are as they are configured now");
    let objectives = new.objectives.clone();
    Config { objectives, ..old }
}

/// How long after an error events are read again: meanwhile the rings take them.
const EVENTS_AGAIN: Duration = Duration::from_secs(5);

/// Takes in events for good: after an error again.
async fn take_events(
    shared: Shared,
    told: Arc<Mutex<Told>>,
    pushes: Arc<Pushes>,
) -> anyhow::Result<()> {
    loop {
        if let Err(error) = drain(&shared, &told, &pushes).await {
            let error = format!("{error:#}");
            tracing::error!(error, "events cannot be read: tried again in 5 s");
        }
        tokio::time::sleep(EVENTS_AGAIN).await;
    }
}

/// Takes events out of the ring buffers as they come, and tells of them.
async fn drain(
    shared: &Shared,
    told: &Arc<Mutex<Told>>,
    pushes: &Arc<Pushes>,
) -> anyhow::Result<()> {
    let descriptor = shared.with(|reader| reader.events_fd()).await??;
    // SAFETY: the descriptor is owned by the AsyncFd and lives as long.
    let ready = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE)? };
    loop {
        // Slots of removed cgroups rest for a second before they are free.
        let event = tokio::time::timeout(Duration::from_secs(2), ready.readable()).await;
        if let Ok(event) = event {
            event?.clear_ready();
        }
        let (told, pushes) = (told.clone(), pushes.clone());
        let taken = shared.with(move |reader| {
            let taken = reader.drain();
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            told.tell(reader.events(), Instant::now());
            pushes.events(reader.events());
            taken
        });
        taken.await??;
        // A storm of cgroups is taken in by the hundred, not one by one.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How often and for how long the kernel keeps run-time statistics: they cost
/// about 25 ns a run, so they are not left on.
const COST_EVERY: Duration = Duration::from_secs(30);
const COST_FOR: Duration = Duration::from_millis(300);

/// Samples what the probes cost.
async fn sample_costs(shared: Shared) -> anyhow::Result<()> {
    loop {
        match aya::sys::enable_stats(aya::sys::Stats::RunTime) {
            Ok(statistics) => {
                shared.with(|reader| reader.stats_are(true)).await?;
                tokio::time::sleep(COST_FOR).await;
                drop(statistics);
                shared.with(|reader| reader.stats_are(false)).await?;
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(
                    error,
                    "no run-time statistics: the cost of probes is unknown"
                );
                return Ok(());
            }
        }
        tokio::time::sleep(COST_EVERY).await;
    }
}
