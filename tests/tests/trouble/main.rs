//! EKS Auth in trouble, and pods that are many: one program, since most of these tests wait.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a helper of tests fails the test"
)]

mod bursts;
mod faults;
mod memory;
mod outage;
mod sdks;
