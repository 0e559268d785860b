//! Two namespaces with a link between them.

use std::{fs::File, os::fd::AsRawFd as _, process::Command, thread};

/// Whether a command succeeds.
pub fn sh(command: &str) -> bool {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    output.status.success()
}

/// Two namespaces; gone when dropped.
pub struct Pair {
    /// The namespace with the interface `node`, 10.99.0.1/24.
    pub node: String,
    /// The one with `peer`, 10.99.0.2/24.
    pub peer: String,
}

impl Pair {
    /// A pair that no other test has: `name` is part of the namespaces'.
    pub fn new(name: &str) -> Self {
        let pair = Self {
            node: format!("kld{name}node"),
            peer: format!("kld{name}peer"),
        };
        let (node, peer) = (&pair.node, &pair.peer);
        assert!(sh(&format!(
            "ip netns add {node} && ip netns add {peer} && \
             ip link add node netns {node} type veth peer name peer netns {peer} && \
             ip -n {node} addr add 10.99.0.1/24 dev node && ip -n {node} link set node up && \
             ip -n {peer} addr add 10.99.0.2/24 dev peer && ip -n {peer} link set peer up"
        )));
        pair
    }

    /// Runs something in a namespace, in a thread of its own.
    pub fn within<T: Send>(name: &str, run: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{name}")).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // SAFETY: setns takes a descriptor, which is open.
                let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(entered, 0);
                run()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in [&self.node, &self.peer] {
            sh(&format!("ip netns del {name}"));
        }
    }
}
