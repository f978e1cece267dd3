"""A dashboard as SVG: its rows, and its panels where Grafana puts them."""

import math
from html import escape

from units import powers, shown, ticks

COLUMN, LINE, GAP, HEAD = 60, 26, 8, 46
COLOURS = ["#3274d9", "#37872d", "#e0b400", "#c4162a", "#8f3bb8", "#fa6400", "#0097a7", "#7c2ea3", "#6b7280", "#a16946"]
NAMED = {"green": "#37872d", "orange": "#fa6400", "red": "#c4162a", "yellow": "#e0b400"}
STYLE = (
    "text{font:11px sans-serif;fill:#24292e}.t{font-size:13px;font-weight:600}.a{fill:#6b7280;font-size:10px}"
    ".r{font-size:16px;font-weight:600}.e{text-anchor:end}.m{text-anchor:middle}.g{stroke:#e5e7eb}"
    ".l{fill:none;stroke-width:1.3;stroke-linejoin:round}"
)


def drawn(title, panels, span):
    """The picture of a dashboard, from its panels and what each one's queries have answered."""
    places = [panel["gridPos"] for panel, _ in panels]
    width = 24 * COLUMN + GAP
    height = HEAD + GAP + max(place["y"] + place["h"] for place in places) * LINE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#f4f5f5"/>',
        text(GAP + 4, 30, title, "r"),
    ]
    for panel, answers in panels:
        place = panel["gridPos"]
        x, y = GAP + place["x"] * COLUMN, HEAD + place["y"] * LINE
        w, h = place["w"] * COLUMN - GAP, place["h"] * LINE - GAP
        parts.append(f'<g transform="translate({x} {y})">')
        if panel["type"] == "row":
            parts.append(text(4, 17, panel["title"], "r"))
        else:
            series = [it for answer in answers for it in answer]
            parts.append(f'<rect width="{w}" height="{h}" rx="3" fill="#fff" stroke="#dcdfe3"/>')
            parts.append(text(10, 19, panel["title"], "t"))
            parts.extend(DRAW[panel["type"]](panel, series, w, h, span) if series else [empty(w, h)])
        parts.append("</g>")
    return "\n".join(parts + ["</svg>\n"])


def text(x, y, words, kind="", colour=""):
    fill = f' style="fill:{colour}"' if colour else ""
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{round(x)}" y="{round(y)}"{kind}{fill}>{escape(str(words))}</text>'


def cut(words, width):
    """As much of a text as there is room for."""
    room = max(4, int(width / 5.8))
    return words if len(words) <= room else words[: room - 1] + "…"


def empty(w, h):
    return text(w / 2, h / 2 + 8, "No data", "a m")


def limits(panel):
    """Values from which on a colour holds."""
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    return [(-math.inf if step["value"] is None else step["value"], step["color"]) for step in steps]


def stat(panel, series, w, h, _span):
    """One value, in the colour of its threshold."""
    name, _, values = series[0]
    value = values[-1][1]
    colour = next((colour for limit, colour in reversed(limits(panel)) if value >= limit), "green")
    is_name = panel["options"]["textMode"] == "name"
    words = name if is_name else shown(value, panel["fieldConfig"]["defaults"]["unit"])
    size = min(34, int(1.6 * w / max(len(words), 1)))
    style = f'style="font-size:{size}px;fill:{NAMED.get(colour, colour)}"'
    return [f'<text x="{w / 2:.0f}" y="{h / 2 + 22:.0f}" class="m" {style}>{escape(words)}</text>']


def table(panel, series, w, h, _span):
    """A line for each series: its labels, and its value."""
    names = sorted({name for _, labels, _ in series for name in labels if name != "__name__"})
    unit = panel["fieldConfig"]["defaults"]["unit"]
    rows = [[labels.get(name, "") for name in names] + [shown(values[-1][1], unit)] for _, labels, values in series]
    rows = [names + ["Value"]] + rows[: int((h - 50) / 17)]
    # Each column has its share of the width.
    longest = [max(len(cell) for cell in column) + 2 for column in zip(*rows)]
    parts, x = [], 10
    for long, column in zip(longest, zip(*rows)):
        width = (w - 20) * long / sum(longest)
        for line, cell in enumerate(column):
            if cell:
                parts.append(text(x, 42 + line * 17, cut(cell, width - 4), "" if line else "a"))
        x += width
    return parts


class Paper:
    """Where times and values are in a panel."""

    def __init__(self, w, h, span, marks, is_log=False):
        self.left, self.right, self.top, self.bottom = 70, w - 18, 32, h - 46
        self.span, self.marks, self.is_log = span, marks, is_log

    def x(self, at):
        start, end = self.span
        return self.left + (at - start) / (end - start) * (self.right - self.left)

    def y(self, value):
        scale = math.log10 if self.is_log else float
        low, high = scale(self.marks[0]), scale(self.marks[-1])
        share = (scale(max(value, self.marks[0])) - low) / (high - low)
        return self.bottom - min(share, 1.05) * (self.bottom - self.top)

    def grid(self, unit):
        """Lines across, with their values, and times below."""
        parts = []
        for mark in self.marks:
            y = round(self.y(mark))
            parts.append(f'<path class="g" d="M{self.left} {y}H{self.right}"/>')
            parts.append(text(self.left - 6, y + 4, shown(mark, unit), "a e"))
        return parts + self.times()

    def times(self):
        """Times since the beginning."""
        start, end = self.span
        spans = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)
        step = next((step for step in spans if (end - start) / step <= 6), (end - start) / 6)
        marks = range(int((end - start) / step) + 1)
        return [text(self.x(start + mark * step), self.bottom + 14, clock(mark * step), "a m") for mark in marks]


