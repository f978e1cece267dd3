//! The answers of EKS Auth, as the service model of the AWS SDKs has them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::CLUSTER;
use crate::{
    associations::Association,
    aws::{ACCOUNT, Owner},
    http::server::{Body, full},
    token::{AUDIENCE, new_uid},
};

/// The form of `Date` in HTTP.
const HTTP_DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// The body of a good answer.
pub(super) fn credentials(owner: &Owner, association: &Association, now: SystemTime) -> Value {
    let Owner {
        namespace,
        service_account,
        pod,
        ..
    } = owner;
    let role = association.role_name();
    json!({
        "subject": { "namespace": namespace, "serviceAccount": service_account },
        "audience": AUDIENCE,
        "podIdentityAssociation": {
            "associationArn": association.arn(CLUSTER),
            "associationId": association.id,
        },
        "assumedRoleUser": {
            "arn": format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role}/eks-{CLUSTER}-{pod}"),
            "assumeRoleId": format!("AROAEXAMPLE:eks-{CLUSTER}-{pod}"),
        },
        "credentials": {
            "sessionToken": owner.to_string(),
            "secretAccessKey": format!("secret-of-{}", owner.access_key_id()),
            "accessKeyId": owner.access_key_id(),
            "expiration": epoch_seconds(now + association.credentials_lifetime()),
        },
    })
}

/// An answer of a server that is so many seconds ahead of `now`.
pub(super) fn dated(mut response: Response<Body>, now: SystemTime, ahead: i64) -> Response<Body> {
    let offset = Duration::from_secs(ahead.unsigned_abs());
    let date = if ahead < 0 {
        now - offset
    } else {
        now + offset
    };
    let date = OffsetDateTime::from(date);
    let date = date.format(HTTP_DATE).expect("a time after the year 0");
    let date = date.parse().expect("a date as a header");
    response.headers_mut().insert(header::DATE, date);
    response
}

/// The same with credentials that expired a minute ago.
pub(super) fn expire(answer: &mut Value, now: SystemTime) {
    answer["credentials"]["expiration"] = json!(epoch_seconds(now - Duration::from_secs(60)));
}

/// The same without the field that `pointer` names.
pub(super) fn remove(answer: &mut Value, pointer: &str) {
    let (parent, field) = pointer.rsplit_once('/').unwrap_or(("", pointer));
    let removed = answer
        .pointer_mut(parent)
        .and_then(Value::as_object_mut)
        .and_then(|object| object.remove(field));
    assert!(removed.is_some(), "EKS Auth's answer has no {pointer}");
}

/// A 200 with this body.
pub(super) fn ok(body: impl Into<Bytes>) -> Response<Body> {
    respond(StatusCode::OK, body)
}

/// An error of the service.
pub(super) fn error(status: u16, code: &str, message: &str) -> Response<Body> {
    let status = StatusCode::from_u16(status).expect("a valid HTTP status");
    let mut response = respond(status, json!({ "message": message }).to_string());
    let code = code.parse().expect("an error name that fits a header");
    response.headers_mut().insert("x-amzn-errortype", code);
    response
}

/// 429, with or without `Retry-After`.
pub(super) fn throttled(retry_after: Option<u64>) -> Response<Body> {
    let mut response = error(429, "ThrottlingException", "Rate exceeded");
    if let Some(seconds) = retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn respond(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-amzn-requestid", new_uid())
        .body(full(body))
        .expect("a valid response")
}

fn epoch_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
