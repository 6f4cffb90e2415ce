//! Asking a server: the same requests through the same client, whoever answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::StreamExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Map, Value, json};

use super::golden::{Answer, Answers};
use super::project;
use super::table::{Area, Check, Step};

/// Checks that are under way at once; watches spend their time waiting.
const AT_ONCE: usize = 12;
/// Longest that one request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// Times that an `untilOk` step is tried, and the time between.
const TRIES_MAX: usize = 200;
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// What came back.
struct Reply {
    code: u16,
    headers: Map<String, Value>,
    body: Vec<u8>,
}

/// All checks of all areas on one server, on which Karpenter's definitions are.
pub(crate) async fn all(client: &Client, areas: &[Area]) -> Answers {
    install(client).await;
    futures::stream::iter(areas.iter().flat_map(|a| &a.checks))
        .map(|check| async move { (check.name.clone(), one(client, check).await) })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

/// The definitions that the chart installs.
async fn install(client: &Client) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/karpenter-crd/templates");
    let saved = BTreeMap::from([("ns".to_owned(), String::new())]);
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        // A template as Helm reads it, with no additional annotations asked for.
        let before = text.find("  {{- with").unwrap();
        let end = text.find("{{- end }}\n").unwrap() + "{{- end }}\n".len();
        let text = format!("{}{}", &text[..before], &text[end..]);
        let definition: Value = serde_saphyr::from_str(&text).unwrap();
        let spec = &definition["spec"];
        let served = format!(
            "GET /apis/{}/{}/{}",
            spec["group"].as_str().unwrap(),
            spec["versions"][0]["name"].as_str().unwrap(),
            spec["names"]["plural"].as_str().unwrap()
        );
        let create = Step {
            request: "POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions".into(),
            body: Some(definition),
            ..Step::default()
        };
        let reply = send(client, &create, &saved).await;
        assert_eq!(reply.code, 201, "{}", text_of(&reply));
        let wait = Step {
            request: served,
            until_ok: true,
            ..Step::default()
        };
        send_until(client, &wait, &saved).await;
    }
}

async fn one(client: &Client, check: &Check) -> Answer {
    let namespace = check.namespace();
    let mut saved: BTreeMap<String, String> = BTreeMap::new();
    saved.insert("ns".into(), namespace.clone());
    let prepare = [
        (
            "/api/v1/namespaces",
            json!({"metadata": {"name": namespace}}),
        ),
        // Nobody here but the API server: accounts do not come by themselves.
        (
            &*format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
            json!({"metadata": {"name": "default"}}),
        ),
    ];
    for (path, body) in prepare {
        let step = Step {
            request: format!("POST {path}"),
            body: Some(body),
            ..Step::default()
        };
        let reply = send(client, &step, &saved).await;
        assert!(matches!(reply.code, 201 | 409), "{}", text_of(&reply));
    }
    for step in &check.given {
        let reply = send_until(client, step, &saved).await;
        if !(200..300).contains(&reply.code) {
            let body = json!({"code": reply.code, "body": document(&reply)});
            return vec![(format!("given {}", step.request), body)];
        }
        keep(&mut saved, step, &reply, &check.name);
    }
    let mut answer = Vec::new();
    for step in &check.steps {
        let reply = send_until(client, step, &saved).await;
        answer.push(answered(step, &reply, &namespace));
        keep(&mut saved, step, &reply, &check.name);
    }
    answer
}

fn text_of(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

fn document(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or(Value::Null)
}

fn keep(saved: &mut BTreeMap<String, String>, step: &Step, reply: &Reply, check: &str) {
    let document = document(reply);
    for (name, path) in &step.save {
        match project::at(&document, path) {
            Value::String(text) => saved.insert(name.clone(), text),
            Value::Null => panic!("{check}: {}: no {path} in {document}", step.request),
            other => saved.insert(name.clone(), other.to_string()),
        };
    }
}

fn answered(step: &Step, reply: &Reply, namespace: &str) -> (String, Value) {
    let watch = ["watch=true", "watch=1", "/watch/"]
        .iter()
        .any(|w| step.request.contains(w));
    let body = if watch && reply.code == 200 {
        let events = text_of(reply)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| Value::from(line)))
            .filter(|e: &Value| e["type"] != "BOOKMARK" || step.bookmarks && ends_initial(e))
            .map(|event| match event["type"].as_str() {
                Some("ERROR" | "BOOKMARK") => event,
                _ => project::shown(&event, &step.show),
            })
            .collect();
        Value::Array(events)
    } else {
        match serde_json::from_slice(&reply.body) {
            Ok(document) if is_refusal(&document) => project::ordered(document),
            Ok(document) => project::shown(&document, &step.show),
            Err(_) => Value::from(text_of(reply)),
        }
    };
    let mut whole = json!({"code": reply.code, "body": project::normal(body, namespace)});
    let headers: Map<String, Value> = step
        .headers
        .iter()
        .filter_map(|h| Some((h.clone(), reply.headers.get(h)?.clone())))
        .collect();
    if !headers.is_empty() {
        whole["headers"] = project::normal(Value::Object(headers), namespace);
    }
    (step.request.clone(), whole)
}

