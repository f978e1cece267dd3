//! Delegates whose service account is not known yet.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{
    fs,
    time::{Duration, Instant},
};

use podcreds_tests::{
    jwks::Jwks,
    needs_privileges,
    pod::Pod,
    scenario::{Scenario, assert_owned, wait_served},
    token::{BoundObject, Claims, Issuer, new_uid},
    wait::until,
};
use serde_json::Value;
use tempfile::TempDir;

struct Scene {
    kubelet: TempDir,
    jwks: Jwks,
    scene: Scenario,
}

impl Scene {
    /// A node on which `kube-system/driver` is a delegate's account. The keys cannot be had yet.
    fn start() -> Self {
        let kubelet = tempfile::tempdir().unwrap();
        let jwks = Jwks::start(&Issuer::cluster());
        jwks.set_down(true);
        let root = kubelet.path().display().to_string();
        let arguments = ["--delegate", "kube-system/driver", "--kubelet-root", &root];
        let url = jwks.url();
        let scene = Scenario::with_args(arguments.into_iter().chain(["--jwks-url", &url]));
        Self {
            kubelet,
            jwks,
            scene,
        }
    }

    /// A pod of that account, with or without the token that kubelet mounts.
    fn pod(&self, name: &str, mounts: bool) -> Pod {
        let uid = new_uid();
        let folder = self.kubelet.path().join("pods").join(&uid);
        fs::create_dir_all(&folder).unwrap();
        let pod = self.scene.pod(name).uid(&uid).start();
        if mounts {
            self.mount(&pod);
        }
        wait_served(&pod, []);
        pod
    }

    fn mount(&self, pod: &Pod) {
        let object = BoundObject {
            name: "driver".to_owned(),
            uid: pod.uid().to_owned(),
        };
        let claims = Claims::new("kube-system", "driver", object).audience("kubernetes");
        let volume = format!("pods/{}/volumes/kubernetes.io~projected/api", pod.uid());
        let data = self.kubelet.path().join(volume).join("..data");
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("token"), Issuer::cluster().sign(&claims)).unwrap();
    }
}

fn steal(pod: &Pod, victim: &Pod) -> Value {
    pod.run(["get", "--token", &victim.token(), "--timeout-ms", "2000"])
}

/// Asks until there is an answer of this status. Until then each is a 503 with the reason.
fn waits_for(status: u16, pod: &Pod, victim: &Pod) -> Value {
    let mut answer = Value::Null;
    until("the delegate is known", || {
        answer = steal(pod, victim);
        let is_last = answer["status"] == status;
        if !is_last {
            assert_eq!(answer["status"], 503, "{answer}");
        }
        is_last
    });
    answer
}

#[test]
fn a_delegate_gets_503_until_the_keys_come_and_credentials_then() {
    needs_privileges!();
    let scene = Scene::start();
    let victim = scene.scene.served_pod("victim");
    let (driver, plain) = (scene.pod("driver", true), scene.pod("plain", false));
    for _ in 0..3 {
        let answer = steal(&driver, &victim);
        assert_eq!(answer["status"], 503, "{answer}");
        assert_eq!(answer["body"]["code"], "DelegateNotKnownYet", "{answer}");
    }
    until("the pod is told what is missing", || {
        let said = steal(&driver, &victim)["body"].to_string();
        said.contains("keys cannot be had")
    });
    // One that could not be a delegate with any key is none without.
    waits_for(403, &plain, &victim);
    scene.jwks.set_down(false);
    let back = Instant::now();
    assert_owned(&waits_for(200, &driver, &victim), &victim);
    println!("known {:?} after the keys were back", back.elapsed());
    assert!(
        back.elapsed() < Duration::from_secs(15),
        "{:?}",
        back.elapsed()
    );
    let undecided = [("reason", "undecided")];
    let metrics = scene.scene.agent.metrics();
    assert!(metrics.sum("podcreds_refusals_total", &undecided) >= 4.0);
}

#[test]
fn a_delegate_whose_token_is_mounted_late_is_served() {
    needs_privileges!();
    let scene = Scene::start();
    scene.jwks.set_down(false);
    let victim = scene.scene.served_pod("victim");
    let driver = scene.pod("driver", false);
    scene.mount(&driver);
    assert_owned(&waits_for(200, &driver, &victim), &victim);
}
