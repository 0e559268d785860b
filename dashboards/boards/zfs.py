"""ZFS: is it fine, how fast, and where the time of an operation goes."""

from promql import (
    gained, gauge, happened, heat as buckets, named, or_zero, quantile, rate, share, spent, top,
)
from style import BAD, WARN, Board, Row, alerts, bars, fine, graph, heat, lines, said

OP = "kldtrace_zfs_op_latency_seconds"
STAGE = "kldtrace_zfs_stage_latency_seconds"
QUEUE = "kldtrace_zfs_vdev_queue_latency_seconds"
DEVICE = "kldtrace_zfs_vdev_device_latency_seconds"
VOLUME = "kldtrace_zfs_zvol_latency_seconds"
ARC = "kldtrace_zfs_arc_accesses_total"
NONE = "None in this time."
WAITED = 'result!="assigned"'

VDEV = "{{pool}} {{vdev}}"


def some(metric, *more):
    return gained(metric, by=("pool", "vdev", *more)) + " > 0"


BOARD = Board(
    title="ZFS",
    description="Operations on datasets and volumes as applications feel them, and their way through "
    "the intent log, transaction groups, queues and devices.",
    variables=("pool", "dataset"),
    rows=[
        Row("Is it fine?", [
            alerts(team="storage"),
            fine("Pools not online", or_zero(gauge("kldtrace_zfs_pool_state", 'state!="ONLINE"')),
                 levels=[(1, BAD)], decimals=0),
            fine("p99 of operations", quantile(0.99, OP), unit="s", levels=[(0.1, WARN), (1, BAD)]),
            fine("Errors", or_zero(rate("kldtrace_zfs_op_errors_total")), unit="ops",
                 levels=[(0.01, WARN), (1, BAD)], about="Operations that returned an error."),
            fine("Slow operations", or_zero(gained("kldtrace_zfs_slow_operations_total")),
                 levels=[(1, WARN), (100, BAD)], decimals=0,
                 about="Longer than [zfs] slow_operation, in the time shown."),
            fine("ARC hits", share(rate(ARC, 'result="hit"'), rate(ARC)), unit="percentunit",
                 levels=[(None, BAD), (0.5, WARN), (0.8, "green")],
                 about="Of all look-ups; iohit, which waits for another's read, is no hit."),
        ]),
        Row("How much, how many errors, how long", [
            graph("Operations", (top(named(happened(OP, by=("dataset", "op")), "dataset")),
                                 "{{dataset}} {{op}}"), unit="ops"),
            graph("Errors", (top(named(rate("kldtrace_zfs_op_errors_total", by=("dataset", "op")),
                                       "dataset")), "{{dataset}} {{op}}"), unit="ops"),
            graph("p99 of operations", (top(named(quantile(0.99, OP, by=("dataset", "op")), "dataset")),
                                        "{{dataset}} {{op}}"), unit="s", exemplars=True),
            heat("Operations by duration", buckets(OP)),
            graph("Bytes", (top(named(rate("kldtrace_zfs_op_bytes_total", by=("dataset", "op")),
                                      "dataset")), "{{dataset}} {{op}}"), unit="Bps"),
            graph("Slow operations", (top(named(rate("kldtrace_zfs_slow_operations_total",
                                                     by=("dataset", "op")), "dataset")),
                                      "{{dataset}} {{op}}"), unit="ops"),
        ]),
        Row("Where the time goes", [
            graph("Waiting and working, by stage", (spent(STAGE, by=("stage",)), "{{stage}}"),
                  stacked=True, width=12, about="How many operations were in each stage, on average. "
                  "Those that never left the CPU are in none."),
            graph("p99 of each stage", (quantile(0.99, STAGE, by=("stage",)), "{{stage}}"), unit="s"),
            fine("From memory", share(rate("kldtrace_zfs_ops_from_memory_total"), happened(OP)),
                 unit="percentunit", about="Operations that never left the CPU.", height=8),
            graph("Commits of the intent log, p99",
                  (top(named(quantile(0.99, STAGE, 'stage="zil_commit"', by=("dataset",)), "dataset")),
                   "{{dataset}}"), unit="s", empty="Nobody asked for synchronous writes."),
            heat("Commits of the intent log by duration", buckets(STAGE, 'stage="zil_commit"'),
                 empty="Nobody asked for synchronous writes."),
            graph("Page faults in mapped files, p99",
                  (top(named(quantile(0.99, "kldtrace_zfs_mmap_read_latency_seconds", by=("dataset",)),
                             "dataset")), "{{dataset}}"), unit="s", empty="No file is mapped."),
        ]),
        Row("Devices", [
            graph("In ZFS's queue, p99", (quantile(0.99, QUEUE, by=("vdev", "type")), "{{vdev}} {{type}}"),
                  unit="s"),
            graph("In the device, p99", (quantile(0.99, DEVICE, by=("vdev", "type")), "{{vdev}} {{type}}"),
                  unit="s", about="A vdev that is slower than its mirror partner is going bad."),
            heat("In the device, by duration", buckets(DEVICE)),
            graph("Bytes", (rate("kldtrace_zfs_vdev_bytes_total", by=("vdev", "type")), "{{vdev}} {{type}}"),
                  unit="Bps"),
            graph("Requests in the device", (spent(DEVICE, by=("vdev", "type")), "{{vdev}} {{type}}"),
                  about="How many at once, on average.", stacked=True),
            graph("Intent log: queue and device, p99",
                  (quantile(0.99, "kldtrace_zfs_log_queue_latency_seconds", by=("vdev", "log")),
                   "{{vdev}} ({{log}}) queue"),
                  (quantile(0.99, "kldtrace_zfs_log_device_latency_seconds", by=("vdev", "log")),
                   "{{vdev}} ({{log}}) device"), unit="s", empty="Nothing was written to the intent log."),
        ]),
        Row("Transaction groups and the intent log", [
            graph("Phases, p90", (quantile(0.9, "kldtrace_zfs_txg_time_seconds", by=("pool", "phase")),
                                  "{{pool}} {{phase}}"), unit="s"),
            graph("Writing a group out, p90",
                  (quantile(0.9, "kldtrace_zfs_spa_sync_time_seconds", by=("pool",)), "{{pool}}"), unit="s"),
            graph("Transactions that had to wait",
                  (rate("kldtrace_zfs_transactions_total", WAITED, by=("result",)), "{{result}}"),
                  unit="ops"),
            graph("Commits", (rate("kldtrace_zfs_log_commits_total", by=("what",)), "{{what}}"),
                  unit="ops"),
            graph("Bytes of the intent log", (rate("kldtrace_zfs_log_bytes_total", by=("log",)), "{{log}}"),
                  unit="Bps"),
            graph("Waiting for ZFS's threads, p99",
                  (top(quantile(0.99, "kldtrace_zfs_taskq_wait_seconds", by=("taskq",))), "{{taskq}}"),
                  unit="s"),
        ]),
        Row("Memory", [
            graph("ARC", (gauge("kldtrace_zfs_arc_size_bytes", by=("what",)), "{{what}}"), unit="bytes"),
            graph("Look-ups", (rate(ARC, by=("access", "content", "result")),
                               "{{access}} {{content}} {{result}}"), unit="ops"),
            graph("Second cache, look-ups", (rate("kldtrace_zfs_l2arc_accesses_total", by=("result",)),
                                             "{{result}}"), unit="ops"),
            graph("Writes held back for want of memory",
                  (rate("kldtrace_zfs_arc_memory_throttles_total"), "held back"), unit="ops"),
        ]),
        Row("Volumes", [
            graph("Requests", (top(named(happened(VOLUME, by=("dataset", "op")), "dataset")),
                               "{{dataset}} {{op}}"), unit="ops", empty="No volume is used."),
            graph("p99", (top(named(quantile(0.99, VOLUME, by=("dataset", "op")), "dataset")),
                          "{{dataset}} {{op}}"), unit="s", empty="No volume is used."),
            graph("Bytes", (top(named(rate("kldtrace_zfs_zvol_bytes_total", by=("dataset", "op")),
                                      "dataset")), "{{dataset}} {{op}}"), unit="Bps",
                  empty="No volume is used."),
            graph("Errors", (top(named(rate("kldtrace_zfs_zvol_errors_total", by=("dataset", "op")),
                                       "dataset")), "{{dataset}} {{op}}"), unit="ops",
                  empty="No volume is used."),
        ], collapsed=True),
        Row("Trouble", [
            bars("Wrong checksums", (some("kldtrace_zfs_vdev_checksum_errors_total"), VDEV),
                 empty=NONE, levels=[(None, BAD)]),
            bars("Slow and hung requests", (some("kldtrace_zfs_vdev_slow_requests_total"), VDEV + " slow"),
                 (some("kldtrace_zfs_vdev_hung_requests_total"), VDEV + " hung"),
                 empty=NONE, levels=[(None, WARN)]),
            bars("Failed requests and reports",
                 (some("kldtrace_zfs_vdev_errors_total"), VDEV + " failed"),
                 (some("kldtrace_zfs_reports_total", "class"), VDEV + " {{class}}"),
                 empty=NONE, levels=[(None, BAD)]),
            lines("Slow operations", said('kind="zfs.slow_operation"', "pool", "dataset")),
            lines("Reports", said('kind="zfs.report"', "pool")),
        ]),
    ],
)
