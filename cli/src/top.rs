//! `kerf top`

mod screen;

use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::Context;
use console::Term;
use kerf::annotation::Keys;
use kerf::terminal;
use tokio::signal::unix::{SignalKind, signal};

use super::source::{Source, SourceArgs, time};
use crate::print;
use crate::table::terminal_width;
use crate::view::View;
use screen::{Look, What, lines};

/// Another screen, without a cursor; and back.
const BEGIN: &str = "\u{1b}[?1049h\u{1b}[?25l";
const END: &str = "\u{1b}[?25h\u{1b}[?1049l";

#[derive(Debug, clap::Args)]
pub struct TopArgs {
    /// Of what
    #[arg(value_enum, default_value_t)]
    what: What,
    /// Pods of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How often the cluster is read again
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
    interval: Duration,
    /// Only once, as where standard output is no terminal
    #[arg(long)]
    once: bool,
}

/// Shows what is granted and used, again and again on a terminal until it is interrupted.
///
/// # Errors
/// Where the cluster cannot be read the first time.
pub fn run(args: &TopArgs, from: &SourceArgs, keys: &Keys, json: bool) -> anyhow::Result<ExitCode> {
    let source = Source::open(from)?;
    let look = |term: &Term| Look {
        size: term.size_checked().map(|(rows, columns)| (rows.into(), columns.into())),
        colours: console::colors_enabled(),
    };
    let read = || -> anyhow::Result<View> {
        let cluster = source.cluster(keys)?;
        let mut view = View::of(&cluster, &source.usage(&cluster));
        let namespace = source.namespace(from).filter(|_| !args.all_namespaces && args.what == What::Pods);
        view.pods.retain(|pod| namespace.as_ref().is_none_or(|namespace| pod.namespace == *namespace));
        Ok(view)
    };
    let term = Term::stdout();
    let view = read()?;
    if json {
        print::print(&(serde_json::to_string_pretty(&view)? + "\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    match &source {
        Source::Running(live) if !args.once && term.is_term() => {
            live.read_again();
            follow(view, args, &read, &|| look(&term))
        }
        _ => {
            let size = terminal_width().map(|columns| (usize::MAX, columns));
            let look = Look { size, colours: size.is_some() && console::colors_enabled() };
            print::raw(&(lines(&view, args.what, look).join("\n") + "\n"))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn follow(
    mut view: View,
    args: &TopArgs,
    read: &dyn Fn() -> anyhow::Result<View>,
    look: &dyn Fn() -> Look,
) -> anyhow::Result<ExitCode> {
    let resized = signals()?;
    let mut trouble = None;
    show(BEGIN);
    loop {
        let mut picture = lines(&view, args.what, look());
        picture.extend(trouble.iter().map(|trouble| format!("! {trouble}")));
        let height = look().size.map_or(usize::MAX, |(rows, _)| rows);
        let text: Vec<String> = picture.iter().take(height).map(|line| format!("{line}\u{1b}[K")).collect();
        if !show(&format!("\u{1b}[H{}\u{1b}[J", text.join("\r\n"))) {
            return Ok(ExitCode::SUCCESS);
        }
        match resized.recv_timeout(args.interval) {
            Ok(()) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(ExitCode::SUCCESS),
            Err(RecvTimeoutError::Timeout) => match read() {
                Ok(now) => (view, trouble) = (now, None),
                Err(error) => trouble = Some(terminal::line(&format!("{error:#}")).into_owned()),
            },
        }
    }
}

/// False where nobody looks any more.
fn show(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Says when the terminal's size has changed; on an interrupt, the terminal is as before and the program ends.
fn signals() -> anyhow::Result<Receiver<()>> {
    let (sender, receiver) = channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        // where signals cannot be had, the terminal's defaults hold
        drop(runtime.block_on(until_the_end(&sender)));
        // nothing may be written after it
        let mut out = std::io::stdout().lock();
        drop(out.write_all(END.as_bytes()).and_then(|()| out.flush()));
        std::process::exit(0);
    })?;
    Ok(receiver)
}

async fn until_the_end(resized: &Sender<()>) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut window = signal(SignalKind::window_change())?;
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            _ = window.recv() => drop(resized.send(())),
        }
    }
}
