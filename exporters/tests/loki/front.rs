//! TLS in front of the stand-in, as a proxy ends it in front of a real Loki.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kldtrace_exporters::tls::Server;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// A connection this old is closed when nothing is asked on it.
const LIFE: Duration = Duration::from_millis(150);
const IDLE: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Seen {
    connections: usize,
    certificates: HashSet<Vec<u8>>,
}

pub struct Front {
    pub url: String,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Front {
    /// Takes connections for the port `to`, by what `server` says then.
    pub async fn start(server: Arc<Server>, to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(server.config());
                let seen = shared.clone();
                tokio::spawn(async move {
                    // Who is refused has no connection.
                    let Ok(client) = acceptor.accept(client).await else {
                        return;
                    };
                    let shown = client.get_ref().1.peer_certificates();
                    if let Some([first, ..]) = shown {
                        let mut seen = seen.lock().unwrap();
                        seen.connections += 1;
                        seen.certificates.insert(first.to_vec());
                    }
                    let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                    let _ = relay(client, server).await;
                });
            }
        });
        Self {
            url: format!("https://localhost:{port}"),
            seen,
            task,
        }
    }

    /// How many connections there were, and how many certificates clients
    /// showed.
    pub fn seen(&self) -> (usize, usize) {
        let seen = self.seen.lock().unwrap();
        (seen.connections, seen.certificates.len())
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Both ways until one side ends, or the connection is old and no answer is
/// due.
async fn relay(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut server: TcpStream,
) -> std::io::Result<()> {
    let start = Instant::now();
    let mut due = false;
    let (mut asked, mut answered) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    loop {
        tokio::select! {
            length = client.read(&mut asked) => match length? {
                0 => return Ok(()),
                length => {
                    due = true;
                    server.write_all(&asked[..length]).await?;
                }
            },
            length = server.read(&mut answered) => match length? {
                0 => return client.shutdown().await,
                length => {
                    due = false;
                    client.write_all(&answered[..length]).await?;
                    client.flush().await?;
                }
            },
            () = tokio::time::sleep(IDLE), if !due => {
                if start.elapsed() > LIFE {
                    return client.shutdown().await;
                }
            }
        }
    }
}
