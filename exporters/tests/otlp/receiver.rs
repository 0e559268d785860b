//! A receiver of OTLP by gRPC and HTTP that keeps what came and answers as a
//! test wants it. Messages are OpenTelemetry's; framing, compression and
//! statuses are read and written here, by the specifications of gRPC over
//! HTTP/2 and of OTLP.

mod reply;
mod wire;

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kldtrace_exporters::otlp::Protocol;
use opentelemetry_proto::tonic::{
    logs::v1::LogRecord, metrics::v1::Metric, resource::v1::Resource, trace::v1::Span,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

pub use self::{
    reply::{Answer, Frames},
    wire::Body,
};

/// A request that came.
#[derive(Clone, Debug)]
pub struct Came {
    pub headers: HeaderMap,
    /// The client's certificate, as it was shown.
    pub certificate: Option<Vec<u8>>,
    /// Whether it was compressed.
    pub gzip: bool,
    pub body: Body,
}

#[derive(Default)]
struct State {
    came: Vec<Came>,
    /// Requests, with those that an answer of the test's kept out of `came`.
    requests: usize,
    answers: VecDeque<Answer>,
    judge: Option<Judge>,
}

/// Answers what it knows an answer to.
type Judge = Box<dyn Fn(&Body) -> Option<Answer> + Send>;
type Shared = Arc<Mutex<State>>;

/// The receiver; it answers as long as this lives.
pub struct Receiver {
    pub port: u16,
    protocol: Protocol,
    state: Shared,
    task: JoinHandle<()>,
}

impl Receiver {
    pub async fn start(protocol: Protocol) -> Self {
        Self::at(0, protocol, None).await
    }

    /// At this port, 0 for any, with TLS as it is at each connection.
    pub async fn at(port: u16, protocol: Protocol, tls: Option<Tls>) -> Self {
        let listener = bind(port).await;
        let port = listener.local_addr().unwrap().port();
        let state = Shared::default();
        let task = tokio::spawn(accept(listener, protocol, tls, state.clone()));
        Self {
            port,
            protocol,
            state,
            task,
        }
    }

    /// Ends it, so that another may have the port.
    pub async fn end(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The address without TLS.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What comes next is answered so.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state().answers.extend(answers);
    }

    /// Where no answer is set, this decides.
    pub fn judge(&self, judge: impl Fn(&Body) -> Option<Answer> + Send + 'static) {
        self.state().judge = Some(Box::new(judge));
    }

    /// The protocol's own refusal: a status of HTTP, or the code of gRPC that
    /// the specification has for it.
    pub fn refuse(&self, http: u16, grpc: u16, words: &'static str) {
        self.answer([match self.protocol {
            Protocol::Http => Answer::http(http, words),
            Protocol::Grpc => Answer::grpc(grpc, words),
        }]);
    }

    /// Everything that was taken.
    pub fn came(&self) -> Vec<Came> {
        self.state().came.clone()
    }

    /// How many requests there were.
    pub fn requests(&self) -> usize {
        self.state().requests
    }

    pub fn logs(&self) -> Vec<LogRecord> {
        let came = self.came();
        let all = came.into_iter().flat_map(|came| came.body.logs());
        all.collect()
    }

    pub fn spans(&self) -> Vec<Span> {
        let came = self.came();
        let all = came.into_iter().flat_map(|came| came.body.spans());
        all.collect()
    }

    pub fn metrics(&self) -> Vec<Metric> {
        let came = self.came();
        let all = came.into_iter().flat_map(|came| came.body.metrics());
        all.collect()
    }

    /// Who reported, request by request.
    pub fn resources(&self) -> Vec<Resource> {
        let came = self.came();
        came.into_iter().map(|came| came.body.resource()).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // With all of its connections.
        self.task.abort();
    }
}

/// Somebody else's connection may have the port of a receiver that is away.
async fn bind(port: u16) -> TcpListener {
    let start = Instant::now();
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => return listener,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// TLS of the receiver: asked at each connection.
pub type Tls = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

async fn accept(listener: TcpListener, protocol: Protocol, tls: Option<Tls>, state: Shared) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, state) = (tls.clone(), state.clone());
        connections.spawn(connection(stream, protocol, tls, state));
    }
}

async fn connection(stream: TcpStream, protocol: Protocol, tls: Option<Tls>, state: Shared) {
    let Some(tls) = tls else {
        serve(stream, protocol, state, None).await;
        return;
    };
    // A client that is not let in, or does not want to, is gone.
    if let Ok(stream) = TlsAcceptor::from(tls()).accept(stream).await {
        let shown = stream.get_ref().1.peer_certificates();
        let shown = shown.map(|chain| chain[0].to_vec());
        serve(stream, protocol, state, shown).await;
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    protocol: Protocol,
    state: Shared,
    certificate: Option<Vec<u8>>,
) {
    let service = service_fn(move |request| {
        let (state, certificate) = (state.clone(), certificate.clone());
        async move { Ok::<_, Infallible>(handle(request, protocol, state, certificate).await) }
    });
    let stream = TokioIo::new(stream);
    // Clients hang up when they like.
    match protocol {
        Protocol::Grpc => {
            let builder = http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(stream, service).await;
        }
        Protocol::Http => {
            let builder = http1::Builder::new();
            let _ = builder.serve_connection(stream, service).await;
        }
    }
}

async fn handle(
    request: Request<Incoming>,
    protocol: Protocol,
    state: Shared,
    certificate: Option<Vec<u8>>,
) -> Response<Frames> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Answer::http(400, "the body broke off").reply();
    };
    let read = match protocol {
        Protocol::Grpc => wire::grpc(&head, &body.to_bytes()),
        Protocol::Http => wire::http(&head, &body.to_bytes()),
    };
    let mut state = state.lock().unwrap();
    state.requests += 1;
    let (body, gzip) = match (read, protocol) {
        (Ok(read), _) => read,
        (Err(why), Protocol::Grpc) => return Answer::grpc(3, why).reply(),
        (Err(why), Protocol::Http) => return Answer::http(400, why).reply(),
    };
    let set = state.answers.pop_front();
    let judged = || state.judge.as_ref().and_then(|judge| judge(&body));
    let answer = set.or_else(judged);
    let answer = answer.unwrap_or_else(|| Answer::taken(protocol, 0, ""));
    if answer.takes {
        state.came.push(Came {
            headers: head.headers,
            certificate,
            gzip,
            body,
        });
    }
    answer.reply()
}
