//! The catalogue of a node's life (`lifecycle-and-disruption.md` §10.2), by number: each case has tests, which are named
//! here and must be there, or a reason why there is none. Whether they pass their own runs say: functions and scenarios
//! are told with every build, rules while `just chaos` is run, and stories (`scale`) where somebody asks for them, which CI
//! does not.

#![allow(clippy::unwrap_used)] // A test may fail loudly.

use std::path::{Path, PathBuf};

/// Number, and the tests that tell it: functions, or scenarios by their folders (`scenario:`), large stories of
/// `tests/scale.rs` (`story:`), or rules of the watch over random stories (`rule:`).
const CASES: &[(usize, &[&str])] = &[
    // Lifecycle
    (
        1,
        &[
            "a_standard_claim_becomes_ready_and_is_left_alone",
            "everything_that_a_claim_says_reaches_its_node",
            "scenario:standalone-nodeclaim",
        ],
    ),
    (
        2,
        &[
            "a_deleted_claim_takes_its_node_and_machine_along",
            "a_deleted_node_takes_its_claim_and_machine_along",
            "scenario:node-deleted-by-hand",
        ],
    ),
    (
        3,
        &[
            "a_node_that_does_not_register_has_fifteen_minutes",
            "a_launch_that_keeps_failing_says_why_and_times_out",
            "a_claim_has_its_time",
            "scenario:registration-timeout",
        ],
    ),
    (4, &["a_claim_whose_class_cannot_sell_is_given_back"]),
    (
        5,
        &[
            "a_claim_whose_machine_nobody_knows_is_collected",
            "scenario:ec2-lost-response",
        ],
    ),
    (
        6,
        &[
            "a_lost_machine_is_collected_and_not_drained",
            "machines_that_end_do_not_count_as_there",
        ],
    ),
    (
        7,
        &[
            "a_lost_write_does_not_buy_again",
            "a_controller_killed_mid_launch_buys_once",
            "scenario:controller-killed-mid-launch",
        ],
    ),
    (
        8,
        &[
            "no_capacity_gives_the_claim_back",
            "an_answer_decides",
            "a_launch_that_keeps_failing_says_why_and_times_out",
        ],
    ),
    (
        9,
        &[
            "a_node_without_the_taint_registers_with_a_warning",
            "a_claim_becomes_a_node_step_by_step",
        ],
    ),
    (
        10,
        &[
            "taints_are_left_to_the_kubelet_where_the_claim_says_so",
            "taints_are_merged",
        ],
    ),
    (11, &["hooks_hold_a_registration_until_all_are_done"]),
    (12, &["the_first_lack_is_told"]),
    (
        13,
        &[
            "the_last_four_decide",
            "a_restart_keeps_the_verdict_and_a_reset_does_not",
            "a_judgement_is_about_one_generation",
        ],
    ),
    (
        14,
        &[
            "an_expired_claim_goes_to_the_second",
            "a_claim_expires_at_its_age",
            "scenario:expiry-one-for-one",
        ],
    ),
    // Termination
    (
        15,
        &[
            "tiers_go_one_after_the_other",
            "a_tier_holds_the_next_until_it_is_gone",
        ],
    ),
    (
        16,
        &[
            "the_grace_period_ends_every_hold_in_time",
            "pods_are_forced_in_time",
        ],
    ),
    (
        17,
        &[
            "pods_that_go_too_slowly_are_hurried",
            "scenario:grace-before-deadline",
        ],
    ),
    (
        18,
        &[
            "a_protected_pod_holds_the_drain_until_its_time_is_up",
            "protected_pods_hold_the_drain",
        ],
    ),
    (
        19,
        &[
            "a_pdb_holds_a_drain_until_it_lets_go",
            "two_pdbs_on_one_pod_are_told_apart",
            "scenario:drain-under-pdb",
        ],
    ),
    (20, &["some_pods_are_never_touched"]),
    (
        21,
        &[
            "a_pod_in_the_queue",
            "the_earlier_deadline_holds_and_a_new_pod_starts_anew",
        ],
    ),
    (
        22,
        &["forcing_knows_no_tiers", "forced_grace_is_never_zero"],
    ),
    (23, &["pods_that_go_too_slowly_are_hurried"]),
    (
        24,
        &[
            "volumes_are_detached_before_the_machine_ends",
            "volumes_are_not_waited_for_past_the_deadline",
            "only_volumes_of_pods_that_go_are_waited_for",
        ],
    ),
    (
        25,
        &[
            "a_dead_node_is_not_drained",
            "a_lost_machine_is_collected_and_not_drained",
        ],
    ),
    (
        26,
        &[
            "a_shared_machine_is_nobodys_to_end",
            "a_deleted_claim_takes_node_and_machine_along",
        ],
    ),
    // Repair
    (
        27,
        &[
            "a_node_that_stays_bad_is_replaced_whatever_holds_it",
            "a_condition_is_bad_as_policies_say",
            "a_node_that_recovers_in_time_stays",
            "scenario:repair-not-ready",
        ],
    ),
    (
        28,
        &[
            "a_fifth_may_be_bad_rounded_up",
            "many_bad_nodes_at_once_are_left_alone",
            "a_claim_without_a_pool_is_judged_by_the_cluster",
            "scenario:repair-breaker",
        ],
    ),
    // Drift
    (
        29,
        &[
            "a_changed_template_drifts",
            "changed_requirements_drift",
            "scenario:drift-replaced",
            "scenario:drift-by-requirements",
        ],
    ),
    (
        30,
        &[
            "drift_keeps_to_budgets_and_limits",
            "budgets_limit_a_command",
            "rule:budgets are kept",
        ],
    ),
    (
        31,
        &[
            "scenario:drift-blocked",
            "what_cannot_be_read_allows_nothing",
        ],
    ),
    (
        32,
        &[
            "scenario:drift-replacement-lost",
            "a_replacement_that_never_comes_changes_nothing",
        ],
    ),
    (33, &["scenario:drift-replacement-stuck"]),
    (34, &["scenario:drift-blocked"]),
    (35, &["claims_move_to_the_new_version_of_the_hash"]),
    (
        36,
        &[
            "drift_takes_who_is_idle_first_and_then_who_waits_longest",
            "scenario:drift-past-a-stuck-one",
        ],
    ),
    (
        37,
        &[
            "budgets_of_pods_block",
            "drift_takes_who_is_idle_first_and_then_who_waits_longest",
        ],
    ),
    (
        38,
        &[
            "a_changed_template_drifts",
            "a_type_that_is_not_sold_any_more_is_drift_once_its_machine_is_an_hour_old",
        ],
    ),
    (39, &["drift_has_its_reasons"]),
    // Emptiness and consolidation
    (
        40,
        &[
            "an_empty_node_goes_after_consolidate_after",
            "a_blocking_budget_keeps_empty_nodes",
            "scenario:budget-window",
            "scenario:empty-under-blocking-budget",
        ],
    ),
    (41, &["some_pods_keep_a_node"]),
    (
        42,
        &[
            "room_for_a_buffer_keeps_a_node_that_may_still_be_consolidated",
            "scenario:buffer-deleted-frees-nodes",
            "scenario:buffer-fixed",
            "scenario:buffer-limit",
        ],
    ),
    (
        43,
        &[
            "budgets_limit_a_command",
            "budgets_let_nodes_go_one_after_the_other",
            "nodes_that_are_down_or_going_use_the_budget_up",
        ],
    ),
    (
        44,
        &[
            "a_machine_that_is_too_big_is_replaced",
            "scenario:consolidation-delete",
            "scenario:consolidation-replace",
            "scenario:spot-to-spot",
        ],
    ),
    (
        45,
        &[
            "pods_may_go_to_capacity_that_is_not_ours",
            "scenario:consolidation-to-one-machine",
        ],
    ),
    (
        46,
        &[
            "two_machines_are_not_replaced_by_one_of_their_own",
            "a_spot_and_an_on_demand_machine_become_one",
            "scenario:consolidation-merges",
            "scenario:consolidation-multi",
        ],
    ),
    (
        47,
        &[
            "a_spot_machine_is_replaced_where_there_is_choice",
            "scenario:spot-to-spot",
        ],
    ),
    (
        48,
        &[
            "what_may_turn_out_dearer_is_not_bought",
            "a_spot_machine_is_replaced_where_there_is_choice",
        ],
    ),
    (
        49,
        &["a_node_whose_pods_changed_a_moment_ago_still_takes_pods"],
    ),
    (
        50,
        &[
            "pods_do_not_go_where_nothing_runs_yet",
            "a_pod_that_waits_for_ever_blocks_nobody",
        ],
    ),
    (
        51,
        &[
            "a_command_is_revised_to_what_still_holds",
            "a_pod_that_comes_while_it_is_thought_over_saves_its_node",
        ],
    ),
    (
        52,
        &[
            "rules_between_pods_hold_after_a_move",
            "scenario:consolidation-keeps-spread",
        ],
    ),
    (
        53,
        &[
            "budgets_of_other_namespaces_and_of_unready_pods_do_not_count",
            "a_volume_without_affinity_is_anywhere_and_one_on_a_disk_of_a_node_leaves_the_name_out",
        ],
    ),
    (
        54,
        &[
            "who_saves_most_for_least_goes_first_and_everybody_has_a_turn",
            "the_dearest_empty_nodes_go_first_all_in_one_command",
        ],
    ),
    (55, &["scenario:reservation"]),
    (
        56,
        &[
            "a_balanced_pool_weighs_what_is_saved_against_who_is_moved",
            "savings_are_weighed_against_disruption",
            "scenario:consolidation-balanced",
        ],
    ),
    (
        57,
        &[
            "static_drift_goes_as_far_as_it_may",
            "scenario:static-and-dynamic",
            "scenario:overlays",
        ],
    ),
    (
        58,
        &[
            "pods_that_come_end_or_go_are_noted_and_nothing_else_is",
            "some_changes_count",
        ],
    ),
    // Orchestration
    (
        59,
        &[
            "rule:replacements come first",
            "scenario:controller-killed-mid-replacement",
        ],
    ),
    (60, &["time_grows_with_the_queue"]),
    (
        61,
        &[
            "what_a_killed_controller_left_is_healed",
            "pods_on_a_leaving_node_get_their_next_place_before_they_go",
        ],
    ),
    (
        62,
        &[
            "nodes_spoiled_one_after_the_other_are_not_bought_without_a_pause",
            "spoiled_nodes_that_are_given_back_are_not_bought_anew_at_once",
        ],
    ),
    // Static
    (
        63,
        &[
            "a_pool_is_held_at_its_size",
            "a_pool_shrinks_by_what_is_missed_least",
            "a_limit_of_nodes_holds_while_everything_changes",
            "scenario:static-scale-up-down",
        ],
    ),
    // Capacity
    (
        71,
        &[
            "no_capacity_gives_the_claim_back",
            "spot_that_is_out_leads_to_the_next_pool_then_to_on_demand",
            "marks_hold_for_three_minutes_and_are_extended",
            "errors_say_what_to_do",
            "scenario:ec2-throttled",
        ],
    ),
    (
        73,
        &[
            "a_zone_is_out_only_when_all_its_subnets_are",
            "the_emptier_subnet_is_chosen_until_launches_have_filled_it",
        ],
    ),
    (74, &["a_template_deleted_by_hand_is_made_again"]),
    (
        76,
        &[
            "spot_dearer_than_on_demand_goes_and_equal_stays",
            "scenario:ec2-spot-fallback",
            "scenario:reservation",
        ],
    ),
    // Performance
    (77, &["story:case_77_two_profiles_out_and_in"]),
    (78, &["story:case_78_spread_over_hosts"]),
    (79, &["story:case_79_everything_drifts"]),
    (80, &["story:case_80_protected_nodes_survive"]),
    (81, &["story:case_81_one_pod_a_host"]),
    (82, &["story:case_82_thirty_deployments"]),
    (83, &["story:case_83_all_methods_at_once"]),
];

