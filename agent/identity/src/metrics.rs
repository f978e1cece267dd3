//! How tokens were judged.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Counts decisions by what they rested on.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) matched: IntCounter,
    pub(super) delegated: IntCounter,
    pub(super) audited: IntCounter,
    pub(super) refused: IntCounter,
    pub(super) proxied: IntCounter,
    pub(super) unchecked: IntCounter,
    pub(super) node_path: IntCounter,
}

impl Metrics {
    /// Registers the metrics of this stage.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let decisions = IntCounterVec::new(
            Opts::new(
                "podcreds_identity_decisions_total",
                "Tokens judged (not those whose credentials were in memory), by decision: matched \
                 (kernel and token name the same pod), delegated, audited (a mismatch that was let \
                 pass), refused, proxied (refused, and came through an HTTP proxy), \
                 unchecked (identity is off), node_path (only the token says who it is).",
            ),
            &["decision"],
        )?;
        registry.register(Box::new(decisions.clone()))?;
        let decision = |name| decisions.with_label_values(&[name]);
        Ok(Self {
            matched: decision("matched"),
            delegated: decision("delegated"),
            audited: decision("audited"),
            refused: decision("refused"),
            proxied: decision("proxied"),
            unchecked: decision("unchecked"),
            node_path: decision("node_path"),
        })
    }
}
