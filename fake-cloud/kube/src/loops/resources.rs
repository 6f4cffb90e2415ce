//! Amounts of resources as the scheduler and the kubelet count them: CPU in thousandths, everything else in whole
//! units, and what a pod effectively asks for.

use std::collections::BTreeMap;

use serde_json::Value;

use super::object;

/// CPU request assumed for scoring where a container names none, as the real scheduler does.
const UNNAMED_CPU_MILLIS: i64 = 100;
/// Memory request assumed for scoring where a container names none.
const UNNAMED_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// Amounts by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Millicores.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral: i64,
    /// Pods.
    pub pods: i64,
    /// Everything else in its unit, zeros left out.
    pub other: BTreeMap<String, i64>,
}

impl Amounts {
    /// From a resource map such as `status.allocatable`; what is no quantity counts as zero (the API refuses it).
    #[must_use]
    pub fn read(map: &Value) -> Self {
        let mut amounts = Self::default();
        for (name, value) in map.as_object().into_iter().flatten() {
            let printed;
            let text = match value {
                Value::String(text) => text.as_str(),
                other => {
                    printed = other.to_string();
                    printed.as_str()
                }
            };
            let millis = parse_millis(text).unwrap_or(0);
            let units = clamp(millis.div_euclid(1000) + i128::from(millis.rem_euclid(1000) != 0));
            match name.as_str() {
                "cpu" => amounts.cpu = clamp(millis),
                "memory" => amounts.memory = units,
                "ephemeral-storage" => amounts.ephemeral = units,
                "pods" => amounts.pods = units,
                _ if units != 0 => {
                    amounts.other.insert(name.clone(), units);
                }
                _ => {}
            }
        }
        amounts
    }

    /// Adds `more`.
    pub fn add(&mut self, more: &Self) {
        self.combine(more, i64::saturating_add);
    }

    /// Takes `less` away.
    pub fn subtract(&mut self, less: &Self) {
        self.combine(less, i64::saturating_sub);
    }

    /// The larger of the two, resource by resource.
    pub fn raise_to(&mut self, floor: &Self) {
        self.combine(floor, i64::max);
    }

    fn combine(&mut self, by: &Self, f: fn(i64, i64) -> i64) {
        self.cpu = f(self.cpu, by.cpu);
        self.memory = f(self.memory, by.memory);
        self.ephemeral = f(self.ephemeral, by.ephemeral);
        self.pods = f(self.pods, by.pods);
        for (name, amount) in &by.other {
            let slot = self.other.entry(name.clone()).or_insert(0);
            *slot = f(*slot, *amount);
            if *slot == 0 {
                self.other.remove(name);
            }
        }
    }

    /// The amount of a resource that has no field of its own.
    #[must_use]
    pub fn other(&self, name: &str) -> i64 {
        self.other.get(name).copied().unwrap_or(0)
    }
}

/// Thousandths of a quantity's unit, rounded up; none when the text is no quantity.
#[must_use]
pub fn parse_millis(text: &str) -> Option<i128> {
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (numerator, denominator): (i128, i128) = match suffix {
        "" => (1000, 1),
        "n" => (1, 1_000_000),
        "u" => (1, 1000),
        "m" => (1, 1),
        "k" => (1000 * 1000, 1),
        "M" => (1000 * 1000_i128.pow(2), 1),
        "G" => (1000 * 1000_i128.pow(3), 1),
        "T" => (1000 * 1000_i128.pow(4), 1),
        "P" => (1000 * 1000_i128.pow(5), 1),
        "E" => (1000 * 1000_i128.pow(6), 1),
        "Ki" => (1000 << 10, 1),
        "Mi" => (1000 << 20, 1),
        "Gi" => (1000 << 30, 1),
        "Ti" => (1000 << 40, 1),
        "Pi" => (1000 << 50, 1),
        "Ei" => (1000 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let scale = 10_i128.checked_pow(power.unsigned_abs().min(18))?;
            if power < 0 {
                (1000, scale)
            } else {
                (1000 * scale, 1)
            }
        }
    };
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    // Digits past the ninth are below anything the API keeps.
    let fraction: String = fraction.chars().take(9).collect();
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parse = |t: &str| {
        if t.is_empty() {
            Some(0)
        } else {
            t.parse::<i128>().ok()
        }
    };
    let value = parse(whole)?.checked_mul(scale)? + parse(&fraction)?;
    let divisor = denominator.checked_mul(scale)?;
    let scaled = value.checked_mul(numerator)?;
    let up = scaled.div_euclid(divisor) + i128::from(scaled.rem_euclid(divisor) != 0);
    Some(if negative { -up } else { up })
}

