//! The table: one row a metric (`operations.md` §3). Registration, the docs page and the golden come from it.

/// What kind of numbers a family holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Any value.
    Gauge,
    /// Observations in buckets with these upper bounds.
    Histogram(&'static [f64]),
    /// Observations as quantiles.
    Summary,
}

impl Kind {
    /// As on the `# TYPE` line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Full name.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Label names.
    pub labels: &'static [&'static str],
    /// One line on what it tells.
    pub help: &'static str,
}

impl Row {
    /// Where `label` stands among the labels.
    #[must_use]
    pub fn position(&self, label: &str) -> Option<usize> {
        self.labels.iter().position(|l| *l == label)
    }
}

/// Buckets **D** of the reference: fine below a second, up to ten minutes (s).
const DURATIONS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9,
    1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0,
    25.0, 30.0, 40.0, 50.0, 60.0, 120.0, 150.0, 300.0, 450.0, 600.0,
];

/// The Prometheus clients' default (s).
const DEFAULT_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Of controller-runtime's reconcile times (s).
const RECONCILE_TIMES: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9,
    1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0,
    25.0, 30.0, 40.0, 50.0, 60.0,
];

/// Of client-go's work queues: powers of ten (s).
const QUEUE_TIMES: &[f64] = &[
    0.000_000_01,
    0.000_000_1,
    0.000_001,
    0.000_01,
    0.000_1,
    0.001,
    0.01,
    0.1,
    1.0,
    10.0,
    100.0,
    1000.0,
];

/// Doubling, 11 of them (s).
const POWERS_TO_1024: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];

/// Doubling, 12 of them (s).
const POWERS_TO_2048: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0,
];

/// Of status conditions: doubling from half a second, 15 of them (s).
const CONDITION_TIMES: &[f64] = &[
    0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0,
];

/// A quarter of an hour to thirty days (s).
const LIFETIMES: &[f64] = &[
    900.0,
    1800.0,
    2700.0,
    3600.0,
    7200.0,
    14_400.0,
    21_600.0,
    28_800.0,
    36_000.0,
    43_200.0,
    57_600.0,
    72_000.0,
    86_400.0,
    172_800.0,
    259_200.0,
    432_000.0,
    864_000.0,
    1_296_000.0,
    1_728_000.0,
    2_160_000.0,
    2_592_000.0,
];

/// Of Balanced consolidation's scores (a ratio).
const SCORES: &[f64] = &[0.1, 0.25, 0.33, 0.5, 1.0, 2.0, 5.0, 10.0];

/// Of the cloud call batchers (requests).
const BATCH_SIZES: &[f64] = &[
    1.0, 2.0, 4.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0,
    125.0, 150.0, 175.0, 200.0, 225.0, 250.0, 275.0, 300.0, 350.0, 400.0, 450.0, 500.0, 550.0,
    600.0, 700.0, 800.0, 900.0, 1000.0,
];

/// Labels of the gauges about a node: the well-known labels' last parts, then the node itself. The gauges about its
/// resources have `resource_type` in front.
pub const NODE_LABELS: &[&str] = &[
    "nodepool",
    "zone",
    "region",
    "instance_type",
    "arch",
    "os",
    "capacity_type",
    "windows_build",
    "instance_hypervisor",
    "instance_encryption_in_transit_supported",
    "instance_category",
    "instance_capability_flex",
    "instance_family",
    "instance_generation",
    "instance_local_nvme",
    "instance_size",
    "instance_cpu",
    "instance_cpu_manufacturer",
    "instance_cpu_sustained_clock_speed_mhz",
    "instance_memory",
    "instance_ebs_bandwidth",
    "instance_network_bandwidth",
    "instance_gpu_name",
    "instance_gpu_manufacturer",
    "instance_gpu_count",
    "instance_gpu_memory",
    "instance_accelerator_name",
    "instance_accelerator_manufacturer",
    "instance_accelerator_count",
    "capacity_reservation_id",
    "capacity_reservation_type",
    "capacity_reservation_interruptible",
    "instance_tenancy",
    "zone_id",
    "placement_group_id",
    "node_name",
    "phase",
    "managed",
];

