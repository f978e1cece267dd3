//! The road of a call through the stand-in.

use std::{
    future,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{Method, Request};
use serde_json::Value;

use super::{
    Authority, CLUSTER, Rejected, answer,
    faults::Fault,
    lock,
    state::{Call, Outcome, State},
};
use crate::{
    associations::Association,
    aws::Owner,
    http::server::{Action, Handler, truncated},
    signature,
    token::Claims,
};

/// What clients sign their calls for.
const SERVICE: &str = "eks-auth";

/// What serves the calls.
pub(super) struct Service {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) authority: Arc<dyn Authority>,
}

impl Handler for Service {
    fn handle(self: Arc<Self>, request: Request<Bytes>) -> BoxFuture<'static, Action> {
        async move { self.call(request).await }.boxed()
    }
}

/// Why a call is refused: status, error name, reason.
pub(super) type Refusal = (u16, &'static str, String);

impl Service {
    async fn call(self: Arc<Self>, request: Request<Bytes>) -> Action {
        let _in_flight = InFlight::enter(&self.state);
        let service = Arc::clone(&self);
        // An API server may have to be asked, which takes its time: calls do not wait in a line.
        let judged = tokio::task::spawn_blocking(move || service.judge(&request));
        let action = match judged.await.expect("the stand-in does not panic") {
            Ok((granted, fault)) => self.perform(granted, fault).await,
            Err(refusal) => Err(refusal),
        };
        let action = action.unwrap_or_else(|(status, code, reason)| {
            Action::Answer(answer::error(status, code, &reason))
        });
        match (action, lock(&self.state).clock) {
            (Action::Answer(response), ahead) if ahead != 0 => {
                Action::Answer(answer::dated(response, SystemTime::now(), ahead))
            }
            (action, _) => action,
        }
    }

    /// Decides about a call, and writes it down.
    fn judge(&self, request: &Request<Bytes>) -> Result<(Grant, Option<Fault>), Refusal> {
        let token = token_in(request.body()).unwrap_or_default();
        let mut call = Call {
            pod_uid: claimed_pod_uid(&token),
            token,
            signer: signature::access_key_id(request)
                .unwrap_or_default()
                .to_owned(),
            outcome: Outcome::Refused {
                code: "",
                reason: String::new(),
            },
        };
        let verified = self.verify(request, &call.token);
        let mut state = lock(&self.state);
        let verdict = verified.map(|(claims, association)| {
            state.issued += 1;
            (
                Grant::new(&claims, association, state.issued),
                state.next_fault(&call.pod_uid),
            )
        });
        call.outcome = match &verdict {
            Ok((_, Some(fault))) => Outcome::Faulted(fault.clone()),
            Ok((grant, None)) => Outcome::Issued(grant.owner.clone()),
            Err((_, code, reason)) => Outcome::Refused {
                code,
                reason: reason.clone(),
            },
        };
        state.calls.push(call);
        verdict
    }

    fn verify(
        &self,
        request: &Request<Bytes>,
        token: &str,
    ) -> Result<(Claims, Association), Refusal> {
        let signed = lock(&self.state).signers.verify(request, SERVICE);
        signed.map_err(|(code, reason)| (403, code, reason))?;
        let cluster = cluster_in(request).ok_or_else(|| {
            let reason = format!("no operation: {} {}", request.method(), request.uri());
            (404, "UnknownOperationException", reason)
        })?;
        if cluster != CLUSTER {
            let reason = format!("No cluster found for name: {cluster}.");
            return Err((404, "ResourceNotFoundException", reason));
        }
        if token.is_empty() {
            let reason = "the request has no token".to_owned();
            return Err((400, "InvalidParameterException", reason));
        }
        let claims = self.authority.verify(token).map_err(Rejected::refusal)?;
        match self.association(&claims)? {
            Some(association) => Ok((claims, association)),
            None => {
                let reason = format!("no pod identity association for {}", claims.sub);
                Err((404, "ResourceNotFoundException", reason))
            }
        }
    }

    fn association(&self, claims: &Claims) -> Result<Option<Association>, Refusal> {
        let namespace = &claims.kubernetes.namespace;
        let account = &claims.kubernetes.serviceaccount.name;
        let role = self.authority.role(namespace, account);
        Ok(match role.map_err(Rejected::refusal)? {
            Some(role) => Some(Association::new(namespace, account, &role)),
            None => lock(&self.state).associations.of(namespace, account),
        })
    }

    /// Answers a good call, as well as the fault lets it.
    async fn perform(&self, grant: Grant, fault: Option<Fault>) -> Result<Action, Refusal> {
        let sts = lock(&self.state).sts.clone();
        match (fault, sts) {
            (Some(fault), _) => Ok(fail(grant, fault).await),
            (None, None) => Ok(Action::Answer(answer::ok(grant.answer().to_string()))),
            (None, Some(sts)) => {
                let mut body = grant.answer();
                sts.fill(&mut body, &grant.association, &grant.owner)
                    .await?;
                Ok(Action::Answer(answer::ok(body.to_string())))
            }
        }
    }
}

/// What a good call gets.
struct Grant {
    owner: Owner,
    association: Association,
}

impl Grant {
    fn new(claims: &Claims, association: Association, serial: u64) -> Self {
        let kubernetes = &claims.kubernetes;
        let owner = Owner {
            role: association.role_name().to_owned(),
            namespace: kubernetes.namespace.clone(),
            service_account: kubernetes.serviceaccount.name.clone(),
            pod: kubernetes
                .pod
                .as_ref()
                .map_or_else(String::new, |pod| pod.name.clone()),
            uid: claims.pod_uid().to_owned(),
            serial,
        };
        Self { owner, association }
    }

    fn of_somebody_else(self) -> Self {
        let owner = Owner {
            namespace: "somebody".to_owned(),
            service_account: "else".to_owned(),
            pod: "entirely".to_owned(),
            uid: crate::token::new_uid(),
            ..self.owner
        };
        Self { owner, ..self }
    }

    fn answer(&self) -> Value {
        answer::credentials(&self.owner, &self.association, SystemTime::now())
    }
}

/// Answers a good call with a fault.
async fn fail(grant: Grant, fault: Fault) -> Action {
    let mut body = grant.answer();
    let response = match fault {
        Fault::Slow(delay) => {
            tokio::time::sleep(delay).await;
            answer::ok(grant.answer().to_string())
        }
        Fault::Throttle { retry_after } => answer::throttled(retry_after),
        Fault::Error { status, code } => answer::error(status, code, "as the test asked"),
        Fault::Hang => future::pending().await,
        Fault::Reset => return Action::Reset,
        Fault::Truncated => truncated(&body.to_string().into()),
        Fault::Nonsense => answer::ok("<html>It works!</html>"),
        Fault::Missing(pointer) => {
            answer::remove(&mut body, pointer);
            answer::ok(body.to_string())
        }
        Fault::Expired => {
            answer::expire(&mut body, SystemTime::now());
            answer::ok(body.to_string())
        }
        Fault::Lie => answer::ok(grant.of_somebody_else().answer().to_string()),
    };
    Action::Answer(response)
}

/// The cluster's name, if this is the one operation that there is.
fn cluster_in(request: &Request<Bytes>) -> Option<&str> {
    let path = request.uri().path().strip_prefix("/clusters/")?;
    let cluster = path.strip_suffix("/assume-role-for-pod-identity")?;
    (request.method() == Method::POST).then_some(cluster)
}

fn token_in(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    Some(body.get("token")?.as_str()?.to_owned())
}

/// For counting only: bad tokens are counted too.
fn claimed_pod_uid(token: &str) -> String {
    jsonwebtoken::dangerous::insecure_decode_claims::<Claims>(token)
        .map_or_else(|_| String::new(), |claims| claims.pod_uid().to_owned())
}

/// Counts a call for as long as it is being answered, also when the client hangs up.
struct InFlight<'a>(&'a Mutex<State>);

impl<'a> InFlight<'a> {
    fn enter(state: &'a Mutex<State>) -> Self {
        let mut held = lock(state);
        held.in_flight += 1;
        held.most_in_flight = held.most_in_flight.max(held.in_flight);
        drop(held);
        Self(state)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        lock(self.0).in_flight -= 1;
    }
}
