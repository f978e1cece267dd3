//! What the stand-in knows and what it remembers.

use std::{collections::HashMap, time::Instant};

use super::{
    faults::{Fault, Faults},
    quota::Quota,
    sts::Sts,
};
use crate::{associations::Associations, aws::Owner, signature::Signers};

/// Everything behind the stand-in's lock.
#[derive(Default)]
pub(super) struct State {
    pub(super) signers: Signers,
    pub(super) associations: Associations,
    /// Where credentials come from, if not out of thin air.
    pub(super) sts: Option<Sts>,
    pub(super) faults: Faults,
    /// Those that one pod meets before all others do, by its UID.
    pub(super) pod_faults: HashMap<String, Faults>,
    pub(super) quota: Option<Quota>,
    /// How far ahead its clock is, in seconds.
    pub(super) clock: i64,
    pub(super) calls: Vec<Call>,
    /// How many credentials have been made.
    pub(super) issued: u64,
    pub(super) in_flight: usize,
    pub(super) most_in_flight: usize,
}

impl State {
    /// What goes wrong with the next good call, which is for this pod.
    pub(super) fn next_fault(&mut self, pod_uid: &str) -> Option<Fault> {
        let own = self.pod_faults.get_mut(pod_uid).and_then(Faults::next);
        let fault = own.or_else(|| self.faults.next());
        fault.or_else(|| self.quota.as_mut()?.take(Instant::now()))
    }
}

/// One call, as it was received.
#[derive(Clone, Debug)]
pub struct Call {
    /// The token in its body, or nothing.
    pub token: String,
    /// The UID of the pod that the token claims to be of (unverified), or nothing.
    pub pod_uid: String,
    /// The access key that signed it, or nothing.
    pub signer: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was good, and was answered with these credentials.
    Issued(Owner),
    /// It was good, and met this fault.
    Faulted(Fault),
    /// Something about it was wrong.
    Refused {
        /// The error's name.
        code: &'static str,
        /// What was wrong.
        reason: String,
    },
}
