//! Who we are to a receiver.

use std::fs;

use http::HeaderMap;
use kldtrace_exporters::{
    otlp::{Error, Otlp, Protocol},
    push::{Auth, Verdict},
};

use crate::{
    PROTOCOLS, push,
    receiver::{Answer, Receiver},
    resource, settings, slow,
};

fn last(receiver: &Receiver) -> HeaderMap {
    receiver.came().last().expect("a request").headers.clone()
}

#[tokio::test]
async fn headers_and_tokens_come_with_each_request() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol).await;
        let mut settings = settings(receiver.url(), protocol);
        settings.headers = vec![("X-Scope-OrgID".to_owned(), "kldload".to_owned())];
        settings.auth = Auth::Bearer {
            token_file: token_file.clone(),
        };
        let mut otlp = Otlp::new(&settings, resource()).unwrap();
        for token in ["sesame", "poppy"] {
            // As whoever renews it writes it.
            fs::write(&token_file, format!("{token}\n")).unwrap();
            assert_eq!(push(&mut otlp, &[slow(1)]).await, Verdict::Taken);
            let headers = last(&receiver);
            assert_eq!(headers["x-scope-orgid"], "kldload");
            assert_eq!(headers["authorization"], format!("Bearer {token}"));
        }
        assert_eq!(receiver.requests(), 4);
        fs::remove_file(&token_file).unwrap();
        let verdict = push(&mut otlp, &[slow(2)]).await;
        let Verdict::Later { why, .. } = verdict else {
            panic!("{verdict:?}")
        };
        assert!(why.contains("token: cannot be read"), "{why}");
        assert_eq!(receiver.requests(), 4);
    }
}

#[tokio::test]
async fn passwords_are_sent_and_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    fs::write(&password_file, "open sesame\n").unwrap();
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol).await;
        let mut settings = settings(receiver.url(), protocol);
        settings.auth = Auth::Basic {
            user: "Aladdin".to_owned(),
            password_file: password_file.clone(),
        };
        let mut otlp = Otlp::new(&settings, resource()).unwrap();
        receiver.answer([Answer::taken(protocol, 0, "open sesame is weak")]);
        receiver.refuse(401, 16, "not QWxhZGRpbjpvcGVuIHNlc2FtZQ== again");
        let verdict = push(&mut otlp, &[slow(1)]).await;
        // RFC 7617's own example.
        let basic = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        assert_eq!(last(&receiver)["authorization"], basic);
        let Verdict::Later { why, .. } = verdict else {
            panic!("{verdict:?}")
        };
        assert!(why.ends_with("not [secret] again"), "{why}");
        let why = "[secret] is weak".to_owned();
        let warned = Verdict::Partly { refused: 0, why };
        assert_eq!(push(&mut otlp, &[slow(1)]).await, warned);
    }
}

#[test]
fn headers_that_cannot_be_sent_are_told_by_name() {
    let refused = |name: &str, value: &str, auth: Auth| {
        let mut settings = settings("http://localhost:1".to_owned(), Protocol::Grpc);
        settings.headers = vec![(name.to_owned(), value.to_owned())];
        settings.auth = auth;
        // Values may be secrets.
        assert!(!format!("{settings:?}").contains("sesame"));
        Otlp::new(&settings, resource()).err()
    };
    let header = |name: &str| Some(Error::Header(name.to_owned()));
    let own = |name: &str| Some(Error::OwnHeader(name.to_owned()));
    assert_eq!(refused("x-a", "sesame", Auth::None), None);
    assert_eq!(refused("x a", "sesame", Auth::None), header("x a"));
    assert_eq!(refused("x-a", "sesame\n", Auth::None), header("x-a"));
    for name in ["Content-Type", "te", "grpc-timeout"] {
        assert_eq!(refused(name, "sesame", Auth::None), own(name));
    }
    let bearer = Auth::Bearer {
        token_file: "/t".into(),
    };
    let twice = refused("Authorization", "sesame", bearer);
    assert_eq!(twice, Some(Error::Twice));
    let basic = |user: &str| Auth::Basic {
        user: user.to_owned(),
        password_file: "/p".into(),
    };
    assert_eq!(refused("x-a", "b", basic("a:b")), Some(Error::User));
    assert_eq!(refused("x-a", "b", basic("ab")), None);
}
