//! A node, an agent on it, and an AWS account around them.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use super::Show;
use crate::{
    agent::Agent,
    aws::REGION,
    binary,
    eks::Eks,
    eks_auth::EksAuth,
    http::client::{self, Answer},
    moto::Moto,
    node::Node,
    pod::{Client, Pod},
    sdk,
    wait::until,
};

/// The bucket of the story.
pub(super) const BUCKET: &str = "holiday";
/// The namespace of its pods.
pub(super) const NAMESPACE: &str = "shop";

/// What the pods run.
const APPLICATION: &str = include_str!("application.py");
/// Where it serves its page.
const PORT: u16 = 8080;
/// An address of the node, at which all pods reach IAM, STS and S3.
const AWS: Ipv4Addr = Ipv4Addr::new(10, 23, 0, 1);
/// How long a page may take: the SDK asks thrice for credentials, a second apart.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a visitor tries where the application was too slow for itself.
const VISITS: usize = 5;

/// All that there is, in the order in which it ends.
pub(super) struct Scene<'a> {
    _agent: Agent,
    _eks_auth: EksAuth,
    eks: Eks,
    moto: Moto,
    node: Node,
    folder: TempDir,
    show: Show<'a>,
}

impl<'a> Scene<'a> {
    /// Starts it.
    pub(super) fn start(show: Show<'a>) -> Self {
        let node = Node::with_network();
        if let Some(network) = node.network() {
            network.ip(&format!("address add {AWS}/32 dev lo"));
        }
        show("==> Starting moto's server: IAM, STS and S3, which allow what policies allow");
        let moto = Moto::start(&node, IpAddr::V4(AWS));
        show(
            "==> Starting the stand-ins for EKS and EKS Auth, and podcreds with its eBPF programs",
        );
        let (eks_auth, eks) = node.enter(|| {
            let eks_auth = EksAuth::start();
            let eks = Eks::beside(&eks_auth);
            (eks_auth, eks)
        });
        eks_auth.take_credentials_from(moto.sts());
        eks.accept_signer(moto.operator());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let agent = Agent::on(&node, &eks_auth);
        let agent = agent.set("--handover-dir", &folder.path().display().to_string());
        Self {
            _agent: agent.start(),
            _eks_auth: eks_auth,
            eks,
            moto,
            node,
            folder,
            show,
        }
    }

    /// Says something.
    pub(super) fn show(&self, line: &str) {
        (self.show)(line);
    }

    /// Writes a file that commands of [`aws`](Self::aws) can name.
    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("a folder");
        fs::write(path, text).expect("a file for the AWS CLI");
    }

    /// Runs the AWS CLI as the operator, on the node's network, and returns what it prints.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub(super) fn aws(&self, arguments: &str) -> String {
        self.show(&format!("$ aws {arguments}"));
        let keys = self.moto.operator();
        let mut command = self.node.join().command(sdk::venv().join("bin/aws"));
        let output = sdk::remove_settings(&mut command)
            .args(arguments.split_whitespace())
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("AWS_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", keys.access_key_id())
            .env("AWS_SECRET_ACCESS_KEY", keys.secret_access_key())
            .env("AWS_ENDPOINT_URL", self.moto.url())
            .env("AWS_ENDPOINT_URL_EKS", self.eks.url())
            .output()
            .expect("the AWS CLI");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "aws {arguments}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Has the agent fetch a service account's credentials again, and shows what it says.
    ///
    /// # Panics
    ///
    /// When it does not succeed, or fail, as expected.
    pub(super) fn refresh(&self, account: &str, succeeds: bool) {
        self.show(&format!("$ podcreds refresh {NAMESPACE}/{account}"));
        let mut command = Command::new(binary::podcreds());
        command.args(["refresh", &format!("{NAMESPACE}/{account}"), "--admin-dir"]);
        let output = command.arg(self.folder.path()).output();
        let output = output.expect("podcreds refresh");
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            self.show(line);
        }
        let code = output.status.code();
        assert_eq!(code, Some(i32::from(!succeeds)), "{output:?}");
    }

    /// Starts the application in a pod of this service account, and waits until the page is
    /// there and the agent has credentials for the pod.
    pub(super) fn application(&self, account: &str) -> Application {
        let name = format!("{account}-0");
        let pod = self.node.pod(&name).account(NAMESPACE, account).start();
        until(&format!("{name} has credentials"), || {
            pod.run(["get", "--timeout-ms", "2000"])["status"] == 200
        });
        let mut command = pod.command(sdk::venv().join("bin/python"));
        command
            .args(["-c", APPLICATION])
            .env("BUCKET", BUCKET)
            .env("AWS_ENDPOINT_URL", self.moto.url());
        let mut process = Client::spawn(command);
        assert_eq!(process.line(), "serving");
        Application {
            address: (pod.address(), PORT).into(),
            _process: process,
            pod,
        }
    }

    /// Opens the page of an application, from the node.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub(super) fn visit(&self, application: &Application) -> Answer {
        let mut page = self.visit_once(application.address);
        // boto3 gives an answer two seconds, which a busy machine may not have for it.
        for _ in 1..VISITS {
            if page.status != 503 || !page.body.contains("timeout") {
                break;
            }
            page = self.visit_once(application.address);
        }
        page
    }

    fn visit_once(&self, address: SocketAddr) -> Answer {
        self.show(&format!("$ curl http://{address}/"));
        let get = || client::get_within(address, "/", PATIENCE);
        let page = self.node.enter(get).expect("a page of the application");
        for line in page.body.lines() {
            self.show(line);
        }
        page
    }
}

/// An application that runs in a pod.
pub(super) struct Application {
    address: SocketAddr,
    _process: Client,
    pod: Pod,
}

impl Application {
    /// The name of its pod.
    pub(super) fn name(&self) -> &str {
        self.pod.name()
    }
}
