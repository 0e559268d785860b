//! Slow operations as events.

use std::sync::Arc;

use kldtrace_abi::zfs::{SLOW_OPERATION, SlowOperation, Stage};
use kldtrace_exporters::model::{Event, Field};

use crate::{collect::zfs::datasets::Name, signals::clock::Clock, view::text, words::until_zero};

/// What the probe wrote; `None`: it is something else.
pub(super) fn parse(bytes: &[u8]) -> Option<SlowOperation> {
    if bytes.len() < size_of::<SlowOperation>() {
        return None;
    }
    // SAFETY: long enough by the line above; every bit pattern is a value of
    // this struct of integers; the place may be unaligned.
    let event: SlowOperation = unsafe { bytes.as_ptr().cast::<SlowOperation>().read_unaligned() };
    (event.kind == SLOW_OPERATION).then_some(event)
}

/// A slow operation with its names.
pub(super) struct Slow {
    pub(super) event: SlowOperation,
    pub(super) op: &'static str,
    pub(super) unit: Arc<str>,
    pub(super) name: Name,
}

impl Slow {
    /// As people and exporters see it.
    pub(super) fn event(&self, clock: &Clock) -> Event {
        let event = &self.event;
        let seconds = |ns: u64| Field::Float(ns as f64 / 1e9);
        let mut fields = vec![
            ("duration_seconds".into(), seconds(event.total)),
            (
                "offset_class".into(),
                Field::Text(offset_class(event.offset).into()),
            ),
            ("process".into(), Field::Integer(event.process.into())),
            (
                "command".into(),
                Field::Text(until_zero(&event.command).into()),
            ),
        ];
        if event.result < 0 {
            fields.push(("errno".into(), Field::Integer(event.result.unsigned_abs())));
        } else {
            let bytes = event.result.cast_unsigned();
            fields.push(("bytes".into(), Field::Integer(bytes)));
        }
        let mut parts = Vec::new();
        for (stage, time) in Stage::ALL.into_iter().zip(event.stages) {
            fields.push((format!("{}_seconds", stage.as_str()).into(), seconds(time)));
            if time != 0 {
                parts.push((time, stage.as_str()));
            }
        }
        parts.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        let parts: Vec<_> = parts
            .into_iter()
            .take(3)
            .map(|(time, stage)| format!("{stage} {}", text::duration(time as f64 / 1e9)))
            .collect();
        Event {
            id: 0,
            time_ns: clock.wall(event.end),
            subject: "zfs".into(),
            kind: "slow_operation".into(),
            labels: vec![
                ("pool".into(), self.name.pool.clone()),
                ("dataset".into(), self.name.dataset.clone()),
                ("op".into(), self.op.into()),
                (
                    "sync".into(),
                    if event.sync == 1 { "sync" } else { "async" }.into(),
                ),
                ("unit".into(), self.unit.clone()),
            ],
            fields,
            message: format!(
                "{} on {} took {}: {}",
                self.op,
                self.name.dataset,
                text::duration(event.total as f64 / 1e9),
                parts.join(", ")
            ),
        }
    }
}

/// The size of an offset in words of few: a label may be made of it.
fn offset_class(offset: u64) -> &'static str {
    match offset {
        0 => "start",
        1..=0xf_ffff => "below_1MiB",
        0x10_0000..=0x3fff_ffff => "below_1GiB",
        _ => "1GiB_or_more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::told;

    #[test]
    fn an_event_says_where_the_time_went() {
        let mut event = SlowOperation {
            kind: SLOW_OPERATION,
            device: 45,
            op: 2,
            process: 7,
            sync: 1,
            cgroup: 1,
            result: -5,
            offset: 0,
            end: 0,
            total: 41_000_000,
            stages: [0, 38_000_000, 0, 0, 0, 1_000_000, 2_000_000],
            command: *b"postgres\0\0\0\0\0\0\0\0",
        };
        let bytes = |event: &SlowOperation| {
            // SAFETY: a struct of integers without padding, read as bytes.
            unsafe {
                std::slice::from_raw_parts(
                    std::ptr::from_ref(event).cast::<u8>(),
                    size_of::<SlowOperation>(),
                )
                .to_vec()
            }
        };
        let whole = bytes(&event);
        assert!(parse(&whole[..whole.len() - 1]).is_none());
        let slow = Slow {
            event: parse(&whole).unwrap(),
            op: "fsync",
            unit: "pg.service".into(),
            name: Name::new("rpool/pg"),
        };
        assert_eq!(
            slow.event(&Clock::starting_at(0)).message,
            "fsync on rpool/pg took 41.0ms: zil_commit 38.0ms, cpu 2.00ms, runqueue 1.00ms"
        );
        assert!(told(&slow.event(&Clock::starting_at(0))).is_some());
        event.kind = 9;
        assert!(parse(&bytes(&event)).is_none());
    }
}
