//! Every row of the table, from every side it can be set.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::table::GATES;
use super::*;

/// What `--scheduler-config` shows of itself.
const SPREAD: &str = r#"{"podTopologySpread":{"defaultConstraints":[{"maxSkew":2,"topologyKey":"topology.kubernetes.io/zone","whenUnsatisfiable":"DoNotSchedule","minDomains":2}]}}"#;

/// What is always given, so that the required setting is there.
const BASE: &str = "--cluster-name=c";

fn parse(args: &[&str], env: &[(&str, &str)]) -> Result<Settings, Vec<SettingsError>> {
    let env = env
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Settings::parse(std::iter::once(BASE).chain(args.iter().copied()), &env)
}

fn base() -> Settings {
    parse(&[], &[]).unwrap()
}

/// A value other than the default, and one that is refused (where anything is).
fn samples(row: &Row) -> (&'static str, Option<&'static str>) {
    match row.flag {
        "provider" => ("kwok", Some("gce")),
        "cluster-endpoint" => ("https://a.example", Some("a.example")),
        "preference-policy" => ("Ignore", Some("ignore")),
        "min-values-policy" => ("BestEffort", Some("besteffort")),
        "log-level" => ("debug", Some("warn")),
        "memory-limit" => ("1073741824", Some("1Gi")),
        "cpu-requests" => ("2500", Some("2.5")),
        "reserved-enis" => ("2", Some("-1")),
        "feature-gates" => ("NodeRepair=true", Some("NodeRepair")),
        "scheduler-config" => (SPREAD, Some("podTopologySpread: [zone]")),
        _ => match row.kind {
            Kind::Text | Kind::Url => ("other", None),
            Kind::List => ("stderr,/tmp/log", None),
            Kind::Bool => {
                let on = (row.show)(&Settings::default()) == "true";
                (if on { "false" } else { "true" }, Some("yes"))
            }
            Kind::Integer(..) => ("9090", Some("many")),
            Kind::Ratio => ("0.1", Some("-0.1")),
            Kind::Duration(_) => ("3m", Some("-3m")),
            Kind::OneOf(_) | Kind::Gates | Kind::SchedulerConfig => {
                unreachable!("{} is named above", row.flag)
            }
        },
    }
}

#[test]
fn every_row_can_be_set_from_every_side() {
    for row in TABLE {
        let (value, _) = samples(row);
        let default = (row.show)(&base());
        let long = format!("--{}={value}", row.flag);
        let short = format!("-{}={value}", row.flag);
        let name = format!("--{}", row.flag);
        let from_flag = parse(&[&long], &[]).unwrap();
        assert_ne!(
            (row.show)(&from_flag),
            default,
            "{} changed nothing",
            row.flag
        );
        assert_eq!(
            parse(&[&short], &[]).unwrap(),
            from_flag,
            "one dash: {}",
            row.flag
        );
        assert_eq!(
            parse(&[&name, value], &[]).unwrap(),
            from_flag,
            "two words: {}",
            row.flag
        );
        if row.flag != "cluster-name" {
            assert_eq!(
                parse(&[], &[(row.env, value)]).unwrap(),
                from_flag,
                "{}",
                row.env
            );
        }
        // A flag wins.
        let both = parse(
            &[&format!("--{}={}", row.flag, (row.show)(&base()))],
            &[(row.env, value)],
        );
        assert_eq!(
            (row.show)(&both.unwrap()),
            default,
            "{} beside {}",
            row.flag,
            row.env
        );
        if let Some(chart) = row.chart {
            let from_chart = Settings::from_chart(&json!({chart: value})).unwrap();
            assert_eq!(
                (row.show)(&from_chart),
                (row.show)(&from_flag),
                "settings.{chart}"
            );
        }
        // What is shown is read back.
        let again = parse(
            &[&format!("--{}={}", row.flag, (row.show)(&from_flag))],
            &[],
        )
        .unwrap();
        assert_eq!(again, from_flag, "{}", row.flag);
    }
}

