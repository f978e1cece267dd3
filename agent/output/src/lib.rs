//! What commands print.
//!
//! - [`table()`] and [`table_of`] put rows under a heading, so that they fit a terminal.
//! - [`finding_lines`] and [`tally`] are a report's of checks, each with its [`Status`].
//! - [`json`] and [`yaml`] write values for programs.
//! - [`harmless`] makes a name or a message that comes from elsewhere fit for a terminal. JSON and
//!   YAML escape the same characters.

mod finding;
mod table;
mod text;
mod yaml;

pub use finding::{Status, finding_lines, tally};
pub use table::{Column, table, table_of};
pub use text::{duration, harmless, is_shown, json, role, seconds};
pub use yaml::yaml;
