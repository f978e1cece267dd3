//! What a request asks for, and how it says that it has come.

use std::borrow::Cow;

use http::{HeaderName, Request, header};
use podcreds_types::Route;

/// The only resource.
pub(super) const PATH: &str = "/v1/credentials";

/// Longer targets are not looked at: what they could name is not here.
const LONGEST: usize = 256;

/// Headers that proxies add or are meant for. None of them is known to be sent by an SDK itself.
static OF_PROXIES: [HeaderName; 6] = [
    header::VIA,
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("proxy-connection"),
];

/// The way that a request says it has come, read from its head.
pub(super) fn route<B>(request: &Request<B>) -> Route {
    let is_absolute = request.uri().scheme().is_some();
    if is_absolute || (OF_PROXIES.iter()).any(|name| request.headers().contains_key(name)) {
        Route::Proxy
    } else {
        Route::Direct
    }
}

/// Whether a request is for the credentials. Doubled slashes, dots and escaped letters change
/// nothing: AWS's agent redirects them to the resource or serves them.
pub(super) fn is_credentials<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    path == PATH || path.len() <= LONGEST && normal(path) == ["v1", "credentials"]
}

/// The segments of a path, without the superfluous ones. A slash at the end makes an empty last
/// one.
fn normal(path: &str) -> Vec<Cow<'_, str>> {
    let mut segments = Vec::new();
    for segment in path.split('/').map(unescaped) {
        match &*segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    if path.ends_with('/') {
        segments.push("".into());
    }
    segments
}

/// A segment with its escapes resolved; as it is if they are not right.
fn unescaped(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return segment.into();
    }
    let mut parts = segment.split('%');
    let first = parts.next().unwrap_or_default();
    let mut text = first.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| is_hex(digits));
        let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
            return segment.into();
        };
        text.push(byte);
        text.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(text).map_or(segment.into(), Cow::Owned)
}

/// `from_str_radix` would take a sign.
fn is_hex(digits: &str) -> bool {
    digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_found(target: &str) -> bool {
        is_credentials(&Request::get(target).body(()).unwrap())
    }

    #[test]
    fn the_resource_is_found_however_it_is_written() {
        for target in [
            "/v1/credentials",
            "/v1/credentials?x=y",
            "//v1/credentials",
            "/v1///credentials",
            "/v1/./credentials",
            "/x/../v1/credentials",
            "/../v1/credentials",
            "/v1/credentials/.",
            "/v1/%63redentials",
            "/%76%31/credentials",
            "/x/%2e%2E/v1/credentials",
            "http://169.254.170.23//v1/credentials?x",
        ] {
            assert!(is_found(target), "{target}");
        }
    }

    #[test]
    fn no_other_target_is_the_resource() {
        let long = format!("/{}/../v1/credentials", "x".repeat(LONGEST));
        for target in [
            "/",
            "*",
            "/v1",
            "/v1/credentials/",
            "/v1/credentials//",
            "/v1/credentials/..",
            "/v1/credentials/x",
            "/V1/credentials",
            "/v1%2Fcredentials",
            "/v1/%+3redentials",
            "/v1/%6",
            "/v1/%ffcredentials",
            "/v1/credentials%20",
            "/v1/credentials;x=y",
            &long,
        ] {
            assert!(!is_found(target), "{target}");
        }
    }

    #[test]
    fn proxies_are_told_by_what_they_add() {
        let route = |target: &str, name: &str| {
            super::route(&Request::get(target).header(name, "x").body(()).unwrap())
        };
        assert_eq!(route(PATH, "accept"), Route::Direct);
        for name in ["via", "Forwarded", "X-Forwarded-For", "x-real-ip"] {
            assert_eq!(route(PATH, name), Route::Proxy, "{name}");
        }
        let absolute = "http://169.254.170.23/v1/credentials";
        assert_eq!(route(absolute, "accept"), Route::Proxy);
    }
}
