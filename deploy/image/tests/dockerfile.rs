//! The Dockerfile makes the image that `cargo xtask image` makes, by the same means.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{fs, path::Path};

use podcreds_image::{Architecture, Contents, Description, build};
use serde_json::{Value, json};

const DOCKERFILE: &str = include_str!("../../Dockerfile");
const TOOLCHAIN: &str = include_str!("../../../rust-toolchain.toml");

/// What follows an instruction, line by line.
fn instructions(name: &str) -> Vec<&'static str> {
    DOCKERFILE
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .collect()
}

/// How a container of the image of `cargo xtask image` is run.
fn config() -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let contents = Contents {
        agents: vec![(Architecture::Amd64, file)],
        sbom: None,
    };
    let description = Description {
        reference: "podcreds:1".to_owned(),
        version: "1".to_owned(),
        revision: "abcdef0".to_owned(),
        created: 0,
    };
    let archive = folder.path().join("image.tar");
    let image = build(&contents, &description).unwrap();
    image.write(&archive).unwrap();
    let manifest = read(&archive, "manifest.json");
    read(&archive, manifest[0]["Config"].as_str().unwrap())["config"].clone()
}

fn read(archive: &Path, path: &str) -> Value {
    let mut archive = tar::Archive::new(fs::File::open(archive).unwrap());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let entry = entries.find(|entry| entry.path().unwrap() == Path::new(path));
    serde_json::from_reader(entry.unwrap()).unwrap()
}

#[test]
fn containers_of_both_images_are_run_alike() {
    let config = config();
    let list = |name| -> Value { serde_json::from_str(instructions(name)[0]).unwrap() };
    assert_eq!(list("ENTRYPOINT"), config["Entrypoint"]);
    assert_eq!(list("CMD"), config["Cmd"]);
    assert_eq!(json!(instructions("ENV")), config["Env"]);
    assert_eq!(instructions("WORKDIR")[1], config["WorkingDir"]);
    let copies = instructions("COPY --from=build").join("\n");
    assert!(copies.contains(" /podcreds\n") || copies.ends_with(" /podcreds"));
    assert!(copies.contains(" /etc/ssl/certs/ca-certificates.crt"));
}

#[test]
fn the_agent_is_built_by_the_same_command_and_compiler() {
    let channel = TOOLCHAIN
        .lines()
        .find_map(|line| line.strip_prefix("channel = "));
    let version = channel.unwrap().trim_matches('"');
    let base = format!("--platform=$BUILDPLATFORM rust:{version}-bookworm AS build");
    assert_eq!(instructions("FROM"), [base.as_str(), "scratch"]);
    let command = "cargo xtask build --release --arch \"$TARGETARCH\"";
    assert!(instructions("RUN")[0].ends_with(command));
}
