//! The division of one GPU's time among containers: the host's decision, written to [`crate::allowance`] about every
//! second.
//!
//! Without IO. A container that wants more than it gets is brought to its target: its `vcuda-core`, and a part of
//! what the others leave, up to its `vcuda-core-limit`. The host measures what it really gets. The limiter can only
//! steer for how long the container's kernels are on the GPU; while a neighbour's kernels are there as well, that is
//! longer than the GPU time that they get. So the allowance is moved until the measurement meets the target.

use crate::allowance::WHOLE;

/// One container on the GPU over the last period. Shares are in millionths of the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// `vcuda-core`.
    pub floor: u32,
    /// `vcuda-core-limit`; equal to the floor where the pod sets none.
    pub ceiling: u32,
    /// The last decision; 0 for a new container.
    pub allowance: u32,
    /// The GPU time that the container really had, as NVML measured it.
    pub used: u32,
    /// Whether it was held back: its [`crate::state::Device::waited`] has grown. A tenant can lie here; that gets it
    /// nothing that it could not have by launching kernels.
    pub waited: bool,
}

/// A container that uses at least this percentage of its floor counts as wanting more.
const SATISFIED: u64 = 95;

/// What each container may use from now on, in the same order, in millionths of wall time.
pub fn decide(tenants: &[Tenant]) -> Vec<u32> {
    let targets = targets(tenants);
    tenants.iter().zip(targets).map(|(tenant, target)| allowance(tenant, target)).collect()
}

/// What each container should get: its floor, and its part of what is left, by floors, up to its ceiling.
pub fn targets(tenants: &[Tenant]) -> Vec<u32> {
    let mut targets: Vec<u32> = tenants.iter().map(|t| t.floor.min(WHOLE)).collect();
    // a container that does not want its floor leaves the rest, and gets it back in the period in which it wants it
    let kept = |t: &Tenant| if wants(t) { t.floor } else { t.used.min(t.floor) };
    let mut spare = WHOLE.saturating_sub(tenants.iter().map(kept).fold(0, u32::saturating_add));
    // in each round a container reaches its ceiling or nothing is left
    for _ in 0..tenants.len() {
        let open = |(t, target): &(&Tenant, &mut u32)| wants(t) && **target < t.ceiling;
        let weight: u64 = tenants.iter().zip(&mut targets).filter(open).map(|(t, _)| u64::from(t.floor)).sum();
        if weight == 0 || spare == 0 {
            break;
        }
        let round = u64::from(spare);
        for (t, target) in tenants.iter().zip(&mut targets).filter(open) {
            let part = (round * u64::from(t.floor) / weight) as u32;
            let more = part.min(t.ceiling - *target).min(spare);
            *target += more;
            spare -= more;
        }
    }
    targets
}

fn wants(tenant: &Tenant) -> bool {
    tenant.waited || u64::from(tenant.used) * 100 >= u64::from(tenant.floor) * SATISFIED
}

