//! What stands between the agent and a stand-in: a proxy, TLS, or both, as slow as a test wants.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::sleep,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// A proxy that opens a tunnel to one server, whatever it is asked for. It stops when it is
/// dropped.
pub struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _stop: oneshot::Sender<()>,
}

impl Proxy {
    /// Leads to `server`, and takes that long to say so.
    pub fn start(server: SocketAddr, delay: Duration) -> Self {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let notes = Arc::clone(&asked);
        let (address, stop) = serve(move |mut client| {
            let notes = Arc::clone(&notes);
            async move {
                let head = read_head(&mut client).await?;
                let line = head.lines().next().unwrap_or_default().to_owned();
                note(&notes, line);
                sleep(delay).await;
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                pass_on(client, server).await
            }
        });
        Self {
            address,
            asked,
            _stop: stop,
        }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first lines of what it was asked for.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

fn note(notes: &Mutex<Vec<String>>, line: String) {
    let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    notes.push(line);
}

/// TLS in front of a server, with a certificate of an authority of its own. It stops when it is
/// dropped.
pub struct Tls {
    address: SocketAddr,
    folder: TempDir,
    _stop: oneshot::Sender<()>,
}

impl Tls {
    /// Is `name` to its clients, and leads to `server`. Each handshake takes that much longer.
    ///
    /// # Panics
    ///
    /// When openssl makes no certificate.
    pub fn start(name: &str, server: SocketAddr, delay: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a folder for certificates");
        let config = server_config(folder.path(), name);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (address, stop) = serve(move |client| {
            let acceptor = acceptor.clone();
            async move {
                sleep(delay).await;
                pass_on(acceptor.accept(client).await?, server).await
            }
        });
        Self {
            address,
            folder,
            _stop: stop,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The authority's certificate.
    pub fn bundle(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }
}

fn server_config(folder: &Path, name: &str) -> ServerConfig {
    let curve = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.current_dir(folder).args(arguments);
        let output = command.output().expect("openssl");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl: {said}");
    };
    let request = |more: &[&str]| openssl(&[&["req"], &curve[..], more].concat());
    request(&[
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=authority",
        "-keyout",
        "authority.key",
        "-out",
        "authority.pem",
    ]);
    let subject = format!("/CN={name}");
    request(&[
        "-subj",
        &subject,
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    ]);
    let mut names = fs::File::create(folder.join("names")).expect("a file for names");
    write!(names, "subjectAltName=DNS:{name}").expect("the server's name");
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "server.csr",
        "-CA",
        "authority.pem",
        "-CAkey",
        "authority.key",
        "-CAcreateserial",
        "-extfile",
        "names",
        "-out",
        "server.pem",
    ]);
    let certificate = CertificateDer::from_pem_file(folder.join("server.pem"));
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key"));
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.expect("the server's certificate")],
            key.expect("the server's key"),
        )
        .expect("a certificate that fits its key")
}

/// Serves connections on a thread of its own, until the sender is dropped.
fn serve<F>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> (SocketAddr, oneshot::Sender<()>)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener
        .set_nonblocking(true)
        .expect("a non-blocking listener");
    let address = listener.local_addr().expect("the listener's address");
    let (stop, stopped) = oneshot::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a tokio listener");
            let accept = async {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(handle(client));
                }
            };
            tokio::select! {
                () = accept => {}
                _ = stopped => {}
            }
        });
    });
    (address, stop)
}

async fn read_head(client: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    String::from_utf8(head).map_err(io::Error::other)
}

async fn pass_on(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    server: SocketAddr,
) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
