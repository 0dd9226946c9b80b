//! One exec from permit to outcome, on one screen: [`drive`].
//!
//! It runs in a task of its own that ends when the cell is gone. The caller holds nothing but the wait: a caller that is
//! dropped (its client hung up) makes the task kill the command, and the slot is free again only when it is dead.

use super::admission::{Admission, AdmissionError, BufferReservation, Permit};
use super::deadline::time_is_up;
use super::live::{Live, LiveExec};
use super::outcome::{Facts, Killed, NeverRan, Verdict, judge};
use super::outputs::Stream;
use super::pump::{drain, feed, raised};
use super::record::{RUNNING, shortened};
use super::recording::Recording;
use super::records::Records;
use super::request::ValidExec;
use super::sink::{Captured, Input, Io};
use crate::resources::Usage;
use crate::runtime::{Invalid, Runtime};
use crate::store::{ExecRow, KeyRow, StoreError};
use crate::tenant::TenantId;
use crate::warden::client::{Ended, ExecRequest, RunningExec, Signals, Warden, WardenError};
use crate::warden::protocol::{CommandSignal, Failure, TerminalSize};
use crate::warden::streams::Streams;
use crate::warden::terminal::Terminal;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How long the pipes may stay open after the cell is gone, before what was read has to do.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// How long a kill may take before the warden is taken to be stuck.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It was not admitted.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The request turned out to be impossible when it was tried.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// That it runs could not be stored, so it does not.
    #[error("storing the record of an exec")]
    Record(#[source] StoreError),
    /// The warden did not start it.
    #[error("starting a command")]
    Start(#[source] WardenError),
    /// The warden died while it ran.
    #[error(
        "the launcher was restarted while the command ran; the command was killed and its outcome is unknown"
    )]
    Lost {
        /// The exec.
        exec_id: Uuid,
    },
    /// The cell could not be built.
    #[error("the cell of exec {exec_id} could not be built")]
    Setup {
        /// The exec.
        exec_id: Uuid,
    },
    /// The task ended early.
    #[error("the task of exec {exec_id} ended early")]
    Interrupted {
        /// The exec.
        exec_id: Uuid,
    },
}

/// A command that ran.
#[derive(Debug)]
pub struct Finished {
    /// Its id, UUIDv7.
    pub exec_id: Uuid,
    /// How it ended.
    pub verdict: Verdict,
    /// Wall clock, at least 1.
    pub duration_ms: u64,
    /// Its output.
    pub stdout: Captured,
    /// Its errors.
    pub stderr: Captured,
    /// What its cell used.
    pub usage: Usage,
    /// The memory set aside for the output; to be kept as long as the output is.
    pub reservation: BufferReservation,
}

/// A command to be started.
#[derive(Debug)]
pub struct Start {
    /// Its id, a new UUIDv7.
    pub exec_id: Uuid,
    /// The right to run it.
    pub permit: Permit,
    /// Where.
    pub runtime: Arc<Runtime>,
    /// What.
    pub exec: ValidExec,
    /// Its streams.
    pub io: Io,
    /// The idempotency key that stands for it.
    pub key: Option<KeyRow>,
}

/// Runs commands; shared by all requests.
#[derive(Debug)]
pub struct Executor {
    warden: Warden,
    admission: Arc<Admission>,
    records: Records,
    live: Live,
    cancel: watch::Sender<bool>,
    tasks: watch::Sender<usize>,
}

impl Executor {
    /// Nothing runs yet.
    pub fn new(warden: Warden, admission: Arc<Admission>, records: Records) -> Self {
        Self {
            warden,
            admission,
            records,
            live: Live::default(),
            cancel: watch::Sender::new(false),
            tasks: watch::Sender::new(0),
        }
    }

    /// What is remembered of all execs.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// The tenant's exec, if it runs now.
    pub fn running(&self, tenant: TenantId, id: Uuid, stream: Stream) -> Option<LiveExec> {
        self.live.get(tenant, id, stream)
    }

