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

use crate::aws::REGION;

/// How far the client's clock may be off.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// The header that carries the session token of credentials that are good for hours.
const SESSION_TOKEN: &str = "x-amz-security-token";

/// What AWS answers when it does not like a signature: the error's name, and the reason.
pub(crate) type Rejection = (&'static str, String);

/// Whose signatures a stand-in accepts.
#[derive(Default)]
pub(crate) struct Signers(HashMap<String, Credentials>);

impl Signers {
    /// Accepts what is signed with these credentials too.
    pub(crate) fn accept(&mut self, credentials: Credentials) {
        let key = credentials.access_key_id().to_owned();
        self.0.insert(key, credentials);
    }

    /// Checks who signed `request` for this service, and that the signature covers what it must.
    pub(crate) fn verify(
        &self,
        request: &Request<Bytes>,
        service: &'static str,
    ) -> Result<(), Rejection> {
        let claim = Claim::read(request)?;
        let signer = self.0.get(claim.access_key_id);
        let signer = signer.ok_or_else(|| unrecognized("the access key is not known"))?;
        if header(request, SESSION_TOKEN) != signer.session_token() {
            return Err(unrecognized("the session token is missing or wrong"));
        }
        claim.covers(["host", "x-amz-date"])?;
        claim.covers(signer.session_token().map(|_| SESSION_TOKEN))?;
        let date = claim.date_for(service)?;
        let stamp = header(request, "x-amz-date").unwrap_or_default();
        let signed_at = parse_date(stamp).ok_or_else(|| mismatch("x-amz-date is malformed"))?;
        if !stamp.starts_with(date) || clock_distance(signed_at) > TOLERANCE {
            return Err(mismatch(format!(
                "signature expired or not yet current: {stamp}"
            )));
        }
        let expected = sign_again(request, &claim, signer, (service, signed_at))
            .map_err(|why| mismatch(format!("cannot be signed again: {why}")))?;
        if claim.signature == expected {
            Ok(())
        } else {
            Err(mismatch("the signature does not match the request"))
        }
    }
}

/// The key ID of the access key that claims to have signed `request`.
pub(crate) fn access_key_id(request: &Request<Bytes>) -> Option<&str> {
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

    /// Checks that these headers are signed.
    fn covers(&self, headers: impl IntoIterator<Item = &'static str>) -> Result<(), Rejection> {
        for name in headers {
            if !self.signed_headers.contains(&name) {
                return Err(mismatch(format!("{name} is not signed")));
            }
        }
        Ok(())
    }

    /// The day of the signature, which is to be for this service.
    fn date_for(&self, expected: &str) -> Result<&str, Rejection> {
        let [date, region, service, "aws4_request"] = self.scope[..] else {
            return Err(mismatch("the credential scope is malformed"));
        };
        if (region, service) != (REGION, expected) {
            return Err(mismatch(format!(
                "signed for {service} in {region}, not {expected} in {REGION}"
            )));
        }
        Ok(date)
    }
}

fn sign_again(
    request: &Request<Bytes>,
    claim: &Claim<'_>,
    signer: &Credentials,
    (service, signed_at): (&str, SystemTime),
) -> Result<String, Box<dyn std::error::Error>> {
    let identity = signer.clone().into();
    let mut settings = SigningSettings::default();
    settings.excluded_headers = None;
    let params: SigningParams<'_> = v4::SigningParams::builder()
        .identity(&identity)
        .region(REGION)
        .name(service)
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
    use crate::aws::NodeCredentials;

    const SERVICE: &str = "eks";

    fn operator() -> Credentials {
        Credentials::new("AKIAOPERATOR", "secret", None, None, "test")
    }

    /// A request as a client sends it, signed with the default credentials at this time.
    fn signed(time: SystemTime) -> Request<Bytes> {
        signed_by((&NodeCredentials::default()).into(), time)
    }

    fn signed_by(signer: Credentials, time: SystemTime) -> Request<Bytes> {
        let identity = signer.into();
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
        let mut signers = Signers::default();
        signers.accept((&NodeCredentials::default()).into());
        signers.accept(operator());
        let verdict = signers.verify(request, SERVICE);
        verdict.map_err(|(code, _)| code)
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
    fn keys_without_a_session_token_are_good_without_one_only() {
        let mut request = signed_by(operator(), SystemTime::now());
        assert_eq!(judge(&request), Ok(()));
        let token = "anything".parse().unwrap();
        request.headers_mut().insert(SESSION_TOKEN, token);
        assert_eq!(judge(&request), Err("UnrecognizedClientException"));
    }

    #[test]
    fn nobody_gets_in_without_a_signature() {
        let request = Request::post("/").body(Bytes::new()).unwrap();
        assert_eq!(judge(&request), Err("MissingAuthenticationTokenException"));
    }
}
