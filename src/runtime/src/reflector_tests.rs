//! The reflector against a scripted server, under paused time.

use std::collections::VecDeque;
use std::sync::Arc;

use http::{Request as HttpRequest, Response};
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use kube::core::DynamicObject;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;

/// What the server does with one request.
enum Reply {
    /// Answers with this status and document.
    Json(u16, Value),
    /// Streams these lines after these waits (s), then ends (true) or hangs (false).
    Stream(Vec<(u64, Value)>, bool),
}

struct Server {
    begun: Instant,
    replies: VecDeque<Reply>,
    /// Time (ms) and query of each request.
    asked: Vec<(u128, String)>,
}

fn serve(replies: Vec<Reply>) -> (kube::Client, Arc<Mutex<Server>>) {
    let server = Arc::new(Mutex::new(Server {
        begun: Instant::now(),
        replies: replies.into(),
        asked: Vec::new(),
    }));
    let shared = Arc::clone(&server);
    let service = tower::service_fn(move |request: HttpRequest<Body>| {
        let reply = {
            let mut server = shared.lock();
            let at = server.begun.elapsed().as_millis();
            let query = request.uri().query().unwrap_or_default().to_owned();
            server.asked.push((at, query));
            server.replies.pop_front()
        };
        async move {
            let Some(reply) = reply else {
                return std::future::pending().await;
            };
            let (code, body) = match reply {
                Reply::Json(code, document) => (
                    code,
                    Full::from(document.to_string())
                        .map_err(|never| match never {})
                        .boxed_unsync(),
                ),
                Reply::Stream(lines, ends) => {
                    let stream = futures::stream::unfold(
                        (VecDeque::from(lines), ends),
                        |(mut lines, ends)| async move {
                            match lines.pop_front() {
                                Some((wait, line)) => {
                                    tokio::time::sleep(Duration::from_secs(wait)).await;
                                    let frame = hyper::body::Frame::data(bytes::Bytes::from(
                                        format!("{line}\n"),
                                    ));
                                    Some((Ok::<_, std::io::Error>(frame), (lines, ends)))
                                }
                                None if ends => None,
                                None => std::future::pending().await,
                            }
                        },
                    );
                    (200, http_body_util::StreamBody::new(stream).boxed_unsync())
                }
            };
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    (kube::Client::new(service, "default"), server)
}

fn object(name: &str, version: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "n", "resourceVersion": version.to_string()}})
}

