//! What each fault does to a client.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchParams};

use super::*;
use crate::server::{ApiServer, ServerOptions};

fn world() -> (ApiServer, Flaky, Clock) {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let rng = RngTree::new(5);
    let server = ApiServer::new(ServerOptions {
        clock: clock.clone(),
        rng: rng.child("api", ""),
    });
    let flaky = Flaky::new(clock.clone(), &rng);
    (server, flaky, clock)
}

fn map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn each_fault_does_what_it_says_and_ends_when_told() {
    let (server, flaky, clock) = world();
    let api: Api<ConfigMap> = Api::default_namespaced(server.flaky_client(&flaky));
    let create = |name: &str| {
        let (api, map) = (api.clone(), map(name));
        async move { api.create(&PostParams::default(), &map).await }
    };
    create("a").await.unwrap();

    flaky.set(ClientFaults {
        failed_after: 1000,
        ..ClientFaults::default()
    });
    assert_eq!(code(&create("b").await.unwrap_err()), 500);
    flaky.set(ClientFaults {
        failed_before: 1000,
        ..ClientFaults::default()
    });
    assert_eq!(code(&create("c").await.unwrap_err()), 500);
    flaky.set(ClientFaults {
        throttled: 1000,
        ..ClientFaults::default()
    });
    assert_eq!(code(&create("d").await.unwrap_err()), 429);
    flaky.set(ClientFaults {
        conflicts: 1000,
        ..ClientFaults::default()
    });
    let patch = Patch::Merge(json!({ "data": { "x": "y" } }));
    let patched = api.patch("a", &PatchParams::default(), &patch).await;
    assert_eq!(code(&patched.unwrap_err()), 409);
    create("e").await.unwrap();

    flaky.set(ClientFaults {
        delayed: 1000,
        ..ClientFaults::default()
    });
    let before = clock.now();
    create("f").await.unwrap();
    assert!(clock.now() > before);

    flaky.set(ClientFaults::default());
    let names: Vec<String> = api
        .list(&ListParams::default())
        .await
        .unwrap()
        .into_iter()
        .filter_map(|m| m.metadata.name)
        .collect();
    // What failed after the write is there, what failed before it is not.
    for (name, there) in [
        ("a", true),
        ("b", true),
        ("c", false),
        ("d", false),
        ("e", true),
        ("f", true),
    ] {
        assert_eq!(names.iter().any(|n| n == name), there, "{name}: {names:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn lists_show_the_past_and_what_is_watched_from_there_catches_up() {
    let (server, flaky, clock) = world();
    let api: Api<ConfigMap> = Api::default_namespaced(server.flaky_client(&flaky));
    let names = |list: &kube::core::ObjectList<ConfigMap>| -> Vec<String> {
        let name = |m: &ConfigMap| m.metadata.name.clone().unwrap();
        list.iter().map(name).collect()
    };
    let params = ListParams::default();
    api.create(&PostParams::default(), &map("old"))
        .await
        .unwrap();
    // The only version that is known of the last ten seconds.
    api.list(&params).await.unwrap();
    api.create(&PostParams::default(), &map("new"))
        .await
        .unwrap();
    flaky.set(ClientFaults {
        lists_stale: 1000,
        ..ClientFaults::default()
    });
    let mut stale = None;
    for _ in 0..32 {
        let list = api.list(&params).await.unwrap();
        if names(&list) == ["old"] {
            stale = list.metadata.resource_version;
        } else {
            assert_eq!(names(&list), ["new", "old"]);
        }
    }
    let version = stale.expect("no list showed the past");
    let mut watch = Box::pin(api.watch(&WatchParams::default(), &version).await.unwrap());
    match watch.next().await.unwrap().unwrap() {
        kube::api::WatchEvent::Added(map) => assert_eq!(map.metadata.name.unwrap(), "new"),
        other => panic!("{other:?}"),
    }
    // What is longer ago is not shown.
    clock.sleep(Duration::from_secs(11)).await;
    assert_eq!(names(&api.list(&params).await.unwrap()), ["new", "old"]);
    let page = api.list(&ListParams::default().limit(1)).await.unwrap();
    assert_eq!(names(&page), ["new"]);
    let next = ListParams::default().continue_token(&page.metadata.continue_.unwrap());
    assert_eq!(names(&api.list(&next).await.unwrap()), ["old"]);
}

#[tokio::test(start_paused = true)]
async fn watches_fall_silent_before_they_break_off() {
    let (server, flaky, clock) = world();
    let api: Api<ConfigMap> = Api::default_namespaced(server.flaky_client(&flaky));
    flaky.set(ClientFaults {
        watches_stalled: 1000,
        ..ClientFaults::default()
    });
    let mut watch = Box::pin(api.watch(&WatchParams::default(), "0").await.unwrap());
    flaky.set(ClientFaults::default());
    let began = clock.now();
    let writer = async {
        for n in 0..200 {
            let create = api
                .create(&PostParams::default(), &map(&format!("m{n}")))
                .await;
            create.unwrap();
            clock.sleep(Duration::from_secs(1)).await;
        }
    };
    let reader = async {
        let mut heard = began;
        while let Some(event) = watch.next().await {
            event.unwrap();
            heard = clock.now();
        }
        (heard - began, clock.now() - heard)
    };
    let ((heard_for, silent_for), ()) = futures::future::join(reader, writer).await;
    assert!(heard_for <= Duration::from_secs(60), "{heard_for:?}");
    assert!(silent_for >= Duration::from_secs(9), "{silent_for:?}");
    assert!(silent_for <= Duration::from_secs(121), "{silent_for:?}");
}

#[tokio::test(start_paused = true)]
async fn watches_break_off_and_lag() {
    let (server, flaky, clock) = world();
    let client = server.flaky_client(&flaky);
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    flaky.set(ClientFaults {
        watches_dropped: 1000,
        watches_late: 1000,
        ..ClientFaults::default()
    });
    let mut watch = Box::pin(api.watch(&WatchParams::default(), "0").await.unwrap());
    let began = clock.now();
    flaky.set(ClientFaults::default());
    api.create(&PostParams::default(), &map("late"))
        .await
        .unwrap();
    let mut seen = 0;
    while let Some(event) = watch.next().await {
        event.unwrap();
        seen += 1;
        assert!(clock.now() > began);
    }
    assert!(seen <= 2);
    let lived = clock.now() - began;
    assert!(lived <= Duration::from_secs(70), "{lived:?}");
}

#[tokio::test(start_paused = true)]
async fn a_late_watch_is_late_by_the_same_time_however_much_there_is_to_tell() {
    let (server, flaky, clock) = world();
    let api: Api<ConfigMap> = Api::default_namespaced(server.flaky_client(&flaky));
    flaky.set(ClientFaults {
        watches_late: 1000,
        ..ClientFaults::default()
    });
    let watch = api.watch(&WatchParams::default(), "0").await.unwrap();
    flaky.set(ClientFaults::default());
    let writer = async {
        for n in 0..100 {
            let create = api
                .create(&PostParams::default(), &map(&format!("m{n}")))
                .await;
            create.unwrap();
            clock.sleep(Duration::from_millis(100)).await;
        }
    };
    let began = clock.now();
    let reader = async {
        let mut lags = Vec::new();
        let mut watch = Box::pin(watch.take(100));
        while let Some(event) = watch.next().await {
            event.unwrap();
            let written = began + Duration::from_millis(100) * u32::try_from(lags.len()).unwrap();
            lags.push(clock.now() - written);
        }
        lags
    };
    let (lags, ()) = futures::future::join(reader, writer).await;
    assert_eq!(lags.len(), 100);
    assert!(lags[0] > Duration::ZERO);
    assert!(lags.iter().all(|lag| *lag == lags[0]), "{lags:?}");
}
