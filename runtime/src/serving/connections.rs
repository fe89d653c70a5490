//! The open connections of a listener, what each is doing, and which one makes room.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// What strangers may take of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// From the connection, with its TLS handshake, to the end of the first request's head.
    pub head: Duration,
    /// From an answer to the end of the next request's head.
    pub idle: Duration,
    /// From a request's head until its answer has been sent.
    pub exchange: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It has not sent a whole head yet.
    New,
    /// It has sent a whole head, and not all of the body.
    Body,
    /// All its requests have been answered.
    Idle,
    /// The whole request is here.
    Request,
}

/// Which connections make room first: those of the least standing, and of these who has been in it for longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It never sent a whole request. Those with half of one are no better than those with nothing: they cost as little.
    Unproven,
    /// It has, and does not go on with this one.
    Unfinished,
    Idle,
    Working,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Whether it has ever sent a whole request.
    proven: bool,
}

impl State {
    fn standing(self) -> Standing {
        match self.phase {
            Phase::Request => Standing::Working,
            _ if !self.proven => Standing::Unproven,
            Phase::New | Phase::Body => Standing::Unfinished,
            Phase::Idle => Standing::Idle,
        }
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    limits: Limits,
    /// The address of the client.
    from: IpAddr,
    state: Mutex<State>,
    closed: CancellationToken,
}

/// Closes one connection from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Closer(CancellationToken);

impl Closer {
    /// Ends the connection, and drops what its request holds.
    pub fn close(&self) {
        self.0.cancel();
    }
}

/// A request in progress, until it is dropped.
#[derive(Debug)]
pub(super) struct InRequest(Arc<Connection>);

impl Connection {
    /// A request's head has been read.
    pub fn begin(self: &Arc<Self>) -> InRequest {
        self.enter(Phase::Body);
        InRequest(self.clone())
    }

    /// The body has been read as well.
    pub fn received(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Body {
            // its deadline stays
            *state = State { phase: Phase::Request, proven: true, ..*state };
        }
    }

    pub fn in_request(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Body | Phase::Request)
    }

    /// When it is to be closed, unless it goes on.
    pub fn due(&self) -> Instant {
        let State { phase, since, .. } = *self.state.lock();
        since
            + match phase {
                Phase::New => self.limits.head,
                Phase::Idle => self.limits.idle,
                Phase::Body | Phase::Request => self.limits.exchange,
            }
    }

    pub fn closer(&self) -> Closer {
        Closer(self.closed.clone())
    }

    pub fn closed(&self) -> WaitForCancellationFuture<'_> {
        self.closed.cancelled()
    }

    /// `None` where the connection is closed first, or overdue.
    pub async fn unless_closed<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        let timely = timeout_at(self.due(), what);
        self.closed.run_until_cancelled(timely).await?.ok()
    }

    fn enter(&self, phase: Phase) {
        let mut state = self.state.lock();
        *state = State { phase, since: Instant::now(), ..*state };
    }
}

impl Drop for InRequest {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// By the order in which they were accepted.
type Open = BTreeMap<u64, Arc<Connection>>;

#[derive(Debug)]
pub(super) struct Connections {
    limits: Limits,
    next: Mutex<u64>,
    open: Arc<Mutex<Open>>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    number: u64,
    connection: Arc<Connection>,
    open: Arc<Mutex<Open>>,
}

impl Connections {
    pub fn new(limits: Limits) -> Self {
        Self { limits, next: Mutex::default(), open: Arc::default() }
    }

    /// A place for a new connection. Where there is none left, the client address makes room that has the most connections,
    /// the new one included. Of those the connection is closed that never sent a whole request, otherwise one that does not
    /// go on with its request or waits for the next; of several the oldest. Where whole requests of all of them are being
    /// worked on, one is closed for a client that has fewer connections; otherwise `None`. So no number of connections
    /// from one address keeps another's out, as kubelet's probes, nor half requests from its own address the scheduler.
    pub fn enter(&self, from: IpAddr) -> Option<Entry> {
        let number = {
            let mut next = self.next.lock();
            *next += 1;
            *next
        };
        let mut open = self.open.lock();
        if open.len() >= self.limits.connections {
            let mut counts = BTreeMap::from([(from, 1_usize)]);
            open.values().for_each(|one| *counts.entry(one.from).or_default() += 1);
            let most = counts.values().copied().max()?;
            let busiest = open.iter().filter(|(_, one)| counts.get(&one.from) == Some(&most));
            let place = |number: u64, state: State| match state.standing() {
                // half a request makes it no younger
                Standing::Unproven => (Standing::Unproven, None, number),
                standing => (standing, Some(state.since), number),
            };
            let (standing, _, longest) = busiest.map(|(number, one)| place(*number, *one.state.lock())).min()?;
            if standing == Standing::Working && counts.get(&from) == Some(&most) {
                return None;
            }
            if let Some(connection) = open.remove(&longest) {
                connection.closed.cancel();
            }
        }
        let connection = Arc::new(Connection {
            limits: self.limits,
            from,
            state: Mutex::new(State { phase: Phase::New, since: Instant::now(), proven: false }),
            closed: CancellationToken::new(),
        });
        open.insert(number, connection.clone());
        Some(Entry { number, connection, open: self.open.clone() })
    }
}

impl Entry {
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.open.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    fn connections(most: usize) -> Connections {
        let second = Duration::from_secs(1);
        Connections::new(Limits { connections: most, head: second, idle: 2 * second, exchange: 3 * second })
    }

