//! The connections from the agent to AWS and to the cluster's keys: slow ones, encrypted ones,
//! those that environment variables name, and endless answers.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use podcreds_tests::{
    agent::{Agent, AgentBuilder},
    aws::{NodeCredentials, REGION},
    between::{Proxy, Tls},
    dns::Dns,
    eks_auth::EksAuth,
    jwks::Jwks,
    needs_privileges,
    node::Node,
    program,
    scenario::assert_owned,
    token::{BoundObject, Claims, Issuer},
    wait::until,
    wire,
};
use serde_json::Value;

/// EKS Auth's name in these tests, which public DNS does not have.
const NAME: &str = "eks-auth.invalid";
const SLOW: Duration = Duration::from_millis(1200);
const AT_ONCE: Duration = Duration::ZERO;

fn eks_auth() -> EksAuth {
    let eks_auth = EksAuth::start();
    eks_auth.associate("shop", "reader", "shop-reader");
    eks_auth
}

/// A token that the agent has not seen yet.
fn token(eks_auth: &EksAuth) -> String {
    let claims = Claims::new("shop", "reader", BoundObject::new("reader"));
    eks_auth.issuer().sign(&claims)
}

fn ask(agent: &Agent, token: &str) -> Value {
    wire::ask_at(agent.node_path_address(), token)
}

/// Asks as an SDK does, until there are credentials.
fn is_served(agent: &Agent, token: &str) {
    until("the pod has its credentials", || {
        ask(agent, token)["status"] == 200
    });
}

/// An agent that comes to EKS Auth through a proxy, encrypted.
fn through(proxy: &Proxy, eks_auth: &EksAuth) -> AgentBuilder {
    Agent::on_loopback(eks_auth)
        .set("--endpoint", &format!("https://{NAME}"))
        .env("HTTPS_PROXY", &proxy.url())
}

fn path(tls: &Tls) -> String {
    tls.bundle().display().to_string()
}

#[test]
fn a_slow_connection_brings_credentials_and_is_kept() {
    for (tunnel, handshake) in [(SLOW, AT_ONCE), (AT_ONCE, SLOW), (2 * SLOW, 2 * SLOW)] {
        let eks_auth = eks_auth();
        let tls = Tls::start(NAME, eks_auth.address(), handshake);
        let proxy = Proxy::start(tls.address(), tunnel);
        let agent = through(&proxy, &eks_auth);
        let agent = agent.env("AWS_CA_BUNDLE", &path(&tls)).start();
        for _ in 0..3 {
            is_served(&agent, &token(&eks_auth));
        }
        assert_eq!(eks_auth.call_count(), 3);
        assert_eq!(
            proxy.asked().len(),
            1,
            "the connection is kept: {:?}",
            proxy.asked()
        );
    }
}

/// Pods ask until they have credentials, on a node that uses the DNS server of `start`.
fn pods_are_served_through(start: impl FnOnce() -> Dns + Send) {
    let node = Node::with_network();
    let (eks_auth, tls, dns) = node.enter(|| {
        let eks_auth = eks_auth();
        let tls = Tls::start(NAME, eks_auth.address(), AT_ONCE);
        (eks_auth, tls, start())
    });
    let endpoint = format!("https://{NAME}:{}", tls.address().port());
    let agent = Agent::on(&node, &eks_auth).set("--endpoint", &endpoint);
    let agent = dns.serve(agent).env("AWS_CA_BUNDLE", &path(&tls));
    let _agent = agent.start();
    for name in ["first", "second"] {
        let pod = node.pod(name).account("shop", "reader").start();
        let answer = pod.run(["patient", "--patience-ms", "30000"]);
        println!(
            "{name}: {} tries, {} ms",
            answer["tries"], answer["waited_ms"]
        );
        assert_owned(&answer, &pod);
    }
    let mut asked = dns.asked();
    asked.sort();
    assert_eq!(asked, [format!("A {NAME}"), format!("AAAA {NAME}")]);
}

#[test]
fn a_pod_gets_credentials_though_dns_answers_later_than_a_request_waits() {
    needs_privileges!();
    for delay in [SLOW, 3 * SLOW] {
        pods_are_served_through(|| Dns::start(NAME, delay));
    }
}

#[test]
fn a_pod_gets_credentials_though_the_first_dns_server_does_not_answer() {
    needs_privileges!();
    let silent = Ipv4Addr::new(127, 0, 0, 2);
    pods_are_served_through(|| Dns::start_behind(&[silent], NAME, AT_ONCE));
}

