//! The task that owns the state of all exchanges.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use podcreds_cache::{CacheResult, Subject};
use podcreds_keys::Verdict;
use podcreds_types::{CredentialError, Credentials, Origin, PodUid, TokenDigest};
use podcreds_upstream::UpstreamError;
use tokio::{
    sync::mpsc,
    task::{self, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use crate::{
    RequestResult, TaskParts,
    attempt::Call,
    health::UpstreamHealth,
    last_errors::LastErrors,
    limiter::Limiter,
    limits::SharedLimit,
    origins::Origins,
    queue::{Attempt, Purpose, Queue},
    request::{TaskCommand, Waiter},
    timers::{Timer, Timers},
    verification::{Owner, Verification},
};

/// How soon after an attempt the cache is asked for what is due next.
const UPKEEP_AFTER: Duration = Duration::from_secs(1);
/// Credentials that are good for longer need not be renewed while EKS Auth has too much to do.
const CAN_WAIT: Duration = Duration::from_secs(60 * 60);
/// So long they are put off at most.
const PUT_OFF: Duration = Duration::from_secs(60 * 60);
/// How far ahead nothing is due.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// What works for the task beside it.
pub(crate) enum Job {
    /// A call to EKS Auth.
    Call(Call),
    /// A look at a token's signature.
    Verification(TokenDigest),
}

/// What came of that.
pub(crate) enum Done {
    Call(Result<Credentials, UpstreamError>),
    Verification(Verdict),
}

/// The state of all exchanges.
pub(crate) struct Task {
    pub(crate) parts: TaskParts,
    /// One for each subject with a token that waits to be exchanged.
    pub(crate) queues: HashMap<Subject, Queue>,
    /// For queues of subjects that nobody has identified.
    pub(crate) room: SharedLimit<Origin>,
    /// Tokens whose signatures are looked at.
    pub(crate) verifications: HashMap<TokenDigest, Verification>,
    /// For these looks.
    pub(crate) verifying: SharedLimit<Owner>,
    pub(crate) limiter: Limiter,
    pub(crate) health: UpstreamHealth,
    pub(crate) last_errors: LastErrors,
    pub(crate) origins: Origins,
    /// Single tokens with remembered refusals, the oldest first. Some may be forgotten already.
    pub(crate) refused_tokens: VecDeque<TokenDigest>,
    pub(crate) timers: Timers,
    pub(crate) jobs: JoinSet<Done>,
    pub(crate) running: HashMap<task::Id, Job>,
    /// When the limiter lets the next call pass, if nothing happens before.
    limiter_at: Option<Instant>,
    upkeep_at: Instant,
}

impl Task {
    /// Nothing is in flight yet.
    pub(crate) fn new(parts: TaskParts) -> Self {
        let config = &parts.config;
        let now = Instant::now();
        // What another run of this task left behind when it panicked.
        parts.metrics.reset();
        Self {
            room: SharedLimit::new(config.unidentified_each, config.unidentified),
            verifying: SharedLimit::new(config.unidentified_each, config.unidentified),
            limiter: Limiter::new(config, parts.metrics.clone(), now),
            health: UpstreamHealth::new(parts.metrics.clone()),
            last_errors: LastErrors::default(),
            parts,
            queues: HashMap::new(),
            verifications: HashMap::new(),
            origins: Origins::default(),
            refused_tokens: VecDeque::new(),
            timers: Timers::default(),
            jobs: JoinSet::new(),
            running: HashMap::new(),
            limiter_at: None,
            upkeep_at: now,
        }
    }

    /// Works until nobody can ask any more.
    pub(crate) async fn run(mut self, commands: &mut mpsc::UnboundedReceiver<TaskCommand>) {
        loop {
            let next = self.next_look();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(TaskCommand::Get(request)) => self.admit(request),
                    Some(TaskCommand::Forget(pod)) => self.forget(pod),
                    // Nobody listens any more where an operator has given up.
                    Some(TaskCommand::Report(reply)) => drop(reply.send(self.report())),
                    Some(TaskCommand::Refresh(subject, reply)) => self.refresh(subject, reply),
                    None => return,
                },
                Some(ended) = self.jobs.join_next_with_id() => self.job_ended(ended),
                () = self.parts.cache.work() => self.upkeep_at = Instant::now(),
                () = sleep_until(next) => {}
            }
            self.look();
        }
    }

    fn next_look(&self) -> Instant {
        let others = self.limiter_at.into_iter().chain(self.timers.next());
        others.fold(self.upkeep_at, Instant::min)
    }

    /// Does what is due.
    fn look(&mut self) {
        let now = Instant::now();
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Queue(subject) => self.look_at_queue(subject, now),
                Timer::Verification(digest) => self.look_at_verification(&digest, now),
            }
        }
        if self.upkeep_at <= now {
            self.upkeep(now);
        }
        self.limiter_at = self.start_calls();
    }

    /// Has a queue looked at then, unless a timer is set for before that.
    pub(crate) fn look_later(&mut self, subject: Subject, at: Instant) {
        let Some(queue) = self.queues.get_mut(&subject) else {
            return;
        };
        if queue.look_at.is_none_or(|before| before > at) {
            queue.look_at = Some(at);
            self.timers.add(at, Timer::Queue(subject));
        }
    }

    /// Answers those whose time is up, and begins what is due. One timer for each queue is enough.
    fn look_at_queue(&mut self, subject: Subject, now: Instant) {
        let Some(queue) = self.queues.get_mut(&subject) else {
            return;
        };
        queue.look_at = queue.look_at.filter(|at| *at > now);
        self.expire(&subject, now);
        self.advance(subject);
        let queue = self.queues.get(&subject);
        let waiters = queue
            .into_iter()
            .flat_map(|it| &it.tokens)
            .flat_map(|it| &it.waiters);
        if let Some(next) = waiters.map(|it| it.deadline).min() {
            self.look_later(subject, next);
        }
    }

    fn job_ended(&mut self, ended: Result<(task::Id, Done), JoinError>) {
        let (id, done) = match ended {
            Ok((id, done)) => (id, Some(done)),
            Err(error) => (error.id(), None),
        };
        // What was given up is not in the list.
        match (self.running.remove(&id), done) {
            (Some(Job::Call(call)), Some(Done::Call(answer))) => self.call_ended(call, id, answer),
            (Some(Job::Call(call)), _) => self.call_panicked(call, id),
            (Some(Job::Verification(digest)), Some(Done::Verification(verdict))) => {
                self.verified(digest, verdict);
            }
            (Some(Job::Verification(digest)), _) => self.verified(digest, Verdict::Unknown),
            (None, _) => {}
        }
        self.upkeep_at = self.upkeep_at.min(Instant::now() + UPKEEP_AFTER);
    }

    /// Renews what the cache says is due, and drops what is over.
    fn upkeep(&mut self, now: Instant) {
        let upkeep = self.parts.cache.upkeep();
        self.limiter.refresh(now);
        self.upkeep_at = now + upkeep.pause.min(FAR);
        let crowded = self.limiter.crowded(now);
        for renewal in upkeep.due {
            if let Some(crowded) = crowded
                && renewal.left > CAN_WAIT
                && renewal.since_due < PUT_OFF
            {
                // All nodes share a quota, and pods of others may have nothing yet.
                self.upkeep_at = self.upkeep_at.min(now + crowded);
                continue;
            }
            let digest = renewal.token.digest();
            let queue = self.queue(renewal.subject, None);
            if queue.get(&digest).is_none() {
                let purpose = Purpose::Renewal(renewal.expiration);
                queue.push(renewal.token, digest, purpose, false, now);
            }
            self.advance(renewal.subject);
        }
        let failing = self.queues.iter().filter(|(_, queue)| queue.is_failing());
        let mut failing: Vec<_> = failing.map(|(subject, _)| *subject).collect();
        failing.extend(self.parts.cache.failing());
        failing.sort_unstable();
        failing.dedup();
        self.parts.metrics.backing_off.set(failing.len() as i64);
    }

    /// A subject's queue, which is opened if there is none.
    pub(crate) fn queue(&mut self, subject: Subject, room: Option<Origin>) -> &mut Queue {
        self.queues.entry(subject).or_insert_with(|| {
            self.parts.metrics.exchanges.inc();
            Queue::new(room)
        })
    }

    /// Closes a subject's queue.
    pub(crate) fn close(&mut self, subject: &Subject) -> Option<Queue> {
        let queue = self.queues.remove(subject)?;
        self.parts.metrics.exchanges.dec();
        if let Some(owner) = queue.room {
            self.room.release(owner);
        }
        Some(queue)
    }

    /// Gives up what is in flight for a pod that is gone.
    fn forget(&mut self, pod: PodUid) {
        let subject = Subject::Pod(pod);
        // Once more, since a call may have ended since the cache was told.
        self.parts.cache.forget(&subject);
        self.last_errors.forget(&subject);
        let Some(queue) = self.close(&subject) else {
            return;
        };
        if let Some(attempt) = queue.attempt {
            self.give_up(attempt);
        }
        // Its queue may have counted among the failing ones.
        self.upkeep_at = Instant::now();
        for waiter in queue.tokens.into_iter().flat_map(|queued| queued.waiters) {
            let gone = "this pod has gone from the node, by what the agent knows";
            self.send(waiter, Err(CredentialError::not_ready(gone)));
        }
    }

    /// Ends an attempt that nobody wants any more.
    pub(crate) fn give_up(&mut self, attempt: Attempt) {
        match attempt {
            Attempt::Call { id, abort, .. } => {
                abort.abort();
                if self.running.remove(&id).is_some() {
                    self.limiter.done();
                }
            }
            Attempt::Limiter { slot, .. } => self.limiter.leave(slot),
        }
    }

    /// Answers a waiter, who gets what is valid in memory where there is nothing newer.
    pub(crate) fn answer(
        &self,
        subject: &Subject,
        digest: &TokenDigest,
        mut waiter: Waiter,
        outcome: RequestResult,
    ) {
        use podcreds_cache::Lookup::{Fresh, Stale};
        let is_not_ready = matches!(outcome, Err(CredentialError::NotReady { .. }));
        let outcome = match is_not_ready.then(|| self.parts.cache.get(subject, digest)) {
            Some(Fresh(body, _)) => Ok(body),
            Some(Stale(body)) => {
                waiter.served = CacheResult::Stale;
                Ok(body)
            }
            Some(_) | None => outcome,
        };
        self.send(waiter, outcome);
    }

    fn send(&self, waiter: Waiter, outcome: RequestResult) {
        self.parts.metrics.waiters.dec();
        self.parts.cache.metrics().count(waiter.served);
        // The client may have hung up.
        let _ = waiter.reply.send(outcome);
    }
}
