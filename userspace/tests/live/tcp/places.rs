//! Where sockets and accounts lie, when there are more than there is room for.

use std::{net::TcpStream, thread::sleep, time::Duration};

use kldtrace::kernel::loader::Options;

use super::{drain, pair, wait_until_closed};
use crate::{
    common::{Probes, Snapshot, gained, grew, wait_for},
    load::{Cgroup, cpus, pin},
    net::{Family, Lab, in_cgroup},
};

const LIFETIME: &str = "kldtrace_tcp_connection_lifetime_seconds";
const CHANGES: &str = "kldtrace_tcp_state_changes";

/// The least room that there can be: 16 sets of sockets, 16 accounts.
fn least() -> Options {
    Options {
        map_memory: 1,
        ..Options::default()
    }
}

fn of_sockets(snapshot: &Snapshot, metric: &str) -> u64 {
    snapshot.integer(metric, &[("map", "sockets")])
}

/// More sockets at once than there are places: each place is taken, whichever
/// set a socket belongs to; the others are counted. All places come back.
#[test]
fn sockets_beyond_the_table_are_counted() {
    const CONNECTIONS: u64 = 100;
    let signals = [
        "tcp.connection_lifetime",
        "self.losses",
        "self.map_entries",
        "self.map_max_entries",
    ];
    let Some(mut probes) = Probes::attach_with(&signals, &least()) else {
        return;
    };
    let lab = Lab::veth();
    let listener = lab.server.listen(Family::V4);
    let lived = |before: &Snapshot, after: &Snapshot| {
        let hosts = [&lab.client, &lab.server];
        let counts = hosts.map(|host| {
            let lifetime = gained(before, after, LIFETIME, &host.labels(Family::V4));
            lifetime.count()
        });
        counts.iter().sum::<u64>()
    };
    let lost = |before: &Snapshot, after: &Snapshot| {
        grew(before, after, "kldtrace_losses", &[("reason", "tcp_start")])
    };
    for _ in 0..3 {
        let before = probes.snapshot();
        let capacity = of_sockets(&before, "kldtrace_map_max_entries");
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|_| pair(&lab, &listener, Family::V4))
            .collect();
        let full = probes.snapshot();
        assert_eq!(of_sockets(&full, "kldtrace_map_entries"), capacity);
        for (client, server) in connections {
            drop(client);
            drain(&server);
        }
        wait_until_closed(&lab);
        let after = probes.snapshot();
        // Others on this machine may lose some of theirs, or have places.
        let (lived, lost) = (lived(&before, &after), lost(&before, &after));
        println!("{capacity} places: {lived} lifetimes, {lost} without");
        assert!(lived + lost >= 2 * CONNECTIONS && lived <= capacity);
        assert!(lived + 20 >= capacity, "{lived}");
        wait_for("places to come back", || {
            of_sockets(&probes.snapshot(), "kldtrace_map_entries") <= 10
        });
    }
    // One after the other, they all have room.
    let before = probes.snapshot();
    for _ in 0..CONNECTIONS {
        let (client, server) = pair(&lab, &listener, Family::V4);
        drop(client);
        drain(&server);
    }
    wait_until_closed(&lab);
    let after = probes.snapshot();
    assert_eq!(lived(&before, &after), 2 * CONNECTIONS);
    assert_eq!(lost(&before, &after), 0);
}

/// Sockets that outlive their cgroup count for it, or for `other`, and never for
/// the cgroup that has got its place: neither before it has it, nor after.
#[test]
fn accounts_of_the_gone_go_to_nobody_else() {
    let signals = [
        "tcp.state_changes",
        "self.cgroup_events",
        "self.map_max_entries",
    ];
    let Some(mut probes) = Probes::attach_with(&signals, &least()) else {
        return;
    };
    // What a CPU has found it knows for itself alone.
    pin(0, cpus()[0]);
    let lab = Lab::veth();
    let _listener = lab.server.listen(Family::V4);
    let connect = |cgroup: &Cgroup| {
        in_cgroup(&cgroup.path, || {
            let server = Family::V4.server();
            let connect = || TcpStream::connect(server).unwrap();
            lab.client.in_namespace(connect)
        })
    };
    let begins_to_close = |snapshot: &Snapshot, unit: &str| {
        let labels = [("unit", unit), ("state", "fin_wait1")];
        snapshot.integer(CHANGES, &labels)
    };
    let gone = Cgroup::new("gone");
    let unit = gone.unit.clone();
    let [first, second] = [(); 2].map(|()| connect(&gone));
    let before = probes.snapshot();
    assert_eq!(begins_to_close(&before, &unit), 0);
    drop(gone);
    // Its place is taken away, has rested, and is free.
    for _ in 0..3 {
        probes.snapshot();
        sleep(Duration::from_millis(300));
    }
    drop(first);
    // Others take all places that there are.
    let room = before.integer("kldtrace_map_max_entries", &[("map", "tcp")]);
    let others: Vec<_> = (0..room)
        .map(|number| {
            let cgroup = Cgroup::new(&format!("next-{number}"));
            let socket = connect(&cgroup);
            (cgroup, socket)
        })
        .collect();
    drop(second);
    let after = probes.snapshot();
    for (cgroup, _) in &others {
        assert_eq!(begins_to_close(&after, &cgroup.unit), 0, "{}", cgroup.unit);
    }
    let its_own = begins_to_close(&after, &unit);
    let other = begins_to_close(&after, "other") - begins_to_close(&before, "other");
    println!("{its_own} for the gone, {other} for other");
    assert!(its_own > 0 && its_own + other >= 2);
}
