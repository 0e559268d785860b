"""WireGuard: tunnels, handshakes, and what was dropped."""

from promql import (
    gained, happened, heat as buckets, named, or_zero, quantile, rate, series, top,
)
from style import BAD, WARN, Board, Column, Row, alerts, fine, graph, heat, lines, said, worst

SHAKE = "kldtrace_wireguard_handshake_latency_seconds"
DONE = "kldtrace_wireguard_handshakes_total"
FAILED = "kldtrace_wireguard_handshake_failures_total"
RETRIES = "kldtrace_wireguard_handshake_retries_total"
REFUSED = "kldtrace_wireguard_refused_packets_total"
ABANDONED = "kldtrace_wireguard_abandoned_packets_total"
DROPPED = "kldtrace_wireguard_dropped_packets_total"
LAST = "kldtrace_wireguard_last_handshake_timestamp_seconds"
PEER = ("interface", "peer")
NAME = "{{interface}} {{peer}}"
AGE = f"time() - max by (node, plane, interface, peer) ({series(LAST)})"


def of_peers(expression):
    return top(named(expression, "peer"))


BOARD = Board(
    title="WireGuard",
    description="Tunnels by peer: traffic, handshakes and what went wrong. A session lasts three "
    "minutes; a busy tunnel without a handshake for longer is broken.",
    variables=("plane",),
    rows=[
        Row("Is it fine?", [
            alerts(team="network"),
            fine("Peers", f"count({series(LAST)})", about="That ever had a handshake.", decimals=0),
            fine("Oldest handshake", f"max({AGE})", unit="s",
                 about="An idle tunnel has old ones: nothing is wrong with it."),
            fine("Failed handshakes", or_zero(gained(FAILED)), levels=[(1, WARN), (100, BAD)],
                 decimals=0),
            fine("p90 of handshakes", quantile(0.9, SHAKE, 'role="initiator"'), unit="s",
                 levels=[(0.5, WARN), (5, BAD)]),
            fine("Dropped packets", or_zero(gained(DROPPED)), levels=[(1, WARN), (1000, BAD)], decimals=0),
        ]),
        Row("How much, how many errors, how long", [
            graph("Received", (of_peers(rate("kldtrace_wireguard_received_bytes_total", by=PEER)), NAME),
                  unit="Bps"),
            graph("Sent", (of_peers(rate("kldtrace_wireguard_sent_bytes_total", by=PEER)), NAME),
                  unit="Bps"),
            graph("Packets", (top(rate("kldtrace_wireguard_packets_total", by=("interface", "direction"))),
                              "{{interface}} {{direction}}"), unit="pps"),
            graph("Failures", (of_peers(rate(FAILED, by=(*PEER, "reason"))), NAME + " {{reason}}"),
                  unit="ops", about="Without a peer: from somebody who is none."),
            graph("p90 of handshakes", (of_peers(quantile(0.9, SHAKE, by=(*PEER, "role"))),
                                        NAME + " as {{role}}"), unit="s", exemplars=True),
            heat("Handshakes by duration", buckets(SHAKE)),
        ]),
        Row("Handshakes", [
            graph("Completed, by why they began", (rate(DONE, by=("reason",)), "{{reason}}"), unit="ops"),
            graph("Observed", (happened(SHAKE, by=("role",)), "as {{role}}"), unit="ops",
                  about="Those whose duration is known."),
            graph("Messages", (rate("kldtrace_wireguard_handshake_messages_total",
                                    by=("direction", "message")), "{{direction}} {{message}}"), unit="ops"),
            graph("Tried again", (of_peers(rate(RETRIES, by=PEER)), NAME), unit="ops"),
            worst("Peers, the longest without a handshake first", ("node", "plane", "interface", "peer"), [
                Column("Last handshake ago", f"topk(100, {AGE})", "s", ((180, WARN), (3600, BAD))),
            ], width=16, height=8),
        ]),
        Row("What was dropped", [
            graph("By interface and reason", (top(rate(DROPPED, by=("interface", "direction", "reason"))),
                                              "{{interface}} {{direction}} {{reason}}"), unit="pps"),
            graph("Waited for a session that never came", (of_peers(rate(ABANDONED, by=PEER)), NAME),
                  unit="pps"),
            graph("Refused in a session", (of_peers(rate(REFUSED, by=PEER)), NAME), unit="pps",
                  about="Not decrypted, seen before, expired, or from an address that is not the peer's."),
            lines("Handshakes and failures", said('kind=~"wireguard.+"', "plane")),
        ]),
    ],
)
