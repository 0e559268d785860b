"""What kldtrace itself costs."""

from promql import gauge, happened, heat as buckets, quantile, rate, recorded, series, share, summed, top
from style import BAD, WARN, Board, Row, alerts, bars, fine, graph, heat

RUN = "kldtrace_probe_run_seconds_total"
RUNS = "kldtrace_probe_runs_total"
WATCHED = "kldtrace_probe_stats_seconds_total"
CPU = "kldtrace_process_cpu_seconds_total"
MEMORY = "kldtrace_process_resident_memory_bytes"
MAPS = "kldtrace_map_memory_bytes"
SCRAPE = "kldtrace_scrape_duration_seconds"
# The kernel keeps statistics now and then only: time for time.
WATCH = "Measured only while the kernel keeps statistics of programs."

BOARD = Board(
    title="Overhead",
    description="CPU and memory of the daemon and of its programs in the kernel.",
    rows=[
        Row("Is it fine?", [
            alerts(team="platform"),
            fine("CPUs, all in all", summed(recorded("kldtrace:cost_cpus:rate10m")), decimals=4,
                 levels=[(0.05, WARN), (0.2, BAD)], about="Daemon and programs, over ten minutes."),
            fine("CPUs of the daemon", rate(CPU), decimals=4),
            fine("CPUs of the programs", share(rate(RUN), f"sum (rate({series(WATCHED)}[$__rate_interval]))"),
                 decimals=4, about=WATCH, empty="The kernel kept no statistics in this time."),
            fine("Memory of the daemon", gauge(MEMORY), unit="bytes", levels=[(256e6, WARN), (1e9, BAD)]),
            fine("Memory of the maps", gauge(MAPS), unit="bytes"),
        ]),
        Row("Programs in the kernel", [
            graph("Runs", (top(rate(RUNS, by=("program",))), "{{program}}"), unit="ops", about=WATCH,
                  empty="The kernel kept no statistics in this time."),
            graph("Time of a run", (top(share(rate(RUN, by=("program",)), rate(RUNS, by=("program",)))),
                                    "{{program}}"), unit="s", about=WATCH,
                  empty="The kernel kept no statistics in this time."),
            graph("CPUs", (top(rate(RUN, by=("program",))), "{{program}}"), about=WATCH, stacked=True,
                  empty="The kernel kept no statistics in this time."),
            graph("Time with statistics", (rate(WATCHED), "share of the time"), unit="percentunit"),
            bars("Memory of maps", (top(gauge(MAPS, by=("map",)), 10), "{{map}}"), unit="bytes"),
            graph("Memory of the daemon", (gauge(MEMORY), "resident"), unit="bytes"),
        ]),
        Row("The daemon", [
            graph("CPUs of the daemon", (rate(CPU), "user and system")),
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
