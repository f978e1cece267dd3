//! What every long-running program on a node needs, and no stage of a request does: logs, probes,
//! metrics for Prometheus, an orderly end, and limits that the process puts on itself.

pub mod ask;
pub mod hardening;
pub mod http;
pub mod metrics;
pub mod port;
pub mod privileges;
pub mod probes;
pub mod seccomp;
pub mod shutdown;
pub mod socket;
pub mod telemetry;
pub mod watchdog;
