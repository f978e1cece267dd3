//! What `podcreds` does besides serving pods: a file or a folder for each command.
//!
//! `status`, `refresh` and `log_level` ask running agents, by way of `asking`.

mod agent_lines;
mod asking;
pub(crate) mod doctor;
pub(crate) mod initialize;
mod log_level;
mod node;
mod pods_table;
mod probe;
mod refresh;
mod refused_table;
mod status;

pub(crate) use self::{
    asking::exit_code, log_level::log_level, probe::probe, refresh::refresh, status::status,
};