fn clamp(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

/// What a pod asks of a node: the larger of its containers with sidecars and of each start-up step, pod-level
/// requests over that where they are given, plus overhead; and one pod.
#[must_use]
pub fn pod_requests(pod: &Value) -> Amounts {
    effective(pod, |container| Amounts::read(requests_of(container)))
}

/// The same with the scheduler's stand-ins for CPU and memory that are not named; only scoring uses it.
#[must_use]
pub fn pod_requests_for_scoring(pod: &Value) -> Amounts {
    effective(pod, |container| {
        let requests = requests_of(container);
        let mut amounts = Amounts::read(requests);
        if requests.get("cpu").is_none() {
            amounts.cpu = UNNAMED_CPU_MILLIS;
        }
        if requests.get("memory").is_none() {
            amounts.memory = UNNAMED_MEMORY_BYTES;
        }
        amounts
    })
}

fn requests_of(container: &Value) -> &Value {
    object::at(container, &["resources", "requests"])
}

fn effective(pod: &Value, of: impl Fn(&Value) -> Amounts) -> Amounts {
    let mut running = Amounts::default();
    for container in object::items(pod, &["spec", "containers"]) {
        running.add(&of(container));
    }
    // Start-up steps run one at a time beside the sidecars that were started before them.
    let mut sidecars = Amounts::default();
    let mut peak = Amounts::default();
    for init in object::items(pod, &["spec", "initContainers"]) {
        let mut step = of(init);
        if object::text(init, &["restartPolicy"]) == "Always" {
            sidecars.add(&step);
            peak.raise_to(&sidecars);
        } else {
            step.add(&sidecars);
            peak.raise_to(&step);
        }
    }
    running.add(&sidecars);
    running.raise_to(&peak);
    let pod_level = object::at(pod, &["spec", "resources", "requests"]);
    if pod_level.is_object() {
        let given = Amounts::read(pod_level);
        if pod_level.get("cpu").is_some() {
            running.cpu = given.cpu;
        }
        if pod_level.get("memory").is_some() {
            running.memory = given.memory;
        }
        for (name, amount) in given.other {
            running.other.insert(name, amount);
        }
    }
    running.add(&Amounts::read(object::at(pod, &["spec", "overhead"])));
    running.pods = 1;
    running
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("1", Some(1000))]
    #[case("100m", Some(100))]
    #[case("1.5", Some(1500))]
    #[case(".5", Some(500))]
    #[case("1n", Some(1))]
    #[case("1Ki", Some(1_024_000))]
    #[case("1E", Some(1_000_000_000_000_000_000_000))]
    #[case("1E3", Some(1_000_000))]
    #[case("12e-1", Some(1200))]
    #[case("-2", Some(-2000))]
    #[case("", None)]
    #[case("Mi", None)]
    #[case("1.2.3", None)]
    #[case("1xi", None)]
    fn quantities(#[case] text: &str, #[case] want: Option<i128>) {
        assert_eq!(parse_millis(text), want);
    }

    fn container(cpu: &str) -> Value {
        json!({"resources": {"requests": {"cpu": cpu}}})
    }

    #[rstest]
    #[case::sum(json!({"containers": [container("1"), container("500m")]}), 1500)]
    #[case::init_is_larger(json!({"containers": [container("1")], "initContainers": [container("3")]}), 3000)]
    #[case::sidecar_adds(json!({"containers": [container("1")],
        "initContainers": [{"restartPolicy": "Always", "resources": {"requests": {"cpu": "2"}}}]}), 3000)]
    #[case::step_beside_sidecar(json!({"containers": [container("1")],
        "initContainers": [{"restartPolicy": "Always", "resources": {"requests": {"cpu": "2"}}}, container("4")]}), 6000)]
    #[case::step_before_sidecar(json!({"containers": [container("1")],
        "initContainers": [container("4"), {"restartPolicy": "Always", "resources": {"requests": {"cpu": "2"}}}]}), 4000)]
    #[case::pod_level(json!({"containers": [container("1")], "resources": {"requests": {"cpu": "5"}}}), 5000)]
    #[case::overhead(json!({"containers": [container("1")], "overhead": {"cpu": "250m"}}), 1250)]
    fn effective_cpu(#[case] spec: Value, #[case] want: i64) {
        let requests = pod_requests(&json!({"spec": spec}));
        assert_eq!((requests.cpu, requests.pods), (want, 1));
    }
}
