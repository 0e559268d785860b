//! Every section and key of the configuration, each defined once.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use kldtrace_exporters::journal::{fields, redact::Rule};
use toml::de::DeValue;

use super::{
    kinds::{
        Compression, HookKind, JournalSince, Level, LogFormat, LokiFormat, MapMemory, OtlpProtocol,
        OtlpSignal, Priority,
    },
    read::{self, Fault, Input},
    read_journal, read_push,
};
use crate::signals::wireguard::names::PublicKey;

/// A section of the file.
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) keys: &'static [Key],
}

/// A key of a section.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// The default, as TOML.
    pub(super) default: &'static str,
    pub(super) help: &'static str,
    /// Checks a value and stores it.
    pub(super) set: fn(&mut Config, &Input<'_>) -> Result<(), Fault>,
}

impl Key {
    /// The names and values of a default that is a table; `None`: it is none.
    pub(super) fn entries(&self) -> Option<Vec<(String, &'static str)>> {
        let value = DeValue::parse(self.default).ok()?;
        let table = value.get_ref().as_table()?;
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let entries = entries
            .into_iter()
            .map(|(name, value)| (name.get_ref().to_string(), &self.default[value.span()]));
        Some(entries.collect())
    }
}

/// Makes, from one definition, a struct for each section, [`Config`], its
/// defaults and the table that parser and example share. A key's doc comment
/// is its help; `by` names the function that reads and checks it.
macro_rules! settings {
    ($(
        $(#[doc = $about:literal])*
        $section:ident: $Section:ident {
            $(
                $(#[doc = $help:literal])*
                $key:ident: $type:ty = $default:literal by $read:path,
            )*
        }
    )*) => {
        /// The whole configuration, complete and checked.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $( $(#[doc = $about])* pub $section: $Section, )*
        }

        $(
            $(#[doc = $about])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $Section {
                $( $(#[doc = $help])* pub $key: $type, )*
            }
        )*

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $( $section: $Section { $( $key: default($default, $read), )* }, )*
                }
            }
        }

        /// Every section, in the order of the example.
        pub(super) const SECTIONS: &[Section] = &[$(
            Section {
                name: stringify!($section),
                about: concat!($($about, "\n"),*),
                keys: &[$(
                    Key {
                        name: stringify!($key),
                        default: $default,
                        help: concat!($($help, "\n"),*),
                        set: |config, input| {
                            config.$section.$key = $read(input)?;
                            Ok(())
                        },
                    },
                )*],
            },
        )*];
    };
}

/// Reads a default of the table below; the tests read each of them, so a
/// wrong one never reaches anybody.
fn default<T>(toml: &'static str, read: fn(&Input<'_>) -> Result<T, Fault>) -> T {
    let value = DeValue::parse(toml).expect("defaults are TOML");
    let input = Input {
        value: &value,
        signals: None,
    };
    match read(&input) {
        Ok(value) => value,
        Err(fault) => unreachable!("default {toml}: {}", fault.message),
    }
}

