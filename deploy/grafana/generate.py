"""Writes the dashboards beside this file, as Grafana imports them.

generate.py           writes them
generate.py --check   says which are not what they would be; 1 if there are any
"""

import json
import pathlib
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder

import fleet
import node

FOLDER = pathlib.Path(__file__).parent


def main():
    old = []
    for name, board in {"fleet": fleet.dashboard(), "node": node.dashboard()}.items():
        built = board.build()
        for number, panel in enumerate(built.panels, start=1):
            panel.id_val = number
        path = FOLDER / f"podcreds-{name}.json"
        text = json.dumps(built, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"
        if sys.argv[1:] != ["--check"]:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            old.append(path.name)
    if old:
        sys.exit(f"not up to date: {', '.join(old)}")


main()
