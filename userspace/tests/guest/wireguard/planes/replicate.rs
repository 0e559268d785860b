//! `zfs send` over the storage plane, as the platform replicates.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
};

use super::{
    super::super::common::{sh, skipped},
    scene::{NODE, Peer, within},
    services::{NODE_HOST, addresses},
};

/// mbuffer's port.
const PORT: u16 = 9091;

/// Sends a snapshot from the storage plane's other host to the node, by IPv4
/// and IPv6, and compares what arrives.
pub fn over_the_storage_plane() {
    if Command::new("zfs").arg("version").output().is_err() {
        skipped("zfs is not installed: nothing is replicated");
        return;
    }
    sh(
        "truncate -s 128M /tmp/replicate && zpool create -f repl /tmp/replicate && \
        zfs create repl/from && head -c 3000000 /dev/urandom > /repl/from/file && \
        zfs snapshot repl/from@one",
    );
    for (at, address) in addresses(1, NODE_HOST).into_iter().enumerate() {
        let to = SocketAddr::new(address, PORT);
        let listener = within(NODE, || TcpListener::bind(to).unwrap());
        let receives = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut receive = Command::new("zfs")
                .args(["receive", &format!("repl/to{at}")])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = receive.stdin.take().unwrap();
            io::copy(&mut stream, &mut input).unwrap();
            drop(input);
            assert!(receive.wait().unwrap().success());
        });
        let mut stream = within(&Peer::Storage.space(), || TcpStream::connect(to).unwrap());
        let mut send = Command::new("zfs")
            .args(["send", "repl/from@one"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let bytes = io::copy(&mut send.stdout.take().unwrap(), &mut stream).unwrap();
        drop(stream);
        assert!(send.wait().unwrap().success());
        receives.join().unwrap();
        println!("zfs send to {to}: {bytes} bytes");
        sh(&format!("cmp /repl/from/file /repl/to{at}/file"));
    }
    sh("zpool destroy repl; rm /tmp/replicate");
}
