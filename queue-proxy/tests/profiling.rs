//! The profiling port: a profile of a busy sidecar, one at a time, and nothing that is not asked for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use support::*;

async fn pod() -> Pod {
    let mut config = config(mirror().await);
    config.profiling_port = Some(0);
    Pod::start(config).await
}

#[test]
fn without_the_setting_there_is_no_port() {
    on_runtime(async {
        assert_eq!(Pod::before(mirror().await).await.at.profiling, None);
    });
}

#[test]
fn pages_that_mean_nothing_here_say_so() {
    on_runtime(async {
        let at = pod().await.at.profiling.unwrap();
        let index = say(at, &get("/debug/pprof/")).await;
        assert!(status(&index) == 200 && index.contains("profile?seconds="), "{index}");
        let command_line = say(at, &get("/debug/pprof/cmdline")).await;
        assert_eq!(body(&command_line), std::env::args().collect::<Vec<_>>().join("\0"));
        let heap = say(at, &get("/debug/pprof/heap")).await;
        assert!(status(&heap) == 404 && body(&heap).starts_with("heap: "), "{heap}");
        assert_eq!(status(&say(at, &get("/metrics")).await), 404);
    });
}

/// One test for all that takes profiles: the profiler is the process's.
#[cfg(feature = "profiling")]
#[test]
fn a_busy_sidecar_gives_samples_to_one_at_a_time() {
    on_runtime(async {
        let app = app(|_| async { http::Response::new(proxy::Body::full("ok")) });
        let mut config = config(app);
        config.profiling_port = Some(0);
        let pod = Pod::start(config).await;
        let at = pod.at.profiling.unwrap();

        let profile = profile(at);
        while !profile.is_finished() {
            pod.get("/").await;
        }
        let bytes = profile.await.unwrap();
        let at_body = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&bytes[..at_body]).to_lowercase();
        assert!(head.starts_with("http/1.1 200") && head.contains("application/octet-stream"), "{head}");
        // Two types of values, then at least one sample (fields 1, 1, 2).
        let message = &bytes[at_body..];
        let second = 2 + usize::from(message[1]);
        let third = second + 2 + usize::from(message[second + 1]);
        assert_eq!([message[0], message[second], message[third]], [0x0a, 0x0a, 0x12], "{:?}", &message[..=third]);

        let mut leaves = Raw::connect(at).await;
        leaves.send(&get("/debug/pprof/profile?seconds=120")).await;
        let busy = "another profile is being taken, try again later\n";
        while body(&String::from_utf8_lossy(&self::profile(at).await.unwrap())) != busy {}
        // Nobody waits for the long one any more, so it ends.
        drop(leaves);
        while !self::profile(at).await.unwrap().starts_with(b"HTTP/1.1 200") {}
    });
}

/// Asks for the shortest profile; gives the whole answer.
#[cfg(feature = "profiling")]
fn profile(at: std::net::SocketAddr) -> tokio::task::JoinHandle<Vec<u8>> {
    tokio::task::spawn_local(async move {
        let mut client = Raw::connect(at).await;
        client.send(&get("/debug/pprof/profile?seconds=1")).await;
        let mut bytes = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut client.0, &mut bytes).await;
        bytes
    })
}
