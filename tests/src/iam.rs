//! A stand-in for IAM's `GetRole`, where moto's server is more than a test needs.
//!
//! It answers with trust policies as IAM does, percent-encoded, and checks no signature.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    associations::role_arn,
    http::server::{Action, Handler, Server, full},
};

/// A running stand-in, on a thread of its own. It stops when it is dropped.
pub struct Iam {
    server: Server,
    roles: Arc<Roles>,
}

/// Trust policies by the names of their roles.
#[derive(Default)]
struct Roles(Mutex<BTreeMap<String, Value>>);

impl Iam {
    /// Starts one that has no role yet.
    pub fn start() -> Self {
        let roles = Arc::new(Roles::default());
        Self {
            server: Server::start("iam", Arc::clone(&roles) as Arc<dyn Handler>),
            roles,
        }
    }

    /// Its base URL: `AWS_ENDPOINT_URL_IAM`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Makes a role, or gives it another trust policy.
    pub fn put(&self, role: &str, trust: Value) {
        let mut roles = self.roles.0.lock().unwrap_or_else(PoisonError::into_inner);
        roles.insert(role.to_owned(), trust);
    }
}

impl Handler for Roles {
    fn handle(self: Arc<Self>, request: Request<Bytes>) -> BoxFuture<'static, Action> {
        let roles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = role_wanted(request.body());
        let (status, body) = match name.and_then(|name| roles.get_key_value(name)) {
            Some((name, trust)) => (StatusCode::OK, answer(name, trust)),
            None => {
                let why = "The role with that name cannot be found.";
                (StatusCode::NOT_FOUND, refusal("NoSuchEntity", why))
            }
        };
        let answer = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "text/xml")
            .body(full(body))
            .expect("a valid response");
        async move { Action::Answer(answer) }.boxed()
    }
}

/// A trust policy that lets a service do this, on a condition unless that is `null`.
pub fn trust(service: &str, actions: &[&str], condition: Value) -> Value {
    let mut statement = json!({
        "Effect": "Allow",
        "Principal": { "Service": service },
        "Action": actions,
    });
    if !condition.is_null() {
        statement["Condition"] = condition;
    }
    json!({ "Version": "2012-10-17", "Statement": [statement] })
}

/// The role that a call of `GetRole` names.
pub fn role_wanted(body: &Bytes) -> Option<&str> {
    let body = std::str::from_utf8(body).ok()?;
    let mut fields = body.split('&');
    fields.find_map(|field| field.strip_prefix("RoleName="))
}

/// What `GetRole` answers.
pub fn answer(role: &str, trust: &Value) -> String {
    let policy: String = trust.to_string().bytes().map(encoded).collect();
    let arn = role_arn(role);
    format!(
        "<GetRoleResponse><GetRoleResult><Role><Path>/</Path><RoleName>{role}</RoleName>\
         <RoleId>i</RoleId><Arn>{arn}</Arn><CreateDate>2026-01-01T00:00:00Z</CreateDate>\
         <AssumeRolePolicyDocument>{policy}</AssumeRolePolicyDocument>\
         </Role></GetRoleResult></GetRoleResponse>"
    )
}

/// What it answers where it does not.
pub fn refusal(code: &str, why: &str) -> String {
    format!(
        "<ErrorResponse><Error><Code>{code}</Code><Message>{why}</Message></Error></ErrorResponse>"
    )
}

fn encoded(byte: u8) -> String {
    match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    }
}
