//! Mutual TLS with an authority of the test's own, by both protocols.

use std::{fs, path::Path, sync::Arc};

use kldtrace_exporters::{
    otlp::{Otlp, Protocol, Settings},
    push::Verdict,
    tls::{Client, Files, Follow as _, Pair, Refreshed, Server},
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::{
    PROTOCOLS,
    authority::{Authority, Issued},
    delivery::{Running, ids},
    push,
    receiver::{Receiver, Tls},
    resource, settings, slow,
};

/// Authorities, and the files of both sides in one folder.
struct Scene {
    folder: tempfile::TempDir,
    ca: Authority,
    other: Authority,
    protocol: Protocol,
}

impl Scene {
    fn new(protocol: Protocol) -> Self {
        let scene = Self {
            folder: tempfile::tempdir().unwrap(),
            ca: Authority::new("ours"),
            other: Authority::new("another"),
            protocol,
        };
        fs::write(scene.path().join("ca.pem"), scene.ca.pem()).unwrap();
        scene.ca.issue(&["localhost"]).write(scene.path(), "server");
        scene.ca.issue(&["node-1"]).write(scene.path(), "client");
        scene
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn pair(&self, name: &str) -> Pair {
        Pair {
            certificate: self.path().join(format!("{name}.pem")),
            key: self.path().join(format!("{name}.key")),
        }
    }

    /// A receiver that demands certificates, with the files as they are now.
    async fn receiver(&self, port: u16) -> Receiver {
        let spoken = match self.protocol {
            Protocol::Grpc => "h2",
            Protocol::Http => "http/1.1",
        };
        let authorities = Some(self.path().join("ca.pem"));
        let server = Server::new(self.pair("server"), authorities, Vec::new(), &[spoken]);
        let server = server.unwrap();
        let tls: Tls = Arc::new(move || server.config());
        Receiver::at(port, self.protocol, Some(tls)).await
    }

    /// Our side: with a certificate, or without.
    fn client(&self, shows: Option<&str>) -> Client {
        Client::new(Files {
            pair: shows.map(|name| self.pair(name)),
            authorities: Some(self.path().join("ca.pem")),
        })
        .unwrap()
    }

    fn settings(&self, port: u16, client: &Client) -> Settings {
        Settings {
            tls: Some(client.clone()),
            ..settings(format!("https://localhost:{port}"), self.protocol)
        }
    }
}

fn der(issued: &Issued) -> Vec<u8> {
    let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes());
    der.unwrap().to_vec()
}

#[tokio::test]
async fn both_sides_show_who_they_are() {
    for protocol in PROTOCOLS {
        let scene = Scene::new(protocol);
        let client = scene.ca.issue(&["node-1"]);
        client.write(scene.path(), "client");
        let receiver = scene.receiver(0).await;
        let settings = scene.settings(receiver.port, &scene.client(Some("client")));
        let mut otlp = Otlp::new(&settings, resource()).unwrap();
        assert_eq!(push(&mut otlp, &[slow(1)]).await, Verdict::Taken);
        let came = receiver.came();
        assert_eq!(came.len(), 2);
        assert_eq!(came[0].certificate.as_deref(), Some(&der(&client)[..]));
    }
}

/// Each trouble is said, costs nothing but tries, and passes when it is mended.
#[tokio::test]
async fn whom_we_do_not_trust_gets_nothing() {
    for protocol in PROTOCOLS {
        let scene = Scene::new(protocol);
        let receiver = scene.receiver(0).await;
        let port = receiver.port;
        receiver.end().await;
        let client = scene.client(Some("client"));
        let wanted = scene.settings(port, &client);
        let mut otlp = Otlp::new(&wanted, resource()).unwrap();
        for (trouble, server, says) in [
            (
                "wrong authority",
                scene.other.issue(&["localhost"]),
                "UnknownIssuer",
            ),
            (
                "expired",
                scene.ca.issue_until(&["localhost"], 2020),
                "xpired",
            ),
            (
                "wrong name",
                scene.ca.issue(&["elsewhere.example"]),
                "not valid for name",
            ),
        ] {
            server.write(scene.path(), "server");
            let receiver = scene.receiver(port).await;
            let verdict = push(&mut otlp, &[slow(1)]).await;
            let Verdict::Later { why, after: None } = &verdict else {
                panic!("{trouble}: {verdict:?}");
            };
            assert!(why.contains(says), "{trouble}: {why}");
            assert_eq!(receiver.requests(), 0, "{trouble}");
            receiver.end().await;
        }
        scene.ca.issue(&["localhost"]).write(scene.path(), "server");
        let receiver = scene.receiver(port).await;
        assert_eq!(push(&mut otlp, &[slow(1)]).await, Verdict::Taken);
        assert_eq!(ids(&receiver), [1]);
    }
}

#[tokio::test]
async fn who_is_not_let_in_tries_again() {
    for protocol in PROTOCOLS {
        let scene = Scene::new(protocol);
        let receiver = scene.receiver(0).await;
        scene.other.issue(&["node-1"]).write(scene.path(), "client");
        let of_another = scene.client(Some("client"));
        for client in [scene.client(None), of_another.clone()] {
            let settings = scene.settings(receiver.port, &client);
            let mut otlp = Otlp::new(&settings, resource()).unwrap();
            let verdict = push(&mut otlp, &[slow(1)]).await;
            assert!(matches!(verdict, Verdict::Later { .. }), "{verdict:?}");
            assert_eq!(receiver.requests(), 0);
        }
        // The right certificate comes into the files.
        let settings = scene.settings(receiver.port, &of_another);
        let mut otlp = Otlp::new(&settings, resource()).unwrap();
        let verdict = push(&mut otlp, &[slow(1)]).await;
        assert!(matches!(verdict, Verdict::Later { .. }), "{verdict:?}");
        scene.ca.issue(&["node-1"]).write(scene.path(), "client");
        assert_eq!(of_another.refresh().unwrap(), Refreshed::Renewed);
        assert_eq!(push(&mut otlp, &[slow(1)]).await, Verdict::Taken);
        assert_eq!(ids(&receiver), [1]);
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_while_everything_goes_on() {
    for protocol in PROTOCOLS {
        let scene = Scene::new(protocol);
        let mut receiver = scene.receiver(0).await;
        let port = receiver.port;
        let client = scene.client(Some("client"));
        let running = Running::start(&scene.settings(port, &client));
        let mut came = Vec::new();
        for round in 0..5 {
            let from = round * 100;
            running.append(from..from + 50);
            // In the middle of it, perhaps.
            let renewed = scene.ca.issue(&["node-1"]);
            renewed.write(scene.path(), "client");
            assert_eq!(client.refresh().unwrap(), Refreshed::Renewed);
            running.append(from + 50..from + 100);
            running.emptied().await;
            came.extend(ids(&receiver));
            // Connections that are open stay; new ones show the new certificate.
            receiver.end().await;
            receiver = scene.receiver(port).await;
            running.append(1000 + round..1001 + round);
            running.emptied().await;
            let shown = receiver.came()[0].certificate.clone();
            assert_eq!(shown.as_deref(), Some(&der(&renewed)[..]));
            assert_eq!(ids(&receiver), [1000 + round]);
            receiver.end().await;
            receiver = scene.receiver(port).await;
        }
        assert_eq!(came, (0..500).collect::<Vec<_>>());
        let counts = running.counts();
        assert_eq!((counts.taken, counts.refused), (505, 0));
        let standing = running.standing();
        assert_eq!((standing.dropped, standing.damaged), (0, 0));
    }
}

#[tokio::test]
async fn nothing_is_lost_to_a_receiver_whose_certificate_has_expired() {
    for protocol in PROTOCOLS {
        let scene = Scene::new(protocol);
        scene
            .ca
            .issue_until(&["localhost"], 2020)
            .write(scene.path(), "server");
        let expired = scene.receiver(0).await;
        let port = expired.port;
        let client = scene.client(Some("client"));
        let running = Running::start(&scene.settings(port, &client));
        running.append(0..100);
        running
            .until("tries", |counts, _| counts.requests_later >= 3)
            .await;
        assert_eq!((running.standing().waiting, expired.requests()), (100, 0));
        expired.end().await;
        scene.ca.issue(&["localhost"]).write(scene.path(), "server");
        let receiver = scene.receiver(port).await;
        running.emptied().await;
        assert_eq!(ids(&receiver), (0..100).collect::<Vec<_>>());
        let counts = running.counts();
        assert_eq!((counts.taken, counts.refused), (100, 0));
    }
}
