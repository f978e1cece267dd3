//! A long run in which everything changes at once, while each answer is checked.
//!
//! Pods come and go, their sandboxes are made anew, their tokens rotate, agents follow each other
//! and are killed, and EKS Auth fails in every way that it knows, all in an order that one number,
//! the seed, decides. Meanwhile clients ask from inside the pods, and these things must hold:
//!
//! - no pod ever gets another pod's credentials, or expired ones, or a final no;
//! - a pod that has been served is served again, whatever has failed since and however many agents
//!   there are, as long as its credentials are valid, its token is the same, and an agent that has
//!   them is alive;
//! - when nothing fails any more, every pod is served soon;
//! - EKS Auth grants credentials to a pod once for each of its tokens, unless what the agent knew
//!   was lost;
//! - when the pods have gone, the agent has kept nothing of them.
//!
//! [`world`] is what changes and [`actions`] how, [`clients`] ask, [`resident`] knows what a pod
//! must get, and [`remains`] looks at what is left.

mod actions;
mod clients;
mod remains;
mod resident;
mod world;

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use actions::Action;
use clients::Tally;
use remains::Remains;
use world::World;

/// The longest pause between two actions, in milliseconds.
const PAUSE_MS: u64 = 400;
/// How many of the last actions a failure shows.
const SHOWN: usize = 25;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides about the order of all that happens.
    pub seed: u64,
    /// For how long.
    pub time: Duration,
    /// How many pods there are at most.
    pub pods: usize,
    /// How many clients ask at once.
    pub clients: usize,
    /// How often progress is printed.
    pub progress: Duration,
}

/// What was done, when everything has held.
#[derive(Debug)]
pub struct Report {
    /// How many actions there were.
    pub actions: usize,
    /// How many pods there were.
    pub pods: usize,
    /// How many agents there were, one after the other.
    pub agents: usize,
    /// How many agents were killed.
    pub kills: u64,
    /// How many requests brought credentials.
    pub served: u64,
    /// How many did not, because they could not be had yet.
    pub not_yet: u64,
    /// How many calls EKS Auth has had.
    pub calls: usize,
}

/// Follows the plan, on a node of its own.
///
/// # Errors
///
/// The first thing that did not hold, with the seed and the last actions. What the agents have
/// logged last goes to standard error.
///
/// # Panics
///
/// When the machine does not give what a simulated node needs.
pub fn run(plan: &Plan) -> Result<Report, String> {
    let world = World::new();
    let fresh = Remains::of(&world.newest());
    let tally = Tally::default();
    let mut history = Vec::new();
    let held = thread::scope(|scope| {
        for client in 0..plan.clients {
            let random = fastrand::Rng::with_seed(plan.seed.wrapping_add(client as u64 + 1));
            let (world, tally) = (&world, &tally);
            scope.spawn(move || clients::ask_until_over(world, tally, random));
        }
        // However it ends: the scope waits for the clients, and they ask until it is over.
        let _over = world.over_when_dropped();
        act(plan, &world, &tally, &mut history)
    });
    let held = held
        .and_then(|()| world.violation().map_or(Ok(()), Err))
        .and_then(|()| world.empty(&fresh));
    if let Err(why) = held {
        world.show_logs();
        let last = history.len().saturating_sub(SHOWN);
        let last = history[last..].join("\n  ");
        return Err(format!(
            "{why}\nThe seed is {}; the last actions were\n  {last}",
            plan.seed
        ));
    }
    let numbers = world.numbers();
    Ok(Report {
        actions: history.len(),
        pods: numbers.pods,
        agents: numbers.agents,
        kills: numbers.kills,
        served: tally.served(),
        not_yet: tally.not_yet(),
        calls: world.eks_auth.call_count(),
    })
}

/// Acts until the time is over or something does not hold, and ends in peace.
fn act(plan: &Plan, world: &World, tally: &Tally, history: &mut Vec<String>) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let start = Instant::now();
    let mut said = start;
    while start.elapsed() < plan.time {
        let action = Action::choose(&mut random, world, plan.pods);
        history.push(format!("{:7.2} s  {action}", start.elapsed().as_secs_f64()));
        action.perform(world)?;
        if let Some(why) = world.violation() {
            return Err(why);
        }
        if said.elapsed() >= plan.progress {
            said = Instant::now();
            let (seconds, actions) = (start.elapsed().as_secs(), history.len());
            eprintln!("    {seconds:>5} s: {actions} actions, {tally}");
        }
        thread::sleep(Duration::from_millis(random.u64(..PAUSE_MS)));
    }
    Action::Calm.perform(world)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} actions, {} pods, {} agents ({} killed), {} requests served, {} told \"not yet\", \
             {} calls to EKS Auth: all held",
            self.actions, self.pods, self.agents, self.kills, self.served, self.not_yet, self.calls
        )
    }
}
