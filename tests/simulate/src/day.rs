//! One node's day: pods that start, end, ask as SDKs do, and get their tokens rotated.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use fastrand::Rng;
use podcreds_credentials::{Clock, Store};
use podcreds_types::{PodUid, TokenDigest};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    HOUR, MINUTE,
    client::{TOO_LITTLE, insist},
    eks_auth::SimulatedEksAuth,
    keys, node, other_rule, paused_runtime,
};

/// How long kubelet's tokens are good, and when it rotates them: at 80 % of their life.
const TOKEN_LIFE: Duration = HOUR.saturating_mul(24);
const ROTATION: Duration = MINUTE.saturating_mul(1152);
/// What goes before the day that counts, until everything has its rhythm: a token's life.
const BEFORE: Duration = TOKEN_LIFE;
/// More than a node ever calls.
const QUOTA: f64 = 200.0;

/// What a kind of pods does.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What it is called.
    pub name: &'static str,
    /// The share of a node's pods, in percent.
    pub share: u64,
    asks: Asks,
    /// How long such a pod lives, from and to; `None` if it stays.
    lives: Option<(Duration, Duration)>,
    /// How long until the next one follows.
    gap: Duration,
}

/// When a pod asks for credentials.
#[derive(Clone, Copy, Debug)]
enum Asks {
    /// When it starts, and never again.
    Once,
    /// With less than 15 minutes left, as an SDK in a process that stays.
    InTime,
    /// A new process every minute.
    Often,
}

/// What runs on a node.
pub const KINDS: [Kind; 5] = [
    Kind {
        name: "services",
        share: 45,
        asks: Asks::InTime,
        lives: None,
        gap: Duration::ZERO,
    },
    Kind {
        name: "scripts",
        share: 15,
        asks: Asks::Often,
        lives: None,
        gap: Duration::ZERO,
    },
    Kind {
        name: "idle",
        share: 15,
        asks: Asks::Once,
        lives: None,
        gap: Duration::ZERO,
    },
    Kind {
        name: "deployed",
        share: 15,
        asks: Asks::InTime,
        lives: Some((HOUR.saturating_mul(2), HOUR.saturating_mul(8))),
        gap: MINUTE,
    },
    Kind {
        name: "jobs",
        share: 10,
        asks: Asks::Often,
        lives: Some((MINUTE, MINUTE.saturating_mul(5))),
        gap: MINUTE.saturating_mul(12),
    },
];

/// How large the node is, and for how long it is watched.
#[derive(Clone, Debug)]
pub struct DayOptions {
    /// Pods at a time.
    pub pods: u64,
    /// The hours that count, after a day that does not.
    pub hours: u32,
    /// What the dice are thrown by.
    pub seed: u64,
}

/// What the pods of one kind have done and cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Pods that there were.
    pub pods: usize,
    /// How long they lived, in days.
    pub pod_days: f64,
    /// How often they asked.
    pub asked: usize,
    /// Calls to EKS Auth.
    pub calls: usize,
    /// What AWS's agent would have called.
    pub by_other_rule: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct DayOutcome {
    /// By kind.
    pub kinds: BTreeMap<&'static str, Tally>,
    /// Calls for pods that were gone.
    pub calls_for_the_gone: usize,
    /// Calls to EKS Auth in each hour.
    pub hours: Vec<u32>,
    /// The same by the other rule.
    pub hours_by_other_rule: Vec<u32>,
}

struct World {
    started: Instant,
    window: Range<Duration>,
    clock: Clock,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    outcome: DayOutcome,
    alive: HashSet<PodUid>,
    shown: HashMap<TokenDigest, Shown>,
    pods: u64,
}

/// A token that a pod has shown.
struct Shown {
    kind: &'static str,
    pod: PodUid,
    first: Duration,
    expires: Duration,
}

/// Lives through it.
///
/// # Errors
///
/// When the agent's store cannot be started.
pub fn run(options: &DayOptions) -> Result<DayOutcome> {
    paused_runtime(options.seed)?.block_on(live_through(options))
}

async fn live_through(options: &DayOptions) -> Result<DayOutcome> {
    let clock = Clock::paused();
    let eks_auth = SimulatedEksAuth::new(QUOTA, clock, options.seed);
    let store = node::store(&eks_auth, clock)?;
    let world = Arc::new(World {
        started: Instant::now(),
        window: BEFORE..BEFORE + HOUR * options.hours,
        clock,
        seen: Mutex::default(),
    });
    let watching = Arc::clone(&world);
    eks_auth.watch(move |token, _| watching.called(&token.digest()));
    let mut slots = JoinSet::new();
    for kind in KINDS {
        let pods = (options.pods * kind.share).div_ceil(100);
        for slot in 0..pods {
            let seed = options.seed ^ (((slots.len() as u64) + 1) << 32);
            let slot = Slot {
                world: Arc::clone(&world),
                store: store.clone(),
                kind,
                number: slot,
                dice: Rng::with_seed(seed),
            };
            slots.spawn(slot.live());
        }
    }
    sleep_until(world.started + world.window.end).await;
    slots.shutdown().await;
    Ok(world.outcome())
}

