//! What the image specification wants to be told, as JSON.
//!
//! <https://github.com/opencontainers/image-spec>

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    Architecture, Description,
    archive::{Blobs, Descriptor},
    layer::Layer,
};

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// One image for one architecture, whose parts are in the archive.
pub(crate) struct Image {
    pub(crate) architecture: Architecture,
    pub(crate) manifest: Descriptor,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// Adds an image to the blobs.
pub(crate) fn image(
    blobs: &mut Blobs,
    architecture: Architecture,
    layers: &[&Layer],
    description: &Description,
    created: &str,
) -> Result<Image> {
    let config = config(architecture, layers, description, created);
    let config = blobs.add_json(CONFIG, &config)?;
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| blobs.add(LAYER, layer.gzip.clone()))
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": &config,
        "layers": &layers,
        "annotations": labels(description, created),
    });
    Ok(Image {
        architecture,
        manifest: blobs.add_json(MANIFEST, &manifest)?,
        config,
        layers,
    })
}

/// How a container of this image is run.
fn config(
    architecture: Architecture,
    layers: &[&Layer],
    description: &Description,
    created: &str,
) -> Value {
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
    let mut config = architecture.platform();
    config["created"] = json!(created);
    config["config"] = json!({
        "Entrypoint": ["/podcreds"],
        "Cmd": ["server"],
        // Where the AWS SDK looks for shared credentials: there is no /etc/passwd that would say
        // so.
        "Env": ["HOME=/root"],
        "WorkingDir": "/",
        "Labels": labels(description, created),
    });
    config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
    config["history"] = json!([
        { "created": created, "created_by": "certificate authorities and software bill of materials" },
        { "created": created, "created_by": "podcreds" },
    ]);
    config
}

pub(crate) fn labels(description: &Description, created: &str) -> Value {
    json!({
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.description": "Node agent for Amazon EKS Pod Identity",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.revision": description.revision,
        "org.opencontainers.image.title": "podcreds",
        "org.opencontainers.image.version": description.version,
    })
}

/// RFC 3339, as the specification wants it.
pub(crate) fn timestamp(seconds: i64) -> Result<String> {
    OffsetDateTime::from_unix_timestamp(seconds)
        .context("a time of creation that no calendar knows")?
        .format(&Rfc3339)
        .context("cannot write down the time of creation")
}
