//! The head of a request, as a pod may write it.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use podcreds_fuzz::Fuzz;
use podcreds_types::{Claims, Route};

use super::{answer::Format, host, target};

const FUZZ: Fuzz = Fuzz {
    manifest: env!("CARGO_MANIFEST_DIR"),
    words: &[
        "GET ",
        "/v1/credentials",
        "/../",
        "%2e",
        "%63",
        "%00",
        "Host: ",
        "169.254.170.23",
        "[fd00:ec2::23]",
        "::ffff:127.0.0.1",
        "%eth0",
        "evil.example",
        "Authorization: ",
        "a.b.c",
        "Accept: text/html,",
        "X-Forwarded-For: ",
        "http://",
        "HTTP/1.0",
        "\r\n",
        "?x=",
    ],
};

/// Reads a head as hyper does, and makes the same of it.
fn request(head: &[u8]) -> Option<Request<()>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(head).ok()?;
    let version = match parsed.version? {
        0 => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *request.uri_mut() = Uri::try_from(parsed.path?).ok()?;
    *request.version_mut() = version;
    for header in parsed.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(header.value).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

/// Whether a text is an address, however it is wrapped and whatever port follows.
fn has_address(host: &str) -> bool {
    let before_port = host.rsplit_once(':').map(|(address, _)| address);
    [Some(host), before_port].into_iter().flatten().any(|text| {
        let text = text.trim_start_matches('[').trim_end_matches(']');
        let (address, _) = text.split_once('%').unwrap_or((text, ""));
        address.parse::<IpAddr>().is_ok()
    })
}

/// The path with its escapes resolved.
fn unescaped(path: &str) -> String {
    let mut parts = path.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..2).map(|hex| u8::from_str_radix(hex, 16)) {
            Some(Ok(byte)) => {
                text.push(char::from(byte));
                text.push_str(&part[2..]);
            }
            _ => text.push_str(part),
        }
    }
    text
}

#[test]
fn fuzz_head() {
    FUZZ.feed("head", |input| {
        let request = request(input)?;
        let is_address = host::is_address(&request);
        let hosts = || request.headers().get_all(header::HOST).iter();
        if is_address {
            let named = request.uri().host();
            let named = named.or_else(|| hosts().next().map(|host| host.to_str().unwrap()));
            match named {
                Some(named) => assert!(has_address(named), "a name passes for an address"),
                None => assert_eq!(request.version(), Version::HTTP_10),
            }
            assert!(hosts().count() <= 1, "one of two hosts was believed");
        }
        let is_credentials = target::is_credentials(&request);
        if is_credentials {
            let path = unescaped(request.uri().path());
            assert!(
                path.contains("v1") && path.contains("credentials"),
                "{path}"
            );
        }
        let route = target::route(&request);
        let format = Format::wanted_by(&request);
        let token = request.headers().get(header::AUTHORIZATION);
        let token = token.map(|token| Claims::could_be_in(token.as_bytes()).is_ok());
        let is_proxied = route == Route::Proxy;
        Some((
            is_address,
            is_credentials,
            is_proxied,
            format == Format::Json,
            token,
        ))
    });
}
