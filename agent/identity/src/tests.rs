use std::time::UNIX_EPOCH;

use jsonwebtoken::{EncodingKey, Header, encode};
use podcreds_types::Origin;
use serde_json::json;

use super::*;

const POD: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";
const OTHER: &str = "ffffffff-0b0a-0908-0706-050403020100";

fn token(claims: &serde_json::Value) -> Token {
    let key = EncodingKey::from_secret(b"nobody verifies this here");
    Token::new(encode(&Header::default(), claims, &key).unwrap())
}

fn pod_token(uid: &str, account: &str) -> Token {
    let exp = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        + 600;
    token(&json!({
        "aud": ["pods.eks.amazonaws.com"],
        "exp": exp,
        "sub": format!("system:serviceaccount:ns:{account}"),
        "kubernetes.io": {
            "namespace": "ns",
            "pod": {"name": "a", "uid": uid},
            "serviceaccount": {"name": account, "uid": OTHER},
        },
    }))
}

fn identity(mode: Mode) -> Arc<Identity> {
    let config = Config {
        mode,
        delegates: Vec::new(),
        kubelet_root: PathBuf::new(),
    };
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    Identity::new(
        config,
        PodRecords::default(),
        None,
        runtime.handle().clone(),
        metrics,
    )
}

fn pod(uid: &str) -> Evidence {
    Evidence::Pod {
        uid: uid.parse().unwrap(),
        cgroup: 7,
    }
}

/// A caller that is this pod only by its token.
fn bearer(uid: &str, origin: Origin) -> Claimant {
    Claimant::Bearer {
        claims: Some(uid.parse().unwrap()),
        origin,
    }
}

#[test]
fn a_pods_own_token_is_taken() {
    for mode in [Mode::Enforce, Mode::Audit, Mode::Off] {
        let caller = identity(mode).caller(pod(POD));
        assert_eq!(
            caller.identify(&pod_token(POD, "sa"), Route::Direct),
            Ok(Claimant::Pod(POD.parse().unwrap()))
        );
        assert_eq!(caller.pod(), Some(POD.parse().unwrap()));
        assert_eq!(caller.origin(), Origin::Pod(7));
    }
}

#[test]
fn a_redirected_pods_token_is_of_no_use_on_the_node_path() {
    let node_path = Evidence::NodePath {
        peer: IpAddr::from([10, 0, 0, 7]),
    };
    let token = pod_token(POD, "sa");
    let judge =
        |identity: &Arc<Identity>| identity.caller(node_path).identify(&token, Route::Direct);
    let taken = bearer(POD, node_path.origin());
    for mode in [Mode::Enforce, Mode::Audit, Mode::Off] {
        let identity = identity(mode);
        // One in a sandbox that the kernel cannot see into never comes another way.
        assert_eq!(judge(&identity), Ok(taken));
        let _connection = identity.caller(pod(POD));
        match mode {
            Mode::Enforce => assert_eq!(judge(&identity), Err(Refusal::Detour)),
            Mode::Audit | Mode::Off => assert_eq!(judge(&identity), Ok(taken)),
        }
        let other = identity
            .caller(node_path)
            .identify(&pod_token(OTHER, "sa"), Route::Direct);
        assert_eq!(other, Ok(bearer(OTHER, node_path.origin())));
    }
    let forgetful = identity(Mode::Enforce);
    let _connection = forgetful.caller(pod(POD));
    forgetful.pod_gone(POD.parse().unwrap());
    assert_eq!(judge(&forgetful), Ok(taken));
    // Once the programs are detached, it is the only way there is.
    let detached = identity(Mode::Enforce);
    let _connection = detached.caller(pod(POD));
    assert_eq!(judge(&detached), Err(Refusal::Detour));
    detached.redirects_ended();
    assert_eq!(judge(&detached), Ok(taken));
}

