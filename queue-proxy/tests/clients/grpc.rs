//! gRPC of all four kinds, by tonic on both sides.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use http::uri::PathAndQuery;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::process::Process;
use crate::support::on_runtime;

#[derive(Clone, PartialEq, prost::Message)]
struct Note {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(uint64, tag = "2")]
    number: u64,
}

fn note(number: u64) -> Note {
    Note { text: format!("note {number}"), number }
}

type Codec = ProstCodec<Note, Note>;
type Notes = BoxStream<'static, Result<Note, Status>>;

/// What the app has seen of a call that it never answers.
#[derive(Clone, Default)]
struct Hanging {
    began: Arc<AtomicBool>,
    left: Arc<AtomicBool>,
}

struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn comes_true(flag: &AtomicBool) {
    while !flag.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// One of the app's methods. On the wire all four kinds are streams both ways.
struct Method {
    name: String,
    hanging: Hanging,
}

impl tonic::server::StreamingService<Note> for Method {
    type Response = Note;
    type ResponseStream = Notes;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Notes>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Note>>) -> Self::Future {
        let (name, hanging) = (self.name.clone(), self.hanging.clone());
        Box::pin(async move {
            let metadata = request.metadata().clone();
            let mut notes = request.into_inner();
            let answer: Notes = match name.as_str() {
                "/notes.Desk/Echo" => notes.boxed(),
                "/notes.Desk/Count" => {
                    let many = notes.message().await?.map_or(0, |note| note.number);
                    stream::iter((0..many).map(|n| Ok(note(n)))).boxed()
                }
                "/notes.Desk/Sum" => {
                    let mut sum = 0;
                    while let Some(note) = notes.message().await? {
                        sum += note.number;
                    }
                    stream::iter([Ok(note(sum))]).boxed()
                }
                "/notes.Desk/Fail" => return Err(failure()),
                "/notes.Desk/FailLate" => stream::iter([Ok(note(1)), Ok(note(2)), Err(failure())]).boxed(),
                "/notes.Desk/Metadata" => {
                    let mut response = Response::new(stream::iter([Ok(note(0))]).boxed());
                    for key in ["x-large", "grpc-timeout"] {
                        if let Some(value) = metadata.get(key) {
                            response.metadata_mut().insert(
                                format!("x-seen-{key}").parse::<tonic::metadata::AsciiMetadataKey>().unwrap(),
                                value.clone(),
                            );
                        }
                    }
                    if let Some(value) = metadata.get_bin("x-some-bin") {
                        response.metadata_mut().insert_bin("x-seen-bin", value.clone());
                    }
                    return Ok(response);
                }
                "/notes.Desk/Hang" => {
                    let _guard = Guard(hanging.left);
                    hanging.began.store(true, Ordering::SeqCst);
                    std::future::pending().await
                }
                "/notes.Desk/HangLate" => {
                    let guard = Guard(hanging.left);
                    hanging.began.store(true, Ordering::SeqCst);
                    let silence = stream::once(async move {
                        let _guard = guard;
                        std::future::pending().await
                    });
                    stream::iter([Ok(note(1))]).chain(silence).boxed()
                }
                _ => return Err(Status::unimplemented(name)),
            };
            Ok(Response::new(answer))
        })
    }
}

fn failure() -> Status {
    let mut metadata = tonic::metadata::MetadataMap::new();
    metadata.insert("x-reason", "none".parse().unwrap());
    Status::with_details_and_metadata(
        Code::FailedPrecondition,
        "nicht jetzt: 100% später",
        vec![0, 1, 0xff].into(),
        metadata,
    )
}

/// The app; it speaks h2c only.
async fn desk() -> (SocketAddr, Hanging) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, hanging) = (listener.local_addr().unwrap(), Hanging::default());
    let shared = hanging.clone();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let hanging = shared.clone();
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let method = Method { name: request.uri().path().to_owned(), hanging: hanging.clone() };
                async move {
                    let mut server = tonic::server::Grpc::new(Codec::default());
                    Ok::<_, std::convert::Infallible>(server.streaming(method, request).await)
                }
            });
            tokio::task::spawn_local(
                http2::Builder::new(proxy::runtime::LocalExecutor)
                    .timer(TokioTimer::new())
                    .max_header_list_size(1 << 20)
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (address, hanging)
}