settings! {
    /// Who this node is.
    node: Node {
        /// Name of the node in what is exported; "" for its host name.
        name: Option<String> = r#""""# by read::label,
    }
    /// Which signals are collected. `kldtrace doctor` lists their names.
    signals: Signals {
        /// Names of signals; * stands for any text, as in "sched.*". Signals
        /// of cost "on demand" are on only where their name is here in full.
        enable: Vec<String> = r#"["*"]"# by read::signals,
        /// Names taken out of those enabled, written the same way.
        disable: Vec<String> = "[]" by read::signals,
    }
    /// Where the daemon answers.
    listen: Listen {
        /// IP address and port for /metrics and /healthz; "off" for none.
        address: Option<SocketAddr> = r#""127.0.0.1:9750""# by read::address,
        /// Unix socket for the command line; an absolute path.
        socket: PathBuf = r#""/run/kldtrace/kldtrace.sock""# by read::socket,
        /// Group whose members may use the socket. If the node has no such
        /// group, or this is "", only root may.
        socket_group: Option<String> = r#""kldtrace""# by read::group,
        /// PEM file with the certificate to serve /metrics by TLS 1.3 and
        /// those between it and its authority, and one with its key; "" for
        /// plain HTTP. Files are read again when they change.
        tls_certificate: Option<PathBuf> = r#""""# by read::file,
        /// PEM file with the key of tls_certificate, without a passphrase.
        tls_key: Option<PathBuf> = r#""""# by read::file,
        /// PEM file with the authorities of clients: who has no certificate of
        /// theirs stays outside. "" asks nobody for one.
        tls_client_ca: Option<PathBuf> = r#""""# by read::file,
        /// Names of clients, DNS or URI as in their certificates' alternative
        /// names, such as "prometheus.example"; [] lets in all of tls_client_ca.
        tls_client_names: Vec<String> = "[]" by read::names,
        /// Connections that each listener holds at once, 4 to 4096. One more
        /// takes the place of that which is idle for longest.
        connections: u64 = "64" by read::integer::<4, 4096>,
    }
    /// The nodes that run kldtrace.
    fleet: Fleet {
        /// Names of nodes, each with host and port of its /metrics, as in
        /// { node-1 = "10.0.0.1:9750" }: for `kldtrace export prometheus`, and
        /// for Prometheus' service discovery, which asks /targets. {} has this
        /// node alone.
        nodes: BTreeMap<String, String> = "{}" by read::nodes,
    }
    /// What the daemon may use at most. What is lost at a limit is counted.
    limits: Limits {
        /// Memory for the kernel's maps of each set of probes, 4MiB to 4GiB: the
        /// node's own, and those of ZFS and WireGuard where these are loaded.
        /// "auto" is a thousandth of the RAM, at least 16MiB and at most 256MiB.
        map_memory: MapMemory = r#""auto""# by read::map_memory,
        /// Series of each metric family, 10 to 100000; what goes beyond is
        /// counted in one series with the label values "other".
        series_per_family: u64 = "2000" by read::integer::<10, 100_000>,
        /// Buffer for events between kernel and daemon: a power of two,
        /// 64KiB to 64MiB.
        event_buffer: u64 = r#""1MiB""# by read::event_buffer,
        /// Time that a scrape waits for a collector, 100ms to 1m; one that does
        /// not answer by then is left out, and kldtrace_collector_answers says
        /// so. A scraper that says how long it waits gets three quarters of it.
        scrape_deadline: Duration = r#""5s""# by read_push::time::<100, 60_000>,
        /// Events that the daemon keeps for `kldtrace events`, 10 to 100000;
        /// the oldest go first.
        events: u64 = "1000" by read::integer::<10, 100_000>,
    }
    /// OpenZFS.
    zfs: Zfs {
        /// File operations that take longer are events, 1ms to 1h, each with
        /// where its time went; "0s": none is.
        slow_operation: Duration = r#""100ms""# by read::slow,
    }
    /// What should take no longer, and for how long what happened matters. How
    /// much took longer is counted, and alerts hold it against what may; those times
    /// are rounded up to a bucket's bound, by 9 % at most.
    objectives: Objectives {
        /// A file operation on a dataset, 1ms to 15m. An eighth of a second is
        /// what a person sees.
        zfs_operation: Duration = r#""125ms""# by read_push::time::<1, 900_000>,
        /// A TCP connect of this node, 1ms to 15m. Around the world and back is
        /// a quarter of a second; inside a site it takes a millisecond.
        tcp_connect: Duration = r#""250ms""# by read_push::time::<1, 900_000>,
        /// How far back the daemon looks for p99, means and what came in a
        /// second, 10s to 1h. Alerts are held against that.
        look_back: Duration = r#""5m""# by read_push::time::<10_000, 3_600_000>,
        /// For how long errors and other trouble that is never normal is told
        /// of, 10s to 1d. Its alerts end then.
        trouble: Duration = r#""15m""# by read_push::time::<10_000, 86_400_000>,
    }
    /// The networks of this node, by what they are for.
    planes: Planes {
        /// Names of planes, each with the name of its interface or a list of
        /// them; * stands for any text. They are the label "plane": an
        /// interface has that of the first that fits.
        interfaces: Vec<(String, Vec<String>)> = r#"{ management = "wg-mgmt", storage = "wg-storage", workload = "wg-workload", external = ["eth0", "ipsec0"] }"# by read::planes,
    }
    /// WireGuard.
    wireguard: Wireguard {
        /// Names of peers, each with its public key, as in
        /// { alice = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=" }. A peer
        /// without a name is called by the first eight characters of its key.
        peers: BTreeMap<PublicKey, String> = "{}" by read::peers,
    }
    /// Where what is pushed waits until it is taken. Used by [loki] and [otlp].
    spool: Spool {
        /// Directory, made if it is missing; an absolute path.
        directory: PathBuf = r#""/var/lib/kldtrace/spool""# by read_push::directory,
        /// Most bytes on disk, 8MiB to 1TiB. When it is full the oldest go
        /// first, and are counted.
        size: u64 = r#""1GiB""# by read_push::bytes::<{ 8 << 20 }, { 1 << 40 }>,
        /// How long at most something is in memory alone, and lost with the
        /// power: 10ms to 1h, "0s" to wait for the disk each time, or "off" to
        /// leave it to the kernel.
        sync: Option<Duration> = r#""1s""# by read_push::sync,
    }
    /// Log lines and events to Grafana Loki.
    loki: Loki {
        /// Such as "https://loki.example:3100"; "" for none. /loki/api/v1/push
        /// is where it pushes to unless the address has a path.
        url: Option<String> = r#""""# by read_push::url,
        /// "protobuf", which is smaller, or "json".
        format: LokiFormat = r#""protobuf""# by read::word,
        /// Tenant, the header X-Scope-OrgID; "" for none.
        tenant: Option<String> = r#""""# by read::label,
        /// User for basic authentication; "" for none.
        username: Option<String> = r#""""# by read::label,
        /// File with the user's password.
        password_file: Option<PathBuf> = r#""""# by read::file,
        /// File with a token for bearer authentication; "" for none.
        token_file: Option<PathBuf> = r#""""# by read::file,
        /// PEM file with the authorities of the receiver; "" for those that
        /// the node trusts. These files are read again when they change.
        tls_ca: Option<PathBuf> = r#""""# by read::file,
        /// PEM file with the certificate to show, and one with its key; "" for
        /// none.
        tls_certificate: Option<PathBuf> = r#""""# by read::file,
        /// PEM file with the key of tls_certificate, without a passphrase.
        tls_key: Option<PathBuf> = r#""""# by read::file,
        /// Bytes at which a push is sent at once, 1KiB to 4MiB.
        batch_size: u64 = r#""512KiB""# by read_push::bytes::<1024, { 4 << 20 }>,
        /// How long a line waits for others at most, 10ms to 1m.
        batch_age: Duration = r#""1s""# by read_push::time::<10, 60_000>,
        /// How long an answer is waited for, 1s to 5m.
        timeout: Duration = r#""30s""# by read_push::time::<1000, 300_000>,
    }
    /// Metrics, log lines and spans by OTLP: to an OpenTelemetry collector,
    /// Tempo or Mimir.
    otlp: Otlp {
        /// Such as "https://collector.example:4317"; "" for none.
        url: Option<String> = r#""""# by read_push::url,
        /// "grpc", usually on port 4317, or "http", usually on port 4318.
        protocol: OtlpProtocol = r#""grpc""# by read::word,
        /// What is pushed.
        signals: Vec<OtlpSignal> = r#"["metrics", "logs", "traces"]"# by read::words,
        /// Time between two pushes of all metrics, 1s to 1h.
        interval: Duration = r#""30s""# by read_push::time::<1000, 3_600_000>,
        /// "gzip" or "none".
        compression: Compression = r#""gzip""# by read::word,
        /// User for basic authentication; "" for none.
        username: Option<String> = r#""""# by read::label,
        /// File with the user's password.
        password_file: Option<PathBuf> = r#""""# by read::file,
        /// File with a token for bearer authentication; "" for none.
        token_file: Option<PathBuf> = r#""""# by read::file,
        /// PEM file with the authorities of the receiver; "" for those that
        /// the node trusts. These files are read again when they change.
        tls_ca: Option<PathBuf> = r#""""# by read::file,
        /// PEM file with the certificate to show, and one with its key; "" for
        /// none.
        tls_certificate: Option<PathBuf> = r#""""# by read::file,
        /// PEM file with the key of tls_certificate, without a passphrase.
        tls_key: Option<PathBuf> = r#""""# by read::file,
        /// Bytes at which a push is sent at once, 1KiB to 4MiB.
        batch_size: u64 = r#""512KiB""# by read_push::bytes::<1024, { 4 << 20 }>,
        /// How long a line waits for others at most, 10ms to 1m.
        batch_age: Duration = r#""1s""# by read_push::time::<10, 60_000>,
        /// How long an answer is waited for, 1s to 5m.
        timeout: Duration = r#""30s""# by read_push::time::<1000, 300_000>,
        /// Names and values of headers that each request has, as in
        /// { x-tenant = "one" }. Secrets are safer in files: see token_file.
        headers: BTreeMap<String, String> = "{}" by read_push::headers,
    }
    /// The node's systemd journal, to [loki] and by [otlp]. In patterns of
    /// names, * stands for any text.
    journal: Journal {
        /// Whether its lines are pushed.
        enabled: bool = "false" by read::boolean,
        /// Where to begin on a node that has never pushed its journal: "now",
        /// "boot" for this boot's first line, or "oldest". Loki refuses what is
        /// older than a week, unless it is told otherwise.
        since: JournalSince = r#""now""# by read::word,
        /// Directory with the journal's files, for a container that sees the
        /// node's there; "" for where journalctl looks for it.
        directory: Option<PathBuf> = r#""""# by read::file,
        /// Patterns of units whose lines are pushed; [] for all. The kernel's
        /// lines have the unit "kernel", and lines of no unit have "".
        units: Vec<String> = "[]" by read_journal::patterns,
        /// Patterns of units taken out of those.
        exclude_units: Vec<String> = "[]" by read_journal::patterns,
        /// Patterns of identifiers, as in the first word of a line that
        /// journalctl shows; [] for all.
        identifiers: Vec<String> = "[]" by read_journal::patterns,
        /// Patterns of identifiers taken out of those.
        exclude_identifiers: Vec<String> = "[]" by read_journal::patterns,
        /// Least important priority that is pushed: "emerg", "alert", "crit",
        /// "err", "warning", "notice", "info" or "debug".
        priority: Priority = r#""debug""# by read::word,
        /// Lines a second of each unit in the long run, 1 to 1000000; 0 for no
        /// limit. What is left out is counted, and told in a line.
        rate: u64 = "1000" by read::integer::<0, 1_000_000>,
        /// Lines of a unit that may come at once, 1 to 1000000.
        burst: u64 = "10000" by read::integer::<1, 1_000_000>,
        /// Longest line, 1KiB to 256KiB, which is what Loki takes; the rest is
        /// cut off, and the line says how much.
        line_size: u64 = r#""256KiB""# by read_push::bytes::<1024, { fields::BODY as u64 }>,
        /// How long a line waits for others at most before it is in the spool,
        /// 10ms to 1m. Each batch waits for the disk three times.
        batch_age: Duration = r#""1s""# by read_push::time::<10, 60_000>,
        /// Built-in rules of redaction that are turned off: "private_key",
        /// "wireguard", "authorization", "token", "aws", "url_password" or
        /// "password".
        redact_off: Vec<String> = "[]" by read_journal::redact_off,
        /// Further rules, as in
        /// [{ pattern = 'customer (\d)\d+', replacement = "customer ${1}*" }]:
        /// a regular expression, and what takes the place of what it finds,
        /// which is "[redacted]" if nothing is said.
        redact: Vec<Rule> = "[]" by read_journal::rules,
    }
    /// What the daemon says of itself, on standard error.
    log: Log {
        /// Least important messages shown: "error", "warn", "info", "debug"
        /// or "trace".
        level: Level = r#""info""# by read::word,
        /// "text" for people or "json" for machines.
        format: LogFormat = r#""text""# by read::word,
        /// Also log diagnostics from the programs in the kernel.
        probes: bool = "false" by read::boolean,
    }
    /// For diagnosis only.
    hooks: Hooks {
        /// Kinds of hooks not to use, so that the next candidate serves:
        /// "tp_btf", "raw_tp", "fentry", "fexit", "kprobe", "kretprobe" or
        /// "cgroup".
        avoid: Vec<HookKind> = "[]" by read::words,
    }
}
