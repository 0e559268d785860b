//! One HTTP client for every push: connections that are kept, TLS that follows
//! its files, and an end to everything.

use std::{error::Error as _, time::Duration};

use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Builder, Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::tls;

/// The connections underneath, for a client that speaks for itself (gRPC).
pub type Connector = HttpsConnector<HttpConnector>;

/// Which versions of HTTP are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1.
    One,
    /// HTTP/2, also without TLS, as gRPC has it.
    Two,
}

/// Longest that a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest that an idle connection is kept.
const IDLE: Duration = Duration::from_mins(1);
/// Most of an answer that is read, in bytes: errors are short.
const ANSWER: usize = 64 << 10;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke.
    #[error("{}", chain(.0))]
    Connection(hyper_util::client::legacy::Error),
    /// The answer broke off or was too long.
    #[error("the answer cannot be read: {0}")]
    Answer(Box<dyn std::error::Error + Send + Sync>),
    /// The time was up.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
}

/// hyper says what it did, and only its sources say why that failed.
fn chain(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The connector for a receiver: `tls` for https, and without it http alone.
pub fn connector(tls: Option<&tls::Client>, version: Version) -> Connector {
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(IDLE));
    tcp.enforce_http(false);
    let config = match tls {
        Some(tls) => tls.config(&[]),
        // Never used: the address is http.
        None => tls::Client::nobody(),
    };
    let builder = HttpsConnectorBuilder::new().with_tls_config(config);
    let builder = match tls {
        Some(_) => builder.https_only(),
        None => builder.https_or_http(),
    };
    match version {
        Version::One => builder.enable_http1().wrap_connector(tcp),
        Version::Two => builder.enable_http2().wrap_connector(tcp),
    }
}

/// How clients of our own keep their connections.
pub fn builder(version: Version) -> Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_idle_timeout(IDLE)
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http2_only(version == Version::Two);
    builder
}

/// An HTTP client.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client<Connector, Full<Bytes>>,
    deadline: Duration,
}

impl Http {
    /// `deadline`: for one request, from its first byte to the last of its
    /// answer.
    pub fn new(tls: Option<&tls::Client>, version: Version, deadline: Duration) -> Self {
        let client = builder(version).build(connector(tls, version));
        Self { client, deadline }
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When there is none, or not all of it.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Error> {
        let exchange = async {
            let response = self.client.request(request).await;
            let (head, body) = response.map_err(Error::Connection)?.into_parts();
            let body = Limited::new(body, ANSWER).collect().await;
            let body = body.map_err(Error::Answer)?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        match tokio::time::timeout(self.deadline, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Timeout(self.deadline)),
        }
    }
}
