//! Answers, right and wrong.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use hyper::body::{Body, Bytes, Frame};
use kldtrace_exporters::otlp::Protocol;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceResponse,
};
use prost::Message as _;

/// How a body ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Whole,
    /// Never.
    Hangs,
    /// The connection is reset.
    Breaks,
}

/// An answer to one request.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Whether the receiver keeps the request all the same.
    pub takes: bool,
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
    end: End,
}

impl Answer {
    /// Success, but for so many that were rejected, or with a warning. The
    /// three answers of OTLP have the same form.
    pub fn taken(protocol: Protocol, rejected: i64, message: &str) -> Self {
        let partial = (rejected != 0 || !message.is_empty()).then(|| ExportLogsPartialSuccess {
            rejected_log_records: rejected,
            error_message: message.to_owned(),
        });
        let message = ExportLogsServiceResponse {
            partial_success: partial,
        };
        Self::success(protocol, &message.encode_to_vec())
    }

    /// Success with this message, whatever it is.
    pub fn success(protocol: Protocol, message: &[u8]) -> Self {
        let answer = Self {
            takes: true,
            status: 200,
            ..Self::default()
        };
        match protocol {
            Protocol::Http => Self {
                body: message.to_vec(),
                ..answer.with("content-type", "application/x-protobuf")
            },
            Protocol::Grpc => {
                let length = u32::try_from(message.len()).unwrap().to_be_bytes();
                Self {
                    body: [&[0], &length[..], message].concat(),
                    trailers: headers([("grpc-status", "0")]),
                    ..answer.with("content-type", "application/grpc")
                }
            }
        }
    }

    /// Success by HTTP that says no more than that.
    pub fn nothing(status: u16) -> Self {
        Self {
            takes: true,
            status,
            ..Self::default()
        }
    }

    /// A status of HTTP, by whoever speaks it.
    pub fn http(status: u16, words: &str) -> Self {
        let answer = Self {
            status,
            body: words.as_bytes().to_vec(),
            ..Self::default()
        };
        answer.with("content-type", "text/plain")
    }

    /// A status of gRPC without a message: in the headers, as it is then.
    pub fn grpc(code: u16, words: &str) -> Self {
        let answer = Self {
            status: 200,
            ..Self::default()
        };
        answer
            .with("content-type", "application/grpc")
            .with("grpc-status", &code.to_string())
            .with("grpc-message", words)
    }

    /// With one header more, or another.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.extend(headers([(name, value)]));
        self
    }

    /// The same, but its body never ends.
    pub fn hanging(self) -> Self {
        Self {
            end: End::Hangs,
            ..self
        }
    }

    /// The same, but the connection breaks in its body.
    pub fn breaking(self) -> Self {
        Self {
            end: End::Breaks,
            ..self
        }
    }

    pub(super) fn reply(self) -> Response<Frames> {
        let mut frames = VecDeque::new();
        if !self.body.is_empty() {
            frames.push_back(Frame::data(Bytes::from(self.body)));
        }
        if self.end == End::Whole && !self.trailers.is_empty() {
            frames.push_back(Frame::trailers(self.trailers));
        }
        let end = self.end;
        let mut reply = Response::new(Frames { frames, end });
        *reply.status_mut() = self.status.try_into().unwrap();
        *reply.headers_mut() = self.headers;
        reply
    }
}

fn headers<const N: usize>(pairs: [(&'static str, &str); N]) -> HeaderMap {
    let pairs = pairs.into_iter();
    pairs
        .map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_str(value).unwrap())
        })
        .collect()
}

/// The body of an answer.
#[derive(Debug)]
pub struct Frames {
    frames: VecDeque<Frame<Bytes>>,
    end: End,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match (self.frames.pop_front(), self.end) {
            (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
            (None, End::Whole) => Poll::Ready(None),
            (None, End::Hangs) => Poll::Pending,
            (None, End::Breaks) => Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into()))),
        }
    }

    /// Only of a body without anything, so that a status alone ends there.
    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.end == End::Whole
    }
}
