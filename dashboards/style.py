"""How every dashboard looks: variables above, rows of panels below.

A board is a module of boards/ with `BOARD = Board(...)`. Its rows answer, in
this order: is it fine; how much, how many errors, how long; where the time
goes. A panel that may rightly be empty says with `empty=` what that means, and
Grafana shows these words; any other panel without data fails the tests.
"""

import dataclasses

from grafana_foundation_sdk.builders import (
    bargauge, common, dashboard, heatmap, logs, loki, prometheus, stat, table, timeseries,
)
from grafana_foundation_sdk.models import common as words
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_words
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

from promql import LABELS, MATCH, chosen

TAG = "kldtrace"
WIDTH = 24
# Meanings, not tastes: the same in every panel.
GOOD, WARN, BAD, CALM = "green", "orange", "red", "blue"
# What reads and writes, or a stage of an operation, looks like everywhere.
COLOURS = {
    "op": {"read": "blue", "write": "orange", "fsync": "purple", "flush": "purple",
           "discard": "gray"},
    "stage": {"cpu": "green", "runqueue": "yellow", "arc_miss": "blue", "zil_commit": "purple",
              "throttle": "red", "txg_wait": "orange", "other_wait": "gray"},
    "verdict": {"pass": "green", "drop": "red", "would_drop": "orange", "limited": "purple"},
}
COLOURS["type"] = COLOURS["op"]
SOURCES = {"prometheus": "Prometheus", "loki": "Loki", "tempo": "Tempo"}
# In a link to the lines of a node: the nodes that are chosen, or that of a series.
CHOSEN = "${node:queryparam}"
OF_SERIES = "var-node=${__field.labels.node:percentencode}"
# What this version of the SDK writes and Grafana's schema does not have.
UNKNOWN = ("auto", "auto_count", "auto_min", "footer")
# A label that is missing is matched, too, and line ends in a value.
ALL = "(?s:.*)"
# Which metric's values of a label are offered.
OFFERED_BY = {
    "node": "up",
    "plane": "kldtrace_plane_enforcing|kldtrace_wireguard_packets_total",
    "pool": "kldtrace_zfs_pool_state",
    "dataset": "kldtrace_zfs_op_bytes_total",
    "unit": "kldtrace_sched_context_switches_total",
}
# Grafana offers no value that the queries cannot quote.
OFFERED = "/^[^`]*$/"


@dataclasses.dataclass
class Board:
    """One dashboard. `node="all"` is for those that look at all nodes."""

    title: str
    description: str
    rows: list
    variables: tuple = ()
    node: str = "chosen"


@dataclasses.dataclass
class Row:
    title: str
    panels: list
    collapsed: bool = False


def source(name):
    return models.DataSourceRef(type_val=name, uid=f"${{{name}}}")


def lines_link(nodes):
    """To the lines of these nodes, five minutes to either side of a point."""
    url = f"/d/kldtrace-lines?{nodes}&${{loki:queryparam}}"
    url += "&time=${__value.time}&time.window=600000"
    return dashboard.DashboardLink("What the node said then").url(url)


def query(expression, legend="", instant=False, exemplars=False, form=None):
    one = prometheus.Dataquery().expr(expression).editor_mode(QueryEditorMode.CODE)
    one = one.instant() if instant else one.range()
    one.legend_format(legend or "__auto").datasource(source("prometheus")).exemplar(exemplars)
    if form:
        one.format(form)
    return one


def with_queries(panel, queries):
    for letter, one in zip("ABCDEFGHIJKL", queries, strict=False):
        panel.with_target(one.ref_id(letter))
    return panel


def begun(panel, title, about, width, height, empty):
    panel.title(title).span(width).height(height).datasource(source("prometheus"))
    if about:
        panel.description(about)
    if empty:
        panel.no_value(empty)
    return panel


def fixed(colour):
    return models.DynamicConfigValue(
        id_val="color", value={"mode": "fixed", "fixedColor": colour}
    )


