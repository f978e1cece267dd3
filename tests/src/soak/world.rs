//! What changes: a node, its pods, its agents, and EKS Auth.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{clients, remains::Remains, resident::Resident};
use crate::{
    agent::{Agent, LogLine},
    eks_auth::{EksAuth, Outcome},
    node::Node,
    pod::Pod,
    wait::poll,
};

/// The namespace and the service account of all pods.
pub(super) const ACCOUNT: (&str, &str) = ("soak", "reader");
/// How long it may take, once nothing fails any more, until each pod is served.
const CALM: Duration = Duration::from_secs(60);
/// What is older than this the other agent knows when one is killed.
const TOLD: Duration = Duration::from_secs(2);
/// What is older than this the other agent knows when one is told to end.
const TELLING: Duration = Duration::from_millis(200);
/// For how long connections may be refused after a kill. SDKs try more often than once, and a
/// sandbox that is a moment old may not have been reached yet by the agent that is left.
const REFUSED: Duration = Duration::from_secs(5);
/// How many log lines of each agent a failure shows.
const SHOWN: usize = 40;
/// Of how many agents that have gone.
const GONE: usize = 2;

/// All of it. Clients and actions share it.
pub(super) struct World {
    // The agents are gone before the node is.
    agents: Mutex<Vec<Agent>>,
    /// The last that have gone, with what they have logged last.
    gone: Mutex<VecDeque<(u32, Vec<LogLine>)>>,
    residents: Mutex<Vec<Arc<Resident>>>,
    node: Node,
    pub(super) eks_auth: EksAuth,
    handover: TempDir,
    violation: Mutex<Option<String>>,
    is_over: AtomicBool,
    kill_events: AtomicU64,
    last_kill: Mutex<Option<Instant>>,
    pods_so_far: AtomicUsize,
    agents_so_far: AtomicUsize,
}

/// Sets it when it is dropped.
struct OverWhenDropped<'a>(&'a AtomicBool);

impl Drop for OverWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How much has happened.
pub(super) struct Numbers {
    pub(super) pods: usize,
    pub(super) agents: usize,
    pub(super) kills: u64,
}

impl World {
    /// A node with an agent, and without pods. It has a network of its own: while no agent is
    /// there, a pod in the host's network reaches what else is at the address of credentials.
    pub(super) fn new() -> Self {
        let node = Node::with_network();
        let eks_auth = node.enter(EksAuth::start);
        eks_auth.associate(ACCOUNT.0, ACCOUNT.1, "soak");
        let world = Self {
            agents: Mutex::default(),
            gone: Mutex::default(),
            residents: Mutex::default(),
            node,
            eks_auth,
            handover: tempfile::tempdir().expect("a temporary folder"),
            violation: Mutex::default(),
            is_over: AtomicBool::new(false),
            kill_events: AtomicU64::new(0),
            last_kill: Mutex::default(),
            pods_so_far: AtomicUsize::new(0),
            agents_so_far: AtomicUsize::new(0),
        };
        world.start_agent();
        world
    }

    pub(super) fn residents(&self) -> Vec<Arc<Resident>> {
        lock(&self.residents).clone()
    }

