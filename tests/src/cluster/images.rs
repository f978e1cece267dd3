//! Container images without a registry: archives in OCI's layout, put together from files of the
//! machine.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};
use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::{command, layout::Layout};

/// What holds a pod's namespaces.
pub(super) const PAUSE: &str = "localhost/pause:1";
/// busybox alone.
pub const BUSYBOX: &str = "localhost/busybox:1";
/// Links only: a pod that mounts the machine's `/usr` has all of its programs.
pub const MACHINE: &str = "localhost/machine:1";

/// The folders that the machine has below `/usr`, with links in place of them.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Makes the archives of all images, and returns their paths.
///
/// # Errors
///
/// When a file cannot be written, or `tar` fails.
pub(super) fn build(layout: &Layout) -> Result<Vec<std::path::PathBuf>> {
    let forever = ["/bin/sleep", "2147483647"];
    [
        Image::new(layout, PAUSE, &forever, busybox),
        Image::new(layout, BUSYBOX, &[], busybox),
        Image::new(layout, MACHINE, &[], |root, _| links(root)),
    ]
    .iter()
    .map(Image::build)
    .collect()
}

type Fill = fn(&Path, &Layout) -> Result<()>;

struct Image<'a> {
    layout: &'a Layout,
    reference: &'static str,
    entrypoint: Vec<&'static str>,
    fill: Fill,
}

impl<'a> Image<'a> {
    fn new(
        layout: &'a Layout,
        reference: &'static str,
        entrypoint: &[&'static str],
        fill: Fill,
    ) -> Self {
        Self {
            layout,
            reference,
            entrypoint: entrypoint.to_vec(),
            fill,
        }
    }

    fn build(&self) -> Result<std::path::PathBuf> {
        let name = self.reference.rsplit('/').next().unwrap_or_default();
        let name = name.split(':').next().unwrap_or_default();
        let archive = self.layout.images().join(format!("{name}.tar"));
        let scratch =
            tempfile::tempdir_in(self.layout.images()).context("a folder for an image")?;
        let (root, image) = (scratch.path().join("root"), scratch.path().join("image"));
        fs::create_dir_all(&root)?;
        fs::create_dir_all(image.join("blobs/sha256"))?;
        (self.fill)(&root, self.layout).with_context(|| format!("filling {name}"))?;
        let layer = scratch.path().join("layer.tar");
        tar(&root, &layer)?;
        self.describe(&image, &fs::read(&layer)?)?;
        tar(&image, &archive)?;
        Ok(archive)
    }

    /// Writes the layer and what points to it.
    fn describe(&self, image: &Path, layer: &[u8]) -> Result<()> {
        let media = |kind: &str| format!("application/vnd.oci.image.{kind}");
        let layer = blob(image, &media("layer.v1.tar"), layer)?;
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Entrypoint": self.entrypoint,
            },
            "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
        });
        let config = blob(
            image,
            &media("config.v1+json"),
            config.to_string().as_bytes(),
        )?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media("manifest.v1+json"),
            "config": config,
            "layers": [layer],
        });
        let text = manifest.to_string();
        let mut manifest = blob(image, &media("manifest.v1+json"), text.as_bytes())?;
        manifest["annotations"] = json!({ "io.containerd.image.name": self.reference });
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        fs::write(image.join("index.json"), index.to_string())?;
        fs::write(
            image.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
        Ok(())
    }
}

/// Writes a blob under the name of its digest, and describes it.
fn blob(image: &Path, media_type: &str, content: &[u8]) -> Result<Value> {
    let digest = digest::digest(&digest::SHA256, content);
    let hex: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    fs::write(image.join("blobs/sha256").join(&hex), content)?;
    Ok(json!({
        "mediaType": media_type,
        "digest": format!("sha256:{hex}"),
        "size": content.len(),
    }))
}

fn tar(folder: &Path, archive: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0"])
        .args(["--numeric-owner", "--create", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(folder)
        .arg(".");
    command::output(&mut tar).map(drop)
}

/// Go's name for the machine's architecture, which OCI has taken over.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn busybox(root: &Path, layout: &Layout) -> Result<()> {
    let binary = layout.kubernetes().join("bin/busybox");
    let folder = root.join("bin");
    fs::create_dir(&folder)?;
    fs::copy(&binary, folder.join("busybox")).context("busybox")?;
    let applets = command::output(Command::new(&binary).arg("--list"))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", folder.join(applet))?;
    }
    common(root)
}

fn links(root: &Path) -> Result<()> {
    fs::create_dir(root.join("usr"))?;
    for folder in MERGED {
        symlink(format!("usr/{folder}"), root.join(folder))?;
    }
    common(root)
}

fn common(root: &Path) -> Result<()> {
    fs::create_dir(root.join("etc"))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    for folder in ["root", "tmp"] {
        fs::create_dir(root.join(folder))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    Ok(())
}