def limits(levels):
    """`[(from, colour), …]`, ascending; what is below the first is good."""
    first, *rest = levels if levels and levels[0][0] is None else [(None, GOOD), *levels]
    steps = [models.Threshold(value=value, color=colour) for value, colour in (first, *rest)]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def fine(title, expression, unit="short", levels=(), about="", empty=None, decimals=None, height=4,
         instant=False):
    """One number of the first row, whose colour says whether it is fine. With
    `instant`, without the line below it: for what is dear with 500 nodes."""
    room = 17 if about else 19  # the mark of the description takes some
    if len(title) > room:
        raise ValueError(f"{title!r} would be cut: at most {room} letters")
    if unit == "short" and decimals == 0:
        unit = "locale"  # 3,012 and not 3 K
    panel = begun(stat.Panel(), title, about, 4, height, empty).unit(unit)
    panel.thresholds(limits(list(levels))).graph_mode(words.BigValueGraphMode.AREA)
    panel.color_mode(words.BigValueColorMode.VALUE if levels else words.BigValueColorMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    if decimals is not None:
        panel.decimals(decimals)
    return with_queries(panel, [query(expression, instant=instant)])


def alerts(team=None, everywhere=False):
    """How many alerts fire."""
    # Alerts have the labels that their rules sum by, not those of `--match`.
    inside = ['alertstate="firing"', 'severity!="none"']
    inside += [] if everywhere else chosen("node")
    inside += [f'team="{team}"' if team else 'team=~"storage|network|platform"']
    return fine(
        "Alerts", f"count(ALERTS{{{', '.join(inside)}}}) or vector(0)", levels=[(1, BAD)],
        about="Alerts that fire, of kldtrace's rules.", decimals=0,
    )


def graph(title, *queries, unit="short", about="", empty=None, width=8, stacked=False, low=0,
          exemplars=False, nodes=CHOSEN):
    """Lines over time: each query is an expression and a legend."""
    panel = begun(timeseries.Panel(), title, about, width, 8, empty).unit(unit)
    panel.line_width(1).fill_opacity(30 if stacked else 8).show_points(words.VisibilityMode.AUTO)
    panel.legend(
        common.VizLegendOptions().display_mode(words.LegendDisplayMode.TABLE)
        .placement(words.LegendPlacement.BOTTOM).show_legend(True).calcs(["mean", "max"])
        .sort_by("Max").sort_desc(True)
    )
    panel.tooltip(
        common.VizTooltipOptions().mode(words.TooltipDisplayMode.MULTI)
        .sort(words.SortOrder.DESCENDING)
    )
    panel.data_links([lines_link(nodes)])
    if low is not None:
        panel.min(low)
    if stacked:
        panel.stacking(common.StackingConfig().mode(words.StackingMode.NORMAL))
    legends = " ".join(legend for _, legend in queries)
    for label, colours in COLOURS.items():
        if f"{{{{{label}}}}}" in legends:
            for word, colour in colours.items():
                panel.override_by_regexp(rf"/(^| ){word}$/", [fixed(colour)])
    made = [query(text, legend, exemplars=exemplars) for text, legend in queries]
    return with_queries(panel, made)


def heat(title, expression, about="", width=8, empty=None):
    """Where the durations are: time to the right, duration upwards."""
    panel = begun(heatmap.Panel(), title, about, width, 8, empty)
    panel.calculate(False).color(
        heatmap.HeatmapColorOptions().mode(heatmap_words.HeatmapColorMode.SCHEME)
        .scheme("Oranges").fill("dark-orange").steps(64).exponent(0.5).reverse(False)
        .scale(heatmap_words.HeatmapColorScale.EXPONENTIAL)
    )
    panel.y_axis(heatmap.YAxisConfig().unit("s").axis_placement(words.AxisPlacement.LEFT))
    panel.cell_values(heatmap.CellValues().unit("ops"))
    panel.filter_values(heatmap.FilterValueRange().le(0))
    panel.rows_frame(heatmap.RowsHeatmapOptions().layout(words.HeatmapCellLayout.LE))
    panel.show_legend().mode(words.TooltipDisplayMode.SINGLE).show_color_scale(True)
    panel.show_y_histogram().cell_gap(1).exemplars_color("rgba(255,0,255,0.7)")
    return with_queries(panel, [query(expression, "{{le}}", exemplars=True, form=PromQueryFormat.HEATMAP)])


def bars(title, *queries, unit="short", about="", empty=None, width=8, levels=()):
    """What there is now, each as a bar, the longest on top; queries as those of
    `graph`."""
    panel = begun(bargauge.Panel(), title, about, width, 8, empty).unit(unit).min(0)
    panel.orientation(words.VizOrientation.HORIZONTAL)
    panel.display_mode(words.BarGaugeDisplayMode.BASIC)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.thresholds(limits(list(levels) or [(None, CALM)]))
    made = [query(f"sort_desc({text})", legend, instant=True) for text, legend in queries]
    return with_queries(panel, made)


@dataclasses.dataclass
class Column:
    """A column of a table: what it shows, and how."""

    title: str
    expression: str
    unit: str = "short"
    levels: tuple = ()
    decimals: int = None


def worst(title, key, columns, about="", empty=None, width=WIDTH, height=10, link=None):
    """A table with a line for each value of the labels in `key`, the worst by
    the first column on top."""
    panel = begun(table.Panel(), title, about, width, height, empty)
    queries = [
        query(column.expression, instant=True, form=PromQueryFormat.TABLE) for column in columns
    ]
    panel.min_width(60)
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    names = {f"Value #{letter}": column.title for letter, column in zip("ABCDEFGHIJKL", columns)}
    if len(columns) == 1:
        names = {"Value": columns[0].title}
    order = {name: at for at, name in enumerate([*key, *names])}
    panel.with_transformation(models.DataTransformerConfig(
        id_val="organize",
        options={"excludeByName": {"Time": True}, "indexByName": order, "renameByName": names},
    ))
    panel.sort_by([common.TableSortByFieldState().display_name(columns[0].title).desc(True)])
    for column in columns:
        how = [models.DynamicConfigValue(id_val="unit", value=column.unit)]
        if column.decimals is not None:
            how.append(models.DynamicConfigValue(id_val="decimals", value=column.decimals))
        if column.levels:
            steps = limits(list(column.levels)).build().to_json()
            how.append(models.DynamicConfigValue(id_val="thresholds", value=steps))
            cell = {"type": "color-text"}
            how.append(models.DynamicConfigValue(id_val="custom.cellOptions", value=cell))
        panel.override_by_name(column.title, how)
    if link:
        target = f"/d/{link}?var-node=${{__data.fields.node:percentencode}}&${{__url_time_range}}"
        to = dashboard.DashboardLink("This node").url(target).build().to_json()
        panel.override_by_name("node", [models.DynamicConfigValue(id_val="links", value=[to])])
    return with_queries(panel, queries)


def lines(title, *expressions, about="", empty="Nothing was said.", width=WIDTH, height=10):
    """Lines from Loki."""
    panel = begun(logs.Panel(), title, about, width, height, empty).datasource(source("loki"))
    panel.show_time(True).show_labels(False).show_common_labels(False).wrap_log_message(True)
    panel.prettify_log_message(False).enable_log_details(True)
    panel.sort_order(words.LogsSortOrder.DESCENDING).dedup_strategy(words.LogsDedupStrategy.NONE)
    queries = [
        loki.Dataquery().expr(text).query_type("range").datasource(source("loki"))
        for text in expressions
    ]
    return with_queries(panel, queries)


def said(kind, *labels, filters=()):
    """Lines of a kind, from the nodes that are chosen. Labels other than Loki's
    own are structured metadata."""
    stream = [kind, *chosen("node"), *chosen(*(name for name in labels if name in ("unit", "plane")))]
    rest = [one for name in labels if name not in ("unit", "plane") for one in chosen(name)]
    return f"{{{', '.join(stream)}}}" + "".join(f" | {one}" for one in [*rest, *filters])


def variable(name, before):
    """A label whose values people choose. Nodes are chosen one by one: 500 of
    them at once would be too much for any panel."""
    all_of_them = name != "node"
    metric = OFFERED_BY[name]
    known = ("node", *LABELS.get(metric, ()))
    matchers = [MATCH, *chosen(*(one for one in before if one in known))]
    if "|" in metric:
        metric, matchers = "", [f'__name__=~"{metric}"', *matchers]
    one = (
        dashboard.QueryVariable(name).label(name.capitalize()).datasource(source("prometheus"))
        .query({"query": f"label_values({metric}{{{', '.join(matchers)}}}, {name})", "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True)
        .sort(models.VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC).regex(OFFERED)
        .include_all(all_of_them)
    )
    if all_of_them:
        every = models.VariableOption(text="All", value="$__all", selected=True)
        one.all_value(ALL).current(every)
    return one


def histograms():
    """Which form of histograms Prometheus has: the end of their names."""
    name = "kldtrace_scrape_duration_seconds"
    selector = f'{{__name__=~"{name}(_bucket)?", {MATCH}}}'
    return (
        dashboard.QueryVariable("histograms").label("Histograms")
        .description("seconds: native histograms; seconds_bucket: classic ones")
        .datasource(source("prometheus"))
        .query({"query": f"label_values({selector}, __name__)", "refId": "histograms"})
        .regex("/kldtrace_scrape_duration_(.*)/").multi(False).include_all(False)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def with_variables(made, board):
    for name, title in SOURCES.items():
        here = models.VariableOption(text=name, value=name, selected=True)
        made.with_variable(
            dashboard.DatasourceVariable(name).label(title).type(name).multi(False).current(here)
        )
    names = (("node",) if board.node == "chosen" else ()) + tuple(board.variables)
    for at, name in enumerate(names):
        made.with_variable(variable(name, names[:at]))
    panels = [panel.build() for row in board.rows for panel in row.panels]
    if "${histograms}" in str(as_json(panels)):
        made.with_variable(histograms())


def with_rows(made, board):
    """Rows from top to bottom, panels from left to right. Ids count up, so that
    links to a panel hold as long as its place does."""
    number, y = 1, 0
    for row in board.rows:
        head = dashboard.Row(row.title).collapsed(row.collapsed).id(number)
        head.grid_pos(models.GridPos(x=0, y=y, w=WIDTH, h=1))
        number, y, x, tall = number + 1, y + 1, 0, 0
        below = []
        for panel in row.panels:
            place = panel.build().grid_pos
            if x + place.w > WIDTH:
                x, y, tall = 0, y + tall, 0
            panel.grid_pos(models.GridPos(x=x, y=y, w=place.w, h=place.h)).id(number)
            number, x, tall = number + 1, x + place.w, max(tall, place.h)
            below.append(panel)
        y += tall
        if row.collapsed:
            for panel in below:
                head.with_panel(panel)
        made.with_row(head)
        if not row.collapsed:
            for panel in below:
                made.with_panel(panel)


def model(name, board):
    """The JSON of a board, as Python has it."""
    made = (
        dashboard.Dashboard(f"kldtrace / {board.title}").uid(f"kldtrace-{name}").tags([TAG])
        .description(board.description).editable().refresh("30s").time("now-1h", "now")
        .timezone("browser").tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("kldtrace").type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG]).as_dropdown(True).include_vars(True).keep_time(True)
        )
    )
    with_variables(made, board)
    with_rows(made, board)
    return as_json(made.build())


def as_json(value):
    """What the SDK's own encoder would write, as plain values."""
    if hasattr(value, "to_json"):
        return as_json(value.to_json())
    if isinstance(value, dict):
        return {key: as_json(one) for key, one in value.items() if key not in UNKNOWN}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    return value


