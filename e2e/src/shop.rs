//! What the EC2 provider would sell to NodePools: the provider's own view of the catalogue, without a story. A class is
//! made ready on an embedded cluster and an account in memory, in virtual time, and asked for its instance types.
//!
//! The account is not the user's: its subnets, security groups, role and images stand in for those that a class selects.
//! Zones come from the class's `status.subnets` where a dump of a live cluster has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use karpenter_api::NodePool;
use karpenter_cloud::{Provider, ProviderContext};
use karpenter_ec2_api::Subnet;
use karpenter_fake_ec2::{Catalog, Engine, EngineOptions};
use karpenter_fake_kube::server::{ApiError, ApiServer, ServerOptions, gr};
use karpenter_model::{InstanceType, LabelRegistry};
use karpenter_provider_ec2::{Ec2Settings, nodeclass};
use karpenter_runtime::reflector::ReflectorOptions;
use karpenter_runtime::{EventRecorder, RngTree, Settings};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cloud::{Ec2Account, Surroundings, ec2};
use crate::json::{condition_field, name, text};
use crate::world::virtual_clock;

/// Tag that the account's stand-in subnets of a class carry.
const DISCOVERY: &str = "karpenter.sh/discovery";
/// Time in which a class must become ready; it takes a few seconds.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Seed of the account and of its spot prices.
const SEED: u64 = 1;
/// Version for which images of every family exist; a plan depends on no other part of it.
const KUBERNETES_VERSION: &str = "1.32";
/// Zones of the account when the objects name none beyond them.
const USUAL_ZONES: usize = 3;
/// All zones that a region can have here.
const ALL_ZONES: usize = 6;

/// Why there is nothing to sell.
#[derive(Debug, thiserror::Error)]
pub enum ShopError {
    /// The embedded cluster refused something.
    #[error("EC2NodeClass {class}: {source}")]
    Refused {
        /// Class.
        class: String,
        /// Why.
        source: ApiError,
    },
}

/// What is sold to whom.
#[derive(Clone, Default)]
pub struct Shop {
    /// Keys with meaning.
    pub labels: Arc<LabelRegistry>,
    /// Instance types by the name of their NodePool.
    pub types: BTreeMap<String, Arc<Vec<Arc<InstanceType>>>>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// Classes that are no good, and why; their pools are sold nothing.
    pub errors: Vec<String>,
}

/// Asks the EC2 provider in `region` what it sells to `pools`, whose classes are among `objects`. A pool whose class is
/// not there is served as if it had the tutorial's. Needs a paused single-threaded tokio runtime.
///
/// # Errors
/// When the embedded cluster does not take a class.
pub async fn ec2(
    region: &str,
    pools: &[NodePool],
    objects: &[Value],
    settings: Settings,
) -> Result<Shop, ShopError> {
    let account = Ec2Account {
        region: region.to_owned(),
        ..Ec2Account::default()
    };
    let mut shop = Shop::default();
    if !Catalog::builtin().prices.contains_key(region) {
        shop.warnings.push(format!(
            "region {region}: there is no price list of it here, prices are those of us-east-1"
        ));
    }
    let clock = virtual_clock();
    let rng = RngTree::new(SEED);
    let around = Surroundings {
        api: ApiServer::new(ServerOptions {
            clock: clock.clone(),
            rng: rng.child("api-server", ""),
        }),
        clock,
        rng,
        settings,
        stop: CancellationToken::new(),
        live: None,
    };
    let engine = Engine::new(EngineOptions {
        region: region.to_owned(),
        zones: zones(region, objects),
        ..EngineOptions::new(around.clock.clone(), &around.rng, &account.cluster_name)
    });
    let told = Ec2Settings {
        kubernetes_version: Some(KUBERNETES_VERSION.to_owned()),
        disable_dry_run: true,
        ..ec2::settings(&account, &around)
    };
    let provider = ec2::provider(&engine, told, &around);
    shop.labels = provider.labels.clone();
    open(&around, &provider)?;
    let given: BTreeMap<&str, &Value> = objects
        .iter()
        .filter(|o| text(o, "/kind") == "EC2NodeClass")
        .map(|o| (name(o), o))
        .collect();
    let wanted: BTreeSet<&str> = pools
        .iter()
        .map(|p| p.spec.template.spec.node_class_ref.name.as_str())
        .collect();
    for class in wanted {
        let mut stand_in = stand_in(class, given.get(class).copied(), &account);
        own_subnets(&engine, given.get(class).copied(), &mut stand_in);
        let kind = gr("karpenter.k8s.aws", "ec2nodeclasses");
        // One bad class must not keep the others' pools from being planned.
        if let Err(source) = around.api.create(kind, None, stand_in) {
            let refused = ShopError::Refused {
                class: class.to_owned(),
                source,
            };
            shop.errors.push(refused.to_string());
        }
    }
    let tasks = start(&around, &provider).await;
    let ready = ready_classes(&around, &mut shop).await;
    for pool in pools {
        let class = &pool.spec.template.spec.node_class_ref.name;
        let pool_name = pool.metadata.name.clone().unwrap_or_default();
        if !ready.contains(class) {
            continue;
        }
        match provider.cloud.instance_types(pool).await {
            Ok(types) => {
                shop.types.insert(pool_name, types);
            }
            Err(e) => shop.errors.push(format!("NodePool {pool_name}: {e}")),
        }
    }
    around.stop.cancel();
    for task in tasks {
        // A task that panicked has shown it already; what was asked has been answered.
        let _ = task.await;
    }
    Ok(shop)
}

