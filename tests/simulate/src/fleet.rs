//! A fleet against one quota: all of its pods are rolled out, EKS Auth fails for half an hour, and
//! later does badly for another.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use fastrand::Rng;
use podcreds_credentials::{Clock, Store};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    HOUR, MINUTE,
    client::{TOO_LITTLE, insist},
    eks_auth::{Condition, Second, SimulatedEksAuth},
    keys, node, paused_runtime,
};

/// How long a pod lives on average, if nothing happens.
const LIFE: Duration = HOUR.saturating_mul(24);
/// Every so many of the pods has processes that come and go, and ask again each time.
const BUSY: u64 = 10;
/// How often these ask.
const OFTEN: Duration = MINUTE.saturating_mul(5);
/// What a brown-out leaves of the quota.
const LEFT: f64 = 0.05;

/// How large the fleet is, and what it meets.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// Nodes, each with an agent of its own.
    pub nodes: u64,
    /// Pods on each of them.
    pub pods: u64,
    /// Calls a second that EKS Auth answers to all of them together.
    pub quota: f64,
    /// Within how long all pods are rolled out.
    pub roll_out: Duration,
    /// What the dice are thrown by.
    pub seed: u64,
    /// Until when it goes on.
    pub until: Duration,
}

/// A stretch of time in which something happens to the fleet.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// What happens.
    pub name: &'static str,
    /// When it begins.
    pub from: Duration,
    /// When it is over.
    pub to: Duration,
    /// How EKS Auth does meanwhile.
    pub condition: Condition,
    /// The share of all pods that are started again meanwhile, from 0 to 1.
    pub restarted: f64,
}

impl Phase {
    /// What is left of the quota while it lasts, from 0 to 1.
    pub fn quota_left(&self) -> f64 {
        match self.condition {
            Condition::Well => 1.0,
            Condition::Down => 0.0,
            // A third of what is left fails.
            Condition::BrownOut { quota } => quota * 2.0 / 3.0,
        }
    }
}

/// A pod that had no credentials and asked for some.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// When it asked first.
    pub asked: Duration,
    /// When it got them, or ended without.
    pub until: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct FleetOutcome {
    /// Calls as EKS Auth sees them.
    pub seconds: Vec<Second>,
    /// All pods that had to wait.
    pub waits: Vec<Wait>,
}

impl FleetOptions {
    /// What happens to the fleet, in order.
    pub fn phases(&self) -> [Phase; 3] {
        let half_an_hour = MINUTE * 30;
        let (outage, brown_out) = (MINUTE * 160, MINUTE * 330);
        [
            Phase {
                name: "roll-out",
                from: Duration::ZERO,
                to: self.roll_out,
                condition: Condition::Well,
                restarted: 1.0,
            },
            Phase {
                name: "outage",
                from: outage,
                to: outage + half_an_hour,
                condition: Condition::Down,
                restarted: 0.25,
            },
            Phase {
                name: "brown-out",
                from: brown_out,
                to: brown_out + half_an_hour,
                condition: Condition::BrownOut { quota: LEFT },
                restarted: 0.15,
            },
        ]
    }

    /// How many pods there are.
    pub fn all_pods(&self) -> u64 {
        self.nodes * self.pods
    }
}

/// Lets it happen. `progress` is told how much simulated time has passed.
///
/// # Errors
///
/// When the agent's store cannot be started.
pub fn run(options: &FleetOptions, progress: impl Fn(Duration)) -> Result<FleetOutcome> {
    let runtime = paused_runtime(options.seed)?;
    let outcome = runtime.block_on(happen(options, progress));
    // The stores' tasks end with it.
    drop(runtime);
    outcome
}