    /// How many bytes an exec has written to stdout and stderr so far, where that is known.
    pub fn written(&self, id: Uuid) -> [Option<u64>; 2] {
        let seen = self.live.progress(id);
        seen.map(|progress| progress.map(|progress| progress.total))
    }

    /// Waits for the right to run `exec` in `runtime`.
    pub async fn admit(&self, runtime: &Runtime, exec: &ValidExec) -> Result<Permit, ExecError> {
        Ok(self
            .admission
            .admit(runtime.id, exec.buffered_bytes())
            .await?)
    }

    /// Starts a command. What became of it is asked of the [`Execution`]; dropping that kills the command. Its record is
    /// there before it starts, and ends before [`Execution::finished`] tells the end.
    pub fn start(&self, start: Start) -> Execution {
        let Start {
            exec_id,
            permit,
            runtime,
            exec,
            io,
            key,
        } = start;
        let (waiting, abandoned) = oneshot::channel();
        let (tell_started, started) = oneshot::channel();
        let counted = self.busy();
        let listed = self.live.list(exec_id, runtime.tenant, io.progress());
        let row = ExecRow {
            id: exec_id,
            tenant: runtime.tenant.0,
            runtime: runtime.id,
            runtime_name: runtime.name.clone(),
            command: shortened(&exec.command.command),
            detached: exec.detach,
            outcome: RUNNING.into(),
            ended_at: None,
            report: "{}".into(),
            kept: 0,
            in_files: false,
        };
        let recording = Recording::begin(&self.records, row, key, listed);
        let job = Job {
            exec_id,
            warden: self.warden.clone(),
            permit,
            stop: Stop {
                runtime: runtime.clone(),
                abandoned,
                cancelled: recording.stopped(),
                shutdown: self.cancel.subscribe(),
            },
            runtime,
            exec,
            io,
            started: tell_started,
        };
        let task = tokio::spawn(async move {
            let _counted = counted;
            let result = match recording.safe().await {
                Ok(()) => drive(job).await,
                Err(error) => Err(ExecError::Record(error)),
            };
            recording.end(&result).await;
            result
        });
        Execution {
            exec_id,
            waiting: Some(waiting),
            started: Some(started),
            control: None,
            task,
        }
    }

    /// Makes [`Executor::idle`] wait until it is dropped.
    pub fn busy(&self) -> Busy {
        Busy::new(&self.tasks)
    }

    /// Admits nobody any more. What runs goes on.
    pub fn close(&self) {
        self.admission.close();
    }

    /// Kills everything that runs; each ends as cancelled.
    pub fn cancel_all(&self) {
        self.cancel.send_replace(true);
    }

    /// Waits until nothing runs.
    pub async fn idle(&self) {
        // The sender lives in `self`, so the wait can't fail.
        let _ = self.tasks.subscribe().wait_for(|tasks| *tasks == 0).await;
    }
}

/// A command on its way, in the hands of whoever waits for it.
#[derive(Debug)]
pub struct Execution {
    /// Its id, UUIDv7.
    pub exec_id: Uuid,
    /// Dropped when nobody waits any more.
    waiting: Option<oneshot::Sender<()>>,
    started: Option<oneshot::Receiver<Control>>,
    control: Option<Control>,
    task: JoinHandle<Result<Finished, ExecError>>,
}

impl Execution {
    /// Waits until the cell is accepted.
    ///
    /// # Errors
    /// Why it was not; then the command never runs.
    pub async fn started(&mut self) -> Result<(), ExecError> {
        let Some(started) = self.started.take() else {
            return Ok(());
        };
        match started.await {
            Ok(control) => {
                self.control = Some(control);
                Ok(())
            }
            Err(_) => self.finished().await.map(drop),
        }
    }

    /// What can be done to the command; none before it was [`started`](Self::started).
    pub fn control(&self) -> Option<&Control> {
        self.control.as_ref()
    }

