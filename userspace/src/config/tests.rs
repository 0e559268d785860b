//! What a person who writes the file gets to read, and that no file, however
//! hostile, does worse.

use proptest::prelude::*;
use toml::de::DeTable;

use super::{Config, HookKind, Level, LogFormat, MAX_FILE, MapMemory, settings::SECTIONS};

const SIGNALS: [&str; 3] = ["sched.runqueue_latency", "sched.slices", "tcp.rtt"];

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, "kldtrace.toml", SIGNALS).map_err(|error| error.to_string())
}

/// The example with its defaults switched on.
fn full_example() -> String {
    let lines = Config::example();
    let lines = lines.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => key,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_the_default() {
    assert_eq!(parse(&Config::example()), Ok(Config::default()));
    assert_eq!(parse(&full_example()), Ok(Config::default()));
    assert_eq!(parse(""), Ok(Config::default()));
}

#[test]
fn the_example_has_every_key_once_with_its_help() {
    let example = full_example();
    let document = DeTable::parse(&example).unwrap().into_inner();
    assert_eq!(document.len(), SECTIONS.len());
    for section in SECTIONS {
        let table = document.get(section.name).unwrap().get_ref();
        let table = table.as_table().unwrap();
        assert_eq!(table.len(), section.keys.len(), "[{}]", section.name);
        assert!(!section.about.trim().is_empty());
        for key in section.keys {
            assert!(table.contains_key(key.name), "{}", key.name);
            assert!(!key.help.trim().is_empty(), "{}", key.name);
        }
    }
    // A width that every terminal and mail has.
    assert!(Config::example().lines().all(|line| line.len() <= 80));
}

#[test]
fn reads_every_key() {
    let config = parse(
        r#"
        [node]
        name = "storage-3"
        [signals]
        enable = ["sched.*", "tcp.rtt"]
        disable = ["sched.slices"]
        [listen]
        address = "[::1]:9751"
        socket = "/tmp/k.sock"
        socket_group = ""
        tls_certificate = "/etc/k/tls.pem"
        tls_key = "/etc/k/tls.key"
        tls_client_ca = "/etc/k/ca.pem"
        tls_client_names = ["prom.example", "spiffe://kldload/prometheus"]
        connections = 8
        [limits]
        map_memory = "1.5GiB"
        series_per_family = 10_000
        event_buffer = "512 KiB"
        scrape_deadline = "250ms"
        [log]
        level = "debug"
        format = "json"
        probes = true
        [hooks]
        avoid = ["tp_btf", "fexit"]
        [planes.interfaces]
        storage = ["wg-storage", "ens*"]
        all = "*"
        [fleet.nodes]
        node-1 = "10.0.0.1:9750"
        six = "[fd00::1]:9750"
        [wireguard.peers]
        "db 1" = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
        "#,
    )
    .unwrap();
    let patterns = vec!["wg-storage".to_owned(), "ens*".to_owned()];
    // In the order of the file: the first that fits has the interface.
    let all = ("all".to_owned(), vec!["*".to_owned()]);
    assert_eq!(
        config.planes.interfaces,
        [("storage".to_owned(), patterns), all]
    );
    let (key, name) = config.wireguard.peers.first_key_value().unwrap();
    assert_eq!((key[0], &**name), (0xc5, "db 1"));
    assert_eq!(config.fleet.nodes["six"], "[fd00::1]:9750");
    assert_eq!(config.node_name(), "storage-3");
    assert!(config.signals.wants("sched.runqueue_latency"));
    assert!(!config.signals.wants("sched.slices"));
    assert!(!config.signals.wants("block.queue"));
    assert_eq!(config.listen.address.unwrap().to_string(), "[::1]:9751");
    assert_eq!(config.listen.socket.to_str(), Some("/tmp/k.sock"));
    assert_eq!(config.listen.socket_group, None);
    assert_eq!(config.limits.map_memory, MapMemory::Bytes(3 << 29));
    assert_eq!(config.limits.series_per_family, 10_000);
    assert_eq!(config.limits.event_buffer, 512 << 10);
    assert_eq!(config.limits.scrape_deadline.as_millis(), 250);
    assert_eq!(config.log.level, Level::Debug);
    assert_eq!(config.log.format, LogFormat::Json);
    assert!(config.log.probes);
    assert_eq!(config.hooks.avoid, [HookKind::TpBtf, HookKind::Fexit]);
}

#[test]
fn automatic_memory_is_a_thousandth_within_bounds() {
    let limits = Config::default().limits;
    assert_eq!(limits.map_memory_bytes(1 << 30), 16 << 20);
    assert_eq!(limits.map_memory_bytes(100_000_000_000), 100_000_000);
    assert_eq!(limits.map_memory_bytes(u64::MAX), 256 << 20);
    assert!(parse("listen.address = \"off\"").is_ok_and(|c| c.listen.address.is_none()));
    assert!(!Config::default().node_name().is_empty());
}

#[test]
fn errors_name_place_key_and_remedy() {
    for (text, message) in [
        (
            "[log]\n\n[listen]\n  adress = \"x\"",
            r#"kldtrace.toml:4:3: unknown key "adress" in [listen] (did you mean "address"?)"#,
        ),
        (
            "[log]\naddress = \"x\"",
            r#"kldtrace.toml:2:1: unknown key "address" in [log] (it belongs under [listen])"#,
        ),
        (
            "[lisen]",
            r#"kldtrace.toml:1:2: unknown section "lisen" (did you mean "listen"?)"#,
        ),
        (
            "level = \"info\"",
            r#"kldtrace.toml:1:1: "level" must stand under [log]"#,
        ),
        (
            "log = 3",
            "kldtrace.toml:1:7: log must be a section: write [log]",
        ),
        (
            "[limits]\nmap_memory = 64",
            r#"kldtrace.toml:2:14: map_memory in [limits]: 64 has no unit: write "64MiB" or "64KiB""#,
        ),
        (
            "[limits]\nmap_memory = \"64MiBs\"",
            r#"kldtrace.toml:2:14: map_memory in [limits]: unknown unit "MiBs" in "64MiBs": use B, KiB, MiB, GiB, kB, MB or GB"#,
        ),
        (
            "[limits]\nmap_memory = \"8GiB\"",
            r#"kldtrace.toml:2:14: map_memory in [limits] must be a size from 4MiB to 4GiB, not "8GiB""#,
        ),
        (
            "[limits]\nevent_buffer = \"100KiB\"",
            r#"kldtrace.toml:2:16: event_buffer in [limits] must be a power of two: write "128KiB""#,
        ),
        (
            "[limits]\nseries_per_family = \"many\"",
            r#"kldtrace.toml:2:21: series_per_family in [limits] must be a whole number from 10 to 100000, not "many""#,
        ),
        (
            "[limits]\nscrape_deadline = \"2m\"",
            r#"kldtrace.toml:2:19: scrape_deadline in [limits] must be a time from 100ms to 1m, not "2m""#,
        ),
        (
            "[limits]\nseries_per_family = 9",
            "kldtrace.toml:2:21: series_per_family in [limits] must be a whole number from 10 to 100000, not 9",
        ),
        (
            "[listen]\naddress = \"localhost:9750\"",
            r#"kldtrace.toml:2:11: address in [listen] must be an IP address and port such as "127.0.0.1:9750", or "off", not "localhost:9750""#,
        ),
        (
            "[listen]\nsocket = \"k.sock\"",
            r#"kldtrace.toml:2:10: socket in [listen] must be an absolute path of at most 107 bytes, not "k.sock""#,
        ),
        (
            "[listen]\nsocket_group = \"a b\"",
            r#"kldtrace.toml:2:16: socket_group in [listen] must be the name of a group, not "a b""#,
        ),
        (
            "[signals]\nenable = \"*\"",
            r#"kldtrace.toml:2:10: enable in [signals] must be a list: write ["*"]"#,
        ),
        (
            "[signals]\nenable = [\"tcp.rtt\",\n  \"tcp.rt\"]",
            r#"kldtrace.toml:3:3: enable in [signals]: unknown signal "tcp.rt" (did you mean "tcp.rtt"?)"#,
        ),
        (
            "[signals]\ndisable = [\"zfs.*\"]",
            r#"kldtrace.toml:2:12: disable in [signals]: "zfs.*" matches no signal; `kldtrace doctor` lists them"#,
        ),
        (
            "[log]\nlevel = \"warning\"",
            r#"kldtrace.toml:2:9: level in [log] must be "error" or "warn" or "info" or "debug" or "trace", not "warning""#,
        ),
        (
            "[log]\nformat = \"jsno\"",
            r#"kldtrace.toml:2:10: format in [log] must be "text" or "json", not "jsno" (did you mean "json"?)"#,
        ),
        (
            "[log]\nprobes = 1",
            "kldtrace.toml:2:10: probes in [log] must be true or false, not 1",
        ),
        (
            "[hooks]\navoid = [true]",
            "kldtrace.toml:2:10: avoid in [hooks] must be a list of strings, not true",
        ),
        (
            "[node]\nname = \"a\\u001b[31m\"",
            "kldtrace.toml:2:8: name in [node] must be at most 253 bytes, without control characters",
        ),
        (
            "[node]\n\"\\u001b[2J\" = 1",
            r#"kldtrace.toml:2:1: unknown key "\u{1b}[2J" in [node]"#,
        ),
    ] {
        assert_eq!(parse(text), Err(message.to_owned()), "{text}");
    }
}

#[test]
fn errors_of_names_have_their_place() {
    for (text, message) in [
        (
            "[planes]\ninterfaces = \"wg0\"",
            r#"kldtrace.toml:2:14: interfaces in [planes] must be a table such as { storage = "wg-storage" }, not "wg0""#,
        ),
        (
            "[planes.interfaces]\na = [\"wg0\", \"too-long-for-linux\"]",
            r#"kldtrace.toml:2:13: interfaces in [planes] must have names of interfaces, not "too-long-for-linux""#,
        ),
        (
            "[planes.interfaces]\na = 1",
            "kldtrace.toml:2:5: interfaces in [planes] must be a list, not 1",
        ),
        (
            "[planes.interfaces]\n\"\" = \"wg0\"",
            "kldtrace.toml:2:1: interfaces in [planes]: a name must be 1 to 253 bytes, without control characters",
        ),
        (
            "[fleet.nodes]\na = \"fd00::1:9750\"",
            r#"kldtrace.toml:2:5: nodes in [fleet] must have a host and port such as "10.0.0.1:9750", not "fd00::1:9750""#,
        ),
        (
            "[fleet.nodes]\na = \"host:0\"",
            r#"kldtrace.toml:2:5: nodes in [fleet] must have a host and port such as "10.0.0.1:9750", not "host:0""#,
        ),
        (
            "[fleet.nodes]\na = \"host\"",
            r#"kldtrace.toml:2:5: nodes in [fleet] must have a host and port such as "10.0.0.1:9750", not "host""#,
        ),
        (
            "[wireguard.peers]\na = \"xTIB\"",
            r#"kldtrace.toml:2:5: peers in [wireguard] must be public keys as wg shows them: 44 characters; that of "a" is none"#,
        ),
        (
            "[wireguard.peers]\na = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\nb = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"",
            r#"kldtrace.toml:3:5: peers in [wireguard]: "a" and "b" have the same key"#,
        ),
    ] {
        assert_eq!(parse(text), Err(message.to_owned()), "{text}");
    }
}

#[test]
fn errors_of_tls_settings_have_their_place() {
    for (text, message) in [
        (
            "[listen]\ntls_key = \"tls.key\"",
            r#"kldtrace.toml:2:11: tls_key in [listen] must be an absolute path, not "tls.key""#,
        ),
        (
            "[listen]\ntls_client_names = [\"a b\"]",
            r#"kldtrace.toml:2:21: tls_client_names in [listen] must have names such as "prometheus.example", not "a b""#,
        ),
        (
            "[log]\n[listen]\ntls_key = \"/k\"",
            "kldtrace.toml:2:2: tls_certificate and tls_key in [listen] go together: one is missing",
        ),
        (
            "[listen]\ntls_client_ca = \"/ca\"",
            "kldtrace.toml:1:2: tls_client_ca in [listen] needs tls_certificate and tls_key",
        ),
        (
            "[listen]\ntls_client_names = [\"a\"]",
            "kldtrace.toml:1:2: tls_client_names in [listen] needs tls_client_ca, which certifies them",
        ),
        (
            "[listen]\nconnections = 3",
            "kldtrace.toml:2:15: connections in [listen] must be a whole number from 4 to 4096, not 3",
        ),
    ] {
        assert_eq!(parse(text), Err(message.to_owned()), "{text}");
    }
}

#[test]
fn one_request_says_once_who_we_are() {
    for (text, message) in [
        (
            "[otlp]\nusername = \"a\"",
            "kldtrace.toml:1:2: username and password_file in [otlp] go together: one is missing",
        ),
        (
            "[otlp]\nusername = \"a\"\npassword_file = \"/p\"\ntoken_file = \"/t\"",
            "kldtrace.toml:1:2: username and token_file in [otlp] exclude each other: one request has one of them",
        ),
        (
            "[otlp]\ntoken_file = \"/t\"\nheaders = { Authorization = \"x\" }",
            r#"kldtrace.toml:1:2: username and token_file in [otlp] exclude a header "authorization" in headers"#,
        ),
        (
            "[loki]\ntls_key = \"/k\"",
            "kldtrace.toml:1:2: tls_certificate and tls_key in [loki] go together: one is missing",
        ),
    ] {
        assert_eq!(parse(text), Err(message.to_owned()), "{text}");
    }
}

#[test]
fn reports_all_errors_in_the_order_of_the_file() {
    let errors = parse("[log]\nx = 1\nlevel = 2\n[hooks]\ny = 1").unwrap_err();
    let places: Vec<_> = errors.lines().map(|line| &line[..18]).collect();
    assert_eq!(
        places,
        [
            "kldtrace.toml:2:1:",
            "kldtrace.toml:3:9:",
            "kldtrace.toml:5:1:"
        ]
    );

    let many: String = "0123456789"
        .chars()
        .flat_map(|a| ['a', 'b', 'c', 'd', 'e'].map(|b| [a, b, '=', '1', '\n']))
        .flatten()
        .collect();
    let errors = parse(&many).unwrap_err();
    assert_eq!(errors.lines().count(), 21);
    assert!(
        errors.ends_with("kldtrace.toml: and 30 more errors"),
        "{errors}"
    );
}

#[test]
fn syntax_errors_have_a_place() {
    for (text, place) in [
        ("[log\nlevel = \"info\"", "kldtrace.toml:1:5: "),
        ("[log]\nlevel = \n", "kldtrace.toml:2:9: "),
        ("[log]\nä = 1", "kldtrace.toml:2:1: "),
        ("[log]\nprobes = true\nprobes = true", "kldtrace.toml:3:1: "),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(place), "{error}");
    }
}

