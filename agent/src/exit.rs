//! Exit codes.

/// The agent has ended before everything was finished.
pub(crate) const CUT_OFF: u8 = 1;
/// An agent, or EKS Auth, says no, or not yet.
pub(crate) const REFUSED: u8 = 1;
// From sysexits.h, which scripts and service managers know.
/// The command line, or a setting, is wrong.
pub(crate) const USAGE: u8 = 64;
/// Something that is needed cannot be had.
pub(crate) const UNAVAILABLE: u8 = 69;
/// A part of the agent stands still.
pub(crate) const STALLED: u8 = 70;
/// The answer could not be written.
pub(crate) const WRITING_FAILED: u8 = 74;
/// Only root may do this, or a capability is missing.
pub(crate) const NO_PERMISSION: u8 = 77;
