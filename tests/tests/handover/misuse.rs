//! What agents refuse in their hand-over folder and from their peers, and what they tolerate.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
    thread,
};

use podcreds_tests::{
    agent::{Agent, AgentBuilder},
    eks_auth::EksAuth,
    needs_privileges,
    scenario::assert_owned,
    wait::DEADLINE,
};

use crate::scene::{Scene, wait_role};

/// From sysexits.h.
const USAGE: Option<i32> = Some(64);
/// The user `nobody`.
const STRANGER: u32 = 65534;
/// An agent's greeting, with a version that no build has.
const OTHER_VERSION: &[u8; 10] = b"podcreds\xff\xff";
/// This build's.
const GREETING: &[u8] = b"podcreds\x00\x01";

/// Checks that an agent does not start, and that its last line names the flag and the reason.
#[track_caller]
fn assert_refused(agent: AgentBuilder, why: &str) {
    let mut agent = agent.spawn();
    let status = agent.wait_exit();
    let words = agent.logs().to_the_end().pop().unwrap();
    assert_eq!(status.code(), USAGE, "{why}: {words:?}");
    let told = words.message.starts_with("--handover-dir /") && words.message.contains(why);
    assert!(told, "{why}: {words:?}");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_folder_that_another_user_could_have_prepared_is_refused() {
    needs_privileges!();
    let scene = Scene::new();
    let at = |path: &Path| scene.agent().set("--handover-dir", path.to_str().unwrap());
    let inner = scene.folder().join("meet");
    symlink(scene.folder(), &inner).unwrap();
    assert_refused(at(&inner), "a symbolic link");
    fs::remove_file(&inner).unwrap();
    File::create(&inner).unwrap();
    assert_refused(at(&inner), "is no folder");
    fs::remove_file(&inner).unwrap();
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        fs::create_dir(&inner).unwrap();
        set_mode(&inner, mode);
        assert_refused(at(&inner), &format!("mode {mode:04o}"));
        fs::remove_dir(&inner).unwrap();
    }
    fs::create_dir(&inner).unwrap();
    chown(&inner, Some(STRANGER), None).unwrap();
    assert_refused(at(&inner), "belongs to user 65534");
    assert_refused(at(Path::new("/no/such/parent")), "cannot be made");
}

#[test]
fn a_file_that_another_user_could_have_put_into_the_folder_is_refused() {
    needs_privileges!();
    let elsewhere = tempfile::tempdir().unwrap();
    for name in ["leader.sock", "lend.sock", "leader.lock", "heir.lock"] {
        let (scene, target) = (Scene::new(), elsewhere.path().join(name));
        symlink(&target, scene.folder().join(name)).unwrap();
        assert_refused(scene.agent(), name);
        assert!(!target.exists(), "{name} was followed");
    }
    let scene = Scene::new();
    let socket = scene.folder().join("leader.sock");
    drop(UnixListener::bind(&socket).unwrap());
    chown(&socket, Some(STRANGER), None).unwrap();
    assert_refused(scene.agent(), "belongs to user 65534");
    fs::remove_file(&socket).unwrap();
    File::create(&socket).unwrap();
    assert_refused(scene.agent(), "is no socket");
    fs::remove_file(&socket).unwrap();

    // A user who can read a lock file can hold the lock for ever.
    set_mode(&scene.folder().join("leader.lock"), 0o644);
    assert_refused(scene.agent(), "leader.lock");
}

#[test]
fn an_agent_starts_in_the_folder_that_a_killed_agent_has_left() {
    needs_privileges!();
    let scene = Scene::new();
    let folder = scene.folder().join("made");
    let agent = || {
        scene
            .agent()
            .set("--handover-dir", folder.to_str().unwrap())
    };
    drop(agent().start());
    assert!(folder.join("leader.sock").exists());
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&folder), 0o700);
    // As kubelet makes it where a pod mounts it.
    set_mode(&folder, 0o755);
    let agent = agent().start();
    wait_role(&agent, "leader");
    for name in ["leader.sock", "lend.sock", "leader.lock", "heir.lock"] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
}

