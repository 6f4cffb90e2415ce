//! What is written, what is dropped, and what the object looks like.

use std::collections::VecDeque;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

/// Requests as `METHOD path` with their body.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// A recorder in front of a server that answers with these codes in turn, then 201.
fn recorder(codes: &[u16], seed: u64) -> (EventRecorder, Asked) {
    let asked = Asked::default();
    let codes = Arc::new(Mutex::new(VecDeque::from(codes.to_vec())));
    let log = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (log, codes) = (Arc::clone(&log), Arc::clone(&codes));
        async move {
            let what = format!("{} {}", request.method(), request.uri().path());
            let sent = request.into_body().collect().await.unwrap().to_bytes();
            let sent: Value = serde_json::from_slice(&sent).unwrap();
            log.lock().push((what, sent.clone()));
            let code = codes.lock().pop_front().unwrap_or(201);
            let answer = if code < 300 {
                json!({"metadata": {}, "involvedObject": {}})
            } else {
                let reason = match code {
                    404 => "NotFound",
                    409 => "AlreadyExists",
                    _ => "InternalError",
                };
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": ""})
            };
            let body = Full::new(bytes::Bytes::from(answer.to_string()));
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    let client = kube::Client::new(service, "default");
    let clock = Clock::starting_at("2026-01-02T03:04:05.678Z".parse().unwrap());
    (
        EventRecorder::new(client, clock, &RngTree::new(seed)),
        asked,
    )
}

fn event(reason: &'static str, kind: &str, name: &str, message: &str) -> Event {
    Event {
        about: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(kind.to_owned()),
            namespace: (kind == "Pod").then(|| "web".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(format!("uid-{name}")),
            ..ObjectReference::default()
        },
        kind: EventType::Normal,
        reason,
        message: message.to_owned(),
        dedupe: Vec::new(),
        window: DEFAULT_DEDUPE_WINDOW,
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn the_object_has_the_shape_that_tools_select_on() {
    let (recorder, asked) = recorder(&[], 1);
    recorder.publish(event("Evicted", "Pod", "web-0", "Evicted pod: empty"));
    recorder.publish(Event {
        kind: EventType::Warning,
        ..event("FailedDraining", "Node", "n1", "1 pod left")
    });
    recorder.flush().await;
    insta::assert_json_snapshot!("event_objects", *asked.lock());
}

#[tokio::test(start_paused = true)]
async fn equal_events_within_the_window_are_one_and_later_ones_raise_the_count() {
    let (recorder, asked) = recorder(&[], 1);
    for _ in 0..5 {
        recorder.publish(event("Evicted", "Pod", "a", "same"));
        pass(20).await;
    }
    recorder.publish(event("Evicted", "Pod", "a", "other words"));
    pass(21).await;
    recorder.publish(event("Evicted", "Pod", "a", "same"));
    recorder.flush().await;
    let asked = asked.lock();
    let name = asked[0].1["metadata"]["name"].as_str().unwrap();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert_eq!(
        asked[2].0,
        format!("PATCH /api/v1/namespaces/web/events/{name}")
    );
    assert_eq!(
        asked[2].1,
        json!({"count": 2, "lastTimestamp": "2026-01-02T03:06:06Z"})
    );
}

#[tokio::test(start_paused = true)]
async fn key_values_decide_what_is_equal_instead_of_the_words() {
    let (recorder, asked) = recorder(&[], 1);
    let with = |message: &str, key: &str| Event {
        dedupe: vec![key.to_owned()],
        ..event("DisruptionBlocked", "Node", "n", message)
    };
    recorder.publish(with("blocked by pod a", "k"));
    recorder.publish(with("blocked by pod b", "k"));
    recorder.publish(with("blocked by pod b", "other"));
    recorder.publish(Event {
        about: event("", "NodeClaim", "n", "").about,
        ..with("blocked by pod a", "k")
    });
    recorder.flush().await;
    let kinds: Vec<_> = asked
        .lock()
        .iter()
        .map(|(_, e)| e["involvedObject"]["kind"].clone())
        .collect();
    assert_eq!(kinds, ["Node", "Node", "NodeClaim"]);
}

#[tokio::test(start_paused = true)]
async fn nominations_are_limited_and_what_was_held_back_may_be_said_again() {
    let (recorder, asked) = recorder(&[], 1);
    let burst = |from: u32, to: u32| {
        for i in from..to {
            recorder.publish(event(
                "Nominated",
                "Pod",
                &format!("p{i}"),
                "should schedule",
            ));
            recorder.publish(event("Evicted", "Pod", &format!("p{i}"), "evicted"));
        }
    };
    burst(0, 30);
    recorder.flush().await;
    let nominated = |asked: &Asked| {
        asked
            .lock()
            .iter()
            .filter(|(_, e)| e["reason"] == "Nominated")
            .count()
    };
    assert_eq!(nominated(&asked), 10);
    assert_eq!(asked.lock().len(), 40, "other reasons are not limited");
    pass(1).await;
    burst(0, 30);
    recorder.flush().await;
    assert_eq!(nominated(&asked), 15);
}

#[rstest]
#[case::gone(&[201, 404], &["POST", "PATCH", "POST"])]
#[case::name_taken(&[409], &["POST", "POST", "PATCH"])]
#[case::sick_server(&[500, 503], &["POST", "POST", "POST", "PATCH"])]
#[case::sick_for_long(&[500, 500, 500], &["POST", "POST", "POST", "POST"])]
#[case::forbidden(&[403], &["POST", "POST"])]
#[tokio::test(start_paused = true)]
async fn failures_of_the_server(#[case] codes: &[u16], #[case] methods: &[&str]) {
    let (recorder, asked) = recorder(codes, 1);
    recorder.publish(event("Evicted", "Pod", "a", "same"));
    recorder.flush().await;
    pass(121).await;
    recorder.publish(event("Evicted", "Pod", "a", "same"));
    recorder.flush().await;
    let seen: Vec<_> = asked
        .lock()
        .iter()
        .map(|(what, _)| what.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(seen, methods);
}

#[tokio::test(start_paused = true)]
async fn names_come_from_the_seed() {
    let mut names = Vec::new();
    for seed in [1, 1, 2] {
        let (recorder, asked) = recorder(&[], seed);
        recorder.publish(event("Evicted", "Pod", "a", "same"));
        recorder.flush().await;
        names.push(
            asked.lock()[0].1["metadata"]["name"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    assert_eq!(names[0], names[1]);
    assert_ne!(names[0], names[2]);
    assert!(
        names[0].starts_with("a.") && names[0].len() == 18,
        "{names:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn publishing_never_waits() {
    let (recorder, asked) = recorder(&[], 1);
    for i in 0..3000 {
        recorder.publish(event("Evicted", "Pod", &format!("p{i}"), "evicted"));
    }
    recorder.flush().await;
    assert_eq!(
        asked.lock().len(),
        QUEUE_CAPACITY_EVENTS,
        "the rest is dropped"
    );
    recorder.abort();
    recorder.publish(event("Evicted", "Pod", "late", "evicted"));
    recorder.flush().await;
    assert_eq!(asked.lock().len(), QUEUE_CAPACITY_EVENTS);
    EventRecorder::discard().publish(event("Evicted", "Pod", "a", "nowhere"));
    EventRecorder::discard().flush().await;
}

#[tokio::test(start_paused = true)]
async fn long_messages_are_cut_at_a_character() {
    let (recorder, asked) = recorder(&[], 1);
    recorder.publish(event("Evicted", "Pod", "a", &"ä".repeat(600)));
    recorder.publish(event(
        "Evicted",
        "Pod",
        "b",
        &format!("x{}", "ä".repeat(600)),
    ));
    recorder.flush().await;
    let lengths: Vec<_> = asked
        .lock()
        .iter()
        .map(|(_, e)| e["message"].as_str().unwrap().len())
        .collect();
    assert_eq!(lengths, [1024, 1023]);
}
