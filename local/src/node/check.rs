//! Asks a container something: the checks of probes and hooks, as the kubelet makes them.

use std::{net::SocketAddr, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::plan::Check;
use crate::keeper::{Command, Keeper, Signal};

const USER_AGENT: HeaderValue = HeaderValue::from_static("kube-probe/1.34");
/// As much of an answer as is read; kubelet's limit.
const MAX_BODY: usize = 10 * 1024;

/// Asks once. The error is what the kubelet would put into its event. `inside` is who starts an exec check, and the
/// container's own command, whose environment and folder it shares.
pub(super) async fn ask(
    check: &Check,
    timeout: Duration,
    hold: Option<Duration>,
    inside: Option<(&Keeper, &Command)>,
) -> Result<(), String> {
    let patience = timeout + hold.unwrap_or_default();
    let asked = async {
        match check {
            Check::Http { https: true, .. } => Err("https checks are not supported for processes".to_owned()),
            Check::Http { to, path, headers, .. } => http(*to, path, headers, hold).await,
            Check::Tcp { to } => TcpStream::connect(to).await.map(drop).map_err(|error| error.to_string()),
            Check::Grpc { to, service } => grpc(*to, service).await,
            Check::Sleep { seconds } => {
                tokio::time::sleep(Duration::from_secs(*seconds)).await;
                Ok(())
            }
            Check::Broken { reason } => Err(reason.clone()),
            Check::Exec { .. } => Ok(()),
        }
    };
    match check {
        Check::Exec { command } => exec(command, timeout, inside).await,
        _ => tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| Err("timed out".to_owned())),
    }
}

async fn http(to: SocketAddr, path: &str, headers: &[(String, String)], hold: Option<Duration>) -> Result<(), String> {
    let stream = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let mut request = Request::get(path).body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let map = request.headers_mut();
    map.insert(header::USER_AGENT, USER_AGENT);
    map.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    map.insert(header::CONNECTION, HeaderValue::from_static("close"));
    map.insert(header::HOST, HeaderValue::from_str(&to.to_string()).map_err(|error| error.to_string())?);
    for (name, value) in headers {
        let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
        map.insert(name, HeaderValue::from_str(value).map_err(|error| error.to_string())?);
    }
    if let Some(hold) = hold {
        map.insert(api::headers::HOLD, HeaderValue::from(hold.as_millis() as u64));
    }
    // The connection's future ends with it; dropping the pair closes the socket.
    let exchange = async {
        let answer: Response<Incoming> = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let _ = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        if (200..400).contains(&status.as_u16()) {
            Ok(())
        } else {
            Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
        }
    };
    tokio::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        _ = connection => exchange.await,
    }
}

