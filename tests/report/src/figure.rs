//! One plot, as SVG.

use std::fmt::Write as _;

use crate::{axis::Axis, escaped};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 320.0;
/// Room for what is written along the axes.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Colours that can be told apart, also by those who see fewer of them (Okabe and Ito).
const COLOURS: [&str; 6] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9",
];

/// A line of a plot.
#[derive(Clone, Debug)]
pub struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Series {
    /// One through these points, from left to right. None of them is negative.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points,
        }
    }
}

/// A plot of lines over one axis.
#[derive(Clone, Debug)]
pub struct Figure {
    title: String,
    x: String,
    y: String,
    series: Vec<Series>,
    lines: Vec<(String, f64)>,
    marks: Vec<(String, f64, f64)>,
    most: Option<f64>,
}

/// Where values are on the paper.
struct Paper {
    x: Axis,
    y: Axis,
}

impl Figure {
    /// An empty one, with what its axes count.
    pub fn new(title: &str, x: &str, y: &str) -> Self {
        Self {
            title: title.to_owned(),
            x: x.to_owned(),
            y: y.to_owned(),
            series: Vec::new(),
            lines: Vec::new(),
            marks: Vec::new(),
            most: None,
        }
    }

    /// Adds a line.
    pub fn with(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// Draws a limit across.
    pub fn line(mut self, name: &str, at: f64) -> Self {
        self.lines.push((name.to_owned(), at));
        self
    }

    /// Marks a stretch in which something happens.
    pub fn mark(mut self, name: &str, from: f64, to: f64) -> Self {
        self.marks.push((name.to_owned(), from, to));
        self
    }

    /// Cuts off what is higher, where one point would make all others flat.
    pub fn up_to(mut self, most: f64) -> Self {
        self.most = Some(most);
        self
    }

    /// The plot as an `<svg>` element.
    pub fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let most_x = points().map(|(x, _)| *x).fold(0.0, f64::max);
        let most_y = points().map(|(_, y)| *y);
        let most_y = most_y.chain(self.lines.iter().map(|(_, at)| *at));
        let most_y = most_y.fold(0.0, f64::max);
        let paper = Paper {
            x: Axis::up_to(most_x),
            y: Axis::up_to(self.most.map_or(most_y, |most| most.min(most_y))),
        };
        let mut svg = String::new();
        // Writing to a string cannot fail.
        let _ = self.draw(&mut svg, &paper);
        svg
    }

    fn draw(&self, svg: &mut String, paper: &Paper) -> std::fmt::Result {
        writeln!(
            svg,
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" font-size="12">"#
        )?;
        let title = escaped(&self.title);
        writeln!(svg, "<title>{title}</title>")?;
        writeln!(
            svg,
            r#"<text x="{LEFT}" y="18" font-size="15">{title}</text>"#
        )?;
        self.draw_marks(svg, paper)?;
        self.draw_axes(svg, paper)?;
        for (name, at) in &self.lines {
            let (y, end) = (paper.down(*at), WIDTH - RIGHT);
            writeln!(
                svg,
                r##"<line x1="{LEFT}" y1="{y:.1}" x2="{end}" y2="{y:.1}" stroke="#666" stroke-dasharray="5 4"/>"##
            )?;
            let (name, above) = (escaped(name), y - 4.0);
            writeln!(
                svg,
                r##"<text x="{end}" y="{above:.1}" text-anchor="end" fill="#666">{name}</text>"##
            )?;
        }
        let mut key_at = WIDTH - RIGHT;
        for (number, series) in self.series.iter().enumerate().rev() {
            let colour = COLOURS[number % COLOURS.len()];
            let points = series.points.iter();
            let points =
                points.map(|(x, y)| format!("{:.1},{:.1}", paper.across(*x), paper.down(*y)));
            let points: Vec<_> = points.collect();
            writeln!(
                svg,
                r#"<polyline fill="none" stroke="{colour}" stroke-width="1.3" points="{}"/>"#,
                points.join(" ")
            )?;
            let name = escaped(&series.name);
            writeln!(
                svg,
                r#"<text x="{key_at}" y="18" text-anchor="end" fill="{colour}">{name}</text>"#
            )?;
            key_at -= 16.0 + 7.0 * series.name.chars().count() as f64;
        }
        svg.push_str("</svg>\n");
        Ok(())
    }