#[test]
fn every_row_refuses_what_it_does_not_take_and_says_what_it_takes() {
    for row in TABLE {
        let (_, Some(bad)) = samples(row) else {
            continue;
        };
        let flag = format!("--{}", row.flag);
        let expected = row.kind.expected_of(bad);
        let error = |setting: &str| {
            vec![SettingsError::Value {
                setting: setting.to_owned(),
                value: bad.to_owned(),
                expected: expected.clone(),
            }]
        };
        assert_eq!(
            parse(&[&format!("{flag}={bad}")], &[]).unwrap_err(),
            error(&flag)
        );
        assert_eq!(parse(&[], &[(row.env, bad)]).unwrap_err(), error(row.env));
        if let Some(chart) = row.chart {
            let refused = Settings::from_chart(&json!({chart: bad})).unwrap_err();
            assert_eq!(refused, error(&format!("settings.{chart}")));
        }
    }
}

#[test]
fn defaults_are_the_references() {
    let lines: Vec<String> = TABLE
        .iter()
        .map(|row| {
            let default = (row.show)(&Settings::default());
            format!(
                "--{} {} {} = {default:?}",
                row.flag,
                row.env,
                row.chart.unwrap_or("-")
            )
        })
        .collect();
    insta::assert_snapshot!("settings_defaults", lines.join("\n"));
}

#[test]
fn names_follow_one_rule_and_are_unique() {
    let mut seen = std::collections::BTreeSet::new();
    for row in TABLE {
        assert_eq!(row.env, row.flag.to_uppercase().replace('-', "_"));
        assert!(seen.insert(row.flag));
        assert!(row.help.ends_with('.'));
    }
}

#[rstest]
#[case("1", true)]
#[case("t", true)]
#[case("True", true)]
#[case("0", false)]
#[case("FALSE", false)]
fn the_environment_spells_booleans_in_many_ways(#[case] value: &str, #[case] on: bool) {
    let settings = parse(&[], &[("ISOLATED_VPC", value)]).unwrap();
    assert_eq!(settings.ec2.isolated_vpc, on);
    assert!(
        parse(&[&format!("--isolated-vpc={value}")], &[]).is_err(),
        "flags take true and false only"
    );
}

#[test]
fn a_switch_needs_no_value() {
    let settings = parse(
        &[
            "--isolated-vpc",
            "--verify-plans",
            "false",
            "-disable-dry-run",
        ],
        &[],
    )
    .unwrap();
    assert!(settings.ec2.isolated_vpc && settings.ec2.disable_dry_run);
    assert!(!settings.verify_plans);
}

#[test]
fn an_empty_variable_is_none_except_for_text() {
    let all: Vec<(&str, &str)> = TABLE.iter().map(|row| (row.env, "")).collect();
    let settings = parse(&[], &all).unwrap();
    let mut expected = base();
    expected.leader_election_name = String::new();
    assert_eq!(settings, expected);
}

#[test]
fn all_errors_come_at_once() {
    let errors = parse(
        &[
            "--batch-idle-duration=soon",
            "--metric-port=1",
            "stray",
            "--log-level",
        ],
        &[("METRICS_PORT", "x")],
    )
    .unwrap_err();
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!("settings_errors", text.join("\n"));
}

#[test]
fn the_cluster_name_is_required_on_ec2_only() {
    let none = BTreeMap::new();
    let errors = Settings::parse::<_, &str>([], &none).unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "--cluster-name (CLUSTER_NAME, settings.clusterName) is required with provider ec2"
    );
    assert!(Settings::parse(["--provider=kwok"], &none).is_ok());
}

#[test]
fn gates_by_string_and_by_chart() {
    let settings = parse(
        &[
            "--feature-gates",
            "NodeRepair=true, ReservedCapacity=false,NotYetThere=true",
        ],
        &[],
    )
    .unwrap();
    assert!(settings.feature_gates.node_repair && !settings.feature_gates.reserved_capacity);
    for gate in GATES {
        let mut default = FeatureGates::default();
        let flipped = !*(gate.field)(&mut default);
        let dotted =
            Settings::from_chart(&json!({format!("featureGates.{}", gate.chart): flipped}))
                .unwrap();
        let nested = Settings::from_chart(&json!({"featureGates": {gate.chart: flipped}})).unwrap();
        let flag = parse(&[&format!("--feature-gates={}={flipped}", gate.name)], &[]).unwrap();
        assert_eq!(dotted.feature_gates, nested.feature_gates);
        assert_eq!(dotted.feature_gates, flag.feature_gates);
        assert_ne!(
            dotted.feature_gates,
            FeatureGates::default(),
            "{}",
            gate.name
        );
    }
    assert_eq!(
        (TABLE
            .iter()
            .find(|r| r.flag == "feature-gates")
            .unwrap()
            .show)(&Settings::default()),
        "NodeRepair=false,ReservedCapacity=true,SpotToSpotConsolidation=false,NodeOverlay=false,StaticCapacity=false,CapacityBuffer=false"
    );
}

