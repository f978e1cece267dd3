//! What a Kubernetes node is made of, for the tests on a real one.
//!
//! Kubernetes and etcd are built from their Go modules into one file. Container runtime, network
//! plugins and busybox are Debian's, unpacked into the checkout: installed in the ordinary way,
//! containerd would start as a service, or take the place of Docker's.

use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::apt::{self, Wanted, find_program};
use crate::{
    run::{output, run, step},
    workspace::{root, tools},
};

/// The release that is built; the modules' versions in `tests/kubernetes/go.mod` go with it.
const VERSION: &str = "v1.34.4";
/// The module that is built.
const MODULE: &str = "tests/kubernetes";
/// What it is built from.
const SOURCES: [&str; 3] = ["main.go", "go.mod", "go.sum"];
/// The oldest minor version of Go 1 that builds it.
const GO: u32 = 24;
/// The names by which the one file is called.
const COMPONENTS: [&str; 6] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kubelet",
];
/// The packages that are unpacked, and a file that each brings.
const PACKAGES: [(&str, &str); 4] = [
    ("containerd", "usr/bin/containerd"),
    ("runc", "usr/sbin/runc"),
    ("containernetworking-plugins", "usr/lib/cni/bridge"),
    ("busybox-static", "bin/busybox"),
];

pub(super) fn install() -> Result<()> {
    apt::install(
        "a Kubernetes node",
        &[
            Wanted::command("nsenter", "util-linux"),
            Wanted::command("nft", "nftables"),
            Wanted::command("openssl", "openssl"),
            Wanted::command("tar", "tar"),
        ],
    )?;
    for (package, file) in PACKAGES {
        if !folder().join(file).exists() {
            step(
                &format!("Unpacking {package} into target/tools/kubernetes"),
                || apt::unpack(package, &folder()),
            )?;
        }
    }
    build()
}

/// Builds Kubernetes, unless these sources have been built already.
fn build() -> Result<()> {
    let mut wanted = VERSION.to_owned();
    for file in SOURCES {
        let path = root().join(MODULE).join(file);
        wanted += &fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
    }
    // Written last, so it is there only when all the rest is.
    let installed = folder().join("built.txt");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    check_go()?;
    step(
        &format!("Building Kubernetes {VERSION} into target/tools/kubernetes (six minutes, once)"),
        || {
            run(Command::new("go")
                .current_dir(root().join(MODULE))
                .env("CGO_ENABLED", "0")
                .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false"])
                .arg(format!("-ldflags={}", linker_flags()))
                .arg("-o")
                .arg(folder().join("bin/kubernetes"))
                .arg("."))?;
            for name in COMPONENTS {
                let link = folder().join("bin").join(name);
                if link.symlink_metadata().is_err() {
                    symlink("kubernetes", &link)
                        .with_context(|| format!("cannot make {}", link.display()))?;
                }
            }
            fs::write(&installed, &wanted)
                .with_context(|| format!("cannot write {}", installed.display()))
        },
    )
}

fn check_go() -> Result<()> {
    ensure!(
        find_program("go").is_some(),
        "a Kubernetes node is built with Go 1.{GO} or newer: https://go.dev/dl has it"
    );
    let version = output(Command::new("go").args(["env", "GOVERSION"])).unwrap_or_default();
    ensure!(
        minor(&version) >= Some(GO),
        "a Kubernetes node is built with Go 1.{GO} or newer, and this is {version}: \
         https://go.dev/dl has a newer one"
    );
    Ok(())
}

/// Leaves out what only debuggers read, and says which version this is: the modules do not.
fn linker_flags() -> String {
    let minor = VERSION.split('.').nth(1).unwrap_or_default();
    let component = "k8s.io/component-base/version";
    format!(
        "-s -w -X {component}.gitVersion={VERSION} -X {component}.gitMajor=1 \
         -X {component}.gitMinor={minor} -X k8s.io/client-go/pkg/version.gitVersion={VERSION}"
    )
}

fn folder() -> PathBuf {
    tools().join("kubernetes")
}

/// The second number in what `go env GOVERSION` prints.
fn minor(version: &str) -> Option<u32> {
    let rest = version.strip_prefix("go1.")?;
    rest.split(|character: char| !character.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_go_is_read() {
        assert_eq!(minor("go1.26.8"), Some(26));
        assert_eq!(minor("go1.24rc1"), Some(24));
        assert_eq!(minor(""), None);
    }

    #[test]
    fn the_modules_are_of_the_release_that_is_named() {
        let manifest = fs::read_to_string(root().join(MODULE).join("go.mod")).unwrap();
        assert!(manifest.contains(&format!("k8s.io/kubernetes {VERSION}\n")));
        let staging = VERSION.replace("v1.", "v0.");
        assert!(manifest.contains(&format!("k8s.io/kubectl => k8s.io/kubectl {staging}\n")));
    }
}
