//! A stand-in for Loki that answers pushes as a real one did: the contract of
//! what is pushed, in one file. It reads with prost, snap and serde_json, and
//! shares no code with the exporter.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

/// `logproto.PushRequest` of Loki's pkg/push/push.proto.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    pub streams: Vec<StreamAdapter>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamAdapter {
    #[prost(string, tag = "1")]
    pub labels: String,
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<EntryAdapter>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EntryAdapter {
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    pub line: String,
    #[prost(message, repeated, tag = "3")]
    pub structured_metadata: Vec<LabelPair>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LabelPair {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

pub type Labels = BTreeMap<String, String>;

/// An entry as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stored {
    pub time_ns: i128,
    pub line: String,
    pub metadata: Labels,
}

/// Something else than the answer that is due.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing is stored, and this status is answered.
    Status(u16, &'static str),
    /// The connection is reset in the middle of the answer's body.
    Reset,
    /// One byte a second.
    Slow,
    /// 200 and a page of a captive portal; nothing is stored.
    Rubbish,
}

#[derive(Default)]
struct State {
    stored: BTreeMap<Labels, Vec<Stored>>,
    faults: VecDeque<Fault>,
    heads: Vec<String>,
    body_bytes: usize,
    repeated: usize,
    newest: BTreeMap<Labels, i128>,
    closed: bool,
}

/// The stand-in; it answers as long as this lives.
pub struct Double {
    pub port: u16,
    state: Arc<Mutex<State>>,
    listener: TcpListener,
}

/// Entries among which a repetition is looked for.
const RECENT: usize = 5000;
const HOUR: i128 = 3_600_000_000_000;

impl Double {
    pub fn start() -> Self {
        Self::at(0)
    }

    /// At this port; 0: at any.
    pub fn at(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let (listening, shared) = (listener.try_clone().unwrap(), state.clone());
        thread::spawn(move || {
            for stream in listening.incoming() {
                let Ok(stream) = stream else { return };
                let state = shared.clone();
                // A broken connection ends its thread and nothing else.
                thread::spawn(move || while answer(&stream, &state).is_some() {});
            }
        });
        Self {
            port,
            state,
            listener,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next answers.
    pub fn fault(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    /// What is stored, by stream, in the order in which it came.
    pub fn stored(&self) -> BTreeMap<Labels, Vec<Stored>> {
        self.state().stored.clone()
    }

    /// Entries that were there already, with the same time and line: Loki
    /// keeps one.
    pub fn repeated(&self) -> usize {
        self.state().repeated
    }

    /// Heads of all requests.
    pub fn heads(&self) -> Vec<String> {
        self.state().heads.clone()
    }

    /// Bytes of all bodies.
    pub fn body_bytes(&self) -> usize {
        self.state().body_bytes
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.state().closed = true;
        // Ends `incoming`, so that another may have the port.
        // SAFETY: the descriptor is open as long as the listener lives.
        unsafe {
            libc::shutdown(
                std::os::fd::AsRawFd::as_raw_fd(&self.listener),
                libc::SHUT_RDWR,
            );
        }
    }
}

/// Answers one request; `None`: the connection is at its end.
fn answer(stream: &TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (fault, (status, words)) = {
        let mut state = state.lock().unwrap();
        if state.closed {
            return None;
        }
        state.heads.push(head.clone());
        state.body_bytes += body.len();
        let fault = state.faults.pop_front();
        let answer = match &fault {
            Some(Fault::Status(status, _)) => (*status, "not now".to_owned()),
            Some(Fault::Rubbish) => (200, "<html>pay here</html>".to_owned()),
            _ => state.push(&head, &body),
        };
        (fault, answer)
    };
    let more = match &fault {
        Some(Fault::Status(_, more)) => *more,
        _ => "",
    };
    let mut stream = stream;
    // A 204 has no body and says no length: RFC 9110, 8.6.
    let reply = match status {
        204 => format!("HTTP/1.1 204 No Content\r\n{more}\r\n"),
        _ => {
            let length = words.len();
            format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n{more}\r\n{words}")
        }
    };
    match fault {
        Some(Fault::Reset) => {
            let _ = stream.write_all(b"HTTP/1.1 400 x\r\ncontent-length: 100\r\n\r\nhal");
            let _ = stream.shutdown(std::net::Shutdown::Both);
            None
        }
        Some(Fault::Slow) => {
            for byte in reply.bytes() {
                stream.write_all(&[byte]).ok()?;
                thread::sleep(Duration::from_secs(1));
            }
            None
        }
        _ => stream.write_all(reply.as_bytes()).ok(),
    }
}

fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let (_, value) = lines.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
    Some(value)
}

type Parsed = Vec<(String, Vec<Stored>)>;

impl State {
    /// Status and words.
    fn push(&mut self, head: &str, body: &[u8]) -> (u16, String) {
        if !head.starts_with("POST ") {
            return (405, "Method Not Allowed".to_owned());
        }
        if head.split(' ').nth(1) != Some("/loki/api/v1/push") {
            return (404, "404 page not found".to_owned());
        }
        let parsed = match header(head, "content-type") {
            Some("application/x-protobuf") => protobuf(body),
            Some("application/json") => json(head, body),
            _ => Err("Content-Type is none that is supported".to_owned()),
        };
        let streams = match parsed {
            Ok(streams) => streams,
            Err(words) => return (400, words),
        };
        if streams.is_empty() {
            return (
                422,
                "error at least one valid stream is required".to_owned(),
            );
        }
        let mut bad = None;
        for (labels, entries) in streams {
            match labels_of(&labels) {
                Err(words) => bad = Some(words),
                Ok(labels) => bad = self.store(labels, entries).or(bad),
            }
        }
        bad.map_or((204, String::new()), |words| (400, words))
    }

    /// Stores the good entries; words about the last that is bad.
    fn store(&mut self, labels: Labels, entries: Vec<Stored>) -> Option<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = now.as_nanos().cast_signed();
        let newest = self.newest.entry(labels.clone()).or_insert(i128::MIN);
        let stored = self.stored.entry(labels).or_default();
        let mut bad = None;
        for entry in entries {
            let time = entry.time_ns;
            if entry.line.len() > 262_144 {
                bad = Some("Max entry size '262144' bytes exceeded".to_owned());
            } else if time < now - 7 * 24 * HOUR {
                bad = Some(format!("entry has timestamp too old: {time}"));
            } else if time > now + HOUR / 6 {
                bad = Some(format!("entry has timestamp too new: {time}"));
            } else if time < newest.saturating_sub(HOUR) {
                bad = Some(format!("entry too far behind: {time}"));
            } else if stored
                .iter()
                .rev()
                .take(RECENT)
                .any(|one| one.time_ns == time && one.line == entry.line)
            {
                self.repeated += 1;
            } else {
                *newest = time.max(*newest);
                stored.push(entry);
            }
        }
        bad
    }
}

fn protobuf(body: &[u8]) -> Result<Parsed, String> {
    let plain = snap::raw::Decoder::new()
        .decompress_vec(body)
        .map_err(|error| error.to_string())?;
    let request: PushRequest = prost::Message::decode(&plain[..]).map_err(|e| e.to_string())?;
    let entry = |entry: EntryAdapter| {
        let time = entry.timestamp.unwrap_or_default();
        let metadata = entry.structured_metadata.into_iter();
        Stored {
            time_ns: i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos),
            line: entry.line,
            metadata: metadata.map(|pair| (pair.name, pair.value)).collect(),
        }
    };
    let streams = request.streams.into_iter();
    Ok(streams
        .map(|stream| {
            (
                stream.labels,
                stream.entries.into_iter().map(entry).collect(),
            )
        })
        .collect())
}

fn json(head: &str, body: &[u8]) -> Result<Parsed, String> {
    let mut plain = Vec::new();
    match header(head, "content-encoding") {
        Some("gzip") => {
            let mut decoder = flate2::read::GzDecoder::new(body);
            decoder.read_to_end(&mut plain).map_err(|e| e.to_string())?;
        }
        _ => plain.extend_from_slice(body),
    }
    let value: Value = serde_json::from_slice(&plain).map_err(|error| error.to_string())?;
    let none = Vec::new();
    let streams = value["streams"].as_array().unwrap_or(&none);
    let parsed = streams.iter().map(|stream| {
        let labels = pairs(&stream["stream"])?;
        let labels = labels
            .iter()
            .map(|(name, value)| format!("{name}={value:?}"));
        let labels = format!("{{{}}}", labels.collect::<Vec<_>>().join(", "));
        let values = stream["values"].as_array().unwrap_or(&none).iter();
        let entries = values.map(|value| {
            let text = |index: usize| value[index].as_str().ok_or("a value is not a string");
            Ok(Stored {
                time_ns: text(0)?.parse().map_err(|_| "a time is no number")?,
                line: text(1)?.to_owned(),
                metadata: pairs(&value[2])?,
            })
        });
        Ok((labels, entries.collect::<Result<_, String>>()?))
    });
    parsed.collect()
}

fn pairs(value: &Value) -> Result<Labels, String> {
    let empty = serde_json::Map::new();
    let object = value.as_object().unwrap_or(&empty);
    let pairs = object.iter().map(|(name, value)| {
        let value = value.as_str().ok_or("a value is not a string")?;
        Ok((name.clone(), value.to_owned()))
    });
    pairs.collect()
}

/// `{name="value", …}` with Go's escapes.
fn labels_of(text: &str) -> Result<Labels, String> {
    let inside = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'));
    let mut rest = inside.ok_or("labels stand in braces")?.trim();
    let mut labels = Labels::new();
    while !rest.is_empty() {
        let (name, value) = rest.split_once('=').ok_or("a label has no value")?;
        let first = |c: char| c.is_ascii_alphabetic() || c == '_';
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !name.starts_with(first) || !name.chars().all(good) {
            return Err(format!("bad name of a label: {name}"));
        }
        // Rust's and JSON's strings end and escape alike here.
        let mut values = serde_json::Deserializer::from_str(value).into_iter::<String>();
        let read = values.next().ok_or("a label has no value")?;
        labels.insert(name.to_owned(), read.map_err(|error| error.to_string())?);
        rest = value[values.byte_offset()..].trim_start_matches([',', ' ']);
    }
    if labels.len() > 15 {
        return Err("stream has more than 15 labels".to_owned());
    }
    Ok(labels)
}