#[test]
fn a_pod_that_cannot_be_redirected_any_more_is_served_on_the_node_path() {
    let node_path = Evidence::NodePath {
        peer: IpAddr::from([10, 0, 0, 7]),
    };
    let identity = identity(Mode::Enforce);
    let judge = |uid| {
        identity
            .caller(node_path)
            .identify(&pod_token(uid, "sa"), Route::Direct)
    };
    let _connections = [POD, OTHER].map(|uid| identity.caller(pod(uid)));
    identity.set_reachable(POD.parse().unwrap(), false);
    assert_eq!(judge(POD), Ok(bearer(POD, node_path.origin())));
    // That says nothing of any other.
    assert_eq!(judge(OTHER), Err(Refusal::Detour));
    identity.set_reachable(POD.parse().unwrap(), true);
    assert_eq!(judge(POD), Err(Refusal::Detour));
}

#[test]
fn another_pods_token_is_refused_unless_policy_says_otherwise() {
    let token = pod_token(OTHER, "sa");
    let judge = |mode| {
        identity(mode)
            .caller(pod(POD))
            .identify(&token, Route::Direct)
    };
    assert_eq!(judge(Mode::Enforce), Err(Refusal::OtherPod));
    assert_eq!(judge(Mode::Audit), Ok(bearer(OTHER, Origin::Pod(7))));
    assert_eq!(judge(Mode::Off), Ok(bearer(OTHER, Origin::Pod(7))));
}

#[test]
fn a_proxy_is_told_from_a_thief_and_gets_nothing_either() {
    let token = pod_token(OTHER, "sa");
    let peer = "10.0.0.1".parse().unwrap();
    for evidence in [pod(POD), Evidence::NodePath { peer }] {
        let identity = identity(Mode::Enforce);
        // The token's own pod comes by the in-pod path.
        let _connection = identity.caller(pod(OTHER));
        let caller = identity.caller(evidence);
        let judge = |route| caller.identify(&token, route);
        assert_eq!(judge(Route::Proxy), Err(Refusal::ThroughProxy));
        assert_eq!(identity.metrics.refused.get(), 0);
        assert_eq!(identity.metrics.proxied.get(), 1);
        let thief = match evidence {
            Evidence::NodePath { .. } => Refusal::Detour,
            _ => Refusal::OtherPod,
        };
        assert_eq!(judge(Route::Direct), Err(thief));
        assert_eq!(identity.metrics.refused.get(), 1);
        assert_eq!(identity.metrics.proxied.get(), 1);
    }
    // A mesh's own headers on what the pod asks by itself.
    let own = pod_token(POD, "sa");
    let verdict = identity(Mode::Enforce)
        .caller(pod(POD))
        .identify(&own, Route::Proxy);
    assert_eq!(verdict, Ok(Claimant::Pod(POD.parse().unwrap())));
}

#[test]
fn nothing_that_a_pod_did_before_hides_its_theft_in_the_log() {
    let identity = identity(Mode::Enforce);
    let (thief, robbed) = (POD.parse().unwrap(), OTHER.parse().unwrap());
    let caller = identity.caller(pod(POD));
    let peer = IpAddr::from([10, 0, 0, 1]);
    let detour = identity.caller(Evidence::NodePath { peer });
    let verdict = detour.identify(&pod_token(POD, "sa"), Route::Direct);
    assert_eq!(verdict, Err(Refusal::Detour));
    let verdict = caller.identify(&pod_token(OTHER, "sa"), Route::Proxy);
    assert_eq!(verdict, Err(Refusal::ThroughProxy));
    let theft = Suspicion::ForeignToken(Some(robbed), Route::Direct);
    assert!(
        identity.suspicions.is_due(thief, theft),
        "it may still be logged"
    );
    identity.pod_gone(thief);
    let verdict = caller.identify(&pod_token(OTHER, "sa"), Route::Direct);
    assert_eq!(verdict, Err(Refusal::OtherPod));
    assert!(
        !identity.suspicions.is_due(thief, theft),
        "it has been logged"
    );
}

#[test]
fn a_token_that_is_bound_to_no_pod_is_another_pods() {
    let token = token(&json!({"exp": u32::MAX, "kubernetes.io": {"namespace": "ns"}}));
    let caller = identity(Mode::Enforce).caller(pod(POD));
    assert_eq!(
        caller.identify(&token, Route::Direct),
        Err(Refusal::OtherPod)
    );
}

