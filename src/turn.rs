//! Which pods may wait on one node at the same time.
//!
//! kubelet's Allocate names no pod: it says how many units of one resource some container of some pod gets. The
//! node asks kubelet's own list which pod that is. Where kubelet does not give the list in time, the call is matched
//! to a waiting placement by its amount, and this rule keeps that harmless. Two waiting containers with equal amounts
//! of *both* resources are interchangeable: whichever is served first, the records can be exchanged afterwards. Two
//! that are equal in one resource and differ in the other are not: the first call could be for either, and the wrong
//! guess puts a container on a card that has no room for it. So two such pods never wait on one node together: the
//! second binding is written once the node has confirmed the first.

use crate::request::{ContainerKind, ContainerRequest, GpuRequest};

/// Whether the node could give one of the two pods the other's cards, and could not mend it afterwards.
///
/// Symmetric. Pods of the same shape (same kinds and amounts in the same order) are exchanged as a whole and
/// never confusable. Otherwise containers are exchanged one by one, which needs that each lasts as long as its
/// pod: an init container shares its cards with those after it, so it cannot be exchanged alone.
pub fn confusable(a: &GpuRequest, b: &GpuRequest) -> bool {
    if a.containers.iter().map(shape).eq(b.containers.iter().map(shape)) {
        return false;
    }
    let lasting = |request: &GpuRequest| request.containers.iter().all(|c| c.kind != ContainerKind::Init);
    let exchangeable = lasting(a) && lasting(b);
    a.containers.iter().any(|x| {
        b.containers.iter().any(|y| {
            let (_, core_x, memory_x) = shape(x);
            let (_, core_y, memory_y) = shape(y);
            let (core, memory) = (core_x == core_y, memory_x == memory_y);
            // no amount of memory is no call for memory
            let ties = core || (memory && memory_x > 0);
            ties && !(core && memory && exchangeable)
        })
    })
}

fn shape(container: &ContainerRequest) -> (ContainerKind, u64, u64) {
    (container.kind, container.ask.core_units(), container.ask.memory_units())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Ask, RawContainer};

    fn request(containers: &[(ContainerKind, &str, &str)]) -> GpuRequest {
        let raw = containers.iter().map(|(kind, core, memory)| RawContainer {
            name: "c",
            kind: *kind,
            core: Some(core),
            memory: Some(memory),
        });
        GpuRequest::parse(raw, None, None).unwrap().unwrap()
    }

    #[test]
    fn only_pods_that_tie_in_one_resource_and_differ_in_the_other_are_confusable() {
        use ContainerKind::*;
        let share = request(&[(App, "50", "10")]);
        for (other, expected) in [
            (request(&[(App, "50", "10")]), false),
            (request(&[(App, "50", "20")]), true),
            (request(&[(App, "30", "10")]), true),
            (request(&[(App, "30", "20")]), false),
            (request(&[(App, "50", "10"), (App, "30", "5")]), false),
            (request(&[(App, "50", "10"), (App, "50", "5")]), true),
            (request(&[(Sidecar, "50", "10")]), false),
            (request(&[(Init, "50", "10"), (App, "30", "5")]), true),
            (request(&[(Init, "40", "9"), (App, "30", "5")]), false),
        ] {
            assert_eq!(confusable(&share, &other), expected, "{other:?}");
            assert_eq!(confusable(&other, &share), expected, "{other:?}");
        }
    }

    #[test]
    fn cards_without_memory_make_no_call_for_memory() {
        let one = request(&[(ContainerKind::App, "100", "0")]);
        let two = request(&[(ContainerKind::App, "200", "0")]);
        assert_eq!(one.containers[0].ask, Ask::Whole { count: 1, memory: None });
        assert!(!confusable(&one, &two));
        assert!(confusable(&one, &request(&[(ContainerKind::App, "100", "5")])));
    }
}