/// How many zones the account needs: the first three, or all when the objects name a later one.
fn zones(region: &str, objects: &[Value]) -> usize {
    let later: Vec<String> = ('d'..='f').map(|z| format!("\"{region}{z}\"")).collect();
    let named = objects.iter().any(|o| {
        let shown = o.to_string();
        later.iter().any(|zone| shown.contains(zone))
    });
    if named { ALL_ZONES } else { USUAL_ZONES }
}

/// Installs the kinds.
fn open(around: &Surroundings, provider: &Provider) -> Result<(), ShopError> {
    let mut crds = karpenter_api::crd::core(&[nodeclass::label_domain()]);
    crds.extend(provider.crds.clone());
    for crd in crds {
        let class = name(&crd).to_owned();
        let kind = gr("apiextensions.k8s.io", "customresourcedefinitions");
        around
            .api
            .create(kind, None, crd)
            .map_err(|source| ShopError::Refused { class, source })?;
    }
    Ok(())
}

async fn start(around: &Surroundings, provider: &Provider) -> Vec<tokio::task::JoinHandle<()>> {
    let client = around.api.client();
    let context = ProviderContext {
        client: client.clone(),
        clock: around.clock.clone(),
        rng: around.rng.clone(),
        events: EventRecorder::new(client, around.clock.clone(), &around.rng),
        metrics: karpenter_runtime::metrics::Metrics::default(),
        reflector: ReflectorOptions {
            watch_timeout: None,
            ..ReflectorOptions::default()
        },
        stop: around.stop.clone(),
        catalog_changed: Arc::new(Notify::new()),
    };
    provider.controllers.start(context).await
}

/// Waits until every class has been judged; names of the ready ones.
async fn ready_classes(around: &Surroundings, shop: &mut Shop) -> BTreeSet<String> {
    let deadline = around.clock.now() + READY_LIMIT;
    loop {
        around.clock.sleep(Duration::from_secs(1)).await;
        let classes = around
            .api
            .list(gr("karpenter.k8s.aws", "ec2nodeclasses"), None);
        let status = |c: &Value| condition_field(c, "Ready", "status").to_owned();
        let judged = classes.iter().all(|c| status(c) == "True");
        if !judged && around.clock.now() < deadline {
            continue;
        }
        let (good, bad): (Vec<_>, Vec<_>) = classes.iter().partition(|c| status(c) == "True");
        for class in bad {
            shop.errors.push(format!(
                "EC2NodeClass {}: not ready: {}; its NodePools are left out",
                name(class),
                condition_field(class, "Ready", "message")
            ));
        }
        return good.iter().map(|c| name(c).to_owned()).collect();
    }
}

/// The class with what selects things of the user's account replaced by what selects this account's.
fn stand_in(class: &str, given: Option<&Value>, account: &Ec2Account) -> Value {
    let cluster = &account.cluster_name;
    let mut spec = given
        .and_then(|g| g.get("spec"))
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let family = spec
        .get("amiFamily")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let alias = spec
        .get("amiSelectorTerms")
        .and_then(Value::as_array)
        .and_then(|terms| terms.iter().find_map(|t| t.get("alias")?.as_str()))
        .and_then(|alias| alias.split('@').next())
        .map(str::to_owned);
    let image = match (alias, family.as_deref()) {
        (Some(alias), _) => alias,
        (None, Some("Bottlerocket")) => "bottlerocket".to_owned(),
        (None, Some("AL2")) => "al2".to_owned(),
        // Images of one's own are taken for AL2023 ones; family Custom stays what it is.
        (None, _) => "al2023".to_owned(),
    };
    let tagged = json!([{ "tags": { DISCOVERY: cluster } }]);
    spec.insert(
        "amiSelectorTerms".into(),
        json!([{ "alias": format!("{image}@latest") }]),
    );
    spec.insert("subnetSelectorTerms".into(), tagged.clone());
    spec.insert("securityGroupSelectorTerms".into(), tagged);
    spec.remove("instanceProfile");
    spec.insert("role".into(), json!(format!("KarpenterNodeRole-{cluster}")));
    // Reservations are the user's account's.
    spec.remove("capacityReservationSelectorTerms");
    json!({
        "apiVersion": "karpenter.k8s.aws/v1",
        "kind": "EC2NodeClass",
        "metadata": { "name": class },
        "spec": spec,
    })
}

/// A class that knows its subnets is sold to in their zones.
fn own_subnets(engine: &Engine, given: Option<&Value>, stand_in: &mut Value) {
    let Some(subnets) = given
        .and_then(|g| g.pointer("/status/subnets"))
        .and_then(Value::as_array)
        .filter(|s| !s.is_empty())
    else {
        return;
    };
    let tag = format!("plan-{}", name(stand_in));
    engine.edit_account(|account| {
        for subnet in subnets {
            let zone = text(subnet, "/zone").to_owned();
            let zone_id = account.subnets.iter().find(|s| s.zone == zone);
            let zone_id = zone_id.map_or_else(String::new, |s| s.zone_id.clone());
            account.subnets.push(Subnet {
                id: text(subnet, "/id").to_owned(),
                zone,
                zone_id,
                available_ips: karpenter_fake_ec2::account::SUBNET_ADDRESSES,
                tags: [(DISCOVERY.to_owned(), tag.clone())].into(),
            });
        }
    });
    if let Some(spec) = stand_in.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert(
            "subnetSelectorTerms".into(),
            json!([{ "tags": { DISCOVERY: tag } }]),
        );
    }
}
