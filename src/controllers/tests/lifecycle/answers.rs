//! How creations of NodeClaims are answered: late, with an error, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use karpenter_fake_kube::ApiServer;
use karpenter_fake_kube::flaky::Flaky;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::json;

/// What happens to a creation that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Refused: an admission policy says no.
    Forbidden,
    /// Not carried out, answered with 500.
    Failed,
    /// Carried out, answered with 500.
    AnswerLost,
}

/// The answers of one world; controllers that start later share them.
#[derive(Default)]
pub(crate) struct Answers {
    /// Whether they come later than the watch tells of the claim.
    pub(crate) slow: AtomicBool,
    /// What happens from the so-many-th creation on.
    pub(crate) wrong: Mutex<Option<(usize, Wrong)>>,
    /// Creations asked for since the start.
    pub(crate) asked: AtomicUsize,
}

/// The controller's client: what `flaky` says goes wrong, and these answers.
pub(crate) fn client(server: &ApiServer, flaky: &Flaky, answers: &Arc<Answers>) -> kube::Client {
    let (inner, answers) = (server.flaky_client(flaky), answers.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (inner, answers) = (inner.clone(), answers.clone());
        async move {
            if request.method() != Method::POST || !request.uri().path().ends_with("/nodeclaims") {
                return inner.send(request).await;
            }
            let before = answers.asked.fetch_add(1, Ordering::Relaxed);
            let wrong = *answers.wrong.lock();
            let wrong = wrong.and_then(|(from, wrong)| (before >= from).then_some(wrong));
            match wrong {
                Some(Wrong::Forbidden) => return Ok(error(StatusCode::FORBIDDEN, "Forbidden")),
                Some(Wrong::Failed) => {
                    return Ok(error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"));
                }
                Some(Wrong::AnswerLost) | None => {}
            }
            let answer = inner.send(request).await;
            if answers.slow.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            if wrong.is_some() {
                return Ok(error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"));
            }
            answer
        }
    });
    kube::Client::new(service, "default")
}

fn error(code: StatusCode, reason: &str) -> http::Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "not today", "reason": reason, "code": code.as_u16()});
    let body = Body::from(status.to_string().into_bytes());
    let mut answer = http::Response::new(body);
    *answer.status_mut() = code;
    answer
}
