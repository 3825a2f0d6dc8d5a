//! Answers before the answer (1xx): all of them reach who may hear them, and none takes the final status away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use proxy::deadline::Limits;
use queue_proxy::Config;
use support::*;

/// An app that says these 1xx and then this answer.
async fn app_saying(interim: &'static str, last: &'static str) -> std::net::SocketAddr {
    raw_app(move |mut raw| async move {
        raw.until("\r\n\r\n").await;
        raw.send(interim).await;
        raw.send(last).await;
        raw.rest().await;
    })
    .await
}

const LAST: &str = "HTTP/1.1 418 Teapot\r\nContent-Length: 3\r\n\r\nend";

#[test]
fn each_is_relayed_and_the_final_status_follows() {
    on_runtime(async {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n";
        let two = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nx-a: b\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n";
        for (interim, relayed) in [
            (hints, hints),
            ("HTTP/1.1 102 Processing\r\n\r\n", "HTTP/1.1 102 Processing\r\n\r\n"),
            (two, "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-A: b\r\n\r\n"),
            // Nobody asked for this one.
            ("HTTP/1.1 100 Continue\r\n\r\n", ""),
            ("HTTP/1.1 199 Odd\r\n\r\n", "HTTP/1.1 199 Unknown\r\n\r\n"),
        ] {
            let pod = Pod::before(app_saying(interim, LAST).await).await;
            let answer = pod.get("/").await;
            let rest = answer.strip_prefix(relayed).unwrap_or_else(|| panic!("{answer}"));
            assert!(rest.starts_with("HTTP/1.1 418 "), "{answer}");
            assert_eq!(body(rest), "end", "{answer}");
        }
    });
}

#[test]
fn one_comes_before_the_answer_is_there() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
            raw.until("seen").await;
            raw.send(LAST).await;
        })
        .await;
        let pod = Pod::before(app).await;
        let mut client = pod.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").await;
        assert_eq!(client.until("\r\n\r\n").await, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        client.send("seen").await;
        assert!(client.until("end").await.starts_with("HTTP/1.1 418 "));
    });
}

#[test]
fn clients_of_http_1_0_hear_none() {
    on_runtime(async {
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n";
        for lines in ["", "Expect: 100-continue\r\nContent-Length: 2\r\n", "Connection: keep-alive\r\n"] {
            let pod = Pod::before(app_saying(interim, LAST).await).await;
            let mut client = pod.connect().await;
            client.send(&format!("POST / HTTP/1.0\r\n{lines}\r\n")).await;
            client.send("ab").await;
            assert!(client.until("end").await.starts_with("HTTP/1.1 418 "), "{lines:?}");
        }
    });
}

#[test]
fn a_client_is_asked_for_its_body_once_however_often_the_app_asks() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(3)).await;
            raw.until("body").await;
            raw.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            raw.send(LAST).await;
            raw.rest().await;
        })
        .await;
        let pod = Pod::before(app).await;
        let mut client = pod.connect().await;
        client
            .send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n")
            .await;
        let mut seen = client.until("\r\n\r\n").await;
        client.send("body").await;
        seen.push_str(&client.rest().await);
        assert_eq!(seen.matches("HTTP/1.1 100 ").count(), 1, "{seen}");
        assert!(seen.contains("\r\n\r\nHTTP/1.1 418 ") && seen.ends_with("end"), "{seen}");
    });
}

#[test]
fn an_app_that_does_not_ask_gets_the_body_all_the_same() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\nbody").await;
            raw.send(LAST).await;
        })
        .await;
        let pod = Pod::before(app).await;
        let mut client = pod.connect().await;
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
        client.until("HTTP/1.1 100 Continue\r\n\r\n").await;
        client.send("body").await;
        assert!(client.until("end").await.starts_with("HTTP/1.1 418 "));
    });
}

#[test]
fn a_flood_of_them_stops_neither_the_clock_nor_a_hang_up() {
    on_runtime(async {
        let ended = Rc::new(Cell::new(0));
        let count = Rc::clone(&ended);
        let app = raw_app(move |mut raw| {
            let ended = Rc::clone(&count);
            async move {
                raw.until("\r\n\r\n").await;
                let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000);
                while tokio::io::AsyncWriteExt::write_all(&mut raw.0, flood.as_bytes()).await.is_ok() {}
                ended.set(ended.get() + 1);
            }
        })
        .await;
        let limits = Limits { total: Some(Duration::from_millis(500)), ..Limits::default() };
        let pod = Pod::start(Config { limits, ..config(app) }).await;
        let answer = pod.get("/").await;
        assert!(answer.contains("HTTP/1.1 504 "), "{:?}", &answer[answer.len().saturating_sub(200)..]);

        let pod = Pod::before(app).await;
        let mut client = pod.connect().await;
        client.send(&get("/")).await;
        client.until("103").await;
        drop(client);
        while ended.get() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}
