//! Unmodified clients with their default chain, each as the only program of a pod.

use std::{
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Output},
};

use podcreds_tests::{
    cluster::{Cluster, Container, PodSpec},
    privileged::can_run,
    sdk::{Got, Sdk},
};

/// Runs the client in a pod of its own, as soon as the pod starts.
fn gets_its_credentials(sdk: Sdk) {
    if !can_run(sdk.check()) {
        return;
    }
    let cluster = Cluster::visit();
    let namespace = cluster.namespace("clients");
    namespace.associated("app", "client-role");
    let (program, arguments) = sdk.program();
    let program = program.display().to_string();
    let command = [program.as_str()].into_iter();
    let command = command.chain(arguments.iter().map(String::as_str));
    let container = Container::new("main", command);
    let pod = namespace.start(&PodSpec::running("client", container).account("app"));
    let printed = pod.output_of("main");
    let output = Output {
        status: ExitStatus::from_raw(0),
        stdout: printed.clone().into_bytes(),
        stderr: Vec::new(),
    };
    match sdk.read(&output) {
        Ok(Got::Credentials(owner)) => {
            assert_eq!(owner.uid, pod.uid(), "{owner}");
            assert_eq!(owner.role, "client-role", "{owner}");
        }
        Ok(Got::Nothing(why)) => panic!("{}: {why}", sdk.name()),
        Err(why) => panic!("{}: {why:#}: {printed}", sdk.name()),
    }
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn boto3_gets_its_credentials() {
    gets_its_credentials(Sdk::Boto3);
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn the_aws_cli_gets_its_credentials() {
    gets_its_credentials(Sdk::AwsCli);
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn the_javascript_sdk_gets_its_credentials() {
    gets_its_credentials(Sdk::JavaScript);
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn the_rust_sdk_gets_its_credentials() {
    gets_its_credentials(Sdk::Rust);
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn the_go_sdk_gets_its_credentials() {
    gets_its_credentials(Sdk::Go);
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn the_java_sdk_gets_its_credentials() {
    gets_its_credentials(Sdk::Java);
}
