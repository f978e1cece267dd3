//! Agents that follow each other on one node: updates under load, the queue that they stand in, and
//! what is refused at the place where they meet.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper of tests fails the test"
)]

mod beside;
mod killed;
mod misuse;
mod queue;
mod scene;
mod updates;
