"""Numbers as people read them, and axes with round ones."""

import math

SECONDS = [(1e-6, "µs"), (1e-3, "ms"), (1, "s"), (60, "min"), (3600, "h"), (86400, "d")]
BYTES = [(1, "B"), (2**10, "KiB"), (2**20, "MiB"), (2**30, "GiB")]
PLAIN = [(1, ""), (1e3, "K"), (1e6, "M"), (1e9, "G")]
BEHIND = {"reqps": " req/s", "cps": " c/s"}


def shown(value, unit):
    """A value with its unit, by the names that Grafana has for units."""
    if math.isnan(value):
        return "-"
    if unit == "percentunit":
        return f"{digits(value * 100)}%"
    scale = {"s": SECONDS, "bytes": BYTES}.get(unit, PLAIN)
    fitting = [step for step in scale if abs(value) >= step[0]]
    small = (1, "s") if unit == "s" and value == 0 else scale[0]
    size, name = fitting[-1] if fitting else small
    gap = " " if unit in ("s", "bytes") else ""
    return digits(value / size) + gap + name + BEHIND.get(unit, "")


def digits(value):
    """Three digits that count."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def ticks(most, unit, count=4):
    """Round values from 0 to the first that is not below `most`."""
    scale = {"s": SECONDS, "bytes": BYTES}.get(unit, [])
    # Below a second they are decimal.
    whole = max((size for size, _ in scale if 1 <= size <= most), default=1)
    most = most / whole
    rough = (most if most > 0 else 1) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)
    return [number * step * whole for number in range(math.ceil(most / step - 1e-9) + 1 if most > 0 else 2)]


def powers(least, most):
    """Powers of ten around these values."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]
