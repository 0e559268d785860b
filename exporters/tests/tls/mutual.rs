//! Who is let in, and whom we push to.

use kldtrace_exporters::tls::{Follow as _, Refreshed, Server};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, client::Resumption};

use crate::{
    authority::{Authority, Issued},
    handshake::{client, meet, pair, server},
};

struct Scene {
    folder: tempfile::TempDir,
    ca: Authority,
    other: Authority,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            folder: tempfile::tempdir().unwrap(),
            ca: Authority::new("ours"),
            other: Authority::new("another"),
        };
        std::fs::write(scene.folder.path().join("ca.pem"), scene.ca.pem()).unwrap();
        scene.write(&scene.ca.issue(&["localhost"]), "server");
        scene
    }

    fn write(&self, issued: &Issued, name: &str) {
        issued.write(self.folder.path(), name);
    }

    /// What comes of it when somebody shows a certificate to the server.
    fn shown(&self, names: &[&str], issued: &Issued) -> Result<(), String> {
        self.write(issued, "client");
        let config = client(self.folder.path(), Some("client")).config(&["http/1.1"]);
        let server = server(self.folder.path(), names);
        meet(config, server.config(), "localhost").map(|_| ())
    }
}

#[test]
fn clients_of_our_authority_come_in_by_tls_1_3() {
    let scene = Scene::new();
    scene.write(&scene.ca.issue(&["prom.example"]), "client");
    let path = scene.folder.path();
    let config = client(path, Some("client")).config(&["h2", "http/1.1"]);
    let met = meet(config, server(path, &[]).config(), "localhost").unwrap();
    assert_eq!(
        met.client.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    assert_eq!(met.client.alpn_protocol(), Some(b"http/1.1".as_slice()));
    assert_eq!(met.server.peer_certificates().map(<[_]>::len), Some(1));
}

#[test]
fn others_stay_outside() {
    let scene = Scene::new();
    let refused = |issued: &Issued, names: &[&str], why: &str| {
        let said = scene.shown(names, issued).unwrap_err();
        assert!(said.starts_with("server: ") && said.contains(why), "{said}");
    };
    let good = scene.ca.issue(&["prom.example"]);
    assert_eq!(scene.shown(&[], &good), Ok(()));
    refused(&scene.other.issue(&["prom.example"]), &[], "UnknownIssuer");
    refused(
        &scene.ca.issue_until(&["prom.example"], 2020),
        &[],
        "xpired",
    );

    let names = ["prom.example", "spiffe://kldload/prometheus"];
    assert_eq!(scene.shown(&names, &good), Ok(()));
    let uri = scene.ca.issue(&["spiffe://kldload/prometheus"]);
    assert_eq!(scene.shown(&names, &uri), Ok(()));
    let why = "none of its names is listed";
    let which = "listed: [\"evil.example\"]";
    refused(&scene.ca.issue(&["evil.example"]), &names, which);
    refused(&scene.ca.issue(&["spiffe://kldload/other"]), &names, why);
    // A name is worth nothing without the authority.
    refused(&scene.other.issue(&names), &names, "UnknownIssuer");

    let path = scene.folder.path();
    let nobody = client(path, None).config(&[]);
    let said = meet(nobody, server(path, &[]).config(), "localhost").unwrap_err();
    assert!(said.contains("peer sent no certificates"), "{said}");
}

/// Who resumes a session does not show a certificate again.
#[test]
fn sessions_are_not_resumed() {
    let scene = Scene::new();
    scene.write(&scene.ca.issue(&["prom.example"]), "client");
    let path = scene.folder.path();
    let server = server(path, &[]);
    // A client that would, if it were let.
    let mut config = client(path, Some("client")).config(&[]);
    config.resumption = Resumption::in_memory_sessions(8);
    for _ in 0..3 {
        let met = meet(config.clone(), server.config(), "localhost").unwrap();
        assert_eq!(met.client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn without_authorities_nobody_is_asked() {
    let scene = Scene::new();
    let path = scene.folder.path();
    let server = Server::new(pair(path, "server"), None, Vec::new(), &[]).unwrap();
    let nobody: ClientConfig = client(path, None).config(&[]);
    let met = meet(nobody, server.config(), "localhost").unwrap();
    assert!(met.server.peer_certificates().is_none());
    let names = vec!["a".to_owned()];
    assert!(Server::new(pair(path, "server"), None, names, &[]).is_err());
}

#[test]
fn we_push_to_whom_our_authority_knows() {
    let scene = Scene::new();
    scene.write(&scene.ca.issue(&["me"]), "client");
    let path = scene.folder.path();
    let pushing = client(path, Some("client"));
    let refused = |name, why: &str| {
        let said = meet(pushing.config(&[]), server(path, &[]).config(), name).unwrap_err();
        assert!(said.starts_with("client: ") && said.contains(why), "{said}");
    };
    refused("elsewhere.example", "not valid for name");
    scene.write(&scene.ca.issue_until(&["localhost"], 2020), "server");
    refused("localhost", "xpired");
    scene.write(&scene.other.issue(&["localhost"]), "server");
    refused("localhost", "UnknownIssuer");
}

#[test]
fn a_kept_configuration_shows_what_the_files_hold_now() {
    let scene = Scene::new();
    scene.write(&scene.ca.issue(&["before"]), "client");
    let path = scene.folder.path();
    let pushing = client(path, Some("client"));
    let kept = pushing.config(&[]);
    let server = server(path, &[]);
    let shown = |met: &crate::handshake::Met| met.server.peer_certificates().unwrap()[0].to_vec();
    let before = meet(kept.clone(), server.config(), "localhost").unwrap();

    scene.write(&scene.ca.issue(&["after"]), "client");
    assert_eq!(pushing.refresh().unwrap(), Refreshed::Renewed);
    let after = meet(kept.clone(), server.config(), "localhost").unwrap();
    assert_ne!(shown(&before), shown(&after));

    // A new authority on both sides, and the old one is nobody any more.
    std::fs::write(path.join("ca.pem"), scene.other.pem()).unwrap();
    scene.write(&scene.other.issue(&["localhost"]), "server");
    scene.write(&scene.other.issue(&["after"]), "client");
    assert!(meet(kept.clone(), server.config(), "localhost").is_ok());
    assert_eq!(server.refresh().unwrap(), Refreshed::Renewed);
    let said = meet(kept.clone(), server.config(), "localhost").unwrap_err();
    assert!(said.contains("UnknownIssuer"), "{said}");
    assert_eq!(pushing.refresh().unwrap(), Refreshed::Renewed);
    assert!(meet(kept, server.config(), "localhost").is_ok());
}
