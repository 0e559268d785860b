//! The TCP signals against what the kernel itself counts (/proc/net/snmp in a
//! namespace of the test's own, TCP_INFO) and against the test's own clock.

mod accept;
mod bytes;
mod connect;
mod failures;
mod life;
mod places;
mod resets;
mod segments;

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use super::{
    common::{Snapshot, grew, wait_for},
    net::{Family, Host, Lab},
};

/// What this test's clock may see late on a busy machine: its thread has to be
/// woken before it can look.
const WAKE: f64 = 0.1;

/// A connection, both ends.
fn pair(lab: &Lab, listener: &TcpListener, family: Family) -> (TcpStream, TcpStream) {
    let client = lab.client.connect(family);
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

/// Waits until a host has no connection left that is not in TIME_WAIT.
fn wait_until_closed(lab: &Lab) {
    for host in [&lab.client, &lab.server] {
        wait_for("all to close", || host.living() == 0);
    }
}

/// Reads to the peer's end; a reset is an end too. Returns the bytes.
fn drain(mut stream: &TcpStream) -> u64 {
    let mut buffer = vec![0; 1 << 18];
    let mut all = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return all,
            Ok(length) => all += length as u64,
        }
    }
}

/// Reads so many bytes.
fn read_exactly(mut stream: &TcpStream, bytes: usize) {
    let mut block = vec![0; bytes.min(1 << 18)];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(block.len());
        stream.read_exact(&mut block[..now]).unwrap();
        left -= now;
    }
}

/// Sends so many bytes.
fn send(mut stream: &TcpStream, bytes: usize) {
    let block = vec![0x5a; bytes.min(1 << 18)];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(block.len());
        stream.write_all(&block[..now]).unwrap();
        left -= now;
    }
}

/// Runs something and says how long it took.
fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let result = run();
    (result, started.elapsed())
}

/// What a counter gained for a host, whatever the other labels.
fn grew_for(before: &Snapshot, after: &Snapshot, metric: &str, host: &Host) -> u64 {
    grew(before, after, metric, &[("unit", host.unit())])
}
