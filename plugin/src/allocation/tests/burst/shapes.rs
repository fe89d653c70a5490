//! What the pods of a burst ask for.

use proptest::prelude::*;

use super::super::*;

pub(super) fn shapes() -> impl Strategy<Value = Vec<Vec<Shape>>> {
    use ContainerKind::*;
    let share = (prop_oneof![Just(10u64), Just(20), Just(30), Just(50)], 1u64..=5);
    let ask = prop_oneof![6 => share, 1 => Just((100, 0)), 1 => Just((200, 0)), 1 => Just((100, 4))];
    let app = ask.clone().prop_map(|(core, memory)| (App, core, memory));
    let early = (prop_oneof![Just(Init), Just(Sidecar)], ask).prop_map(|(kind, (c, m))| (kind, c, m));
    let pod = (prop::collection::vec(early, 0..=1), prop::collection::vec(app, 1..=3))
        .prop_map(|(early, apps)| early.into_iter().chain(apps).collect::<Vec<_>>());
    // few shapes, so that many pods have the same
    (prop::collection::vec(pod, 1..4), prop::collection::vec(0usize..4, 1..12))
        .prop_map(|(kinds, picks)| picks.into_iter().map(|pick| kinds[pick % kinds.len()].clone()).collect())
}

/// Whether an init container has other GPUs than a later container that asks for the same amount. After a restart
/// of the plugin between the two nothing tells them apart, since kubelet lists no init containers; the extender
/// places them together wherever there is room.
pub(super) fn apart(request: &GpuRequest, plan: &Plan) -> bool {
    let cards = |name: &ContainerName| -> Vec<DeviceId> {
        plan.grants
            .iter()
            .filter(|grant| grant.container == *name)
            .flat_map(|grant| grant.gpus.ids())
            .cloned()
            .collect()
    };
    request.containers.iter().enumerate().filter(|(_, container)| container.kind == ContainerKind::Init).any(
        |(at, init)| {
            request.containers[at + 1..].iter().any(|later| {
                amount(init, &Resource::Core) == amount(later, &Resource::Core)
                    && cards(&init.name) != cards(&later.name)
            })
        },
    )
}

/// kubelet does not list ordinary init containers: where the match is a guess, it stays unconfirmed.
pub(super) fn without_init(shapes: &[Vec<Shape>]) -> Vec<Vec<Shape>> {
    let lasting = |(kind, core, memory): &Shape| match kind {
        ContainerKind::Init => (ContainerKind::Sidecar, *core, *memory),
        kind => (*kind, *core, *memory),
    };
    shapes.iter().map(|shape| shape.iter().map(lasting).collect()).collect()
}