async fn client(pod: &Process) -> tonic::client::Grpc<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", pod.at)).unwrap().http2_max_header_list_size(1 << 20);
    let mut client = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
    client.ready().await.unwrap();
    client
}

fn method(name: &str) -> PathAndQuery {
    format!("/notes.Desk/{name}").parse().unwrap()
}

async fn all(answer: Result<Response<Streaming<Note>>, Status>) -> Result<Vec<u64>, Status> {
    let mut notes = answer?.into_inner();
    let mut numbers = Vec::new();
    while let Some(note) = notes.message().await? {
        numbers.push(note.number);
    }
    Ok(numbers)
}

#[test]
fn calls_of_all_four_kinds() {
    on_runtime(async {
        let (app, _) = desk().await;
        let pod = Process::start("127.78.1.40", app.port(), &[]);
        let mut client = client(&pod).await;
        let answer = client.unary(Request::new(note(7)), method("Echo"), Codec::default()).await.unwrap();
        assert_eq!(answer.into_inner(), note(7));

        client.ready().await.unwrap();
        let counted = client.server_streaming(Request::new(note(1000)), method("Count"), Codec::default()).await;
        assert_eq!(all(counted).await.unwrap(), (0..1000).collect::<Vec<_>>());

        client.ready().await.unwrap();
        let many = Request::new(stream::iter((0..1000).map(note)));
        let sum = client.client_streaming(many, method("Sum"), Codec::default()).await.unwrap();
        assert_eq!(sum.into_inner().number, 499_500);

        // Each is answered before the next is sent.
        client.ready().await.unwrap();
        let (mut say, said) = futures::channel::mpsc::channel(1);
        let first = say.try_send(note(0));
        let mut answers =
            client.streaming(Request::new(said), method("Echo"), Codec::default()).await.unwrap().into_inner();
        first.unwrap();
        for n in 1..50 {
            assert_eq!(answers.message().await.unwrap(), Some(note(n - 1)));
            say.try_send(note(n)).unwrap();
        }
        drop(say);
        assert_eq!(answers.message().await.unwrap(), Some(note(49)));
        assert_eq!(answers.message().await.unwrap(), None);

        // A message that is larger than any frame and any window.
        client.ready().await.unwrap();
        let large = Note { text: "x".repeat(3 << 20), number: 1 };
        let answer = client.unary(Request::new(large.clone()), method("Echo"), Codec::default()).await.unwrap();
        assert!(answer.into_inner() == large);
    });
}

#[test]
fn a_status_comes_with_its_details_at_once_or_after_messages() {
    on_runtime(async {
        let (app, _) = desk().await;
        let pod = Process::start("127.78.1.41", app.port(), &[]);
        let mut client = client(&pod).await;
        let at_once = client.unary(Request::new(note(0)), method("Fail"), Codec::default()).await.unwrap_err();
        client.ready().await.unwrap();
        let answer = client.server_streaming(Request::new(note(0)), method("FailLate"), Codec::default()).await;
        let mut notes = answer.unwrap().into_inner();
        assert_eq!(notes.message().await.unwrap(), Some(note(1)));
        assert_eq!(notes.message().await.unwrap(), Some(note(2)));
        let late = notes.message().await.unwrap_err();
        for status in [at_once, late] {
            assert_eq!(status.code(), Code::FailedPrecondition);
            assert_eq!(status.message(), "nicht jetzt: 100% später");
            assert_eq!(status.details(), [0, 1, 0xff]);
            assert_eq!(status.metadata().get("x-reason").unwrap(), "none");
        }
        client.ready().await.unwrap();
        let unknown = client.unary(Request::new(note(0)), method("Unknown"), Codec::default()).await.unwrap_err();
        assert_eq!(unknown.code(), Code::Unimplemented);
    });
}

