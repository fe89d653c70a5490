//! Schedules that long runs found.

use kerf::request::ContainerKind::{App, Init};

use super::super::Shape;
use super::{Trouble, burst};

const TROUBLE: Trouble = Trouble {
    silent: false,
    rejects: false,
    old: false,
    restarts: true,
    strangers: true,
    edits: false,
    late: false,
};

#[test]
fn what_kubelet_gave_to_another_is_not_an_init_containers_any_more() {
    let shape: Vec<Shape> = vec![(Init, 20, 5), (App, 20, 2), (App, 20, 1)];
    let chance = [
        1_490_053_834,
        2_767_163_654,
        645_478_642,
        2_914_924_431,
        4_232_053_356,
        2_944_813_449,
        1_295_891_075,
        3_484_535_982,
        1_053_287_492,
        2_960_699_188,
        2_253_190_116,
    ];
    burst(&vec![shape; 8], chance.to_vec(), Trouble { late: true, ..TROUBLE });
}

#[test]
fn a_placed_pod_is_not_refused_for_one_that_nobody_placed() {
    let two: Vec<Shape> = vec![(App, 20, 3), (App, 10, 4)];
    let mut shapes = vec![two; 11];
    shapes[2] = vec![(Init, 10, 4), (App, 100, 4), (App, 10, 4)];
    let chance = [
        0,
        401_054_953,
        0,
        0,
        2_394_628_596,
        0,
        0,
        0,
        0,
        0,
        0,
        140_884_507,
        1_425_322_977,
        1_310_102_354,
        2_765_624_596,
        1_840_363_686,
        28_172_077,
        0,
        0,
        0,
        0,
        0,
        0,
        87_124_687,
        0,
        2_247_745,
        0,
        181_518_211,
        0,
        0,
        2_795_902_437,
        2_527_180_823,
        2_275_199_848,
        0,
        0,
        1_315_452_683,
        6_861_021,
    ];
    let trouble = Trouble { silent: true, rejects: true, restarts: false, ..TROUBLE };
    burst(&super::without_init(&shapes), chance.to_vec(), trouble);
}
