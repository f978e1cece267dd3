//! Three days of a node in a second: what its pods cost EKS Auth.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
    time::SystemTime,
};

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::task::JoinSet;

use super::*;

const DAYS: u32 = 3;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The kubelet rotates a token of 24 hours when 80 % of its life are over.
const ROTATION: Duration = Duration::from_secs(19 * 3600 + 720);

/// What the pods of a kind have done and cost.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    pods: usize,
    pod_days: f64,
    calls: usize,
    asked: usize,
}

/// A node of 110 pods with a store of its own.
#[derive(Clone)]
struct Node {
    store: TestStore,
    clock: Clock,
    started: Instant,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    kinds: BTreeMap<String, Tally>,
    alive: HashSet<String>,
    calls_for_the_dead: usize,
    uids: u16,
}

impl Seen {
    fn kind(&mut self, name: &str) -> &mut Tally {
        self.kinds.entry(name.to_owned()).or_default()
    }
}

/// A running pod. Its tokens are called `kind.uid.rotation`.
struct Pod {
    node: Node,
    kind: &'static str,
    uid: u16,
    started: Instant,
}

impl Node {
    fn new() -> Self {
        let clock = Clock::paused();
        let seen = Arc::<Mutex<Seen>>::default();
        let fake = Fake::new(SOON, {
            let seen = Arc::clone(&seen);
            move |token| {
                let mut parts = token.split('.');
                let (kind, uid) = (parts.next().unwrap(), parts.next().unwrap());
                let mut seen = seen.lock().unwrap();
                seen.kind(kind).calls += 1;
                if !seen.alive.contains(uid) {
                    seen.calls_for_the_dead += 1;
                }
                // Every other pod has a role in another account.
                let life = match uid.parse::<u16>().unwrap() % 2 {
                    0 => 6 * HOUR,
                    _ => 59 * MINUTE,
                };
                Ok(credentials(token, clock.now() + life))
            }
        });
        Self {
            store: fake.store(Config::default(), clock),
            clock,
            started: Instant::now(),
            seen,
        }
    }

    fn start(&self, kind: &'static str) -> Pod {
        let mut seen = self.seen.lock().unwrap();
        seen.uids += 1;
        let uid = seen.uids;
        seen.alive.insert(uid.to_string());
        seen.kind(kind).pods += 1;
        Pod {
            node: self.clone(),
            kind,
            uid,
            started: Instant::now(),
        }
    }

    fn is_over(&self) -> bool {
        self.started.elapsed() >= DAY * DAYS
    }
}

impl Pod {
    /// Asks for credentials, and insists on getting good ones. Says how long they are good.
    async fn ask(&self) -> Duration {
        let rotation = self.started.elapsed().as_secs() / ROTATION.as_secs();
        let token = format!("{}.{}.{rotation}", self.kind, self.uid);
        let body = loop {
            match ask(&self.node.store, pod(self.uid), &token).await {
                Ok(body) => break body,
                // The limiter makes a burst of new pods wait, and SDKs try again.
                Err(error) => assert!(self.started.elapsed() < MINUTE, "{error}"),
            }
            sleep(Duration::from_secs(1)).await;
        };
        let left = expiration(&body)
            .duration_since(self.node.clock.now())
            .expect("expired");
        assert!(left >= 15 * MINUTE, "{token} got stale credentials");
        self.node.seen.lock().unwrap().kind(self.kind).asked += 1;
        left
    }
}

/// The pod's cgroup goes.
impl Drop for Pod {
    fn drop(&mut self) {
        let mut seen = self.node.seen.lock().unwrap();
        seen.alive.remove(&self.uid.to_string());
        seen.kind(self.kind).pod_days += self.started.elapsed().as_secs_f64() / DAY.as_secs_f64();
        self.node.store.forget(uid(self.uid));
    }
}

fn expiration(body: &[u8]) -> SystemTime {
    let body: Value = serde_json::from_slice(body).unwrap();
    let text = body["Expiration"].as_str().unwrap();
    OffsetDateTime::parse(text, &Rfc3339).unwrap().into()
}

/// A service whose processes come and go, such as a shell script that calls the AWS CLI.
async fn busy(node: Node) {
    let pod = node.start("busy");
    while !node.is_over() {
        pod.ask().await;
        sleep(MINUTE).await;
    }
}

/// A service in Python: botocore keeps its credentials until they have 15 minutes left.
async fn python(node: Node) {
    let pod = node.start("python");
    while !node.is_over() {
        let left = pod.ask().await;
        sleep((left + Duration::from_secs(1)).saturating_sub(15 * MINUTE)).await;
        sleep(MINUTE).await;
    }
}

/// A service that looked at a bucket when it started.
async fn idle(node: Node) {
    let pod = node.start("idle");
    pod.ask().await;
    sleep(DAY * DAYS).await;
}

/// A cron job that runs for a minute every ten.
async fn cron(node: Node) {
    while !node.is_over() {
        let pod = node.start("cron");
        for _ in 0..3 {
            pod.ask().await;
            sleep(MINUTE / 3).await;
        }
        drop(pod);
        sleep(9 * MINUTE).await;
    }
}

/// A service that is deployed again every two hours.
async fn churn(node: Node) {
    while !node.is_over() {
        let pod = node.start("churn");
        for _ in 0..24 {
            pod.ask().await;
            sleep(5 * MINUTE).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_of_110_pods_over_three_days() {
    let node = Node::new();
    let mut pods = JoinSet::new();
    (0..30).for_each(|_| drop(pods.spawn(busy(node.clone()))));
    (0..40).for_each(|_| drop(pods.spawn(python(node.clone()))));
    (0..20).for_each(|_| drop(pods.spawn(idle(node.clone()))));
    (0..10).for_each(|_| drop(pods.spawn(cron(node.clone()))));
    (0..10).for_each(|_| drop(pods.spawn(churn(node.clone()))));
    while let Some(pod) = pods.join_next().await {
        pod.unwrap();
    }
    sleep(DAY).await;

    let seen = node.seen.lock().unwrap();
    println!("kind     pods  pod-days  asked  upstream calls  per pod-day");
    for (kind, tally) in &seen.kinds {
        println!(
            "{kind:8} {:4} {:9.1} {:6} {:15} {:12.1}",
            tally.pods,
            tally.pod_days,
            tally.asked,
            tally.calls,
            tally.calls as f64 / tally.pod_days,
        );
    }
    assert_eq!(seen.calls_for_the_dead, 0);
    let tally = |kind: &str| seen.kinds[kind];
    // An idle pod might still be one that asks every six hours, once.
    assert_eq!(tally("idle").calls, 2 * tally("idle").pods);
    assert_eq!(tally("cron").calls, tally("cron").pods);
    // Half of the pods need new credentials every 33 minutes or more, the others every 2.5 hours.
    let per_day = |kind: &str| tally(kind).calls as f64 / tally(kind).pod_days;
    assert!(per_day("busy") < 28.0);
    assert!(per_day("python") < 28.0);
    assert!(per_day("churn") < 32.0);
    assert_eq!(node.store.metric("podcreds_cache_entries"), 0);
    assert_eq!(node.store.metric("podcreds_exchanges"), 0);
}
