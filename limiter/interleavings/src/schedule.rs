//! Runs threads one at a time, and a scenario once for each way in which they can take turns, up to a number of
//! preemptions: a thread that could go on is interrupted. Turns that a thread gives away, because it waits, yields or has
//! ended, are not counted.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// A thread of a scenario.
pub struct Actor {
    body: Box<dyn FnOnce() + Send>,
    mortal: bool,
}

impl Actor {
    /// Runs to its end.
    pub fn new(body: impl FnOnce() + Send + 'static) -> Self {
        Self { body: Box::new(body), mortal: false }
    }

    /// May be killed at any access.
    pub fn mortal(body: impl FnOnce() + Send + 'static) -> Self {
        Self { mortal: true, ..Self::new(body) }
    }
}

/// One execution of a scenario.
pub struct Scenario {
    /// Its threads.
    pub actors: Vec<Actor>,
    /// Checks what they have left.
    pub check: Box<dyn FnOnce()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Ready,
    /// For the lock at this address.
    Waits(usize),
    Over,
}

struct Choice {
    chosen: usize,
    of: usize,
}

struct Run {
    current: usize,
    status: Vec<Status>,
    mortal: Vec<bool>,
    path: Vec<Choice>,
    /// How much of the path this execution has gone.
    at: usize,
    preemptions: usize,
    failed: Option<String>,
}

struct Shared {
    run: Mutex<Run>,
    turn: Condvar,
    most: usize,
}

/// What a killed thread unwinds with, and all threads after a failure.
struct Killed;

/// How a thread comes to a point where another may run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Access,
    Yield,
    Wait(usize),
    End,
}

thread_local! {
    static HERE: RefCell<Option<(Arc<Shared>, usize)>> = const { RefCell::new(None) };
}

/// Another thread may run here.
pub fn point() {
    switch(Why::Access);
}

pub(crate) fn yield_now() {
    switch(Why::Yield);
}

pub(crate) fn wait(lock: usize) {
    switch(Why::Wait(lock));
}

pub(crate) fn wake(lock: usize) {
    if let Some((shared, _)) = here() {
        for status in &mut shared.lock().status {
            if *status == Status::Waits(lock) {
                *status = Status::Ready;
            }
        }
    }
}

fn here() -> Option<(Arc<Shared>, usize)> {
    HERE.with_borrow(Clone::clone)
}

fn switch(why: Why) {
    // set-up and checks are not part of the run, and a thread that was killed does not come back
    let Some((shared, me)) = here().filter(|_| !thread::panicking()) else { return };
    let mut run = shared.lock();
    match why {
        Why::Wait(lock) => run.status[me] = Status::Waits(lock),
        Why::End => run.status[me] = Status::Over,
        Why::Access | Why::Yield => {}
    }
    let others = (0..run.status.len()).filter(|other| *other != me && run.status[*other] == Status::Ready);
    let others: Vec<usize> = others.collect();
    let goes_on = run.status[me] == Status::Ready && (why == Why::Access || others.is_empty());
    let mut options: Vec<Option<usize>> = goes_on.then_some(Some(me)).into_iter().collect();
    if !goes_on || run.preemptions < shared.most {
        options.extend(others.into_iter().map(Some));
    }
    if why == Why::Access && run.mortal[me] {
        options.push(None);
    }
    if options.is_empty() {
        if run.status.iter().any(|status| *status != Status::Over) {
            run.failed.get_or_insert("all threads wait for each other".to_owned());
        }
        shared.turn.notify_all();
    } else {
        match options[run.choose(options.len())] {
            Some(next) => {
                run.preemptions += usize::from(goes_on && next != me);
                run.current = next;
            }
            None => {
                run.mortal[me] = false;
                drop(run);
                resume_unwind(Box::new(Killed));
            }
        }
    }
    if run.current != me {
        shared.turn.notify_all();
    }
    if why != Why::End {
        shared.until(run, me);
    }
}

impl Run {
    fn choose(&mut self, of: usize) -> usize {
        if self.at == self.path.len() {
            self.path.push(Choice { chosen: 0, of });
        }
        let choice = &self.path[self.at];
        assert_eq!(choice.of, of, "the scenario is not the same each time");
        self.at += 1;
        choice.chosen
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn until(&self, mut run: MutexGuard<'_, Run>, me: usize) {
        while run.failed.is_none() && (run.current != me || run.status[me] != Status::Ready) {
            run = self.turn.wait(run).unwrap_or_else(PoisonError::into_inner);
        }
        if run.failed.is_some() {
            drop(run);
            resume_unwind(Box::new(Killed));
        }
    }
}

/// Runs a scenario in every way; returns how many there were.
///
/// # Errors
/// What failed, and after how many executions: a check, or threads that wait for each other.
pub fn explore(most: usize, mut scenario: impl FnMut() -> Scenario) -> Result<usize, String> {
    let mut path = Vec::new();
    for executions in 1.. {
        let Scenario { actors, check } = scenario();
        let (outcome, gone) = execute(most, actors, path);
        path = gone;
        let outcome = outcome.and_then(|()| catch_unwind(AssertUnwindSafe(check)).map_err(|panic| text(&*panic)));
        outcome.map_err(|failure| format!("execution {executions}: {failure}"))?;
        while path.last().is_some_and(|choice| choice.chosen + 1 == choice.of) {
            path.pop();
        }
        match path.last_mut() {
            Some(choice) => choice.chosen += 1,
            None => return Ok(executions),
        }
    }
    Ok(0)
}

fn execute(most: usize, actors: Vec<Actor>, path: Vec<Choice>) -> (Result<(), String>, Vec<Choice>) {
    let run = Run {
        current: 0,
        status: vec![Status::Ready; actors.len()],
        mortal: actors.iter().map(|actor| actor.mortal).collect(),
        path,
        at: 0,
        preemptions: 0,
        failed: None,
    };
    let shared = Arc::new(Shared { run: Mutex::new(run), turn: Condvar::new(), most });
    thread::scope(|scope| {
        for (me, actor) in actors.into_iter().enumerate() {
            let shared = shared.clone();
            scope.spawn(move || {
                HERE.set(Some((shared.clone(), me)));
                let body = AssertUnwindSafe(|| {
                    shared.until(shared.lock(), me);
                    (actor.body)();
                });
                if let Err(panic) = catch_unwind(body)
                    && !panic.is::<Killed>()
                {
                    shared.lock().failed.get_or_insert(text(&*panic));
                    shared.turn.notify_all();
                }
                switch(Why::End);
            });
        }
    });
    let mut run = shared.lock();
    (run.failed.take().map_or(Ok(()), Err), std::mem::take(&mut run.path))
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let known = panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
    known.unwrap_or_else(|| "panicked".to_owned())
}
