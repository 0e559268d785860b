"""Queries for Prometheus, written so that a wrong name does not come far.

Names of metrics and their labels are those of docs/src/reference/signals.md,
which is generated from the catalogue.
"""

import pathlib
import re

REPOSITORY = pathlib.Path(__file__).parent.parent
# How `kldtrace export dashboards --match` finds what it replaces.
MATCH = 'job="kldtrace"'
# Labels that are variables, by the name of both.
VARIABLES = ("node", "plane", "pool", "dataset", "unit")
RANGE = "[$__rate_interval]"


def catalogue():
    """Labels by metric, and the metrics that are histograms."""
    text = (REPOSITORY / "docs/src/reference/signals.md").read_text()
    labels, histograms = {}, set()
    for section in text.split("\n### ")[1:]:
        metric = re.search(r"\| metric \| `(\w+)` \|", section)
        if metric is None:
            continue  # an event
        row = re.search(r"\| labels \| (.*) \|", section)[1]
        labels[metric[1]] = re.findall(r"`(\w+)`", row)
        if "| kind | Histogram |" in section:
            histograms.add(metric[1])
    return labels, histograms


LABELS, HISTOGRAMS = catalogue()


def chosen(*variables):
    """Matchers of the values that are chosen above the panels.

    Grafana's own quoting for Prometheus leaves `"` as it is. The format `regex`
    quotes for the regular expression, and in backticks nothing else has a
    meaning but a backtick: values with one are not offered.
    """
    return [f"{name}=~`${{{name}:regex}}`" for name in variables]


def series(metric, *matchers, suffix=""):
    """A selector of a metric of the catalogue. Each of its labels that people
    can choose is matched."""
    if metric not in LABELS:
        raise ValueError(f"{metric} is not in the catalogue")
    variables = [name for name in VARIABLES if name == "node" or name in LABELS[metric]]
    inside = [MATCH, *chosen(*variables), *matchers]
    return f"{metric}{suffix}{{{', '.join(inside)}}}"


def recorded(name, *matchers, variables=("node",)):
    """A selector of what a recording rule keeps; rules match the job."""
    inside = [*chosen(*variables), *matchers]
    return name + (f"{{{', '.join(inside)}}}" if inside else "")


def counted(metric):
    """Refuses a histogram where a counter is meant."""
    if metric in HISTOGRAMS:
        raise ValueError(f"{metric} is a histogram")
    return metric


def rate(metric, *matchers, by=()):
    """What a counter gains in a second."""
    inner = f"rate({series(counted(metric), *matchers)}{RANGE})"
    return summed(inner, by)


def sampled(metric, by=()):
    """A second's worth of what counts only while the kernel keeps statistics,
    which it does now and then: over ten minutes, and for each second of these."""
    watched = series("kldtrace_probe_stats_seconds_total")
    ours = summed(f"rate({series(counted(metric))}[10m])", by)
    return f"{ours} / scalar(sum (rate({watched}[10m])) > 0)"


def gained(metric, *matchers, by=()):
    """What a counter gained in the time that the panel shows."""
    selector = series(counted(metric), *matchers)
    return summed(f"increase({selector}[$__range])", by)


def gauge(metric, *matchers, by=()):
    """A gauge as it is, summed."""
    return summed(series(counted(metric), *matchers), by)


def summed(expression, by=()):
    labels = f" by ({', '.join(by)})" if by else ""
    return f"sum{labels} ({expression})"


def both(metric, matchers, by, native, classic):
    """One expression for native histograms and classic ones, whichever
    Prometheus keeps."""
    if metric not in HISTOGRAMS:
        raise ValueError(f"{metric} is no histogram")
    ours = f"rate({series(metric, *matchers)}{RANGE})"
    theirs = f"rate({series(metric, *matchers, suffix=classic)}{RANGE})"
    le = ("le",) if classic == "_bucket" else ()
    one = native.format(summed(ours, by))
    other = summed(theirs, (*by, *le))
    return f"{one} or {native.format(other) if le else other}"


def quantile(q, metric, *matchers, by=()):
    """A quantile of a histogram, in seconds."""
    return both(metric, matchers, by, f"histogram_quantile({q}, {{}})", "_bucket")


def happened(metric, *matchers, by=()):
    """Observations a second of a histogram."""
    return both(metric, matchers, by, "histogram_count({})", "_count")


def spent(metric, *matchers, by=()):
    """Seconds in each second: how many were at it, on average."""
    return both(metric, matchers, by, "histogram_sum({})", "_sum")


def heat(metric, *matchers):
    """The buckets of a histogram. The variable `histograms` is the end of the
    name: `seconds` of native histograms, `seconds_bucket` of classic ones."""
    if metric not in HISTOGRAMS:
        raise ValueError(f"{metric} is no histogram")
    stem = metric.removesuffix("seconds")
    named = series(metric, *matchers).replace(metric, stem + "${histograms}", 1)
    return summed(f"rate({named}{RANGE})", ("le",))


def top(expression, count=15):
    """The largest, so that a panel stays readable with 500 of them."""
    return f"topk({count}, {expression})"


def named(expression, *labels):
    """Labels that are empty get a name: a legend without words is no legend."""
    for label in labels:
        expression = f'label_replace({expression}, "{label}", "(none)", "{label}", "")'
    return expression


def or_zero(expression):
    """0 where nothing was seen; never for what may be absent."""
    return f"({expression}) or vector(0)"


def share(part, whole):
    """A share, where there is a whole."""
    return f"({part}) / ({whole} > 0)"
