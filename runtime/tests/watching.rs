//! The way in which both programs follow objects, against an API server that hangs, falls silent and refuses.

#![allow(clippy::expect_used, clippy::panic, reason = "a failing test may stop at once, its helpers too")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kerf_runtime::failure::Failure;
use kerf_runtime::feed::{Feed, Patience};
use kerf_runtime::guarded::Guarded;
use kerf_runtime::watching::{Event, follow};
use kerf_testkit::api::{Action, ApiConfig, ApiServer, Fault, Injected};
use kube::{Api, Client, Config, Resource as _};
use prometheus::IntCounter;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);
/// Never reached where all is well.
const LONG: Duration = Duration::from_secs(60);

fn patience() -> Patience {
    Patience { list: LONG, start: LONG, silence: LONG, stale: LONG }
}

fn pod(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "ns" },
        "spec": { "containers": [{ "name": "main", "image": "i" }] },
        "status": { "phase": "Pending" },
    })
}

/// Somebody who follows all pods.
struct Follower {
    server: ApiServer,
    feed: Feed,
    failures: IntCounter,
    seen: watch::Receiver<Vec<String>>,
    token: CancellationToken,
}

impl Follower {
    async fn of(server: ApiServer, patience: Patience) -> Self {
        let mut config = Config::new(server.url().parse().expect("uri"));
        config.default_retry = false;
        let api = Api::<Guarded<Pod>>::all(Client::try_from(config).expect("client"));
        let failures = IntCounter::new("failures", "Failures").expect("a name");
        let feed = Feed::new("pods", patience, failures.clone());
        let (sender, seen) = watch::channel(Vec::new());
        let pods = Arc::new(Mutex::new(Vec::<String>::new()));
        let token = CancellationToken::new();
        let (followed, stop) = (feed.clone(), token.clone());
        tokio::spawn(async move {
            let apply = |event: Event<Guarded<Pod>>| {
                let name = |pod: &Guarded<Pod>| pod.meta().name.clone().unwrap_or_default();
                let mut pods = pods.lock().expect("a lock");
                match &event {
                    Event::Init => pods.clear(),
                    Event::InitApply(pod) | Event::Apply(pod) => {
                        pods.retain(|known| *known != name(pod));
                        pods.push(name(pod));
                    }
                    Event::Delete(pod) => pods.retain(|known| *known != name(pod)),
                    Event::InitDone => {}
                }
                if !matches!(event, Event::Init | Event::InitApply(_)) {
                    sender.send_replace(pods.clone());
                }
            };
            follow(api, None, followed, stop, apply).await;
        });
        Self { server, feed, failures, seen, token }
    }

    async fn sees(&mut self, wanted: &[&str]) {
        let seen = tokio::time::timeout(SOON, self.seen.wait_for(|seen| seen == wanted)).await;
        seen.unwrap_or_else(|_| panic!("{wanted:?} not seen: {:?}", self.feed.lost())).expect("it follows");
    }

    async fn lost(&self, wanted: impl Fn(Option<Failure>) -> bool) {
        let mut changes = self.feed.changes();
        let wait = async {
            while !self.feed.lost().is_some_and(|lost| wanted(lost.failure)) {
                changes.changed().await.expect("it follows");
            }
        };
        tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{:?}", self.feed.lost()));
    }

