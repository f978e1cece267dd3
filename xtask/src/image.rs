//! `cargo xtask image`: static agents, a list of what they are built from, and an archive of both.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    architecture::Architecture,
    run::{output, run, step},
    setup, tasks,
    workspace::{self, built, cargo},
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What `cargo cyclonedx` calls its lists. It leaves one beside the manifest of each member of the
/// workspace.
const SBOM: &str = "podcreds.cdx.json";

#[derive(Args)]
pub(crate) struct Options {
    /// For this architecture only; may be given more than once
    #[arg(long = "arch", value_enum, value_name = "ARCH")]
    architectures: Vec<Architecture>,

    /// The image's name and tag
    #[arg(long, default_value = concat!("podcreds:", env!("CARGO_PKG_VERSION")), value_name = "NAME:TAG")]
    reference: String,

    /// Where to write the archive; by default into target/image
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn image(options: Options) -> Result<()> {
    let Options {
        mut architectures,
        reference,
        output,
    } = options;
    if architectures.is_empty() {
        architectures.extend(Architecture::ALL);
    }
    architectures.dedup();
    setup::for_image(&architectures)?;
    tasks::build_static(tasks::AGENT, &architectures, true)?;
    let archive = output.unwrap_or_else(|| default_output(&architectures));
    let sbom = archive.with_extension("cdx.json");
    step("Listing what it is built from", || list_parts(&sbom))?;
    write(&architectures, true, &reference, Some(&sbom), &archive)
}

/// The same for this machine alone, with an agent that is not optimised and without a list of its
/// parts.
pub(crate) fn for_tests(reference: &str, archive: &Path) -> Result<()> {
    let here = [Architecture::here()?];
    setup::for_static_build(&here)?;
    tasks::build_static(tasks::AGENT, &here, false)?;
    write(&here, false, reference, None, archive)
}

fn write(
    architectures: &[Architecture],
    release: bool,
    reference: &str,
    sbom: Option<&Path>,
    archive: &Path,
) -> Result<()> {
    tasks::build_programs(&["image"], false)?;
    let mut image = built("image", false)?;
    for architecture in architectures {
        let agent = architecture.agent(release)?;
        image
            .arg("--agent")
            .arg(format!("{}={}", architecture.name(), agent.display()));
    }
    if let Some(sbom) = sbom {
        image.arg("--sbom").arg(sbom);
    }
    image.arg("--reference").arg(reference);
    image.arg("--revision").arg(revision());
    image.arg("--created").arg(created());
    image.arg("--output").arg(archive);
    step("Writing the image", || run(&mut image))
}

fn default_output(architectures: &[Architecture]) -> PathBuf {
    let only = match architectures {
        [one] => format!("-{}", one.name()),
        _ => String::new(),
    };
    workspace::root().join(format!("target/image/podcreds-{VERSION}{only}.tar"))
}

/// Lists what the agent is built from, as CycloneDX.
fn list_parts(to: &Path) -> Result<()> {
    let folder = to.parent().context("the archive has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    run(cargo()
        // Without a time and a random number, so that the same parts give the same list.
        .env("SOURCE_DATE_EPOCH", created())
        .args(["cyclonedx", "--quiet", "--format", "json"])
        .args(["--manifest-path", "agent/Cargo.toml"])
        .args(["--target", Architecture::Amd64.target()])
        .args(["--override-filename", SBOM.trim_end_matches(".json")]))?;
    let list = workspace::root().join("agent").join(SBOM);
    let parts = fs::read_to_string(&list)
        .with_context(|| format!("cannot read {}", list.display()))?
        // Parts of our own are named by their paths.
        .replace(&workspace::root().display().to_string(), "");
    fs::write(to, parts).with_context(|| format!("cannot write {}", to.display()))?;
    for member in workspace::members()? {
        let list = member.join(SBOM);
        fs::remove_file(&list).with_context(|| format!("cannot remove {}", list.display()))?;
    }
    Ok(())
}

fn revision() -> String {
    env::var("PODCREDS_REVISION")
        .ok()
        .or_else(|| git(&["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// When what is built was committed, in seconds since 1970. Where nobody knows, 1970.
fn created() -> String {
    env::var("SOURCE_DATE_EPOCH")
        .ok()
        .or_else(|| git(&["log", "-1", "--format=%ct"]))
        .unwrap_or_else(|| "0".to_owned())
}

fn git(arguments: &[&str]) -> Option<String> {
    output(
        Command::new("git")
            .current_dir(workspace::root())
            .args(arguments),
    )
}
