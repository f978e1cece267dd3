//! What the agent takes from its environment: its own credentials, also where they are replaced
//! under it, and the way to AWS.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use http::{Request, Response, StatusCode};
use podcreds_tests::{
    agent::{Agent, AgentBuilder},
    aws::NodeCredentials,
    eks_auth::EksAuth,
    http::server::{Action, Handler, Server, full},
    imds::Imds,
    token::{BoundObject, Claims},
    wait::until,
    wire,
};
use serde_json::Value;
use tempfile::TempDir;

/// A shared credentials file.
struct File(TempDir);

impl File {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("credentials")
    }

    /// Puts a new file in its place, at once, as the service that renews it does.
    fn replace(&self, credentials: &NodeCredentials) {
        let next = self.0.path().join("next");
        let NodeCredentials {
            access_key_id,
            secret_access_key,
            session_token,
        } = credentials;
        let text = format!(
            "[default]\naws_access_key_id = {access_key_id}\naws_secret_access_key = \
             {secret_access_key}\naws_session_token = {session_token}\n"
        );
        fs::write(&next, text).unwrap();
        fs::rename(next, self.path()).unwrap();
    }

    /// An agent that is to sign with what the file holds.
    fn agent(&self, eks_auth: &EksAuth) -> AgentBuilder {
        let path = self.path();
        let agent = Agent::on_loopback(eks_auth).args(["--rotate-credentials"]);
        let variables = NodeCredentials::default().env();
        let without = variables.into_keys().fold(agent, AgentBuilder::env_remove);
        without.env("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap())
    }
}

fn eks_auth() -> EksAuth {
    let eks_auth = EksAuth::start();
    eks_auth.associate("shop", "reader", "shop-reader");
    eks_auth
}

/// Asks for the credentials of a pod that nobody has asked for yet.
fn ask(agent: &Agent, eks_auth: &EksAuth) -> Value {
    let claims = Claims::new("shop", "reader", BoundObject::new("reader"));
    wire::ask_at(agent.node_path_address(), &eks_auth.issuer().sign(&claims))
}

/// Who has signed the last call.
fn signer(eks_auth: &EksAuth) -> String {
    eks_auth.calls().pop().unwrap().signer
}

#[test]
fn credentials_that_are_replaced_in_their_file_sign_the_next_call() {
    let (eks_auth, file) = (eks_auth(), File::new());
    let (old, new) = (NodeCredentials::named("old"), NodeCredentials::named("new"));
    eks_auth.accept_signer(&old);
    eks_auth.accept_signer(&new);
    file.replace(&old);
    let agent = file.agent(&eks_auth).start();
    assert_eq!(ask(&agent, &eks_auth)["status"], 200);
    assert_eq!(signer(&eks_auth), old.access_key_id);
    file.replace(&new);
    assert_eq!(ask(&agent, &eks_auth)["status"], 200);
    assert_eq!(signer(&eks_auth), new.access_key_id);
    // A file that is being written is no reason to stop.
    fs::write(file.path(), "[default]\naws_acc").unwrap();
    assert_eq!(ask(&agent, &eks_auth)["status"], 200);
    fs::remove_file(file.path()).unwrap();
    assert_eq!(ask(&agent, &eks_auth)["status"], 200);
    assert_eq!(signer(&eks_auth), new.access_key_id);
    let log = agent.logs().all().into_iter().map(|line| line.raw);
    let log = log.collect::<String>();
    assert!(log.contains("the last ones are used"), "{log}");
    assert!(!log.contains(&new.secret_access_key) && !log.contains(&new.session_token));
}

/// Of a signer that AWS no longer knows, and of no file at all, the agent recovers by itself.
#[test]
fn what_aws_refuses_is_given_up_as_soon_as_there_is_something_newer() {
    let (eks_auth, file) = (eks_auth(), File::new());
    let (expired, new) = (
        NodeCredentials::named("expired"),
        NodeCredentials::named("new"),
    );
    eks_auth.accept_signer(&new);
    let agent = file.agent(&eks_auth).start();
    assert_eq!(ask(&agent, &eks_auth)["status"], 503);
    assert_eq!(eks_auth.call_count(), 0, "there is nothing to sign with");
    file.replace(&expired);
    assert_eq!(ask(&agent, &eks_auth)["status"], 503);
    file.replace(&new);
    until("a request is served", || {
        ask(&agent, &eks_auth)["status"] == 200
    });
    assert_eq!(signer(&eks_auth), new.access_key_id);
}

#[test]
fn calls_go_through_the_proxy_unless_something_is_near_or_excepted() {
    let eks_auth = eks_auth();
    let closed = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let status = |agent: AgentBuilder| ask(&agent.start(), &eks_auth)["status"].clone();
    let port = eks_auth.url().rsplit(':').next().unwrap().to_owned();

    // Only the proxy, which here is EKS Auth itself, knows that name.
    let far = || Agent::on_loopback(&eks_auth).set("--endpoint", "http://eks-auth.invalid");
    assert_eq!(status(far().env("HTTP_PROXY", &eks_auth.url())), 200);
    assert_eq!(status(far()), 503);
    // An address of this machine that does not look like one.
    let wildcard = format!("http://0.0.0.0:{port}");
    let excepted = || {
        let agent = Agent::on_loopback(&eks_auth).set("--endpoint", &wildcard);
        agent.env("HTTP_PROXY", &closed)
    };
    assert_eq!(status(excepted()), 503);
    assert_eq!(
        status(excepted().env("NO_PROXY", "10.0.0.0/8,0.0.0.0")),
        200
    );
    // What is near never goes there: instance metadata, for one.
    let signer = NodeCredentials::named("imds");
    eks_auth.accept_signer(&signer);
    let imds = Imds::start(signer);
    let near = Agent::on_loopback(&eks_auth).node_from(&imds);
    assert_eq!(
        status(near.env("HTTP_PROXY", &closed).env("ALL_PROXY", &closed)),
        200
    );
}

/// A proxy that refuses everything, and notes what it was asked for.
#[derive(Default)]
struct Proxy(Mutex<Vec<String>>);

impl Handler for Proxy {
    fn handle(self: Arc<Self>, request: Request<Bytes>) -> BoxFuture<'static, Action> {
        let asked = format!("{} {}", request.method(), request.uri());
        self.0.lock().unwrap().push(asked);
        let mut response = Response::new(full(Bytes::new()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        async move { Action::Answer(response) }.boxed()
    }
}

#[test]
fn encrypted_calls_ask_the_proxy_for_a_tunnel() {
    let (eks_auth, proxy) = (eks_auth(), Arc::new(Proxy::default()));
    let server = Server::start("proxy", Arc::clone(&proxy) as Arc<dyn Handler>);
    let agent = Agent::on_loopback(&eks_auth)
        .set("--endpoint", "https://eks-auth.invalid")
        .set("--jwks-url", "https://issuer.invalid/keys")
        .env("HTTPS_PROXY", &server.url())
        .start();
    assert_eq!(ask(&agent, &eks_auth)["status"], 503);
    let asked = proxy.0.lock().unwrap().clone();
    for target in ["CONNECT eks-auth.invalid:443", "CONNECT issuer.invalid:443"] {
        assert!(asked.iter().any(|asked| asked == target), "{asked:?}");
    }
}
