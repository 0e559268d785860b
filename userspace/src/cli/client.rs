//! Asking a running daemon over its Unix socket.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use kldtrace_exporters::model::{Event, Family};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::{
    doctor::Report,
    signals::events::Page,
    view::{session::Source, text::harmless},
};

/// The longest reply that is read. 100,000 series take less.
const MAX_REPLY: usize = 256 << 20;
/// A daemon that does not answer for so long is not well.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running daemon.
pub struct Client {
    socket: PathBuf,
    subject: &'static str,
    /// The last event that [`Source::events`] has handed out.
    after: Option<u64>,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// The daemon that listens there; `None`: there is none.
    ///
    /// # Errors
    /// When there is one that this user may not ask.
    pub fn find(socket: &Path, subject: &'static str) -> anyhow::Result<Option<Self>> {
        match std::os::unix::net::UnixStream::connect(socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                bail!(
                    "{}: permission denied (are you root or in the socket's group?)",
                    socket.display()
                );
            }
            Err(_) => return Ok(None),
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Some(Self {
            socket: socket.to_owned(),
            subject,
            after: None,
            runtime,
        }))
    }

    /// The daemon's own report.
    pub fn doctor(&self) -> anyhow::Result<Report> {
        self.get("/v1/doctor")
    }

    /// Events of the subject; of all, if it has none.
    pub fn events(&self, after: Option<u64>, limit: usize) -> anyhow::Result<Page> {
        let mut path = format!("/v1/events?limit={limit}");
        if !self.subject.is_empty() {
            path.push_str("&subject=");
            path.push_str(self.subject);
        }
        if let Some(after) = after {
            let _ = write!(path, "&after={after}");
        }
        self.get(&path)
    }

    /// The families of the subject.
    pub fn families(&self) -> anyhow::Result<Vec<Family>> {
        self.get(&format!("/v1/families?subject={}", self.subject))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let exchange = async {
            tokio::time::timeout(PATIENCE, self.exchange(path))
                .await
                .with_context(|| format!("no answer in {} s", PATIENCE.as_secs()))?
        };
        let body = self
            .runtime
            .block_on(exchange)
            .with_context(|| format!("asking the daemon at {}", self.socket.display()))?;
        serde_json::from_slice(&body).with_context(|| {
            format!(
                "unreadable answer from the daemon at {}",
                self.socket.display()
            )
        })
    }

    async fn exchange(&self, path: &str) -> anyhow::Result<Bytes> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get(path)
            .header(HOST, "kldtrace")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_REPLY)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!("{error}"))?
            .to_bytes();
        connection.abort();
        if !status.is_success() {
            let reason = String::from_utf8_lossy(&body);
            bail!("{status}: {}", harmless(reason.trim()));
        }
        Ok(body)
    }
}

impl Source for Client {
    fn snapshot(&mut self) -> anyhow::Result<Vec<Family>> {
        self.families()
    }

    fn events(&mut self) -> anyhow::Result<Vec<Event>> {
        // No daemon keeps more.
        let page = Self::events(self, self.after, 100_000)?;
        self.after = Some(page.next);
        Ok(page.events)
    }
}