#[test]
fn a_caller_that_is_no_pod_has_no_identity() {
    for (evidence, refusal) in [
        (Evidence::Stranger { process: 1 }, Refusal::UnknownCaller),
        (Evidence::Unrecorded, Refusal::NoRecord),
    ] {
        let token = pod_token(POD, "sa");
        let judge = |mode| {
            identity(mode)
                .caller(evidence)
                .identify(&token, Route::Direct)
        };
        assert_eq!(identity(Mode::Off).caller(evidence).pod(), None);
        assert_eq!(judge(Mode::Enforce), Err(refusal));
        assert_eq!(judge(Mode::Audit), Ok(bearer(POD, Origin::Unknown)));
        assert_eq!(judge(Mode::Off), Ok(bearer(POD, Origin::Unknown)));
    }
}

#[test]
fn on_the_node_path_the_token_speaks_for_itself_only() {
    let token = pod_token(POD, "sa");
    let peer = "10.0.0.1".parse().unwrap();
    let caller = identity(Mode::Enforce).caller(Evidence::NodePath { peer });
    let origin = Origin::Address(peer);
    assert_eq!((caller.pod(), caller.origin()), (None, origin));
    assert_eq!(
        caller.identify(&token, Route::Direct),
        Ok(bearer(POD, origin))
    );
}

#[test]
fn a_text_that_is_no_token_is_refused_as_malformed() {
    let caller = identity(Mode::Enforce).caller(pod(POD));
    for text in ["", "x", "a.b.c", "..", "eyJhbGciOiJub25lIn0.e30."] {
        let result = caller.identify(&Token::new(text), Route::Direct);
        assert!(
            matches!(result, Err(Refusal::MalformedToken(_))),
            "{text:?}"
        );
    }
    let bearer = format!("Bearer {}", pod_token(POD, "sa").expose());
    let verdict = caller.identify(&Token::new(bearer), Route::Direct);
    assert!(matches!(verdict, Err(Refusal::MalformedToken(_))));
    let bad_uid = pod_token("not-a-uid", "sa");
    assert!(matches!(
        caller.identify(&bad_uid, Route::Direct),
        Err(Refusal::MalformedToken(_))
    ));
}

#[test]
fn an_expired_token_is_refused_as_expired() {
    let token = token(&json!({"exp": 1, "kubernetes.io": {"pod": {"name": "a", "uid": POD}}}));
    let caller = identity(Mode::Enforce).caller(pod(POD));
    assert_eq!(
        caller.identify(&token, Route::Direct),
        Err(Refusal::ExpiredToken)
    );
}

proptest::proptest! {
    #[test]
    fn any_expiry_is_judged_without_overflow(exp: u64) {
        let bound_to = json!({"name": "a", "uid": POD});
        let token = token(&json!({"exp": exp, "kubernetes.io": {"pod": bound_to}}));
        let verdict = identity(Mode::Enforce).caller(pod(POD)).identify(&token, Route::Direct);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        proptest::prop_assert_eq!(verdict.is_ok(), exp > now && exp <= i64::MAX as u64);
    }
}

#[test]
fn a_pod_that_the_kernel_has_left_alone_is_taken_from_its_own_address_only() {
    let identity = identity(Mode::Enforce);
    let _connection = identity.caller(pod(POD));
    let (own, elsewhere) = ([10, 0, 0, 7].into(), [10, 0, 0, 8].into());
    let judge = |peer: IpAddr, token: &str| {
        let caller = identity.caller(Evidence::NodePath { peer });
        let token = pod_token(token, "sa");
        caller.identify(&token, Route::Direct).map(drop)
    };
    assert_eq!(judge(own, POD), Err(Refusal::Detour));
    identity.left_alone(POD.parse().unwrap(), vec![own, [127, 0, 0, 1].into()]);
    assert_eq!(judge(own, POD), Ok(()));
    for peer in [elsewhere, [127, 0, 0, 1].into()] {
        assert_eq!(judge(peer, POD), Err(Refusal::Detour));
    }
    // Another pod's token from there is as good as before.
    let _connection = identity.caller(pod(OTHER));
    assert_eq!(judge(own, OTHER), Err(Refusal::Detour));
    identity.pod_gone(POD.parse().unwrap());
    let _connection = identity.caller(pod(POD));
    assert_eq!(judge(own, POD), Err(Refusal::Detour));
}