#[test]
fn without_root_a_named_folder_is_refused_and_the_default_one_is_not_used() {
    needs_privileges!();
    let eks_auth = EksAuth::start();
    // The capability is for its own program file, wherever that is.
    let stranger =
        "setpriv --reuid 65534 --inh-caps +dac_read_search --ambient-caps +dac_read_search";
    let agent = || Agent::on_loopback(&eks_auth).through(stranger.split(' '));
    assert_refused(agent().set("--handover-dir", "/run/podcreds"), "only root");
    let agent = agent().unset("--handover-dir").start();
    let warning = "credentials will not outlive this agent";
    assert_eq!(agent.logs().with_message(warning).len(), 1);
}

/// An agent without `--handover-dir`, in a mount namespace of its own in which `prepare` runs
/// first.
fn unnamed(eks_auth: &EksAuth, prepare: &str) -> AgentBuilder {
    let script = format!("mount -t tmpfs tmpfs /run && {prepare} && exec \"$@\"");
    let agent = Agent::on_loopback(eks_auth).unset("--handover-dir");
    agent.through(["unshare", "--mount", "sh", "-ec", &script, "sh"])
}

#[test]
fn the_default_folder_keeps_no_agent_from_starting() {
    needs_privileges!();
    let eks_auth = EksAuth::start();
    for (prepare, level, why) in [
        ("mount -o remount,ro /run", "WARN", "cannot be made"),
        (
            "mkdir /run/podcreds && mount -o remount,ro /run",
            "WARN",
            "Read-only",
        ),
        (
            "mkdir /run/podcreds && mount -t tmpfs -o mode=700,nr_inodes=1 x /run/podcreds",
            "WARN",
            "No space",
        ),
        // With room for the locks, but not for the sockets.
        (
            "mkdir /run/podcreds && mount -t tmpfs -o mode=700,nr_inodes=3 x /run/podcreds",
            "WARN",
            "No space",
        ),
        ("touch /run/podcreds", "ERROR", "is no folder"),
        (
            "mkdir /run/x && ln -s x /run/podcreds",
            "ERROR",
            "a symbolic link",
        ),
        (
            "mkdir /run/podcreds && chown 65534 /run/podcreds",
            "ERROR",
            "belongs to user 65534",
        ),
        ("mkdir -m 777 /run/podcreds", "ERROR", "mode 0777"),
        (
            "mkdir /run/podcreds && ln -s x /run/podcreds/heir.lock",
            "ERROR",
            "heir.lock",
        ),
        (
            "mkdir /run/podcreds && ln -s x /run/podcreds/leader.lock",
            "ERROR",
            "leader.lock",
        ),
        (
            "mkdir /run/podcreds && touch /run/podcreds/leader.sock",
            "ERROR",
            "is no socket",
        ),
    ] {
        let agent = unnamed(&eks_auth, prepare).start();
        let end = "credentials will not outlive this agent";
        let lines = agent.logs().all();
        let line = lines.iter().find(|line| line.message.ends_with(end));
        let line = line.unwrap_or_else(|| panic!("nothing was said: {prepare}"));
        assert_eq!(line.level, level, "{prepare}: {line:?}");
        let error = line.field("error").unwrap();
        assert!(error.contains(why), "{prepare}: {error}");
        let answer = agent.get(agent.probe_address(), "/readyz");
        assert_eq!(answer.status, 200);
        let said = format!("without handing credentials over: {error}");
        assert!(answer.body.contains(&said), "{}", answer.body);

        // An agent that was told the folder by name ends.
        let agent = unnamed(&eks_auth, prepare).set("--handover-dir", "/run/podcreds");
        assert_refused(agent, why);
    }
}

#[test]
fn a_peer_that_is_not_root_is_sent_no_credentials() {
    needs_privileges!();
    let scene = Scene::new();
    let leader = scene.agent().start();
    let _pod = scene.served_pod("web");
    // Only the check of the peer is left to keep others out.
    set_mode(scene.folder(), 0o755);
    let socket = scene.folder().join("leader.sock");
    set_mode(&socket, 0o666);
    // The agent may close the connection before this is sent.
    let logger = Command::new("setpriv")
        .args(["--reuid", "65534", "logger", "--socket"])
        .args([socket.as_os_str(), "hello".as_ref()])
        .output();
    logger.unwrap();
    let line = leader.logs().wait_for("the stranger is noticed", |line| {
        line.message.starts_with("somebody who is no agent")
    });
    assert_eq!((&*line.level, sent(&leader)), ("WARN", 0.0));
    let why = line.field("error").unwrap();
    assert!(why.contains("user 65534"), "{why}");
}