fn list(version: u64, items: &[Value], next: &str) -> Reply {
    Reply::Json(
        200,
        json!({
            "apiVersion": "v1", "kind": "ConfigMapList", "items": items,
            "metadata": {"resourceVersion": version.to_string(), "continue": next},
        }),
    )
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn bookmark(version: u64) -> Value {
    event(
        "BOOKMARK",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": version.to_string()}}),
    )
}

fn status(code: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": "Whatever", "message": "scripted"})
}

/// Runs a reflector for `seconds`; returns what it told and what it asked.
async fn run(
    replies: Vec<Reply>,
    options: ReflectorOptions,
    seconds: u64,
) -> (Vec<String>, Vec<(u128, String)>) {
    let (client, server) = serve(replies);
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    let name = |o: &ConfigMap| o.metadata.name.clone().unwrap_or_default();
    let stop = CancellationToken::new();
    let api: Api<ConfigMap> = Api::all(client);
    let reflection = reflect(
        api,
        options,
        move |event| {
            sink.lock().push(match event {
                ReflectorEvent::Init(all) => {
                    format!("={}", all.iter().map(name).collect::<Vec<_>>().join(","))
                }
                ReflectorEvent::Applied(o) => format!("+{}", name(&o)),
                ReflectorEvent::Deleted(o) => format!("-{}", name(&o)),
            });
        },
        Clock::real(),
        &RngTree::new(1),
        stop.clone(),
    );
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.cancel();
    reflection.task.await.unwrap();
    let told = told.lock().clone();
    let asked = server.lock().asked.clone();
    (told, asked)
}

fn param<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

#[tokio::test(start_paused = true)]
async fn lists_by_pages_then_watches_from_there() {
    let replies = vec![
        list(7, &[object("a", 1), object("b", 2)], "more"),
        list(7, &[object("c", 3)], ""),
        Reply::Stream(
            vec![
                (1, event("MODIFIED", object("a", 8))),
                (1, event("ADDED", object("d", 9))),
                (1, event("DELETED", object("b", 10))),
                (1, bookmark(20)),
            ],
            true,
        ),
    ];
    let (told, asked) = run(
        replies,
        ReflectorOptions {
            page_size: 2,
            ..ReflectorOptions::default()
        },
        60,
    )
    .await;
    assert_eq!(told, ["=a,b,c", "+a", "+d", "-b"]);
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert_eq!(param(&asked[0].1, "limit"), Some("2"));
    assert_eq!(param(&asked[1].1, "continue"), Some("more"));
    assert_eq!(param(&asked[2].1, "resourceVersion"), Some("7"));
    assert_eq!(param(&asked[2].1, "timeoutSeconds"), Some("290"));
    assert_eq!(param(&asked[2].1, "allowWatchBookmarks"), Some("true"));
    assert_eq!(
        param(&asked[3].1, "resourceVersion"),
        Some("20"),
        "goes on from the bookmark"
    );
    assert_eq!(
        asked[3].0, 4000,
        "a watch that ended well is opened again at once"
    );
}

#[tokio::test(start_paused = true)]
async fn goes_on_from_the_last_object_seen() {
    let replies = vec![
        list(7, &[], ""),
        Reply::Stream(vec![(2, event("DELETED", object("b", 31)))], true),
    ];
    let (_, asked) = run(replies, ReflectorOptions::default(), 60).await;
    assert_eq!(param(&asked[2].1, "resourceVersion"), Some("31"));
}

#[rstest::rstest]
#[case::event_in_the_stream(Reply::Stream(vec![(1, event("ERROR", status(410)))], false))]
#[case::answer_to_the_watch(Reply::Json(410, status(410)))]
#[case::deletion_of_something_unreadable(Reply::Stream(vec![(1, event("DELETED", json!({"metadata": {"name": "a", "labels": 1}})))], false))]
#[tokio::test(start_paused = true)]
async fn a_gap_leads_to_a_new_list(#[case] gap: Reply) {
    let replies = vec![
        list(7, &[object("a", 1)], ""),
        gap,
        list(50, &[object("z", 40)], ""),
    ];
    let (told, asked) = run(replies, ReflectorOptions::default(), 60).await;
    assert_eq!(told, ["=a", "=z"]);
    assert_eq!(param(&asked[3].1, "resourceVersion"), Some("50"));
}

#[tokio::test(start_paused = true)]
async fn an_expired_page_leads_to_one_list_without_pages() {
    let replies = vec![
        list(7, &[object("a", 1)], "more"),
        Reply::Json(410, status(410)),
        list(9, &[object("a", 1), object("b", 8)], ""),
    ];
    let (told, asked) = run(replies, ReflectorOptions::default(), 60).await;
    assert_eq!(told, ["=a,b"]);
    assert_eq!(param(&asked[2].1, "limit"), None);
    assert_eq!(param(&asked[2].1, "continue"), None);
}

#[tokio::test(start_paused = true)]
async fn errors_back_off_up_to_the_longest_wait() {
    let replies = (0..12).map(|_| Reply::Json(500, status(500))).collect();
    let (told, asked) = run(replies, ReflectorOptions::default(), 600).await;
    assert!(told.is_empty());
    assert_eq!(asked.len(), 13);
    let waits: Vec<u128> = asked.windows(2).map(|w| w[1].0 - w[0].0).collect();
    assert!((400..=800).contains(&waits[0]), "{waits:?}");
    assert!((15_000..=30_001).contains(&waits[11]), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_watches_at_once_is_not_asked_in_a_loop() {
    let mut replies = vec![list(7, &[], "")];
    replies.extend((0..50).map(|_| Reply::Stream(Vec::new(), true)));
    let (_, asked) = run(replies, ReflectorOptions::default(), 60).await;
    assert!(asked.len() < 10, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_is_noticed() {
    let replies = vec![
        list(7, &[], ""),
        Reply::Stream(Vec::new(), false),
        Reply::Stream(Vec::new(), false),
    ];
    let (_, asked) = run(replies, ReflectorOptions::default(), 400).await;
    assert_eq!(
        asked.iter().map(|a| a.0).collect::<Vec<_>>(),
        [0, 0, 295_000]
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_timeout_a_quiet_month_costs_nothing() {
    let replies = vec![list(7, &[], ""), Reply::Stream(Vec::new(), false)];
    let options = ReflectorOptions {
        watch_timeout: None,
        ..ReflectorOptions::default()
    };
    let (_, asked) = run(replies, options, 30 * 86_400).await;
    assert_eq!(asked.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_unreadable_object_does_not_hide_the_others() {
    let bad = json!({"metadata": {"name": "bad", "namespace": "n", "resourceVersion": "3", "labels": ["not", "a", "map"]}});
    let replies = vec![
        list(7, &[object("a", 1), bad.clone()], ""),
        Reply::Stream(
            vec![
                (1, event("MODIFIED", bad)),
                (1, event("ADDED", object("b", 9))),
            ],
            false,
        ),
    ];
    let (told, asked) = run(replies, ReflectorOptions::default(), 60).await;
    assert_eq!(told, ["=a", "+b"]);
    assert_eq!(asked.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn works_with_dynamic_objects_and_tells_when_it_is_synced() {
    let (client, _server) = serve(vec![
        Reply::Json(503, status(503)),
        list(7, &[object("a", 1)], ""),
    ]);
    let resource = kube::core::ApiResource::erase::<ConfigMap>(&());
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let stop = CancellationToken::new();
    let mut reflection = reflect(
        api,
        ReflectorOptions::default(),
        move |event| {
            if let ReflectorEvent::Init(all) = event {
                sink.lock()
                    .extend(all.into_iter().filter_map(|o| o.metadata.name));
            }
        },
        Clock::real(),
        &RngTree::new(1),
        stop.clone(),
    );
    assert!(!*reflection.synced.borrow());
    assert!(reflection.wait_synced().await);
    assert_eq!(*seen.lock(), ["a"]);
    stop.cancel();
}
