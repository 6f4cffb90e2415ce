//! The endpoints, asked in memory and over a real socket.

use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

fn metrics() -> Endpoints {
    let metrics = Metrics::default();
    metrics.set("karpenter_cluster_state_synced", &[], 1.0);
    Endpoints::Metrics(metrics)
}

fn probes(why: Option<&'static str>) -> Endpoints {
    Endpoints::Probes(Arc::new(move || why.map(ToOwned::to_owned)))
}

#[rstest]
#[case(metrics(), "/metrics", 200, "karpenter_cluster_state_synced 1\n")]
#[case(metrics(), "/healthz", 404, "not found")]
#[case(probes(None), "/healthz", 200, "ok")]
#[case(probes(None), "/readyz", 200, "ok")]
#[case(probes(Some("caches not synced")), "/healthz", 200, "ok")]
#[case(probes(Some("caches not synced")), "/readyz", 500, "caches not synced")]
#[case(probes(None), "/", 404, "not found")]
fn answers(
    #[case] endpoints: Endpoints,
    #[case] path: &str,
    #[case] status: u16,
    #[case] body: &str,
) {
    let (got, _, text) = answer(&endpoints, &Method::GET, path);
    assert_eq!(got.as_u16(), status);
    assert!(text.contains(body), "{text}");
}

#[test]
fn only_reading_is_allowed() {
    let (status, ..) = answer(&metrics(), &Method::POST, "/metrics");
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn serves_on_a_socket_until_stopped() {
    let stop = CancellationToken::new();
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let (address, task) = serve(local, metrics(), stop.clone()).await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(
        text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{text}"
    );
    assert!(
        text.ends_with("karpenter_cluster_state_synced 1\n"),
        "{text}"
    );
    let taken = serve(address, metrics(), stop.clone()).await.unwrap_err();
    assert_eq!(taken.to_string(), format!("cannot listen on {address}"));
    stop.cancel();
    task.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
