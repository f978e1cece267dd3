//! The other end of a command: an API server that speaks the protocol of `kubectl exec`.

use futures_util::{SinkExt, StreamExt};
use kube::Config;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        http::HeaderValue,
    },
};

use super::*;

/// Channels of the protocol.
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// Longer than any of these tests takes.
const LONG: Duration = Duration::from_secs(60);

/// How the command goes.
struct Told {
    output: String,
    errors: &'static str,
    status: Value,
}

fn success() -> Value {
    json!({ "status": "Success" })
}

fn failure() -> Value {
    json!({ "status": "Failure", "message": "command terminated with exit code 1" })
}

/// Runs a command against a server that answers so; and what the server was asked.
async fn ask(told: Told) -> (Result<Answer, ExecError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&listener);
    let (asked, path) = oneshot::channel();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream, told, asked).await;
    });
    let answer = exec(&client, ("kube-system", "agent-1"), &["status"], LONG).await;
    server.await.unwrap();
    (answer, path.await.unwrap())
}

fn client(listener: &TcpListener) -> Client {
    let url = format!("http://{}", listener.local_addr().unwrap());
    Client::try_from(Config::new(url.parse().unwrap())).unwrap()
}

async fn serve(stream: TcpStream, told: Told, asked: oneshot::Sender<String>) {
    let mut path = String::new();
    #[expect(clippy::result_large_err, reason = "the library's own type")]
    let answer = |request: &Request, mut response: Response| {
        path = request.uri().to_string();
        let protocol = HeaderValue::from_static("v5.channel.k8s.io");
        let headers = response.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", protocol);
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, answer).await.unwrap();
    asked.send(path).unwrap();
    let Told {
        output,
        errors,
        status,
    } = told;
    for (channel, bytes) in [
        (STDOUT, output.into_bytes()),
        (STDERR, errors.as_bytes().to_vec()),
        (STATUS, status.to_string().into_bytes()),
    ] {
        if !bytes.is_empty() {
            let frame = [vec![channel], bytes].concat();
            socket.send(Message::binary(frame)).await.unwrap();
        }
    }
    socket.close(None).await.unwrap();
    // Until the client has closed its side too.
    while let Some(Ok(_)) = socket.next().await {}
}

#[tokio::test]
async fn what_a_command_prints_is_returned_whatever_its_length() {
    let output = "x".repeat(300_000);
    let told = Told {
        output: output.clone(),
        errors: "a warning\n",
        status: success(),
    };
    let (answer, path) = ask(told).await;
    let answer = answer.unwrap();
    assert!(answer.has_succeeded);
    assert_eq!(answer.said.len(), output.len());
    for piece in [
        "/api/v1/namespaces/kube-system/pods/agent-1/exec?",
        "container=agent",
        "command=%2Fpodcreds&command=status",
    ] {
        assert!(path.contains(piece), "{piece} {path}");
    }
}

#[tokio::test]
async fn a_failure_with_output_is_an_answer_and_one_without_is_none() {
    let told = |output: &str| Told {
        output: output.to_owned(),
        errors: "podcreds: no agent answers\n",
        status: failure(),
    };
    let (answer, _) = ask(told("{}")).await;
    let answer = answer.unwrap();
    assert_eq!((answer.said.as_str(), answer.has_succeeded), ("{}", false));
    let (answer, _) = ask(told("")).await;
    let why = ExecError::Failed("podcreds: no agent answers".to_owned());
    assert_eq!(answer, Err(why));
}

#[tokio::test]
async fn an_agent_that_says_nothing_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&listener);
    let limit = Duration::from_millis(50);
    let answer = exec(&client, ("kube-system", "agent-1"), &["status"], limit).await;
    assert_eq!(answer, Err(ExecError::Late(limit)));
}

#[tokio::test]
async fn a_command_that_may_not_be_run_is_told_from_one_that_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&listener);
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // An answer that comes before the request is none.
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut request).await.unwrap();
        }
        let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let answer = exec(&client, ("kube-system", "agent-1"), &["status"], LONG).await;
    server.await.unwrap();
    let why = "the API server answers 403".to_owned();
    assert_eq!(answer, Err(ExecError::Denied(why)));
}
