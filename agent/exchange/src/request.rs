//! What the task is asked, and who waits for its answer.

use podcreds_cache::{CacheResult, Subject};
use podcreds_types::{Claimant, PodUid, Token, TokenDigest};
use tokio::{sync::oneshot, time::Instant};

use crate::{ExchangeReport, Refreshed, RequestResult};

/// What the task is told to do.
pub(crate) enum TaskCommand {
    /// Answer a request.
    Get(Request),
    /// Give up what is in flight for a pod that is gone.
    Forget(PodUid),
    /// Say how the exchanges are going.
    Report(oneshot::Sender<ExchangeReport>),
    /// Fetch a subject's credentials again.
    Refresh(Subject, oneshot::Sender<Refreshed>),
}

/// A request for credentials that are not in memory.
pub(crate) struct Request {
    pub(crate) claimant: Claimant,
    pub(crate) token: Token,
    pub(crate) digest: TokenDigest,
    /// When it must have an answer.
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<RequestResult>,
}

/// A request that waits for its token's exchange.
pub(crate) struct Waiter {
    pub(crate) reply: oneshot::Sender<RequestResult>,
    /// When it must have an answer.
    pub(crate) deadline: Instant,
    /// Whether there are valid credentials that will do for now.
    pub(crate) has_stale: bool,
    /// How it counts, unless it gets stale credentials.
    pub(crate) served: CacheResult,
}
