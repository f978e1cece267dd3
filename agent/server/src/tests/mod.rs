//! The endpoint as a client sees it: bytes in, bytes out, on tokio's paused clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use futures_util::future::{BoxFuture, FutureExt};
use podcreds_credentials as credentials;
use podcreds_credentials::{Clock, Store};
use podcreds_types::{
    CallerId, Claimant, Credentials, EksRefusal, Evidence, PodRecords, Refusal, RefusalKind,
    RefusedCallers, Route, Token, Undecided, Unreadable, Vitals,
};
use podcreds_upstream::{AssumeRole, UpstreamError};
use prometheus::{Registry, proto::Metric};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    runtime::Handle,
    time::{sleep, timeout},
};
use zeroize::Zeroizing;

use super::{Config, Identify, Metrics, Server, Times};

mod answers;
mod drain;
mod forms;
mod limits;
mod roads;
mod wire;

/// What a slow EKS Auth takes: longer than any request waits.
const SLOW: Duration = Duration::from_secs(3);

/// Longer than anything takes that ends at all.
const LATER: Duration = Duration::from_secs(3600);

/// An EKS Auth that does what the token says.
struct Upstream;

impl AssumeRole for Upstream {
    fn assume_role(&self, token: Token) -> BoxFuture<'static, Result<Credentials, UpstreamError>> {
        async move {
            let refused = |kind, code: &str| {
                Err(UpstreamError::Refused(EksRefusal {
                    kind,
                    code: code.to_owned(),
                    message: "because".to_owned(),
                }))
            };
            match kind(&token) {
                "unassociated" => refused(RefusalKind::NotFound, "ResourceNotFoundException"),
                "denied" => refused(RefusalKind::Denied, "AccessDeniedException"),
                "invalid" => refused(RefusalKind::BadToken, "InvalidTokenException"),
                "rejected" => Err(UpstreamError::Rejected {
                    code: "InvalidParameterException".to_owned(),
                    message: "because".to_owned(),
                }),
                "slow" => {
                    sleep(SLOW).await;
                    Ok(credentials())
                }
                _ => Ok(credentials()),
            }
        }
        .boxed()
    }
}

/// What a token of these tests is about: `KIND` or `KIND.WHATEVER`.
fn kind(token: &Token) -> &str {
    token.expose().split('.').next().unwrap_or_default()
}

fn credentials() -> Credentials {
    Credentials {
        access_key_id: "ASIAEXAMPLE".to_owned(),
        secret_access_key: Zeroizing::new("secret".to_owned()),
        session_token: Zeroizing::new("session".to_owned()),
        account_id: "012345678901".to_owned(),
        role: "arn:aws:sts::012345678901:assumed-role/app".to_owned(),
        expiration: UNIX_EPOCH + Duration::from_secs(2_000_000_000),
    }
}

/// The body that these credentials make.
const BODY: &str = concat!(
    r#"{"AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"secret","Token":"session","#,
    r#""AccountId":"012345678901","Expiration":"2033-05-18T03:33:20Z"}"#
);

/// A caller that is what the token says, and how many tokens have been looked at.
struct Caller(u64, Arc<AtomicUsize>);

impl Identify for Caller {
    fn identify(&self, token: &Token, route: Route) -> Result<Claimant, Refusal> {
        self.1.fetch_add(1, Relaxed);
        match kind(token) {
            text if text == "malformed" || text.contains(' ') => {
                Err(Refusal::MalformedToken(Unreadable::NoToken))
            }
            "expired" => Err(Refusal::ExpiredToken),
            "stolen" if route == Route::Proxy => Err(Refusal::ThroughProxy),
            "stolen" => Err(Refusal::OtherPod),
            "unknown" => Err(Refusal::UnknownCaller),
            "detour" => Err(Refusal::Detour),
            "undecided" => Err(Refusal::Undecided(Undecided::NoKeys)),
            _ => Ok(Claimant::Pod(POD.parse().unwrap())),
        }
    }

    fn evidence(&self) -> Evidence {
        match self.0 {
            0 => Evidence::Unrecorded,
            cgroup => Evidence::Pod {
                uid: POD.parse().unwrap(),
                cgroup,
            },
        }
    }
}

const POD: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";

/// A server, and a registry to see what it counts.
struct Fixture {
    server: Arc<Server>,
    registry: Registry,
    pods: PodRecords,
    refused: RefusedCallers,
    looks: Arc<AtomicUsize>,
}

