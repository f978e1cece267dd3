//! Who gets what.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_pod_gets_its_credentials() {
    let fixture = Fixture::new(Config::default());
    let mut client = fixture.connect();
    // The first from EKS Auth, the second from memory.
    for _ in 0..2 {
        let answer = client.ask(get("good")).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.header("date").is_some());
        assert_eq!(answer.body, BODY);
    }
    assert_eq!(fixture.answers("200"), 2);
    // Only the first request of a connection has waited since connect().
    let first = fixture.metric("podcreds_connect_to_response_duration_seconds", None);
    assert_eq!(first, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_gets_credentials_is_noted_as_served_and_a_refused_one_is_not() {
    for (token, is_served) in [("good", true), ("slow", false), ("unassociated", false)] {
        let fixture = Fixture::new(Config::default());
        let pod = POD.parse().unwrap();
        fixture.pods.found(pod);
        fixture.connect().ask(get(token)).await;
        let record = fixture.pods.get(pod).unwrap();
        assert_eq!(record.first_served.is_some(), is_served, "{token}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_caller_is_noted_with_the_reason_and_one_that_eks_auth_refuses_is_not() {
    let fixture = Fixture::new(Config::default());
    for token in ["stolen", "stolen", "", "unassociated"] {
        fixture.connect().ask(get(token)).await;
    }
    let noted = fixture.refused.all();
    let mut reasons: Vec<_> = noted.iter().map(|it| (it.reason, it.count)).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, [("missing_token", 1), ("other_pod", 2)]);
    let caller = CallerId::Pod(POD.parse().unwrap());
    assert!(noted.iter().all(|it| it.caller == caller), "{noted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_request_gets_the_reason() {
    let fixture = Fixture::new(Config::default());
    let request = |line: &str, headers: &str| format!("{line} HTTP/1.1\r\n{headers}\r\n");
    const LINE: &str = "GET /v1/credentials";
    const HOST: &str = "Host: 169.254.170.23\r\n";
    let token = format!("{HOST}Authorization: good.x.y\r\n");
    let rebound = "Host: evil.example\r\nAuthorization: good.x.y\r\n";
    let anonymous = "Authorization: good.x.y\r\n";
    let proxied = |by: &str| get("stolen").replacen("\r\n", &format!("\r\n{by}\r\n"), 1);
    let no_ascii = format!("{HOST}Authorization: caf\u{e9}\r\n");
    for (request, status, code, reason) in [
        (request("GET /", &token), 404, "NotFound", "not_found"),
        (
            request("GET /v1/credentials/", &token),
            404,
            "NotFound",
            "not_found",
        ),
        (request("POST /", &token), 404, "NotFound", "not_found"),
        (request(LINE, rebound), 403, "HostNotAllowed", "bad_host"),
        (request(LINE, anonymous), 403, "HostNotAllowed", "bad_host"),
        (request(LINE, HOST), 400, "MissingToken", "missing_token"),
        (get(""), 400, "MissingToken", "missing_token"),
        (
            request(LINE, &no_ascii),
            400,
            "MalformedToken",
            "malformed_token",
        ),
        (get("malformed"), 400, "MalformedToken", "malformed_token"),
        (get("expired"), 400, "ExpiredToken", "expired_token"),
        (get("stolen"), 403, "TokenOfAnotherPod", "other_pod"),
        (proxied("Via: 1.1 squid"), 403, "ThroughProxy", "proxy"),
        (
            proxied("X-Forwarded-For: 10.0.0.7"),
            403,
            "ThroughProxy",
            "proxy",
        ),
        (
            get("stolen").replace("GET ", "GET http://169.254.170.23"),
            403,
            "ThroughProxy",
            "proxy",
        ),
        (get("unknown"), 403, "UnknownCaller", "unknown_caller"),
        (get("detour"), 503, "Detour", "detour"),
        (
            get("unassociated"),
            404,
            "ResourceNotFoundException",
            "eks_auth",
        ),
        (get("denied"), 400, "AccessDeniedException", "eks_auth"),
        (get("invalid"), 400, "InvalidTokenException", "eks_auth"),
    ] {
        let counted = fixture.refusals(reason);
        let answer = fixture.connect().ask(&request).await;
        assert_eq!(answer.status(), status, "{request}");
        let is_worth_another_try = answer.header("retry-after") == Some("1");
        assert_eq!(is_worth_another_try, status == 503, "{request}");
        let body = answer.json();
        assert_eq!(body["code"], code, "{request}");
        assert_eq!(body["code"], body["Code"]);
        assert_eq!(body["message"], body["Message"]);
        assert!(!body["message"].as_str().unwrap().is_empty(), "{request}");
        assert_eq!(fixture.refusals(reason), counted + 1, "{request}");
    }
    assert_eq!(fixture.answers("200"), 0);
    assert_eq!(fixture.answers("404"), 4);
}

/// As AWS's agent answers everybody.
#[tokio::test(start_paused = true)]
async fn a_client_that_accepts_no_json_gets_a_line_of_text() {
    let fixture = Fixture::new(Config::default());
    let ask = async |token: &str, accept: &str| {
        let request = get(token).replacen("\r\n", &format!("\r\n{accept}"), 1);
        fixture.connect().ask(request).await
    };
    for accept in [
        "Accept: text/plain\r\n",
        "Accept: text/html, text/*;q=0.1\r\n",
    ] {
        let answer = ask("unassociated", accept).await;
        assert_eq!(answer.status(), 404);
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(answer.body, "(ResourceNotFoundException): because\n");
        let answer = ask("expired", accept).await;
        let says = "the service-account token has expired; ";
        assert!(answer.body.starts_with(says), "{}", answer.body);
        assert_eq!(answer.body.lines().count(), 1);
        let answer = ask("good", accept).await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    for accept in [
        "",
        "Accept: */*\r\n",
        "Accept: application/json\r\n",
        "Accept: text/plain\r\nAccept: text/html, Application/JSON;q=0.5\r\n",
    ] {
        let answer = ask("unassociated", accept).await;
        assert_eq!(
            answer.json()["code"],
            "ResourceNotFoundException",
            "{accept}"
        );
    }
}

/// A pod in a crash loop asks again and again, on new connections and on kept ones.
#[tokio::test(start_paused = true)]
async fn a_refused_token_is_refused_again_without_being_decoded() {
    let fixture = Fixture::new(Config::default());
    for (token, status) in [("unassociated", 404), ("denied", 400)] {
        let mut client = fixture.connect();
        assert_eq!(client.ask(get(token)).await.status(), status);
        let looks = fixture.looks();
        for _ in 0..3 {
            assert_eq!(client.ask(get(token)).await.status(), status);
            assert_eq!(fixture.connect().ask(get(token)).await.status(), status);
        }
        assert_eq!(fixture.looks(), looks);
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_repeat_no_token() {
    let fixture = Fixture::new(Config::default());
    for kind in [
        "malformed",
        "expired",
        "stolen",
        "unknown",
        "unassociated",
        "denied",
        "slow",
    ] {
        let answer = fixture.connect().ask(get(&format!("{kind}.s3cr3t"))).await;
        assert_ne!(answer.status(), 200);
        assert!(!answer.body.contains("s3cr3t"), "{}", answer.body);
    }
}

#[tokio::test(start_paused = true)]
async fn head_gets_the_head_alone() {
    let fixture = Fixture::new(Config::default());
    let request = get("good").replace("GET", "HEAD");
    let mut client = fixture.connect();
    client.send(request).await;
    client.0.shutdown().await.unwrap();
    let mut answer = String::new();
    client.0.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let length = format!("\r\ncontent-length: {}\r\n", BODY.len());
    assert!(answer.contains(&length), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "HEAD has no body: {answer}");
}

#[tokio::test(start_paused = true)]
async fn a_connect_request_gets_405_and_the_method_to_use() {
    let fixture = Fixture::new(Config::default());
    let request = get("good").replace("GET", "CONNECT");
    let answer = fixture.connect().ask(request).await;
    assert_eq!(answer.status(), 405);
    assert_eq!(answer.header("allow"), Some("GET"));
    assert_eq!(answer.json()["code"], "MethodNotAllowed");
    assert_eq!(fixture.refusals("method"), 1);
}

/// What stands behind hundreds of ranges does not count, and need not be looked for.
#[tokio::test(start_paused = true)]
async fn a_long_list_of_what_is_accepted_is_not_read_to_its_end() {
    let fixture = Fixture::new(Config::default());
    let ask = async |accept: &str| {
        let request = get("unknown").replacen("\r\n", &format!("\r\n{accept}"), 1);
        let answer = fixture.connect().ask(request).await;
        answer.header("content-type").map(str::to_owned)
    };
    let json = Some("application/json".to_owned());
    let long = format!("Accept: {}text/html\r\n", "text/plain, ".repeat(1000));
    assert_eq!(ask(&long).await, json);
    let many = "Accept: text/plain, text/html, image/png\r\n".repeat(20);
    assert_eq!(ask(&many).await, json);
    let few = "Accept: text/plain, text/html, image/png\r\n".repeat(3);
    assert_ne!(ask(&few).await, json);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_too_long_gets_503_and_a_time_to_retry() {
    let fixture = Fixture::new(Config::default());
    let mut client = fixture.connect();
    let asked = tokio::time::Instant::now();
    let answer = client.ask(get("slow")).await;
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.json()["code"], "CredentialsNotReady");
    assert_eq!(fixture.answers("503"), 1);
    sleep(SLOW).await;
    assert_eq!(client.ask(get("slow")).await.status(), 200);
}
