//! Whole frames and lines as people see them, and the session from snapshot
//! to output.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime},
};

use kldtrace_exporters::model::{Family, Histogram, Kind, Series, Unit, Value};

use super::{
    draw::{Frame, Stretch},
    group::{Selection, Shown, rows},
    lines,
    screen::Screen,
    session::{Format, Options, Source, run},
};

const SHOWN: [Shown; 2] = [
    Shown {
        signal: "block.device",
        metric: "kldtrace_block_device_seconds",
        help: "Time a request spends in the device.",
        labels: &["device", "operation"],
        by: &[],
    },
    Shown {
        signal: "block.queue",
        metric: "kldtrace_block_queue_seconds",
        help: "Time a request waits for the device.",
        labels: &["device"],
        by: &[],
    },
];

fn histogram(buckets: &[(i32, u64)]) -> Histogram {
    let nanoseconds = |(index, count): &(i32, u64)| {
        let nanoseconds = crate::quantile::middle(*index) * 1e9;
        format!("{nanoseconds:.0}").parse::<u64>().unwrap() * count
    };
    Histogram {
        sum_ns: buckets.iter().map(nanoseconds).sum(),
        buckets: buckets.to_vec(),
        ..Histogram::default()
    }
}

fn series(labels: &[(&'static str, &str)], value: Histogram) -> Series {
    let labels = labels.iter().map(|(n, v)| ((*n).into(), Arc::from(*v)));
    Series {
        labels: labels.collect(),
        value: Value::Histogram(value),
    }
}

fn family(name: &'static str, series: Vec<Series>) -> Family {
    Family {
        name: name.into(),
        help: "".into(),
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        series,
    }
}

/// A node with a fast and a slow disk, after `n` equal intervals.
fn node(n: u64) -> Vec<Family> {
    let fast = histogram(&[(-104, 60 * n), (-103, 40 * n), (-80, n)]);
    let slow = histogram(&[(-60, 5 * n), (-40, 5 * n)]);
    let write = histogram(&[(-90, 10 * n)]);
    let device = vec![
        series(&[("device", "nvme0n1"), ("operation", "read")], fast),
        series(&[("device", "nvme0n1"), ("operation", "write")], write),
        series(&[("device", "sd\x1b[31ma"), ("operation", "read")], slow),
    ];
    let other = series(&[("device", "x")], histogram(&[(0, n)]));
    vec![
        family("kldtrace_sched_slice_seconds", vec![other]),
        family("kldtrace_block_device_seconds", device),
    ]
}

fn select(by: &[&str], filters: &[&str]) -> Selection {
    Selection {
        by: by.iter().map(ToString::to_string).collect(),
        filters: filters.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

fn drawn(selection: &Selection, columns: usize, rows: usize, live: bool) -> String {
    let stretch = |from, to, seconds| Stretch {
        rows: super::group::rows(&SHOWN, selection, &node(from), &node(to)),
        seconds,
    };
    let (total, last) = (stretch(0, 10, 10.0), stretch(9, 10, 1.0));
    let frame = Frame {
        target: "block",
        shown: &SHOWN,
        selection,
        left_out: "",
        total: &total,
        last: live.then_some(&last),
        elapsed: Duration::from_secs(10),
        duration: Some(Duration::from_secs(40)),
    };
    let lines = frame.lines(columns, rows);
    assert!(lines.len() <= rows);
    assert!(
        lines.iter().all(|line| line.width() <= columns),
        "{lines:#?}"
    );
    let lines: Vec<_> = lines.iter().map(|line| line.render(false)).collect();
    lines.join("\n")
}

#[test]
fn golden_frame() {
    let frame = drawn(&select(&["device"], &[]), 80, 23, true);
    assert_eq!(frame, include_str!("golden/frame.txt").trim_end());
    let last = drawn(&select(&[], &["operation=re*"]), 80, 99, false);
    assert_eq!(last, include_str!("golden/final.txt").trim_end());
}

#[test]
fn a_frame_fits_any_terminal() {
    for columns in [64, 80, 132] {
        for rows in 0..30 {
            for by in [&["device", "operation"][..], &[]] {
                drawn(&select(by, &[]), columns, rows, true);
            }
        }
    }
}

#[test]
fn filters_of_one_label_are_alternatives() {
    let count = |filters: &[&str]| -> u64 {
        let rows = rows(&SHOWN, &select(&[], filters), &node(0), &node(1));
        rows.iter().map(|row| row.histogram.count()).sum()
    };
    assert_eq!(count(&[]), 121);
    assert_eq!(count(&["device=nvme*"]), 111);
    assert_eq!(count(&["device=nvme*", "operation=write"]), 10);
    assert_eq!(
        count(&["device=nvme0n1", "device=sd*", "operation=read"]),
        111
    );
    assert_eq!(count(&["device=nvme"]), 0);
    assert_eq!(count(&["unit=*"]), 0);
}

#[test]
fn rows_with_most_time_come_first() {
    let selection = select(&["operation", "device"], &[]);
    let rows = rows(&SHOWN, &selection, &node(3), &node(5));
    let names = rows
        .iter()
        .map(|row| (&*row.labels[1].1, &*row.labels[0].1));
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            ("sd\x1b[31ma", "read"),
            ("nvme0n1", "read"),
            ("nvme0n1", "write")
        ]
    );
    assert!(super::group::rows(&SHOWN, &selection, &node(3), &node(3)).is_empty());
}

#[test]
fn unknown_labels_are_named() {
    assert_eq!(select(&["device"], &["operation=x"]).check(&SHOWN), Ok(()));
    assert_eq!(
        select(&["devise"], &[]).check(&SHOWN),
        Err(
            r#"unknown label "devise" (did you mean "device"?): the labels are device, operation"#
                .to_owned()
        )
    );
    assert!(select(&[], &["pid=1"]).check(&SHOWN).is_err());
    assert!("device".parse::<super::group::Filter>().is_err());
    assert!("=sda".parse::<super::group::Filter>().is_err());
}

#[test]
fn golden_lines() {
    let stretch = Stretch {
        rows: rows(&SHOWN, &select(&["device"], &[]), &node(0), &node(2)),
        seconds: 2.0,
    };
    let start = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_250);
    let mut out = Vec::new();
    lines::header(&mut out, &SHOWN).unwrap();
    lines::plain(&mut out, &SHOWN, start, &stretch).unwrap();
    lines::json(&mut out, start, &stretch).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert_eq!(out, include_str!("golden/lines.txt"));
}

/// Gives prepared snapshots, then fails.
struct Prepared(VecDeque<Vec<Family>>);

impl Source for Prepared {
    fn snapshot(&mut self) -> anyhow::Result<Vec<Family>> {
        self.0.pop_front().ok_or_else(|| anyhow::anyhow!("gone"))
    }
}

fn session(
    snapshots: impl IntoIterator<Item = u64>,
    intervals: u32,
    format: Format,
    stop: bool,
) -> (anyhow::Result<Stretch>, String) {
    let mut source = Prepared(snapshots.into_iter().map(node).collect());
    let interval = Duration::from_millis(5);
    let options = Options {
        target: "block".to_owned(),
        shown: SHOWN.to_vec(),
        selection: select(&[], &[]),
        left_out: String::new(),
        interval,
        duration: (intervals > 0).then_some(interval * intervals),
        format,
    };
    let mut out = Vec::new();
    let result = run(&mut source, &options, &AtomicBool::new(stop), &mut out);
    (result, String::from_utf8(out).unwrap())
}

#[test]
fn a_session_adds_up_across_a_reset() {
    // At the third snapshot the source starts anew: 5 + 2 + 1.
    let (total, out) = session([3, 8, 2, 3, 3, 3, 3], 3, Format::Json, false);
    let objects: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let sum: u64 = objects
        .iter()
        .filter_map(|object| object["rows"][0]["count"].as_u64())
        .sum();
    assert_eq!(total.unwrap().rows[0].histogram.count(), sum);
    // A busy machine may take fewer snapshots, all the same in the end.
    assert!([8 * 121, 7 * 121, 5 * 121].contains(&sum), "{sum}");
}

#[test]
fn a_stop_shows_what_there_is() {
    let (total, out) = session([0, 1], 0, Format::Plain, true);
    assert_eq!(total.unwrap().rows[0].histogram.count(), 121);
    assert_eq!(out.lines().count(), 6, "{out}");
    assert!(out.lines().nth(3).unwrap().starts_with("# total of "));
    // The daemon has gone with the same Ctrl-C.
    let (total, _) = session([0], 0, Format::Plain, true);
    assert!(total.unwrap().rows.is_empty());
}

#[test]
fn a_source_that_fails_is_an_error_and_the_cursor_comes_back() {
    let screen = Screen {
        size: || (80, 24),
        color: true,
    };
    let (total, out) = session([0, 1], 50, Format::Terminal(screen), false);
    assert_eq!(total.unwrap_err().to_string(), "gone");
    assert!(out.ends_with("\x1b[?25h"));
    // The label's own escape sequence is not among ours.
    assert!(out.contains("\x1b[1m") && !out.contains("\x1b[31m"));
}

#[test]
fn a_closed_pipe_is_a_normal_end() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for format in [Format::Plain, Format::Json] {
        let options = Options {
            target: "block".to_owned(),
            shown: SHOWN.to_vec(),
            selection: Selection::default(),
            left_out: String::new(),
            interval: Duration::from_millis(1),
            duration: None,
            format,
        };
        let mut source = Prepared([node(0), node(1)].into());
        assert!(run(&mut source, &options, &AtomicBool::new(false), &mut Closed).is_ok());
    }
}