async fn happen(options: &FleetOptions, progress: impl Fn(Duration)) -> Result<FleetOutcome> {
    let clock = Clock::paused();
    let eks_auth = SimulatedEksAuth::new(options.quota, clock, options.seed);
    let world = Arc::new(World {
        options: options.clone(),
        started: Instant::now(),
        clock,
        waits: Mutex::default(),
    });
    let mut slots = JoinSet::new();
    for node in 0..options.nodes {
        let store = node::store(&eks_auth, clock)?;
        for pod in 0..options.pods {
            let slot = Slot {
                world: Arc::clone(&world),
                store: store.clone(),
                number: node * options.pods + pod,
                dice: Rng::with_seed(options.seed ^ ((node * options.pods + pod + 1) << 20)),
            };
            slots.spawn(slot.live());
        }
    }
    let mut changes: Vec<_> = options
        .phases()
        .into_iter()
        .flat_map(|phase| [(phase.from, phase.condition), (phase.to, Condition::Well)])
        .collect();
    changes.reverse();
    let step = MINUTE * 10;
    while world.started.elapsed() < options.until {
        let next = world.started.elapsed() + step;
        while let Some((at, condition)) = changes.pop_if(|(at, _)| *at <= next) {
            sleep_until(world.started + at).await;
            eks_auth.set(condition);
        }
        sleep_until(world.started + next.min(options.until)).await;
        progress(world.started.elapsed());
    }
    slots.shutdown().await;
    let waits = std::mem::take(&mut *world.waits.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(FleetOutcome {
        seconds: eks_auth.seconds(),
        waits,
    })
}

struct World {
    options: FleetOptions,
    started: Instant,
    clock: Clock,
    waits: Mutex<Vec<Wait>>,
}

/// A place on a node where one pod follows another.
struct Slot {
    world: Arc<World>,
    store: Store,
    number: u64,
    dice: Rng,
}

/// Notes how long a pod waited, also if it ends meanwhile.
struct Waiting<'a> {
    world: &'a World,
    asked: Duration,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let until = self.world.started.elapsed();
        if until > self.asked {
            let mut waits = self
                .world
                .waits
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            waits.push(Wait {
                asked: self.asked,
                until,
            });
        }
    }
}

impl Slot {
    async fn live(mut self) {
        let starts = self.starts();
        let ends = starts.iter().skip(1).copied();
        let ends: Vec<_> = ends.chain([self.world.options.until]).collect();
        for (life, (from, to)) in (0..).zip(starts.into_iter().zip(ends)) {
            sleep_until(self.world.started + from).await;
            let pod = self.number << 20 | life;
            let end = self.world.started + to;
            // That a pod ends in the midst of something is no error.
            let _ = timeout_at(end, self.run_pod(pod)).await;
            if let Some(uid) = keys::uid(pod) {
                self.store.forget(uid);
            }
        }
    }

    /// When a pod starts here, in order.
    fn starts(&mut self) -> Vec<Duration> {
        let options = &self.world.options;
        let mut starts = Vec::new();
        for phase in options.phases() {
            let at = phase.from + (phase.to - phase.from).mul_f64(self.dice.f64());
            if self.dice.f64() < phase.restarted {
                starts.push(at);
            }
        }
        let mut at = starts.first().copied().unwrap_or_default();
        loop {
            at += LIFE.mul_f64(-(1.0 - self.dice.f64()).ln());
            if at >= options.until {
                break;
            }
            starts.push(at);
        }
        starts.sort_unstable();
        starts.retain(|start| *start < options.until);
        starts
    }

    async fn run_pod(&mut self, pod: u64) {
        let Some(uid) = keys::uid(pod) else {
            return;
        };
        let token = keys::token(pod, self.number % self.world.options.pods, 0);
        let is_busy = self.number.is_multiple_of(BUSY);
        loop {
            let waiting = Waiting {
                world: &self.world,
                asked: self.world.started.elapsed(),
            };
            let expiration = insist(&self.store, uid, &token, &mut self.dice).await;
            drop(waiting);
            let left = expiration.duration_since(self.world.clock.now());
            let pause = match is_busy {
                true => OFTEN,
                false => left.unwrap_or_default().saturating_sub(TOO_LITTLE),
            };
            sleep(pause + MINUTE.mul_f64(self.dice.f64())).await;
        }
    }
}