impl Fixture {
    fn new(config: Config) -> Self {
        let registry = Registry::new();
        let store = Store::start(
            credentials::Config::default(),
            Arc::new(Upstream),
            None,
            Clock::paused(),
            &credentials::Metrics::register(&registry).unwrap(),
            &Handle::current(),
            Vitals::default().task("exchanging"),
        )
        .unwrap();
        let metrics = Metrics::register(&registry).unwrap();
        let pods = PodRecords::default();
        let refused = RefusedCallers::default();
        let server = Server::new(
            &config,
            store,
            pods.clone(),
            refused.clone(),
            metrics,
            &registry,
        );
        let server = Arc::new(server.unwrap());
        Self {
            server,
            registry,
            pods,
            refused,
            looks: Arc::default(),
        }
    }

    fn connect(&self) -> Client {
        self.connect_as(1)
    }

    fn caller(&self, quota: u64) -> Caller {
        Caller(quota, Arc::clone(&self.looks))
    }

    /// How many tokens have been taken apart.
    fn looks(&self) -> usize {
        self.looks.load(Relaxed)
    }

    fn connect_as(&self, quota: u64) -> Client {
        self.connect_with(quota, Duration::from_millis(1))
    }

    /// A connection that was accepted so long after the pod's `connect()`.
    fn connect_since(&self, waited: Duration) -> Client {
        self.connect_with(1, waited)
    }

    fn connect_with(&self, quota: u64, waited: Duration) -> Client {
        self.connect_through(64 * 1024, quota, waited)
    }

    /// A connection that has room for a part of an answer only.
    fn connect_narrow(&self) -> Client {
        self.connect_through(128, 1, Duration::ZERO)
    }

    fn connect_through(&self, room: usize, quota: u64, waited: Duration) -> Client {
        let (ours, theirs) = duplex(room);
        let accepted = Instant::now();
        let times = Times {
            accepted,
            connected: accepted.checked_sub(waited),
        };
        self.server.serve(theirs, self.caller(quota), times);
        Client(ours)
    }

    /// A series' value, or its number of observations.
    fn metric(&self, name: &str, label: Option<&str>) -> u64 {
        let fits = |series: &&Metric| match label {
            Some(label) => series.get_label().iter().any(|pair| pair.value() == label),
            None => true,
        };
        let families = self.registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == name)
            .unwrap();
        let Some(series) = family.get_metric().iter().find(fits) else {
            return 0;
        };
        match family.get_field_type() {
            prometheus::proto::MetricType::HISTOGRAM => series.get_histogram().get_sample_count(),
            prometheus::proto::MetricType::GAUGE => series.get_gauge().get_value() as u64,
            _ => series.get_counter().get_value() as u64,
        }
    }

    fn refusals(&self, reason: &str) -> u64 {
        self.metric("podcreds_refusals_total", Some(reason))
    }

    fn answers(&self, code: &str) -> u64 {
        self.metric("podcreds_request_duration_seconds", Some(code))
    }

    fn open(&self) -> u64 {
        self.metric("podcreds_connections", None)
    }

    /// Lets the tasks do what they can do now.
    async fn settle(&self) {
        // On a paused clock this ends when nobody has anything left to do.
        sleep(Duration::from_millis(1)).await;
    }
}

/// A client's end of a connection.
struct Client(DuplexStream);

/// What a server says to a request.
struct Answer {
    head: String,
    body: String,
}

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads one answer, which must come at some time.
    async fn answer(&mut self) -> Answer {
        timeout(LATER, self.read()).await.expect("an answer")
    }

    async fn read(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.expect("an answer"));
        }
        let mut answer = Answer {
            head: String::from_utf8(head).unwrap(),
            body: String::new(),
        };
        let length = answer
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    async fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request).await;
        self.answer().await
    }

    /// Whether the server closes the connection, sooner or later, without another byte.
    async fn is_closed(&mut self) -> bool {
        matches!(
            timeout(LATER, self.0.read(&mut [0; 1])).await,
            Ok(Ok(0) | Err(_))
        )
    }
}

impl Answer {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What an SDK sends. A word is made a token, which has two dots.
fn get(token: &str) -> String {
    let dots = match token {
        "" => "",
        token => ["..", ".", ""][token.matches('.').count().min(2)],
    };
    let token = format!("{token}{dots}");
    format!(
        "GET /v1/credentials HTTP/1.1\r\nHost: 169.254.170.23\r\nAuthorization: {token}\r\n\r\n"
    )
}
