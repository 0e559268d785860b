//! Who we are to Loki and who it is to us: secrets and certificates, also those
//! that change or are wrong.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use kldtrace_exporters::{
    loki::{Auth, Format, Loki, Settings},
    push::Verdict,
    tls::{Client, Files, Follow as _, Pair, Refreshed, Server},
};

use super::{
    authority::Authority,
    double::{Double, Fault},
    front::Front,
    now, push, settings, slow,
    way::{Way, again},
};

#[tokio::test]
async fn a_secret_is_sent_and_a_new_one_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let basic = Auth::Basic {
        user: "node-1".to_owned(),
        password_file: path.clone(),
    };
    let bearer = Auth::Bearer {
        token_file: path.clone(),
    };
    // base64 of node-1:before and node-1:after.
    let sent = [
        (
            basic,
            "Basic bm9kZS0xOmJlZm9yZQ==",
            "Basic bm9kZS0xOmFmdGVy",
        ),
        (bearer, "Bearer before", "Bearer after"),
    ];
    for (auth, before, after) in sent {
        let double = Double::start();
        let wanted = settings(double.url(), Format::Protobuf);
        let mut loki = Loki::new(Settings { auth, ..wanted }).unwrap();
        for (secret, wanted) in [("before", before), ("after", after)] {
            fs::write(&path, format!("{secret}\n")).unwrap();
            assert_eq!(push(&mut loki, &[slow(now(), 1)]).await, Verdict::Taken);
            let head = double.heads().pop().unwrap();
            assert!(
                head.contains(&format!("authorization: {wanted}\r\n")),
                "{head}"
            );
        }
        // Nothing is pushed without it: that would be for nothing.
        fs::remove_file(&path).unwrap();
        let why = later(push(&mut loki, &[slow(now(), 2)]).await);
        assert!(why.contains(path.to_str().unwrap()), "{why}");
        assert_eq!(double.heads().len(), 2);

        fs::write(&path, "wrong").unwrap();
        double.fault([Fault::Status(401, "")]);
        let why = later(push(&mut loki, &[slow(now(), 3)]).await);
        assert!(why.contains("check authentication"), "{why}");
    }
}

fn later(verdict: Verdict) -> String {
    match verdict {
        Verdict::Later { why, .. } => why,
        verdict => panic!("{verdict:?}"),
    }
}

/// The files of both sides in one folder.
struct Scene {
    folder: tempfile::TempDir,
    ca: Authority,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            folder: tempfile::tempdir().unwrap(),
            ca: Authority::new("ours"),
        };
        fs::write(scene.path().join("ca.pem"), scene.ca.pem()).unwrap();
        scene.renew();
        scene
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Good certificates for both sides.
    fn renew(&self) {
        self.ca.issue(&["localhost"]).write(self.path(), "server");
        self.ca.issue(&["node-1"]).write(self.path(), "client");
    }

    fn pair(&self, name: &str) -> Pair {
        Pair {
            certificate: self.path().join(format!("{name}.pem")),
            key: self.path().join(format!("{name}.key")),
        }
    }

    /// Demands a certificate of our authority for node-1.
    fn server(&self) -> Arc<Server> {
        let ca = Some(self.path().join("ca.pem"));
        let names = vec!["node-1".to_owned()];
        Arc::new(Server::new(self.pair("server"), ca, names, &["http/1.1"]).unwrap())
    }

    fn client(&self) -> Client {
        let files = Files {
            pair: Some(self.pair("client")),
            authorities: Some(self.path().join("ca.pem")),
        };
        Client::new(files).unwrap()
    }
}

fn loki(front: &Front, client: &Client) -> Loki {
    Loki::new(Settings {
        tls: Some(client.clone()),
        ..settings(front.url.clone(), Format::Protobuf)
    })
    .unwrap()
}

#[tokio::test]
async fn certificates_change_under_load_and_nothing_is_lost() {
    const RENEWALS: usize = 20;
    let scene = Scene::new();
    let (server, client) = (scene.server(), scene.client());
    let double = Double::start();
    let front = Front::start(server.clone(), double.port).await;
    let mut way = Way::to(loki(&front, &client));
    let start = Instant::now();
    for renewal in 1..=RENEWALS {
        while start.elapsed() < Duration::from_millis(200) * renewal as u32 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            way.append_until(start.elapsed().as_millis() as u64 * 2);
        }
        scene.renew();
        assert_eq!(server.refresh().unwrap(), Refreshed::Renewed);
        assert_eq!(client.refresh().unwrap(), Refreshed::Renewed);
    }
    let (sent, counts) = (way.appended(), way.counters.clone());
    way.emptied().await;
    let stored = double.stored();
    let again = again(stored.values().flatten(), sent);
    let (connections, certificates) = front.seen();
    // The last may not have been needed.
    assert!(certificates >= RENEWALS / 2, "{certificates} certificates");
    assert_eq!(again, 0);
    println!(
        "{sent} events, {connections} connections, {certificates} certificates, {} tries more",
        counts.read().requests_later
    );
}

/// Makes certificates of a scene wrong.
type Wrong<'a> = &'a dyn Fn(&Scene);

/// What is wrong is on one side; then it is mended without a restart.
#[tokio::test]
async fn who_is_not_trusted_gets_nothing_until_that_is_mended() {
    let other = Authority::new("another");
    let wrong: [(&str, Wrong<'_>, &str); 6] = [
        (
            "a server of another authority",
            &|scene| other.issue(&["localhost"]).write(scene.path(), "server"),
            "UnknownIssuer",
        ),
        (
            "a server that has expired",
            &|scene| {
                let issued = scene.ca.issue_until(&["localhost"], 2020);
                issued.write(scene.path(), "server");
            },
            "xpired",
        ),
        (
            "a server of another name",
            &|scene| scene.ca.issue(&["elsewhere"]).write(scene.path(), "server"),
            "not valid for name \"localhost\"",
        ),
        (
            "a client of another authority",
            &|scene| other.issue(&["node-1"]).write(scene.path(), "client"),
            "received fatal alert: UnknownCA",
        ),
        (
            "a client that has expired",
            &|scene| {
                let issued = scene.ca.issue_until(&["node-1"], 2020);
                issued.write(scene.path(), "client");
            },
            "received fatal alert: CertificateExpired",
        ),
        (
            "a client of another name",
            &|scene| scene.ca.issue(&["node-2"]).write(scene.path(), "client"),
            "received fatal alert",
        ),
    ];
    for (what, break_it, words) in wrong {
        let scene = Scene::new();
        break_it(&scene);
        let (server, client) = (scene.server(), scene.client());
        let double = Double::start();
        let front = Front::start(server.clone(), double.port).await;
        let mut way = Way::to(loki(&front, &client));
        way.append_until(100);
        let tried = Instant::now();
        while way.counters.read().requests_later == 0 {
            assert!(tried.elapsed() < Duration::from_secs(30), "{what}: no try");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let why = later(push(&mut loki(&front, &client), &[slow(now(), 1)]).await);
        assert!(why.contains(words), "{what}: {why}");
        assert_eq!(double.heads().len(), 0, "{what}");

        scene.renew();
        server.refresh().unwrap();
        client.refresh().unwrap();
        way.emptied().await;
        let stored = double.stored();
        assert_eq!(again(stored.values().flatten(), 100), 0, "{what}");
    }
}