#[test]
fn refuses_files_that_are_no_configuration() {
    let load = |content: &[u8]| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, content).unwrap();
        Config::load(file.path(), SIGNALS).map_err(|error| {
            let place = file.path().display().to_string();
            error.to_string().replace(&place, "FILE")
        })
    };
    assert_eq!(load(b""), Ok(Config::default()));
    assert_eq!(load(b"\xef\xbb\xbf[log]\n"), Ok(Config::default()));
    assert_eq!(
        load(b"[node]\nname = \"K\xf6ln\""),
        Err("FILE:2:10: not UTF-8, which TOML must be".to_owned())
    );
    let mut large = vec![b'\n'; MAX_FILE as usize];
    assert_eq!(load(&large), Ok(Config::default()));
    large.push(b'\n');
    let too_large = "FILE: larger than 1MiB: not a configuration".to_owned();
    assert_eq!(load(&large), Err(too_large));

    let missing = Config::load("/nonexistent/k.toml".as_ref(), SIGNALS).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "/nonexistent/k.toml: cannot be read: No such file or directory (os error 2)"
    );
    assert!(parse(&"[".repeat(100_000)).is_err());
    // Many errors take no longer than many keys.
    let many: Vec<_> = (0..100_000).map(|n| format!("x{n}=1")).collect();
    assert!(parse(&many.join("\n")).is_err());
    assert!(parse(&format!("a{} = 1", ".a".repeat(100_000))).is_err());
}

proptest! {
    #[test]
    fn random_text_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&String::from_utf8_lossy(&bytes)).map_err(|error| error.len());
    }

    #[test]
    fn random_toml_never_panics(text in r#"(\[{1,2}[a-z.]{1,6}\]{1,2}|(log|limits|listen|signals|node|hooks)(\.(level|avoid|enable|map_memory|address|socket))? = ("[^"]{0,9}"|\[.{0,9}\]|-?[0-9]{1,30}|\{.{0,9}\}|true|1e999|1979-05-27)|[\x00-\xff]|\n){0,12}"#) {
        let _ = parse(&text);
    }

    #[test]
    fn a_damaged_file_is_read_or_refused_with_a_place(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6)
    ) {
        let mut bytes = full_example().into_bytes();
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(error) = parse(&text) {
            for line in error.lines() {
                prop_assert!(line.starts_with("kldtrace.toml:"), "{error:?}");
            }
        }
    }
}
