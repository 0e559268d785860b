"""What is missing from all other dashboards: signals that a kernel does not
serve, and what was lost on the way."""

from promql import gained, gauge, or_zero, rate, series, share, summed, top
from style import BAD, GOOD, WARN, Board, Column, Row, alerts, bars, fine, graph, worst

SIGNAL = "kldtrace_signal_available"
ABSENT = "kldtrace_signal_absent"
LOSSES = "kldtrace_losses_total"
SENT = "kldtrace_push_entries_total"
TRIES = "kldtrace_push_requests_total"
NONE = "Nothing was lost."
NO_PUSH = "No Loki and no OTLP receiver is configured."
NO_JOURNAL = "The journal is not read ([journal] enabled)."
NO_TLS = "No certificate is configured."
LEFT = f'{series("kldtrace_certificate_expiry_timestamp_seconds")} - time()'

BOARD = Board(
    title="Losses and absent signals",
    description="An empty panel elsewhere is explained here: the signal is absent, a collector hangs, "
    "or something was lost.",
    rows=[
        Row("Is it fine?", [
            alerts(team="platform"),
            fine("Absent signals", f"count({series(ABSENT)}) or vector(0)", levels=[(1, WARN)],
                 decimals=0, about="kldtrace doctor says why."),
            fine("Lost", or_zero(gained(LOSSES)), levels=[(1, WARN), (1000, BAD)], decimals=0,
                 about="Measurements and attributions, in the time shown."),
            fine("Hanging collectors", f'count({series("kldtrace_collector_answers")} == 0) or vector(0)',
                 levels=[(1, BAD)], decimals=0),
            fine("Lost on the way out", or_zero(gained("kldtrace_push_lost_total")), levels=[(1, BAD)],
                 decimals=0),
            fine("Certificate left", f"min({LEFT})", unit="s", empty=NO_TLS, about="Of the first to expire.",
                 levels=[(None, BAD), (21600, WARN), (43200, GOOD)]),
        ]),
        Row("What is absent", [
            worst("Signals that this kernel does not serve", ("node", "signal"), [
                Column("Absent", f"max by (node, signal) ({series(ABSENT)})", decimals=0),
            ], width=12, height=8, empty="All signals are served."),
            graph("Signals", (f"sum({series(SIGNAL)})", "served"),
                  (f"count({series(SIGNAL)})", "asked for"), width=12),
            graph("Readings without a collector",
                  (rate("kldtrace_collector_left_out_total", by=("collector",)), "{{collector}}"),
                  unit="ops"),
            graph("Collectors that answer", (gauge("kldtrace_collector_answers", by=("collector",)),
                                             "{{collector}}")),
            graph("Versions", (summed(series("target_info"), by=("node", "version", "kernel")),
                               "{{node}} {{version}} on {{kernel}}"),
                  (summed(series("kldtrace_build_info"), by=("version",)), "nodes with {{version}}")),
        ]),
        Row("What was lost in the kernel", [
            graph("Losses, by where", (top(rate(LOSSES, by=("reason",))), "{{reason}}"), unit="ops"),
            graph("Runs that the kernel left out",
                  (top(rate("kldtrace_probe_misses_total", by=("program",))), "{{program}}"), unit="ops",
                  empty=NONE),
            bars("Fullest maps", (top(share(gauge("kldtrace_map_entries", by=("map",)),
                                            gauge("kldtrace_map_max_entries", by=("map",))), 10), "{{map}}"),
                 unit="percentunit", levels=[(None, GOOD), (0.8, WARN), (0.95, BAD)]),
            graph("Maps that are half full",
                  (top(gauge("kldtrace_map_fullness_ratio", by=("map",)), 10), "{{map}}"),
                  unit="percentunit", empty="No map is half full."),
            graph("Label sets folded into other", (gauge("kldtrace_series_folded", by=("subject",)),
                                                   "{{subject}}"), empty="All have room."),
            graph("Connections that the daemon ended",
                  (rate("kldtrace_connections_dropped_total", by=("listener", "reason")),
                   "{{listener}} {{reason}}"), unit="ops", empty=NONE),
        ]),
        Row("What is pushed", [
            graph("Entries", (rate(SENT, by=("destination", "result")), "{{destination}} {{result}}"),
                  unit="ops", empty=NO_PUSH),
            graph("Requests", (rate(TRIES, by=("destination", "result")), "{{destination}} {{result}}"),
                  unit="ops", empty=NO_PUSH),
            graph("Waiting", (gauge("kldtrace_push_waiting", by=("destination",)), "{{destination}}"),
                  empty=NO_PUSH),
            graph("Since something was taken",
                  ("time() - " + series("kldtrace_push_last_taken_timestamp_seconds"), "{{destination}}"),
                  unit="s", empty=NO_PUSH),
            graph("Lost", (rate("kldtrace_push_lost_total", by=("destination", "reason")),
                           "{{destination}} {{reason}}"),
                  (rate("kldtrace_push_events_missed_total"), "before the spool"), unit="ops", empty=NO_PUSH),
            graph("Spool", (gauge("kldtrace_spool_size_bytes"), "used"),
                  (gauge("kldtrace_spool_size_max_bytes"), "at most"), unit="bytes", empty=NO_PUSH),
            graph("Writes that the disk did not take", (rate("kldtrace_spool_failures_total"), "failures"),
                  unit="ops", empty=NO_PUSH),
        ]),
        Row("The journal and certificates", [
            graph("Entries of the journal", (rate("kldtrace_journal_entries_total", by=("result",)),
                                             "{{result}}"), unit="ops", empty=NO_JOURNAL),
            graph("Lines changed", (rate("kldtrace_journal_changed_total", by=("change",)), "{{change}}"),
                  unit="ops", empty=NO_JOURNAL),
            graph("Lost from the journal", (rate("kldtrace_journal_lost_total"), "entries"),
                  (rate("kldtrace_journal_gaps_total"), "gaps"),
                  (rate("kldtrace_journal_faults_total", by=("reason",)), "{{reason}}"),
                  unit="ops", empty=NO_JOURNAL),
            graph("Behind the journal", (gauge("kldtrace_journal_lag_seconds"), "lag"),
                  ("time() - " + series("kldtrace_journal_newest_timestamp_seconds"), "newest entry"),
                  unit="s", empty=NO_JOURNAL),
            graph("journalctl", (gauge("kldtrace_journal_reading"), "reads"), empty=NO_JOURNAL),
            graph("Certificates expire in", (f"min by (node, purpose) ({LEFT})", "{{purpose}}"), unit="s",
                  empty=NO_TLS),
            graph("Certificates taken and refused",
                  (rate("kldtrace_certificate_renewals_total", by=("purpose",)), "{{purpose}} taken"),
                  (rate("kldtrace_certificate_failures_total", by=("purpose",)), "{{purpose}} refused"),
                  unit="ops", empty=NO_TLS),
        ], collapsed=True),
    ],
)
