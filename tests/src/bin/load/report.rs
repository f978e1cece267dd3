//! Shows what was measured: a table, and files for programs and for people.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use podcreds_report::{Figure, Page, Series, table};
use serde_json::json;

use crate::{outcome::Outcome, scenario::Scenario};

/// What all scenarios of a run came to.
#[derive(Default)]
pub(crate) struct Report(Vec<(Scenario, Vec<Outcome>)>);

impl Report {
    pub(crate) fn add(&mut self, scenario: Scenario, outcomes: Vec<Outcome>) {
        self.0.push((scenario, outcomes));
    }

    /// A table for each scenario.
    pub(crate) fn tables(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(scenario, outcomes)| {
                let title = scenario.title();
                format!("{title}\n\n{}", table_of(outcomes))
            })
            .collect()
    }

    /// Writes `load.json` and `load.html` into a folder, which is made if it is not there.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let cannot = || format!("cannot write into {}", folder.display());
        fs::create_dir_all(folder).with_context(cannot)?;
        let scenarios = self.0.iter().map(|(scenario, outcomes)| {
            json!({ "scenario": scenario.name(), "about": scenario.title(), "outcomes": outcomes })
        });
        let json = serde_json::to_string_pretty(&scenarios.collect::<Vec<_>>())?;
        fs::write(folder.join("load.json"), json).with_context(cannot)?;
        fs::write(folder.join("load.html"), self.page().html()).with_context(cannot)?;
        Ok(())
    }

    fn page(&self) -> Page {
        let about = "What the agent costs, and what pods get, as `cargo xtask load` has measured.";
        let mut page = Page::new("podcreds under load", about);
        for (scenario, outcomes) in &self.0 {
            page = page.section(&scenario.title()).table(&table_of(outcomes));
            for figure in figures(outcomes) {
                page = page.figure(figure);
            }
        }
        page
    }
}

/// The plots of a scenario, each with the lines of all outcomes that have one for it.
fn figures(outcomes: &[Outcome]) -> Vec<Figure> {
    let mut figures: Vec<(&str, Figure)> = Vec::new();
    for outcome in outcomes {
        for line in &outcome.lines {
            let name = format!("{}, {}", outcome.server, outcome.case);
            let series = Series::new(name, line.points.clone());
            match figures.iter_mut().find(|(plot, _)| *plot == line.plot) {
                Some((_, figure)) => *figure = figure.clone().with(series),
                None => {
                    let figure = Figure::new(line.plot, line.x, line.y).with(series);
                    figures.push((line.plot, figure));
                }
            }
        }
    }
    figures.into_iter().map(|(_, figure)| figure).collect()
}

fn table_of(outcomes: &[Outcome]) -> String {
    let names = outcomes.first().map(|first| &first.numbers);
    let names = names.into_iter().flatten().map(|number| number.name);
    let titles: Vec<_> = ["CASE", "SERVER"]
        .into_iter()
        .map(str::to_owned)
        .chain(names.map(str::to_uppercase))
        .collect();
    let rows: Vec<_> = outcomes.iter().map(Outcome::row).collect();
    let titles: Vec<_> = titles.iter().map(String::as_str).collect();
    table::layout(&titles, &rows, &(2..titles.len()).collect::<Vec<_>>())
}