#[test]
fn metadata_passes_large_and_binary() {
    on_runtime(async {
        let (app, _) = desk().await;
        let pod = Process::start("127.78.1.42", app.port(), &[]);
        let mut client = client(&pod).await;
        let mut request = Request::new(note(0));
        let large = "m".repeat(100_000);
        request.metadata_mut().insert("x-large", large.parse().unwrap());
        request.metadata_mut().insert_bin("x-some-bin", MetadataValue::from_bytes(&[0, 0x80, 0xff]));
        let answer = client.unary(request, method("Metadata"), Codec::default()).await.unwrap();
        assert_eq!(answer.metadata().get("x-seen-x-large").unwrap(), large.as_str());
        assert_eq!(answer.metadata().get_bin("x-seen-bin").unwrap().to_bytes().unwrap().as_ref(), [0, 0x80, 0xff]);
    });
}

#[test]
fn a_deadline_is_told_to_the_app_and_its_end_reaches_it() {
    on_runtime(async {
        let (app, hanging) = desk().await;
        let pod = Process::start("127.78.1.43", app.port(), &[("CONTAINER_CONCURRENCY", "1")]);
        let mut client = client(&pod).await;
        let mut request = Request::new(note(0));
        request.set_timeout(Duration::from_secs(77));
        let answer = client.unary(request, method("Metadata"), Codec::default()).await.unwrap();
        let told = answer.metadata().get("x-seen-grpc-timeout").unwrap().to_str().unwrap();
        assert!(told.starts_with("77"), "{told}");

        client.ready().await.unwrap();
        let mut request = Request::new(note(0));
        request.set_timeout(Duration::from_millis(300));
        let status = client.unary(request, method("Hang"), Codec::default()).await.unwrap_err();
        // tonic's client calls its own deadline a cancellation.
        assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
        comes_true(&hanging.left).await;

        // The slot is free again.
        client.ready().await.unwrap();
        client.unary(Request::new(note(0)), method("Echo"), Codec::default()).await.unwrap();
    });
}

#[test]
fn a_cancelled_call_is_cancelled_for_the_app() {
    on_runtime(async {
        for name in ["Hang", "HangLate"] {
            let (app, hanging) = desk().await;
            let pod = Process::start("127.78.1.44", app.port(), &[("CONTAINER_CONCURRENCY", "1")]);
            let mut client = client(&pod).await;
            {
                let call = client.server_streaming(Request::new(note(0)), method(name), Codec::default());
                let mut call = std::pin::pin!(call);
                if name == "Hang" {
                    tokio::select! {
                        _ = call.as_mut() => panic!("answered"),
                        () = comes_true(&hanging.began) => {}
                    }
                } else {
                    let mut notes = call.await.unwrap().into_inner();
                    assert_eq!(notes.message().await.unwrap(), Some(note(1)));
                }
                assert!(!hanging.left.load(Ordering::SeqCst));
            }
            comes_true(&hanging.left).await;
            client.ready().await.unwrap();
            client.unary(Request::new(note(0)), method("Echo"), Codec::default()).await.unwrap();
        }
    });
}

#[test]
fn the_limit_of_the_sidecar_ends_a_call() {
    on_runtime(async {
        let (app, hanging) = desk().await;
        let pod = Process::start("127.78.1.45", app.port(), &[("REVISION_TIMEOUT_SECONDS", "1")]);
        let mut client = client(&pod).await;
        // Before the answer: 504, which clients of gRPC make what they like of. After: the stream is reset.
        let status = client.unary(Request::new(note(0)), method("Hang"), Codec::default()).await.unwrap_err();
        assert!(status.code() != Code::Ok && status.message().contains("504"), "{status}");
        comes_true(&hanging.left).await;
        client.ready().await.unwrap();
        let answer = client.server_streaming(Request::new(note(0)), method("HangLate"), Codec::default()).await;
        let mut notes = answer.unwrap().into_inner();
        assert_eq!(notes.message().await.unwrap(), Some(note(1)));
        assert_ne!(notes.message().await.unwrap_err().code(), Code::Ok);
    });
}