/// The same with the resource in front.
const NODE_RESOURCE_LABELS: &[&str] = &[
    "resource_type",
    "nodepool",
    "zone",
    "region",
    "instance_type",
    "arch",
    "os",
    "capacity_type",
    "windows_build",
    "instance_hypervisor",
    "instance_encryption_in_transit_supported",
    "instance_category",
    "instance_capability_flex",
    "instance_family",
    "instance_generation",
    "instance_local_nvme",
    "instance_size",
    "instance_cpu",
    "instance_cpu_manufacturer",
    "instance_cpu_sustained_clock_speed_mhz",
    "instance_memory",
    "instance_ebs_bandwidth",
    "instance_network_bandwidth",
    "instance_gpu_name",
    "instance_gpu_manufacturer",
    "instance_gpu_count",
    "instance_gpu_memory",
    "instance_accelerator_name",
    "instance_accelerator_manufacturer",
    "instance_accelerator_count",
    "capacity_reservation_id",
    "capacity_reservation_type",
    "capacity_reservation_interruptible",
    "instance_tenancy",
    "zone_id",
    "placement_group_id",
    "node_name",
    "phase",
    "managed",
];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Row {
    Row {
        name,
        kind: Kind::Counter,
        labels,
        help,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Row {
    Row {
        name,
        kind: Kind::Gauge,
        labels,
        help,
    }
}

const fn summary(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Row {
    Row {
        name,
        kind: Kind::Summary,
        labels,
        help,
    }
}

const fn histogram(
    name: &'static str,
    bounds: &'static [f64],
    labels: &'static [&'static str],
    help: &'static str,
) -> Row {
    Row {
        name,
        kind: Kind::Histogram(bounds),
        labels,
        help,
    }
}

/// Every metric there is.
#[rustfmt::skip] // One row a line.
pub const TABLE: &[Row] = &[
    gauge("karpenter_build_info", &["version", "goversion", "goarch", "commit"], "A metric with a constant '1' value labeled by version, toolchain, architecture and commit."),
    counter("karpenter_nodeclaims_created_total", &["reason", "nodepool", "min_values_relaxed"], "Number of nodeclaims created, by reason and owning nodepool."),
    counter("karpenter_nodeclaims_terminated_total", &["nodepool", "capacity_type", "zone"], "Number of nodeclaims terminated, by owning nodepool."),
    counter("karpenter_nodeclaims_disrupted_total", &["reason", "nodepool", "capacity_type"], "Number of nodeclaims disrupted, by reason and owning nodepool."),
    counter("karpenter_nodeclaims_unhealthy_disrupted_total", &["condition", "nodepool", "capacity_type", "image_id"], "Number of unhealthy nodeclaims disrupted by node repair, by condition."),
    histogram("karpenter_nodeclaims_instance_termination_duration_seconds", POWERS_TO_1024, &["nodepool"], "Time from the request to terminate an instance until it is gone."),
    histogram("karpenter_nodeclaims_termination_duration_seconds", POWERS_TO_2048, &["nodepool"], "Time from the deletion of a nodeclaim until it is gone."),
    counter("karpenter_nodes_created_total", &["nodepool", "zone"], "Number of nodes created (registered), by owning nodepool."),
    counter("karpenter_nodes_terminated_total", &["nodepool", "zone"], "Number of nodes terminated, by owning nodepool."),
    counter("karpenter_nodes_drained_total", &["nodepool"], "Number of nodes drained, by owning nodepool."),
    summary("karpenter_nodes_termination_duration_seconds", &["nodepool"], "Time from the deletion of a node until it is gone."),
    histogram("karpenter_nodes_lifetime_duration_seconds", LIFETIMES, &["nodepool"], "Lifetime of terminated nodes."),
    gauge("karpenter_nodes_allocatable", NODE_RESOURCE_LABELS, "Resources allocatable on a node."),
    gauge("karpenter_nodes_total_pod_requests", NODE_RESOURCE_LABELS, "Resources requested by the pods bound to a node, DaemonSets left out."),
    gauge("karpenter_nodes_total_pod_limits", NODE_RESOURCE_LABELS, "Resource limits of the pods bound to a node, DaemonSets left out."),
    gauge("karpenter_nodes_total_daemon_requests", NODE_RESOURCE_LABELS, "Resources requested by the DaemonSet pods bound to a node."),
    gauge("karpenter_nodes_total_daemon_limits", NODE_RESOURCE_LABELS, "Resource limits of the DaemonSet pods bound to a node."),
    gauge("karpenter_nodes_system_overhead", NODE_RESOURCE_LABELS, "Capacity of a node that is not allocatable."),
    gauge("karpenter_nodes_current_lifetime_seconds", NODE_LABELS, "Age of a node."),
    gauge("karpenter_cluster_utilization_percent", &["resource_type"], "Requested share of the cluster's allocatable resources."),
    gauge("karpenter_pods_state", &["name", "namespace", "owner", "node", "scheduled", "nodepool", "zone", "arch", "capacity_type", "instance_type", "phase", "ready", "managed"], "State of a pod: the value is always 1."),
    summary("karpenter_pods_startup_duration_seconds", &[], "Time from the creation of a pod until it runs."),
    histogram("karpenter_pods_bound_duration_seconds", DURATIONS, &[], "Time from the creation of a pod until it is bound."),
    histogram("karpenter_pods_provisioning_bound_duration_seconds", DURATIONS, &[], "Time from a pod's first schedulable verdict until it is bound."),
    histogram("karpenter_pods_provisioning_startup_duration_seconds", DURATIONS, &[], "Time from a pod's first schedulable verdict until it runs."),
    histogram("karpenter_pods_scheduling_decision_duration_seconds", DURATIONS, &[], "Time from the first sight of a pod until the first decision on it."),
    gauge("karpenter_pods_unstarted_time_seconds", &["name", "namespace"], "Time a pod is not running since its creation."),
    gauge("karpenter_pods_unbound_time_seconds", &["name", "namespace"], "Time a pod is not bound since its creation."),
    gauge("karpenter_pods_provisioning_unbound_time_seconds", &["name", "namespace"], "Time a pod is not bound since its first schedulable verdict."),
    gauge("karpenter_pods_provisioning_unstarted_time_seconds", &["name", "namespace"], "Time a pod is not running since its first schedulable verdict."),
    gauge("karpenter_pods_provisioning_scheduling_undecided_time_seconds", &["name", "namespace"], "Time a pod waits for a first decision."),
    counter("karpenter_pods_eviction_requests_total", &["code"], "Number of eviction requests, by HTTP status."),
    counter("karpenter_pods_drained_total", &["reason"], "Number of pods drained off nodes, by reason of the disruption."),
    gauge("karpenter_nodepools_limit", &["resource_type", "nodepool"], "Limits of a nodepool."),
    gauge("karpenter_nodepools_usage", &["resource_type", "nodepool"], "Capacity a nodepool has bought."),
    gauge("karpenter_nodepools_cost_total", &["nodepool"], "Estimated cost of a nodepool per hour."),
    counter("karpenter_nodepools_cost_tracker_errors_total", &["nodepool"], "Number of nodes whose price could not be told."),
    gauge("karpenter_nodepools_allowed_disruptions", &["nodepool", "reason"], "Nodes a nodepool's budgets let be disrupted at once."),
    gauge("karpenter_nodepools_nodes_consuming_budgets", &["nodepool", "reason"], "Nodes that count against a nodepool's budgets now."),
    histogram("karpenter_voluntary_disruption_decision_evaluation_duration_seconds", DURATIONS, &["reason", "consolidation_type"], "Time a disruption method took to decide."),
    counter("karpenter_voluntary_disruption_decisions_total", &["decision", "reason", "consolidation_type"], "Number of disruption decisions carried out."),
    counter("karpenter_voluntary_disruption_decisions_by_nodepool_total", &["nodepool", "decision", "reason", "consolidation_type"], "Number of disruption decisions carried out, by nodepool of the nodes disrupted."),
    gauge("karpenter_voluntary_disruption_eligible_nodes", &["reason"], "Nodes a disruption method may look at."),
    counter("karpenter_voluntary_disruption_consolidation_timeouts_total", &["consolidation_type"], "Number of times consolidation ran out of time."),
    counter("karpenter_voluntary_disruption_failed_validations_total", &["consolidation_type"], "Number of candidates that failed validation before being disrupted."),
    gauge("karpenter_voluntary_disruption_pod_moves_per_day", &["nodepool", "reason"], "Pods that had to move within the last 24 hours (or since the start), for each pod that the NodePool has now."),
    counter("karpenter_voluntary_disruption_queue_failures_total", &["decision", "reason", "consolidation_type"], "Number of replacements that never became ready."),
    histogram("karpenter_consolidation_score", SCORES, &["decision", "nodepool", "policy"], "Score of consolidation moves under policy Balanced."),
    counter("karpenter_consolidation_moves_total", &["decision", "nodepool", "policy"], "Number of consolidation moves judged, before validation."),
    histogram("karpenter_scheduler_scheduling_duration_seconds", DURATIONS, &["controller"], "Time one scheduling took."),
    gauge("karpenter_scheduler_queue_depth", &["controller", "scheduling_id"], "Pods that wait in the scheduling now running."),
    gauge("karpenter_scheduler_unfinished_work_seconds", &["controller", "scheduling_id"], "Age of the scheduling now running."),
    gauge("karpenter_scheduler_ignored_pods_count", &[], "Pods that were left out of the last scheduling."),
    gauge("karpenter_scheduler_unschedulable_pods_count", &["controller"], "Pods the last scheduling found no place for."),
    counter("karpenter_scheduler_plan_findings_total", &["rule", "severity"], "Findings of plan-check about plans of this controller: anything of severity error is a bug, and the plan was not carried out."),
    gauge("karpenter_scheduler_pending_pods_by_effective_zone_count", &["controller", "zone"], "Pending pods by the zone they must run in."),
    gauge("karpenter_cluster_state_node_count", &[], "Nodes in the cluster state."),
    gauge("karpenter_cluster_state_synced", &[], "Whether the cluster state is in step with the API server."),
    gauge("karpenter_cluster_state_unsynced_time_seconds", &[], "Time for which the cluster state is out of step."),
    histogram("karpenter_cloudprovider_duration_seconds", DEFAULT_BUCKETS, &["controller", "method", "provider"], "Time a call of the cloud provider took."),
    counter("karpenter_cloudprovider_errors_total", &["controller", "method", "provider", "error"], "Number of errors the cloud provider returned."),
    gauge("karpenter_cloudprovider_instance_type_offering_available", &["instance_type", "capacity_type", "zone"], "Whether an offering can be had."),
    gauge("karpenter_cloudprovider_instance_type_offering_price_estimate", &["instance_type", "capacity_type", "zone"], "Estimated price of an offering per hour."),
    gauge("karpenter_cloudprovider_instance_type_cpu_cores", &["instance_type"], "VCPUs of an instance type."),
    gauge("karpenter_cloudprovider_instance_type_memory_bytes", &["instance_type"], "Memory of an instance type."),
    counter("karpenter_cloudprovider_instance_launch_failures_total", &["zone", "zone_id", "capacity_type", "reason"], "Number of failed launches."),
    counter("karpenter_cloudprovider_instance_termination_failures_total", &["zone", "zone_id"], "Number of failed terminations."),
    histogram("karpenter_cloudprovider_batcher_batch_time_seconds", DURATIONS, &["batcher"], "Time a batch of cloud calls stayed open."),
    histogram("karpenter_cloudprovider_batcher_batch_size", BATCH_SIZES, &["batcher"], "Requests in a batch of cloud calls."),
    counter("karpenter_interruption_received_messages_total", &["message_type"], "Number of messages read from the interruption queue."),
    counter("karpenter_interruption_deleted_messages_total", &[], "Number of messages deleted from the interruption queue."),
    histogram("karpenter_interruption_message_queue_duration_seconds", DURATIONS, &[], "Time a message waited in the interruption queue."),
    counter("karpenter_interruption_instance_status_unhealthy_total", &["category"], "Number of instances found unhealthy by their status checks."),
    gauge("karpenter_ec2nodeclasses_userdata_bytes", &["nodeclass"], "Size of the user data of an EC2NodeClass."),
    counter("controller_runtime_reconcile_total", &["controller", "result"], "Total number of reconciliations per controller."),
    counter("controller_runtime_reconcile_errors_total", &["controller"], "Total number of reconciliation errors per controller."),
    counter("controller_runtime_terminal_reconcile_errors_total", &["controller"], "Total number of terminal reconciliation errors per controller."),
    counter("controller_runtime_reconcile_panics_total", &["controller"], "Total number of reconciliation panics per controller."),
    counter("controller_runtime_reconcile_timeouts_total", &["controller"], "Total number of reconciliation timeouts per controller."),
    histogram("controller_runtime_reconcile_time_seconds", RECONCILE_TIMES, &["controller"], "Length of time per reconciliation per controller."),
    gauge("controller_runtime_active_workers", &["controller"], "Number of currently used workers per controller."),
    gauge("controller_runtime_max_concurrent_reconciles", &["controller"], "Maximum number of concurrent reconciles per controller."),
    gauge("workqueue_depth", &["name", "controller"], "Current depth of workqueue."),
    counter("workqueue_adds_total", &["name", "controller"], "Total number of adds handled by workqueue."),
    counter("workqueue_retries_total", &["name", "controller"], "Total number of retries handled by workqueue."),
    histogram("workqueue_queue_duration_seconds", QUEUE_TIMES, &["name", "controller"], "Seconds an item waits in the workqueue before it is handled."),
    histogram("workqueue_work_duration_seconds", QUEUE_TIMES, &["name", "controller"], "Seconds the handling of an item from the workqueue takes."),
    gauge("workqueue_unfinished_work_seconds", &["name", "controller"], "Seconds of work in progress that work_duration has not yet seen."),
    gauge("workqueue_longest_running_processor_seconds", &["name", "controller"], "Seconds the longest running processor of the workqueue has been running."),
    counter("client_go_request_total", &["code", "method"], "Number of HTTP requests to the API server, by status code and method."),
    histogram("client_go_request_duration_seconds", DEFAULT_BUCKETS, &["verb", "group", "version", "kind", "subresource"], "Latency of requests to the API server."),
    gauge("leader_election_master_status", &["name"], "Whether this process holds the lease: 1 if so."),
    counter("leader_election_slowpath_total", &["name"], "Number of times the slow path was taken to renew the lease."),
    histogram("operator_nodeclaim_status_condition_transition_seconds", CONDITION_TIMES, &["type", "status", "karpenter_k8s_aws_ec2nodeclass", "karpenter_sh_nodepool"], "Time a condition held a status before it left it."),
    gauge("operator_nodeclaim_status_condition_count", &["namespace", "name", "type", "status", "reason", "karpenter_k8s_aws_ec2nodeclass", "karpenter_sh_nodepool"], "Condition of an object: 1 for the status it has."),
    gauge("operator_nodeclaim_status_condition_current_status_seconds", &["namespace", "name", "type", "status", "reason", "karpenter_k8s_aws_ec2nodeclass", "karpenter_sh_nodepool"], "Time for which a condition has its status."),
    counter("operator_nodeclaim_status_condition_transitions_total", &["type", "status", "reason", "karpenter_k8s_aws_ec2nodeclass", "karpenter_sh_nodepool"], "Number of transitions of a condition."),
    gauge("operator_nodeclaim_termination_current_time_seconds", &["namespace", "name", "karpenter_k8s_aws_ec2nodeclass", "karpenter_sh_nodepool"], "Time for which an object is being deleted."),
    histogram("operator_nodeclaim_termination_duration_seconds", CONDITION_TIMES, &["karpenter_k8s_aws_ec2nodeclass", "karpenter_sh_nodepool"], "Time an object took to be deleted."),
    histogram("operator_nodepool_status_condition_transition_seconds", CONDITION_TIMES, &["type", "status"], "Time a condition held a status before it left it."),
    gauge("operator_nodepool_status_condition_count", &["namespace", "name", "type", "status", "reason"], "Condition of an object: 1 for the status it has."),
    gauge("operator_nodepool_status_condition_current_status_seconds", &["namespace", "name", "type", "status", "reason"], "Time for which a condition has its status."),
    counter("operator_nodepool_status_condition_transitions_total", &["type", "status", "reason"], "Number of transitions of a condition."),
    gauge("operator_nodepool_termination_current_time_seconds", &["namespace", "name"], "Time for which an object is being deleted."),
    histogram("operator_nodepool_termination_duration_seconds", CONDITION_TIMES, &[], "Time an object took to be deleted."),
    histogram("operator_node_status_condition_transition_seconds", CONDITION_TIMES, &["type", "status", "karpenter_k8s_aws_ec2nodeclass", "karpenter_sh_nodepool", "karpenter_sh_initialized"], "Time a condition held a status before it left it."),
    gauge("operator_node_status_condition_count", &["namespace", "name", "type", "status", "reason", "karpenter_k8s_aws_ec2nodeclass", "karpenter_sh_nodepool", "karpenter_sh_initialized"], "Condition of an object: 1 for the status it has."),
    gauge("operator_node_status_condition_current_status_seconds", &["namespace", "name", "type", "status", "reason", "karpenter_k8s_aws_ec2nodeclass", "karpenter_sh_nodepool", "karpenter_sh_initialized"], "Time for which a condition has its status."),
    counter("operator_node_status_condition_transitions_total", &["type", "status", "reason", "karpenter_k8s_aws_ec2nodeclass", "karpenter_sh_nodepool", "karpenter_sh_initialized"], "Number of transitions of a condition."),
    gauge("operator_node_termination_current_time_seconds", &["namespace", "name", "karpenter_k8s_aws_ec2nodeclass", "karpenter_sh_nodepool", "karpenter_sh_initialized"], "Time for which an object is being deleted."),
    histogram("operator_node_termination_duration_seconds", CONDITION_TIMES, &["karpenter_k8s_aws_ec2nodeclass", "karpenter_sh_nodepool", "karpenter_sh_initialized"], "Time an object took to be deleted."),
    histogram("operator_ec2nodeclass_status_condition_transition_seconds", DEFAULT_BUCKETS, &["type", "status"], "Time a condition held a status before it left it."),
    gauge("operator_ec2nodeclass_status_condition_count", &["namespace", "name", "type", "status", "reason"], "Condition of an object: 1 for the status it has."),
    gauge("operator_ec2nodeclass_status_condition_current_status_seconds", &["namespace", "name", "type", "status", "reason"], "Time for which a condition has its status."),
    counter("operator_ec2nodeclass_status_condition_transitions_total", &["type", "status", "reason"], "Number of transitions of a condition."),
    gauge("operator_ec2nodeclass_termination_current_time_seconds", &["namespace", "name"], "Time for which an object is being deleted."),
    histogram("operator_ec2nodeclass_termination_duration_seconds", DEFAULT_BUCKETS, &[], "Time an object took to be deleted."),
    histogram("operator_capacitybuffer_status_condition_transition_seconds", CONDITION_TIMES, &["type", "status"], "Time a condition held a status before it left it."),
    gauge("operator_capacitybuffer_status_condition_count", &["namespace", "name", "type", "status", "reason"], "Condition of an object: 1 for the status it has."),
    gauge("operator_capacitybuffer_status_condition_current_status_seconds", &["namespace", "name", "type", "status", "reason"], "Time for which a condition has its status."),
    counter("operator_capacitybuffer_status_condition_transitions_total", &["type", "status", "reason"], "Number of transitions of a condition."),
    gauge("operator_capacitybuffer_termination_current_time_seconds", &["namespace", "name"], "Time for which an object is being deleted."),
    histogram("operator_capacitybuffer_termination_duration_seconds", CONDITION_TIMES, &[], "Time an object took to be deleted."),
    histogram("operator_status_condition_transition_seconds", DEFAULT_BUCKETS, &["group", "kind", "type", "status"], "Time a condition held a status before it left it. Deprecated: use the family of the kind."),
    gauge("operator_status_condition_count", &["group", "kind", "namespace", "name", "type", "status", "reason"], "Condition of an object: 1 for the status it has. Deprecated: use the family of the kind."),
    gauge("operator_status_condition_current_status_seconds", &["group", "kind", "namespace", "name", "type", "status", "reason"], "Time for which a condition has its status. Deprecated: use the family of the kind."),
    counter("operator_status_condition_transitions_total", &["group", "kind", "type", "status", "reason"], "Number of transitions of a condition. Deprecated: use the family of the kind."),
    gauge("operator_termination_current_time_seconds", &["group", "kind", "namespace", "name"], "Time for which an object is being deleted. Deprecated: use the family of the kind."),
    histogram("operator_termination_duration_seconds", DEFAULT_BUCKETS, &["group", "kind"], "Time an object took to be deleted. Deprecated: use the family of the kind."),
    counter("process_cpu_seconds_total", &[], "Total user and system CPU time spent in seconds."),
    gauge("process_resident_memory_bytes", &[], "Resident memory size in bytes."),
    gauge("process_virtual_memory_bytes", &[], "Virtual memory size in bytes."),
    gauge("process_open_fds", &[], "Number of open file descriptors."),
    gauge("process_max_fds", &[], "Maximum number of open file descriptors."),
    gauge("process_start_time_seconds", &[], "Start time of the process since unix epoch in seconds."),
];
