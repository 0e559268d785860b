//! What reads bytes from the network or the disk, each with what must hold
//! whatever the bytes are: for the fuzz targets in fuzz/, and no part of what
//! is built for users.

use std::{borrow::Cow, fs, path::PathBuf, sync::LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;

use crate::{
    glob,
    journal::{cursor, export, line, redact},
    loki::answer::judge,
    otlp::{
        progress::Progress,
        request::{Request, Signal},
        verdict,
    },
    prometheus::{Encoding, negotiate},
    push::{Lane, Verdict},
    record,
    spool::{self, Batch, Spool, frame, segment},
    tls::names,
};

/// A name, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 12] = [
    ("accept", accept),
    ("certificate", certificate),
    ("glob", glob),
    ("journal_cursor", journal_cursor),
    ("journal_export", journal_export),
    ("journal_redact", journal_redact),
    ("loki_answer", loki_answer),
    ("otlp_answer", otlp_answer),
    ("record", record),
    ("retry_after", retry_after),
    ("spool_cursor", spool_cursor),
    ("spool_segment", spool_segment),
];

/// `Accept` and `Accept-Encoding` of a scrape.
fn accept(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    negotiate(Some(&text));
    Encoding::negotiate(Some(&text));
}

/// A client's certificate, and the names in it.
fn certificate(data: &[u8]) {
    let names = ["prom.example".to_owned()];
    let listed = names::has_one(data, &names).is_ok();
    // A name is only in what is a certificate.
    assert!(!listed || names::end(data).is_ok());
}

/// A pattern of the configuration and a name from outside.
fn glob(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (pattern, name) = text.split_once('\n').unwrap_or((&text, ""));
    if !pattern.contains('*') {
        assert_eq!(glob::matches(pattern, name), pattern == name);
    }
    assert!(glob::matches("*", name));
}

/// The file with our place in the journal.
fn journal_cursor(data: &[u8]) {
    if let Some(cursor) = cursor::Cursor::new(data) {
        assert!(cursor.is(&cursor));
        assert_eq!(cursor.as_str().as_bytes(), data);
    }
    let path = file("journal", data);
    let store = cursor::Store::new(path);
    if let cursor::Loaded::Kept(place) = store.load() {
        store.save(&place).expect("room in memory");
        let cursor::Loaded::Kept(again) = store.load() else {
            panic!("{place} was kept and is not there");
        };
        assert_eq!(again.to_string(), place.to_string());
    }
}

/// What journalctl writes: the same entries however it is cut into pieces.
fn journal_export(data: &[u8]) {
    let [piece, stream @ ..] = data else { return };
    let entries = |size: usize| {
        let mut parser = export::Parser::new();
        let mut found = Vec::new();
        for mut piece in stream.chunks(size) {
            while let Some(entry) = parser.next(&mut piece) {
                let line = line::Line::new(entry, "node-1");
                found.push(line.map(|line| (format!("{:?}", line.record()), entry.cut)));
            }
        }
        (found, parser.resyncs)
    };
    let whole = entries(stream.len().max(1));
    assert_eq!(whole, entries(usize::from(*piece).max(1)));
}

/// A line of the journal under the built-in rules of redaction.
fn journal_redact(data: &[u8]) {
    static REDACTOR: LazyLock<redact::Redactor> = LazyLock::new(|| {
        redact::Redactor::new(&redact::Settings::default()).expect("rules of our own")
    });
    let before = String::from_utf8_lossy(data);
    let mut text = Cow::Borrowed(&*before);
    let any = REDACTOR.apply(&mut text);
    assert!(any || text == before);
}