    /// Waits for the end. A cancelled wait may be repeated, a finished one not.
    pub async fn finished(&mut self) -> Result<Finished, ExecError> {
        let exec_id = self.exec_id;
        (&mut self.task)
            .await
            .map_err(|_| ExecError::Interrupted { exec_id })?
    }

    /// Kills the command; its end is still to be waited for.
    pub fn abandon(&mut self) {
        self.waiting = None;
    }

    /// Lets the command go on with nobody waiting: after this, dropping the execution kills nothing.
    pub fn detach(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            let _ = waiting.send(());
        }
    }
}

/// What a client can do to its running command. After the end nothing happens any more.
#[derive(Debug, Clone)]
pub struct Control {
    signals: Signals,
    terminal: Option<Arc<Terminal>>,
}

impl Control {
    /// Sends a signal to the process group of the main process.
    pub fn signal(&self, signal: CommandSignal) {
        self.signals.send(signal);
    }

    /// Changes the terminal's size; false where there is no terminal.
    pub fn resize(&self, size: TerminalSize) -> bool {
        let Some(terminal) = &self.terminal else {
            return false;
        };
        if let Err(error) = terminal.resize(size) {
            tracing::debug!(%error, "resizing a terminal");
        }
        true
    }
}

/// What the task of a command is given.
struct Job {
    exec_id: Uuid,
    warden: Warden,
    permit: Permit,
    runtime: Arc<Runtime>,
    exec: ValidExec,
    io: Io,
    started: oneshot::Sender<Control>,
    stop: Stop,
}

/// The life of one command.
async fn drive(job: Job) -> Result<Finished, ExecError> {
    let Job {
        exec_id,
        warden,
        permit,
        runtime,
        exec,
        io,
        started,
        stop,
    } = job;
    let request = ExecRequest {
        runtime: runtime.id,
        runtime_resources: runtime.settings.resources(),
        cell_resources: exec.resources,
        hostname: runtime.name.clone(),
        command: exec.command.encode(),
        stdin: exec.terminal.is_none() && !matches!(io.stdin, Input::Nothing),
        terminal: exec.terminal,
    };
    let (mut running, streams) = warden
        .exec(request)
        .await
        .map_err(|error| start_error(error, &exec))?;
    if let Some(signals) = running.signals() {
        let terminal = streams.terminal();
        let _ = started.send(Control { signals, terminal });
    }
    let began = Instant::now();
    let pipes = Pipes::open(streams, io);

    let timeout = time_is_up(exec.timeout, runtime.paused());
    let (ended, killed) = until_ended(&mut running, timeout, stop.wanted()).await;
    let duration = began.elapsed();
    let reservation = permit.ended();
    let (stdout, stderr) = pipes.close().await;
    let ended = ended.ok_or(ExecError::Lost { exec_id })?;

    let facts = Facts {
        end: ended.end,
        oom_killed: ended.oom_killed,
        cpu_exceeded: ended.cpu_exceeded,
        killed,
    };
    let verdict = judge(&facts).map_err(|never| match never {
        NeverRan::Cwd(why) => cwd_refused(&exec.command.cwd, &why).into(),
        NeverRan::ArgumentsTooLong => arguments_too_long(exec.command.args.is_empty()).into(),
        NeverRan::Setup => ExecError::Setup { exec_id },
    })?;
    Ok(Finished {
        exec_id,
        verdict,
        duration_ms: u64::try_from(duration.as_millis())
            .unwrap_or(u64::MAX)
            .max(1),
        stdout,
        stderr,
        usage: ended.usage,
        reservation,
    })
}

/// Waits for the end, and brings it about when the time is up or nobody wants the result. None when the warden is lost.
async fn until_ended(
    running: &mut RunningExec,
    timeout: impl Future<Output = ()>,
    cancelled: impl Future<Output = ()>,
) -> (Option<Ended>, Option<Killed>) {
    let kill = tokio::select! {
        biased;
        ended = running.ended() => return (ended.ok(), None),
        () = cancelled => Killed::Cancelled,
        () = timeout => Killed::TimedOut,
    };
    running.kill();
    let ended = tokio::time::timeout(KILL_WAIT, running.ended()).await;
    (ended.ok().and_then(Result::ok), Some(kill))
}

