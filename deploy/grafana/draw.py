"""Draws a dashboard from a Prometheus as one SVG, where there is no Grafana.

    draw.py http://127.0.0.1:9090 podcreds-node.json node.svg --minutes 30 --set node=ip-10-0-3-17

It reads what Grafana reads: panels have their titles, units, legends, thresholds and places. It needs Python alone.
"""

import argparse
import json
import math
import re
import time
import urllib.parse
import urllib.request

import svg

POINTS = 120


def main():
    asked = arguments()
    with open(asked.dashboard, encoding="utf-8") as file:
        dashboard = json.load(file)
    end = asked.until or time.time()
    source = Source(asked.prometheus, end - asked.minutes * 60, end, variables(dashboard, asked))
    answers = [
        (panel, [source.answer(target) for target in panel.get("targets", [])]) for panel in dashboard["panels"]
    ]
    picture = svg.drawn(dashboard["title"], answers, (source.start, source.end))
    with open(asked.picture, "w", encoding="utf-8") as file:
        file.write(picture)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prometheus", help="its address")
    parser.add_argument("dashboard", help="the JSON file")
    parser.add_argument("picture", help="the SVG file to write")
    parser.add_argument("--minutes", type=float, default=360, help="how far to look back [360]")
    parser.add_argument("--until", type=float, help="the end, in seconds since 1970 [now]")
    parser.add_argument("--rate", default="", help="the range of rates [four minutes, or more if that is too short]")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="the value of a variable [.*]")
    return parser.parse_args()


def variables(dashboard, asked):
    """What stands for each variable: what was asked for, or everything."""
    step = asked.minutes * 60 / POINTS
    values = {variable["name"]: ".*" for variable in dashboard["templating"]["list"]}
    values["__rate_interval"] = asked.rate or f"{math.ceil(max(240, 60 + step))}s"
    return values | dict(setting.split("=", 1) for setting in asked.set)


class Source:
    """A Prometheus, and the time that is looked at."""

    def __init__(self, address, start, end, values):
        self.address, self.start, self.end, self.values = address.rstrip("/"), start, end, values

    def answer(self, target):
        """The series of a query: the name, the labels, and pairs of time and value."""
        query = re.sub(r"\$(\w+)", lambda name: self.values[name[1]], target["expr"])
        if target.get("range"):
            times = {"start": self.start, "end": self.end, "step": (self.end - self.start) / POINTS}
            found = self.ask("query_range", query, times)
        else:
            found = self.ask("query", query, {"time": self.end})
        return [self.series(target, it["metric"], it.get("values") or [it["value"]]) for it in found]

    def series(self, target, labels, values):
        legend = target.get("legendFormat") or ", ".join(f"{name}={value}" for name, value in labels.items())
        name = re.sub(r"{{\s*(\w+)\s*}}", lambda label: labels.get(label[1], ""), legend)
        return name, labels, [(at, float(value)) for at, value in values]

    def ask(self, what, query, times):
        parameters = urllib.parse.urlencode({"query": query} | times)
        with urllib.request.urlopen(f"{self.address}/api/v1/{what}?{parameters}", timeout=30) as answer:
            return json.load(answer)["data"]["result"]


if __name__ == "__main__":
    main()
