//! The guard against DNS rebinding.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::{HeaderValue, Request, Version, header};

/// Whether a request names the agent by an address, as every SDK does.
///
/// A web page can have its own name resolve to our address and then read what a browser in the pod
/// fetches from there; the browser still sends that name. Only HTTP/1.0 may leave the name out.
pub(super) fn is_address<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let header_fits = match (hosts.next(), hosts.next()) {
        (Some(host), None) => names_address(host),
        (None, _) => request.version() == Version::HTTP_10,
        (Some(_), Some(_)) => false,
    };
    // What a client writes to a proxy: GET http://HOST/PATH.
    let uri_fits = request.uri().host().is_none_or(is_literal);
    header_fits && uri_fits
}

fn names_address(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else {
        return false;
    };
    let (host, port) = match host.strip_prefix('[') {
        // The colons of an IPv6 address are inside the brackets.
        Some(rest) => match rest.split_once(']') {
            Some((_, port)) => (&host[..host.len() - port.len()], port),
            None => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port_fits = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok());
    port_fits && is_literal(host)
}

/// `1.2.3.4` or `[::1]`.
fn is_literal(host: &str) -> bool {
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_host(host: &str) -> bool {
        let request = Request::get("/v1/credentials").header(header::HOST, host);
        is_address(&request.body(()).unwrap())
    }

    #[test]
    fn addresses_pass() {
        for host in [
            "169.254.170.23",
            "169.254.170.23:80",
            "127.0.0.1:8080",
            "[fd00:ec2::23]",
            "[fd00:ec2::23]:80",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(with_host(host), "{host}");
        }
    }

    #[test]
    fn names_do_not() {
        for host in [
            "",
            ":80",
            "localhost",
            "evil.example",
            "169.254.170.23.evil.example",
            "169.254.170.23:",
            "169.254.170.23:80:80",
            "169.254.170.23:http",
            "fd00:ec2::23",
            "[fd00:ec2::23",
            "[fd00:ec2::23]evil.example",
            "[169.254.170.23]",
            "0xa9feaa17",
            "169.254.170.23 ",
            "user@169.254.170.23",
        ] {
            assert!(!with_host(host), "{host:?}");
        }
    }

    #[test]
    fn only_http_1_0_may_name_nobody() {
        let mut request = Request::get("/v1/credentials").body(()).unwrap();
        assert!(!is_address(&request));
        *request.version_mut() = Version::HTTP_10;
        assert!(is_address(&request));
    }

    #[test]
    fn two_names_are_one_too_many() {
        let request = Request::get("/v1/credentials")
            .header(header::HOST, "169.254.170.23")
            .header(header::HOST, "169.254.170.23");
        assert!(!is_address(&request.body(()).unwrap()));
    }

    #[test]
    fn a_name_in_the_request_line_counts_too() {
        for (uri, fits) in [
            ("http://169.254.170.23/v1/credentials", true),
            ("http://[fd00:ec2::23]:80/v1/credentials", true),
            ("http://evil.example/v1/credentials", false),
        ] {
            let request = Request::get(uri).header(header::HOST, "169.254.170.23");
            assert_eq!(is_address(&request.body(()).unwrap()), fits, "{uri}");
        }
    }
}
