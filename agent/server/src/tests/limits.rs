//! Clients that take too much: time, room or connections.

use tokio::time::Instant as Clock;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_in_is_cut_off() {
    let config = Config::default();
    let fixture = Fixture::new(config.clone());
    let mut client = fixture.connect();
    let begun = Clock::now();
    for byte in get("good").into_bytes() {
        if client.0.write_all(&[byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(500)).await;
    }
    assert!(client.is_closed().await);
    assert!(begun.elapsed() < config.head_timeout + Duration::from_secs(1));
    assert_eq!(fixture.refusals("head_timeout"), 1);
    assert_eq!(fixture.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn silent_clients_are_cut_off_and_idle_connections_closed() {
    let config = Config::default();
    let fixture = Fixture::new(config.clone());
    let begun = Clock::now();
    assert!(fixture.connect().is_closed().await);
    assert!(begun.elapsed() >= config.head_timeout);
    assert_eq!(fixture.refusals("head_timeout"), 1);

    let mut kept = fixture.connect();
    assert_eq!(kept.ask(get("good")).await.status(), 200);
    let begun = Clock::now();
    assert!(kept.is_closed().await);
    assert!(begun.elapsed() >= config.head_timeout);
    // It owed nothing.
    assert_eq!(fixture.refusals("head_timeout"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_cut_off() {
    let config = Config {
        head_timeout: Duration::from_secs(1000),
        ..Config::default()
    };
    let fixture = Fixture::new(config.clone());
    let mut client = fixture.connect_narrow();
    // Many requests, and no look at what is answered.
    let flood = async { while client.0.write_all(get("good").as_bytes()).await.is_ok() {} };
    let begun = Clock::now();
    timeout(LATER, flood).await.expect("an end");
    assert!(begun.elapsed() >= config.write_timeout);
    assert!(begun.elapsed() < config.write_timeout * 2);
    fixture.settle().await;
    assert_eq!(fixture.refusals("write_timeout"), 1);
    assert_eq!(fixture.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_head_has_room_for_a_large_token_and_no_more() {
    let fixture = Fixture::new(Config::default());
    let answer = fixture.connect().ask(get(&"t".repeat(7 * 1024))).await;
    assert_eq!(answer.status(), 200);
    let mut client = fixture.connect();
    let answer = client.ask(get(&"t".repeat(17 * 1024))).await;
    assert_eq!(answer.status(), 431);
    assert!(client.is_closed().await);
    assert_eq!(fixture.refusals("head_too_large"), 1);
    assert_eq!(fixture.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_no_http_gets_400() {
    let fixture = Fixture::new(Config::default());
    for nonsense in [
        "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /\x01\r\n\r\n",
    ] {
        let mut client = fixture.connect();
        assert_eq!(client.ask(nonsense).await.status(), 400, "{nonsense:?}");
        assert!(client.is_closed().await);
    }
    assert_eq!(fixture.refusals("malformed_request"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_pod_has_its_share_of_connections() {
    let fixture = Fixture::new(Config {
        max_connections_per_pod: 2,
        max_connections: 3,
        ..Config::default()
    });
    let mut first = fixture.connect_as(1);
    let mut second = fixture.connect_as(1);
    assert!(fixture.connect_as(1).is_closed().await);
    assert_eq!(fixture.refusals("too_many_connections"), 1);
    let mut other = fixture.connect_as(2);
    for client in [&mut first, &mut second, &mut other] {
        assert_eq!(client.ask(get("good")).await.status(), 200);
    }
    drop(second);
    fixture.settle().await;
    assert_eq!(fixture.connect_as(1).ask(get("good")).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn when_all_connections_are_taken_the_caller_with_most_makes_room() {
    let fixture = Fixture::new(Config {
        max_connections: 3,
        ..Config::default()
    });
    let mut silent = fixture.connect_as(1);
    let mut useful = fixture.connect_as(1);
    let mut half = fixture.connect_as(1);
    half.send("GET /v1/cred").await;
    assert_eq!(useful.ask(get("good")).await.status(), 200);
    let mut newcomer = fixture.connect_as(2);
    assert_eq!(newcomer.ask(get("good")).await.status(), 200);
    assert!(
        timeout(Duration::from_millis(10), silent.is_closed())
            .await
            .unwrap()
    );
    assert_eq!(useful.ask(get("good")).await.status(), 200);
    assert_eq!(fixture.refusals("evicted"), 1);
    assert_eq!(fixture.open(), 3);
    // Two and one: a second one for the caller that has one would only swap the two.
    assert!(fixture.connect_as(2).is_closed().await);
    assert_eq!(fixture.refusals("too_many_connections"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_refused_32_times_in_a_row_is_disconnected() {
    let fixture = Fixture::new(Config::default());
    let mut client = fixture.connect();
    for refused in 1..=32 {
        let answer = client.ask(get("malformed")).await;
        assert_eq!(answer.status(), 400);
        let is_last = answer.header("connection") == Some("close");
        assert_eq!(is_last, refused == 32, "{refused}");
    }
    assert!(client.is_closed().await);
    assert_eq!(fixture.refusals("too_many_refusals"), 1);
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_all_answered_in_their_order() {
    let fixture = Fixture::new(Config::default());
    let mut client = fixture.connect();
    let tokens = ["good", "malformed", "expired", "good"];
    for _ in 0..5 {
        client.send(tokens.map(get).concat()).await;
        for status in [200, 400, 400, 200] {
            assert_eq!(client.answer().await.status(), status);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_late_gets_all_its_answers() {
    let fixture = Fixture::new(Config::default());
    let mut client = fixture.connect_narrow();
    for _ in 0..3 {
        let (mut reading, mut writing) = tokio::io::split(client.0);
        let requests = [get("good"), get("malformed"), get("good")].concat();
        let sent = tokio::spawn(async move {
            writing.write_all(requests.as_bytes()).await.unwrap();
            writing
        });
        sleep(Duration::from_secs(1)).await;
        let mut read = Vec::new();
        let answers = |read: &[u8]| {
            let bodies = String::from_utf8_lossy(read).into_owned();
            bodies.matches("HTTP/1.1 ").count()
        };
        while answers(&read) < 3 || !read.ends_with(b"}") {
            read.push(timeout(LATER, reading.read_u8()).await.unwrap().unwrap());
        }
        client = Client(reading.unsplit(sent.await.unwrap()));
    }
    assert_eq!(fixture.answers("200"), 6);
    assert_eq!(fixture.refusals("malformed_token"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_client_may_hang_up_whenever_it_likes() {
    let fixture = Fixture::new(Config::default());
    // Before a word, in the middle of a head, before the answer, and before reading it.
    for said in ["", "GET /v1/cred", &get("slow"), &get("good")] {
        let mut client = fixture.connect();
        client.send(said).await;
        fixture.settle().await;
        assert_eq!(fixture.open(), 1, "{said:?}");
        drop(client);
        // Longer than a request waits for EKS Auth.
        sleep(Duration::from_secs(1)).await;
        assert_eq!(fixture.open(), 0, "{said:?}");
    }
    assert_eq!(fixture.refusals("head_timeout"), 0);
}
