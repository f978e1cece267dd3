//! What is counted about handing over.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

/// What an agent is to the others on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Two others are there before it.
    Waiting,
    /// One is there before it.
    Successor,
    /// It has the say.
    Leader,
}

impl Role {
    const ALL: [Self; 3] = [Self::Waiting, Self::Successor, Self::Leader];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Successor => "successor",
            Self::Leader => "leader",
        }
    }
}

/// The role, and what has been handed over.
#[derive(Clone, Debug)]
pub struct Metrics {
    roles: IntGaugeVec,
    pub(super) sent: IntCounter,
    pub(super) received: IntCounter,
    /// Not told, since they cannot be.
    pub(super) sent_skipped: IntCounter,
    /// Not taken in, since they cannot be read.
    pub(super) received_skipped: IntCounter,
}

impl Metrics {
    /// Makes the metrics known to `registry`.
    ///
    /// # Errors
    ///
    /// When one of the names is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let roles = Opts::new(
            "podcreds_handover_role",
            "What the agent is to others on its node: 1 for its role, 0 for the rest",
        );
        let roles = IntGaugeVec::new(roles, &["role"])?;
        let entries = Opts::new(
            "podcreds_handover_entries_total",
            "Changes of pods' credentials that agents have told each other",
        );
        let entries = IntCounterVec::new(entries, &["direction"])?;
        let skipped = Opts::new(
            "podcreds_handover_skipped_total",
            "Changes of pods' credentials that could not be told or read, and were passed over",
        );
        let skipped = IntCounterVec::new(skipped, &["direction"])?;
        registry.register(Box::new(skipped.clone()))?;
        registry.register(Box::new(roles.clone()))?;
        registry.register(Box::new(entries.clone()))?;
        Ok(Self {
            roles,
            sent: entries.with_label_values(&["sent"]),
            received: entries.with_label_values(&["received"]),
            sent_skipped: skipped.with_label_values(&["sent"]),
            received_skipped: skipped.with_label_values(&["received"]),
        })
    }

    pub(super) fn set_role(&self, role: Role) {
        for other in Role::ALL {
            let is_it = i64::from(other == role);
            self.roles.with_label_values(&[other.name()]).set(is_it);
        }
    }
}
