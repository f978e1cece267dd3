//! How the endpoint ends.

use tokio::time::Instant as Clock;

use super::*;

const GRACE: Duration = Duration::from_secs(20);

#[tokio::test(start_paused = true)]
async fn idle_connections_close_at_once() {
    let fixture = Fixture::new(Config::default());
    let mut idle = fixture.connect();
    assert_eq!(idle.ask(get("good")).await.status(), 200);
    let begun = Clock::now();
    fixture.server.drain().await;
    assert!(begun.elapsed() < Duration::from_millis(10));
    assert!(idle.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_are_answered() {
    let fixture = Fixture::new(Config::default());
    let mut waiting = fixture.connect();
    waiting.send(get("slow")).await;
    fixture.settle().await;
    let ((), answer) = tokio::join!(fixture.server.drain(), waiting.answer());
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(waiting.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_just_connected_is_answered_during_a_drain() {
    let fixture = Fixture::new(Config::default());
    let mut silent = fixture.connect();
    let mut early = fixture.connect();
    let mut late = fixture.connect();
    early.send(get("good")).await;
    let asks = async {
        sleep(Duration::from_millis(500)).await;
        late.ask(get("good")).await
    };
    let begun = Clock::now();
    let ((), late, early) = tokio::join!(fixture.server.drain(), asks, early.answer());
    assert!(begun.elapsed() <= Duration::from_millis(1100));
    for answer in [early, late] {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert!(silent.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn connections_from_a_drained_backlog_are_served() {
    let fixture = Fixture::new(Config::default());
    fixture.server.drain().await;
    let mut client = fixture.connect();
    let answer = client.ask(get("good")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn connections_that_outlast_the_grace_period_are_counted() {
    let config = Config {
        write_timeout: Duration::from_secs(1000),
        ..Config::default()
    };
    let fixture = Fixture::new(config);
    let mut client = fixture.connect_narrow();
    let request = get("good").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    client.send(request).await;
    let drained = tokio::time::timeout(GRACE, fixture.server.drain()).await;
    assert!(drained.is_err());
    assert_eq!(fixture.server.open_connections(), 1);
}
