"""The CPUs and the disks of a node, and which unit takes them."""

from promql import happened, heat as buckets, named, or_zero, quantile, rate, spent, top
from style import BAD, WARN, Board, Row, alerts, fine, graph, heat

RUNQUEUE = "kldtrace_sched_runqueue_latency_seconds"
ON = "kldtrace_sched_oncpu_seconds"
OFF = "kldtrace_sched_offcpu_seconds"
SWITCHES = "kldtrace_sched_context_switches_total"
MOVES = "kldtrace_sched_migrations_total"
QUEUE = "kldtrace_block_queue_latency_seconds"
DEVICE = "kldtrace_block_device_latency_seconds"
STUCK = 'reason="uninterruptible"'
DISK = ("device", "op")
ITS = "{{device}} {{op}}"


def of_units(expression):
    return top(named(expression, "unit"))


BOARD = Board(
    title="Scheduler and node",
    description="Who runs, who waits for a CPU and why, and the block devices below.",
    variables=("unit",),
    rows=[
        Row("Is it fine?", [
            alerts(),
            fine("CPUs in use", spent(ON), decimals=2, about="By the units chosen."),
            fine("Waiting for a CPU", spent(RUNQUEUE), decimals=2, levels=[(1, WARN), (8, BAD)],
                 about="Tasks at once, on average."),
            fine("p99 wait for a CPU", quantile(0.99, RUNQUEUE), unit="s",
                 levels=[(0.01, WARN), (0.1, BAD)]),
            fine("p99 of devices", quantile(0.99, DEVICE), unit="s", levels=[(0.1, WARN), (0.5, BAD)]),
            fine("Errors of devices", or_zero(rate("kldtrace_block_errors_total")), unit="ops",
                 levels=[(0.001, BAD)]),
        ]),
        Row("CPUs: how much and how long", [
            graph("CPUs in use", (of_units(spent(ON, by=("unit",))), "{{unit}}"), stacked=True),
            graph("Waiting for a CPU", (of_units(spent(RUNQUEUE, by=("unit",))), "{{unit}}"), stacked=True,
                  about="Tasks at once, on average."),
            graph("p99 wait for a CPU", (of_units(quantile(0.99, RUNQUEUE, by=("unit",))), "{{unit}}"),
                  unit="s"),
            heat("Waits for a CPU", buckets(RUNQUEUE)),
            heat("Slices on a CPU", buckets(ON)),
            graph("Waits, by what came before", (quantile(0.99, RUNQUEUE, by=("reason",)), "{{reason}} p99"),
                  unit="s"),
        ]),
        Row("Where the time goes", [
            graph("Asleep, by why", (spent(OFF, by=("reason",)), "{{reason}}"),
                  about="Tasks at once, on average."),
            graph("Stuck in the kernel", (of_units(spent(OFF, STUCK, by=("unit",))), "{{unit}}"),
                  empty="No task waited for storage or the kernel.",
                  about="Tasks in uninterruptible sleep at once, on average."),
            heat("Stuck in the kernel, by duration", buckets(OFF, STUCK),
                 empty="No task waited for storage or the kernel."),
            graph("Context switches", (of_units(rate(SWITCHES, by=("unit",))), "{{unit}}"), unit="ops"),
            graph("Context switches, by why", (rate(SWITCHES, by=("reason",)), "{{reason}}"), unit="ops"),
            graph("Moves to another CPU", (of_units(rate(MOVES, by=("unit",))), "{{unit}}"), unit="ops"),
        ]),
        Row("Block devices", [
            graph("Requests", (top(rate("kldtrace_block_requests_total", by=DISK)), ITS), unit="ops"),
            graph("Bytes", (top(rate("kldtrace_block_bytes_total", by=DISK)), ITS), unit="Bps"),
            graph("Errors", (top(rate("kldtrace_block_errors_total", by=DISK)), ITS), unit="ops"),
            graph("In the queue, p99", (top(quantile(0.99, QUEUE, by=DISK)), ITS), unit="s"),
            graph("In the device, p99", (top(quantile(0.99, DEVICE, by=DISK)), ITS), unit="s"),
            heat("In the device", buckets(DEVICE)),
            graph("At the device at once", (top(spent(DEVICE, by=("device",))), "{{device}}"),
                  about="Requests, on average."),
            graph("Completed", (top(happened(DEVICE, by=("device",))), "{{device}}"), unit="ops",
                  about="Requests whose time in the device is known."),
            heat("In the queue", buckets(QUEUE)),
        ]),
    ],
)
