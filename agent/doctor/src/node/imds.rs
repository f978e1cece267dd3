//! The instance's metadata, and whether its answers come this far.

use std::{env, time::Duration};

use http::Uri;
use podcreds_local::parse_answer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::report::Finding;

const NAME: &str = "imds";
const DEFAULT: &str = "http://169.254.169.254";
const CONNECT: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(3);

/// What became of a request for a token.
#[derive(Debug, PartialEq, Eq)]
enum TokenAnswer {
    Disabled,
    Answer {
        status: u16,
        took: Duration,
    },
    /// There was a connection, and no answer.
    Silent,
    NoConnection(String),
}

pub(super) async fn check() -> Finding {
    let is_disabled = env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|it| it == "true");
    let endpoint = env::var("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_default();
    let endpoint = match endpoint.is_empty() {
        true => DEFAULT.to_owned(),
        false => endpoint,
    };
    let seen = match is_disabled {
        true => TokenAnswer::Disabled,
        false => ask(&endpoint).await,
    };
    judge(&endpoint, &seen)
}

/// Asks for a token of version 2, and keeps nothing of it.
async fn ask(endpoint: &str) -> TokenAnswer {
    let uri = endpoint.parse::<Uri>().unwrap_or_default();
    let Some(host) = uri.host() else {
        return TokenAnswer::NoConnection("this is no URL".to_owned());
    };
    let port = uri.port_u16().unwrap_or(80);
    let address = (host.trim_matches(['[', ']']), port);
    let started = Instant::now();
    let mut stream = match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return TokenAnswer::NoConnection(error.to_string()),
        Err(_) => return TokenAnswer::NoConnection(format!("no connection within {CONNECT:?}")),
    };
    let request = format!(
        "PUT /latest/api/token HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\
         X-aws-ec2-metadata-token-ttl-seconds: 60\r\nConnection: close\r\n\r\n"
    );
    let mut head = [0; 12];
    let exchange = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_exact(&mut head).await
    };
    match timeout(ANSWER, exchange).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return TokenAnswer::NoConnection(error.to_string()),
        Err(_) => return TokenAnswer::Silent,
    }
    match parse_answer(&head) {
        Some((status, _)) => TokenAnswer::Answer {
            status,
            took: started.elapsed(),
        },
        None => TokenAnswer::NoConnection("what answers there is no HTTP server".to_owned()),
    }
}

fn judge(endpoint: &str, seen: &TokenAnswer) -> Finding {
    const ELSEWHERE: &str = "on EC2, let the instance's metadata be reached; elsewhere give the \
                             agent AWS_REGION and credentials, and set AWS_EC2_METADATA_DISABLED=true";
    match seen {
        TokenAnswer::Disabled => Finding::pass(NAME, "not used (AWS_EC2_METADATA_DISABLED)"),
        TokenAnswer::Answer { status: 200, took } => Finding::pass(
            NAME,
            format!("{endpoint} answers (IMDSv2) in {} ms", took.as_millis()),
        ),
        TokenAnswer::Answer { status, .. } => Finding::warn(
            NAME,
            format!("{endpoint} answers {status} to a request for a token (IMDSv2)"),
            "switch the instance's metadata on: aws ec2 modify-instance-metadata-options \
             --http-endpoint enabled",
        ),
        TokenAnswer::Silent => Finding::warn(
            NAME,
            format!(
                "{endpoint} takes the connection and does not answer: the hop limit is too low"
            ),
            "run the agent in the host's network (hostNetwork), or raise the limit: aws ec2 \
             modify-instance-metadata-options --http-put-response-hop-limit 2",
        ),
        TokenAnswer::NoConnection(why) => Finding::warn(
            NAME,
            format!("{endpoint} is not reachable: {why}"),
            ELSEWHERE,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    #[test]
    fn a_hop_limit_is_told_from_no_metadata_at_all() {
        let took = Duration::from_millis(2);
        let well = judge(DEFAULT, &TokenAnswer::Answer { status: 200, took });
        assert_eq!(well.status, Status::Pass);
        let remedy = |seen: &TokenAnswer| judge(DEFAULT, seen).remedy.unwrap();
        assert!(remedy(&TokenAnswer::Silent).contains("hop-limit 2"));
        assert!(remedy(&TokenAnswer::Answer { status: 403, took }).contains("http-endpoint"));
        assert!(remedy(&TokenAnswer::NoConnection("no".into())).contains("AWS_REGION"));
    }
}
