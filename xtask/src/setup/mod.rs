//! Installs what the other commands need, and nothing that is already there.
//!
//! What is missing is found by asking for it (never by a record of earlier runs), so every function
//! here may be called at any time. What can be private to the checkout goes to `target/tools`;
//! only compilers and their libraries come from the distribution.

mod apt;
mod clients;
pub(crate) mod cross;
mod helm;
mod js;
mod kubernetes;
mod nginx;
mod prometheus;
mod python;
mod rust;

use anyhow::Result;

pub(crate) use apt::find_program;
pub(crate) use nginx::nginx;

use apt::Wanted;

use crate::architecture::Architecture;

/// `unshare`, with which tests make namespaces that are no pod's.
const NAMESPACES: Wanted<'_> = Wanted::command("unshare", "util-linux");
/// `ip`, with which simulated pods bring their network up.
const IPROUTE: Wanted<'_> = Wanted::command("ip", "iproute2");
/// `nft`, with which tests set up the packet filters of service meshes.
const NFTABLES: Wanted<'_> = Wanted::command("nft", "nftables");
/// What virtual machines are made of.
const MACHINES: [Wanted<'_>; 6] = [
    Wanted::command("qemu-system-x86_64", "qemu-system-x86"),
    Wanted::command("cpio", "cpio"),
    Wanted::command("strip", "binutils"),
    Wanted::command("xz", "xz-utils"),
    Wanted::package("ca-certificates"),
    // Without it apt could not tell whether the kernels are the distribution's.
    Wanted::package("debian-archive-keyring"),
];

pub(crate) fn everything() -> Result<()> {
    for_build()?;
    for_lint()?;
    for_demo(true)?;
    for_load(Architecture::here()?)?;
    for_image(&Architecture::ALL)?;
    for_chart()?;
    for_kernels()?;
    // It takes a Go that is newer than most distributions', and nothing else does.
    let cluster = match for_cluster() {
        Ok(()) => " | cluster",
        Err(error) => {
            eprintln!("    {error:#}");
            ""
        }
    };
    eprintln!(
        "Everything is in place: cargo xtask build | test | lint | demo | load | image | chart \
         | kernels{cluster}"
    );
    Ok(())
}

pub(crate) fn for_build() -> Result<()> {
    rust::toolchain()?;
    rust::bpf_linker()
}

pub(crate) fn for_chart() -> Result<()> {
    python::GRAFANA.install()?;
    python::CHART.install()
}

/// For static binaries of these architectures.
pub(crate) fn for_static_build(architectures: &[Architecture]) -> Result<()> {
    for_build()?;
    cross::install(architectures)
}

pub(crate) fn for_image(architectures: &[Architecture]) -> Result<()> {
    for_static_build(architectures)?;
    rust::cargo_cyclonedx()
}

pub(crate) fn for_test() -> Result<()> {
    for_build()?;
    apt::install("simulated pods", &[NAMESPACES, IPROUTE, NFTABLES])?;
    // The tests of what is missing are skipped and say so, or fail in CI.
    for installed in [
        python::CLIENTS.install(),
        python::CRT.install(),
        python::MOTO.install(),
        python::CHART.install(),
        python::GRAFANA.install(),
        prometheus::install(),
        js::install(),
    ] {
        if let Err(error) = installed {
            eprintln!("    {error:#}");
        }
    }
    Ok(())
}

pub(crate) fn for_lint() -> Result<()> {
    for_build()?;
    rust::cargo_deny()
}

/// For the demo, with an S3 or without.
pub(crate) fn for_demo(s3: bool) -> Result<()> {
    for_test()?;
    // Without boto3 and the AWS CLI it would show nothing.
    python::CLIENTS.install()?;
    if s3 {
        python::MOTO.install()?;
    }
    Ok(())
}

pub(crate) fn for_cluster() -> Result<()> {
    for_demo(false)?;
    kubernetes::install()?;
    helm::install()?;
    clients::go()?;
    if let Err(error) = clients::java() {
        // Its test is skipped and says so, or fails in CI.
        eprintln!("    {error:#}");
    }
    Ok(())
}

pub(crate) fn for_load(architecture: Architecture) -> Result<()> {
    for_test()?;
    cross::install(&[architecture])?;
    nginx::install()
}

pub(crate) fn for_kernels() -> Result<()> {
    for_test()?;
    apt::install("virtual machines", &MACHINES)
}
