//! Receivers and networks that do what they should not.

use std::time::Duration;

use kldtrace_exporters::{
    loki::{Format, Loki, Settings},
    push::Verdict,
};

use super::{
    double::{Double, Fault},
    now, push, settings, slow,
};

async fn verdict(fault: Fault) -> (Verdict, usize) {
    let double = Double::start();
    double.fault([fault]);
    let mut loki = Loki::new(settings(double.url(), Format::Protobuf)).unwrap();
    let verdict = push(&mut loki, &[slow(now(), 1)]).await;
    (verdict, double.stored().len())
}

fn later(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Later { why, .. } => Some(why),
        _ => None,
    }
}

#[tokio::test]
async fn what_may_not_have_arrived_is_pushed_again() {
    for fault in [Fault::Reset, Fault::Slow, Fault::Rubbish] {
        let (verdict, _) = verdict(fault.clone()).await;
        assert!(later(&verdict).is_some(), "{fault:?}: {verdict:?}");
    }
}

#[tokio::test]
async fn a_receiver_that_is_busy_is_left_alone_for_as_long_as_it_says() {
    for status in [429, 503] {
        let (verdict, stored) = verdict(Fault::Status(status, "Retry-After: 17\r\n")).await;
        let Verdict::Later { after, .. } = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!((after, stored), (Some(Duration::from_secs(17)), 0));
    }
}

#[tokio::test]
async fn who_cannot_be_reached_is_tried_again() {
    let port = Double::start().port;
    for url in [
        format!("http://127.0.0.1:{port}"),
        "http://nobody.invalid:3100".to_owned(),
    ] {
        let mut loki = Loki::new(Settings {
            deadline: Duration::from_secs(20),
            ..settings(url.clone(), Format::Protobuf)
        })
        .unwrap();
        let verdict = push(&mut loki, &[slow(now(), 1)]).await;
        assert!(later(&verdict).is_some(), "{url}: {verdict:?}");
    }
}

#[tokio::test]
async fn one_bad_entry_makes_a_push_refused() {
    let double = Double::start();
    let mut loki = Loki::new(settings(double.url(), Format::Protobuf)).unwrap();
    let records = [slow(1_000_000_000, 1), slow(now(), 2)];
    let verdict = push(&mut loki, &records).await;
    assert!(matches!(verdict, Verdict::Refused { .. }), "{verdict:?}");
}
