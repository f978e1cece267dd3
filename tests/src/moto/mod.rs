//! IAM, STS and S3: moto's server, which lets nobody do what IAM does not allow.
//!
//! `cargo xtask setup` installs it into `target/tools`.

use std::{
    fs::{self, File},
    net::{IpAddr, SocketAddr},
};

use aws_credential_types::Credentials;
use serde::Deserialize;
use tempfile::TempDir;

use crate::{
    aws::{ACCOUNT, REGION},
    eks_auth::Sts,
    node::Node,
    pod::Client,
    sdk,
};

/// Starts the server, and makes it know an operator and EKS Auth.
const SERVER: &str = include_str!("server.py");

/// A running server. It ends when this is dropped.
pub struct Moto {
    _process: Client,
    address: SocketAddr,
    operator: Credentials,
    service: Credentials,
    /// Where its log is.
    _folder: TempDir,
}

/// What the server says of itself.
#[derive(Deserialize)]
struct Started {
    port: u16,
    operator: (String, String),
    service: (String, String),
}

/// Whether it is installed.
///
/// # Errors
///
/// What is missing.
pub fn check() -> Result<(), String> {
    if sdk::moto().join("installed.txt").is_file() {
        return Ok(());
    }
    Err("moto is not installed (`cargo xtask setup` does it)".to_owned())
}

impl Moto {
    /// Starts one on the network of `node`, in a cgroup of its own there, which ends it if the
    /// test cannot. It listens on a free port of `address`.
    ///
    /// # Panics
    ///
    /// When it does not start, with what it has logged.
    pub fn start(node: &Node, address: IpAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder for moto");
        let log = folder.path().join("log");
        let cgroup = node.cgroup().join("moto");
        fs::create_dir_all(&cgroup).expect("a cgroup for moto");
        let python = sdk::moto().join("bin/python");
        let mut command = node.join().cgroup(&cgroup).command(python);
        sdk::remove_settings(&mut command)
            .args(["-c", SERVER, &address.to_string(), REGION])
            .env("MOTO_ACCOUNT_ID", ACCOUNT)
            .stderr(File::create(&log).expect("a log for moto"));
        let mut process = Client::spawn(command);
        let line = process.try_line().unwrap_or_default();
        let started: Started = serde_json::from_value(line).unwrap_or_else(|why| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            panic!("moto does not start: {why}\n{said}")
        });
        Self {
            _process: process,
            address: (address, started.port).into(),
            operator: keys(started.operator),
            service: keys(started.service),
            _folder: folder,
        }
    }

    /// Its base URL: `AWS_ENDPOINT_URL` for IAM, STS and S3.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The keys of a user who may do everything.
    pub fn operator(&self) -> Credentials {
        self.operator.clone()
    }

    /// Its STS, called as the service that roles for pods trust.
    pub fn sts(&self) -> Sts {
        Sts::new(&self.url(), self.service.clone())
    }
}

fn keys((id, secret): (String, String)) -> Credentials {
    Credentials::new(id, secret, None, None, "moto")
}
