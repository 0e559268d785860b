"""What a node said: where links from a spike lead to."""

from promql import chosen
from style import Board, Row, lines, said

JOURNAL = "{" + ", ".join(['kind="journal"', *chosen("node", "unit")]) + "}"

BOARD = Board(
    title="Lines",
    description="Events and the journal of a node. A point in another dashboard leads here, to five "
    "minutes before it and after.",
    variables=("unit",),
    rows=[
        Row("Events", [
            lines("Slow operations on ZFS", said('kind="zfs.slow_operation"', "unit")),
            lines("Other events", said('kind=~".+", kind!~"journal|zfs.slow_operation"')),
        ]),
        Row("The journal", [
            lines("Errors and warnings", JOURNAL + ' | level=~"error|warn|warning|critical"'),
            lines("All lines", JOURNAL, height=16),
        ]),
    ],
)
