//! An archive is what the image specification says, down to the last digest.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use flate2::read::GzDecoder;
use podcreds_image::{Architecture, Contents, Description, build};
use serde_json::Value;

type Files = BTreeMap<String, Vec<u8>>;

/// An image of files that stand in for agents.
struct Image {
    folder: tempfile::TempDir,
    contents: Contents,
}

impl Image {
    fn of(architectures: &[Architecture]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        let agents = architectures
            .iter()
            .map(|architecture| {
                let name = format!("agent-{architecture}");
                (*architecture, write(&name, &name))
            })
            .collect();
        let sbom = write("sbom", "{}");
        Self {
            folder,
            contents: Contents {
                agents,
                sbom: Some(sbom),
            },
        }
    }

    fn write(&self) -> PathBuf {
        let description = Description {
            reference: "example.com/podcreds:1.2.3".to_owned(),
            version: "1.2.3".to_owned(),
            revision: "abcdef0".to_owned(),
            created: 1_800_000_000,
        };
        let path = self.folder.path().join("new/image.tar");
        build(&self.contents, &description)
            .unwrap()
            .write(&path)
            .unwrap();
        path
    }

    fn files(&self) -> Files {
        unpack(&fs::read(self.write()).unwrap())
    }
}

fn unpack(tar: &[u8]) -> Files {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().display().to_string(), content)
    });
    entries.collect()
}

fn digest(content: &[u8]) -> String {
    let bytes = digest::digest(&digest::SHA256, content);
    let hex: String = bytes
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// What a descriptor refers to, once its digest and its size have been found to be right.
fn blob<'a>(files: &'a Files, descriptor: &Value) -> &'a [u8] {
    let named = descriptor["digest"].as_str().unwrap();
    let content = &files[&format!("blobs/{}", named.replace(':', "/"))];
    assert_eq!(digest(content), named);
    assert_eq!(descriptor["size"], content.len());
    content
}

fn json(content: &[u8]) -> Value {
    serde_json::from_slice(content).unwrap()
}

/// The files of an image, out of its layers.
fn root(files: &Files, manifest: &Value, config: &Value) -> Files {
    let layers = manifest["layers"].as_array().unwrap();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!(layers.len(), diff_ids.len());
    assert_eq!(config["history"].as_array().unwrap().len(), layers.len());
    let mut root = Files::new();
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        assert_eq!(
            layer["mediaType"],
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
        let mut tar = Vec::new();
        GzDecoder::new(blob(files, layer))
            .read_to_end(&mut tar)
            .unwrap();
        assert_eq!(digest(&tar), *diff_id);
        root.extend(unpack(&tar));
    }
    root
}

#[test]
fn everything_is_found_from_the_index_on_and_its_digests_are_right() {
    let files = Image::of(&[Architecture::Amd64, Architecture::Arm64]).files();
    assert_eq!(json(&files["oci-layout"])["imageLayoutVersion"], "1.0.0");
    let entry = json(&files["index.json"]);
    let [image] = entry["manifests"].as_array().unwrap().as_slice() else {
        panic!("more than one image: {entry}");
    };
    let names = &image["annotations"];
    assert_eq!(names["org.opencontainers.image.ref.name"], "1.2.3");
    assert_eq!(
        names["io.containerd.image.name"],
        "example.com/podcreds:1.2.3"
    );

    let index = json(blob(&files, image));
    assert_eq!(index["mediaType"], image["mediaType"]);
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 2);
    let mut reached = 1;
    for (entry, architecture) in manifests.iter().zip(["amd64", "arm64"]) {
        assert_eq!(entry["platform"]["architecture"], architecture);
        let manifest = json(blob(&files, entry));
        assert_eq!(manifest["mediaType"], entry["mediaType"]);
        let config = json(blob(&files, &manifest["config"]));
        assert_eq!(config["architecture"], architecture);
        assert_eq!(config["os"], "linux");
        assert_eq!(config["created"], "2027-01-15T08:00:00Z");
        assert_eq!(
            config["config"]["Entrypoint"],
            Value::from(vec!["/podcreds"])
        );
        let root = root(&files, &manifest, &config);
        assert_eq!(root["podcreds"], format!("agent-{architecture}").as_bytes());
        assert_eq!(root["usr/share/sbom/podcreds.cdx.json"], b"{}");
        assert!(root["etc/ssl/certs/ca-certificates.crt"].starts_with(b"-----BEGIN"));
        assert!(root["root"].is_empty());
        reached += 3;
    }
    // Beside the shared layer nothing is there that nothing leads to.
    let blobs = files.keys().filter(|path| path.starts_with("blobs/"));
    assert_eq!(blobs.count(), reached + 1);
}

#[test]
fn one_architecture_is_for_older_docker_too() {
    let files = Image::of(&[Architecture::Amd64]).files();
    let [image] = &json(&files["manifest.json"]).as_array().unwrap().clone()[..] else {
        panic!("not one image");
    };
    assert_eq!(image["RepoTags"][0], "example.com/podcreds:1.2.3");
    let config = json(&files[image["Config"].as_str().unwrap()]);
    assert_eq!(config["architecture"], "amd64");
    for layer in image["Layers"].as_array().unwrap() {
        assert!(files.contains_key(layer.as_str().unwrap()), "{layer}");
    }
    let both = Image::of(&[Architecture::Amd64, Architecture::Arm64]).files();
    assert!(!both.contains_key("manifest.json"));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let architectures = [Architecture::Amd64, Architecture::Arm64];
    let read = |image: &Image| fs::read(image.write()).unwrap();
    let (one, other) = (Image::of(&architectures), Image::of(&architectures));
    assert_eq!(read(&one), read(&one));
    assert_eq!(read(&one), read(&other));
    fs::write(&other.contents.agents[1].1, "another").unwrap();
    assert_ne!(read(&one), read(&other));
}

#[test]
fn a_missing_agent_is_named() {
    let mut image = Image::of(&[Architecture::Amd64]);
    image.contents.agents[0].1 = Path::new("/nonexistent/agent").to_owned();
    let description = Description {
        reference: "podcreds:1".to_owned(),
        version: "1".to_owned(),
        revision: "abcdef0".to_owned(),
        created: 0,
    };
    let Err(error) = build(&image.contents, &description) else {
        panic!("an image of nothing");
    };
    assert!(format!("{error:#}").contains("/nonexistent/agent"));
}
