//! The real binary, with the environment that a controller gives it.
//!
//! Its side ports are fixed, so each process has an address of its own in 127/8.
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The command, not started yet.
pub fn sidecar(serving: u16, bind: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_queue-proxy"));
    command
        .env_clear()
        .envs([
            ("CONTAINER_CONCURRENCY", "0"),
            ("QUEUE_SERVING_TLS_PORT", "8112"),
            ("USER_PORT", "1"),
            ("REVISION_TIMEOUT_SECONDS", "300"),
            ("SERVING_NAMESPACE", "ns"),
            ("SERVING_CONFIGURATION", "conf"),
            ("SERVING_REVISION", "rev"),
            ("SERVING_POD", "pod1"),
            ("SERVING_POD_IP", "10.0.0.1"),
            ("SERVING_LOGGING_CONFIG", ""),
            ("SERVING_LOGGING_LEVEL", ""),
            ("DORMOUSE_BIND_ADDRESS", bind),
            ("DORMOUSE_DRAIN_QUIET_MS", "0"),
        ])
        .env("QUEUE_SERVING_PORT", serving.to_string())
        .stderr(Stdio::piped());
    command
}

/// A sidecar that serves; killed when dropped.
pub struct Process {
    pub child: Child,
    pub at: SocketAddr,
}

impl Process {
    /// Starts it before the app at this port, with more of the environment, and waits until it listens.
    pub fn start(bind: &str, user_port: u16, more: &[(&str, &str)]) -> Self {
        let mut command = sidecar(8012, bind);
        command.env("USER_PORT", user_port.to_string()).envs(more.iter().copied()).stderr(Stdio::null());
        let mut process = Self { child: command.spawn().unwrap(), at: SocketAddr::new(bind.parse().unwrap(), 8012) };
        while TcpStream::connect(process.at).is_err() {
            assert!(process.child.try_wait().unwrap().is_none(), "ended early");
            std::thread::sleep(Duration::from_millis(2));
        }
        process
    }

    /// The most memory that it ever took, by the kernel's count, in bytes.
    pub fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
