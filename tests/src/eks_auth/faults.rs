//! What can go wrong with EKS Auth.

use std::{collections::VecDeque, time::Duration};

/// One way to fail.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The right answer, that much later.
    Slow(Duration),
    /// 429 `ThrottlingException`.
    Throttle {
        /// The `Retry-After` header, in seconds.
        retry_after: Option<u64>,
    },
    /// Any error of the service.
    Error {
        /// The HTTP status.
        status: u16,
        /// The error's name, such as `ServiceUnavailableException`.
        code: &'static str,
    },
    /// No answer at all, for as long as the client waits.
    Hang,
    /// The connection is reset.
    Reset,
    /// The right answer, which breaks off in the middle.
    Truncated,
    /// 200 with a body that is not JSON.
    Nonsense,
    /// The right answer without one of its fields, given as a JSON pointer such as
    /// `/credentials/accessKeyId`.
    Missing(&'static str),
    /// Credentials that expired a minute ago.
    Expired,
    /// Another pod's subject and credentials.
    Lie,
}

impl Fault {
    /// 500 `InternalServerException`.
    pub fn internal() -> Self {
        Self::Error {
            status: 500,
            code: "InternalServerException",
        }
    }

    /// 503 `ServiceUnavailableException`.
    pub fn unavailable() -> Self {
        Self::Error {
            status: 503,
            code: "ServiceUnavailableException",
        }
    }
}

/// The faults to come, in order.
#[derive(Default)]
pub(super) struct Faults(VecDeque<(Fault, Option<usize>)>);

impl Faults {
    /// Adds a fault for so many calls, or for all that follow.
    pub(super) fn push(&mut self, fault: Fault, calls: Option<usize>) {
        if calls != Some(0) {
            self.0.push_back((fault, calls));
        }
    }

    /// The fault that the next call meets.
    pub(super) fn next(&mut self) -> Option<Fault> {
        let (fault, remaining) = self.0.front_mut()?;
        let fault = fault.clone();
        match remaining {
            Some(1) => drop(self.0.pop_front()),
            Some(more) => *more -= 1,
            None => {}
        }
        Some(fault)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
