//! What a request is told whose time is up: who it is that keeps it waiting.

use futures_util::future::join_all;

use super::*;

/// The reason for which there is nothing yet.
fn reason(outcome: RequestResult) -> String {
    match outcome {
        Err(CredentialError::NotReady { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_the_agents_own_limiter_names_it_with_the_place_in_its_queue_and_the_flag() {
    let (_fake, store, _) = generous(SOON);
    let asking = (0..300).map(|n| store.fetch(pod(n), Token::new(n.to_string())));
    let outcomes = join_all(asking).await;
    let told = outcomes.into_iter().filter(not_ready).map(reason);
    // A few have been let out of the queue, and have no answer yet.
    let queued = |reason: &String| !reason.starts_with("EKS Auth has not answered yet");
    let told: Vec<_> = told.filter(queued).collect();
    assert!(told.len() > 100, "{}", told.len());
    for reason in &told {
        for words in [
            "the agent's own rate limiter",
            "EKS Auth has not been asked",
            "--max-request-wait",
            "--max-service-qps",
        ] {
            assert!(reason.contains(words), "{words}: {reason}");
        }
        assert!(!reason.contains("throttles"), "{reason}");
    }
    let place = |reason: &String| -> (usize, usize) {
        let (_, place) = reason.split_once("it is number ").unwrap();
        let (place, _) = place.split_once(" in the queue").unwrap();
        let (number, of) = place.split_once(" of ").unwrap();
        (number.parse().unwrap(), of.parse().unwrap())
    };
    let places: Vec<_> = told.iter().map(place).collect();
    assert!(places.is_sorted_by_key(|(number, _)| number), "{places:?}");
    let (first, last) = (places[0], places[places.len() - 1]);
    assert!(first.0 <= 2 && last.0 == last.1, "{first:?} {last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_eks_auth_says_so_and_for_how_long() {
    let (_fake, store, _) = generous(Duration::from_secs(3));
    let told = reason(store.fetch(pod(1), Token::new("a")).await);
    assert_eq!(
        told,
        "EKS Auth has not answered yet: it was asked 0.9 s ago"
    );
}

#[tokio::test(start_paused = true)]
async fn throttling_and_its_retry_after_are_named() {
    let (fake, store, _) = generous(SOON);
    let retry_after = Some(Duration::from_secs(20));
    fake.now(move |_| Err(UpstreamError::Throttled { retry_after }));
    let told = reason(ask(&store, pod(1), "a").await);
    assert!(told.starts_with("EKS Auth is throttling; "), "{told}");
    let told = reason(ask(&store, pod(2), "b").await);
    assert!(
        told.contains("by Retry-After to be left alone for 18."),
        "{told}"
    );

    let (fake, store, _) = generous(SOON);
    fake.now(|_| Err(UpstreamError::Throttled { retry_after: None }));
    for n in 0..200 {
        drop(ask(&store, pod(n), "a").await);
    }
    let told = reason(ask(&store, pod(500), "a").await);
    assert!(
        told.contains("throttles this node") || told.contains("is throttling"),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_pace_after_an_outage_is_not_called_throttling() {
    let (fake, store, _) = generous(SOON);
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    // Each of them has been tried, and waits for its next turn.
    for _ in 0..2 * 60 {
        let asking = (1..=2).map(|n| store.fetch(pod(n), Token::new(n.to_string())));
        join_all(asking).await;
    }
    let asking = (3..=8).map(|n| store.fetch(pod(n), Token::new(n.to_string())));
    let told: Vec<_> = join_all(asking).await.into_iter().map(reason).collect();
    let words = "one goes out every 4 s since calls to EKS Auth have been failing";
    assert!(told.iter().any(|it| it.contains(words)), "{told:?}");
    assert!(told.iter().all(|it| !it.contains("throttle")), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_behind_the_pods_own_tokens_says_so() {
    let (fake, store, _) = generous(Duration::from_secs(3));
    let many = (0..5).map(|n| store.fetch(pod(1), Token::new(format!("good{n}"))));
    let told: Vec<_> = join_all(many).await.into_iter().map(reason).collect();
    assert!(
        told[0].starts_with("EKS Auth has not answered yet"),
        "{}",
        told[0]
    );
    assert!(
        told[1].starts_with("another token of this pod"),
        "{}",
        told[1]
    );
    assert!(
        told[4].starts_with("4 other tokens of this pod"),
        "{}",
        told[4]
    );

    fake.slow(SOON);
    for n in 0..4 {
        assert!(was_refused(&ask(&store, pod(2), &format!("bad{n}")).await) || n == 3);
    }
    let told = reason(ask(&store, pod(2), "new").await);
    assert!(
        told.contains("has lately refused several tokens of this pod"),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_with_what_comes_next() {
    let (fake, store, _) = generous(SOON);
    fake.now(|_| Err(UpstreamError::unavailable("HTTP 500")));
    let told = reason(ask(&store, pod(1), "a").await);
    let begin = "EKS Auth gave no usable answer: HTTP 500; the agent tries again in ";
    assert!(told.starts_with(begin), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_gone_and_a_fault_of_the_agents_are_not_put_on_eks_auth() {
    let (fake, store, _) = generous(SOON);
    let (told, ()) = tokio::join!(ask(&store, pod(1), "a"), async {
        sleep(SOON / 2).await;
        store.forget(uid(1));
    });
    assert!(reason(told).starts_with("this pod has gone from the node"));
    fake.now(|_| panic!("a bug in a library"));
    let told = reason(ask(&store, pod(2), "a").await);
    assert!(told.contains("by a fault of its own"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_unverified_tokens_is_named() {
    let (_fake, store, _) = generous(HOUR);
    let flood = (0..200).map(|n| store.fetch(bearer(1, None), Token::new(format!("made-up-{n}"))));
    let told = join_all(flood).await.into_iter().map(reason);
    let no_room = told.filter(|told| told.starts_with("the agent has no room for this token yet"));
    assert_eq!(no_room.count(), 72);
}