#[rstest]
#[case(json!(null), None)]
#[case(json!({"reservedENIs": "2", "vmMemoryOverheadPercent": 0.1, "isolatedVPC": "true"}), None)]
#[case(json!({"batchIdleDuraton": "1s"}), Some("settings.batchIdleDuraton is not a setting; did you mean settings.batchIdleDuration?"))]
#[case(json!({"featureGates": {"nodeRepairs": true}}), Some("settings.featureGates.nodeRepairs is not a setting; did you mean settings.featureGates.nodeRepair?"))]
#[case(json!({"featureGates.nodeRepair": 1}), Some("settings.featureGates.nodeRepair is \"1\", expected true or false"))]
#[case(json!({"batchIdleDuration": ["1s"]}), Some("settings.batchIdleDuration is \"[\\\"1s\\\"]\", expected a duration such as 1s or 1m30s"))]
#[case(json!({"amiRefreshInterval": "59s"}), Some("settings.amiRefreshInterval is \"59s\", expected a duration of at least 1m"))]
#[case(json!([1]), Some("settings is \"[1]\", expected a map of settings"))]
fn chart_values(#[case] values: Value, #[case] error: Option<&str>) {
    let result = Settings::from_chart(&values).map_err(|errors| errors[0].to_string());
    assert_eq!(result.err().as_deref(), error);
}

#[test]
fn generated_texts() {
    insta::assert_snapshot!("settings_markdown", docs::markdown());
    insta::assert_json_snapshot!("settings_chart_schema", docs::chart_schema());
    for row in TABLE {
        assert!(docs::help().contains(&format!("--{} ({}", row.flag, row.env)));
    }
}

#[rstest]
#[case("0", Some(0))]
#[case("0s", Some(0))]
#[case("1s", Some(1_000_000_000))]
#[case("1m30s", Some(90_000_000_000))]
#[case("1.5h", Some(5_400_000_000_000))]
#[case(".5s", Some(500_000_000))]
#[case("300ms", Some(300_000_000))]
#[case("1h1m1s1ms1us1ns", Some(3_661_001_001_001))]
#[case("2562048h", None)]
#[case("-1s", None)]
#[case("", None)]
#[case("5", None)]
#[case("s", None)]
#[case(".s", None)]
#[case("1.2.3s", None)]
#[case("1 s", None)]
#[case("1d", None)]
fn durations(#[case] text: &str, #[case] nanos: Option<u64>) {
    assert_eq!(parse_duration(text), nanos.map(Duration::from_nanos));
}

#[rstest]
#[case(1000, 10)]
#[case(1, 10)]
#[case(1001, 26)]
#[case(30_000, 496)]
#[case(60_000, 1000)]
#[case(600_000, 1000)]
fn concurrency_grows_with_cores(#[case] millis: u32, #[case] workers: usize) {
    let settings = Settings {
        cpu_requests_millis: millis,
        ..Settings::default()
    };
    assert_eq!(settings.concurrency(10, 1000), workers);
}

#[test]
fn what_has_no_effect_is_named_where_it_was_asked_for_and_in_the_docs() {
    assert!(Settings::default().without_effect().is_empty());
    let asked = Settings {
        enable_profiling: true,
        memory_limit_bytes: 1 << 30,
        log_error_output_paths: vec!["stdout".to_owned()],
        ..Settings::default()
    };
    let named = ["enable-profiling", "memory-limit"];
    assert_eq!(asked.without_effect(), named);
    let docs = include_str!("../../../docs/differences.md");
    for flag in WITHOUT_EFFECT {
        assert!(TABLE.iter().any(|row| row.flag == *flag), "no such flag");
        assert!(
            docs.contains(&format!("`--{flag}`")),
            "docs/differences.md does not say why --{flag} has no effect"
        );
    }
}

