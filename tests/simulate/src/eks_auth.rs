//! What stands for EKS Auth: one quota for all who call, good hours and bad ones, and a count of
//! the calls of each second.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use futures_util::future::{BoxFuture, FutureExt as _};
use podcreds_credentials::Clock;
use podcreds_types::{Credentials, Token};
use podcreds_upstream::{AssumeRole, UpstreamError};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use crate::HOUR;

/// How long credentials are good.
pub const LIFE: Duration = HOUR.saturating_mul(6);
/// What an ordinary answer takes.
const SOON: Duration = Duration::from_millis(50);
/// What it takes to say that there were too many calls.
const AT_ONCE: Duration = Duration::from_millis(10);
/// After so long the agent gives up a call by itself.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// How EKS Auth is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    /// It answers up to its quota.
    Well,
    /// It answers nothing: half of the calls fail at once, the others hang.
    Down,
    /// A share of its quota is left, answers take seconds, and a third of them are errors.
    BrownOut {
        /// What is left of the quota, from 0 to 1.
        quota: f64,
    },
}

/// What was called within one second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Second {
    /// Calls that came.
    pub calls: u32,
    /// Those of them that get credentials.
    pub served: u32,
    /// Those over the quota.
    pub throttled: u32,
    /// Those that fail otherwise.
    pub failed: u32,
}

/// The stand-in. Clones are the same one.
#[derive(Clone)]
pub struct SimulatedEksAuth(Arc<Shared>);

struct Shared {
    clock: Clock,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    /// Calls a second that get an answer, of which one second's may come at once.
    quota: f64,
    condition: Condition,
    left: f64,
    updated: Instant,
    dice: Rng,
    seconds: Vec<Second>,
    watcher: Option<Watcher>,
}

/// Called for each call: the token, and whether it gets credentials.
type Watcher = Box<dyn FnMut(&Token, bool) + Send>;

/// What comes of one call.
enum Fate {
    Served,
    Throttled,
    Failed,
}

impl SimulatedEksAuth {
    /// One that answers `quota` calls a second.
    pub fn new(quota: f64, clock: Clock, seed: u64) -> Self {
        let started = Instant::now();
        let state = State {
            quota,
            condition: Condition::Well,
            left: quota,
            updated: started,
            dice: Rng::with_seed(seed),
            seconds: Vec::new(),
            watcher: None,
        };
        Self(Arc::new(Shared {
            clock,
            started,
            state: Mutex::new(state),
        }))
    }

    /// Calls `watcher` for each call.
    pub fn watch(&self, watcher: impl FnMut(&Token, bool) + Send + 'static) {
        self.state().watcher = Some(Box::new(watcher));
    }

    /// Does well or badly from now on.
    pub fn set(&self, condition: Condition) {
        self.state().condition = condition;
    }

    /// The calls of each second so far.
    pub fn seconds(&self) -> Vec<Second> {
        self.state().seconds.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, and says what comes of it and how long that takes.
    fn take(&self, token: &Token) -> (Fate, Duration) {
        let second = self.0.started.elapsed().as_secs() as usize;
        let state = &mut *self.state();
        let (fate, takes) = state.fate();
        if state.seconds.len() <= second {
            state.seconds.resize(second + 1, Second::default());
        }
        let counts = &mut state.seconds[second];
        counts.calls += 1;
        match fate {
            Fate::Served => counts.served += 1,
            Fate::Throttled => counts.throttled += 1,
            Fate::Failed => counts.failed += 1,
        }
        if let Some(watcher) = &mut state.watcher {
            watcher(token, matches!(fate, Fate::Served));
        }
        (fate, takes)
    }

    fn credentials(&self, token: &Token) -> Credentials {
        Credentials {
            access_key_id: token.expose().to_owned(),
            secret_access_key: Zeroizing::new("secret".to_owned()),
            session_token: Zeroizing::new("session".to_owned()),
            account_id: "123456789012".to_owned(),
            role: "arn:aws:sts::123456789012:assumed-role/app".to_owned(),
            expiration: self.0.clock.now() + LIFE,
        }
    }
}

impl State {
    fn fate(&mut self) -> (Fate, Duration) {
        let spread = 0.5 + self.dice.f64();
        let condition = self.condition;
        let has_room = match condition {
            Condition::Down => return self.fails(),
            Condition::Well => self.has_room(1.0),
            Condition::BrownOut { quota } => self.has_room(quota),
        };
        match condition {
            _ if !has_room => (Fate::Throttled, AT_ONCE.mul_f64(spread)),
            Condition::BrownOut { .. } => {
                let takes = TIME_LIMIT.mul_f64(0.2 + 0.6 * self.dice.f64());
                match self.dice.u8(..3) {
                    0 => (Fate::Failed, takes),
                    _ => (Fate::Served, takes),
                }
            }
            Condition::Well | Condition::Down => (Fate::Served, SOON.mul_f64(spread)),
        }
    }

    fn fails(&mut self) -> (Fate, Duration) {
        match self.dice.bool() {
            true => (Fate::Failed, AT_ONCE),
            false => (Fate::Failed, TIME_LIMIT),
        }
    }

    /// Takes one call out of what is left of a share of the quota.
    fn has_room(&mut self, share: f64) -> bool {
        let quota = self.quota * share;
        let won = self.updated.elapsed().as_secs_f64() * quota;
        self.updated = Instant::now();
        self.left = (self.left + won).min(quota.max(1.0));
        let has_room = self.left >= 1.0;
        if has_room {
            self.left -= 1.0;
        }
        has_room
    }
}

impl AssumeRole for SimulatedEksAuth {
    fn assume_role(&self, token: Token) -> BoxFuture<'static, Result<Credentials, UpstreamError>> {
        let this = self.clone();
        async move {
            let (fate, takes) = this.take(&token);
            sleep(takes).await;
            match fate {
                Fate::Served => Ok(this.credentials(&token)),
                Fate::Throttled => Err(UpstreamError::Throttled { retry_after: None }),
                Fate::Failed => Err(UpstreamError::unavailable("a bad hour")),
            }
        }
        .boxed()
    }
}