/// Cases that nothing tells, first and last, and why.
const UNTOLD: &[(usize, usize, &str)] = &[
    (64, 69, "nothing reads an interruption queue yet"),
    (70, 70, "nothing asks EC2 for the status of instances yet"),
    (
        72,
        72,
        "a missing service-linked role is told, but does not turn spot off yet",
    ),
    (75, 75, "nothing hears of zonal shifts yet"),
];

fn rust_files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_none_or(|n| n != "target") {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("catalogue.rs") {
            out.push(path);
        }
    }
}

/// Where tests may be.
struct Tests {
    root: PathBuf,
    texts: Vec<String>,
}

impl Tests {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = Vec::new();
        for folder in ["src", "fake-cloud", "e2e"] {
            rust_files(&root.join(folder), &mut files);
        }
        let read = |f: &PathBuf| std::fs::read_to_string(f).unwrap();
        let texts = files.iter().map(read).collect();
        Self { root, texts }
    }

    fn have(&self, name: &str) -> bool {
        let says = |file: &str, name: &str| {
            let text = std::fs::read_to_string(self.root.join(file)).unwrap();
            text.contains(&format!("\"{name}\""))
        };
        match name.split_once(':') {
            Some(("scenario", folder)) => {
                let folder = self.root.join("fixtures/scenarios").join(folder);
                folder.join("scenario.yaml").is_file()
            }
            Some(("story", story)) => says("e2e/tests/scale.rs", story),
            Some(("rule", rule)) => says("e2e/src/storm/watch.rs", rule),
            Some(_) => false,
            None => self.texts.iter().any(|text| has_test(text, name)),
        }
    }
}

