//! The kube-scheduler in the same pod, for the liveness probe of its container: kubelet asks the extender, and the extender
//! asks the scheduler. By itself a scheduler whose extender is gone would go on holding the lease, and nothing would be
//! placed until the extender is there again, which may take minutes where it ends again and again. So the probe fails
//! there: the scheduler ends, gives the lease back, and another replica leads.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::body::HttpBody as _;
use axum::extract::State;
use axum::http::uri::PathAndQuery;
use axum::http::{Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, response};
use kube::client::Body;
use kube::{Client, Config};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a scheduler that has not answered counts as alive: as with kubelet's usual three probes in 30 seconds. A busy
/// machine must not cost it the lease.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time for one answer.
const LIMIT: Duration = Duration::from_secs(2);

/// How many bytes of an answer that says something else are read.
const SHOWN: usize = 2 << 10;

/// Where the scheduler says that it is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Livez(Uri);

impl FromStr for Livez {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        // before anything that repeats the text: it may have a password
        ensure!(
            !text.contains('@'),
            "a URL with a user is not taken: kube-scheduler says to anybody that it is alive"
        );
        let uri: Uri = text.parse().with_context(|| format!("{text:?} is not a URL"))?;
        let scheme = uri.scheme_str().unwrap_or_default();
        let address = uri.host().unwrap_or_default().trim_matches(['[', ']']).parse::<IpAddr>();
        // its certificate is its own, and by that says nothing
        ensure!(
            ["http", "https"].contains(&scheme) && address.is_ok_and(|address| address.is_loopback()),
            "{text:?} is not a URL with an address of loopback, such as https://127.0.0.1:10259/livez"
        );
        ensure!(
            uri.query().is_none() && !text.contains('#'),
            "{text:?} has more than a path: kube-scheduler is asked for all that it says of itself"
        );
        Ok(Self(uri))
    }
}

/// The scheduler in the same pod.
pub(crate) struct Beside {
    client: Client,
    path: String,
    /// Since when it does not answer.
    silent: Mutex<Option<Instant>>,
}

impl Beside {
    pub fn new(Livez(uri): Livez) -> anyhow::Result<Arc<Self>> {
        let path = uri.path().to_owned();
        let mut parts = uri.into_parts();
        // the client puts it before the path of a request
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
        let mut config = Config::new(Uri::from_parts(parts)?);
        config.accept_invalid_certs = true;
        // an image of one program has no list of authorities, and none is needed
        config.root_cert = Some(Vec::new());
        config.default_retry = false;
        config.connect_timeout = Some(LIMIT);
        config.read_timeout = Some(LIMIT);
        Ok(Arc::new(Self { client: Client::try_from(config)?, path, silent: Mutex::default() }))
    }

    async fn ask(&self) -> Result<(), String> {
        let request = Request::get(&self.path).body(Body::empty()).map_err(|error| error.to_string())?;
        let answer = async {
            let answer = self.client.send(request).await.map_err(|error| error.to_string())?;
            match answer.status() {
                StatusCode::OK => Ok(()),
                other => Err(format!("{other}: {:?}", beginning(answer.into_body()).await)),
            }
        };
        let late = || Err(format!("no answer within {} s", LIMIT.as_secs()));
        tokio::time::timeout(LIMIT, answer).await.unwrap_or_else(|_| late())
    }

    /// Whether it counts as alive, after this answer. `Err` says since when it does not.
    fn judge(&self, answer: Result<(), String>, now: Instant) -> Result<String, String> {
        let mut silent = self.silent.lock();
        let Err(error) = answer else {
            *silent = None;
            return Ok("ok\n".to_owned());
        };
        let since = now - *silent.get_or_insert(now);
        let text = format!("kube-scheduler does not say that it is alive, for {} s: {error}\n", since.as_secs());
        if since < PATIENCE { Ok(text) } else { Err(text) }
    }
}

/// The beginning of an answer; the rest is not read.
async fn beginning(body: Body) -> String {
    let mut body = pin!(body);
    let mut bytes = Vec::new();
    while bytes.len() < SHOWN
        && let Some(Ok(frame)) = poll_fn(|context| body.as_mut().poll_frame(context)).await
    {
        let Ok(data) = frame.into_data() else { continue };
        bytes.extend_from_slice(data.get(..SHOWN - bytes.len()).unwrap_or(&data));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The route for the probe of kube-scheduler's container.
pub(crate) fn router(beside: Arc<Beside>) -> Router {
    Router::new().route("/livez/scheduler", get(livez)).with_state(beside)
}

async fn livez(State(beside): State<Arc<Beside>>) -> response::Result<String, Response> {
    let answer = beside.ask().await;
    beside.judge(answer, Instant::now()).map_err(|text| (StatusCode::SERVICE_UNAVAILABLE, text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scheduler_that_is_silent_for_a_while_is_alive() {
        let beside = Beside::new("https://127.0.0.1:1/livez".parse().unwrap()).unwrap();
        let begun = Instant::now();
        let judged = |answer: Result<(), &str>, seconds| {
            beside.judge(answer.map_err(str::to_owned), begun + Duration::from_secs(seconds))
        };
        assert_eq!(judged(Ok(()), 0).unwrap(), "ok\n");
        assert!(judged(Err("refused"), 10).unwrap().contains("for 0 s: refused"));
        assert!(judged(Err("refused"), 39).is_ok());
        assert!(judged(Err("refused"), 40).unwrap_err().contains("for 30 s: refused"));
        assert!(judged(Ok(()), 41).is_ok());
        assert!(judged(Err("refused"), 42).is_ok(), "it begins anew");
    }

    #[test]
    fn a_url_has_no_more_than_a_path() {
        let error = |text: &str| text.parse::<Livez>().unwrap_err().to_string();
        let user = error("https://u:secret@127.0.0.1:10259/livez");
        assert!(user.contains("user") && !user.contains("secret"), "{user}");
        for more in
            ["https://127.0.0.1:10259/livez?verbose", "https://127.0.0.1:10259/livez?", "https://127.0.0.1/#x"]
        {
            assert!(error(more).contains("more than a path"), "{more}");
        }
    }

    #[test]
    fn only_a_scheduler_on_the_same_host_is_asked() {
        for right in ["https://127.0.0.1:10259/livez", "http://[::1]:10251/healthz"] {
            assert!(right.parse::<Livez>().is_ok(), "{right}");
        }
        for wrong in
            ["https://10.0.0.1:10259/livez", "127.0.0.1:10259", "ftp://127.0.0.1/", "https://scheduler/livez", ""]
        {
            assert!(
                wrong.parse::<Livez>().unwrap_err().to_string().contains("loopback") || wrong.is_empty(),
                "{wrong}"
            );
        }
    }
}
