//! A stand-in for the node's instance metadata service, version 2: the agent's region and the
//! node's credentials.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{Method, Request, Response, StatusCode};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    aws::{ACCOUNT, NodeCredentials, REGION},
    http::server::{Action, Body, Handler, Server, full},
    token::new_uid,
};

/// The name of the node's role.
pub const NODE_ROLE: &str = "node-role";

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials/";

/// A running stand-in, on a thread of its own. It stops when it is dropped.
pub struct Imds {
    server: Server,
    service: Arc<Service>,
}

struct Service {
    credentials: NodeCredentials,
    tokens: Mutex<HashSet<String>>,
    paths: Mutex<Vec<String>>,
}

impl Imds {
    /// Starts one in [`REGION`], on a node whose role has these credentials.
    pub fn start(credentials: NodeCredentials) -> Self {
        Self::serve((Ipv4Addr::LOCALHOST, 0).into(), credentials)
    }

    /// The same at an address.
    pub fn serve(address: SocketAddr, credentials: NodeCredentials) -> Self {
        let service = Arc::new(Service {
            credentials,
            tokens: Mutex::default(),
            paths: Mutex::default(),
        });
        let server = Server::start_at(address, "imds", Arc::clone(&service) as Arc<dyn Handler>);
        Self { server, service }
    }

    /// Its base URL, for `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The paths that were asked for, oldest first.
    pub fn paths(&self) -> Vec<String> {
        self.service
            .paths
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Handler for Service {
    fn handle(self: Arc<Self>, request: Request<Bytes>) -> BoxFuture<'static, Action> {
        async move { Action::Answer(self.answer(&request)) }.boxed()
    }
}

impl Service {
    fn answer(&self, request: &Request<Bytes>) -> Response<Body> {
        let path = request.uri().path();
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        paths.push(path.to_owned());
        drop(paths);
        if request.headers().contains_key("x-forwarded-for") {
            return status(StatusCode::FORBIDDEN);
        }
        match (request.method(), path) {
            (&Method::PUT, "/latest/api/token") => self.new_token(request),
            (&Method::GET, _) if !self.knows_token(request) => status(StatusCode::UNAUTHORIZED),
            (&Method::GET, _) => self.read(path),
            _ => status(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    fn new_token(&self, request: &Request<Bytes>) -> Response<Body> {
        let ttl = header(request, TTL_HEADER).and_then(|text| text.parse::<u32>().ok());
        let Some(ttl) = ttl.filter(|ttl| (1..=21_600).contains(ttl)) else {
            return status(StatusCode::BAD_REQUEST);
        };
        let token = new_uid();
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(token.clone());
        let mut response = text(token);
        response.headers_mut().insert(TTL_HEADER, ttl.into());
        response
    }

    fn knows_token(&self, request: &Request<Bytes>) -> bool {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        header(request, TOKEN_HEADER).is_some_and(|token| tokens.contains(token))
    }

    fn read(&self, path: &str) -> Response<Body> {
        match path {
            "/latest/meta-data/placement/region" => text(REGION.to_owned()),
            "/latest/meta-data/instance-id" => text("i-0123456789abcdef0".to_owned()),
            "/latest/dynamic/instance-identity/document" => text(identity_document()),
            CREDENTIALS => text(NODE_ROLE.to_owned()),
            _ if path.strip_prefix(CREDENTIALS) == Some(NODE_ROLE) => text(self.role_credentials()),
            _ => status(StatusCode::NOT_FOUND),
        }
    }

    fn role_credentials(&self) -> String {
        let now = SystemTime::now();
        json!({
            "Code": "Success",
            "LastUpdated": timestamp(now),
            "Type": "AWS-HMAC",
            "AccessKeyId": self.credentials.access_key_id,
            "SecretAccessKey": self.credentials.secret_access_key,
            "Token": self.credentials.session_token,
            "Expiration": timestamp(now + Duration::from_secs(6 * 3600)),
        })
        .to_string()
    }
}

fn identity_document() -> String {
    json!({
        "accountId": ACCOUNT,
        "architecture": "x86_64",
        "availabilityZone": format!("{REGION}a"),
        "instanceId": "i-0123456789abcdef0",
        "instanceType": "m7i.large",
        "region": REGION,
        "version": "2017-09-30",
    })
    .to_string()
}

fn timestamp(time: SystemTime) -> String {
    // IMDS writes whole seconds.
    let time = OffsetDateTime::from(time)
        .replace_nanosecond(0)
        .expect("zero is in range");
    time.format(&Rfc3339).expect("a time after the year 0")
}

fn header<'a>(request: &'a Request<Bytes>, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

fn text(body: String) -> Response<Body> {
    Response::new(full(body))
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}