def clock(seconds):
    hours, seconds = divmod(int(seconds), 3600)
    minutes, seconds = divmod(seconds, 60)
    return f"{hours}:{minutes:02}h" if hours else f"{minutes}:{seconds:02}"


def graph(panel, series, w, h, span):
    """Lines over time."""
    settings = panel["fieldConfig"]["defaults"]
    custom = settings["custom"]
    is_log = custom.get("scaleDistribution", {}).get("type") == "log"
    is_stacked = custom.get("stacking", {}).get("mode") == "normal"
    lines = [(name, [(at, value) for at, value in values if math.isfinite(value)]) for name, _, values in series]
    lines = [line for line in lines if line[1]]
    if not lines:
        return [empty(w, h)]
    below = stack(lines) if is_stacked else None
    tops = [value for _, values in lines for _, value in values]
    dashed = [limit for limit, _ in limits(panel)[1:]] if "thresholdsStyle" in custom else []
    if is_log:
        positive = [value for value in tops if value > 0] or [1]
        paper = Paper(w, h, span, powers(min(positive), max(positive)), True)
    else:
        paper = Paper(w, h, span, ticks(max(tops + dashed), settings["unit"]))
    parts = paper.grid(settings["unit"])
    parts += [
        f'<path d="M{paper.left} {paper.y(limit):.0f}H{paper.right}" stroke="#c4162a" stroke-dasharray="6 5"/>'
        for limit in dashed
    ]
    pause = (span[1] - span[0]) / 120 * 1.5
    for number, (_, values) in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        if is_stacked:
            edge = list(reversed(below[number]))
            parts.append(f'<path d="{path(paper, values + edge)}z" fill="{colour}" fill-opacity=".3"/>')
        pieces = "".join(path(paper, piece) for piece in without_gaps(values, pause))
        parts.append(f'<path class="l" stroke="{colour}" d="{pieces}"/>')
    return parts + legend([name for name, _ in lines], w, h)


def stack(lines):
    """Puts each line on those before it. Returns what each one stands on."""
    sums, below = {}, []
    for number, (name, values) in enumerate(lines):
        below.append([(at, sums.get(at, 0)) for at, _ in values])
        lines[number] = (name, [(at, sums.get(at, 0) + value) for at, value in values])
        sums.update(lines[number][1])
    return below


def without_gaps(values, pause):
    """Parts of a line between which nothing was measured."""
    pieces = []
    for at, value in values:
        if not pieces or at - pieces[-1][-1][0] > pause:
            pieces.append([])
        pieces[-1].append((at, value))
    return pieces


def path(paper, values):
    """Through these points, in whole steps from each to the next; none where the line stays level."""
    points = [(round(paper.x(at)), round(paper.y(value))) for at, value in values]
    kept = [
        point
        for number, point in enumerate(points)
        if number in (0, len(points) - 1) or not points[number - 1][1] == point[1] == points[number + 1][1]
    ]
    (x, y), steps = kept[0], ""
    for to_x, to_y in kept[1:]:
        steps += f"h{to_x - x}" if to_y == y else f"l{to_x - x} {to_y - y}"
        x, y = to_x, to_y
    # A single point is a dot.
    return f"M{kept[0][0]} {kept[0][1]}{steps or 'h2'}"


def legend(names, w, h):
    """The colours of lines, in two lines at most."""
    parts, x, y = [], 12, h - 18
    for number, name in enumerate(names):
        words = cut(name or "value", 190)
        width = 24 + len(words) * 6.9
        if x + width > w - 40:
            if y > h - 12:
                return parts + [text(x, y, f"+{len(names) - number}", "a")]
            x, y = 12, h - 5
        parts.append(f'<path d="M{x} {y - 4}h12" stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="3"/>')
        parts.append(text(x + 16, y, words))
        x += width
    return parts


def heat_map(panel, series, w, h, span):
    """How many observations are between one limit and the next, as time goes by."""
    by_limit = sorted((float(labels["le"]), dict(values)) for _, labels, values in series)
    counts, before = [], {}
    for limit, values in by_limit:
        counts.append((limit, {at: max(0, value - before.get(at, 0)) for at, value in values.items()}))
        before = values
    used = [number for number, (_, values) in enumerate(counts) if max(values.values()) > 0]
    if not used:
        return [empty(w, h)]
    # With one bucket on each side of those that are not empty.
    counts = counts[max(0, used[0] - 1) : used[-1] + 2]
    paper = Paper(w, h, span, [0, len(counts)])
    most = max(max(values.values()) for _, values in counts)
    width = math.ceil((paper.right - paper.left) / 120)
    height = (paper.bottom - paper.top) / len(counts)
    cells = {}
    for number, (_, values) in enumerate(counts):
        for at, value in values.items():
            shade = math.ceil((value / most) ** 0.5 * 10)
            top, bottom = round(paper.y(number + 1)), round(paper.y(number))
            cell = f"M{round(paper.x(at)) - width} {top}h{width}v{bottom - top - 1}h-{width}z"
            cells.setdefault(shade, []).append(cell)
    parts = paper.times()
    every = math.ceil(14 / height)
    unit = panel["options"]["yAxis"]["unit"]
    for number, (limit, _) in enumerate(counts):
        if number % every == 0 and math.isfinite(limit):
            parts.append(text(paper.left - 6, paper.y(number + 1) + 4, shown(limit, unit), "a e"))
    for shade, squares in sorted(cells.items()):
        if shade:
            parts.append(f'<path fill="hsl({34 - shade},90%,{90 - 5 * shade}%)" d="{"".join(squares)}"/>')
    return parts + [text(12, h - 12, f"darkest: {shown(most, 'short')} in one step", "a")]


DRAW = {"timeseries": graph, "stat": stat, "table": table, "heatmap": heat_map}
