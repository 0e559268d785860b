//! Files that change, are half there, or are something else.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kldtrace_exporters::tls::{Client, Error, Files, Follow as _, MAX_FILE, Refreshed, Server};
use proptest::prelude::*;

use crate::{authority::Authority, handshake::pair};

/// 1 January 2099, 00:00 UTC: `date -u -d 2099-01-01 +%s`.
const IN_2099: i64 = 4_070_908_800;

fn server(folder: &Path) -> Result<Server, Error> {
    Server::new(pair(folder, "server"), None, Vec::new(), &[])
}

#[test]
fn a_pair_is_renewed_in_two_steps_and_each_slip_is_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let ca = Authority::new("ours");
    ca.issue(&["localhost"]).write(path, "server");
    let server = server(path).unwrap();
    let before = server.config();
    assert_eq!(server.state().not_after, Some(IN_2099));
    let refresh = || server.refresh();
    let counts = || (server.state().renewals, server.state().failures);
    assert_eq!(refresh().unwrap(), Refreshed::Unchanged);

    let new = ca.issue_until(&["localhost"], 2098);
    fs::write(path.join("server.pem"), &new.certificate).unwrap();
    let said = refresh().unwrap_err();
    assert!(matches!(said, Error::Pair { .. }), "{said}");
    assert_eq!(refresh().unwrap(), Refreshed::Unchanged);
    assert_eq!(counts(), (0, 1));
    assert!(std::sync::Arc::ptr_eq(&before, &server.config()));
    assert_eq!(server.state().not_after, Some(IN_2099));
    fs::write(path.join("server.key"), &new.key).unwrap();
    assert_eq!(refresh().unwrap(), Refreshed::Renewed);
    assert_eq!(counts(), (1, 1));
    assert!(!std::sync::Arc::ptr_eq(&before, &server.config()));
    assert_eq!(server.state().not_after, Some(IN_2099 - 365 * 86_400));

    // Written in place, seen in the middle: every cut keeps what was there.
    let next = ca.issue(&["localhost"]);
    next.write(path, "server");
    let mut failures = 1;
    for cut in (0..next.certificate.len()).step_by(97) {
        fs::write(path.join("server.pem"), &next.certificate[..cut]).unwrap();
        assert!(refresh().is_err(), "{cut}");
        failures += 1;
        assert_eq!(counts(), (1, failures), "{cut}");
    }
    fs::remove_file(path.join("server.pem")).unwrap();
    assert!(matches!(refresh(), Err(Error::Unreadable { .. })));
    // By renaming, as most do.
    fs::write(path.join("new"), &next.certificate).unwrap();
    fs::rename(path.join("new"), path.join("server.pem")).unwrap();
    assert_eq!(refresh().unwrap(), Refreshed::Renewed);
    assert_eq!(counts(), (2, failures + 1));

    // Broken and mended again: nothing new is taken into use.
    fs::write(path.join("server.key"), "").unwrap();
    assert!(refresh().is_err());
    fs::write(path.join("server.key"), &next.key).unwrap();
    assert_eq!(refresh().unwrap(), Refreshed::Unchanged);
    assert_eq!(counts(), (2, failures + 2));
}

#[test]
fn what_cannot_be_used_is_said_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let ca = Authority::new("ours");
    let issued = ca.issue(&["localhost"]);
    let said = |what: &str| {
        let said = server(path).err().expect(what).to_string();
        assert!(said.contains(what), "{what}: {said}");
        // Whatever was taken for a key stays unsaid.
        assert!(!said.contains("MII"), "{said}");
    };
    said("server.pem: cannot be read");
    issued.write(path, "server");
    fs::write(path.join("server.pem"), "hello").unwrap();
    said("server.pem: no certificate in it");
    fs::write(path.join("server.pem"), &issued.key).unwrap();
    said("server.pem: no certificate in it");
    issued.write(path, "server");
    fs::write(path.join("server.key"), &issued.certificate).unwrap();
    said("server.key: not whole");
    ca.issue(&["localhost"]).write(path, "other");
    fs::copy(path.join("other.key"), path.join("server.key")).unwrap();
    said("do not fit one another");
    fs::File::create(path.join("server.key"))
        .unwrap()
        .set_len(MAX_FILE + 1)
        .unwrap();
    said("server.key: larger than 1 MiB");

    let trusting = |name: &str| {
        Client::new(Files {
            pair: None,
            authorities: Some(path.join(name)),
        })
    };
    fs::write(path.join("empty.pem"), "").unwrap();
    assert!(matches!(
        trusting("empty.pem"),
        Err(Error::NoCertificate(_))
    ));
    assert!(trusting("no.pem").is_err());
    fs::write(path.join("ca.pem"), ca.pem()).unwrap();
    let client = trusting("ca.pem").unwrap();
    assert_eq!(client.state().not_after, None);
}

#[test]
fn the_first_of_a_chain_to_expire_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let ca = Authority::new("ours");
    let mut issued = ca.issue(&["localhost"]);
    issued.certificate += &ca.issue_until(&["between"], 2098).certificate;
    issued.certificate += &ca.issue(&["beyond"]).certificate;
    issued.write(path, "server");
    let state = server(path).unwrap().state();
    assert_eq!(state.not_after, Some(IN_2099 - 365 * 86_400));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_file_makes_it_panic(
        bytes: Vec<u8>,
        head in prop::sample::select(vec!["", "-----BEGIN CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\n"]),
        tail in prop::sample::select(vec!["", "\n-----END CERTIFICATE-----\n", "\n-----END PRIVATE KEY-----\n"]),
        base64: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().to_owned();
        let body = if base64 {
            // Letters of base64, whatever they stand for.
            bytes.iter().map(|b| b"ABCDMIQ+/="[usize::from(*b) % 10]).collect()
        } else {
            bytes
        };
        let text = [head.as_bytes(), &body, tail.as_bytes()].concat();
        fs::write(path.join("server.pem"), &text).unwrap();
        fs::write(path.join("server.key"), &text).unwrap();
        prop_assert!(server(&path).is_err());
    }
}
