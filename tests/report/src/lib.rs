//! What measurements are shown in: tables of text, and a page of plots that needs nothing else.
//!
//! - [`table`]: tables of text.
//! - [`Figure`]: a plot of lines over a common axis, as SVG.
//! - [`Page`]: plots and tables on one self-contained HTML page.

mod axis;
mod figure;
mod page;
pub mod table;

pub use figure::{Figure, Series};
pub use page::Page;

/// What may stand in the text of HTML and SVG.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}
