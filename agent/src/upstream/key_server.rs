//! The cluster's key set, from the API server or from the issuer.

use std::{path::PathBuf, time::Duration};

use aws_smithy_http_client::{
    Connector,
    tls::{TlsContext, TrustStore},
};
use aws_smithy_runtime_api::client::{
    http::HttpConnector,
    orchestrator::{HttpRequest, HttpResponse},
};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Limited};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{FetchKeys, KeysError, http};

/// Where kubelet puts what a pod needs to speak to the API server.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// A request for credentials may wait for the keys, so not long.
const DEADLINE: Duration = Duration::from_secs(5);
/// Key sets have a few keys of some 400 bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Where a JSON Web Key Set is, and how to prove who asks for it.
#[derive(Clone, Debug)]
pub struct KeyServer {
    /// The `http` or `https` URL of the key set.
    pub url: String,
    /// Certificates in PEM to trust, read anew each time. The system's are trusted if there are
    /// none.
    pub ca_file: Option<PathBuf>,
    /// A bearer token to show, read anew each time.
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

    async fn get(self) -> Result<Vec<u8>, KeysError> {
        let connector = self.connector()?;
        let response = connector
            .call(self.request()?)
            .await
            .map_err(|error| failed(&self.url, &error))?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(KeysError(format!("{} answers HTTP {status}", self.url)));
        }
        self.body(response).await
    }

    fn connector(&self) -> Result<Connector, KeysError> {
        let trust = match &self.ca_file {
            Some(path) => {
                let pem = std::fs::read(path).map_err(|error| failed(path.display(), &error))?;
                check(&pem).map_err(|why| KeysError(format!("{}: {why}", path.display())))?;
                TrustStore::empty().with_pem_certificate(pem)
            }
            None => TrustStore::default(),
        };
        let tls = TlsContext::builder()
            .with_trust_store(trust)
            .build()
            .map_err(|error| failed("the certificates", &error))?;
        Ok(http::connector(&self.url, tls))
    }

    fn request(&self) -> Result<HttpRequest, KeysError> {
        let mut request = HttpRequest::get(&self.url).map_err(|error| failed(&self.url, &error))?;
        if let Some(path) = &self.token_file {
            let token = std::fs::read_to_string(path)
                .map(Zeroizing::new)
                .map_err(|error| failed(path.display(), &error))?;
            request
                .headers_mut()
                .insert("authorization", format!("Bearer {}", token.trim()));
        }
        Ok(request)
    }

    async fn body(&self, response: HttpResponse) -> Result<Vec<u8>, KeysError> {
        let body = Limited::new(response.into_body(), MAX_BYTES);
        match body.collect().await {
            Ok(body) => Ok(body.to_bytes().to_vec()),
            Err(error) => Err(KeysError(format!("{}: {error}", self.url))),
        }
    }
}

impl FetchKeys for KeyServer {
    fn fetch(&self) -> BoxFuture<'static, Result<Vec<u8>, KeysError>> {
        let this = self.clone();
        Box::pin(async move {
            let late = KeysError(format!("{} does not answer", this.url));
            timeout(DEADLINE, this.get()).await.unwrap_or(Err(late))
        })
    }
}

/// Sees that a file holds certificates, and nothing else: the connector panics at what it cannot read.
fn check(pem: &[u8]) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    match roots.is_empty() {
        true => Err("there is no certificate in it".to_owned()),
        false => Ok(()),
    }
}

fn failed(what: impl std::fmt::Display, error: &(dyn std::error::Error + 'static)) -> KeysError {
    KeysError(format!("{what}: {}", super::failure::chain(error)))
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
        let keys = server.fetch().await;
        std::fs::remove_file(file).unwrap();
        assert_eq!(keys.unwrap(), br#"{"keys":[]}"#);
        let request = asked.await.unwrap().to_lowercase();
        assert!(request.starts_with("get /openid/v1/jwks http/1.1\r\n"));
        assert!(request.contains("\r\nauthorization: bearer agents-token\r\n"));
    }

    #[tokio::test]
    async fn what_is_no_key_set_is_an_error_that_says_why() {
        let refused = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_owned();
        let huge = ok(&"x".repeat(MAX_BYTES + 1));
        for (answer, reason) in [(refused, "HTTP 403"), (huge, "length limit exceeded")] {
            let (server, _asked) = serve(answer).await;
            let error = server.fetch().await.unwrap_err().to_string();
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
            let error = server.fetch().await.unwrap_err().to_string();
            assert!(error.contains("ca.crt: "), "{pem:?}: {error}");
        }
    }

    #[tokio::test]
    async fn missing_files_are_named() {
        let mut server = KeyServer::in_cluster("::1", "443");
        assert_eq!(server.url, "https://[::1]:443/openid/v1/jwks");
        server.ca_file = Some("/does/not/exist.crt".into());
        let error = server.fetch().await.unwrap_err().to_string();
        assert!(error.contains("/does/not/exist.crt"), "{error}");
    }
}
