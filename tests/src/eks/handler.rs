//! The road of a call through the stand-in.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::Request;
use serde_json::{Value, json};

use super::{
    Call, State,
    answer::{self, Refusal},
    fields::{Fields, Filter, token_after},
    lock,
    operation::Operation,
};
use crate::{
    associations::{Association, Associations},
    eks_auth::CLUSTER,
    http::server::{Action, Handler},
};

/// What clients sign their calls for.
const SERVICE: &str = "eks";

/// What serves the calls.
pub(super) struct Service(pub(super) Arc<Mutex<State>>);

impl Handler for Service {
    fn handle(self: Arc<Self>, request: Request<Bytes>) -> BoxFuture<'static, Action> {
        async move {
            Action::Answer(match self.call(&request) {
                Ok(body) => answer::ok(&body),
                Err(refusal) => refusal.answer(),
            })
        }
        .boxed()
    }
}

impl Service {
    fn call(&self, request: &Request<Bytes>) -> Result<Value, Refusal> {
        let mut state = lock(&self.0);
        let signed = state.signers.verify(request, SERVICE);
        signed.map_err(|(code, reason)| Refusal {
            status: 403,
            code,
            reason,
        })?;
        let (cluster, operation) = Operation::of(request).ok_or_else(|| Refusal {
            status: 404,
            code: "UnknownOperationException",
            reason: format!("no operation: {} {}", request.method(), request.uri()),
        })?;
        let done = state.admit(operation).and_then(|()| {
            if cluster != CLUSTER {
                let reason = format!("No cluster found for name: {cluster}.");
                return Err(Refusal::not_found(reason));
            }
            perform(&state.associations, operation, request)
        });
        state.calls.push(Call {
            operation: operation.name(),
            error: done.as_ref().err().map(|refusal| refusal.code),
        });
        done
    }
}

impl State {
    /// Decides whether a call may be made now.
    fn admit(&mut self, operation: Operation<'_>) -> Result<(), Refusal> {
        let quota = self.quota.as_mut();
        let is_over = quota.is_some_and(|quota| quota.take(Instant::now()).is_some());
        if self.throttled > 0 || is_over {
            self.throttled = self.throttled.saturating_sub(1);
            return Err(Refusal::throttled());
        }
        if self.denied.contains(operation.name()) {
            return Err(Refusal::denied(operation.name()));
        }
        Ok(())
    }
}

fn perform(
    table: &Associations,
    operation: Operation<'_>,
    request: &Request<Bytes>,
) -> Result<Value, Refusal> {
    match operation {
        Operation::DescribeCluster => Ok(answer::cluster()),
        Operation::List => list(table, &Filter::read(request.uri())?),
        Operation::Create => create(table, Fields::read(request.body())?),
        Operation::Describe(id) => one(id, table.get(id)),
        Operation::Update(id) => update(table, id, Fields::read(request.body())?),
        Operation::Delete(id) => one(id, table.remove(id)),
    }
}

fn list(table: &Associations, filter: &Filter) -> Result<Value, Refusal> {
    // One more says whether there is another page.
    let most = filter.most + 1;
    let mut page = table.page(filter.after.as_ref(), most, |association| {
        filter.wants(association)
    });
    let has_more = page.len() == most;
    page.truncate(filter.most);
    let next = page.last().filter(|_| has_more).map(token_after);
    let summaries: Vec<_> = page.iter().map(answer::summary).collect();
    let mut body = json!({ "associations": summaries });
    if let Some(next) = next {
        body["nextToken"] = next.into();
    }
    Ok(body)
}

fn create(table: &Associations, fields: Fields) -> Result<Value, Refusal> {
    let association = fields.create()?;
    let added = table.add(association.clone());
    added.map_err(|id| Refusal {
        status: 409,
        code: "ResourceInUseException",
        reason: format!("Association already exists: {id}"),
    })?;
    Ok(body_of(&association))
}

fn update(table: &Associations, id: &str, fields: Fields) -> Result<Value, Refusal> {
    let mut changed = Ok(());
    let association = table.change(id, |association| changed = fields.change(association));
    changed?;
    one(id, association)
}

fn one(id: &str, association: Option<Association>) -> Result<Value, Refusal> {
    let association = association
        .ok_or_else(|| Refusal::not_found(format!("Association with id {id} does not exist")))?;
    Ok(body_of(&association))
}

fn body_of(association: &Association) -> Value {
    json!({ "association": answer::whole(association) })
}
