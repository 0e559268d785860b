"""What kldtrace itself costs."""

from promql import (
    gauge, happened, heat as buckets, quantile, rate, recorded, sampled, series, share, summed, top,
)
from style import BAD, WARN, Board, Row, alerts, bars, fine, graph, heat

RUN = "kldtrace_probe_run_seconds_total"
RUNS = "kldtrace_probe_runs_total"
WATCHED = "kldtrace_probe_stats_seconds_total"
CPU = "kldtrace_process_cpu_seconds_total"
MEMORY = "kldtrace_process_resident_memory_bytes"
MAPS = "kldtrace_map_memory_bytes"
SCRAPE = "kldtrace_scrape_duration_seconds"
WATCH = "Over ten minutes: the kernel keeps statistics of programs now and then only."

BOARD = Board(
    title="Overhead",
    description="CPU and memory of the daemon and of its programs in the kernel. 100 % is one CPU.",
    rows=[
        Row("Is it fine?", [
            alerts(team="platform"),
            fine("CPU, all in all", summed(recorded("kldtrace:cost_cpus:rate10m")), unit="percentunit",
                 decimals=2, levels=[(0.05, WARN), (0.2, BAD)],
                 about="Daemon and programs, over ten minutes. 100 % is one CPU."),
            fine("CPU of the daemon", rate(CPU), unit="percentunit", decimals=2),
            fine("CPU of programs", sampled(RUN), unit="percentunit", decimals=2, about=WATCH),
            fine("Daemon's memory", gauge(MEMORY), unit="bytes", levels=[(256e6, WARN), (1e9, BAD)]),
            fine("Memory of the maps", gauge(MAPS), unit="bytes"),
        ]),
        Row("Programs in the kernel", [
            graph("Runs", (top(sampled(RUNS, by=("program",))), "{{program}}"), unit="ops", about=WATCH),
            graph("Time of a run", (top(share(sampled(RUN, by=("program",)), sampled(RUNS, by=("program",)))),
                                    "{{program}}"), unit="s", about=WATCH),
            graph("CPU", (top(sampled(RUN, by=("program",))), "{{program}}"), about=WATCH, stacked=True,
                  unit="percentunit"),
            graph("Time with statistics", (rate(WATCHED), "share of the time"), unit="percentunit"),
            bars("Memory of maps", (top(gauge(MAPS, by=("map",)), 10), "{{map}}"), unit="bytes"),
            graph("Memory of the daemon", (gauge(MEMORY), "resident"), unit="bytes"),
        ]),
        Row("The daemon", [
            graph("CPU of the daemon", (rate(CPU), "user and system"), unit="percentunit"),
            graph("Scrapes", (happened(SCRAPE), "scrapes"), unit="ops"),
            graph("Time of a scrape", (quantile(0.5, SCRAPE), "p50"), (quantile(0.99, SCRAPE), "p99"),
                  unit="s"),
            heat("Scrapes by duration", buckets(SCRAPE)),
            graph("Attaching at the last start", (summed(series("kldtrace_attach_seconds")), "loading and attaching"),
                  unit="s"),
            graph("Cgroups that came and went", (rate("kldtrace_cgroup_events_total", by=("kind",)), "{{kind}}"),
                  unit="ops"),
            graph("Connections", (gauge("kldtrace_connections", by=("listener",)), "{{listener}}"),
                  (gauge("kldtrace_connections_max", by=("listener",)), "{{listener}} at most")),
        ]),
    ],
)
