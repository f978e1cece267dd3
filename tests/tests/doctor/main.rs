//! `podcreds doctor`: a healthy node and a healthy pod are all green, and each planted fault is
//! found and comes with its remedy.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests fails the test"
)]

mod ended;
mod node;
mod pod;
mod scene;
