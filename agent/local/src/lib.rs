//! How root's processes on one node reach each other: agents their successors, and operators and
//! kubelet the agents.
//!
//! 1. [`RootFolder`]: a folder that only root can have prepared, and sockets in it.
//! 2. [`check_peer`]: whether root is at the other end.
//! 3. [`connect`] and [`exchange`]: a request and all that comes back, until a deadline.
//! 4. [`parse_answer`]: what that is where HTTP is spoken.

mod answer;
mod exchange;
mod folder;
mod peer;

pub use self::{
    answer::parse_answer,
    exchange::{connect, exchange},
    folder::{FolderProblem, RootFolder, check_owner},
    peer::check_peer,
};