impl World {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// EKS Auth was called with a token.
    fn called(&self, digest: &TokenDigest) {
        let at = self.started.elapsed();
        if !self.window.contains(&at) {
            return;
        }
        let seen = &mut *self.seen();
        let hour = ((at - self.window.start).as_secs() / HOUR.as_secs()) as usize;
        count(&mut seen.outcome.hours, hour);
        if let Some(shown) = seen.shown.get(digest) {
            seen.outcome.kinds.entry(shown.kind).or_default().calls += 1;
            if !seen.alive.contains(&shown.pod) {
                seen.outcome.calls_for_the_gone += 1;
            }
        }
    }

    /// What came of it, with what the other rule would have made of it.
    fn outcome(&self) -> DayOutcome {
        let seen = &mut *self.seen();
        let mut outcome = std::mem::take(&mut seen.outcome);
        for shown in seen.shown.values() {
            let calls = |window| other_rule::calls(shown.first, shown.expires, &window);
            let tally = outcome.kinds.entry(shown.kind).or_default();
            tally.by_other_rule += calls(self.window.clone());
            let hours = (self.window.end - self.window.start).as_secs() / HOUR.as_secs();
            for hour in 0..hours as usize {
                let from = self.window.start + HOUR * hour as u32;
                (0..calls(from..from + HOUR)).for_each(|_| {
                    count(&mut outcome.hours_by_other_rule, hour);
                });
            }
        }
        outcome
    }
}

fn count(hours: &mut Vec<u32>, hour: usize) {
    if hours.len() <= hour {
        hours.resize(hour + 1, 0);
    }
    hours[hour] += 1;
}

/// A place on the node where one pod follows another.
struct Slot {
    world: Arc<World>,
    store: Store,
    kind: Kind,
    number: u64,
    dice: Rng,
}

impl Slot {
    async fn live(mut self) {
        // They have not all started at once.
        sleep(HOUR.mul_f64(6.0 * self.dice.f64())).await;
        loop {
            let life = self.kind.lives.map_or(Duration::MAX, |(from, to)| {
                from + (to - from).mul_f64(self.dice.f64())
            });
            let end = Instant::now().checked_add(life);
            let end = end.unwrap_or(self.world.started + self.world.window.end * 2);
            let Some(pod) = self.start() else {
                return;
            };
            // That a pod ends in the midst of something is no error.
            let _ = timeout_at(end, self.run(&pod)).await;
            drop(pod);
            sleep(self.kind.gap.mul_f64(0.5 + self.dice.f64())).await;
        }
    }

    fn start(&self) -> Option<Pod> {
        let seen = &mut *self.world.seen();
        seen.pods += 1;
        let uid = keys::uid(seen.pods)?;
        seen.alive.insert(uid);
        Some(Pod {
            world: Arc::clone(&self.world),
            store: self.store.clone(),
            kind: self.kind.name,
            number: seen.pods,
            uid,
            started: Instant::now(),
        })
    }

    async fn run(&mut self, pod: &Pod) {
        loop {
            let rotation = pod.started.elapsed().as_secs() / ROTATION.as_secs();
            let token = keys::token(pod.number, self.number, rotation);
            pod.shows(token.digest(), ROTATION * rotation as u32);
            let expiration = insist(&self.store, pod.uid, &token, &mut self.dice).await;
            let left = expiration.duration_since(self.world.clock.now());
            let pause = match self.kind.asks {
                Asks::Once => TOKEN_LIFE * 100,
                Asks::InTime => left.unwrap_or_default().saturating_sub(TOO_LITTLE),
                Asks::Often => Duration::ZERO,
            };
            sleep(pause + MINUTE.mul_f64(0.5 + self.dice.f64())).await;
        }
    }
}

struct Pod {
    world: Arc<World>,
    store: Store,
    kind: &'static str,
    number: u64,
    uid: PodUid,
    started: Instant,
}

impl Pod {
    /// Shows a token that was issued so long after the pod's start.
    fn shows(&self, digest: TokenDigest, issued: Duration) {
        let now = self.world.started.elapsed();
        let seen = &mut *self.world.seen();
        if self.world.window.contains(&now) {
            seen.outcome.kinds.entry(self.kind).or_default().asked += 1;
        }
        seen.shown.entry(digest).or_insert_with(|| Shown {
            kind: self.kind,
            pod: self.uid,
            first: now,
            expires: self.started - self.world.started + issued + TOKEN_LIFE,
        });
    }
}

/// The pod's cgroup goes.
impl Drop for Pod {
    fn drop(&mut self) {
        let window = &self.world.window;
        let from = (self.started - self.world.started).max(window.start);
        let to = self.world.started.elapsed().min(window.end);
        let seen = &mut *self.world.seen();
        seen.alive.remove(&self.uid);
        if to > from {
            let tally = seen.outcome.kinds.entry(self.kind).or_default();
            tally.pods += 1;
            tally.pod_days += (to - from).as_secs_f64() / (24.0 * HOUR.as_secs_f64());
        }
        self.store.forget(self.uid);
    }
}
