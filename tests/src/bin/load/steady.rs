//! Something happens while pods go on asking at a steady rate.

use std::{
    mem,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use podcreds_tests::{
    agent::{Agent, Usage},
    eks_auth::{EksAuth, Fault},
    node::Node,
    pod::Pod,
    scenario::wait_served,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Arguments, Subject, number,
    outcome::{Line, Outcome},
    pods, step,
};

/// How many pods ask.
const PODS: usize = 10;
/// The time between two looks at memory and calls.
const LOOK: Duration = Duration::from_millis(250);

/// Pods that have credentials, and the agent that has them.
struct Stage<'a> {
    agent: Agent,
    pods: Vec<Pod>,
    node: Node,
    folder: TempDir,
    eks_auth: &'a EksAuth,
    subject: &'a Subject,
    /// A third of the time that all takes.
    third: Duration,
}

/// EKS Auth is out for the middle third of the time. A pod comes meanwhile, so that the agent goes
/// on trying.
pub(crate) fn outage(arguments: &Arguments, eks_auth: &EksAuth) -> Result<Vec<Outcome>> {
    measure(arguments, eks_auth, "EKS Auth is out", |stage| {
        thread::sleep(stage.third);
        stage.eks_auth.fail(Fault::unavailable());
        let late = stage.node.pod("late").start();
        let client = late.spawn(["patient"]);
        thread::sleep(stage.third);
        stage.eks_auth.heal();
        let back = Instant::now();
        let answer = client.finish().pop().context("the new pod said nothing")?;
        ensure!(answer["status"] == 200, "the new pod got {answer}");
        let waited = back.elapsed();
        thread::sleep(stage.third);
        Ok(("new pod served after", waited))
    })
}

/// Another agent starts after a third of the time, and the first one ends after two.
pub(crate) fn update(arguments: &Arguments, eks_auth: &EksAuth) -> Result<Vec<Outcome>> {
    measure(arguments, eks_auth, "An agent follows another", |stage| {
        thread::sleep(stage.third);
        let start = Instant::now();
        let next = stage.start_agent();
        let took = start.elapsed();
        thread::sleep(stage.third);
        mem::replace(&mut stage.agent, next).terminate();
        thread::sleep(stage.third);
        Ok(("next one ready after", took))
    })
}

fn measure(
    arguments: &Arguments,
    eks_auth: &EksAuth,
    title: &'static str,
    happen: impl Fn(&mut Stage<'_>) -> Result<(&'static str, Duration)>,
) -> Result<Vec<Outcome>> {
    let measured = arguments.subjects().into_iter().map(|subject| {
        let case = format!("{} requests/s from {PODS} pods", arguments.steady_rate);
        step(&format!("{title}: {case}, {}", subject.name), || {
            let mut stage = Stage::set(arguments, eks_auth, &subject)?;
            stage.play(arguments.steady_rate, case.clone(), &happen)
        })
    });
    measured.collect()
}

impl<'a> Stage<'a> {
    fn set(arguments: &Arguments, eks_auth: &'a EksAuth, subject: &'a Subject) -> Result<Self> {
        let node = Node::new();
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let stage = Self {
            agent: start_agent(&node, eks_auth, subject, folder.path()),
            pods: pods::start(&node, PODS)?,
            node,
            folder,
            eks_auth,
            subject,
            third: Duration::from_secs(arguments.steady_seconds) / 3,
        };
        stage.pods.iter().for_each(|pod| drop(wait_served(pod, [])));
        eks_auth.forget_calls();
        Ok(stage)
    }

    fn start_agent(&self) -> Agent {
        start_agent(&self.node, self.eks_auth, self.subject, self.folder.path())
    }

    /// Lets it happen under load.
    fn play(
        &mut self,
        rate: u32,
        case: String,
        happen: impl Fn(&mut Self) -> Result<(&'static str, Duration)>,
    ) -> Result<Outcome> {
        let each = (f64::from(rate) / PODS as f64).to_string();
        let storm = ["storm", "--until-end-of-input", "--threads", "4", "--rate"];
        let command = storm.into_iter().chain([each.as_str()]);
        let clients: Vec<_> = self
            .pods
            .iter()
            .map(|pod| pod.spawn(command.clone()))
            .collect();
        let (is_over, eks_auth, agent) = (AtomicBool::new(false), self.eks_auth, self.agent.id());
        let (happened, samples) = thread::scope(|scope| {
            let sampler = scope.spawn(|| sample(agent, eks_auth, &is_over));
            let happened = happen(self);
            is_over.store(true, Ordering::Relaxed);
            (happened, sampler.join())
        });
        let (name, took) = happened?;
        let samples = samples.unwrap_or_default();
        let answers = clients.into_iter().map(|client| client.finish().pop());
        let answers = answers.collect::<Option<Vec<_>>>();
        let answers = answers.context("a client said nothing")?;
        let worst = |field: &str| -> Result<f64> {
            let all = answers.iter().map(|answer| number(answer, field));
            let all = all.collect::<Result<Vec<_>>>()?;
            Ok(all.into_iter().fold(0.0, f64::max) / 1000.0)
        };
        let served = sum(&answers, |answer| &answer["outcomes"]["200"]);
        let asked = sum(&answers, |answer| &answer["requests"]);
        Ok(Outcome::new(case, &self.subject.name)
            .with("requests", asked, "")
            .with("failed", asked - served, "")
            .with("worst pod's p99", worst("p99_us")?, "ms")
            .with("max", worst("max_us")?, "ms")
            .with("calls", self.eks_auth.call_count() as f64, "")
            .with(name, took.as_secs_f64() * 1000.0, "ms")
            .with_line(samples.line("Resident memory", "MB", |look| look.resident_mb))
            .with_line(samples.line("Calls to EKS Auth so far", "calls", |look| look.calls)))
    }
}

fn start_agent(node: &Node, eks_auth: &EksAuth, subject: &Subject, folder: &Path) -> Agent {
    let agent = Agent::on(node, eks_auth).binary(&subject.binary);
    let folder = folder.to_str().unwrap_or_default();
    agent.set("--handover-dir", folder).start()
}

fn sum<'a>(answers: &'a [Value], field: impl Fn(&'a Value) -> &'a Value) -> f64 {
    answers.iter().filter_map(|it| field(it).as_f64()).sum()
}

/// What was seen from time to time.
#[derive(Default)]
struct Samples(Vec<Look>);

struct Look {
    seconds: f64,
    resident_mb: f64,
    calls: f64,
}

/// Looks at the agent's memory, as long as it is there, and at the calls.
fn sample(agent: u32, eks_auth: &EksAuth, is_over: &AtomicBool) -> Samples {
    let start = Instant::now();
    let mut looks = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let resident = Usage::of(agent).map_or(0.0, |usage| usage.resident as f64 / 1e6);
        looks.push(Look {
            seconds: start.elapsed().as_secs_f64(),
            resident_mb: resident,
            calls: eks_auth.call_count() as f64,
        });
        thread::sleep(LOOK);
    }
    Samples(looks)
}

impl Samples {
    fn line(&self, plot: &'static str, y: &'static str, value: fn(&Look) -> f64) -> Line {
        Line {
            plot,
            x: "seconds",
            y,
            points: self.0.iter().map(|it| (it.seconds, value(it))).collect(),
        }
    }
}
