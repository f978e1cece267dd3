//! Pods that ask all the time, so that nothing that goes wrong meanwhile goes unnoticed.

use std::collections::BTreeMap;

use podcreds_tests::{
    binary,
    cluster::{ClusterPod, Container, Namespace, PodSpec},
    wait::until,
};
use serde_json::Value;

/// How many pods ask.
const PODS: usize = 3;
/// How often each of them asks in a second, each time on a connection of its own.
const RATE: &str = "40";

/// Load on the agent, from pods that have their credentials already.
pub(crate) struct Load {
    pods: Vec<ClusterPod>,
}

impl Load {
    /// Starts it, and waits until all pods are served.
    pub(crate) fn start(namespace: &Namespace) -> Self {
        namespace.associated("load", "load-role");
        let client = binary::pod_client().display().to_string();
        // The pipe's end is what tells the storm to end.
        let script = format!(
            "set -e
            {client} patient
            touch /tmp/served
            while [ ! -e /tmp/stop ]; do sleep 0.1; done |
                {client} storm --until-end-of-input --threads 4 --rate {RATE} --timeout-ms 10000"
        );
        let container = Container::new("main", ["sh", "-c", &script]);
        let pods: Vec<_> = (0..PODS)
            .map(|number| {
                let spec = PodSpec::running(&format!("load-{number}"), container.clone());
                namespace.start(&spec.account("load"))
            })
            .map(ClusterPod::ready)
            .collect();
        for pod in &pods {
            until("a pod of the load is served", || {
                pod.exec(["test", "-e", "/tmp/served"]).status.success()
            });
        }
        Self { pods }
    }

    /// Ends it, and checks that each request of each pod was answered with its own credentials.
    /// Returns how many there were, and the longest time that one took, in milliseconds.
    pub(crate) fn finish(self) -> (u64, u64) {
        for pod in &self.pods {
            until("a pod of the load takes the end", || {
                pod.exec(["touch", "/tmp/stop"]).status.success()
            });
        }
        let results: Vec<_> = self.pods.iter().map(|pod| (pod, pod.result())).collect();
        let mut longest = 0;
        let mut all = 0;
        for (pod, storm) in &results {
            let count = |field: &str| -> BTreeMap<String, u64> {
                serde_json::from_value(storm[field].clone()).unwrap()
            };
            let asked = storm["requests"].as_u64().unwrap();
            let expected = |name: &str| BTreeMap::from([(name.to_owned(), asked)]);
            assert_eq!(
                count("outcomes"),
                expected("200"),
                "pod {}: {storm}",
                pod.name()
            );
            assert_eq!(
                count("owners"),
                expected(pod.uid()),
                "pod {}: {storm}",
                pod.name()
            );
            all += asked;
            longest = longest.max(milliseconds(&storm["max_us"]));
        }
        assert!(all > 0, "nobody has asked for anything");
        (all, longest)
    }
}

fn milliseconds(micros: &Value) -> u64 {
    micros.as_u64().unwrap_or_default() / 1000
}
