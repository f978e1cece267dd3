//! The program behind `cargo xtask image`: reads the command line, writes the archive, and says how
//! big it is.

use std::{path::PathBuf, str::FromStr};

use anyhow::{Context as _, Result};
use clap::Parser;
use podcreds_image::{Architecture, Contents, Description, build};

/// Writes a container image of podcreds as an OCI archive.
#[derive(Parser)]
#[command(name = "image")]
struct Cli {
    /// A statically linked agent and its architecture; once for each architecture of the image
    #[arg(long = "agent", value_name = "ARCH=FILE", required = true)]
    agents: Vec<Agent>,

    /// What the agent is built from, as CycloneDX
    #[arg(long, value_name = "FILE")]
    sbom: Option<PathBuf>,

    /// The image's name and tag
    #[arg(long, value_name = "NAME:TAG")]
    reference: String,

    /// The commit that the agent is built from
    #[arg(long, value_name = "COMMIT")]
    revision: String,

    /// When that was committed
    #[arg(long, value_name = "SECONDS")]
    created: i64,

    /// Where to write the archive
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Clone)]
struct Agent(Architecture, PathBuf);

impl FromStr for Agent {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (architecture, path) = text.split_once('=').context("there is no = in it")?;
        Ok(Self(architecture.parse()?, path.into()))
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let contents = Contents {
        agents: cli
            .agents
            .into_iter()
            .map(|Agent(architecture, path)| (architecture, path))
            .collect(),
        sbom: cli.sbom,
    };
    let description = Description {
        reference: cli.reference,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: cli.revision,
        created: cli.created,
    };
    let archive = build(&contents, &description)?;
    archive.write(&cli.output)?;
    println!("{}", cli.output.display());
    println!("{} {}", description.reference, archive.digest());
    for (architecture, bytes) in archive.sizes() {
        println!("{architecture}: {:.1} MB to pull", megabytes(bytes));
    }
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "it is rounded to a tenth of a megabyte"
)]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
