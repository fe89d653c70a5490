//! Runs planning that may take long in threads of its own, so that watches, probes and short calls go on.

use std::sync::Arc;

use kerf::policy::Policy;
use kerf::request::{Ask, GpuRequest};
use tokio::sync::Semaphore;

/// How many calls may wait for their turn. The scheduler makes one at a time; each may hold a body of several MiB.
const WAITING: usize = 32;

/// In bytes. Parsing a larger body takes so long that it runs in a thread.
const SMALL: usize = 64 << 10;

/// In bytes. Larger bodies, as of whole Node objects, are worked on one after another: however many there are, they leave
/// room and threads for the others.
const BULK: usize = 1 << 20;

/// How many calls with such a body may wait for their turn.
const BULK_WAITING: usize = 4;

/// Nodes on which a single container is planned in less than a millisecond.
const FEW: usize = 1_000;

/// Bounds how many calls plan at once, and how many wait for that.
#[derive(Debug)]
pub(crate) struct Planning {
    places: Semaphore,
    threads: Arc<Semaphore>,
    bulk_places: Semaphore,
    bulk: Arc<Semaphore>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On a worker of the async runtime, beside all other tasks.
    Worker,
    /// In a thread of its own.
    Thread,
}

/// The work would delay other tasks here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMuch;

#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanningError {
    #[error("extender is busy: too many calls are being answered")]
    Busy,
    #[error("planning broke off: {0}")]
    BrokenOff(#[from] tokio::task::JoinError),
    #[error("planning was not done")]
    NotDone,
}

impl Place {
    /// Whether this pod may be planned on this many nodes in this place.
    pub fn allows(self, request: &GpuRequest, policy: Policy, nodes: usize) -> Result<(), TooMuch> {
        let alone = match request.containers.as_slice() {
            [container] => !matches!(container.ask, Ask::Whole { memory: Some(_), .. }),
            _ => false,
        };
        let light = alone && nodes <= FEW && !request.policy_or(policy).surveys(request);
        if self == Self::Thread || light { Ok(()) } else { Err(TooMuch) }
    }
}

impl Default for Planning {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self::of(WAITING, threads)
    }
}

impl Planning {
    fn of(waiting: usize, threads: usize) -> Self {
        Self {
            places: Semaphore::new(waiting),
            threads: Arc::new(Semaphore::new(threads)),
            bulk_places: Semaphore::new(BULK_WAITING),
            bulk: Arc::new(Semaphore::new(1)),
        }
    }

