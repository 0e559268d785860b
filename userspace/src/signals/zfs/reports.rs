//! ZFS's own reports of trouble: counted by vdev and class, and told.

use std::{collections::HashMap, sync::Arc};

use aya::maps::MapError;
use kldtrace_abi::{
    OTHER,
    zfs_report::{NO_REQUEST, REPORT, Report, ReportKey, Reports as Count},
};
use kldtrace_exporters::model::{Event, Field};

use super::{
    part::Part,
    vdevs::VdevNames,
    words::{priority_word, type_word},
};
use crate::{
    signals::{clock::Clock, table::OTHER_LABEL},
    view::text,
    words::until_zero,
};

/// What ZFS reports, `FM_EREPORT_ZFS_*` of include/sys/fm/fs/zfs.h, and what
/// it means in words.
const CLASSES: [(&str, &str); 22] = [
    ("checksum", "wrong checksum"),
    ("delay", "slow request"),
    ("deadman", "request that does not end"),
    ("io", "failed request"),
    ("data", "block that cannot be read or written"),
    ("authentication", "block that cannot be decrypted"),
    ("dio_verify_wr", "buffer changed during a direct write"),
    ("dio_verify_rd", "wrong checksum of a direct read"),
    ("zpool", "pool that cannot be opened"),
    ("vdev.unknown", "vdev that cannot be opened"),
    ("vdev.open_failed", "vdev that cannot be opened"),
    ("vdev.corrupt_data", "vdev with corrupt data"),
    ("vdev.no_replicas", "vdev with too few of its parts"),
    ("vdev.bad_guid_sum", "vdev is missing"),
    ("vdev.too_small", "vdev that is too small"),
    ("vdev.bad_label", "vdev with a bad label"),
    ("vdev.bad_ashift", "vdev with larger blocks than before"),
    ("io_failure", "pool suspended after failures"),
    ("probe_failure", "vdev that does not answer"),
    ("log_replay", "intent log that cannot be replayed"),
    ("config_cache_write", "cache file that cannot be written"),
    (OTHER_LABEL, "report"),
];

/// Labels: pool, vdev, class.
pub(super) type Labels = (Arc<str>, Arc<str>, &'static str);

/// Reports by vdev and class.
pub(super) type Reports = Part<ReportKey, Count, Labels>;

/// `series` is the limit of label sets.
pub(super) fn new(series: usize) -> Reports {
    let other: Arc<str> = OTHER_LABEL.into();
    Part::new("zfs_reports", series, (other.clone(), other, OTHER_LABEL))
}

/// Sums by label. `exported`: of pools of which nothing stays in the map.
pub(super) fn read(
    part: &mut Reports,
    names: &VdevNames,
    exported: impl Fn(&Arc<str>) -> bool,
) -> Result<HashMap<Labels, Box<Count>>, MapError> {
    let accounts = part.read()?;
    Ok(part.sum(accounts, |key| {
        if key.vdev == OTHER {
            let other: Arc<str> = OTHER_LABEL.into();
            return ((other.clone(), other, OTHER_LABEL), false);
        }
        let one = names.of(key.vdev);
        let gone = exported(&one.pool);
        ((one.pool, one.vdev, class(&key.class).0), gone)
    }))
}

fn class(name: &[u8]) -> (&'static str, &'static str) {
    let name = until_zero(name);
    let known = CLASSES.iter().find(|(class, _)| *class == name);
    known.copied().unwrap_or(CLASSES[CLASSES.len() - 1])
}

/// What the probe wrote; `None`: it is something else.
pub(super) fn parse(bytes: &[u8]) -> Option<Report> {
    if bytes.len() < size_of::<Report>() {
        return None;
    }
    // SAFETY: long enough by the line above; every bit pattern is a value of
    // this struct of integers; the place may be unaligned.
    let report: Report = unsafe { bytes.as_ptr().cast::<Report>().read_unaligned() };
    (report.kind == REPORT).then_some(report)
}

/// A report as people and exporters see it.
pub(super) fn event(report: &Report, names: &VdevNames, clock: &Clock) -> Event {
    let one = names.of(report.about.vdev);
    let (class, words) = class(&report.about.class);
    let mut fields = Vec::new();
    let mut message = format!("{words} on {}", one.vdev);
    if one.pool != one.vdev {
        message = format!("{message} of {}", one.pool);
    }
    if report.request_type != NO_REQUEST {
        let kind = type_word(report.request_type);
        let delay = report.delay as f64 / 1e9;
        fields.extend([
            ("type".into(), Field::Text(kind.into())),
            (
                "priority".into(),
                Field::Text(priority_word(report.priority).into()),
            ),
            ("bytes".into(), Field::Integer(report.size)),
            ("offset".into(), Field::Integer(report.offset)),
            ("objset".into(), Field::Integer(report.objset)),
            ("object".into(), Field::Integer(report.object)),
        ]);
        message = format!("{message}: {kind} of {} bytes", report.size);
        if report.delay != 0 {
            fields.push(("device_seconds".into(), Field::Float(delay)));
            message = format!("{message} in {}", text::duration(delay));
        }
    }
    if report.error != 0 {
        fields.push(("errno".into(), Field::Integer(report.error.into())));
    }
    Event {
        id: 0,
        time_ns: clock.wall(report.at),
        subject: "zfs".into(),
        kind: "report".into(),
        labels: vec![
            ("pool".into(), one.pool),
            ("vdev".into(), one.vdev),
            ("class".into(), class.into()),
        ],
        fields,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::told;

    fn report() -> Report {
        let mut about = ReportKey::OTHER;
        about.vdev = 7;
        about.class[..5].copy_from_slice(b"delay");
        Report {
            kind: REPORT,
            request_type: 1,
            priority: 0,
            error: 0,
            about,
            at: 0,
            delay: 31_000_000_000,
            offset: 4096,
            size: 8192,
            objset: 54,
            object: 2,
        }
    }

    #[test]
    fn an_event_says_what_and_where() {
        let names = VdevNames::default();
        let clock = Clock::starting_at(0);
        let mut one = report();
        let slow = event(&one, &names, &clock);
        assert_eq!(
            slow.message,
            "slow request on 7 of unknown: read of 8192 bytes in 31.0s"
        );
        assert!(told(&slow).is_some());
        one.request_type = NO_REQUEST;
        one.error = 6;
        one.about.class = [b'x'; 24];
        let other = event(&one, &names, &clock);
        assert_eq!(other.message, "report on 7 of unknown");
        assert!(told(&other).is_some());
        assert_eq!(&*other.labels[2].1, OTHER_LABEL);
    }

    #[test]
    fn what_is_no_report_is_none() {
        let mut one = report();
        let bytes = |one: &Report| {
            // SAFETY: a struct of integers without padding, read as bytes.
            unsafe {
                std::slice::from_raw_parts(
                    std::ptr::from_ref(one).cast::<u8>(),
                    size_of::<Report>(),
                )
                .to_vec()
            }
        };
        assert!(parse(&bytes(&one)).is_some());
        assert!(parse(&bytes(&one)[1..]).is_none());
        one.kind = 1;
        assert!(parse(&bytes(&one)).is_none());
    }
}
