//! Writes the container image of podcreds: an OCI image layout in one tar archive, as `ctr images
//! import`, skopeo and `docker load` read it.
//!
//! There is nothing in it but what is named here: the agent, the certificate authorities that it
//! trusts, and the list of what it is built from. The same input gives the same bytes, whenever and
//! wherever it runs.

mod archive;
mod certificates;
mod layer;
mod manifest;
mod platform;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

pub use archive::Archive;
pub use platform::Architecture;

use archive::Blobs;
use layer::{Entry, Layer};

/// Where the agent is in the image.
pub const AGENT: &str = "podcreds";
/// Where the AWS SDK and everybody else looks for certificate authorities.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
/// Where scanners look for what a program is built from.
const SBOM: &str = "usr/share/sbom/podcreds.cdx.json";

/// What goes into an image.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The agent, statically linked, for each architecture of the image.
    pub agents: Vec<(Architecture, PathBuf)>,
    /// What it is built from, as CycloneDX. An image for tests does without.
    pub sbom: Option<PathBuf>,
}

/// What an image says of itself.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its name and tag, such as `podcreds:0.1.0`.
    pub reference: String,
    /// The version of the agent.
    pub version: String,
    /// The commit that it is built from.
    pub revision: String,
    /// When that was committed, in seconds since 1970.
    pub created: i64,
}

/// Makes an image.
///
/// # Errors
///
/// When a file cannot be read, or the description makes no sense.
pub fn build(contents: &Contents, description: &Description) -> Result<Archive> {
    let created = manifest::timestamp(description.created)?;
    let mut blobs = Blobs::default();
    let mut shared = vec![
        Entry::directory("root", 0o700),
        Entry::file(CERTIFICATES, 0o644, certificates::bundle()),
    ];
    if let Some(sbom) = &contents.sbom {
        shared.push(Entry::file(SBOM, 0o644, read(sbom)?));
    }
    let shared = Layer::new(&shared)?;
    let mut images = Vec::new();
    for (architecture, agent) in &contents.agents {
        let agent = Layer::new(&[Entry::file(AGENT, 0o755, read(agent)?)])?;
        images.push(manifest::image(
            &mut blobs,
            *architecture,
            &[&shared, &agent],
            description,
            &created,
        )?);
    }
    Archive::new(blobs, images, description)
}

fn read(path: &PathBuf) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
