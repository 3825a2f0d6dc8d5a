//! The keeper with real processes: what runs, what is logged, and that nothing survives.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test cannot do without has failed it"
)]

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command as Std, Stdio},
    time::{Duration, Instant},
};

use local::keeper::{Command, Error, Exit, Keeper, Signal};

const EXE: &str = env!("CARGO_BIN_EXE_dormouse");
/// Long enough for a loaded machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(20);

fn sh(dir: &Path, script: &str) -> Command {
    Command {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).into(),
        env: vec![("PATH".to_owned(), std::env::var("PATH").unwrap_or_default())],
        cwd: dir.to_owned(),
        log: Some(dir.join("0.log")),
    }
}

/// The processes whose working directory is `dir`: everything a test started there.
fn running_in(dir: &Path) -> BTreeSet<i32> {
    let dir = dir.canonicalize().unwrap();
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)).collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_process_runs_with_its_own_environment_folder_and_log() {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, _ended) = Keeper::start(Path::new(EXE)).unwrap();
    let mut command = sh(dir.path(), "pwd; echo \"$ONE $HOME\"; echo err >&2; exit 7");
    command.env.push(("ONE".to_owned(), "1".to_owned()));
    let process = keeper.spawn(command).await.unwrap();
    assert_eq!(process.exit.await.unwrap(), Exit { code: Some(7), signal: None });
    let log = std::fs::read_to_string(dir.path().join("0.log")).unwrap();
    let text = |stream: &str| -> Vec<String> {
        let lines = log.lines().filter(|line| line.contains(stream));
        lines.map(|line| line.split_once(" F ").unwrap().1.to_owned()).collect()
    };
    assert_eq!(text(" stdout "), [dir.path().to_str().unwrap(), "1 "]);
    assert_eq!(text(" stderr "), ["err"]);
}

#[tokio::test]
async fn a_program_that_cannot_run_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, _ended) = Keeper::start(Path::new(EXE)).unwrap();
    let command = Command { argv: vec!["/no/such/program".to_owned()], ..sh(dir.path(), "") };
    let error = keeper.spawn(command).await.unwrap_err();
    assert!(matches!(&error, Error::Spawn(why) if why.contains("No such file")), "{error}");
    // And the keeper goes on.
    let process = keeper.spawn(sh(dir.path(), "exit 0")).await.unwrap();
    assert_eq!(process.exit.await.unwrap().exit_code(), 0);
}

#[tokio::test]
async fn signals_reach_the_whole_group_and_leftovers_go_with_the_main_process() {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, _ended) = Keeper::start(Path::new(EXE)).unwrap();
    // A child in the group, and one that has left it for a session of its own and lost its parent.
    let script = "sleep 1000 & (setsid sleep 1001 &) ; sleep 1002";
    let process = keeper.spawn(sh(dir.path(), script)).await.unwrap();
    let other = keeper.spawn(Command { log: None, ..sh(dir.path(), "exec sleep 1003") }).await.unwrap();
    until("four processes", || running_in(dir.path()).len() >= 5).await;
    keeper.signal(process.id(), Signal::Term);
    let exit = tokio::time::timeout(PATIENCE, process.exit).await.expect("SIGTERM ends it");
    assert_eq!(exit.unwrap().exit_code(), 128 + 15);
    until("only the other container is left", || running_in(dir.path()) == BTreeSet::from([other.pid])).await;
}

#[tokio::test]
async fn a_chatty_process_is_not_held_up() {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, _ended) = Keeper::start(Path::new(EXE)).unwrap();
    let process = keeper.spawn(sh(dir.path(), "yes abcdefghij | head -c 25000000")).await.unwrap();
    let exit = tokio::time::timeout(PATIENCE * 3, process.exit).await.unwrap().unwrap();
    assert_eq!(exit.exit_code(), 0);
    let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
    assert!(size("0.log") + size("0.log.1") <= 2 * local::logs::MAX_FILE_BYTES);
}

#[tokio::test]
async fn closing_the_keeper_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, mut ended) = Keeper::start(Path::new(EXE)).unwrap();
    let process = keeper.spawn(sh(dir.path(), STUBBORN)).await.unwrap();
    until("all run", || running_in(dir.path()).len() >= 4).await;
    keeper.close();
    tokio::time::timeout(PATIENCE, ended.wait()).await.unwrap();
    assert_eq!(running_in(dir.path()), BTreeSet::new());
    assert!(process.exit.await.is_err(), "nobody can say how it ended");
    assert!(matches!(keeper.spawn(sh(dir.path(), "true")).await, Err(Error::KeeperGone)));
}

/// Ignores every polite signal, and hides a process from its parent and its session.
const STUBBORN: &str = "trap '' TERM INT HUP; (setsid sh -c '(sleep 1000 &) ; sleep 1001' &) ; sleep 1002";

/// The folder in which this program, started again by its own test, is the parent to be killed.
const PARENT_IN: &str = "KEEPER_TEST_DIR";

#[tokio::test]
async fn kill_9_of_the_parent_leaves_nothing() {
    if let Some(dir) = std::env::var_os(PARENT_IN) {
        return be_the_parent(Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut parent = Std::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill_9_of_the_parent_leaves_nothing", "--nocapture"])
        .env(PARENT_IN, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the grandchildren run", || running_in(dir.path()).len() >= 4).await;
    parent.kill().unwrap();
    parent.wait().unwrap();
    until("nothing is left", || running_in(dir.path()).is_empty()).await;
}

async fn be_the_parent(dir: &Path) {
    let (keeper, _ended) = Keeper::start(Path::new(EXE)).unwrap();
    let process = keeper.spawn(sh(dir, STUBBORN)).await.unwrap();
    let _ = process.exit.await;
}

#[tokio::test]
async fn without_its_keeper_no_container_runs_on() {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, mut ended) = Keeper::start(Path::new(EXE)).unwrap();
    let process = keeper.spawn(sh(dir.path(), "trap '' TERM; sleep 1000 & sleep 1001")).await.unwrap();
    until("both run", || running_in(dir.path()).len() >= 3).await;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
    let keeper_pid = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(1).unwrap().to_owned();
    // It is not for anybody to stop politely.
    assert!(Std::new("kill").args(["-TERM", &keeper_pid]).status().unwrap().success());
    let still = keeper.spawn(sh(dir.path(), "exit 0")).await.unwrap();
    assert_eq!(still.exit.await.unwrap().exit_code(), 0);
    assert!(Std::new("kill").args(["-9", &keeper_pid]).status().unwrap().success());
    tokio::time::timeout(PATIENCE, ended.wait()).await.unwrap();
    until("nothing is left", || running_in(dir.path()).is_empty()).await;
}