fn ends_initial(bookmark: &Value) -> bool {
    bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
}

fn is_refusal(document: &Value) -> bool {
    document["kind"] == "Status" && document["status"] == "Failure"
}

async fn send_until(client: &Client, step: &Step, saved: &BTreeMap<String, String>) -> Reply {
    for _ in 0..TRIES_MAX {
        let reply = send(client, step, saved).await;
        let wanted = match step.until {
            Some(code) => reply.code == code,
            None => !step.until_ok || (200..300).contains(&reply.code),
        };
        if wanted {
            return reply;
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
    panic!("{} is never answered as it should", step.request);
}

async fn send(client: &Client, step: &Step, saved: &BTreeMap<String, String>) -> Reply {
    let put_in = |text: &str| {
        saved.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value)
        })
    };
    let (verb, path) = step.request.split_once(' ').unwrap();
    let namespace = &saved["ns"];
    let path = put_in(path);
    let before_query = path.split('?').next().unwrap_or("");
    let path = if path.starts_with('/') {
        path
    } else if let Some((version, rest)) =
        path.split_once(':').filter(|_| before_query.contains(':'))
    {
        format!("/apis/{version}/namespaces/{namespace}/{rest}")
    } else {
        format!("/api/v1/namespaces/{namespace}/{path}")
    };
    let content = match step.content.as_deref() {
        None | Some("json") => "application/json",
        Some("merge") => "application/merge-patch+json",
        Some("json-patch") => "application/json-patch+json",
        Some("strategic") => "application/strategic-merge-patch+json",
        Some("apply") => "application/apply-patch+yaml",
        Some("yaml") => "application/yaml",
        Some(other) => other,
    };
    let accept = match step.accept.as_deref() {
        None | Some("json") => "application/json",
        Some("table") => "application/json;as=Table;v=v1;g=meta.k8s.io",
        Some("metadata") => "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        Some("metadata-list") => "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        Some(other) => other,
    };
    let body = match (&step.body, &step.text, &step.base64) {
        (Some(body), _, _) => put_in(&body.to_string()).into_bytes(),
        (None, Some(text), _) => put_in(text).into_bytes(),
        (None, None, Some(bytes)) => BASE64_STANDARD.decode(bytes).unwrap(),
        (None, None, None) => Vec::new(),
    };
    // What may not stand in a request line: selectors are written readably in the table.
    let encoded = [(" ", "%20"), ("\"", "%22"), ("<", "%3C"), (">", "%3E")];
    let path = encoded
        .iter()
        .fold(path, |path, (from, to)| path.replace(from, to));
    let mut request = Request::builder()
        .method(verb)
        .uri(path)
        .header("Accept", accept)
        .header(
            "User-Agent",
            step.agent.as_deref().unwrap_or("conformance/1"),
        );
    if !body.is_empty() {
        request = request.header("Content-Type", content);
    }
    if let Some(user) = &step.user {
        request = request.header("Impersonate-User", put_in(user));
        for group in &step.groups {
            request = request.header("Impersonate-Group", put_in(group));
        }
    }
    let request = request.body(Body::from(body)).unwrap();
    let exchange = async {
        let response = client.send(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let mut headers: Map<String, Value> = Map::new();
        for (name, value) in &parts.headers {
            let value = value.to_str().unwrap_or("").to_owned();
            match headers.get_mut(name.as_str()) {
                Some(Value::Array(values)) => values.push(value.into()),
                _ => {
                    headers.insert(name.as_str().to_owned(), json!([value]));
                }
            }
        }
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Reply {
            code: parts.status.as_u16(),
            headers,
            body,
        }
    };
    tokio::time::timeout(REQUEST_LIMIT, exchange)
        .await
        .unwrap_or_else(|_| panic!("{} is not answered", step.request))
}
