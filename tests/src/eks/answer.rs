//! The answers of the EKS API, as the service model of the AWS SDKs has them.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    associations::Association,
    aws::{ACCOUNT, REGION},
    eks_auth::CLUSTER,
    http::server::{Body, full},
    token::{ISSUER, new_uid},
};

/// Why a call is refused.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) reason: String,
}

impl Refusal {
    /// A parameter that makes no sense.
    pub(super) fn parameter(reason: impl Into<String>) -> Self {
        Self {
            status: 400,
            code: "InvalidParameterException",
            reason: reason.into(),
        }
    }

    /// Something that is not there.
    pub(super) fn not_found(reason: String) -> Self {
        Self {
            status: 404,
            code: "ResourceNotFoundException",
            reason,
        }
    }

    /// Too many calls, in the words of the gateway before the real one.
    pub(super) fn throttled() -> Self {
        Self {
            status: 429,
            code: "TooManyRequestsException",
            reason: "Too Many Requests".to_owned(),
        }
    }

    /// A call that the caller may not make.
    pub(super) fn denied(operation: &str) -> Self {
        Self {
            status: 403,
            code: "AccessDeniedException",
            reason: format!(
                "User: arn:aws:iam::{ACCOUNT}:user/operator is not authorized to perform: \
                 eks:{operation} on resource: {}",
                cluster_arn()
            ),
        }
    }

    pub(super) fn answer(&self) -> Response<Body> {
        let body = json!({ "message": self.reason });
        let status = StatusCode::from_u16(self.status).expect("a valid HTTP status");
        let mut response = respond(status, &body);
        let code = self.code.parse().expect("an error name that fits a header");
        response.headers_mut().insert("x-amzn-errortype", code);
        response
    }
}

/// A good answer.
pub(super) fn ok(body: &Value) -> Response<Body> {
    respond(StatusCode::OK, body)
}

/// What a list says of an association: not its role.
pub(super) fn summary(association: &Association) -> Value {
    without_nulls(json!({
        "clusterName": CLUSTER,
        "namespace": association.namespace,
        "serviceAccount": association.service_account,
        "associationArn": association.arn(CLUSTER),
        "associationId": association.id,
        "ownerArn": association.owner_arn,
    }))
}

/// All of it.
pub(super) fn whole(association: &Association) -> Value {
    without_nulls(json!({
        "clusterName": CLUSTER,
        "namespace": association.namespace,
        "serviceAccount": association.service_account,
        "roleArn": association.role_arn,
        "associationArn": association.arn(CLUSTER),
        "associationId": association.id,
        "tags": association.tags,
        "createdAt": epoch_seconds(association.created),
        "modifiedAt": epoch_seconds(association.modified),
        "ownerArn": association.owner_arn,
        "disableSessionTags": association.disable_session_tags,
        "targetRoleArn": association.target_role_arn,
        "externalId": association.external_id,
        "policy": association.policy,
    }))
}

/// The cluster.
pub(super) fn cluster() -> Value {
    json!({ "cluster": {
        "name": CLUSTER,
        "arn": cluster_arn(),
        "version": "1.34",
        "status": "ACTIVE",
        "endpoint": "https://127.0.0.1:6443",
        "identity": { "oidc": { "issuer": ISSUER } },
        "kubernetesNetworkConfig": { "ipFamily": "ipv4", "serviceIpv4Cidr": "10.96.0.0/16" },
        "tags": {},
    }})
}

fn cluster_arn() -> String {
    format!("arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{CLUSTER}")
}

fn respond(status: StatusCode, body: &Value) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-amzn-requestid", new_uid())
        .body(full(body.to_string()))
        .expect("a valid response")
}

/// A field that an association does not have is not in the answer.
fn without_nulls(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, field| !field.is_null());
    }
    value
}

fn epoch_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