    fn fault(&self, verb: &str, action: Action) -> Injected {
        self.server.inject(Fault::new(verb, "pods", action))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

#[tokio::test]
async fn a_list_that_is_never_answered_is_asked_for_again() {
    let server = ApiServer::start().await.expect("server");
    let never = server.inject(Fault::new("list", "pods", Action::Hold).times(1));
    server.create("pods", pod("a")).expect("pod");
    let quick = Patience { list: Duration::from_millis(100), ..patience() };
    let mut follower = Follower::of(server, quick).await;
    follower.sees(&["a"]).await;
    assert_eq!((never.hits(), never.parked()), (1, 1), "the first is still not answered");
    assert!(follower.failures.get() >= 1);
}

#[tokio::test]
async fn a_list_that_hangs_after_a_watch_that_is_too_old_does_not_blind() {
    let server = ApiServer::start().await.expect("server");
    server.create("pods", pod("a")).expect("pod");
    let quick = Patience { list: Duration::from_millis(100), ..patience() };
    let mut follower = Follower::of(server, quick).await;
    follower.sees(&["a"]).await;
    let never = follower.server.inject(Fault::new("list", "pods", Action::Hold).times(1));
    let watches = follower.server.inject(Fault::new("watch", "pods", Action::Status(410)).times(1));
    follower.server.force_delete("pods", "ns", "a").expect("deleted");
    follower.server.create("pods", pod("b")).expect("pod");
    follower.server.break_watches();
    watches.wait_hits(1, SOON).await.expect("too old");
    never.wait_hits(1, SOON).await.expect("listed");
    follower.sees(&["b"]).await;
}

#[tokio::test]
async fn a_watch_whose_start_is_never_answered_is_started_again() {
    let server = ApiServer::start().await.expect("server");
    let never = server.inject(Fault::new("watch", "pods", Action::Hold).times(1));
    let quick = Patience { start: Duration::from_millis(100), ..patience() };
    let mut follower = Follower::of(server, quick).await;
    never.wait_hits(1, SOON).await.expect("a watch");
    follower.server.create("pods", pod("a")).expect("pod");
    follower.sees(&["a"]).await;
    assert_eq!(never.parked(), 1);
    let lists = follower.server.requests().get(&("list".to_owned(), "pods".to_owned())).copied();
    assert_eq!(lists, Some(1), "what was listed is not listed again");
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_given_up_on_and_everything_listed() {
    let server =
        ApiServer::start_with(ApiConfig { bookmark_every: LONG, ..ApiConfig::default() }).await.expect("server");
    let quick = Patience { silence: Duration::from_millis(300), ..patience() };
    let mut follower = Follower::of(server, quick).await;
    follower.server.create("pods", pod("a")).expect("pod");
    follower.sees(&["a"]).await;
    follower.server.silence_watches(true);
    follower.server.create("pods", pod("b")).expect("pod");
    // no watch says so: a list does
    follower.sees(&["a", "b"]).await;
    assert!(follower.failures.get() >= 1);
}

#[tokio::test]
async fn bookmarks_keep_a_watch_and_its_news_alive() {
    let bookmark_every = Duration::from_millis(20);
    let server = ApiServer::start_with(ApiConfig { bookmark_every, ..ApiConfig::default() }).await.expect("server");
    let quick = Patience { silence: Duration::from_secs(3), stale: Duration::from_secs(3), ..patience() };
    let mut follower = Follower::of(server, quick).await;
    follower.sees(&[]).await;
    let start = tokio::time::Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        assert_eq!(follower.feed.stale(), None);
        tokio::time::sleep(bookmark_every).await;
    }
    assert_eq!(follower.failures.get(), 0);
    let watches = follower.server.requests().get(&("watch".to_owned(), "pods".to_owned())).copied();
    assert_eq!(watches, Some(1));
}

#[tokio::test]
async fn a_connection_that_the_network_forgot_is_given_up_on() {
    let server = ApiServer::start().await.expect("server");
    let soon = Duration::from_millis(300);
    let quick = Patience { silence: soon, list: soon, start: soon, ..patience() };
    let mut follower = Follower::of(server, quick).await;
    follower.server.create("pods", pod("a")).expect("pod");
    follower.sees(&["a"]).await;
    follower.server.freeze_connections();
    follower.server.force_delete("pods", "ns", "a").expect("deleted");
    follower.sees(&[]).await;
}

#[tokio::test]
async fn the_news_gets_old_and_fresh_again() {
    let server = ApiServer::start().await.expect("server");
    let quick = Patience { stale: Duration::from_millis(200), silence: LONG, ..patience() };
    let mut follower = Follower::of(server, quick).await;
    follower.server.create("pods", pod("a")).expect("pod");
    follower.sees(&["a"]).await;
    follower.server.silence_watches(true);
    let wait = async {
        while follower.feed.stale().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("too old");
    assert_eq!(follower.feed.stale().as_deref(), Some("no news for more than 0.2 s"));
    assert_eq!(follower.feed.lost(), None, "nothing else tells");
    follower.server.silence_watches(false);
    follower.server.create("pods", pod("b")).expect("pod");
    let wait = async {
        while follower.feed.stale().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("fresh");
    follower.sees(&["a", "b"]).await;
}

#[tokio::test]
async fn what_refuses_is_told_and_asked_ever_more_rarely() {
    let server = ApiServer::start().await.expect("server");
    let mut follower = Follower::of(server, patience()).await;
    follower.server.create("pods", pod("first")).expect("pod");
    follower.sees(&["first"]).await;
    assert!(follower.feed.listed());
    let (lists, watches) =
        (follower.fault("list", Action::Status(401)), follower.fault("watch", Action::Status(401)));
    follower.server.break_watches();
    watches.wait_hits(1, SOON).await.expect("asked");
    let unauthorized = Failure::Status { code: 401, reason: "Unauthorized".to_owned() };
    follower.lost(|failure| failure.as_ref() == Some(&unauthorized)).await;
    assert!(unauthorized.refused());
    assert_eq!(unauthorized.to_string(), "401 Unauthorized");
    // 200, 400, 800 ms: not more than so many
    let begun = tokio::time::Instant::now();
    watches.wait_hits(4, SOON).await.expect("asked");
    assert!(begun.elapsed() >= Duration::from_millis(1300), "{:?}", begun.elapsed());
    assert_eq!(lists.hits(), 0, "the version is good still");
    follower.server.clear_faults();
    follower.server.create("pods", pod("a")).expect("pod");
    follower.sees(&["first", "a"]).await;
    assert_eq!(follower.feed.lost(), None);
}
