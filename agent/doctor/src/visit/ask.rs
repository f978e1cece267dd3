//! A request for credentials, as an SDK sends it, from where the calling process is.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use nix::{
    ifaddrs::{InterfaceAddress, getifaddrs},
    net::if_::InterfaceFlags,
};
use podcreds_local::{exchange, parse_answer};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Asked, Secret};
use crate::{sockets::peer_of, words::without};

/// What an SDK waits for.
const CONNECT: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(3);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// An answer has 2 KiB.
const MAX_ANSWER: usize = 64 * 1024;
/// How much of a reason is shown.
const MAX_REASON: usize = 400;

/// Asks until there is an answer that another try would not change, for `patience` milliseconds.
pub(super) fn ask(address: SocketAddr, token: Option<&Secret>, patience: u64) -> Asked {
    let deadline = Instant::now() + Duration::from_millis(patience);
    loop {
        let started = Instant::now();
        let mut asked = once(address, token).unwrap_or_else(|error| Asked {
            error: Some(error.to_string()),
            ..Asked::default()
        });
        asked.has_loopback = has_loopback();
        asked.took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let is_final = asked.status.is_some_and(|status| status != 503);
        if is_final || Instant::now() > deadline {
            return asked;
        }
        thread::sleep(PAUSE);
    }
}

fn once(address: SocketAddr, token: Option<&Secret>) -> io::Result<Asked> {
    let stream = TcpStream::connect_timeout(&address, CONNECT)?;
    let deadline = Instant::now() + ANSWER;
    // The agent's programs have the socket itself say what was asked for.
    let redirected_to = peer_of(stream.local_addr()?).filter(|peer| *peer != address);
    let mut request = Zeroizing::new(format!(
        "GET /v1/credentials HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
        match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        }
    ));
    if let Some(Secret(token)) = token {
        request.push_str("Authorization: ");
        request.push_str(token);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    let mut answer = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
    let read = exchange(
        &stream,
        request.as_bytes(),
        &mut answer,
        MAX_ANSWER,
        deadline,
    );
    let mut asked = match read {
        Ok(()) => understand(&answer, token.map_or("", |Secret(token)| token)),
        Err(error) => Asked {
            error: Some(format!("connected, but without an answer: {error}")),
            ..Asked::default()
        },
    };
    asked.redirected_to = redirected_to;
    Ok(asked)
}

/// In doubt it is up.
fn has_loopback() -> bool {
    let up = |interface: InterfaceAddress| {
        let wanted = InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_UP;
        interface.flags.contains(wanted)
    };
    getifaddrs().map_or(true, |mut interfaces| interfaces.any(up))
}

/// Takes from an answer what is no secret. What answers may repeat the token that it was sent.
fn understand(answer: &[u8], token: &str) -> Asked {
    let Some((status, body)) = parse_answer(answer) else {
        return Asked {
            error: Some("what answers there is no HTTP server".to_owned()),
            ..Asked::default()
        };
    };
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let fit = |text: &str| {
        let start: String = text.trim().chars().take(MAX_REASON).collect();
        without(token, &start)
    };
    let text = |name: &str| json.get(name).and_then(Value::as_str).map(fit);
    let reason = match status {
        200 => String::new(),
        _ => text("message")
            .or_else(|| text("Message"))
            .unwrap_or_else(|| fit(&String::from_utf8_lossy(body))),
    };
    Asked {
        status: Some(status),
        expiration: text("Expiration").filter(|_| status == 200),
        reason,
        ..Asked::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_credentials_gives_nothing_but_their_end() {
        let asked = understand(
            b"HTTP/1.1 200 OK\r\n\r\n{\"SecretAccessKey\":\"s3cret\",\"Expiration\":\"2030-01-01\"}",
            "",
        );
        assert_eq!(asked.status, Some(200));
        assert_eq!(asked.expiration.as_deref(), Some("2030-01-01"));
        assert!(!format!("{asked:?}").contains("s3cret"));
    }

    #[test]
    fn what_repeats_the_token_is_not_passed_on() {
        let token = "eyJhbGciOi.eyJhdWQi.c2lnbmF0dXJl";
        for answer in [
            format!("401 Unauthorized\r\n\r\n{{\"message\":\"got {token}\"}}"),
            format!("401 Unauthorized\r\n\r\n{}", &token[5..]),
            format!("200 OK\r\n\r\n{{\"Expiration\":\"{}\"}}", &token[11..]),
        ] {
            let asked = understand(format!("HTTP/1.1 {answer}").as_bytes(), token);
            let asked = format!("{asked:?}");
            assert!(asked.contains("(token)"), "{asked}");
            assert!(!asked.contains("c2lnb"), "{asked}");
        }
    }

    #[test]
    fn a_refusal_gives_its_reason() {
        let asked = understand(
            b"HTTP/1.1 404 Not Found\r\n\r\n{\"message\":\"no association\"}",
            "",
        );
        assert_eq!(
            (asked.status, &*asked.reason),
            (Some(404), "no association")
        );
        assert!(understand(b"SSH-2.0-x", "").error.is_some());
    }
}
