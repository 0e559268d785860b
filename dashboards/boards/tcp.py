"""TCP: connections, how long they take, and what goes wrong with them."""

from promql import happened, heat as buckets, named, or_zero, quantile, rate, share, spent, top
from style import BAD, WARN, Board, Row, alerts, fine, graph, heat

CONNECT = "kldtrace_tcp_connect_latency_seconds"
ACCEPT = "kldtrace_tcp_accept_latency_seconds"
SRTT = "kldtrace_tcp_srtt_seconds"
LIFE = "kldtrace_tcp_connection_lifetime_seconds"
AGAIN = "kldtrace_tcp_retransmitted_segments_total"
FAILED = "kldtrace_tcp_connect_failures_total"
OVERFLOWS = "kldtrace_tcp_listen_overflows_total"
DROPS = "kldtrace_tcp_listen_drops_total"
QUIET = "No connection of this kind in this time."


def of_units(expression):
    return top(named(expression, "unit"))


BOARD = Board(
    title="TCP",
    description="Connections by unit and interface. Bytes are counted when a connection closes.",
    variables=("unit",),
    rows=[
        Row("Is it fine?", [
            alerts(team="network"),
            fine("Sent again", share(rate(AGAIN), happened(SRTT)), unit="percentunit", decimals=2,
                 levels=[(0.01, WARN), (0.05, BAD)], empty=QUIET,
                 about="Segments sent again for each that was received."),
            fine("p99 of connects", quantile(0.99, CONNECT), unit="s", levels=[(0.25, WARN), (1, BAD)],
                 empty=QUIET),
            fine("Failed connects", or_zero(rate(FAILED)), unit="ops", levels=[(0.1, WARN), (10, BAD)]),
            fine("Accept overflows", or_zero(rate(OVERFLOWS)), unit="ops",
                 levels=[(0.001, WARN), (1, BAD)], about="Of the whole node, whatever unit is chosen."),
            fine("Resets received", or_zero(rate("kldtrace_tcp_resets_received_total")), unit="ops",
                 levels=[(1, WARN), (50, BAD)]),
        ]),
        Row("How much, how many errors, how long", [
            graph("Connects", (of_units(happened(CONNECT, by=("unit",))), "{{unit}}"), unit="ops"),
            graph("Failed connects, by reason", (of_units(rate(FAILED, by=("unit", "reason"))),
                                                 "{{unit}} {{reason}}"), unit="ops", empty=QUIET),
            graph("p99 of connects", (of_units(quantile(0.99, CONNECT, by=("unit",))), "{{unit}}"), unit="s"),
            heat("Round trip", buckets(SRTT)),
            graph("Round trip, p50 and p99", (quantile(0.5, SRTT), "p50"), (quantile(0.99, SRTT), "p99"),
                  unit="s"),
            graph("Segments received", (top(named(happened(SRTT, by=("interface",)), "interface")),
                                        "{{interface}}"), unit="pps"),
        ]),
        Row("What goes wrong", [
            graph("Segments sent again", (of_units(rate(AGAIN, by=("unit", "kind"))), "{{unit}} {{kind}}"),
                  unit="ops", empty=QUIET),
            graph("Sent again, by interface", (top(named(rate(AGAIN, by=("interface", "family")), "interface")),
                                               "{{interface}} {{family}}"), unit="ops", empty=QUIET),
            graph("Resets", (of_units(rate("kldtrace_tcp_resets_sent_total", by=("unit",))), "{{unit}} sent"),
                  (of_units(rate("kldtrace_tcp_resets_received_total", by=("unit",))), "{{unit}} received"),
                  unit="ops", empty=QUIET, about="Resets without a socket have no unit."),
            graph("Requests that listeners dropped", (of_units(rate(DROPS, by=("unit",))), "{{unit}}"),
                  unit="ops", empty="No listener dropped anything."),
            graph("Wait for the server to accept, p99",
                  (of_units(quantile(0.99, ACCEPT, by=("unit",))), "{{unit}}"), unit="s", empty=QUIET),
            heat("Wait for the server to accept", buckets(ACCEPT), empty=QUIET),
        ]),
        Row("Connections", [
            graph("Into each state", (rate("kldtrace_tcp_state_changes_total", by=("state",)), "{{state}}"),
                  unit="ops"),
            graph("Open at once", (of_units(spent(LIFE, by=("unit",))), "{{unit}}"), empty=QUIET,
                  about="By the lifetimes of those that closed."),
            heat("Lifetime", buckets(LIFE), empty=QUIET),
            graph("Bytes sent", (of_units(rate("kldtrace_tcp_sent_bytes_total", by=("unit",))), "{{unit}}"),
                  unit="Bps"),
            graph("Bytes received", (of_units(rate("kldtrace_tcp_received_bytes_total", by=("unit",))),
                                     "{{unit}}"), unit="Bps"),
        ]),
    ],
)
