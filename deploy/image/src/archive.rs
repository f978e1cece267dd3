//! An image layout: blobs that are named by their digests, and an index that leads to them.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use anyhow::{Context as _, Result};
use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    Description, layer,
    manifest::{self, INDEX, Image},
};

/// A SHA-256, written as image layouts do: `sha256:` and 64 digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Digest(String);

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let hex: String = digest(&SHA256, bytes)
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self(format!("sha256:{hex}"))
    }

    /// Where a blob of this digest is in the archive.
    fn path(&self) -> String {
        format!("blobs/{}", self.0.replace(':', "/"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A reference to a blob.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    media_type: &'static str,
    pub(crate) digest: Digest,
    pub(crate) size: usize,
}

/// The blobs of an image, each once.
#[derive(Default)]
pub(crate) struct Blobs(BTreeMap<Digest, Vec<u8>>);

impl Blobs {
    pub(crate) fn add(&mut self, media_type: &'static str, content: Vec<u8>) -> Descriptor {
        let digest = Digest::of(&content);
        let size = content.len();
        self.0.insert(digest.clone(), content);
        Descriptor {
            media_type,
            digest,
            size,
        }
    }

    pub(crate) fn add_json(
        &mut self,
        media_type: &'static str,
        content: &Value,
    ) -> Result<Descriptor> {
        Ok(self.add(media_type, serde_json::to_vec(content)?))
    }
}

/// A finished image.
pub struct Archive {
    tar: Vec<u8>,
    digest: Digest,
    images: Vec<Image>,
}

impl Archive {
    pub(crate) fn new(
        mut blobs: Blobs,
        images: Vec<Image>,
        description: &Description,
    ) -> Result<Self> {
        let created = manifest::timestamp(description.created)?;
        let manifests = images.iter().map(|image| {
            let mut manifest = json!(&image.manifest);
            manifest["platform"] = image.architecture.platform();
            manifest
        });
        let image = blobs.add_json(
            INDEX,
            &json!({
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": manifests.collect::<Vec<_>>(),
                "annotations": manifest::labels(description, &created),
            }),
        )?;
        let mut files = vec![
            (
                "oci-layout".to_owned(),
                json!({ "imageLayoutVersion": "1.0.0" }),
            ),
            ("index.json".to_owned(), entry_point(&image, description)),
        ];
        if let [image] = images.as_slice() {
            files.push((
                "manifest.json".to_owned(),
                for_older_docker(image, description),
            ));
        }
        let mut contents: Vec<_> = files
            .into_iter()
            .map(|(path, json)| Ok((path, serde_json::to_vec(&json)?)))
            .collect::<Result<_>>()?;
        contents.extend(
            blobs
                .0
                .into_iter()
                .map(|(digest, blob)| (digest.path(), blob)),
        );
        let files = contents
            .iter()
            .map(|(path, bytes)| (path.as_str(), bytes.as_slice()));
        Ok(Self {
            tar: layer::pack(files)?,
            digest: image.digest,
            images,
        })
    }

    /// Writes the archive to a file.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(path, &self.tar).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What a registry will call the image: `sha256:...`.
    pub fn digest(&self) -> String {
        self.digest.to_string()
    }

    /// For each architecture, how many bytes a node has to pull.
    pub fn sizes(&self) -> Vec<(String, usize)> {
        self.images
            .iter()
            .map(|image| {
                let layers: usize = image.layers.iter().map(|layer| layer.size).sum();
                let total = layers + image.config.size + image.manifest.size;
                (image.architecture.to_string(), total)
            })
            .collect()
    }
}

/// `index.json`, where every tool starts.
fn entry_point(image: &Descriptor, description: &Description) -> Value {
    let reference = &description.reference;
    let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let mut image = json!(image);
    image["annotations"] = json!({
        "io.containerd.image.name": full_name(reference),
        "org.opencontainers.image.ref.name": tag,
    });
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [image] })
}

/// `manifest.json`, which Docker before version 25 wants. It knows one architecture only.
fn for_older_docker(image: &Image, description: &Description) -> Value {
    let layers: Vec<_> = image
        .layers
        .iter()
        .map(|layer| layer.digest.path())
        .collect();
    json!([{
        "Config": image.config.digest.path(),
        "RepoTags": [description.reference],
        "Layers": layers,
    }])
}

/// A name as containerd wants it: with its registry. Docker's own is what a short name means.
fn full_name(reference: &str) -> String {
    match reference.split_once('/') {
        None => format!("docker.io/library/{reference}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => reference.to_owned(),
        Some(_) => format!("docker.io/{reference}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_sha256() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(
            Digest::of(b"").path(),
            format!("blobs/sha256/{}", &empty["sha256:".len()..])
        );
    }

    #[test]
    fn short_names_get_a_registry() {
        for (short, full) in [
            ("podcreds:1", "docker.io/library/podcreds:1"),
            ("me/podcreds:1", "docker.io/me/podcreds:1"),
            ("localhost/podcreds:1", "localhost/podcreds:1"),
            ("example.com:5000/podcreds:1", "example.com:5000/podcreds:1"),
        ] {
            assert_eq!(full_name(short), full);
        }
    }
}
