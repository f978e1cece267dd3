//! One HTML page that needs no other file.

use crate::{Figure, escaped};

const STYLE: &str = "body{max-width:60rem;margin:2rem auto;padding:0 1rem;font-family:sans-serif;\
                     color:#222;background:#fff}svg{width:100%;height:auto}\
                     pre{overflow-x:auto;background:#f6f6f6;padding:1rem}";

/// A page under construction.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    /// A page with a title, and a sentence on what was measured.
    pub fn new(title: &str, about: &str) -> Self {
        let title = escaped(title);
        let body = format!("<h1>{title}</h1>\n<p>{}</p>\n", escaped(about));
        Self { title, body }
    }

    /// Begins a section.
    pub fn section(mut self, title: &str) -> Self {
        self.body += &format!("<h2>{}</h2>\n", escaped(title));
        self
    }

    /// Adds a table of text.
    pub fn table(mut self, table: &str) -> Self {
        self.body += &format!("<pre>{}</pre>\n", escaped(table));
        self
    }

    /// Adds a plot.
    pub fn figure(mut self, figure: Figure) -> Self {
        self.body += &figure.svg();
        self
    }

    /// The whole page.
    pub fn html(&self) -> String {
        let Self { title, body } = self;
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n{body}</html>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_needs_nothing_from_elsewhere() {
        let page = Page::new("A & B", "what was measured").table("A  <B>");
        let html = page.figure(Figure::new("plot", "x", "y")).html();
        assert!(html.contains("<title>A &amp; B</title>") && html.contains("A  &lt;B&gt;"));
        assert!(html.contains("<svg") && !html.contains("http"));
    }
}
