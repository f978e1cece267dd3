"""What the panels and variables of both dashboards have in common."""

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models import prometheus as query

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
# What every query selects by.
ALL = 'cluster=~"$cluster", namespace=~"$namespace", job=~"$job"'
FLEET = ALL + ', node=~"$node"'
NODE = ALL + ', node="$node"'
# A script that installs the dashboards may put an address here.
RUNBOOK = "docs/runbook.md"


def rate(metric, selector):
    """How often something happens in a second."""
    return f"rate({metric}{{{selector}}}[$__rate_interval])"


def times(metric, selector):
    """How often it happens between two points of the graph."""
    return f"increase({metric}{{{selector}}}[$__rate_interval])"


def quantile(share, metric, selector, by="le"):
    """A quantile of a histogram."""
    buckets = rate(f"{metric}_bucket", selector)
    return f"histogram_quantile({share}, sum by ({by}) ({buckets}))"


def queries(panel, expressions, instant=False, form=query.PromQueryFormat.TIME_SERIES):
    """Adds queries, each with the name that its series have."""
    for letter, (expression, legend) in zip("ABCDEFGH", expressions):
        target = prometheus.Dataquery().ref_id(letter).datasource(SOURCE).expr(expression).format(form)
        panel = panel.with_target((target.instant() if instant else target.range()).legend_format(legend))
    return panel


def described(panel, title, unit, what, then, section, span, height):
    """What every panel has: what it shows, what to do when it looks wrong, and where to read on."""
    link = build.DashboardLink("Runbook").type(model.DashboardLinkType.LINK).target_blank(True)
    return (
        panel.title(title)
        .unit(unit)
        .description(f"{what}\n\n**When it looks wrong**: {then}")
        .links([link.url(f"${{runbook}}#{section.lower()}")])
        .datasource(SOURCE)
        .span(span)
        .height(height)
    )


def steps(*limits):
    """Colours from a value on: ("green", None), ("red", 5)."""
    marks = [model.Threshold(value=value, color=color) for color, value in limits]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(marks)


def graph(title, unit, what, then, section, *expressions, span=8, stacked=False, log=False, limit=None):
    """Series over time."""
    panel = (
        timeseries.Panel()
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
        .line_width(1)
        .fill_opacity(30 if stacked else 10)
        .show_points(options.VisibilityMode.NEVER)
    )
    # A scale by powers of ten has no zero.
    panel = (
        panel.scale_distribution(common.ScaleDistributionConfig().type(options.ScaleDistribution.LOG).log(10))
        if log
        else panel.min(0)
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL).group("A"))
    if limit is not None:
        panel = panel.thresholds(steps(("green", None), ("red", limit))).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED)
        )
    return queries(described(panel, title, unit, what, then, section, span, 8), expressions)


def number(title, unit, what, then, section, expression, limits, span=4, legend="", text=False):
    """One value, as it is now. A text is the name of the series."""
    panel = (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .graph_mode(options.BigValueGraphMode.NONE)
        .color_mode(options.BigValueColorMode.VALUE)
        .text_mode(options.BigValueTextMode.NAME if text else options.BigValueTextMode.VALUE)
        .thresholds(steps(*limits))
    )
    panel = described(panel, title, unit, what, then, section, span, 4)
    return queries(panel, [(expression, legend)], instant=True)


def listing(title, unit, what, then, section, expression, span=8):
    """A line for each series, as it is now."""
    panel = described(table.Panel(), title, unit, what, then, section, span, 8)
    return queries(panel, [(expression, "")], instant=True, form=query.PromQueryFormat.TABLE)


def heat_map(title, what, then, section, metric, selector, span=12):
    """How a histogram's observations spread over its buckets, as time goes by."""
    panel = (
        heatmap.Panel()
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heat.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .scale(heat.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .cell_gap(1)
    )
    # Counts, not rates: a request stays visible however far one looks back.
    expression = f"sum by (le) ({times(metric + '_bucket', selector)})"
    panel = described(panel, title, "short", what, then, section, span, 8)
    return queries(panel, [(expression, "{{le}}")], form=query.PromQueryFormat.HEATMAP)


def limiter_wait(selector):
    """What calls to EKS Auth wait for."""
    return graph(
        "Wait for the limiter (p99)",
        "s",
        "What calls wait for their turn, by urgency.",
        "asked over 0.9 s: pods get 503 first. refresh: raise --max-service-qps if it is minutes.",
        "PodcredsThrottled",
        (quantile(0.99, "podcreds_limiter_wait_duration_seconds", selector, "urgency, le"), "{{urgency}}"),
        log=True,
    )


def variable(name, label, selector, several=True):
    """A choice among the values of a label."""
    metric = f"podcreds_build_info{{{selector}}}" if selector else "podcreds_build_info"
    choice = (
        build.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(f"label_values({metric}, {name})")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )
    if several:
        # Also those without the label.
        everything = model.VariableOption(selected=True, text="All", value="$__all")
        choice = choice.multi(True).include_all(True).all_value(".*").current(everything)
    return choice


def board(uid, title, description, several):
    """A dashboard without panels."""
    source = model.VariableOption(selected=True, text="default", value="default")
    other = build.DashboardLink("podcreds").type(model.DashboardLinkType.DASHBOARDS).tags(["podcreds"])
    return (
        build.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["podcreds"])
        .readonly()
        .time("now-6h", "now")
        .refresh("1m")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(other.keep_time(True).include_vars(True))
        .with_variable(build.DatasourceVariable("datasource").label("Data source").type("prometheus").current(source))
        .with_variable(variable("cluster", "Cluster", ""))
        .with_variable(variable("namespace", "Namespace of the agents", 'cluster=~"$cluster"'))
        .with_variable(variable("job", "Job", 'cluster=~"$cluster", namespace=~"$namespace"'))
        .with_variable(variable("node", "Node", ALL, several))
        .with_variable(build.TextBoxVariable("runbook").label("Address of the runbook").default_value(RUNBOOK))
    )


def row(dashboard, title, *panels):
    """Adds a titled row."""
    dashboard = dashboard.with_row(build.Row(title))
    for panel in panels:
        dashboard = dashboard.with_panel(panel)
    return dashboard
