//! Request lines and headers on their way to the app: what passes as it is, what is made legal, what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::Cell;
use std::rc::Rc;

use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An app that answers with the request head, byte for byte.
async fn exact_mirror() -> std::net::SocketAddr {
    raw_app(|mut raw| async move {
        let (mut head, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
        while !head.ends_with(b"\r\n\r\n") {
            let n = raw.0.read(&mut buffer).await.unwrap();
            head.extend_from_slice(&buffer[..n]);
        }
        raw.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", head.len())).await;
        raw.0.write_all(&head).await.unwrap();
    })
    .await
}

/// What the app is sent for these bytes; without a request to it, the answer.
async fn sent(pod: &Pod, request: &[u8]) -> Vec<u8> {
    let mut client = pod.connect().await;
    client.0.write_all(request).await.unwrap();
    let mut seen = Vec::new();
    client.0.read_to_end(&mut seen).await.unwrap();
    let head = seen.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    if seen.starts_with(b"HTTP/1.1 200 ") { seen.split_off(head + 4) } else { seen }
}

#[test]
fn the_request_line_reaches_the_app_with_its_path_made_legal_and_its_query_untouched() {
    on_runtime(async {
        let pod = Pod::before(exact_mirror().await).await;
        let long = "q".repeat(100_000);
        let long = (format!("GET /?{long}"), format!("GET /?{long}"));
        let table: &[(&[u8], &[u8])] = &[
            (b"GET /", b"GET /"),
            (b"GET //x//y/../%2f;a=b?c=d&&=", b"GET //x//y/../%2f;a=b?c=d&&="),
            (b"GET /<a>`b|{c}^\"#d", b"GET /%3Ca%3E%60b%7C%7Bc%7D%5E%22%23d"),
            (b"GET /caf\xc3\xa9", b"GET /caf%C3%A9"),
            (b"GET /\xff", b"GET /%FF"),
            (b"GET /?<a>`b|{c}^\"#d%zz\xc3\xa9\xff", b"GET /?<a>`b|{c}^\"#d%zz\xc3\xa9\xff"),
            (b"GET /\xc3\xa9?\xc3\xa9?x", b"GET /%C3%A9?\xc3\xa9?x"),
            (b"GET /?", b"GET /?"),
            (long.0.as_bytes(), long.1.as_bytes()),
            (b"OPTIONS *", b"OPTIONS *"),
            (b"CONNECT app:443", b"CONNECT app:443"),
            (b"CONNECT /path?q", b"CONNECT /path?q"),
            (b"BREW /pot", b"BREW /pot"),
            (b"get /", b"get /"),
            (b"M-SEARCH /", b"M-SEARCH /"),
            (b"GET http://app/p?q", b"GET /p?q"),
            (b"GET http://app?q", b"GET /?q"),
        ];
        for (line, expected) in table {
            let request = [line, &b" HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"[..]].concat();
            let got = sent(&pod, &request).await;
            let expected = [expected, &b" HTTP/1.1\r\n"[..]].concat();
            let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
            assert!(got.starts_with(&expected), "{}: {}", text(line), text(&got));
        }
    });
}

#[test]
fn what_has_no_meaning_is_400_and_never_sent() {
    on_runtime(async {
        let asked = Rc::new(Cell::new(0));
        let count = Rc::clone(&asked);
        let app = raw_app(move |_| {
            count.set(count.get() + 1);
            async {}
        })
        .await;
        let pod = Pod::before(app).await;
        for line in
            ["GET /%zz", "GET /%2", "GET /a%", "GET page", "GET http:///p", "GET ", "CONNECT a/b/c", "G\u{e9}T /"]
        {
            let got = sent(&pod, format!("{line} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n").as_bytes()).await;
            assert!(got.starts_with(b"HTTP/1.1 400 "), "{line}: {}", String::from_utf8_lossy(&got));
        }
        assert_eq!(asked.get(), 0);
    });
}

#[test]
fn the_host_of_an_absolute_target_wins_without_its_user() {
    on_runtime(async {
        let pod = Pod::before(mirror().await).await;
        for (target, host) in [("http://real:81/p", "real:81"), ("http://user:secret@real/p", "real")] {
            let got =
                sent(&pod, format!("GET {target} HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n").as_bytes())
                    .await;
            let got = String::from_utf8_lossy(&got).into_owned();
            assert!(got.contains(&format!("\r\nHost: {host}\r\n")) && !got.contains("other"), "{got}");
        }
    });
}

#[test]
fn a_head_of_the_limit_passes_and_one_byte_more_is_431() {
    const LIMIT: usize = (1 << 20) + 4096;
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            let mut seen = 0;
            let mut buffer = vec![0; 64 << 10];
            // Large heads are slow to search for their end again and again.
            while seen < 1 << 20 {
                seen += raw.0.read(&mut buffer).await.unwrap();
            }
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
            raw.rest().await;
        })
        .await;
        let pod = Pod::before(app).await;
        for (size, status) in [(LIMIT - 1, 200), (LIMIT, 200), (LIMIT + 1, 431)] {
            let start = "GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\nX: ";
            let request = format!("{start}{}\r\n\r\n", "x".repeat(size - start.len() - 4));
            assert_eq!(request.len(), size);
            assert_eq!(support::status(&pod.say(&request).await), status, "{size} bytes");
        }
    });
}

