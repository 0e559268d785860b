"""All nodes, the worst first. 500 of them: only what recording rules keep, and
what each node makes of its histograms itself."""

from promql import MATCH
from style import BAD, OF_SERIES, WARN, Board, Column, Row, alerts, fine, graph, worst

RUNQUEUE = f"kldtrace_sched_runqueue_p99_seconds{{{MATCH}}}"
DEVICE = f"kldtrace_block_device_p99_seconds{{{MATCH}}}"
CONNECT = f"kldtrace_tcp_connect_p99_seconds{{{MATCH}}}"
COMMIT = f"kldtrace_zfs_zil_wait_p99_seconds{{{MATCH}}}"
SHAKE = f"kldtrace_wireguard_handshake_p90_seconds{{{MATCH}}}"
STUCK = f"kldtrace_sched_uninterruptible_tasks{{{MATCH}}}"
COST = "kldtrace:cost_cpus:rate10m"
ABSENT = f"kldtrace_signal_absent{{{MATCH}}}"
FIRING = 'ALERTS{alertstate="firing", severity!="none", team=~"storage|network|platform"}'
NODES = "topk(25, {})"
LINK = "kldtrace-scheduler-and-node"


def worst_of(name, of="max"):
    """By node, however many series a node has."""
    return f"{of} by (node) ({name})"


def line(title, name, unit, of="max", about="", empty=None):
    """The ten that were worst in all of the time shown, chosen once: `topk` by
    itself chooses others at each moment, in the end all 500."""
    over = {"max": "max_over_time", "sum": "avg_over_time"}[of]
    ten = f"topk(10, {of} by (node) ({over}({name}[$__range] @ end())))"
    return graph(title, (f"{worst_of(name, of)} and on (node) {ten}", "{{node}}"), unit=unit,
                 about=about, empty=empty, nodes=OF_SERIES)


BOARD = Board(
    title="Fleet",
    description="Every node, the worst first. Names lead to the dashboards of a node.",
    node="all",
    rows=[
        Row("Is it fine?", [
            alerts(everywhere=True),
            fine("Nodes", f"count(up{{{MATCH}}})", decimals=0),
            fine("Nodes down", f"count(up{{{MATCH}}} == 0) or vector(0)", levels=[(1, BAD)], decimals=0),
            fine("Worst CPU wait", f"max({RUNQUEUE})", unit="s", levels=[(0.01, WARN), (0.1, BAD)],
                 about="p99 of the worst node."),
            fine("Worst device", f"max({DEVICE})", unit="s", levels=[(0.1, WARN), (0.5, BAD)],
                 about="p99 of the slowest device of all nodes."),
            fine("Lacking signals", f"count(count by (node) ({ABSENT})) or vector(0)", decimals=0,
                 levels=[(1, WARN)], about="Nodes that do not serve all that is asked for.", instant=True),
        ]),
        Row("The worst nodes", [
            worst("Alerts that fire", ("node", "alertname", "severity"), [
                Column("Alerts", f"topk(50, count by (node, alertname, severity) ({FIRING}))", decimals=0),
            ], width=12, empty="No alert fires.", link=LINK),
            worst("Longest CPU waits", ("node",), [
                Column("p99 wait", NODES.format(worst_of(RUNQUEUE)), "s", ((0.01, WARN), (0.1, BAD))),
            ], width=5, link=LINK),
            worst("Slowest devices", ("node", "device"), [
                Column("p99", NODES.format(f"max by (node, device) ({DEVICE})"), "s",
                       ((0.1, WARN), (0.5, BAD))),
            ], width=7, link=LINK),
            worst("Pools that are not online", ("node", "pool", "state"), [
                Column("Pools", "topk(25, sum by (node, pool, state) (kldtrace_zfs_pool_state"
                       f'{{{MATCH}, state!="ONLINE"}}) > 0)', decimals=0),
            ], width=8, height=7, empty="All pools are online.", link="kldtrace-zfs"),
            worst("Nodes that are down", ("node", "instance"), [
                Column("Up", f"topk(25, max by (node, instance) (up{{{MATCH}}}) == 0)", decimals=0),
            ], width=8, height=7, empty="All nodes answer."),
            worst("Absent signals", ("node",), [
                Column("Signals", NODES.format(f"count by (node) ({ABSENT})"), decimals=0),
            ], width=8, height=7, empty="All nodes serve all signals.", link="kldtrace-losses-and-absent"),
        ]),
        Row("The ten worst over time", [
            line("Wait for a CPU, p99", RUNQUEUE, "s"),
            line("Stuck in the kernel", STUCK, "short", of="sum",
                 about="Tasks in uninterruptible sleep at once, on average.",
                 empty="No task waited for storage or the kernel."),
            line("In the device, p99", DEVICE, "s"),
            line("Connects, p99", CONNECT, "s"),
            line("Commits of the intent log, p99", COMMIT, "s"),
            line("Handshakes, p90", SHAKE, "s"),
            line("Operations of ZFS", "kldtrace:zfs_op:rate5m", "ops", of="sum"),
            line("Block requests", f"kldtrace_block_requests_per_second{{{MATCH}}}", "ops", of="sum"),
            line("CPUs of kldtrace", COST, "short"),
        ]),
    ],
)