#[test]
fn the_clusters_topology_spread_is_read_from_yaml_and_from_a_chart() {
    let yaml = "podTopologySpread:\n  defaultConstraints:\n  - maxSkew: 2\n    topologyKey: topology.kubernetes.io/zone\n    \
        whenUnsatisfiable: DoNotSchedule\n    minDomains: 2\n";
    let from_env = parse(&[], &[("SCHEDULER_CONFIG", yaml)]).unwrap();
    let written: serde_json::Value = serde_json::from_str(SPREAD).unwrap();
    let from_chart = Settings::from_chart(&json!({"schedulerConfig": written})).unwrap();
    assert_eq!(from_env.spread_defaults, from_chart.spread_defaults);
    let [only] = &from_env.spread_defaults[..] else {
        panic!("{:?}", from_env.spread_defaults)
    };
    assert_eq!((only.max_skew, only.min_domains), (2, Some(2)));
    assert_eq!(only.label_selector, None, "found out for each pod");
}

#[rstest]
#[case::not_yaml("podTopologySpread: [", "")]
#[case::unknown_field("podSpread: {}", "podSpread")]
#[case::selector(r#"{"labelSelector": {}}"#, "labelSelector")]
#[case::label_keys(r#"{"matchLabelKeys": []}"#, "matchLabelKeys")]
#[case::skew(
    r#"{"maxSkew": 0}"#,
    "defaultConstraints[0].maxSkew: expected a number of at least 1, got 0"
)]
#[case::key(
    r#"{"topologyKey": "a b"}"#,
    "defaultConstraints[0].topologyKey: expected the key of a label, got \"a b\""
)]
#[case::when(
    r#"{"whenUnsatisfiable": "Never"}"#,
    "defaultConstraints[0].whenUnsatisfiable: expected DoNotSchedule or ScheduleAnyway, got \"Never\""
)]
#[case::domains(r#"{"minDomains": 0}"#, "defaultConstraints[0].minDomains: expected")]
#[case::domains_of_a_wish(
    r#"{"minDomains": 2, "whenUnsatisfiable": "ScheduleAnyway"}"#,
    "defaultConstraints[0].minDomains: expected"
)]
#[case::policy(
    r#"{"nodeTaintsPolicy": "Heed"}"#,
    "defaultConstraints[0].nodeTaintsPolicy: expected Honor or Ignore, got \"Heed\""
)]
fn a_bad_topology_spread_is_named(#[case] text: &str, #[case] words: &str) {
    let text = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(patch) => {
            let mut good: serde_json::Value = serde_json::from_str(SPREAD).unwrap();
            let one = &mut good["podTopologySpread"]["defaultConstraints"][0];
            one.as_object_mut().unwrap().remove("minDomains");
            let one = one.as_object_mut().unwrap();
            one.extend(patch.as_object().unwrap().clone());
            good.to_string()
        }
        Err(_) => text.to_owned(),
    };
    let errors = parse(&[&format!("--scheduler-config={text}")], &[]).unwrap_err();
    let shown = errors[0].to_string();
    assert!(
        shown.contains("--scheduler-config") && shown.contains(words),
        "{shown}"
    );
}

#[test]
fn of_two_constraints_that_say_the_same_the_second_is_named() {
    let mut twice: serde_json::Value = serde_json::from_str(SPREAD).unwrap();
    let all = twice["podTopologySpread"]["defaultConstraints"]
        .as_array_mut()
        .unwrap();
    all.push(all[0].clone());
    let shown = scheduler::default_constraints(&twice.to_string()).unwrap_err();
    assert!(
        shown.contains("defaultConstraints[1].topologyKey"),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn durations_are_read_back(nanos in 0..i64::MAX.unsigned_abs()) {
        let duration = Duration::from_nanos(nanos);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
    }

    #[test]
    fn nothing_given_makes_it_panic(args in proptest::collection::vec("[-a-z=0-9.]{0,24}", 0..4), value in ".{0,12}") {
        let env = TABLE.iter().map(|row| (row.env.to_owned(), value.clone())).collect();
        let _ = Settings::parse(args, &env);
    }
}
