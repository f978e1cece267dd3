//! The cluster's key set, from the API server or from the issuer.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use futures_util::{TryFutureExt, future::BoxFuture};
use http::{HeaderValue, Request, Uri, header};
use podcreds_keys::{FetchKeys, KeysError};
use zeroize::Zeroizing;

use super::{
    Outbound,
    http::{CertificateError, Client, SendError},
    words::chain,
};

/// Where kubelet puts what a pod needs to speak to the API server.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The longest that the key set may take once there is a connection. Who asks for credentials waits
/// less.
const ANSWER: Duration = Duration::from_secs(10);
/// A token of the API server's has some 1,200 bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// Where a JSON Web Key Set is, and how to prove who asks for it.
#[derive(Clone, Debug)]
pub struct KeyServer {
    /// The `http` or `https` URL of the key set.
    pub url: String,
    /// Certificates in PEM to trust, read again each time. The system's are trusted if there are
    /// none.
    pub ca_file: Option<PathBuf>,
    /// A bearer token to show, read again each time.
    pub token_file: Option<PathBuf>,
}

impl KeyServer {
    /// The API server's, for an agent that runs in a pod. `host` and `port` are what
    /// `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT` say.
    pub fn in_cluster(host: &str, port: &str) -> Self {
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        let file = |name: &str| Some(PathBuf::from(SERVICE_ACCOUNT).join(name));
        Self {
            url: format!("https://{host}:{port}/openid/v1/jwks"),
            ca_file: file("ca.crt"),
            token_file: file("token"),
        }
    }
}

/// Why the key set cannot be fetched. URLs are named without what may be secret in them.
#[derive(Debug, thiserror::Error)]
enum KeyServerError {
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{path}: it is larger than {most} bytes", path = path.display())]
    TooLarge { path: PathBuf, most: usize },
    #[error("{}: it holds no token", .0.display())]
    NoToken(PathBuf),
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    #[error("{url}: {source}")]
    Url { url: String, source: http::Error },
    #[error("{url}: {}", chain(source))]
    NoAnswer { url: String, source: SendError },
    #[error("{url} answers HTTP {status}")]
    Status { url: String, status: u16 },
}

/// Fetches the key set. Clones share the connection that they keep.
#[derive(Clone, Debug)]
pub struct KeyFetcher {
    server: KeyServer,
    outbound: Outbound,
    /// What connected the last time.
    last: Arc<Mutex<Option<LastClient>>>,
}

#[derive(Debug)]
struct LastClient {
    /// What was in the file of certificates then, if there is one.
    trusted: Option<Vec<u8>>,
    client: Client,
}

impl KeyFetcher {
    /// Asks `server`, by way of `outbound`.
    pub fn new(server: KeyServer, outbound: Outbound) -> Self {
        Self {
            server,
            outbound,
            last: Arc::default(),
        }
    }

    async fn get(self) -> Result<Vec<u8>, KeyServerError> {
        let (client, request) = (self.client()?, self.request()?);
        let answer = client.send(request, ANSWER).await;
        let answer = answer.map_err(|source| KeyServerError::NoAnswer {
            url: self.name(),
            source,
        })?;
        let status = answer.status().as_u16();
        if status != 200 {
            let url = self.name();
            return Err(KeyServerError::Status { url, status });
        }
        Ok(answer.body().to_vec())
    }

    /// The client of last time, unless the certificates have changed since.
    fn client(&self) -> Result<Client, KeyServerError> {
        let file = self.server.ca_file.as_deref();
        let content = file
            .map(|path| read(path, 1024 * 1024).map(|content| content.to_vec()))
            .transpose()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*last
            && last.trusted == content
        {
            return Ok(last.client.clone());
        }
        let tls = self.outbound.trusting(file)?;
        let client = self.outbound.client(tls, None);
        *last = Some(LastClient {
            trusted: content,
            client: client.clone(),
        });
        Ok(client)
    }

    fn request(&self) -> Result<Request<SdkBody>, KeyServerError> {
        let mut request = Request::get(&self.server.url).body(SdkBody::empty());
        if let (Ok(request), Some(path)) = (&mut request, &self.server.token_file) {
            let value = bearer(path)?;
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        request.map_err(|source| KeyServerError::Url {
            url: self.name(),
            source,
        })
    }

    /// The URL without what may be secret in it.
    fn name(&self) -> String {
        let uri: Option<Uri> = self.server.url.parse().ok();
        let part = |uri: &Uri| {
            let port = uri.port().map(|port| format!(":{port}"));
            let (scheme, host) = (uri.scheme_str()?, uri.host()?);
            let port = port.unwrap_or_default();
            Some(format!("{scheme}://{host}{port}{}", uri.path()))
        };
        uri.as_ref().and_then(part).unwrap_or_default()
    }
}

impl FetchKeys for KeyFetcher {
    fn fetch(&self) -> BoxFuture<'static, Result<Vec<u8>, KeysError>> {
        Box::pin(self.clone().get().map_err(KeysError::new))
    }
}