    /// Runs the work in a thread of its own, in turn.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PlanningError> {
        let _place = self.places.try_acquire().map_err(|_| PlanningError::Busy)?;
        self.in_thread(work).await
    }

    async fn run_bulk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PlanningError> {
        let _place = self.bulk_places.try_acquire().map_err(|_| PlanningError::Busy)?;
        let turn = self.bulk.clone().acquire_owned().await.map_err(|_| PlanningError::Busy)?;
        let work = move || {
            let _turn = turn;
            work()
        };
        self.in_thread(work).await
    }

    async fn in_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PlanningError> {
        // the thread is in use until the work has ended, even where the caller closes the connection
        let thread = self.threads.clone().acquire_owned().await.map_err(|_| PlanningError::Busy)?;
        let span = tracing::Span::current();
        let work = tokio::task::spawn_blocking(move || {
            let _thread = thread;
            span.in_scope(work)
        });
        Ok(work.await?)
    }

    /// Runs the work immediately where it is small, otherwise in a thread of its own. `bytes`: what it begins with
    /// parsing.
    pub async fn run_here_or_there<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl Fn(Place) -> Result<T, TooMuch> + Send + 'static,
    ) -> Result<T, PlanningError> {
        if bytes <= SMALL
            && let Ok(done) = work(Place::Worker)
        {
            return Ok(done);
        }
        let work = move || work(Place::Thread);
        let done = if bytes > BULK { self.run_bulk(work).await } else { self.run(work).await };
        done?.map_err(|TooMuch| PlanningError::NotDone)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use kerf::request::{ContainerKind, RawAnnotations, RawContainer};

    use super::*;

    fn request(cores: &[&str]) -> GpuRequest {
        let raw = cores.iter().map(|core| RawContainer {
            name: "c",
            kind: ContainerKind::App,
            core: Some(core),
            memory: Some("1"),
            counted: &[],
        });
        GpuRequest::parse(raw, RawAnnotations::default()).unwrap().unwrap()
    }

    #[test]
    fn little_work_is_done_at_once_and_much_is_not() {
        let light = |request: &GpuRequest, policy, nodes| Place::Worker.allows(request, policy, nodes).is_ok();
        assert!(light(&request(&["10"]), Policy::Binpack, FEW));
        assert!(!light(&request(&["10"]), Policy::Binpack, FEW + 1));
        assert!(!light(&request(&["10", "10"]), Policy::Binpack, 1), "arrangements may have to be searched for");
        assert!(!light(&request(&["200"]), Policy::Binpack, 1), "sets of cards are compared");
        assert!(!light(&request(&["10"]), Policy::Fragmentation, 1), "the whole cluster is weighed");
        assert_eq!(Place::Thread.allows(&request(&["10", "10"]), Policy::Binpack, 5_000), Ok(()));
    }

    #[tokio::test]
    async fn large_bodies_are_not_even_read_beside_everything_else() {
        let planning = Planning::default();
        for (bytes, place) in [(SMALL, Place::Worker), (SMALL + 1, Place::Thread)] {
            assert_eq!(planning.run_here_or_there(bytes, Ok).await.unwrap(), place);
        }
    }

    #[tokio::test]
    async fn so_many_plan_at_once_and_who_is_too_many_is_told() {
        let planning = Arc::new(Planning::of(3, 2));
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let (finish, finished) = channel::<()>();
        let finished = Arc::new(Mutex::new(finished));
        let calls: Vec<_> = (0..3)
            .map(|number| {
                let (planning, begun, finished) = (planning.clone(), begun.clone(), finished.clone());
                tokio::spawn(async move {
                    let work = move || {
                        begun.send(number).unwrap();
                        finished.lock().unwrap().recv().unwrap();
                    };
                    planning.run(work).await
                })
            })
            .collect();
        for _ in 0..2 {
            begins.recv().await.unwrap();
        }
        while planning.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(begins.try_recv().is_err(), "the third waits for a thread");
        assert!(planning.run(|| ()).await.unwrap_err().to_string().contains("busy"));
        for _ in 0..3 {
            finish.send(()).unwrap();
        }
        for call in calls {
            call.await.unwrap().unwrap();
        }
        assert_eq!(planning.run(|| 7).await.unwrap(), 7);
    }

    /// However many large bodies come, one is worked on, and the others' threads stay free.
    #[tokio::test]
    async fn large_bodies_are_worked_on_one_after_another() {
        let planning = Arc::new(Planning::of(2, 2));
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let (finish, finished) = channel::<()>();
        let finished = Arc::new(Mutex::new(finished));
        let large = || {
            let (planning, begun, finished) = (planning.clone(), begun.clone(), finished.clone());
            tokio::spawn(async move {
                let work = move |_| {
                    begun.send(()).unwrap();
                    finished.lock().unwrap().recv().unwrap();
                    Ok(())
                };
                planning.run_here_or_there(BULK + 1, work).await
            })
        };
        let calls: Vec<_> = (0..BULK_WAITING).map(|_| large()).collect();
        begins.recv().await.unwrap();
        while planning.bulk_places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(large().await.unwrap(), Err(PlanningError::Busy)));
        assert_eq!(planning.run_here_or_there(BULK, Ok).await.unwrap(), Place::Thread);
        assert!(begins.try_recv().is_err(), "the second waits for the first");
        for _ in 0..BULK_WAITING {
            finish.send(()).unwrap();
        }
        for call in calls {
            call.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_thread_stays_in_use_when_its_caller_has_gone() {
        let planning = Planning::of(2, 1);
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (finish, finished) = channel::<()>();
        let mut call = Box::pin(planning.run(move || {
            begun.send(()).unwrap();
            finished.recv().unwrap();
        }));
        tokio::select! {
            _ = &mut call => panic!("it waits"),
            begun = begins => begun.unwrap(),
        }
        drop(call);
        assert_eq!((planning.places.available_permits(), planning.threads.available_permits()), (2, 0));
        finish.send(()).unwrap();
        assert_eq!(planning.run(|| 7).await.unwrap(), 7);
    }
}