    fn draw_marks(&self, svg: &mut String, paper: &Paper) -> std::fmt::Result {
        for (name, from, to) in &self.marks {
            let (from, to) = (paper.across(*from), paper.across(*to));
            let (width, height) = ((to - from).max(1.0), HEIGHT - BOTTOM - TOP);
            writeln!(
                svg,
                r##"<rect x="{from:.1}" y="{TOP}" width="{width:.1}" height="{height}" fill="#f3e3d3"/>"##
            )?;
            let name = escaped(name);
            writeln!(
                svg,
                r##"<text x="{from:.1}" y="36" fill="#8a5a2b">{name}</text>"##
            )?;
        }
        Ok(())
    }

    fn draw_axes(&self, svg: &mut String, paper: &Paper) -> std::fmt::Result {
        let (bottom, end) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (at, text) in paper.y.ticks() {
            let (y, left) = (paper.down(at), LEFT - 8.0);
            writeln!(
                svg,
                r##"<line x1="{LEFT}" y1="{y:.1}" x2="{end}" y2="{y:.1}" stroke="#e5e5e5"/>"##
            )?;
            let base = y + 4.0;
            writeln!(
                svg,
                r#"<text x="{left}" y="{base:.1}" text-anchor="end">{text}</text>"#
            )?;
        }
        for (at, text) in paper.x.ticks() {
            let (x, below) = (paper.across(at), bottom + 18.0);
            writeln!(
                svg,
                r#"<text x="{x:.1}" y="{below}" text-anchor="middle">{text}</text>"#
            )?;
        }
        writeln!(
            svg,
            r##"<path d="M{LEFT} {TOP}V{bottom}H{end}" fill="none" stroke="#333"/>"##
        )?;
        let (x, y) = (escaped(&self.x), escaped(&self.y));
        let (middle, lowest) = ((LEFT + end) / 2.0, HEIGHT - 12.0);
        writeln!(
            svg,
            r#"<text x="{middle}" y="{lowest}" text-anchor="middle">{x}</text>"#
        )?;
        let half = (TOP + bottom) / 2.0;
        writeln!(
            svg,
            r#"<text transform="translate(16 {half}) rotate(-90)" text-anchor="middle">{y}</text>"#
        )
    }
}

impl Paper {
    fn across(&self, x: f64) -> f64 {
        LEFT + x / self.x.end * (WIDTH - LEFT - RIGHT)
    }

    fn down(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - y.min(self.y.end) / self.y.end * (HEIGHT - BOTTOM - TOP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_each_of_its_lines_with_its_name() {
        let figure = Figure::new("Calls & pods", "hours", "calls a second")
            .with(Series::new("all", vec![(0.0, 0.0), (10.0, 100.0)]))
            .with(Series::new("<served>", vec![(0.0, 50.0)]))
            .line("quota", 100.0)
            .mark("outage", 2.0, 4.0);
        let svg = figure.svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("Calls &amp; pods") && svg.contains("&lt;served&gt;"));
        assert!(svg.contains(r#"points="70.0,270.0 880.0,40.0""#), "{svg}");
        assert!(svg.contains(">quota<") && svg.contains(">outage<"));
    }

    #[test]
    fn what_is_higher_than_the_plot_ends_at_its_edge() {
        let figure = Figure::new("", "", "").up_to(10.0);
        let svg = figure.with(Series::new("", vec![(1.0, 1e6)])).svg();
        assert!(svg.contains(r#"points="880.0,40.0""#), "{svg}");
    }
}
