//! Delegates while keys and volumes come and go.

use std::{
    fs,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use futures_util::future::{BoxFuture, pending};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode, get_current_timestamp,
    jwk::{Jwk, JwkSet},
};
use podcreds_keys::{FetchKeys, KeysError};
use prometheus::Registry;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    task::yield_now,
    time::{advance, sleep},
};

use super::*;

const POD: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";

/// Never answers.
#[derive(Default)]
struct Silent(AtomicUsize);

impl FetchKeys for Silent {
    fn fetch(&self) -> BoxFuture<'static, Result<Vec<u8>, KeysError>> {
        self.0.fetch_add(1, Relaxed);
        Box::pin(pending())
    }
}

/// Publishes a key, or says why it cannot.
struct Publisher(Mutex<Result<Vec<u8>, KeysError>>);

impl FetchKeys for Publisher {
    fn fetch(&self) -> BoxFuture<'static, Result<Vec<u8>, KeysError>> {
        let answer = self.0.lock().unwrap().clone();
        Box::pin(async move { answer })
    }
}

/// A node with one pod, which runs as a delegate's service account.
struct Scene {
    root: TempDir,
    publisher: Arc<Publisher>,
    delegates: Delegates,
    key: EncodingKey,
    published: Vec<u8>,
}

fn keys_from(source: Arc<dyn FetchKeys>) -> ClusterKeys {
    let metrics = podcreds_keys::Metrics::register(&Registry::new()).unwrap();
    ClusterKeys::new(source, "audience", metrics)
}

impl Scene {
    fn new() -> Self {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        let key = EncodingKey::from_ec_der(pair.unwrap().as_ref());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some("a".to_owned());
        let published = serde_json::to_vec(&JwkSet { keys: vec![jwk] }).unwrap();
        let root = tempfile::tempdir().unwrap();
        let publisher = Arc::new(Publisher(Mutex::new(Ok(published.clone()))));
        let keys = keys_from(Arc::clone(&publisher) as _);
        let delegates = delegates(&root, keys);
        fs::create_dir_all(root.path().join("pods").join(POD)).unwrap();
        Self {
            root,
            publisher,
            delegates,
            key,
            published,
        }
    }

    fn publish(&self, keys: Result<Vec<u8>, KeysError>) {
        *self.publisher.0.lock().unwrap() = keys;
    }

    fn mount_token(&self) {
        let claims = json!({
            "exp": get_current_timestamp() + 3600,
            "kubernetes.io": {
                "namespace": "kube-system",
                "pod": { "name": "a", "uid": POD },
                "serviceaccount": { "name": "driver" },
            },
        });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("a".to_owned());
        let token = encode(&header, &claims, &self.key).unwrap();
        let data = format!("pods/{POD}/volumes/kubernetes.io~projected/api/..data");
        let data = self.root.path().join(data);
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("token"), token).unwrap();
    }

    fn status(&self) -> DelegateStatus {
        self.delegates.status(POD.parse().unwrap())
    }

    fn unknown(&self) -> Undecided {
        match self.status() {
            DelegateStatus::Undecided(reason) => reason,
            known => panic!("{known:?}"),
        }
    }

    /// Waits for the look-up that is under way to be over, or to wait for keys.
    async fn looked_up(&self) {
        let pod: PodUid = POD.parse().unwrap();
        // Files are read on another thread, which does not know of a paused clock.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(30) {
            let pods = &self.delegates.0.pods;
            let waits =
                |pod: &Candidate| matches!(pod.known, DelegateState::Unknown(Undecided::NoKeys));
            if pods
                .get(&pod)
                .is_none_or(|pod| !pod.is_looking_up || waits(&pod))
            {
                return;
            }
            std::thread::yield_now();
            yield_now().await;
        }
        panic!("the look-up has no end");
    }
}

fn delegates(root: &TempDir, keys: ClusterKeys) -> Delegates {
    Delegates::new(
        vec!["kube-system/driver".parse().unwrap()],
        root.path().to_owned(),
        Some(keys),
        Handle::current(),
    )
}

#[tokio::test]
async fn many_requests_of_a_pod_start_one_look_up() {
    let root = tempfile::tempdir().unwrap();
    let keys = keys_from(Arc::<Silent>::default());
    let delegates = delegates(&root, keys);
    let pod = POD.parse().unwrap();
    for _ in 0..1000 {
        assert_ne!(delegates.status(pod), DelegateStatus::Delegate);
    }
    let tasks = Handle::current().metrics().num_alive_tasks();
    assert!(tasks <= 1, "{tasks}");
    delegates.pod_gone(pod);
    yield_now().await;
    assert!(delegates.0.pods.is_empty(), "it stays forgotten");
}

#[tokio::test(start_paused = true)]
async fn without_keys_a_delegate_is_unknown_and_known_as_soon_as_they_come() {
    let scene = Scene::new();
    scene.mount_token();
    scene.publish(Err(KeysError::new("down")));
    scene.unknown();
    scene.looked_up().await;
    for _ in 0..10 {
        assert_eq!(scene.unknown(), Undecided::NoKeys);
        advance(Duration::from_secs(1)).await;
    }
    scene.publish(Ok(scene.published.clone()));
    // Nobody has to ask for that.
    sleep(ASK_FOR_KEYS_EVERY).await;
    scene.looked_up().await;
    assert_eq!(scene.status(), DelegateStatus::Delegate);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_mounted_after_the_pod_was_found_counts() {
    let scene = Scene::new();
    scene.delegates.pod_found(POD.parse().unwrap());
    scene.looked_up().await;
    scene.mount_token();
    assert_eq!(scene.unknown(), Undecided::NotMounted);
    scene.looked_up().await;
    assert_eq!(scene.status(), DelegateStatus::Delegate);
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_a_token_of_the_clusters_is_no_delegate() {
    let scene = Scene::new();
    scene.unknown();
    scene.looked_up().await;
    assert_eq!(scene.status(), DelegateStatus::Other);
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_not_there_is_named_and_settles_nothing() {
    let scene = Scene::new();
    fs::remove_dir_all(scene.root.path().join("pods")).unwrap();
    scene.unknown();
    scene.looked_up().await;
    assert_eq!(scene.unknown(), Undecided::NoFolder);
}

#[test]
fn a_machine_without_threads_costs_one_look_up_and_not_the_next() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        // More than there are addresses, so that no thread can be made.
        .thread_stack_size(1 << 50)
        .build()
        .unwrap();
    runtime.block_on(async {
        let scene = Scene::new();
        assert_eq!(scene.unknown(), Undecided::LookUp);
        scene.looked_up().await;
        assert_eq!(scene.unknown(), Undecided::LookUp);
    });
}
