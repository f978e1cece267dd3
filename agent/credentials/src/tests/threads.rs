//! Requests, exchanges and forgetting on threads of their own, as in the agent.

use std::{sync::mpsc, thread};

use futures_util::future::join_all;
use tokio::{runtime::Builder, sync::oneshot};

use super::*;

const PODS: u16 = 8;
const ROUNDS: usize = 500;

/// A runtime on a thread of its own, until the sender is dropped.
fn control_thread() -> (tokio::runtime::Handle, oneshot::Sender<()>) {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let handle = runtime.handle().clone();
    let (running, until) = oneshot::channel();
    thread::spawn(move || runtime.block_on(until));
    (handle, running)
}

/// Asks for all pods at once, again and again.
async fn ask_all(store: TestStore) {
    for round in 0..ROUNDS {
        let requests = (0..PODS).map(|n| {
            let store = store.clone();
            async move {
                let token = format!("{n}-{}", round % 3);
                if let Ok(body) = ask(&store, pod(n), &token).await {
                    let of_this_pod = format!(r#"{{"AccessKeyId":"{n}-"#);
                    assert!(body.starts_with(of_this_pod.as_bytes()));
                }
            }
        });
        join_all(requests).await;
    }
}

/// Whatever the threads do at the same time, nobody gets what is not theirs and nothing gets stuck.
#[test]
fn threads_neither_mix_pods_up_nor_wait_for_each_other() {
    let (control, running) = control_thread();
    let clock = Clock::default();
    let fake = Fake::new(Duration::ZERO, move |token| {
        Ok(credentials(token, clock.now() + HOUR))
    });
    let config = config(|it| {
        it.exchange.calls_per_second = 1e6;
        it.cache.capacity = 6;
    });
    let store = {
        let _control = control.enter();
        fake.store(config, clock)
    };
    let (done, finished) = mpsc::channel();
    for _ in 0..2 {
        let (store, done) = (store.clone(), done.clone());
        thread::spawn(move || {
            let serving = Builder::new_current_thread().enable_time().build().unwrap();
            serving.block_on(ask_all(store));
            done.send(()).unwrap();
        });
    }
    let forgetting = store.clone();
    thread::spawn(move || {
        for round in 0..ROUNDS as u16 * 20 {
            forgetting.forget(uid(round % PODS));
            thread::yield_now();
        }
        done.send(()).unwrap();
    });
    for _ in 0..3 {
        let deadline = Duration::from_secs(60);
        finished.recv_timeout(deadline).expect("a thread is stuck");
    }
    (0..PODS).for_each(|n| store.forget(uid(n)));
    let started = std::time::Instant::now();
    while store.metric("podcreds_exchanges") > 0 {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "an exchange that never ends"
        );
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(store.metric("podcreds_exchanges"), 0);
    assert_eq!(store.metric("podcreds_cache_entries"), 0);
    assert_eq!(store.metric("podcreds_cache_bytes"), 0);
    assert_eq!(store.metric("podcreds_exchange_waiters"), 0);
    drop(running);
}

/// What is there stays there while it is replaced by newer credentials.
#[test]
fn a_request_while_credentials_are_replaced_gets_some() {
    let (control, running) = control_thread();
    let clock = Clock::default();
    let fake = Fake::new(Duration::ZERO, |_| Err(refused()));
    let store = {
        let _control = control.enter();
        fake.store(Config::default(), clock)
    };
    let token = Token::new("a");
    let digest = token.digest();
    let insert = {
        let store = store.clone();
        move || {
            let fetched = podcreds_cache::Fetched {
                role: None,
                body: Bytes::from_static(b"{}"),
                expiration: clock.now() + 6 * HOUR,
                token: token.clone(),
                digest,
                asked: true,
            };
            store.cache().insert(Subject::Pod(uid(1)), fetched);
        }
    };
    insert();
    let replacing = thread::spawn(move || (0..20_000).for_each(|_| insert()));
    while !replacing.is_finished() {
        assert!(store.cached(&pod(1), &digest).is_some(), "a gap");
    }
    replacing.join().unwrap();
    assert_eq!(store.metric("podcreds_cache_entries"), 1);
    drop(running);
}
