//! An agent and those who ask it, over real sockets. Only root can listen there.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Barrier, Mutex},
    thread,
    time::{Duration, SystemTime},
};

use futures_util::future::{BoxFuture, FutureExt, ready};
use rustix::process::geteuid;
use tempfile::TempDir;

use super::*;

/// An agent of this name, which notes what it is told.
#[derive(Clone)]
struct Fake {
    name: &'static str,
    told: Arc<Mutex<Vec<String>>>,
}

impl Operate for Fake {
    fn status(&self) -> BoxFuture<'static, NodeStatus> {
        let agent = AgentStatus {
            version: "1".to_owned(),
            revision: "2".to_owned(),
            process: 3,
            role: self.name.to_owned(),
            started: SystemTime::now().into(),
            ready: true,
            remarks: Vec::new(),
            paths: PathsStatus::default(),
            limiter: LimiterStatus::default(),
            upstream: UpstreamStatus::default(),
            keys: None,
            log_level: "info".to_owned(),
        };
        let status = NodeStatus {
            agent,
            pods: Vec::new(),
            refused: Vec::new(),
        };
        ready(status).boxed()
    }

    fn refresh(&self, target: Target) -> BoxFuture<'static, Result<Refresh, OperateError>> {
        self.told.lock().unwrap().push(format!("{target:?}"));
        ready(Err(OperateError::NotFound("no such pod".to_owned()))).boxed()
    }

    fn log_level(&self) -> LogLevel {
        LogLevel {
            filter: "info".to_owned(),
            started_with: "info".to_owned(),
            back_in_seconds: None,
        }
    }

    fn set_log_level(&self, wanted: SetLogLevel) -> Result<LogLevel, OperateError> {
        self.told.lock().unwrap().push(wanted.filter);
        Ok(self.log_level())
    }
}

