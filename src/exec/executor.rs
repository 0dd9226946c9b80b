//! One exec from permit to outcome, on one screen: [`drive`].
//!
//! It runs in a task of its own that ends when the cell is gone. The caller holds nothing but the wait: a caller that is
//! dropped (its client hung up) makes the task kill the command, and the slot is free again only when it is dead.

use super::admission::{Admission, AdmissionError, BufferReservation, Permit};
use super::outcome::{Facts, Killed, NeverRan, Verdict, judge};
use super::pump::{Captured, drain, feed, raised};
use super::request::ValidExec;
use crate::resources::Usage;
use crate::runtime::{Invalid, Runtime};
use crate::warden::client::{
    Ended, ExecRequest, RunningExec, Starting, Streams, Warden, WardenError,
};
use crate::warden::protocol::Failure;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How long the pipes may stay open after the cell is gone, before what was read has to do.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// How long mounting the runtime and building the cell may take.
const START_WAIT: Duration = Duration::from_secs(30);

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
    /// It was not started in time.
    #[error("the command was not started within {} seconds", START_WAIT.as_secs())]
    Late {
        /// The exec.
        exec_id: Uuid,
    },
    /// It was killed, and its end is not known yet.
    #[error("the command was killed but has not ended yet; its outcome is unknown")]
    NotKilled {
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

/// Runs commands; shared by all requests.
#[derive(Debug)]
pub struct Executor {
    warden: Warden,
    admission: Arc<Admission>,
    cancel: watch::Sender<bool>,
    tasks: watch::Sender<usize>,
}

impl Executor {
    /// Nothing runs yet.
    pub fn new(warden: Warden, admission: Arc<Admission>) -> Self {
        Self {
            warden,
            admission,
            cancel: watch::Sender::new(false),
            tasks: watch::Sender::new(0),
        }
    }

    /// Waits for the right to run `exec` in `runtime`.
    pub async fn admit(&self, runtime: &Runtime, exec: &ValidExec) -> Result<Permit, ExecError> {
        Ok(self
            .admission
            .admit(runtime.id, exec.buffered_bytes())
            .await?)
    }

    /// Runs a command and waits for its end. Dropping the wait kills the command.
    pub async fn run(
        &self,
        permit: Permit,
        runtime: Arc<Runtime>,
        exec: ValidExec,
    ) -> Result<Finished, ExecError> {
        let exec_id = Uuid::now_v7();
        // Dropped with this future.
        let (_waiting, abandoned) = oneshot::channel();
        let counted = Counted::new(&self.tasks);
        let warden = self.warden.clone();
        let cancel = self.cancel.subscribe();
        let task = tokio::spawn(async move {
            let _counted = counted;
            drive(exec_id, warden, permit, runtime, exec, abandoned, cancel).await
        });
        task.await.map_err(|_| ExecError::Interrupted { exec_id })?
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

/// The life of one command.
async fn drive(
    exec_id: Uuid,
    warden: Warden,
    permit: Permit,
    runtime: Arc<Runtime>,
    exec: ValidExec,
    abandoned: oneshot::Receiver<()>,
    cancel: watch::Receiver<bool>,
) -> Result<Finished, ExecError> {
    let request = ExecRequest {
        runtime: runtime.id,
        runtime_resources: runtime.settings.resources(),
        cell_resources: exec.resources,
        hostname: runtime.name.clone(),
        command: exec.command.encode(),
        stdin: exec.stdin.is_some(),
    };
    let cancelled = cancelled(&runtime, abandoned, cancel);
    tokio::pin!(cancelled);
    let mut starting = warden.exec(request).map_err(ExecError::Start)?;
    let launch = until_started(&mut starting, cancelled.as_mut()).await;
    let mut running = starting.running();
    let (streams, early) = match launch {
        Launch::Started(streams, early) => (streams, early),
        Launch::Failed(error) => return Err(start_error(error, &exec)),
        Launch::Stuck => return Err(not_killed(exec_id, running, permit)),
    };
    let started = Instant::now();
    let pipes = Pipes::open(streams, exec.stdin, exec.cap);

    let cancelled = async {
        if early.is_none() {
            cancelled.await;
        }
    };
    let (ended, killed) = until_ended(&mut running, exec.timeout, cancelled).await;
    let duration = started.elapsed();
    let ended = match ended {
        Some(ended) => ended.map_err(|_| ExecError::Lost { exec_id })?,
        None => return Err(not_killed(exec_id, running, permit)),
    };
    if let Some(Early::Late) = early {
        return Err(ExecError::Late { exec_id });
    }
    let (stdout, stderr) = pipes.close().await;

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
        reservation: permit.ended(),
    })
}

/// What came of the wait for a command's start.
enum Launch {
    /// It runs; or it was killed before, and its end follows.
    Started(Streams, Option<Early>),
    /// It never runs.
    Failed(WardenError),
    /// It was killed and nothing was heard.
    Stuck,
}

/// Why a command was killed before it ran.
enum Early {
    /// Nobody wants it any more.
    Cancelled,
    /// It took too long.
    Late,
}

/// Waits until the command is let go, and kills it when nobody wants it any more or that takes too long.
async fn until_started(starting: &mut Starting, cancelled: impl Future<Output = ()>) -> Launch {
    let early = tokio::select! {
        biased;
        started = starting.started() => return match started {
            Ok(streams) => Launch::Started(streams, None),
            Err(error) => Launch::Failed(error),
        },
        () = cancelled => Early::Cancelled,
        () = tokio::time::sleep(START_WAIT) => Early::Late,
    };
    starting.kill();
    match tokio::time::timeout(KILL_WAIT, starting.started()).await {
        Ok(Ok(streams)) => Launch::Started(streams, Some(early)),
        Ok(Err(error)) => Launch::Failed(error),
        Err(_) => Launch::Stuck,
    }
}

/// A command that outlives its kill keeps its place until its end is known after all.
fn not_killed(exec_id: Uuid, mut running: RunningExec, permit: Permit) -> ExecError {
    tracing::error!(%exec_id, "a command was not dead so long after its kill");
    tokio::spawn(async move {
        let _ = running.ended().await;
        drop(permit);
    });
    ExecError::NotKilled { exec_id }
}

/// Waits for the end, and brings it about when the time is up or nobody wants the result. None when its kill is not
/// confirmed in time.
async fn until_ended(
    running: &mut RunningExec,
    timeout: Duration,
    cancelled: impl Future<Output = ()>,
) -> (Option<Result<Ended, WardenError>>, Option<Killed>) {
    let kill = tokio::select! {
        biased;
        ended = running.ended() => return (Some(ended), None),
        () = cancelled => Killed::Cancelled,
        () = tokio::time::sleep(timeout) => Killed::TimedOut,
    };
    running.kill();
    let ended = tokio::time::timeout(KILL_WAIT, running.ended()).await;
    (ended.ok(), Some(kill))
}

/// Resolves when the client is gone, the runtime no longer runs, or the service stops.
async fn cancelled(
    runtime: &Runtime,
    abandoned: oneshot::Receiver<()>,
    mut cancel: watch::Receiver<bool>,
) {
    tokio::select! {
        _ = abandoned => {}
        _ = runtime.stopped_running() => {}
        () = raised(&mut cancel) => {}
    }
}

/// The tasks that move a command's bytes.
struct Pipes {
    stdin: Option<JoinHandle<()>>,
    stdout: JoinHandle<Captured>,
    stderr: JoinHandle<Captured>,
    // Dropping it ends the readers, so that none outlives its exec.
    stop: watch::Sender<bool>,
}

impl Pipes {
    fn open(streams: Streams, stdin: Option<Vec<u8>>, cap: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let read = |pipe| tokio::spawn(drain(pipe, cap, stopped.clone()));
        Self {
            stdout: read(streams.stdout),
            stderr: read(streams.stderr),
            stdin: streams
                .stdin
                .zip(stdin)
                .map(|(pipe, bytes)| tokio::spawn(feed(pipe, bytes))),
            stop,
        }
    }

    /// Reads to the end of both outputs. The cell is gone, so that end is near.
    async fn close(mut self) -> (Captured, Captured) {
        if let Some(stdin) = &self.stdin {
            stdin.abort();
        }
        let both = async { tokio::join!(&mut self.stdout, &mut self.stderr) };
        let both = tokio::time::timeout(DRAIN_WAIT, both).await;
        let (stdout, stderr) = match both {
            Ok(both) => both,
            Err(_) => {
                tracing::error!("the pipes of a command stayed open after its cell was gone");
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
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(tasks: &watch::Sender<usize>) -> Self {
        tasks.send_modify(|tasks| *tasks += 1);
        Self(tasks.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|tasks| *tasks -= 1);
    }
}
