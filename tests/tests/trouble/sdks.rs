//! Unmodified SDKs ride through trouble. The test prints what each of them saw: docs/clients.md has
//! it.

use std::{
    thread,
    time::{Duration, Instant},
};

use podcreds_tests::{
    agent::Metrics,
    eks_auth::Fault,
    needs_privileges,
    pod::Pod,
    privileged,
    scenario::{Scenario, wait_served},
    sdk::{Got, Sdk},
};

/// What happens upstream while the SDK wants credentials.
#[derive(PartialEq)]
enum Trouble {
    /// The pod is new, and its first calls fail.
    First(usize, Fault),
    /// The pod has credentials, and then all calls fail.
    Outage(Fault),
}

const SLOW: Trouble = Trouble::First(1, Fault::Slow(Duration::from_secs(3)));

fn troubles() -> [(&'static str, Trouble); 8] {
    use Trouble::{First, Outage};
    let throttle = |retry_after| Fault::Throttle { retry_after };
    [
        ("none", First(0, Fault::Hang)),
        ("503", First(1, Fault::unavailable())),
        ("503, three times", First(3, Fault::unavailable())),
        ("429", First(1, throttle(None))),
        ("429, `Retry-After: 2`", First(1, throttle(Some(2)))),
        ("answers after 3 s", SLOW),
        ("503, cache warm", Outage(Fault::unavailable())),
        ("no answers, cache warm", Outage(Fault::Hang)),
    ]
}

#[test]
fn unmodified_sdks_get_credentials_in_spite_of_each_fault() {
    needs_privileges!();
    let mut sdks = Sdk::ALL.to_vec();
    sdks.retain(|sdk| privileged::can_run(sdk.check()));
    let troubles = troubles();
    // Side by side, since most of the time they wait.
    let lines: Vec<_> = thread::scope(|scope| {
        let threads = sdks.into_iter().map(|sdk| {
            let troubles = troubles.iter();
            scope.spawn(move || {
                troubles
                    .map(|trouble| line(sdk, trouble))
                    .collect::<Vec<_>>()
            })
        });
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    println!("{}", lines.join("\n"));
}

/// Lets an SDK meet trouble. The line says what it got, how long it took, and how many calls it
/// cost.
fn line(sdk: Sdk, (name, trouble): &(&str, Trouble)) -> String {
    let scene = Scenario::start();
    let pod = scene.known_pod("web");
    match trouble {
        Trouble::First(calls, fault) => {
            scene.eks_auth.fail_pod(pod.uid(), *calls, fault.clone());
        }
        Trouble::Outage(fault) => {
            wait_served(&pod, []);
            scene.eks_auth.forget_calls();
            scene.eks_auth.fail(fault.clone());
        }
    }
    let mut seen = run(&scene, &pod, sdk);
    if let Some(why) = &seen.gave_up {
        // Its pauses are random: now and then three tries do not last for three seconds.
        let unlucky = sdk == Sdk::Rust && *trouble == SLOW;
        assert!(unlucky, "{} gave up, {}: {why}", sdk.name(), seen.answers);
        let again = run(&scene, &pod, sdk);
        seen = Seen {
            answers: format!("{}; then {}", seen.answers, again.answers),
            took: seen.took + again.took,
            ..again
        };
    }
    let Seen {
        answers,
        took,
        gave_up,
    } = seen;
    assert_eq!(gave_up, None);
    let took = took.as_secs_f64();
    let calls = scene.eks_auth.call_count();
    format!(
        "| {} | {name} | {answers} | {took:.1} s | {calls} |",
        sdk.name()
    )
}

/// What an SDK saw.
struct Seen {
    /// The agent's answers.
    answers: String,
    /// How long it took, with its start.
    took: Duration,
    /// Its own words, if it got nothing.
    gave_up: Option<String>,
}

/// Has the SDK get credentials in this pod.
fn run(scene: &Scenario, pod: &Pod, sdk: Sdk) -> Seen {
    let before = scene.agent.metrics();
    let started = Instant::now();
    let got = sdk.run(|program| pod.command(program)).unwrap();
    let took = started.elapsed();
    let gave_up = match got {
        Got::Credentials(owner) => {
            assert_eq!(owner.uid, pod.uid());
            None
        }
        Got::Nothing(why) => Some(why),
    };
    Seen {
        answers: answers(&before, &scene.agent.metrics()),
        took,
        gave_up,
    }
}

/// The answers that the pod got, such as `503, 503, 200`: the last one that it waits for is the
/// 200.
fn answers(before: &Metrics, after: &Metrics) -> String {
    let name = "podcreds_request_duration_seconds_count";
    let mut answers = Vec::new();
    for code in ["400", "403", "404", "503", "200"] {
        let labels = [("code", code)];
        let count = after.sum(name, &labels) - before.sum(name, &labels);
        answers.extend(std::iter::repeat_n(code, count as usize));
    }
    answers.join(", ")
}
