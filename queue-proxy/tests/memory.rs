//! What the real binary takes of memory while much passes through it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/process.rs"]
mod process;
mod support;

use process::Process;
use support::{Raw, on_runtime, raw_app};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MUCH: usize = 64 << 20;
/// What one connection may add at most, whatever passes: pieces of 256 KiB on their way, and the allocator's habits.
const GROWTH: usize = 4 << 20;

/// An app that swallows what it is sent, and answers with as much as its path says.
async fn app() -> u16 {
    let app = raw_app(|mut raw| async move {
        let mut buffer = vec![0; 256 << 10];
        loop {
            let head = raw.until("\r\n\r\n").await;
            let (head, begun) = head.split_once("\r\n\r\n").unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let mut left = length.map_or(0, |length| length.parse::<usize>().unwrap()) - begun.len();
            while left > 0 {
                left -= raw.0.read(&mut buffer).await.unwrap();
            }
            let answer: usize = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
            raw.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {answer}\r\n\r\n")).await;
            write(&mut raw, answer).await;
        }
    });
    app.await.port()
}

async fn write(raw: &mut Raw, mut bytes: usize) {
    let block = vec![b'x'; 256 << 10];
    while bytes > 0 {
        let some = bytes.min(block.len());
        if raw.0.write_all(&block[..some]).await.is_err() {
            return; // somebody has seen enough
        }
        bytes -= some;
    }
}

async fn read(raw: &mut Raw, mut bytes: usize) {
    let mut buffer = vec![0; 256 << 10];
    while bytes > 0 {
        let n = raw.0.read(&mut buffer).await.unwrap();
        assert!(n > 0, "{bytes} bytes are missing");
        bytes -= n;
    }
}

/// The most that it ever took beyond this.
fn grown(pod: &Process, before: usize) -> usize {
    pod.memory().saturating_sub(before)
}

/// What it takes after a first, small request.
async fn warm(pod: &Process) -> usize {
    let mut client = Raw::connect(pod.at).await;
    client.send("POST /10 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nwarm").await;
    client.until("xxxxxxxxxx").await;
    pod.memory()
}

#[test]
fn an_upload_and_a_download_pass_in_constant_memory() {
    on_runtime(async {
        let pod = Process::start("127.78.2.1", app().await, &[]);
        let before = warm(&pod).await;
        let mut client = Raw::connect(pod.at).await;
        client.send(&format!("POST /0 HTTP/1.1\r\nHost: a\r\nContent-Length: {MUCH}\r\n\r\n")).await;
        write(&mut client, MUCH).await;
        client.until("Content-Length: 0\r\n").await;
        let up = grown(&pod, before);
        client.send(&format!("GET /{MUCH} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let begun = client.until("\r\n\r\n").await;
        read(&mut client, MUCH - support::body(&begun).len()).await;
        let both = grown(&pod, before);
        assert!(up < GROWTH && both < GROWTH, "{up} bytes after the upload, {both} after the download");
    });
}

#[test]
fn clients_that_hardly_read_hold_little() {
    const CLIENTS: usize = 20;
    on_runtime(async {
        let pod = Process::start("127.78.2.2", app().await, &[]);
        let before = warm(&pod).await;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = Raw::connect(pod.at).await;
            client.send(&format!("GET /{MUCH} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            client.until("200 OK").await;
            clients.push(client);
        }
        for _ in 0..20 {
            for client in &mut clients {
                client.0.read_u8().await.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let each = grown(&pod, before) / CLIENTS;
        assert!(each < 1 << 20, "{each} bytes per client");
    });
}

#[test]
fn what_is_sent_ahead_or_before_the_answer_is_bounded() {
    on_runtime(async {
        // An app that answers nothing but 1xx, to a client that reads none of them and sends without end.
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1000);
            while raw.0.write_all(hints.as_bytes()).await.is_ok() {}
        });
        let pod = Process::start("127.78.2.3", app.await.port(), &[("REVISION_TIMEOUT_SECONDS", "2")]);
        let before = pod.memory();
        let mut client = Raw::connect(pod.at).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), write(&mut client, 1 << 30)).await;
        let grown = grown(&pod, before);
        assert!(grown < GROWTH, "{grown} bytes");
        // Neither flood has stopped the clock.
        let (mut answer, mut buffer) = (Vec::new(), vec![0; 256 << 10]);
        while let Ok(n @ 1..) = client.0.read(&mut buffer).await {
            answer.drain(..answer.len().saturating_sub(1000));
            answer.extend_from_slice(&buffer[..n]);
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("HTTP/1.1 504 "), "{answer}");
    });
}