/// `grpc.health.v1.Health/Check`: small enough to write the two messages by hand.
async fn grpc(to: SocketAddr, service: &str) -> Result<(), String> {
    let stream = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut message = BytesMut::new();
    if !service.is_empty() {
        let length = u8::try_from(service.len()).ok().filter(|length| *length < 128).ok_or("service name too long")?;
        message.put_u8(0x0a);
        message.put_u8(length);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    let request = Request::post(format!("http://{to}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::new(frame.freeze()))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await.map_err(|error| error.to_string())?;
        // Five bytes of frame, then field 1 (varint) = 1: SERVING.
        match body.to_bytes().get(5..7) {
            Some([0x08, 0x01]) => Ok(()),
            _ => Err("service unhealthy".to_owned()),
        }
    };
    tokio::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        _ = connection => exchange.await,
    }
}

async fn exec(argv: &[String], timeout: Duration, inside: Option<(&Keeper, &Command)>) -> Result<(), String> {
    let (keeper, inside) = inside.ok_or("the container does not run")?;
    let path = inside.env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
    let mut argv = argv.to_vec();
    let program = argv.first_mut().ok_or("no command")?;
    *program = super::images::find_program(program, path, &inside.cwd)
        .ok_or_else(|| format!("exec: {program:?}: executable file not found in $PATH"))?;
    let command = Command { argv, log: None, ..inside.clone() };
    let mut process = keeper.spawn(command).await.map_err(|error| error.to_string())?;
    match tokio::time::timeout(timeout, &mut process.exit).await {
        Ok(Ok(exit)) if exit.exit_code() == 0 => Ok(()),
        Ok(Ok(exit)) => Err(format!("command exited with {}", exit.exit_code())),
        Ok(Err(_)) => Err("the keeper process has ended".to_owned()),
        Err(_) => {
            keeper.signal(process.id(), Signal::Kill);
            Err(format!("command timed out after {}s", timeout.as_secs()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    const SOON: Duration = Duration::from_secs(20);

    /// A server that answers every connection with `answer` and gives back the heads it got.
    async fn server(answer: &'static [u8]) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, got) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let n = stream.read(&mut head).await.unwrap_or(0);
                let _ = heads.send(String::from_utf8_lossy(&head[..n]).to_lowercase());
                let _ = stream.write_all(answer).await;
            }
        });
        (address, got)
    }

    fn get(to: SocketAddr) -> Check {
        let headers = vec![("X-Mine".to_owned(), "1".to_owned()), ("Host".to_owned(), "me".to_owned())];
        Check::Http { to, https: false, path: "/live?x=1".to_owned(), headers }
    }

    #[tokio::test]
    async fn an_http_check_speaks_as_the_kubelet_and_may_ask_to_be_held() {
        let (address, mut heads) = server(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        ask(&get(address), SOON, None, None).await.unwrap();
        let head = heads.recv().await.unwrap();
        assert!(head.starts_with("get /live?x=1 http/1.1\r\n"), "{head}");
        for line in ["user-agent: kube-probe/1.34", "x-mine: 1", "host: me", "connection: close"] {
            assert!(head.contains(line), "{head}");
        }
        assert!(!head.contains("dormouse-hold"));
        ask(&get(address), SOON, Some(Duration::from_millis(250)), None).await.unwrap();
        assert!(heads.recv().await.unwrap().contains("dormouse-hold: 250"));
    }

    #[tokio::test]
    async fn statuses_from_200_to_399_are_good() {
        for (answer, good) in [
            (&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..], true),
            (b"HTTP/1.1 302 Found\r\nlocation: /x\r\n\r\n", true),
            (b"HTTP/1.1 400 Bad\r\n\r\n", false),
            (b"HTTP/1.1 503 No\r\n\r\n", false),
            (b"junk", false),
        ] {
            let (address, _heads) = server(answer).await;
            let result = ask(&get(address), SOON, None, None).await;
            assert_eq!(result.is_ok(), good, "{:?} {result:?}", String::from_utf8_lossy(answer));
        }
    }

    #[tokio::test]
    async fn silence_times_out_and_closed_ports_refuse() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(ask(&get(address), Duration::from_millis(20), None, None).await.unwrap_err(), "timed out");
        ask(&Check::Tcp { to: address }, SOON, None, None).await.unwrap();
        drop(listener);
        assert!(ask(&Check::Tcp { to: address }, SOON, None, None).await.is_err());
        assert!(ask(&get(address), SOON, None, None).await.is_err());
    }

    #[tokio::test]
    async fn grpc_health_is_asked_and_understood() {
        for (body, good) in [(&[0, 0, 0, 0, 2, 8, 1][..], true), (&[0, 0, 0, 0, 2, 8, 2], false), (&[], false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let to = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let service = hyper::service::service_fn(move |request: Request<Incoming>| async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let asked = request.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(&asked[..], b"\0\0\0\0\x03\x0a\x01s");
                    Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(body))))
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
            let result = ask(&Check::Grpc { to, service: "s".to_owned() }, SOON, None, None).await;
            assert_eq!(result.is_ok(), good, "{result:?}");
        }
    }
}
