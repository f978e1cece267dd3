//! What is refused at the place where agents meet, and what is put up with.

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
/// Nobody in particular.
const STRANGER: u32 = 65534;
/// An agent's greeting, of a version that there will never be.
const OTHER_VERSION: &[u8; 10] = b"podcreds\xff\xff";
/// This build's.
const GREETING: &[u8] = b"podcreds\x00\x01";

/// Checks that an agent does not start here, and that it says why in one sentence that names the flag.
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
fn a_folder_that_others_could_have_prepared_is_refused() {
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
fn what_others_could_have_put_into_the_folder_is_refused() {
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

    // Whoever can read a lock can hold it for ever.
    set_mode(&scene.folder().join("leader.lock"), 0o644);
    assert_refused(scene.agent(), "leader.lock");
}

#[test]
fn what_is_left_of_a_dead_agent_is_no_hindrance() {
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
fn without_root_there_is_nothing_to_meet_for() {
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

/// An agent that has `prepare` run in a mount namespace of its own before it starts, in which
/// nobody has named a folder.
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
fn whoever_is_not_root_is_told_nothing() {
    needs_privileges!();
    let scene = Scene::new();
    let leader = scene.agent().start();
    let _pod = scene.served_pod("web");
    // As careless as can be.
    set_mode(scene.folder(), 0o755);
    let socket = scene.folder().join("leader.sock");
    set_mode(&socket, 0o666);
    // Whether it can say what it wants to before it is turned away does not matter.
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

/// How much an agent has told others.
fn sent(agent: &Agent) -> f64 {
    let direction = [("direction", "sent")];
    agent
        .metrics()
        .sum("podcreds_handover_entries_total", &direction)
}

/// Says something to an agent, and returns all that it says.
fn say(scene: &Scene, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(scene.folder().join("leader.sock")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut heard = Vec::new();
    // It may hang up before it has read everything.
    let _ = stream.read_to_end(&mut heard);
    heard
}

#[test]
fn an_heir_of_another_version_is_told_no_more_than_that() {
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

    // It goes on as if nothing had been.
    let next = scene.agent().start();
    drop(leader);
    wait_role(&next, "leader");
    assert_owned(&pod.run(["get"]), &pod);
    assert_eq!(scene.eks_auth.call_count(), 1);
}

/// Stands in for a leader that greets so and then says this, and starts an heir beside it.
fn heir_of(scene: &Scene, greeting: &'static [u8]) -> Agent {
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
            // The heir may hang up at any time.
            let _ = stream.write_all(greeting);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    scene.agent().start()
}

#[test]
fn a_leader_that_makes_no_sense_is_not_listened_to() {
    needs_privileges!();
    for (greeting, noticed) in [
        (&OTHER_VERSION[..], "in another version"),
        (b"220 smtp.example ESMTP\r\n", "cannot be heard"),
        (b"podcreds\x00\x01\x01\xff\xff\xff\xff", "cannot be heard"),
    ] {
        let scene = Scene::new();
        let heir = heir_of(&scene, greeting);
        heir.logs()
            .wait_for(noticed, |line| line.message.contains(noticed));
        wait_role(&heir, "successor");
        let pod = scene.served_pod("web");
        assert_owned(&pod.run(["get"]), &pod);
    }
}

/// What cannot be read is passed over, and what comes after it is heard.
#[test]
fn what_an_heir_does_not_understand_is_passed_over() {
    needs_privileges!();
    const KIB: u32 = 1024;
    let too_long = [&[1][..], &(257 * KIB).to_be_bytes(), &[b'x'; 257 * 1024]].concat();
    for entry in [
        &too_long[..],
        // A change that is none, one of a pod that cannot be told, and a kind that there is not
        // yet.
        b"\x01\x00\x00\x00\x02{}",
        b"\x01\x00\x00\x00\x23{\"subject\":{\"pod\":\"?\"},\"kept\":null}",
        b"\x07\x00\x00\x00\x02{}",
    ] {
        let scene = Scene::new();
        let said = [GREETING, entry, b"\x02\x00\x00\x00\x00"].concat();
        let heir = heir_of(&scene, said.leak());
        let all = "took in the credentials of the agent before this one";
        heir.logs().wait_for(all, |line| line.message == all);
        let skipped = [("direction", "received")];
        heir.wait_metric("podcreds_handover_skipped_total", &skipped, |it| it == 1.0);
        let warnings = heir.logs().all().into_iter();
        let warnings = warnings.filter(|line| line.message.starts_with("passed over"));
        assert_eq!(warnings.count(), 1);
    }
}
