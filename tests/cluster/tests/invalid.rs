//! Requests that break a rule.

use anyhow::ensure;

use crate::support::draft::pod;
use crate::support::stage::{Stage, phase};

/// The event names the container and the rule, and other pods are not held up.
pub async fn requests_stay_pending_with_the_rule_in_an_event(stage: &Stage<'_>) -> anyhow::Result<()> {
    let limit = "inspur.com/vcuda-core-limit";
    let cases = [
        (pod("between").app("main", 150, 30), "container \"main\": vcuda-core must be 1..99 or a multiple of 100"),
        (
            pod("no-memory").app("a", 10, 1).app("b", 50, 0),
            "container \"b\": a share (vcuda-core below 100) needs vcuda-memory",
        ),
        (pod("no-core").app("main", 0, 5), "container \"main\": vcuda-memory needs vcuda-core"),
        (pod("init").init("first", 130, 5).app("main", 10, 1), "container \"first\": vcuda-core must be"),
        (
            pod("words").app("main", 10, 1).annotation(limit, "x"),
            "annotation vcuda-core-limit must be a whole number",
        ),
        (
            pod("below").app("main", 50, 1).annotation(limit, "20"),
            "container \"main\": annotation vcuda-core-limit must be at least",
        ),
        (
            pod("policy").app("main", 10, 1).annotation("inspur.com/gpu-policy", "x"),
            "annotation gpu-policy: unknown policy",
        ),
    ];
    for (draft, _) in &cases {
        stage.create(draft).await?;
    }
    stage.create(&pod("valid").app("main", 10, 1)).await?;
    for (draft, text) in &cases {
        stage.event(&draft.name, text).await?;
        let object = stage.pods().get(&draft.name).await?;
        ensure!(phase(&object) == "Pending", "{} is {}", draft.name, phase(&object));
        ensure!(object.spec.is_some_and(|spec| spec.node_name.is_none()), "{} is bound", draft.name);
    }
    // more than any GPU has is valid in form, but no node can ever take it
    stage.create(&pod("large").app("main", 50, 100_000)).await?;
    stage.event("large", "vcuda-memory").await?;
    stage.phase("valid", &["Running"]).await?;
    stage.agreed().await.map(drop)
}