#[test]
fn a_step_that_takes_too_long_is_named_in_the_answer() {
    let eks_auth = eks_auth();
    let tls = Tls::start(NAME, eks_auth.address(), AT_ONCE);
    let proxy = Proxy::start(tls.address(), 600 * SLOW);
    let agent = through(&proxy, &eks_auth).start();
    let token = token(&eks_auth);
    until("the pod is told what is slow", || {
        let answer = ask(&agent, &token);
        assert_eq!(answer["status"], 503, "{answer}");
        let said = answer["body"].to_string();
        said.contains("the proxy 127.0.0.1:") && said.contains("took longer than 10s")
    });
}

#[test]
fn aws_is_trusted_by_the_bundle_that_the_environment_or_the_profile_names() {
    let eks_auth = eks_auth();
    let tls = Tls::start(NAME, eks_auth.address(), AT_ONCE);
    let proxy = Proxy::start(tls.address(), AT_ONCE);
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("config");
    fs::write(&profile, format!("[default]\nca_bundle = {}\n", path(&tls))).unwrap();
    let profile = profile.to_str().unwrap();
    let agent = || through(&proxy, &eks_auth);
    for agent in [
        agent().env("AWS_CA_BUNDLE", &path(&tls)),
        agent().env("AWS_CONFIG_FILE", profile),
    ] {
        is_served(&agent.start(), &token(&eks_auth));
    }
    let untrusted = agent().start();
    let token = token(&eks_auth);
    until(
        "the pod is told that the server's certificate is not trusted",
        || {
            let answer = ask(&untrusted, &token);
            assert_eq!(answer["status"], 503, "{answer}");
            answer["body"].to_string().contains("UnknownIssuer")
        },
    );
}

#[test]
fn the_key_set_is_trusted_by_the_bundle_too() {
    let (eks_auth, jwks) = (eks_auth(), Jwks::start(&Issuer::cluster()));
    let server = jwks.url().parse::<http::Uri>().unwrap();
    let server: SocketAddr = server.authority().unwrap().as_str().parse().unwrap();
    let tls = Tls::start(NAME, server, AT_ONCE);
    let proxy = Proxy::start(tls.address(), SLOW);
    let agent = Agent::on_loopback(&eks_auth)
        .args(["--jwks-url", &format!("https://{NAME}/openid/v1/jwks")])
        .env("HTTPS_PROXY", &proxy.url())
        .env("AWS_CA_BUNDLE", &path(&tls))
        .start();
    is_served(&agent, &token(&eks_auth));
    until("the keys have been fetched", || jwks.fetches() > 0);
}

#[test]
fn a_variable_that_cannot_be_used_stops_the_agent_and_is_named() {
    let eks_auth = eks_auth();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let file = folder.path().join(name);
        fs::write(&file, content).unwrap();
        file.display().to_string()
    };
    let empty = file("empty", "");
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let profile = file("config", "[default]\nca_bundle = /does/not/exist\n");
    for (variable, value, named) in [
        ("AWS_CA_BUNDLE", "/does/not/exist", "AWS_CA_BUNDLE"),
        ("AWS_CA_BUNDLE", &*empty, "AWS_CA_BUNDLE"),
        (
            "AWS_CA_BUNDLE",
            &*file("text", "no certificate"),
            "AWS_CA_BUNDLE",
        ),
        ("AWS_CA_BUNDLE", &*file("bad", garbage), "AWS_CA_BUNDLE"),
        ("AWS_CONFIG_FILE", &*profile, "ca_bundle"),
        ("HTTPS_PROXY", "ftp://user:secret@proxy", "HTTPS_PROXY"),
        ("all_proxy", "http://", "all_proxy"),
    ] {
        let agent = Agent::on_loopback(&eks_auth).env(variable, value);
        let mut agent = agent.spawn();
        let status = agent.wait_exit();
        let said: String = agent
            .logs()
            .to_the_end()
            .into_iter()
            .map(|line| line.raw)
            .collect();
        assert_eq!(status.code(), Some(64), "{variable}={value}: {said}");
        assert!(said.contains(named) && !said.contains("secret"), "{said}");
    }
}

