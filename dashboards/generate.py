"""Writes dashboards/json/ from dashboards/boards/: one file for each.

    python3 dashboards/generate.py            # writes
    python3 dashboards/generate.py --check    # says what differs, and fails
"""

import importlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
JSON = HERE / "json"

sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE))


def texts():
    """What each file has to have."""
    from style import model

    for source in sorted((HERE / "boards").glob("*.py")):
        name = source.stem.replace("_", "-")
        board = importlib.import_module(f"boards.{source.stem}").BOARD
        # Sorted keys: whoever reads and writes it again gets the same text.
        text = json.dumps(model(name, board), indent=2, sort_keys=True, ensure_ascii=False)
        yield f"kldtrace-{name}.json", text + "\n"


def main(arguments):
    wanted = dict(texts())
    there = {path.name: path.read_text() for path in JSON.glob("*")}
    differ = sorted(name for name in wanted.keys() | there if wanted.get(name) != there.get(name))
    if arguments == ["--check"]:
        for name in differ:
            print(f"dashboards/json/{name} is not what dashboards/boards/ makes")
        return 1 if differ else 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    JSON.mkdir(exist_ok=True)
    for name in differ:
        if name in wanted:
            (JSON / name).write_text(wanted[name])
        else:
            (JSON / name).unlink()
        print(f"dashboards/json/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