    fn working(entry: &Entry) -> InRequest {
        let request = entry.connection.begin();
        entry.connection.received();
        request
    }

    fn is_closed(entry: &Entry) -> bool {
        entry.connection.closed.is_cancelled()
    }

    #[test]
    fn who_has_sent_no_request_for_longest_makes_room() {
        let all = connections(3);
        let begin = working;
        let [served, silent, busy] = [(); 3].map(|()| all.enter(CLIENT).unwrap());
        drop(begin(&served));
        let request = begin(&busy);
        let newer = all.enter(CLIENT).unwrap();
        assert_eq!([&served, &silent, &busy].map(is_closed), [false, true, false], "it never sent one");
        drop(silent);
        // a client that goes on sending requests outlives all that never did
        for _ in 0..10 {
            drop(begin(&served));
            drop(all.enter(CLIENT).unwrap());
        }
        assert!(is_closed(&newer) && !is_closed(&served));
        let second = begin(&served);
        let third = all.enter(CLIENT).unwrap();
        let fourth = begin(&third);
        assert!(all.enter(CLIENT).is_none(), "all are in the middle of a request");
        drop((request, second, fourth));
        assert!(all.enter(CLIENT).is_some());
        assert!(is_closed(&busy), "the first that was done");
    }

    #[test]
    fn the_address_with_the_most_connections_makes_room() {
        let all = connections(3);
        let other = all.enter(OTHER).unwrap();
        let floods: Vec<Entry> = (0..10).map(|_| all.enter(CLIENT).unwrap()).collect();
        assert!(!is_closed(&other), "it has waited for longest, and has one connection only");
        assert_eq!(floods.iter().filter(|flood| !is_closed(flood)).count(), 2);
        drop((other, floods));
        // all in the middle of a request
        let floods: Vec<_> =
            (0..3).map(|_| all.enter(CLIENT).unwrap()).map(|entry| (working(&entry), entry)).collect();
        assert!(all.enter(CLIENT).is_none());
        let other = all.enter(OTHER).unwrap();
        assert_eq!(floods.iter().map(|(_, flood)| is_closed(flood)).collect::<Vec<_>>(), [true, false, false]);
        let request = working(&other);
        assert!(all.enter(OTHER).is_none(), "it would have as many as the flood");
        drop(request);
    }

    /// Half requests, all from the scheduler's address.
    #[test]
    fn who_has_not_sent_all_of_a_request_makes_room_for_those_who_have() {
        let all = connections(4);
        let scheduler = all.enter(CLIENT).unwrap();
        drop(working(&scheduler));
        let call = all.enter(CLIENT).unwrap();
        let call_works = working(&call);
        let mut halves = Vec::new();
        for _ in 0..20 {
            let half = all.enter(CLIENT).expect("another half makes room");
            halves.push((half.connection.begin(), half));
        }
        assert!(!is_closed(&scheduler) && !is_closed(&call));
        let open = |halves: &[(InRequest, Entry)]| halves.iter().filter(|(_, half)| !is_closed(half)).count();
        assert_eq!(open(&halves), 2);
        // one that has just come is not the first to go, whatever the others have sent
        let young = all.enter(CLIENT).unwrap();
        let half = all.enter(CLIENT).unwrap();
        assert!(!is_closed(&young) && open(&halves) == 0);
        drop((half, halves));
        // one that was served, and begins another request without an end, goes before the one that waits
        drop((call_works, young));
        let unfinished = call.connection.begin();
        let works: Vec<_> =
            (0..2).map(|_| all.enter(CLIENT).unwrap()).map(|entry| (working(&entry), entry)).collect();
        let new = all.enter(CLIENT).unwrap();
        assert!(is_closed(&call) && !is_closed(&scheduler), "{:?}", (unfinished, works, new));
    }

    #[test]
    fn each_phase_has_its_deadline() {
        let all = connections(1);
        let entry = all.enter(CLIENT).unwrap();
        let left = |entry: &Entry| entry.connection.due() - entry.connection.state.lock().since;
        assert_eq!(left(&entry), Duration::from_secs(1));
        let request = entry.connection.begin();
        assert_eq!(left(&entry), Duration::from_secs(3));
        entry.connection.received();
        assert_eq!(left(&entry), Duration::from_secs(3));
        drop(request);
        assert_eq!(left(&entry), Duration::from_secs(2));
    }
}
