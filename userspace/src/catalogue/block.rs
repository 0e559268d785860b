//! Block device signals; probes/src/block.rs.

use kldtrace_exporters::model::{Kind, Unit};

use super::{Attach, Cost, Hook, Numbers, Signal, Subject, tp_btf};

const COMPLETE: &[Hook] = &[
    tp_btf("block_rq_complete"),
    Hook {
        program: "block_rq_complete_raw",
        attach: Attach::RawTp("block_rq_complete"),
    },
];

/// The rows, in the order in which they are shown.
pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "block.queue_latency",
        subject: Subject::Block,
        metric: "kldtrace_block_queue_latency_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time of block requests from being made to being issued to the device.",
        labels: &["device", "op"],
        hooks: &[COMPLETE],
        fields: &[],
        switch: Some("SWITCH_BLOCK_QUEUE"),
        cost: Cost::Medium,
        source: "include/linux/blk-mq.h: request.start_time_ns, io_start_time_ns",
        numbers: Numbers::Block(|account, emit| emit.histogram(&[], &account.queue)),
    },
    Signal {
        name: "block.device_latency",
        subject: Subject::Block,
        metric: "kldtrace_block_device_latency_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time of block requests from being issued to the device to completion.",
        labels: &["device", "op"],
        hooks: &[COMPLETE],
        fields: &[],
        switch: Some("SWITCH_BLOCK_DEVICE"),
        cost: Cost::Medium,
        source: "include/linux/blk-mq.h: request.io_start_time_ns",
        numbers: Numbers::Block(|account, emit| emit.histogram(&[], &account.device)),
    },
    Signal {
        name: "block.bytes",
        subject: Subject::Block,
        metric: "kldtrace_block_bytes",
        kind: Kind::Counter,
        unit: Unit::Bytes,
        help: "Bytes that block requests moved.",
        labels: &["device", "op"],
        hooks: &[COMPLETE],
        fields: &[],
        switch: None,
        cost: Cost::Medium,
        source: "include/trace/events/block.h: block_rq_complete; Documentation/block/stat.rst",
        numbers: Numbers::Block(|account, emit| emit.integer(&[], account.bytes)),
    },
    Signal {
        name: "block.requests",
        subject: Subject::Block,
        metric: "kldtrace_block_requests",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Block requests completed.",
        labels: &["device", "op"],
        hooks: &[COMPLETE],
        fields: &[],
        switch: None,
        cost: Cost::Medium,
        source: "include/trace/events/block.h: block_rq_complete; Documentation/block/stat.rst",
        numbers: Numbers::Block(|account, emit| emit.integer(&[], account.requests)),
    },
    Signal {
        name: "block.errors",
        subject: Subject::Block,
        metric: "kldtrace_block_errors",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Block requests, or parts of them, that ended in an error.",
        labels: &["device", "op"],
        hooks: &[COMPLETE],
        fields: &[],
        switch: None,
        cost: Cost::Medium,
        source: "include/linux/blk_types.h: blk_status_t",
        numbers: Numbers::Block(|account, emit| emit.integer(&[], account.errors)),
    },
];