#[test]
fn hundreds_of_header_lines_pass_both_ways_in_their_order() {
    on_runtime(async {
        for lines in [100, 101, 1000] {
            let many: String = (0..lines).map(|n| format!("X-N: {n}\r\n")).collect();
            let answer = many.clone();
            let app = raw_app(move |mut raw| {
                let answer = answer.clone();
                async move {
                    let head = raw.until("\r\n\r\n").await;
                    let same = head.contains(&answer);
                    raw.send(&format!("HTTP/1.1 200 OK\r\n{answer}Content-Length: 4\r\nConnection: close\r\n\r\n"))
                        .await;
                    raw.send(if same { "same" } else { "else" }).await;
                }
            })
            .await;
            let pod = Pod::before(app).await;
            let answer = pod.say(&format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{many}\r\n")).await;
            assert_eq!(status(&answer), 200, "{lines}");
            assert!(answer.contains(&many) && answer.ends_with("same"), "{lines}: {answer}");
        }
    });
}

#[test]
fn values_of_any_bytes_pass_both_ways() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            let mut head = vec![0; 4096];
            let n = raw.0.read(&mut head).await.unwrap();
            let value = b"X-Bytes: a\xe9\xff\t\x80z\r\n";
            assert!(head[..n].windows(value.len()).any(|window| window == value));
            let answer = [&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"[..], value, b"Connection: close\r\n\r\n"];
            raw.0.write_all(&answer.concat()).await.unwrap();
        })
        .await;
        let pod = Pod::before(app).await;
        let mut client = pod.connect().await;
        client
            .0
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Bytes: a\xe9\xff\t\x80z\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        client.0.read_to_end(&mut answer).await.unwrap();
        let value = b"X-Bytes: a\xe9\xff\t\x80z\r\n";
        assert!(answer.windows(value.len()).any(|window| window == value), "{}", String::from_utf8_lossy(&answer));
    });
}

#[test]
fn an_h2c_upgrade_goes_on_as_http_1_1_with_its_wish_and_its_answer_comes_back() {
    on_runtime(async {
        let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                       HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
        // An app that does not know it answers as always.
        let pod = Pod::before(mirror().await).await;
        let mut client = pod.connect().await;
        client.send(request).await;
        let answer = client.until("X-Forwarded-For: 127.0.0.1\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("Connection: Upgrade\r\nUpgrade: h2c\r\n"), "{answer}");
        assert!(!answer.contains("Settings"), "what Connection names ends here: {answer}");

        // One that does gets the connection.
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nframes").await;
            raw.until("PRI").await;
            raw.send("more").await;
        })
        .await;
        let pod = Pod::before(app).await;
        let mut client = pod.connect().await;
        client.send(request).await;
        assert!(client.until("frames").await.contains("Upgrade: h2c\r\n"));
        client.send("PRI").await;
        assert_eq!(client.rest().await, "more");
    });
}
