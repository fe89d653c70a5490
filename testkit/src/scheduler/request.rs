//! A pod's requests: cores, memory and extended resources.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::object;

/// Amounts by resource name.
pub(crate) type Amounts = BTreeMap<String, i64>;

/// Init containers, then containers.
pub(crate) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, "initContainers").chain(list(pod, "containers"))
}

fn list<'a>(pod: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    object::at(pod, &["spec", name]).and_then(Value::as_array).into_iter().flatten()
}

/// Whether an init container goes on running beside the containers.
pub(crate) fn is_sidecar(container: &Value) -> bool {
    object::text(container, &["restartPolicy"]) == "Always"
}

/// A whole amount; suffixes of quantities are read, fractions are not.
pub(crate) fn amount(value: &Value) -> i64 {
    if let Some(number) = value.as_i64() {
        return number;
    }
    let text = value.as_str().unwrap_or_default();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor: i64 = match suffix {
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => 1,
    };
    number.parse::<i64>().unwrap_or(0).saturating_mul(factor)
}

/// An amount of the named resource: whole, or thousandths of a core.
pub(crate) fn amount_of(resource: &str, value: &Value) -> i64 {
    let thousandths = |text: &str| text.strip_suffix('m')?.parse().ok();
    match resource {
        "cpu" => value.as_str().and_then(thousandths).unwrap_or_else(|| amount(value).saturating_mul(1000)),
        _ => amount(value),
    }
}

/// Cores, memory and the extended resources (`domain/name`) of one container. Requests default to limits.
pub(crate) fn of_container(container: &Value) -> Amounts {
    let mut amounts = Amounts::new();
    for list in ["limits", "requests"] {
        for (name, value) in
            object::at(container, &["resources", list]).and_then(Value::as_object).into_iter().flatten()
        {
            if is_extended(name) || is_native(name) {
                amounts.insert(name.clone(), amount_of(name, value));
            }
        }
    }
    amounts
}

/// Whether a resource is neither native nor Kubernetes' own.
pub(crate) fn is_extended(resource: &str) -> bool {
    resource.split_once('/').is_some_and(|(domain, name)| !domain.ends_with("kubernetes.io") && !name.is_empty())
}

/// Resources that every machine has, whether its node says how much or not.
pub(crate) fn is_native(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory")
}

pub(crate) fn priority(pod: &Value) -> i64 {
    object::at(pod, &["spec", "priority"]).and_then(Value::as_i64).unwrap_or(0)
}

/// The scheduler's sum: containers and sidecars together, or one init container with the sidecars
/// before it, whichever is more.
pub(crate) fn of_pod(pod: &Value) -> Amounts {
    let mut running = Amounts::new();
    let mut peak = Amounts::new();
    for init in list(pod, "initContainers") {
        let amounts = of_container(init);
        if is_sidecar(init) {
            add(&mut running, &amounts);
            raise(&mut peak, &running);
        } else {
            let mut now = running.clone();
            add(&mut now, &amounts);
            raise(&mut peak, &now);
        }
    }
    for container in list(pod, "containers") {
        add(&mut running, &of_container(container));
    }
    raise(&mut peak, &running);
    peak.retain(|_, amount| *amount != 0);
    peak
}

pub(crate) fn add(sum: &mut Amounts, amounts: &Amounts) {
    for (name, amount) in amounts {
        *sum.entry(name.clone()).or_default() += amount;
    }
}

pub(crate) fn subtract(sum: &mut Amounts, amounts: &Amounts) {
    for (name, amount) in amounts {
        *sum.entry(name.clone()).or_default() -= amount;
    }
}

fn raise(peak: &mut Amounts, amounts: &Amounts) {
    for (name, amount) in amounts {
        let place = peak.entry(name.clone()).or_default();
        *place = (*place).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(amount: i64) -> Value {
        json!({ "resources": { "limits": { "x/y": amount.to_string(), "cpu": "1" } } })
    }

    fn sidecar(amount: i64) -> Value {
        let mut sidecar = container(amount);
        sidecar["restartPolicy"] = "Always".into();
        sidecar
    }

    fn total(init: Vec<Value>, containers: Vec<Value>) -> i64 {
        let pod = json!({ "spec": { "initContainers": init, "containers": containers } });
        of_pod(&pod).get("x/y").copied().unwrap_or(0)
    }

    #[test]
    fn init_containers_count_only_if_they_ask_for_more() {
        assert_eq!(total(vec![container(3)], vec![container(1), container(1)]), 3);
        assert_eq!(total(vec![container(1), container(2)], vec![container(2), container(1)]), 3);
    }

    #[test]
    fn sidecars_count_with_containers_and_with_later_init_containers() {
        assert_eq!(total(vec![sidecar(2)], vec![container(3)]), 5);
        assert_eq!(total(vec![sidecar(2), container(4)], vec![container(3)]), 6);
        assert_eq!(total(vec![container(4), sidecar(2)], vec![container(1)]), 4);
    }

    #[test]
    fn quantities_have_suffixes_and_cores_have_thousandths() {
        assert_eq!(of_container(&container(2)), Amounts::from([("x/y".into(), 2), ("cpu".into(), 1000)]));
        assert_eq!(amount_of("cpu", &json!("250m")), 250);
        assert!(!is_extended("cpu") && !is_extended("kubernetes.io/x") && is_extended("a.com/b"));
        assert_eq!(amount(&json!("2Ki")), 2048);
        assert_eq!(amount(&json!(7)), 7);
    }
}