    pub(super) fn agents(&self) -> MutexGuard<'_, Vec<Agent>> {
        lock(&self.agents)
    }

    /// The agent that started last.
    pub(super) fn newest(&self) -> impl std::ops::Deref<Target = Agent> + '_ {
        Newest(self.agents())
    }

    /// Something does not hold. The first such thing counts.
    pub(super) fn report(&self, why: String) {
        lock(&self.violation).get_or_insert(why);
    }

    pub(super) fn violation(&self) -> Option<String> {
        lock(&self.violation).clone()
    }

    /// Clients are to end once what this returns is dropped, also by a panic.
    pub(super) fn over_when_dropped(&self) -> impl Drop {
        OverWhenDropped(&self.is_over)
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Counts the begin and the end of each kill: it is odd while an agent is being killed.
    pub(super) fn kill_events(&self) -> u64 {
        self.kill_events.load(Ordering::SeqCst)
    }

    /// For how long a connection that is refused is tried again: not at all, unless an agent was
    /// killed a moment ago.
    pub(super) fn patience_after_kill(&self) -> Duration {
        let last = *lock(&self.last_kill);
        let left = last.and_then(|last| REFUSED.checked_sub(last.elapsed()));
        left.unwrap_or_default()
    }

    /// Whether no agent has been killed since this was counted.
    pub(super) fn killed_none_since(&self, events: u64) -> bool {
        events.is_multiple_of(2) && self.kill_events() == events
    }

    pub(super) fn numbers(&self) -> Numbers {
        Numbers {
            pods: self.pods_so_far.load(Ordering::Relaxed),
            agents: self.agents_so_far.load(Ordering::Relaxed),
            kills: self.kill_events() / 2,
        }
    }

    /// A pod starts. What it is like is the caller's business.
    pub(super) fn add_pod(&self, start: impl FnOnce(&Node, &str) -> Pod) {
        let number = self.pods_so_far.fetch_add(1, Ordering::Relaxed);
        let resident = Resident::new(start(&self.node, &format!("pod-{number}")));
        lock(&self.residents).push(Arc::new(resident));
    }

    /// A pod ends. What EKS Auth has granted to it is counted.
    pub(super) fn remove_pod(&self, index: usize) -> Result<(), String> {
        let resident = lock(&self.residents).swap_remove(index);
        self.check_grants(&resident)
        // The pod itself ends with the last client that asks from it.
    }

    /// Starts an agent, which takes over from the one that may be there.
    pub(super) fn start_agent(&self) {
        self.agents_so_far.fetch_add(1, Ordering::Relaxed);
        for resident in self.residents() {
            resident.count_loss();
        }
        let folder = self.handover.path().to_str().expect("a path of UTF-8");
        let agent = Agent::on(&self.node, &self.eks_auth).set("--handover-dir", folder);
        let agent = agent.start();
        self.agents().push(agent);
    }

    /// Ends the older of two agents as an update does.
    pub(super) fn end_agent(&self) -> Result<(), String> {
        // What is younger the next agent may not have taken in yet.
        if let Some(told) = Instant::now().checked_sub(TELLING) {
            for resident in self.residents() {
                resident.forget_younger_promise(told);
            }
        }
        let mut agent = self.agents().remove(0);
        let status = agent.terminate();
        self.note_gone(&agent);
        if status.success() {
            return Ok(());
        }
        Err(format!("an agent that was told to end ended with {status}"))
    }

    /// Kills an agent.
    pub(super) fn kill_agent(&self, index: usize) {
        let told = Instant::now().checked_sub(TOLD);
        let is_last = self.agents().len() == 1;
        for resident in self.residents() {
            resident.count_loss();
            match told {
                Some(told) if !is_last => resident.forget_younger_promise(told),
                _ => resident.forget_promise(),
            }
        }
        self.kill_events.fetch_add(1, Ordering::SeqCst);
        let agent = self.agents().remove(index);
        self.note_gone(&agent);
        drop(agent);
        *lock(&self.last_kill) = Some(Instant::now());
        self.kill_events.fetch_add(1, Ordering::SeqCst);
        for resident in self.residents().iter().filter(|_| is_last) {
            resident.forget_promise();
        }
    }

    /// EKS Auth works again: each pod must be served soon.
    pub(super) fn wait_served(&self) -> Result<(), String> {
        self.eks_auth.heal();
        for resident in self.residents() {
            let mut failure = None;
            let served = poll(CALM, || {
                match clients::ask(self, &resident, "169.254.170.23:80") {
                    Ok(served) => served.then_some(()),
                    Err(why) => {
                        failure = Some(why);
                        Some(())
                    }
                }
            });
            if let Some(why) = failure {
                return Err(why);
            }
            if served.is_none() {
                let uid = lock_pod(&resident);
                return Err(format!("pod {uid} is not served, though nothing fails"));
            }
            self.check_grants(&resident)?;
        }
        Ok(())
    }

    /// Removes all pods. The agent must have kept nothing of them.
    pub(super) fn empty(&self, fresh: &Remains) -> Result<(), String> {
        while self.agents().len() > 1 {
            self.end_agent()?;
        }
        lock(&self.residents).clear();
        fresh.wait_for(&self.newest())
    }

    /// Keeps what an agent that goes has logged last.
    fn note_gone(&self, agent: &Agent) {
        let mut gone = lock(&self.gone);
        if gone.len() == GONE {
            gone.pop_front();
        }
        gone.push_back((agent.id(), agent.logs().last(SHOWN)));
    }

    /// Prints what the agents have logged last, those that have gone first.
    pub(super) fn show_logs(&self) {
        let show = |id: u32, lines: &[LogLine]| {
            eprintln!("---- the last log lines of agent {id} ----");
            for line in lines {
                eprintln!("{}", line.raw);
            }
        };
        for (id, lines) in lock(&self.gone).iter() {
            show(*id, lines);
        }
        for agent in self.agents().iter() {
            show(agent.id(), &agent.logs().last(SHOWN));
        }
    }

    fn check_grants(&self, resident: &Resident) -> Result<(), String> {
        let uid = lock_pod(resident);
        let calls = self.eks_auth.calls_for_pod(&uid);
        let granted = calls
            .iter()
            .filter(|call| matches!(call.outcome, Outcome::Issued(_)))
            .count() as u64;
        let most = resident.most_grants();
        if granted > most {
            return Err(format!(
                "EKS Auth has granted credentials to pod {uid} {granted} times, and {most} are the \
                 most that it needs"
            ));
        }
        Ok(())
    }
}

/// The last of the agents, and the lock on them.
struct Newest<'a>(MutexGuard<'a, Vec<Agent>>);

impl std::ops::Deref for Newest<'_> {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        self.0.last().expect("an agent")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock_pod(resident: &Resident) -> String {
    let pod = resident.pod.read().unwrap_or_else(PoisonError::into_inner);
    pod.uid().to_owned()
}
