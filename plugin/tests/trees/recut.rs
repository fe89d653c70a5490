//! A profile's GPU that is cut into other instances (MIG): what kubelet's list names stays, the rest goes with its cut.

use serde_json::{Value, json};

use crate::forest::Forest;
use crate::kubelet::{SOON, Stage};

const RESOURCE: &str = "nvidia.com/mig-3g.20gb";

impl Stage {
    async fn amount(&self, capacity: usize, allocatable: usize) {
        let wanted = [capacity, allocatable].map(|amount| json!(amount.to_string()));
        let shown = |node: Option<&Value>| {
            node.is_some_and(|node| {
                let status = &node["status"];
                [&status["capacity"][RESOURCE], &status["allocatable"][RESOURCE]] == [&wanted[0], &wanted[1]]
            })
        };
        let seen = self.server.wait_for_object("nodes", "", "n", SOON, shown).await;
        seen.unwrap_or_else(|error| panic!("{wanted:?}: {error} {:?}", self.kubelet.resources()));
    }

    /// Makes an instance of the card, with its files.
    fn cut(&self, gi: u32, minors: [u32; 2]) {
        let tree = json!({ "cards": [{ "vendor": "nvidia", "minor": 0, "mig": [{ "gi": gi, "ci": 0, "minors": minors }] }] });
        kerf_testkit::tree::Tree::new(tree).unwrap().write(self.forest.path()).unwrap();
    }

    fn remove_instance(&self, gi: u32) {
        let mig = self.forest.path().join("proc/driver/nvidia/capabilities/gpu0/mig");
        std::fs::rename(mig.join(format!("gi{gi}")), self.forest.path().join(format!("gone{gi}"))).unwrap();
    }
}

#[tokio::test]
async fn an_instance_of_an_old_cut_stays_while_kubelet_lists_it() {
    let mut stage = Stage::new(Forest::named("f")).await;
    stage.start(&["-profile=nvidia", "--mig-strategy=mixed", "--mig-profile=3g.20gb", "--pass-device-specs"]).await;
    stage.amount(2, 2).await;
    let container = stage.run("p", json!({ RESOURCE: "2" })).await;
    assert_eq!(container.resources[RESOURCE].len(), 2);
    stage.cut(5, [30, 31]);
    stage.remove_instance(1);
    stage.amount(3, 2).await;
    stage.kubelet.complete_pod("ns", "p", "Succeeded").await.unwrap();
    // the next discovery is that of another change
    stage.cut(6, [40, 41]);
    stage.amount(3, 3).await;
    stage.remove_instance(2);
    stage.amount(2, 2).await;
    stage.stop().await;
}
