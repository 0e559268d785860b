//! Serving HTTP, with limits on what clients may hold.
//!
//! axum's own loop takes in every connection and waits for it without end.
//! Here each has a place at a [`Desk`], which knows what it is at, ends what
//! takes too long, and gives the place of the idle to those who come.

mod desk;
mod watched;

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kldtrace_exporters::tls;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::JoinSet,
    time::MissedTickBehavior,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use self::{
    desk::{Desk, Seat},
    watched::{Body as WatchedBody, Watched},
};
use crate::signals::serving::{Dropped, Listener};

/// How often the desk looks for those that take too long.
const SWEEP: Duration = Duration::from_secs(1);
/// Room for the head of a request; hyper's least.
const HEAD: usize = 8 << 10;

/// Answers on one listener until told to stop, then finishes what it answers.
pub async fn serve<L>(
    mut listener: L,
    tls: Option<Arc<tls::Server>>,
    router: Router,
    counts: Arc<Listener>,
    stopped: watch::Receiver<bool>,
) where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug + Sync,
{
    let desk = Desk::new(counts);
    let mut stop = stopped.clone();
    let mut connections = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            (io, address) = listener.accept() => {
                let Some(seat) = desk.take() else {
                    continue;
                };
                let connection = Connection {
                    seat: seat.clone(),
                    router: router.clone(),
                    stopped: stopped.clone(),
                };
                let tls = tls.clone();
                let task = connections.spawn(async move {
                    match tls {
                        None => connection.speak(io).await,
                        Some(tls) => connection.encrypted(&tls, io, &address).await,
                    }
                });
                seat.can_be_ended(task);
            }
            _ = sweep.tick() => desk.sweep(),
            Some(_) = connections.join_next() => {}
            // A closed channel is the end as well.
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    // Nobody comes in any more.
    drop(listener);
    desk.close();
    while connections.join_next().await.is_some() {}
}

struct Connection {
    seat: Seat,
    router: Router,
    stopped: watch::Receiver<bool>,
}

impl Connection {
    async fn encrypted<IO>(self, tls: &tls::Server, io: IO, address: &impl std::fmt::Debug)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        match TlsAcceptor::from(tls.config()).accept(io).await {
            Ok(io) => self.speak(io).await,
            Err(error) => self.seat.refused(address, &error),
        }
    }

    async fn speak<IO>(mut self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.seat.waits();
        let io = TokioIo::new(Watched::new(io, self.seat.clone()));
        let (seat, router) = (self.seat, self.router);
        let service = service_fn(move |request: Request<Incoming>| {
            let answering = seat.answers();
            let answer = router.clone().oneshot(request.map(Body::new));
            async move {
                let Ok(response) = answer.await;
                Ok::<Response<_>, std::convert::Infallible>(
                    response.map(|body| WatchedBody::new(body, answering)),
                )
            }
        });
        let connection = http1::Builder::new()
            .max_buf_size(HEAD)
            .serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        // That a client goes away or sends rubbish is nothing to report.
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = self.stopped.wait_for(|stop| *stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

impl Seat {
    /// No TLS came of the connection.
    fn refused(&self, address: &impl std::fmt::Debug, error: &std::io::Error) {
        self.count(Dropped::Tls);
        if self.may_say() {
            tracing::warn!(?address, %error, "TLS refused (more are counted and not logged)");
        } else {
            tracing::debug!(?address, %error, "TLS refused");
        }
    }
}
