"""Planes: what their filters let pass, what they drop, and whether they are on."""

from promql import gained, gauge, named, or_zero, rate, series, share, summed, top
from style import BAD, WARN, Board, Row, alerts, bars, fine, graph, lines, said

PACKETS = "kldtrace_plane_packets_total"
RULES = "kldtrace_plane_rule_packets_total"
ENFORCING = "kldtrace_plane_enforcing"
ATTACHED = "kldtrace_plane_attached"
FLOWS = "kldtrace_plane_flows"
CAPACITY = "kldtrace_plane_flow_capacity"
APPLIED = "kldtrace_plane_applied_timestamp_seconds"
DROPPED = 'verdict=~"drop|limited"'
WOULD = 'verdict="would_drop"'
CROSSED = ('reason="cross"', 'verdict=~"drop|would_drop"')
QUIET = "No rule decided anything."
USED = share(gauge(FLOWS, 'age="recent"', by=("family",)), gauge(CAPACITY, by=("family",)))

BOARD = Board(
    title="Planes",
    description="Packets that arrived on each plane and what became of them. A plane in audit mode "
    "drops nothing: what it would drop is counted.",
    variables=("plane",),
    rows=[
        Row("Is it fine?", [
            alerts(team="network"),
            fine("Planes", f"count({series(ENFORCING)})", decimals=0),
            fine("Open or in audit", f"count({series(ENFORCING)} == 0) or vector(0)", levels=[(1, WARN)],
                 decimals=0, about="Planes that drop nothing."),
            fine("Open interfaces",
                 f"count({summed(series(ATTACHED), by=('node', 'plane', 'interface'))} == 0) or vector(0)",
                 levels=[(1, BAD)], decimals=0,
                 about="Interfaces that a plane names and on which its programs are not."),
            fine("Crossing attempts", or_zero(gained(PACKETS, *CROSSED)), levels=[(1, WARN), (100, BAD)],
                 decimals=0, about="Packets from one plane to another that no rule allows."),
            fine("Flow table used", f"max({USED})", unit="percentunit", levels=[(0.7, WARN), (0.9, BAD)],
                 about="Of the flows that can be known, those seen in the last two minutes."),
        ]),
        Row("How much, and what was dropped", [
            graph("Packets, by verdict", (rate(PACKETS, by=("verdict",)), "{{verdict}}"), unit="pps",
                  stacked=True),
            graph("Dropped, by plane and reason", (top(rate(PACKETS, DROPPED, by=("plane", "reason"))),
                                                   "{{plane}} {{reason}}"), unit="pps"),
            graph("Would be dropped, by plane and reason",
                  (top(rate(PACKETS, WOULD, by=("plane", "reason"))), "{{plane}} {{reason}}"), unit="pps",
                  about="In audit mode: look here before you enforce."),
            graph("Packets, by plane", (top(rate(PACKETS, by=("plane",))), "{{plane}}"), unit="pps"),
            graph("Bytes, by plane and verdict", (top(rate("kldtrace_plane_bytes_total",
                                                           by=("plane", "verdict"))),
                                                  "{{plane}} {{verdict}}"), unit="Bps"),
            graph("Crossing attempts", (top(named(rate(PACKETS, *CROSSED, by=("plane",)), "plane")),
                                        "{{plane}}"), unit="pps", empty="Nobody tried."),
        ]),
        Row("Which rule decided", [
            bars("Busiest rules", (top(rate(RULES, by=("plane", "rule", "verdict")), 12),
                                   "{{plane}} {{rule}} {{verdict}}"), unit="pps", width=12, empty=QUIET,
                 about="First packets; those of known flows are in none."),
            graph("Dropped by a rule, or over its rate",
                  (top(rate(RULES, 'verdict!="pass"', by=("plane", "rule", "verdict"))),
                   "{{plane}} {{rule}} {{verdict}}"), unit="pps", width=12, empty=QUIET),
        ]),
        Row("Flows and the policy", [
            graph("Known flows", (gauge(FLOWS, by=("family", "age")), "{{family}} {{age}}"),
                  (gauge(CAPACITY, by=("family",)), "{{family}} at most")),
            graph("Room for flows used", (USED, "{{family}}"), unit="percentunit"),
            graph("Enforcing", (f"min by (plane) ({series(ENFORCING)})", "{{plane}}"),
                  about="1: what the plane does not allow is dropped; 0: audit, or open."),
            graph("Attached", (summed(series(ATTACHED), by=("plane", "interface", "mode")),
                               "{{plane}} {{interface}} {{mode}}")),
            graph("Policy", (f"max by (node) ({series('kldtrace_plane_generation')})", "{{node}}"),
                  about="Its number: it goes up with each one that is applied."),
            graph("Since it was applied", (f"time() - max by (node) ({series(APPLIED)})", "{{node}}"),
                  unit="s"),
            graph("Packets that are no event", (rate("kldtrace_plane_untold_packets_total"), "not told"),
                  unit="pps", about="Each CPU tells of 50 dropped packets in a second."),
        ]),
        Row("What it said", [
            lines("Dropped packets", said('kind="planes.packet"', "plane")),
        ]),
    ],
)
