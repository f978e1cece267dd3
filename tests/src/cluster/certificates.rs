//! The cluster's own authority, and what it signs.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::{layout::Layout, network};

/// How long all of it is good for. A cluster lives for hours.
const DAYS: &str = "30";

/// Who gets a certificate, and with which name.
struct Holder {
    name: &'static str,
    subject: &'static str,
    usage: Usage,
}

enum Usage {
    Client,
    /// With the names and addresses by which it is reached.
    Server(String),
}

/// Whose certificates also become kubeconfigs.
pub(super) const USERS: [&str; 4] = ["admin", "controllers", "scheduler", "kubelet"];

fn holders() -> Vec<Holder> {
    let node = format!("IP:127.0.0.1,IP:{}", network::NODE_ADDRESS);
    let api = format!(
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:{},{node}",
        network::API_ADDRESS
    );
    let client = |name, subject| Holder {
        name,
        subject,
        usage: Usage::Client,
    };
    let server = |name, subject, names| Holder {
        name,
        subject,
        usage: Usage::Server(names),
    };
    vec![
        server("apiserver", "/CN=kube-apiserver", api),
        server("kubelet-server", "/CN=system:node:node", node),
        client("apiserver-to-kubelet", "/O=system:masters/CN=apiserver"),
        client("admin", "/O=system:masters/CN=admin"),
        client("controllers", "/CN=system:kube-controller-manager"),
        client("scheduler", "/CN=system:kube-scheduler"),
        client("kubelet", "/O=system:nodes/CN=system:node:node"),
    ]
}

/// Makes all of it again.
///
/// # Errors
///
/// When openssl fails, or a file cannot be written.
pub(super) fn make(layout: &Layout) -> Result<()> {
    let folder = layout.certificates();
    let openssl = |arguments: &str| openssl(&folder, arguments);
    key(&folder, "ca")?;
    openssl(&format!(
        "req -x509 -new -key ca.key -subj /CN=podcreds-tests -days {DAYS} -out ca.crt"
    ))?;
    // Tokens are signed with RSA, as everywhere.
    openssl("genrsa -out tokens.key 2048")?;
    openssl("rsa -in tokens.key -pubout -out tokens.pub")?;
    for holder in holders() {
        sign(&folder, &holder)?;
    }
    for user in USERS {
        let text = kubeconfig(&folder, user);
        let path = layout.kubeconfig(user);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn sign(folder: &Path, holder: &Holder) -> Result<()> {
    let Holder { name, subject, .. } = holder;
    key(folder, name)?;
    let extensions = match &holder.usage {
        Usage::Client => "extendedKeyUsage=clientAuth\n".to_owned(),
        Usage::Server(names) => format!("extendedKeyUsage=serverAuth\nsubjectAltName={names}\n"),
    };
    let file = folder.join(format!("{name}.ext"));
    fs::write(&file, extensions).with_context(|| format!("cannot write {}", file.display()))?;
    openssl(
        folder,
        &format!("req -new -key {name}.key -subj {subject} -out {name}.csr"),
    )?;
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days {DAYS} \
             -extfile {name}.ext -out {name}.crt"
        ),
    )
}

fn key(folder: &Path, name: &str) -> Result<()> {
    openssl(
        folder,
        &format!("ecparam -name prime256v1 -genkey -noout -out {name}.key"),
    )
}

fn openssl(folder: &Path, arguments: &str) -> Result<()> {
    let output = Command::new("openssl")
        .current_dir(folder)
        .args(arguments.split_whitespace())
        .output()
        .context("cannot start openssl")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "openssl {arguments}: {}",
        complaint.trim()
    );
    Ok(())
}

fn kubeconfig(folder: &Path, user: &str) -> String {
    let folder = folder.display();
    let server = network::API_URL;
    format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: test, cluster: {{server: '{server}', certificate-authority: '{folder}/ca.crt'}}}}]
users: [{{name: '{user}', user: {{client-certificate: '{folder}/{user}.crt', client-key: '{folder}/{user}.key'}}}}]
contexts: [{{name: test, context: {{cluster: test, user: '{user}'}}}}]
current-context: test
"
    )
}
