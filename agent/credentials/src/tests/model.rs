//! Random requests, faults and time: what must hold whatever happens.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use futures_util::future::BoxFuture;
use podcreds_types::Credentials;
use proptest::prelude::*;
use serde_json::Value;
use tokio::{
    runtime::{Builder, Handle},
    task::JoinSet,
    time::timeout,
};

use super::*;

/// How EKS Auth is doing.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Fine { life_minutes: u64 },
    Slow,
    Hanging,
    Down,
    Throttling { retry_after: Option<u64> },
    Refusing,
    Lying,
}

/// One step of a run.
#[derive(Clone, Debug)]
enum Step {
    /// Requests of one pod with one of its tokens; the first may hang up early.
    Ask {
        pod: u16,
        token: u8,
        requests: usize,
        hang_up: bool,
    },
    /// A request with a token that the pod made up.
    Forge {
        pod: u16,
        token: u8,
    },
    /// The pod is gone. One with the same UID may come, which makes it harder.
    Forget {
        pod: u16,
    },
    Mood(Mood),
    Wait {
        seconds: u64,
    },
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        6 => (1u64..400).prop_map(|life_minutes| Mood::Fine { life_minutes }),
        1 => Just(Mood::Slow),
        1 => Just(Mood::Hanging),
        2 => Just(Mood::Down),
        2 => prop::option::of(0u64..100).prop_map(|retry_after| Mood::Throttling { retry_after }),
        1 => Just(Mood::Refusing),
        1 => Just(Mood::Lying),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ask = (0u16..4, 0u8..3, 1usize..6, any::<bool>());
    prop_oneof![
        8 => ask.prop_map(|(pod, token, requests, hang_up)| {
            Step::Ask { pod, token, requests, hang_up }
        }),
        2 => (0u16..4, 0u8..6).prop_map(|(pod, token)| Step::Forge { pod, token }),
        1 => (0u16..4).prop_map(|pod| Step::Forget { pod }),
        4 => mood().prop_map(Step::Mood),
        4 => (0u64..3).prop_map(|seconds| Step::Wait { seconds }),
        4 => (0u64..8000).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// An EKS Auth with moods, which allows each pod one call at a time.
#[derive(Clone)]
struct Moody {
    mood: Arc<Mutex<Mood>>,
    in_air: Arc<Mutex<HashSet<String>>>,
    clock: Clock,
}

/// A call, until it is answered or given up.
struct Call(Arc<Mutex<HashSet<String>>>, String);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.lock().unwrap().remove(&self.1);
    }
}

impl AssumeRole for Moody {
    fn assume_role(&self, token: Token) -> BoxFuture<'static, Result<Credentials, UpstreamError>> {
        let this = self.clone();
        Box::pin(async move {
            let pod = token.expose().split('.').nth(1).unwrap().to_owned();
            let news = this.in_air.lock().unwrap().insert(pod.clone());
            assert!(news, "two exchanges for one pod");
            let _call = Call(this.in_air, pod);
            let mood = *this.mood.lock().unwrap();
            let delay = match mood {
                Mood::Slow => Duration::from_secs(3),
                Mood::Hanging => Duration::from_secs(30),
                _ => SOON,
            };
            sleep(delay).await;
            let until = |minutes| this.clock.now() + MINUTE * minutes;
            match mood {
                _ if token.expose().starts_with("forged") => Err(refused()),
                Mood::Fine { life_minutes } => {
                    Ok(credentials(token.expose(), until(life_minutes as u32)))
                }
                Mood::Slow => Ok(credentials(token.expose(), until(59))),
                Mood::Hanging | Mood::Down => Err(UpstreamError::unavailable("down")),
                Mood::Throttling { retry_after } => Err(UpstreamError::Throttled {
                    retry_after: retry_after.map(Duration::from_secs),
                }),
                Mood::Refusing => Err(refused()),
                Mood::Lying => Ok(credentials(token.expose(), this.clock.now() - MINUTE)),
            }
        })
    }
}

/// Says of every body that somebody gets whether they may have it.
async fn check(store: TestStore, clock: Clock, number: u16, token: String) {
    let answer = timeout(Duration::from_millis(901), ask(&store, pod(number), &token));
    let Ok(body) = answer.await.expect("a lost waiter") else {
        return;
    };
    let body: Value = serde_json::from_slice(&body).unwrap();
    let fetched_with = body["AccessKeyId"].as_str().unwrap();
    let of_this_pod = format!("good.{number}.");
    assert!(
        fetched_with.starts_with(&of_this_pod),
        "another pod's credentials"
    );
    assert!(token.starts_with("good"), "credentials for a forged token");
    let expiration = body["Expiration"].as_str().unwrap();
    let expiration =
        ::time::OffsetDateTime::parse(expiration, &::time::format_description::well_known::Rfc3339);
    assert!(
        SystemTime::from(expiration.unwrap()) + Duration::from_secs(1) > clock.now(),
        "expired credentials"
    );
}

async fn run(steps: Vec<Step>) {
    let clock = Clock::paused();
    let upstream = Moody {
        mood: Arc::new(Mutex::new(Mood::Fine { life_minutes: 59 })),
        in_air: Arc::default(),
        clock,
    };
    let config = config(|it| it.cache.capacity = 3);
    let upstream_too = Arc::new(upstream.clone());
    let store = TestStore::start(config, upstream_too, None, clock, &Handle::current());
    let mut requests = JoinSet::new();
    for step in steps {
        match step {
            Step::Ask {
                pod,
                token,
                requests: count,
                hang_up,
            } => {
                for n in 0..count {
                    let request = check(store.clone(), clock, pod, format!("good.{pod}.{token}"));
                    if hang_up && n == 0 {
                        requests.spawn(async { drop(timeout(SOON / 2, request).await) });
                    } else {
                        requests.spawn(request);
                    }
                }
            }
            Step::Forge { pod, token } => {
                let token = format!("forged.{pod}.{token}");
                requests.spawn(check(store.clone(), clock, pod, token));
            }
            Step::Forget { pod } => store.forget(uid(pod)),
            Step::Mood(mood) => *upstream.mood.lock().unwrap() = mood,
            Step::Wait { seconds } => sleep(Duration::from_secs(seconds)).await,
        }
        tokio::task::yield_now().await;
    }
    while let Some(request) = requests.join_next().await {
        request.unwrap();
    }
    settles(&store, &upstream).await;
}

/// In the end, all is served, and nothing is left behind.
async fn settles(store: &TestStore, upstream: &Moody) {
    *upstream.mood.lock().unwrap() = Mood::Fine { life_minutes: 59 };
    sleep(10 * MINUTE).await;
    assert_eq!(
        store.metric("podcreds_exchanges"),
        0,
        "an exchange that never ends"
    );
    assert_eq!(store.metric("podcreds_exchange_waiters"), 0);
    for number in 0..4 {
        let good = format!("good.{number}.0");
        assert!(ask(store, pod(number), &good).await.is_ok(), "no recovery");
        store.forget(uid(number));
    }
    settle().await;
    assert_eq!(store.metric("podcreds_cache_entries"), 0);
    assert_eq!(store.metric("podcreds_cache_bytes"), 0);
    assert_eq!(store.metric("podcreds_refusals_remembered"), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nobody_gets_what_is_not_theirs_and_everybody_gets_an_answer(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(steps));
    }
}
