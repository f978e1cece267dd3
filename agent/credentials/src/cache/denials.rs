//! What EKS Auth has refused while another agent still tells what it has.
//!
//! That one may not have heard, and goes on telling of credentials that were taken from a pod here. They must not come
//! back: what it fetched before the refusal is held to it.

use std::time::Duration;

use dashmap::DashMap;
use podcreds_types::TokenDigest;

use crate::{Subject, accepted::Accepted, freshness::Freshness};

/// Refusals that are remembered for one subject: more than there are accepted tokens.
const PER_SUBJECT: usize = 8;

/// A token that was refused.
struct Denial {
    digest: TokenDigest,
    /// When, since the machine has started: nobody can set that clock.
    at: Duration,
    /// Whether its credentials went altogether.
    is_total: bool,
}

/// The refusals since the agent follows another one.
#[derive(Default)]
pub(super) struct Denials(DashMap<Subject, Vec<Denial>>);

impl Denials {
    /// Remembers a refusal.
    pub(super) fn add(&self, subject: Subject, digest: TokenDigest, is_total: bool, at: Duration) {
        let mut denials = self.0.entry(subject).or_default();
        denials.retain(|denial| denial.digest != digest);
        if denials.len() >= PER_SUBJECT {
            denials.remove(0);
        }
        denials.push(Denial {
            digest,
            at,
            is_total,
        });
    }

    /// Takes from a copy the tokens that were refused since it was fetched. False if all of it was.
    pub(super) fn allow(
        &self,
        subject: &Subject,
        freshness: &Freshness,
        accepted: &mut Accepted,
    ) -> bool {
        let Some(denials) = self.0.get(subject) else {
            return true;
        };
        for denial in denials.iter() {
            if freshness.came_after(denial.at) || !accepted.contains(&denial.digest) {
                continue;
            }
            if denial.is_total {
                return false;
            }
            accepted.revoke(&denial.digest);
        }
        true
    }

    /// Forgets a subject.
    pub(super) fn forget(&self, subject: &Subject) {
        self.0.remove(subject);
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.0.clear();
        self.0.shrink_to_fit();
    }
}