/// Who may want a command to stop.
struct Stop {
    runtime: Arc<Runtime>,
    /// Its sender is dropped when nobody waits for the command, and used when nobody is to.
    abandoned: oneshot::Receiver<()>,
    cancelled: watch::Receiver<bool>,
    shutdown: watch::Receiver<bool>,
}

impl Stop {
    /// Resolves when the client is gone, somebody cancels it, the runtime no longer runs, or the service stops.
    async fn wanted(mut self) {
        let abandoned = async {
            if self.abandoned.await.is_ok() {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = abandoned => {}
            () = raised(&mut self.cancelled) => {}
            _ = self.runtime.stopped_running() => {}
            () = raised(&mut self.shutdown) => {}
        }
    }
}

/// The tasks that move a command's bytes.
struct Pipes {
    stdin: Option<JoinHandle<()>>,
    stdout: JoinHandle<Captured>,
    stderr: JoinHandle<Captured>,
    terminal: Option<Arc<Terminal>>,
    // Dropping it ends the readers, so that none outlives its exec.
    stop: watch::Sender<bool>,
}

impl Pipes {
    fn open(streams: Streams, io: Io) -> Self {
        let (stop, stopped) = watch::channel(false);
        let terminal = streams.terminal();
        let read = |outlet, sink| tokio::spawn(drain(outlet, sink, stopped.clone()));
        Self {
            stdout: read(streams.stdout, io.stdout),
            stderr: match streams.stderr {
                Some(outlet) => read(outlet, io.stderr),
                None => tokio::spawn(async { io.stderr.finish() }),
            },
            terminal,
            stdin: streams.stdin.map(|pipe| tokio::spawn(feed(pipe, io.stdin))),
            stop,
        }
    }

    /// Reads to the end of both outputs. The cell is gone, so that end is near; a slow reader is waited for.
    async fn close(mut self) -> (Captured, Captured) {
        if let Some(stdin) = &self.stdin {
            stdin.abort();
        }
        if let Some(terminal) = &self.terminal {
            terminal.finish();
        }
        let both = async { tokio::join!(&mut self.stdout, &mut self.stderr) };
        let both = tokio::time::timeout(DRAIN_WAIT, both).await;
        let (stdout, stderr) = match both {
            Ok(both) => both,
            Err(_) => {
                self.stop.send_replace(true);
                tokio::join!(self.stdout, self.stderr)
            }
        };
        (stdout.unwrap_or_default(), stderr.unwrap_or_default())
    }
}

fn start_error(error: WardenError, exec: &ValidExec) -> ExecError {
    match error {
        WardenError::Refused(Failure::Invalid(field)) if field == "command" => {
            arguments_too_long(exec.command.args.is_empty()).into()
        }
        error => ExecError::Start(error),
    }
}

fn cwd_refused(cwd: &str, why: &str) -> Invalid {
    let shown: String = cwd.chars().take(200).flat_map(char::escape_debug).collect();
    Invalid::new("cwd", format!("'{shown}' can't be entered: {why}"))
}

fn arguments_too_long(no_args: bool) -> Invalid {
    let field = if no_args { "env" } else { "args" };
    Invalid::new(
        field,
        "is too large: the kernel takes no more arguments and environment together",
    )
}

/// Counts a task for [`Executor::idle`], however it ends.
#[derive(Debug)]
pub struct Busy(watch::Sender<usize>);

impl Busy {
    fn new(tasks: &watch::Sender<usize>) -> Self {
        tasks.send_modify(|tasks| *tasks += 1);
        Self(tasks.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|tasks| *tasks -= 1);
    }
}