/// How many entries an agent has sent.
fn sent(agent: &Agent) -> f64 {
    let direction = [("direction", "sent")];
    agent
        .metrics()
        .sum("podcreds_handover_entries_total", &direction)
}

/// Sends bytes to the leader, and returns all that it sends.
fn say(scene: &Scene, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(scene.folder().join("leader.sock")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut heard = Vec::new();
    // It may close the connection before it has read everything.
    let _ = stream.read_to_end(&mut heard);
    heard
}

#[test]
fn a_successor_of_another_version_is_sent_no_credentials() {
    needs_privileges!();
    let scene = Scene::new();
    let leader = scene.agent().start();
    let pod = scene.served_pod("web");
    assert_eq!(say(&scene, OTHER_VERSION), GREETING);
    leader.logs().wait_for("the version is noticed", |line| {
        line.message.contains("in another version") && line.field("theirs").unwrap() == "65535"
    });
    let garbage = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(say(&scene, garbage), GREETING);
    assert_eq!(sent(&leader), 0.0);

    // The next agent still gets everything.
    let next = scene.agent().start();
    drop(leader);
    wait_role(&next, "leader");
    assert_owned(&pod.run(["get"]), &pod);
    assert_eq!(scene.eks_auth.call_count(), 1);
}

/// Starts an agent beside a stand-in for a leader that sends `greeting` and no more.
fn successor_of(scene: &Scene, greeting: &'static [u8]) -> Agent {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(scene.folder().join("leader.lock"))
        .unwrap();
    lock.lock().unwrap();
    let listener = UnixListener::bind(scene.folder().join("leader.sock")).unwrap();
    thread::spawn(move || {
        let _lock = lock;
        while let Ok((mut stream, _)) = listener.accept() {
            // The successor may close the connection at any time.
            let _ = stream.write_all(greeting);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    scene.agent().start()
}

#[test]
fn a_successor_serves_beside_a_leader_that_sends_garbage() {
    needs_privileges!();
    for (greeting, noticed) in [
        (&OTHER_VERSION[..], "in another version"),
        (b"220 smtp.example ESMTP\r\n", "cannot be heard"),
        (b"podcreds\x00\x01\x01\xff\xff\xff\xff", "cannot be heard"),
    ] {
        let scene = Scene::new();
        let successor = successor_of(&scene, greeting);
        successor
            .logs()
            .wait_for(noticed, |line| line.message.contains(noticed));
        wait_role(&successor, "successor");
        let pod = scene.served_pod("web");
        assert_owned(&pod.run(["get"]), &pod);
    }
}

/// The entries after one that cannot be read are taken over.
#[test]
fn a_successor_skips_entries_that_it_cannot_read() {
    needs_privileges!();
    const KIB: u32 = 1024;
    let too_long = [&[1][..], &(257 * KIB).to_be_bytes(), &[b'x'; 257 * 1024]].concat();
    for entry in [
        &too_long[..],
        // A change without content, a change of no valid pod, and a kind of frame that does not
        // exist.
        b"\x01\x00\x00\x00\x02{}",
        b"\x01\x00\x00\x00\x23{\"subject\":{\"pod\":\"?\"},\"kept\":null}",
        b"\x07\x00\x00\x00\x02{}",
    ] {
        let scene = Scene::new();
        let said = [GREETING, entry, b"\x02\x00\x00\x00\x00"].concat();
        let successor = successor_of(&scene, said.leak());
        let all = "took in the credentials of the agent before this one";
        successor.logs().wait_for(all, |line| line.message == all);
        let skipped = [("direction", "received")];
        successor.wait_metric("podcreds_handover_skipped_total", &skipped, |it| it == 1.0);
        let warnings = successor.logs().all().into_iter();
        let warnings = warnings.filter(|line| line.message.starts_with("passed over"));
        assert_eq!(warnings.count(), 1);
    }
}