/// Status, a content type or not, and the body.
fn answer(data: &[u8]) -> Option<Response<Bytes>> {
    let [high, low, kind, body @ ..] = data else {
        return None;
    };
    let status = StatusCode::from_u16(u16::from_be_bytes([*high, *low]) % 1000).ok()?;
    let kind = match kind % 4 {
        0 => Some("text/html"),
        1 => Some("application/json"),
        2 => Some("application/x-protobuf"),
        _ => None,
    };
    let mut response = Response::new(Bytes::copy_from_slice(body));
    *response.status_mut() = status;
    if let Some(kind) = kind {
        let kind = HeaderValue::from_static(kind);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    Some(response)
}

/// What stands in the place of Loki: its words are harmless.
fn loki_answer(data: &[u8]) {
    if let Some(response) = answer(data) {
        harmless(&judge(&response, &["sesame".to_owned()]));
    }
}

/// The same for OTLP, by HTTP and gRPC.
fn otlp_answer(data: &[u8]) {
    let Some(response) = answer(data) else { return };
    let (status, headers, body) = (response.status(), response.headers(), response.body());
    let shown = |verdict| harmless(&verdict::shown(verdict, &["sesame".to_owned()]));
    shown(verdict::of_http(status, headers, body));
    let code = tonic::Code::from_i32(i32::from(status.as_u16() % 20));
    let words = String::from_utf8_lossy(body);
    shown(verdict::of_grpc(&tonic::Status::with_details(
        code,
        words,
        body.clone(),
    )));
    if let Ok(partial) = Request::Logs(ExportLogsServiceRequest::default()).answer(body) {
        let mut progress = Progress::default();
        progress.took(Signal::Logs, &[1, 2], partial);
        let verdict = progress.through(&[1, 2]);
        assert!(!matches!(verdict, Verdict::Partly { refused: 3.., .. }));
        shown(verdict);
    }
}

fn harmless(verdict: &Verdict) {
    let why = match verdict {
        Verdict::Taken => return,
        Verdict::Partly { why, .. } | Verdict::Later { why, .. } | Verdict::Refused { why } => why,
    };
    assert!(!why.contains(char::is_control), "{why:?}");
    assert!(why.chars().count() < 600, "{why:?}");
}

/// `Retry-After` and `Date`.
fn retry_after(data: &[u8]) {
    let mut headers = HeaderMap::new();
    let names: [HeaderName; 2] = [header::RETRY_AFTER, header::DATE];
    for (name, value) in names.into_iter().zip(data.split(|byte| *byte == b'\n')) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    if let Some(wait) = crate::push::answer::retry_after(&headers) {
        assert!(wait.as_secs() <= 300);
    }
}

/// An entry of the spool: what can be read is written the same.
fn record(data: &[u8]) {
    if let Ok(read) = record::decode(data) {
        let mut bytes = Vec::new();
        read.encode(&mut bytes);
        let again = record::decode(&bytes).expect("what we wrote");
        // Not by equality: a number may be none.
        assert_eq!(format!("{again:?}"), format!("{read:?}"));
    }
}

/// The file with a reader's place in the spool.
fn spool_cursor(data: &[u8]) {
    let directory = directory("spool-cursor");
    fs::write(directory.join("fuzz.cursor"), data).expect("room in memory");
    works_on(&directory);
}

/// The spool's files: what is there is read, and what comes later too.
fn spool_segment(data: &[u8]) {
    let directory = directory("spool-segment");
    for (number, part) in data.split(|byte| *byte == b'|').take(3).enumerate() {
        let path = segment::path(&directory, number as u64 + 1);
        fs::write(path, segment_of(part)).expect("room in memory");
    }
    works_on(&directory);
}

/// Of each piece a good frame, whose numbers need not fit, or what it is.
fn segment_of(data: &[u8]) -> Vec<u8> {
    let mut bytes = segment::PREFIX.to_vec();
    for piece in data.split(|byte| *byte == b'\n') {
        match piece {
            [b'f', lane, before, body @ ..] => {
                let lane = [Lane::Events, Lane::Journal, Lane::Metrics][usize::from(lane % 3)];
                // Up to what a checksum lets through and more can be added to.
                let mut total = [(frame::NEVER - 1) >> (1 + before % 48); frame::LANES];
                let entries = body.split(|byte| *byte == b',').map(|entry| (lane, entry));
                frame::write(&mut bytes, &mut total, entries);
            }
            rubbish => bytes.extend(rubbish),
        }
    }
    bytes
}

/// A spool opens, gives what it has, and takes and gives more.
fn works_on(directory: &std::path::Path) {
    let settings = spool::Settings {
        directory: directory.to_owned(),
        bytes: spool::Settings::SMALLEST,
        sync: None,
    };
    let lanes: &[Lane] = &[Lane::Events];
    let (spool, readers) = Spool::open(settings, &[("fuzz", lanes)]).expect("a spool");
    let mut reader = readers.into_iter().next().expect("one reader");
    let mut batch = Batch::default();
    let mut drain = |last: &mut Vec<u8>| {
        while reader.ahead() > 0 {
            reader.read(1 << 20, &mut batch).expect("a disk");
            if let Some(entry) = batch.entries().last() {
                *last = entry.bytes.to_vec();
            }
            reader.acknowledge();
        }
    };
    let mut last = Vec::new();
    drain(&mut last);
    assert_eq!(spool.statistics().readers[0].1.waiting, 0);
    let ours = [(Lane::Events, &b"the last"[..])];
    spool.append(&ours).expect("room in memory");
    assert_eq!(spool.statistics().readers[0].1.waiting, 1);
    drain(&mut last);
    assert_eq!(last, b"the last");
}

/// An empty directory of this process alone. Whoever fuzzes has `TMPDIR` in
/// memory.
fn directory(name: &str) -> PathBuf {
    let name = format!("kldtrace-fuzz-{}-{name}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).expect("room in memory");
    path
}

fn file(name: &str, data: &[u8]) -> PathBuf {
    let path = directory(name).join("file");
    fs::write(&path, data).expect("room in memory");
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds of a target, which fuzz/corpus has.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus");
        let files = fs::read_dir(PathBuf::from(corpus).join(target)).expect("seeds");
        files
            .map(|file| fs::read(file.unwrap().path()).unwrap())
            .collect()
    }

    /// Each seed as it is, and with pieces of it changed at random: what a
    /// real run of the fuzzer does better, done at each test.
    #[test]
    fn what_must_hold_holds_for_the_seeds_and_their_neighbours() {
        let mut random = fastrand::Rng::with_seed(4);
        for (target, run) in TARGETS {
            for seed in seeds(target) {
                run(&seed);
                for _ in 0..100 {
                    let mut data = seed.clone();
                    for _ in 0..random.usize(1..4) {
                        mutate(&mut data, &mut random);
                    }
                    run(&data);
                }
            }
            for name in ["spool-cursor", "spool-segment", "journal"] {
                let _ = fs::remove_dir_all(directory(name));
            }
        }
    }

    fn mutate(data: &mut Vec<u8>, random: &mut fastrand::Rng) {
        let at = random.usize(0..=data.len());
        match random.u8(0..4) {
            0 => data.truncate(at),
            1 => data.insert(at, random.u8(..)),
            2 => {
                let piece = data[at..].to_vec();
                data.extend(piece);
            }
            _ => {
                if let Some(byte) = data.get_mut(at) {
                    *byte = random.u8(..);
                }
            }
        }
    }
}