#[test]
fn signals_without_the_labels_are_left_out() {
    let names = |parts: Result<(Vec<Shown>, Vec<Shown>), String>| {
        let (shown, without) = parts.unwrap();
        let names = |of: Vec<Shown>| of.iter().map(|one| one.signal).collect::<Vec<_>>();
        (names(shown), names(without))
    };
    let [device, queue] = ["block.device", "block.queue"];
    let part = |by: &[&str], filters: &[&str]| names(select(by, filters).part(&SHOWN));
    assert_eq!(part(&[], &[]), (vec![device, queue], vec![]));
    assert_eq!(part(&["device"], &[]), (vec![device, queue], vec![]));
    assert_eq!(part(&["operation"], &[]), (vec![device], vec![queue]));
    assert_eq!(
        part(&["device", "operation"], &[]),
        (vec![device], vec![queue])
    );
    assert_eq!(part(&[], &["operation=read"]), (vec![device], vec![queue]));
    assert!(select(&["devise"], &[]).part(&SHOWN).is_err());

    // No signal has both labels: any will do for telling apart, none for a
    // filter.
    let both = [
        Shown {
            labels: &["vdev"],
            ..SHOWN[0]
        },
        Shown {
            labels: &["dataset"],
            ..SHOWN[1]
        },
    ];
    assert_eq!(
        names(select(&["vdev", "dataset"], &[]).part(&both)).0.len(),
        2
    );
    assert_eq!(
        select(&["vdev"], &["dataset=a"]).part(&both),
        Err("no signal has these labels together: dataset, vdev".to_owned())
    );
}

