//! Many pods at once.

use kerf_system::audit::audit;
use kerf_system::stack::{MachineSpec, Stack, StackConfig};
use kerf_system::workload::{container, mixed, pod};

pub fn machines(count: usize, cards: usize) -> Vec<MachineSpec> {
    (0..count).map(|number| MachineSpec::equal(&format!("node-{number}"), cards, "Simulated", 16_384)).collect()
}

pub async fn settled(stack: &Stack, pods: usize) {
    let running = stack.until_running(pods).await;
    let audit = audit(stack).expect("audit");
    if let Err(error) = running {
        panic!("{error:#}\n{}", audit.disagreements.join("\n"));
    }
    assert_eq!(audit.disagreements, Vec::<String>::new());
    assert_eq!((audit.placed.len(), audit.waiting.len()), (pods, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_equal_pods_each_have_the_card_that_is_recorded() {
    let stack = Stack::start(&machines(4, 8), StackConfig { seed: 1, batching: true, ..Default::default() })
        .await
        .expect("start");
    for number in 0..200 {
        stack.submit(pod(&format!("equal-{number:03}"), vec![], vec![container("main", "12", "8")])).expect("pod");
    }
    settled(&stack, 200).await;
    stack.shutdown().await.expect("clean end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_mixed_pods_each_have_the_card_that_is_recorded() {
    let stack = Stack::start(&machines(10, 8), StackConfig { seed: 2, batching: false, ..Default::default() })
        .await
        .expect("start");
    for number in 0..200 {
        stack.submit(mixed(number)).expect("pod");
    }
    settled(&stack, 200).await;
    stack.shutdown().await.expect("clean end");
}
