//! The operator's socket: what `podcreds status`, `refresh` and `log-level` ask a running agent.
//!
//! 1. [`Socket::bind`] listens in a folder of root's, under a name of the agent's own: in an update
//!    two agents share the folder, and both can be asked. What a killed agent left behind is
//!    removed.
//! 2. [`Socket::serve`] speaks HTTP/1.1 with JSON, to root alone, and hands each question to
//!    [`Operate`].
//! 3. [`ask_all`] asks every agent that answers there.
//! 4. What is asked and said are plain values ([`NodeStatus`], [`Refresh`], [`LogLevel`]), none of
//!    which has room for a secret.

mod client;
mod log_level;
mod refresh;
mod refusal;
mod server;
mod socket;
mod status;
#[cfg(test)]
mod tests;
mod timestamp;

pub use client::{AskError, Question, ask_all};
pub use log_level::{LogLevel, SetLogLevel};
pub use refresh::{Granted, Refresh, RefreshedPod, Target};
pub use refusal::RefusalStatus;
pub use server::{Operate, OperateError};
pub use socket::{FolderError, Socket};
pub use status::{
    AgentStatus, IdentifiedBy, KeysStatus, LimiterStatus, NodeStatus, PathKind, PathsStatus,
    PodState, PodStatus, SubjectKind, TimedError, UpstreamStatus,
};
pub use timestamp::Timestamp;