#[test]
fn the_endpoint_is_the_one_that_variables_name() {
    let eks_auth = eks_auth();
    let url = eks_auth.url();
    let nowhere = "http://127.0.0.1:9";
    let agent = || Agent::on_loopback(&eks_auth).unset("--endpoint");
    for agent in [
        agent().env("AWS_ENDPOINT_URL", &url),
        agent().env("AWS_ENDPOINT_URL_EKS_AUTH", &url),
        agent()
            .env("AWS_ENDPOINT_URL", nowhere)
            .env("AWS_ENDPOINT_URL_EKS_AUTH", &url),
    ] {
        is_served(&agent.start(), &token(&eks_auth));
    }
    // Of the others the proxy sees what they lead to.
    let own = format!("eks-auth.{REGION}.api.aws:443");
    let fips = format!("eks-auth-fips.{REGION}.api.aws:443");
    for (variables, expected) in [
        (vec![], &own),
        (vec![("AWS_USE_FIPS_ENDPOINT", "true")], &fips),
        (vec![("AWS_USE_DUALSTACK_ENDPOINT", "true")], &own),
        (
            vec![
                ("AWS_ENDPOINT_URL", nowhere),
                ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"),
            ],
            &own,
        ),
    ] {
        let proxy = Proxy::start(eks_auth.address(), AT_ONCE);
        let agent = agent().env("https_proxy", &proxy.url());
        let agent = variables
            .iter()
            .fold(agent, |agent, (name, value)| agent.env(name, value));
        let agent = agent.start();
        let wanted = format!("CONNECT {expected} HTTP/1.1");
        until(&format!("the proxy is asked for {expected}"), || {
            assert_eq!(ask(&agent, &token(&eks_auth))["status"], 503);
            proxy.asked().contains(&wanted)
        });
    }
}

#[test]
fn a_program_that_takes_long_for_the_nodes_credentials_is_waited_for() {
    let (eks_auth, folder) = (eks_auth(), tempfile::tempdir().unwrap());
    let signer = NodeCredentials::default();
    let program = folder.path().join("credentials");
    let answer = format!(
        r#"{{"Version":1,"AccessKeyId":"{}","SecretAccessKey":"{}","SessionToken":"{}"}}"#,
        signer.access_key_id, signer.secret_access_key, signer.session_token
    );
    program::write(&program, format!("#!/bin/sh\nsleep 12\necho '{answer}'\n"));
    let profile = folder.path().join("config");
    let setting = format!("[default]\ncredential_process = {}\n", program.display());
    fs::write(&profile, setting).unwrap();
    let agent = Agent::on_loopback(&eks_auth).env("AWS_CONFIG_FILE", profile.to_str().unwrap());
    let variables = signer.env().into_keys();
    let agent = variables.fold(agent, AgentBuilder::env_remove).start();
    is_served(&agent, &token(&eks_auth));
}

/// Answers each client with `start` and then without end.
fn endless(start: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _asked = stream.read(&mut [0; 4096]);
                let _written = stream.write_all(start.as_bytes());
                while stream.write_all(&[b'x'; 65536]).is_ok() {}
            });
        }
    });
    address
}

#[test]
fn endless_answers_take_little_memory() {
    let eks_auth = eks_auth();
    for start in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 503 Busy\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: ",
    ] {
        let url = format!("http://{}", endless(start));
        let agent = Agent::on_loopback(&eks_auth)
            .set("--endpoint", &url)
            .args(["--jwks-url", &url])
            .start();
        let mut most = 0;
        for _ in 0..8 {
            let answer = ask(&agent, &token(&eks_auth));
            assert_eq!(answer["status"], 503, "{answer}");
            most = most.max(agent.usage().resident);
        }
        println!("{start:?}: at most {} KiB", most / 1024);
        assert!(most < 128 << 20, "{start:?}: {most} bytes");
    }
}

#[test]
fn a_token_with_a_malformed_signature_does_not_reach_eks_auth() {
    let (eks_auth, jwks) = (eks_auth(), Jwks::start(&Issuer::cluster()));
    let agent = Agent::on_loopback(&eks_auth)
        .args(["--jwks-url", &jwks.url()])
        .start();
    let genuine = token(&eks_auth);
    is_served(&agent, &genuine);
    let (signed, signature) = genuine.rsplit_once('.').unwrap();
    for forged in [
        format!("{signed}.not base64"),
        format!("{signed}.{signature}=="),
        format!("{signed}.AAAA"),
    ] {
        let answer = ask(&agent, &forged);
        assert_eq!(answer["status"], 400, "{answer}");
        assert_eq!(eks_auth.calls_with_token(&forged).len(), 0, "{forged}");
    }
    assert_eq!(eks_auth.call_count(), 1);
}
