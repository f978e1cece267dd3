//! Verifies SigV4: signs the request again with the signer's secret, and compares.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningParams, SigningSettings, sign},
    sign::v4,
};
use bytes::Bytes;
use http::Request;
use time::{PrimitiveDateTime, macros::format_description};

use crate::aws::{NodeCredentials, REGION};

const SERVICE: &str = "eks-auth";

/// How far the client's clock may be off.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// What AWS answers when it does not like a signature: the error's name, and the reason.
pub(super) type Rejection = (&'static str, String);

/// Checks who signed `request`, and that the signature covers what it must.
pub(super) fn verify(
    request: &Request<Bytes>,
    signers: &HashMap<String, NodeCredentials>,
) -> Result<(), Rejection> {
    let claim = Claim::read(request)?;
    let signer = signers
        .get(claim.access_key_id)
        .ok_or_else(|| unrecognized("the access key is not known"))?;
    if header(request, "x-amz-security-token") != Some(&signer.session_token) {
        return Err(unrecognized("the session token is missing or wrong"));
    }
    for name in ["host", "x-amz-date", "x-amz-security-token"] {
        if !claim.signed_headers.contains(&name) {
            return Err(mismatch(format!("{name} is not signed")));
        }
    }
    let [date, region, service, "aws4_request"] = claim.scope[..] else {
        return Err(mismatch("the credential scope is malformed"));
    };
    if (region, service) != (REGION, SERVICE) {
        return Err(mismatch(format!(
            "signed for {service} in {region}, not {SERVICE} in {REGION}"
        )));
    }
    let stamp = header(request, "x-amz-date").unwrap_or_default();
    let signed_at = parse_date(stamp).ok_or_else(|| mismatch("x-amz-date is malformed"))?;
    if !stamp.starts_with(date) || clock_distance(signed_at) > TOLERANCE {
        return Err(mismatch(format!(
            "signature expired or not yet current: {stamp}"
        )));
    }
    let expected = sign_again(request, &claim, signer, signed_at)
        .map_err(|why| mismatch(format!("cannot be signed again: {why}")))?;
    if claim.signature == expected {
        Ok(())
    } else {
        Err(mismatch("the signature does not match the request"))
    }
}

/// The key ID of the access key that claims to have signed `request`.
pub(super) fn access_key_id(request: &Request<Bytes>) -> Option<&str> {
    Claim::read(request).ok().map(|claim| claim.access_key_id)
}

/// The parts of an `Authorization: AWS4-HMAC-SHA256` header.
struct Claim<'a> {
    access_key_id: &'a str,
    scope: Vec<&'a str>,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Claim<'a> {
    fn read(request: &'a Request<Bytes>) -> Result<Self, Rejection> {
        let missing = || {
            (
                "MissingAuthenticationTokenException",
                "no signature".to_owned(),
            )
        };
        let value = header(request, "authorization").ok_or_else(missing)?;
        let malformed = || {
            (
                "IncompleteSignatureException",
                "malformed Authorization".to_owned(),
            )
        };
        let value = value
            .strip_prefix("AWS4-HMAC-SHA256 ")
            .ok_or_else(malformed)?;
        let fields: HashMap<&str, &str> = value
            .split(',')
            .filter_map(|field| field.trim().split_once('='))
            .collect();
        let field = |name| fields.get(name).copied().ok_or_else(malformed);
        let (access_key_id, scope) = field("Credential")?.split_once('/').ok_or_else(malformed)?;
        Ok(Self {
            access_key_id,
            scope: scope.split('/').collect(),
            signed_headers: field("SignedHeaders")?.split(';').collect(),
            signature: field("Signature")?,
        })
    }
}

fn sign_again(
    request: &Request<Bytes>,
    claim: &Claim<'_>,
    signer: &NodeCredentials,
    signed_at: SystemTime,
) -> Result<String, Box<dyn std::error::Error>> {
    let identity = Credentials::new(
        &signer.access_key_id,
        &signer.secret_access_key,
        Some(signer.session_token.clone()),
        None,
        "podcreds-tests",
    )
    .into();
    let mut settings = SigningSettings::default();
    settings.excluded_headers = None;
    let params: SigningParams<'_> = v4::SigningParams::builder()
        .identity(&identity)
        .region(REGION)
        .name(SERVICE)
        .time(signed_at)
        .settings(settings)
        .build()?
        .into();
    let headers = claim
        .signed_headers
        .iter()
        .filter_map(|name| header(request, name).map(|value| (*name, value)));
    let host = header(request, "host").unwrap_or_default();
    // Who comes through a proxy sends the whole URI; what is signed is its path.
    let path = request.uri().path_and_query();
    let url = format!("http://{host}{}", path.map_or("/", |path| path.as_str()));
    let body = SignableBody::Bytes(request.body());
    let request = SignableRequest::new(request.method().as_str(), url, headers, body)?;
    Ok(sign(request, &params)?.signature().to_owned())
}

fn parse_date(stamp: &str) -> Option<SystemTime> {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let date = PrimitiveDateTime::parse(stamp, format).ok()?;
    Some(date.assume_utc().into())
}

fn clock_distance(time: SystemTime) -> Duration {
    let now = SystemTime::now();
    now.duration_since(time)
        .unwrap_or_else(|ahead| ahead.duration())
}

fn header<'a>(request: &'a Request<Bytes>, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

fn unrecognized(reason: &str) -> Rejection {
    ("UnrecognizedClientException", reason.to_owned())
}

fn mismatch(reason: impl Into<String>) -> Rejection {
    ("InvalidSignatureException", reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request as a client sends it, signed with the default credentials at this time.
    fn signed(time: SystemTime) -> Request<Bytes> {
        let signer = NodeCredentials::default();
        let identity = Credentials::new(
            signer.access_key_id,
            signer.secret_access_key,
            Some(signer.session_token),
            None,
            "test",
        )
        .into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(REGION)
            .name(SERVICE)
            .time(time)
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let (url, body) = (
            "http://127.0.0.1:1/clusters/a%20b",
            Bytes::from_static(b"{}"),
        );
        let headers = [("content-type", "application/json"), ("user-agent", "any")];
        let signable =
            SignableRequest::new("POST", url, headers.into_iter(), SignableBody::Bytes(&body));
        let (instructions, _) = sign(signable.unwrap(), &params).unwrap().into_parts();
        let mut request = Request::post(url).header("host", "127.0.0.1:1");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(body).unwrap();
        instructions.apply_to_request_http1x(&mut request);
        // What a server sees has no authority in its URI.
        *request.uri_mut() = "/clusters/a%20b".parse().unwrap();
        request
    }

    fn judge(request: &Request<Bytes>) -> Result<(), &'static str> {
        let signer = NodeCredentials::default();
        let signers = HashMap::from([(signer.access_key_id.clone(), signer)]);
        verify(request, &signers).map_err(|(code, _)| code)
    }

    #[test]
    fn what_was_signed_must_arrive_as_it_was() {
        assert_eq!(judge(&signed(SystemTime::now())), Ok(()));
        let tampers: [fn(&mut Request<Bytes>); 5] = [
            |request| *request.body_mut() = Bytes::from_static(b"[]"),
            |request| *request.uri_mut() = "/clusters/b".parse().unwrap(),
            |request| *request.method_mut() = http::Method::PUT,
            |request| {
                drop(
                    request
                        .headers_mut()
                        .insert("content-type", "a/b".parse().unwrap()),
                )
            },
            |request| {
                drop(
                    request
                        .headers_mut()
                        .insert("host", "localhost:1".parse().unwrap()),
                )
            },
        ];
        for (number, tamper) in tampers.iter().enumerate() {
            let mut request = signed(SystemTime::now());
            tamper(&mut request);
            let verdict = judge(&request);
            assert_eq!(verdict, Err("InvalidSignatureException"), "tamper {number}");
        }
    }

    #[test]
    fn clocks_may_differ_by_five_minutes() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        for off in [minutes(4), minutes(6)] {
            let expected = if off < TOLERANCE {
                Ok(())
            } else {
                Err("InvalidSignatureException")
            };
            assert_eq!(judge(&signed(SystemTime::now() - off)), expected);
            assert_eq!(judge(&signed(SystemTime::now() + off)), expected);
        }
    }

    #[test]
    fn nobody_gets_in_without_a_signature() {
        let request = Request::post("/").body(Bytes::new()).unwrap();
        assert_eq!(judge(&request), Err("MissingAuthenticationTokenException"));
    }
}
