//! The guard against DNS rebinding.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::{HeaderValue, Request, Version, header};

/// Whether a request names the agent by an address, as every SDK does.
///
/// A web page can have its own name resolve to our address and then read what a browser in the pod
/// fetches from there; the browser still sends that name. So what matters is that no name is there:
/// an address may be written in any way. Only HTTP/1.0 may leave it out.
pub(super) fn is_address<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return false;
    }
    // What a client writes to a proxy, GET http://HOST/PATH, wins over the header (RFC 9112,
    // 3.2.2). No browser writes that to a server.
    match (request.uri().host(), host) {
        (Some(host), _) => names_address(host),
        (None, Some(host)) => HeaderValue::to_str(host).is_ok_and(names_address),
        (None, None) => request.version() == Version::HTTP_10,
    }
}

/// `1.2.3.4`, `::1` or `[::1]`; behind the first and the last of them there may be `:` and a port,
/// on which nothing depends.
fn names_address(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, port)| {
            is_port(port) && (is_ipv6(address) || is_ipv4(address))
        });
    }
    // The AWS CRT (C++ SDK, Mountpoint for S3) leaves the brackets out.
    if is_ipv6(host) {
        return true;
    }
    let (address, port) = host.split_at(host.find(':').unwrap_or(host.len()));
    is_ipv4(address) && is_port(port)
}

/// Nothing, or a colon and whatever has none.
fn is_port(text: &str) -> bool {
    text.is_empty()
        || text
            .strip_prefix(':')
            .is_some_and(|port| !port.contains(':'))
}

fn is_ipv4(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok()
}

/// With or without a zone, such as `fe80::1%eth0`.
fn is_ipv6(text: &str) -> bool {
    let (address, _zone) = text.split_at(text.find('%').unwrap_or(text.len()));
    address.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_host(host: &str) -> bool {
        let request = Request::get("/v1/credentials").header(header::HOST, host);
        is_address(&request.body(()).unwrap())
    }

    #[test]
    fn a_host_that_is_an_address_is_accepted() {
        for host in [
            "169.254.170.23",
            "169.254.170.23:80",
            "169.254.170.23:",
            "169.254.170.23:http",
            "127.0.0.1:8080",
            "[169.254.170.23]",
            "[169.254.170.23]:80",
            "[fd00:ec2::23]",
            "[fd00:ec2::23]:80",
            "[::ffff:127.0.0.1]",
            "fd00:ec2::23",
            "FD00:EC2:0::23",
            "fd00:ec2::23:80",
            "fd00:ec2::23%eth0",
            "[fe80::1%25eth0]:80",
        ] {
            assert!(with_host(host), "{host}");
        }
    }

    #[test]
    fn a_host_that_is_no_address_is_refused() {
        for host in [
            "",
            ":80",
            "::80:evil.example",
            "localhost",
            "evil.example",
            "169.254.170.23.evil.example",
            "169.254.170.23%eth0",
            "169.254.170.23:80:80",
            "[fd00:ec2::23",
            "[fd00:ec2::23]evil.example",
            "[fd00:ec2::23]:80:80",
            "fd00:ec2::23.evil.example",
            "[evil.example]",
            "evil.example%fd00:ec2::23",
            "0xa9feaa17",
            "169.254.170.23 ",
            "user@169.254.170.23",
            "user@fd00:ec2::23",
        ] {
            assert!(!with_host(host), "{host:?}");
        }
    }

    #[test]
    fn only_http_1_0_needs_no_host() {
        let mut request = Request::get("/v1/credentials").body(()).unwrap();
        assert!(!is_address(&request));
        *request.version_mut() = Version::HTTP_10;
        assert!(is_address(&request));
    }

    #[test]
    fn a_request_with_two_hosts_is_refused() {
        for target in ["/v1/credentials", "http://169.254.170.23/v1/credentials"] {
            let request = Request::get(target)
                .header(header::HOST, "169.254.170.23")
                .header(header::HOST, "169.254.170.23");
            assert!(!is_address(&request.body(()).unwrap()), "{target}");
        }
    }

    #[test]
    fn a_name_in_the_request_line_counts_and_the_header_does_not() {
        for (uri, fits) in [
            ("http://169.254.170.23/v1/credentials", true),
            ("http://[fd00:ec2::23]:80/v1/credentials", true),
            ("http://user:word@169.254.170.23/v1/credentials", true),
            ("http://evil.example/v1/credentials", false),
            ("http://169.254.170.23@evil.example/v1/credentials", false),
        ] {
            for host in ["169.254.170.23", "evil.example"] {
                let request = Request::get(uri).header(header::HOST, host);
                let request = request.body(()).unwrap();
                assert_eq!(is_address(&request), fits, "{uri}, {host}");
            }
        }
    }
}