fn allowance(tenant: &Tenant, target: u32) -> u32 {
    let last = u64::from(tenant.allowance.max(tenant.floor));
    let (target, used) = (u64::from(target), u64::from(tenant.used));
    let next = match used {
        // no usage sample, or the container wants nothing: what would suffice if it were alone
        0 => target,
        _ if !wants(tenant) => last,
        // at most twofold per step: measurements lag and err
        _ => (last * target / used).clamp(last / 2, last * 2),
    };
    // kernels are on the GPU for at least the GPU time that they get
    next.clamp(target.max(1), u64::from(WHOLE)) as u32
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn tenant(floor: u32, ceiling: u32) -> Tenant {
        Tenant { floor: floor * 10_000, ceiling: ceiling * 10_000, allowance: 0, used: 0, waited: true }
    }

    /// A GPU that switches evenly between the containers that have kernels on it, at independent moments.
    fn card(allowances: &[u32]) -> Vec<u32> {
        let share = |i: usize| {
            let others: Vec<f64> =
                (0..allowances.len()).filter(|j| *j != i).map(|j| f64::from(allowances[j]) / 1e6).collect();
            let mut mean = 0.0;
            for present in 0..1_u32 << others.len() {
                let bit = |j: usize| present >> j & 1 == 1;
                let odds: f64 = others.iter().enumerate().map(|(j, p)| if bit(j) { *p } else { 1.0 - p }).product();
                mean += odds / f64::from(1 + present.count_ones());
            }
            (f64::from(allowances[i]) * mean) as u32
        };
        (0..allowances.len()).map(share).collect()
    }

    fn settle(tenants: &mut [Tenant], periods: usize) -> Vec<u32> {
        for _ in 0..periods {
            let next = decide(tenants);
            // a container that wants nothing has no kernels on the GPU
            let present: Vec<u32> = tenants.iter().zip(&next).map(|(t, a)| if t.waited { *a } else { 0 }).collect();
            for ((t, allowance), used) in tenants.iter_mut().zip(next).zip(card(&present)) {
                (t.allowance, t.used) = (allowance, used);
            }
        }
        tenants.iter().map(|t| t.used / 10_000).collect()
    }

    #[test]
    fn ten_and_ninety_are_one_to_nine() {
        let mut tenants = [tenant(10, 10), tenant(90, 90)];
        settle(&mut tenants, 30);
        let ratio = f64::from(tenants[1].used) / f64::from(tenants[0].used);
        assert!((8.8..9.2).contains(&ratio), "{ratio} {tenants:?}");
    }

    #[test]
    fn an_idle_neighbours_time_is_used_up_to_the_ceiling_and_given_back() {
        let mut tenants = [tenant(30, 80), tenant(70, 70)];
        tenants[1].waited = false;
        settle(&mut tenants, 10);
        assert_eq!(tenants[0].allowance, 800_000);
        tenants[1].waited = true;
        assert_eq!(targets(&tenants), [300_000, 700_000]);
    }

    #[test]
    fn what_is_left_is_shared_by_floors() {
        let tenants = [tenant(10, 100), tenant(30, 100), tenant(20, 20)];
        assert_eq!(targets(&tenants), [200_000, 600_000, 200_000]);
    }

    #[test]
    fn a_container_alone_with_a_hard_ceiling_gets_it_and_no_more() {
        let mut tenants = [tenant(30, 30)];
        assert_eq!(settle(&mut tenants, 5), [30]);
        assert_eq!(tenants[0].allowance, 300_000);
    }

    fn any_tenants() -> impl Strategy<Value = Vec<Tenant>> {
        vec((1_u32..=40, 0_u32..=100, 0..=WHOLE, 0..=WHOLE, any::<bool>()), 1..8).prop_map(|all| {
            let mut left = 100;
            let mut tenants = Vec::new();
            for (floor, burst, allowance, used, waited) in all {
                let floor = floor.min(left);
                left -= floor;
                if floor > 0 {
                    let ceiling = (floor + burst).min(100) * 10_000;
                    tenants.push(Tenant { floor: floor * 10_000, ceiling, allowance, used, waited });
                }
            }
            tenants
        })
    }

    proptest! {
        #[test]
        fn every_target_is_between_floor_and_ceiling(tenants in any_tenants()) {
            for (t, target) in tenants.iter().zip(targets(&tenants)) {
                prop_assert!((t.floor..=t.ceiling).contains(&target));
            }
        }

        #[test]
        fn those_who_want_are_promised_no_more_than_a_card(tenants in any_tenants()) {
            let promised: u64 = tenants.iter().zip(targets(&tenants))
                .map(|(t, target)| u64::from(if wants(t) { target } else { t.used.min(t.floor) })).sum();
            prop_assert!(promised <= u64::from(WHOLE));
        }

        #[test]
        fn nobody_is_allowed_less_than_its_floor_or_more_than_all(tenants in any_tenants()) {
            for (t, allowance) in tenants.iter().zip(decide(&tenants)) {
                prop_assert!((t.floor..=WHOLE).contains(&allowance));
            }
        }

        #[test]
        fn busy_neighbours_get_their_floors(floors in vec(5_u32..=40, 2..4)) {
            let sum: u32 = floors.iter().sum();
            let mut tenants: Vec<Tenant> = floors.iter().map(|f| tenant(f * 100 / sum, f * 100 / sum)).collect();
            settle(&mut tenants, 60);
            for t in &tenants {
                prop_assert!(t.used + 20_000 >= t.floor && t.used <= t.floor + 20_000, "{tenants:?}");
            }
        }
    }
}
