"""One unit and everything that it may wait for, side by side."""

from promql import happened, heat as buckets, named, or_zero, quantile, rate, spent, top
from style import BAD, WARN, Board, Row, alerts, fine, graph, heat, lines, said

RUNQUEUE = "kldtrace_sched_runqueue_latency_seconds"
OFF = "kldtrace_sched_offcpu_seconds"
ON = "kldtrace_sched_oncpu_seconds"
STAGE = "kldtrace_zfs_stage_latency_seconds"
QUEUE = "kldtrace_block_queue_latency_seconds"
DEVICE = "kldtrace_block_device_latency_seconds"
SRTT = "kldtrace_tcp_srtt_seconds"
CONNECT = "kldtrace_tcp_connect_latency_seconds"
RETRANSMITS = "kldtrace_tcp_retransmitted_segments_total"
QUIET = "Nothing connected."

BOARD = Board(
    title="Why is it slow?",
    description="Choose a unit. Scheduler and TCP are of that unit; ZFS is of the dataset that you "
    "choose, and block devices of the whole node: requests do not say whose they are.",
    variables=("unit", "pool", "dataset"),
    rows=[
        Row("Is it fine?", [
            alerts(),
            fine("Waiting for a CPU", spent(RUNQUEUE), levels=[(1, WARN), (4, BAD)], decimals=2,
                 about="Tasks at once, on average."),
            fine("p99 wait for a CPU", quantile(0.99, RUNQUEUE), unit="s",
                 levels=[(0.01, WARN), (0.1, BAD)]),
            fine("Stuck in kernel", or_zero(spent(OFF, 'reason="uninterruptible"')), decimals=2,
                 levels=[(1, WARN), (4, BAD)],
                 about="Tasks in uninterruptible sleep: mostly waiting for storage."),
            fine("Retransmits", or_zero(rate(RETRANSMITS)), unit="ops", levels=[(1, WARN), (100, BAD)],
                 about="TCP segments sent again."),
            fine("p99 of devices", quantile(0.99, DEVICE), unit="s", levels=[(0.1, WARN), (0.5, BAD)],
                 about="Of all block devices of the node."),
        ]),
        Row("Side by side", [
            graph("CPU: working and waiting for it", (spent(ON), "on a CPU"),
                  (spent(RUNQUEUE), "waiting for one"), width=12,
                  about="Tasks at once, on average. Waiting above working: not enough CPU."),
            graph("Asleep, by why", (spent(OFF, by=("reason",)), "{{reason}}"), width=12,
                  about="Tasks at once, on average. Most sleep because they have nothing to do; "
                  "uninterruptible is waiting for storage or the kernel."),
            graph("ZFS: where operations are", (spent(STAGE, by=("stage",)), "{{stage}}"), stacked=True,
                  width=12, about="Operations at once, on average, of the datasets chosen."),
            graph("Block devices: in the queue and in the device",
                  (top(spent(QUEUE, by=("device",)), 8), "{{device}} queue"),
                  (top(spent(DEVICE, by=("device",)), 8), "{{device}} device"), width=12,
                  about="Requests at once, on average."),
            graph("TCP: round trip and connecting, p99", (quantile(0.99, SRTT), "round trip"),
                  (quantile(0.99, CONNECT), "connecting"), unit="s", width=12, empty=QUIET),
            graph("TCP: segments sent again",
                  (top(named(rate(RETRANSMITS, by=("interface", "kind")), "interface")),
                   "{{interface}} {{kind}}"), unit="ops", width=12, empty=QUIET),
        ]),
        Row("How long, each time", [
            heat("Wait for a CPU", buckets(RUNQUEUE), width=6),
            heat("ZFS stages", buckets(STAGE, 'stage!="cpu"'), width=6),
            heat("In the device", buckets(DEVICE), width=6),
            heat("TCP round trip", buckets(SRTT), width=6, empty=QUIET),
        ]),
        Row("What it said", [
            lines("Slow operations on ZFS of this unit",
                  said('kind="zfs.slow_operation"', "unit", "pool", "dataset"),
                  about="Each with where its time went."),
            graph("Requests of devices", (top(happened(DEVICE, by=("device", "op"))), "{{device}} {{op}}"),
                  unit="ops", width=24),
        ]),
    ],
)