/// A folder in which agents of these names listen.
fn agents(names: &[&'static str]) -> (TempDir, Fake) {
    let folder = tempfile::tempdir().unwrap();
    let told = Arc::default();
    for name in names {
        let socket = Socket::bind(folder.path()).unwrap();
        let (name, told) = (*name, Arc::clone(&told));
        tokio::spawn(socket.serve(Arc::new(Fake { name, told })));
    }
    (folder, Fake { name: "", told })
}

async fn ask<T>(folder: &Path, question: Question) -> Result<Vec<Result<T, AskError>>, AskError>
where
    T: serde::de::DeserializeOwned + Send + 'static,
{
    let folder = folder.to_owned();
    let ask = move || ask_all(&folder, &question);
    tokio::task::spawn_blocking(ask).await.unwrap()
}

/// The files in the folder.
fn sockets(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_agent_that_shares_the_folder_answers() {
    if !geteuid().is_root() {
        return;
    }
    let (folder, fake) = agents(&["leader", "successor"]);
    let answers = ask::<NodeStatus>(folder.path(), Question::Status)
        .await
        .unwrap();
    let mut roles: Vec<_> = answers
        .into_iter()
        .map(|it| it.unwrap().agent.role)
        .collect();
    roles.sort();
    assert_eq!(roles, ["leader", "successor"]);
    for path in sockets(folder.path()) {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
    }
    let target = Target::Uid("x".to_owned());
    let refused = ask::<Refresh>(folder.path(), Question::Refresh(target)).await;
    for answer in refused.unwrap() {
        assert!(matches!(answer, Err(AskError::NotFound(why)) if why == "no such pod"));
    }
    let filter = "debug,podcreds_cache=trace".to_owned();
    let for_seconds = Some(7);
    let wanted = SetLogLevel {
        filter,
        for_seconds,
    };
    let set = ask::<LogLevel>(folder.path(), Question::SetLogLevel(wanted)).await;
    assert_eq!(set.unwrap().len(), 2);
    assert_eq!(fake.told.lock().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_agent_left_behind_is_removed_and_what_lives_is_not() {
    if !geteuid().is_root() {
        return;
    }
    let (folder, _) = agents(&["leader"]);
    let dead = folder.path().join("admin-0000000000000000.sock");
    drop(UnixListener::bind(&dead).unwrap());
    let making = folder.path().join("admin-0000000000000001.new");
    fs::write(&making, "").unwrap();
    let old = SystemTime::now() - Duration::from_secs(3600);
    let old_making = folder.path().join("admin-0000000000000002.new");
    let file = fs::File::create(&old_making).unwrap();
    file.set_modified(old).unwrap();
    let other = folder.path().join("leader.sock");
    drop(UnixListener::bind(&other).unwrap());
    // It is not asked in vain either.
    let answers = ask::<NodeStatus>(folder.path(), Question::Status)
        .await
        .unwrap();
    assert_eq!(answers.len(), 1);
    let next = Socket::bind(folder.path()).unwrap();
    assert!(!dead.exists() && !old_making.exists());
    assert!(making.exists() && other.exists());
    assert_eq!(sockets(folder.path()).len(), 4);
    drop(next);
    assert_eq!(sockets(folder.path()).len(), 3, "it takes its own along");
}

#[test]
fn agents_that_start_at_once_do_not_fail_over_what_a_killed_one_left_behind() {
    if !geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for number in 0..100 {
        let dead = folder.path().join(format!("admin-{number:016x}.sock"));
        drop(UnixListener::bind(dead).unwrap());
    }
    let start = Barrier::new(4);
    let bind = || {
        start.wait();
        Socket::bind(folder.path())
    };
    let bound = thread::scope(|scope| {
        let agents = [(); 4].map(|()| scope.spawn(bind));
        agents.map(|agent| agent.join().unwrap().unwrap())
    });
    assert_eq!(sockets(folder.path()).len(), bound.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_answers_the_error_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path(), &folder.path().join("missing")] {
        let error = ask::<NodeStatus>(path, Question::Status).await.unwrap_err();
        let words = error.to_string();
        assert!(words.contains("kubectl exec"), "{words}");
        assert!(words.contains("--admin-dir"), "{words}");
    }
}

#[test]
fn a_folder_that_others_could_have_prepared_is_not_used() {
    if !geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let bind = |path: &Path| Socket::bind(path).map(drop).unwrap_err().to_string();
    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    assert!(bind(&open).contains("others than root can write"));
    let link = folder.path().join("link");
    symlink("/run", &link).unwrap();
    assert!(bind(&link).contains("--admin-dir"));
}

/// What the socket says to these bytes.
fn talk(socket: &Path, bytes: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_makes_no_sense_is_refused() {
    if !geteuid().is_root() {
        return;
    }
    let (folder, fake) = agents(&["leader"]);
    let socket = sockets(folder.path()).remove(0);
    for (request, status) in [
        ("GET / HTTP/1.0\r\n\r\n", "404"),
        ("DELETE /v1/status HTTP/1.0\r\n\r\n", "405"),
        (
            "POST /v1/refresh HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
            "400",
        ),
        (
            "PUT /v1/log-level HTTP/1.0\r\nContent-Length: 99999\r\n\r\n",
            "400",
        ),
        ("GET /v1/log-level HTTP/1.0\r\n\r\n", "200"),
    ] {
        let (socket, text) = (socket.clone(), request.to_owned());
        let answer = tokio::task::spawn_blocking(move || talk(&socket, &text));
        let answer = answer.await.unwrap();
        assert_eq!(
            answer.split(' ').nth(1),
            Some(status),
            "{request}: {answer}"
        );
    }
    assert!(fake.told.lock().unwrap().is_empty());
}

#[test]
fn times_are_rfc_3339_and_come_back() {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_999);
    let text = serde_json::to_string(&Timestamp::from(time)).unwrap();
    assert_eq!(text, r#""2027-01-15T08:00:00Z""#);
    let back: Timestamp = serde_json::from_str(&text).unwrap();
    assert_eq!(back.ago(time), Duration::from_millis(999));
    assert_eq!(back.until(time), Duration::ZERO);
}

#[test]
fn what_is_shown_of_a_pod_has_the_names_that_it_has_in_json() {
    let shown = [
        PodState::Valid.to_string(),
        PodState::None.to_string(),
        IdentifiedBy::EksAuth.to_string(),
        PathKind::InPod.to_string(),
    ];
    assert_eq!(shown, ["valid", "none", "eks-auth", "in-pod"]);
}