/// The token in a file as a header's value, in a buffer that is wiped.
fn bearer(path: &Path) -> Result<HeaderValue, KeyServerError> {
    const SCHEME: &[u8] = b"Bearer ";
    let content = read(path, MAX_TOKEN)?;
    let token = content.trim_ascii();
    let mut value = Zeroizing::new(Vec::with_capacity(SCHEME.len() + token.len()));
    value.extend_from_slice(SCHEME);
    value.extend_from_slice(token);
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value))
        .map_err(|_| KeyServerError::NoToken(path.to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a file holds, if that is not more than `most`, in a buffer that is wiped.
fn read(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, KeyServerError> {
    let failed = |source: io::Error| KeyServerError::File {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    // Large enough from the start: a buffer that grows leaves copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(most.min(size as usize) + 64));
    let mut limited = file.take(most as u64 + 1);
    let read = limited.read_to_end(&mut content);
    match read.map_err(failed)? <= most {
        true => Ok(content),
        false => Err(KeyServerError::TooLarge {
            path: path.to_owned(),
            most,
        }),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Answers one request, and says what it was.
    async fn serve(answer: String) -> (KeyServer, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = KeyServer {
            url: format!("http://{}/openid/v1/jwks", listener.local_addr().unwrap()),
            ca_file: None,
            token_file: None,
        };
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        (server, asked)
    }

    async fn fetch(server: &KeyServer) -> Result<Vec<u8>, KeysError> {
        let outbound = Outbound::direct();
        KeyFetcher::new(server.clone(), outbound).fetch().await
    }

    fn ok(body: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test]
    async fn the_key_set_is_fetched_with_the_token_of_the_moment() {
        let (mut server, asked) = serve(ok(r#"{"keys":[]}"#)).await;
        let file = std::env::temp_dir().join(format!("podcreds-key-server-{}", std::process::id()));
        std::fs::write(&file, "agents-token\n").unwrap();
        server.token_file = Some(file.clone());
        let keys = fetch(&server).await;
        std::fs::remove_file(file).unwrap();
        assert_eq!(keys.unwrap(), br#"{"keys":[]}"#);
        let request = asked.await.unwrap().to_lowercase();
        assert!(request.starts_with("get /openid/v1/jwks http/1.1\r\n"));
        assert!(request.contains("\r\nauthorization: bearer agents-token\r\n"));
    }

    #[tokio::test]
    async fn a_password_in_the_url_is_in_no_error() {
        let (mut server, _asked) = serve("HTTP/1.1 500 Oh\r\n\r\n".to_owned()).await;
        server.url = server.url.replace("http://", "http://user:pass@");
        let error = fetch(&server).await.unwrap_err().to_string();
        assert!(
            error.contains("answers HTTP 500") && !error.contains("pass"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_answer_without_keys_is_an_error_that_says_why() {
        let refused = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_owned();
        let huge = ok(&"x".repeat(64 * 1024 + 1));
        for (answer, reason) in [(refused, "HTTP 403"), (huge, "larger than 65536 bytes")] {
            let (server, _asked) = serve(answer).await;
            let error = fetch(&server).await.unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[tokio::test]
    async fn damaged_certificates_are_an_error_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = KeyServer::in_cluster("127.0.0.1", "1");
        let file = folder.path().join("ca.crt");
        server.ca_file = Some(file.clone());
        let begin = "-----BEGIN CERTIFICATE-----\n";
        let end = "\n-----END CERTIFICATE-----\n";
        for pem in [
            String::new(),
            format!("{begin}!!!{end}"),
            format!("{begin}AAAA{end}"),
            format!("{begin}MIIB"),
        ] {
            std::fs::write(&file, &pem).unwrap();
            let error = fetch(&server).await.unwrap_err().to_string();
            assert!(error.contains("ca.crt: "), "{pem:?}: {error}");
        }
    }

    #[tokio::test]
    async fn missing_files_are_named() {
        let mut server = KeyServer::in_cluster("::1", "443");
        assert_eq!(server.url, "https://[::1]:443/openid/v1/jwks");
        server.ca_file = Some("/does/not/exist.crt".into());
        let error = fetch(&server).await.unwrap_err().to_string();
        assert!(error.contains("/does/not/exist.crt"), "{error}");
    }
}
