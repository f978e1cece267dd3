//! Clients, which ask from inside the pods and check each answer.

use std::{
    fmt,
    sync::{
        PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{resident::Resident, world::World};
use crate::{aws::Owner, wait::poll};

/// How long a client waits while there is no pod to ask from.
const PAUSE: Duration = Duration::from_millis(10);

/// The ways to the agent.
const ROADS: [&str; 2] = ["169.254.170.23:80", "[fd00:ec2::23]:80"];

/// What came of the requests so far.
#[derive(Default)]
pub(super) struct Tally {
    served: AtomicU64,
    not_yet: AtomicU64,
}

impl Tally {
    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub(super) fn not_yet(&self) -> u64 {
        self.not_yet.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (served, not_yet) = (self.served(), self.not_yet());
        write!(f, "{served} requests served, {not_yet} not yet")
    }
}

/// Asks from one pod after the other, until the soak is over.
pub(super) fn ask_until_over(world: &World, tally: &Tally, mut random: fastrand::Rng) {
    while !world.is_over() {
        let residents = world.residents();
        let Some(resident) = random.choice(&residents) else {
            thread::sleep(PAUSE);
            continue;
        };
        let road = ROADS[random.usize(..ROADS.len())];
        match ask(world, resident, road) {
            Ok(true) => tally.served.fetch_add(1, Ordering::Relaxed),
            Ok(false) => tally.not_yet.fetch_add(1, Ordering::Relaxed),
            Err(why) => return world.report(why),
        };
    }
}

/// Asks once. Whether the pod was served, or what does not hold.
pub(super) fn ask(world: &World, resident: &Resident, road: &str) -> Result<bool, String> {
    let pod = resident.pod.read().unwrap_or_else(PoisonError::into_inner);
    let (before, kills) = (resident.before(), world.kill_events());
    let mut answer = Value::Null;
    let mut asked = Instant::now();
    let try_once = || {
        asked = Instant::now();
        answer = pod.run(["get", "--dst", road, "--timeout-ms", "5000"]);
        answer["status"].is_u64().then_some(())
    };
    // What comes of it is looked at below.
    let _answered = poll(world.patience_after_kill(), try_once);
    let took = asked.elapsed();
    let broken = |what: &str| {
        let (name, uid) = (pod.name(), pod.uid());
        let heard = OffsetDateTime::now_utc();
        Err(format!(
            "{name}, {uid}, {what}, as it heard at {heard} after {took:?}: {answer}"
        ))
    };
    match answer["status"].as_u64() {
        Some(200) => {
            let token = answer["body"]["Token"].as_str().unwrap_or_default();
            let owner = token.parse::<Owner>();
            if !owner.is_ok_and(|owner| owner.uid == pod.uid()) {
                return broken("got credentials that are not its own");
            }
            let Some(expiration) = expiration(&answer["body"]) else {
                return broken("got credentials without an expiration");
            };
            if expiration <= SystemTime::now() {
                return broken("got credentials that have expired");
            }
            resident.was_served(before, expiration);
            Ok(true)
        }
        Some(503) if resident.should_have_been_served(before) => {
            broken("was told to come back, though its credentials are valid")
        }
        Some(503) => Ok(false),
        Some(_) => broken("was told no"),
        // What an agent is about to answer when it is killed is lost with it.
        None if world.killed_none_since(kills) && resident.should_have_been_served(before) => {
            broken("got no answer, though its credentials are valid")
        }
        None => Ok(false),
    }
}

fn expiration(body: &Value) -> Option<SystemTime> {
    let text = body["Expiration"].as_str()?;
    Some(OffsetDateTime::parse(text, &Rfc3339).ok()?.into())
}