/// Whether a file has a test function of that name which is run: what stands over it, down from the last empty line,
/// makes it one.
fn has_test(text: &str, name: &str) -> bool {
    text.match_indices(&format!("fn {name}(")).any(|(at, _)| {
        let before = text.get(..at).unwrap_or_default();
        let over = before.rsplit_once("\n\n").map_or(before, |(_, over)| over);
        let is_test = ["#[test]", "#[tokio::test", "#[rstest]"];
        is_test.iter().any(|t| over.contains(t)) && !over.contains("#[ignore")
    })
}

#[test]
fn every_numbered_case_of_a_nodes_life_has_a_test() {
    let all = Tests::read();
    let mut wrong = Vec::new();
    for (number, tests) in CASES {
        let missing = tests.iter().filter(|t| !all.have(t));
        wrong.extend(missing.map(|t| format!("{number}: there is no test {t}")));
    }
    let untold = |n: usize| {
        let all = UNTOLD.iter();
        all.filter(|(first, last, _)| (*first..=*last).contains(&n))
            .count()
    };
    let told = |n: usize| {
        let all = CASES.iter();
        all.filter(|(number, tests)| *number == n && !tests.is_empty())
            .count()
    };
    for n in 1..=83 {
        if told(n) + untold(n) != 1 {
            let (told, untold) = (told(n), untold(n));
            wrong.push(format!(
                "{n}: told {told} times, and said not to be {untold} times; expected one of them, once"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_not_there_or_no_test_is_missed() {
    let all = Tests::read();
    assert!(all.have("every_metric_of_the_table_is_written_by_somebody"));
    assert!(all.have("scenario:first-node") && all.have("rule:limits are kept"));
    for none in [
        "a_test_that_nobody_wrote",
        "virtual_clock",
        "scenario:never-told",
        "story:case_84_there_is_none",
        "story:limits are kept",
        "rule:rules are broken",
        "tale:first-node",
    ] {
        assert!(!all.have(none), "{none}");
    }
    let text = |over: &str| format!("fn a() {{}}\n\n{over}async fn b() {{}}\n");
    assert!(has_test(
        &text("/// About it.\n#[tokio::test(start_paused = true)]\n"),
        "b"
    ));
    assert!(!has_test(&text("#[test]\n#[ignore]\n"), "b"));
    assert!(!has_test(&text(""), "b"));
    assert!(
        !has_test(&format!("#[test]\n{}", text("")), "b"),
        "the attribute is of another function"
    );
}
