use super::*;
use crate::{
    journal::{export::Parser, fields::BODY, redact},
    spool::MAX_ENTRY,
};

fn stream(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (name, value) in fields {
        stream.extend_from_slice(name.as_bytes());
        stream.push(b'\n');
        stream.extend_from_slice(&(value.len() as u64).to_le_bytes());
        stream.extend_from_slice(value);
        stream.push(b'\n');
    }
    stream.push(b'\n');
    stream
}

/// What `check` sees of the line with these fields.
fn with<T>(fields: &[(&str, &[u8])], check: impl FnOnce(Option<Line<'_>>) -> T) -> T {
    let mut parser = Parser::new();
    let stream = stream(fields);
    let entry = parser.next(&mut &stream[..]).unwrap();
    check(Line::new(entry, "node-1"))
}

const TIME: (&str, &[u8]) = ("__REALTIME_TIMESTAMP", b"1700000000000001");

#[test]
fn fields_have_their_places() {
    let fields: &[(&str, &[u8])] = &[
        TIME,
        ("MESSAGE", b"hello\n\xff"),
        ("PRIORITY", b"4"),
        ("_SYSTEMD_UNIT", b"getty@tty1.service"),
        ("_HOSTNAME", b"node-1"),
        ("SYSLOG_IDENTIFIER", b"agetty"),
        ("_PID", b"12"),
        ("_UID", b"-1"),
        ("_CMDLINE", b"agetty --secret"),
    ];
    with(fields, |line| {
        let line = line.unwrap();
        let expected = Record {
            time_ns: 1_700_000_000_000_001_000,
            severity: Severity::Warn,
            kind: "journal",
            unit: "getty@tty1.service",
            body: "hello\n\u{fffd}",
            attributes: vec![
                ("SYSLOG_IDENTIFIER", Attribute::Text("agetty")),
                ("_PID", Attribute::Integer(12)),
                ("_UID", Attribute::Text("-1")),
            ],
            ..Record::default()
        };
        assert_eq!(line.record(), expected);
        let about = line.about();
        assert_eq!((about.identifier, about.priority), ("agetty", 4));
    });
}

#[test]
fn units_of_users_sessions_and_the_kernel() {
    for (fields, unit, attributes) in [
        (
            &[
                ("_SYSTEMD_UNIT", "user@1000.service"),
                ("_SYSTEMD_USER_UNIT", "sync.service"),
            ][..],
            "sync.service",
            &[][..],
        ),
        (
            &[("_SYSTEMD_UNIT", "session-4.scope"), ("_HOSTNAME", "other")],
            "session.scope",
            &[("_HOSTNAME", "other"), ("_SYSTEMD_UNIT", "session-4.scope")],
        ),
        (
            &[("_TRANSPORT", "kernel")],
            "kernel",
            &[("_TRANSPORT", "kernel")],
        ),
        (
            &[("SYSLOG_IDENTIFIER", "x")],
            "",
            &[("SYSLOG_IDENTIFIER", "x")],
        ),
    ] {
        let fields: Vec<_> = fields
            .iter()
            .map(|(n, v)| (*n, v.as_bytes()))
            .chain([TIME])
            .collect();
        let attributes: Vec<_> = attributes
            .iter()
            .map(|(n, v)| (*n, Attribute::Text(v)))
            .collect();
        with(&fields, |line| {
            let line = line.unwrap();
            let record = line.record();
            assert_eq!((record.unit, &record.attributes), (unit, &attributes));
        });
    }
}

#[test]
fn every_priority_has_a_severity() {
    let severities = [
        "critical", "critical", "critical", "error", "warn", "notice", "info", "debug",
    ];
    for (priority, severity) in severities.into_iter().enumerate() {
        let text = priority.to_string();
        with(&[TIME, ("PRIORITY", text.as_bytes())], |line| {
            assert_eq!(line.unwrap().record().severity.as_str(), severity);
        });
    }
    for bad in [&b"8"[..], b"", b"high", b"99999999999999999999"] {
        with(&[TIME, ("PRIORITY", bad)], |line| {
            assert_eq!(line.unwrap().record().severity, Severity::Info);
        });
    }
}

#[test]
fn without_a_time_it_is_none() {
    with(&[("MESSAGE", b"x")], |line| assert!(line.is_none()));
    with(
        &[("__REALTIME_TIMESTAMP", b"18446744073709551615")],
        |line| {
            assert!(line.is_none());
        },
    );
}

#[test]
fn the_largest_line_fits_the_spool() {
    // Bytes that are no text grow to three times their length.
    let long = vec![0xff; 1 << 20];
    let fields: Vec<_> = FIELDS.iter().map(|field| (field.name, &long[..])).collect();
    let mut fields: Vec<_> = fields
        .into_iter()
        .filter(|(name, _)| *name != TIME.0)
        .collect();
    fields.push(TIME);
    let rule = redact::Rule {
        pattern: "\u{fffd}".to_owned(),
        replacement: "a long replacement é".to_owned(),
    };
    let settings = redact::Settings {
        rules: vec![rule],
        ..Default::default()
    };
    let redactor = Redactor::new(&settings).unwrap();
    with(&fields, |line| {
        let mut line = line.unwrap();
        assert!(line.redact(&redactor));
        assert!(line.cut(BODY) && !line.cut(BODY));
        let mut bytes = Vec::new();
        line.record().encode(&mut bytes);
        assert!(
            bytes.len() > BODY && bytes.len() < MAX_ENTRY,
            "{}",
            bytes.len()
        );
    });
}

#[test]
fn a_secret_in_an_attribute_goes_too() {
    let fields: &[(&str, &[u8])] = &[TIME, ("SYSLOG_IDENTIFIER", b"x password=s3cr3t")];
    let redactor = Redactor::new(&redact::Settings::default()).unwrap();
    with(fields, |line| {
        let mut line = line.unwrap();
        assert!(line.redact(&redactor));
        assert_eq!(line.about().identifier, "x password=[redacted]");
    });
}

#[test]
fn a_line_says_how_much_of_it_is_gone() {
    let long = "é".repeat(3000);
    let longer = "x".repeat(300_000);
    for (bytes, room, over) in [
        (long.as_bytes(), 6000, None),
        (long.as_bytes(), 5001, Some(1000)),
        (longer.as_bytes(), 1000, Some(299_000)),
    ] {
        with(&[TIME, ("MESSAGE", bytes)], |line| {
            let mut line = line.unwrap();
            assert_eq!(line.cut(room), over.is_some());
            let expected = over.map(|over| ("truncated_bytes", Attribute::Integer(over)));
            let record = line.record();
            assert_eq!(record.attributes, expected.as_slice());
            assert!(record.body.len() <= room);
        });
    }
}
