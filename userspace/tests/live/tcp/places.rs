//! Where sockets lie, when there are more than there is room for.

use kldtrace::kernel::loader::Options;

use super::{drain, pair, wait_until_closed};
use crate::{
    common::{Probes, Snapshot, gained, grew, wait_for},
    net::{Family, Lab},
};

const LIFETIME: &str = "kldtrace_tcp_connection_lifetime_seconds";

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