#[test]
fn groups_are_the_usual_ones_unless_said_otherwise() {
    let usual = [Shown {
        by: &["operation"],
        ..SHOWN[0]
    }];
    let labels = |by: &[&str]| -> Vec<String> {
        let rows = rows(&usual, &select(by, &[]), &node(0), &node(1));
        rows.iter().map(|row| row.labels[0].0.clone()).collect()
    };
    assert_eq!(labels(&[]), ["operation", "operation"]);
    assert_eq!(labels(&["device"]), ["device", "device"]);
}

#[test]
fn many_idle_signals_share_a_line() {
    let idle = |signal| Shown {
        signal,
        metric: "kldtrace_x_seconds",
        ..SHOWN[0]
    };
    let shown = [SHOWN[0], idle("a"), idle("b"), idle("c")];
    let selection = select(&[], &[]);
    let total = Stretch {
        rows: rows(&shown, &selection, &node(0), &node(1)),
        seconds: 1.0,
    };
    let frame = Frame {
        target: "block",
        shown: &shown,
        selection: &selection,
        left_out: "without these labels, left out: d",
        total: &total,
        last: Some(&total),
        elapsed: Duration::from_secs(1),
        duration: None,
    };
    let lines: Vec<_> = frame
        .lines(80, 40)
        .iter()
        .map(|line| line.render(false))
        .collect();
    assert_eq!(lines[1], "without these labels, left out: d");
    assert_eq!(lines.last().unwrap(), "nothing measured: a, b, c");
    assert!(lines.iter().any(|line| line.starts_with("block.device")));
    for rows in 0..12 {
        assert!(frame.lines(30, rows).len() <= rows);
    }
}
