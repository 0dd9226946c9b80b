//! One exec from permit to outcome, on one screen: [`drive`].

use super::admission::Permit;
use super::control::Control;
use super::deadline::time_is_up;
use super::error::ExecError;
use super::executor::Finished;
use super::outcome::{Facts, Killed, NoOutcome, judge};
use super::pipes::Pipes;
use super::pump::raised;
use super::request::ValidExec;
use super::sink::{Input, Io};
use crate::metrics::{METRICS, Phase};
use crate::runtime::{Invalid, Runtime};
use crate::warden::client::{Ended, ExecRequest, RunningExec, Starting, Warden, WardenError};
use crate::warden::protocol::{Beginning, Failure};
use crate::warden::streams::Streams;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

/// How long mounting the runtime and building the cell may take.
pub(crate) const START_WAIT: Duration = Duration::from_secs(30);

/// How long a kill may take before the warden is taken to be stuck.
pub(crate) const KILL_WAIT: Duration = Duration::from_secs(30);

/// What the task of a command is given.
pub(super) struct Job {
    pub(super) exec_id: Uuid,
    pub(super) warden: Warden,
    pub(super) permit: Permit,
    pub(super) runtime: Arc<Runtime>,
    pub(super) exec: ValidExec,
    pub(super) io: Io,
    /// Told when the command is let go; dropped when it never is.
    pub(super) started: oneshot::Sender<Control>,
    pub(super) stop: Stop,
}

/// The life of one command.
pub(super) async fn drive(job: Job) -> Result<Finished, ExecError> {
    let Job {
        exec_id,
        warden,
        mut permit,
        runtime,
        exec,
        io,
        started,
        stop,
    } = job;
    let asked = Instant::now();
    let running = runtime.starting().await?;
    let request = ExecRequest {
        runtime: runtime.id,
        runtime_resources: running.resources(),
        cell_resources: exec.resources,
        hostname: runtime.name.clone(),
        command: exec.command.encode(),
        stdin: exec.terminal.is_none() && !matches!(io.stdin, Input::Nothing),
        terminal: exec.terminal,
    };
    let cancelled = stop.wanted();
    tokio::pin!(cancelled);
    let mut starting = warden.exec(request).map_err(ExecError::Start)?;
    // The warden hears of it before it hears of whatever changes the status now.
    drop(running);
    let late = time_is_up(START_WAIT, permit.still());
    let launch = until_started(&mut starting, late, cancelled.as_mut());
    let launch = permit.during(runtime.paused(), launch).await;
    let mut running = starting.running();
    let (streams, early) = match launch {
        Launch::Started(streams, early) => (streams, early),
        Launch::Failed(error) => return Err(start_error(error, &exec)),
        Launch::Stuck => return Err(not_killed(exec_id, running, permit)),
    };
    let began = Instant::now();
    let terminal = streams.terminal();
    let control = running
        .signals()
        .map(|signals| Control { signals, terminal });
    let pipes = Pipes::open(streams, io);

    let cancelled = async {
        if early.is_none() {
            cancelled.await;
        }
    };
    if let Some(control) = control
        && early.is_none()
    {
        let _ = started.send(control);
    }
    let timeout = time_is_up(exec.timeout, permit.still());
    let ended = until_ended(&mut running, timeout, cancelled);
    let (ended, killed) = permit.during(runtime.paused(), ended).await;
    let duration = began.elapsed();
    let Some(ended) = ended else {
        return Err(not_killed(exec_id, running, permit));
    };
    let reservation = permit.ended();
    let gone = Instant::now();
    let (stdout, stderr) = pipes.close().await;
    let drained = Instant::now();
    let ended = ended.map_err(|_| ExecError::Lost { exec_id })?;
    if let Some(Early::Late) = early {
        return Err(ExecError::Late { exec_id });
    }

    let facts = Facts {
        end: ended.end,
        oom_killed: ended.oom_killed,
        cpu_exceeded: ended.cpu_exceeded,
        killed,
    };
    let verdict = judge(&facts).map_err(|none| match none {
        NoOutcome::Cwd(why) => cwd_refused(&exec.command.cwd, &why).into(),
        NoOutcome::ArgumentsTooLong => arguments_too_long(exec.command.args.is_empty()).into(),
        NoOutcome::Setup => ExecError::Setup { exec_id },
        NoOutcome::NoRoom => ExecError::NoRoom { exec_id },
        NoOutcome::Unseen => ExecError::Unseen { exec_id },
    })?;
    let Beginning {
        open,
        bind,
        exec: started,
    } = ended.beginning;
    let [open, bind, started] = [open, bind, started].map(Duration::from_micros);
    let run = (gone - asked).saturating_sub(open + bind + started);
    METRICS.phase(Phase::Open, open);
    METRICS.phase(Phase::Bind, bind);
    METRICS.phase(Phase::Exec, started);
    METRICS.phase(Phase::Run, run);
    METRICS.phase(Phase::Drain, drained - gone);
    Ok(Finished {
        exec_id,
        verdict,
        duration,
        drained,
        duration_ms: u64::try_from(duration.as_millis())
            .unwrap_or(u64::MAX)
            .max(1),
        stdout,
        stderr,
        usage: ended.usage,
        reservation,
    })
}

/// What came of the wait for a command's start.
pub(crate) enum Launch {
    /// It runs; or it was killed before, and its end follows.
    Started(Streams, Option<Early>),
    /// It never runs.
    Failed(WardenError),
    /// It was killed and nothing was heard.
    Stuck,
}

/// Why a command was killed before it ran.
pub(crate) enum Early {
    /// Nobody wants it any more.
    Cancelled,
    /// It took too long.
    Late,
}

/// Waits until the command is let go, and kills it when nobody wants it any more or that takes too long.
pub(crate) async fn until_started(
    starting: &mut Starting,
    late: impl Future<Output = ()>,
    cancelled: impl Future<Output = ()>,
) -> Launch {
    let early = tokio::select! {
        biased;
        started = starting.started() => return match started {
            Ok(streams) => Launch::Started(streams, None),
            Err(error) => Launch::Failed(error),
        },
        () = cancelled => Early::Cancelled,
        () = late => Early::Late,
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
    timeout: impl Future<Output = ()>,
    cancelled: impl Future<Output = ()>,
) -> (Option<Result<Ended, WardenError>>, Option<Killed>) {
    let kill = tokio::select! {
        biased;
        ended = running.ended() => return (Some(ended), None),
        () = cancelled => Killed::Cancelled,
        () = timeout => Killed::TimedOut,
    };
    running.kill();
    let ended = tokio::time::timeout(KILL_WAIT, running.ended()).await;
    (ended.ok(), Some(kill))
}

/// Who may want a command to stop.
pub(super) struct Stop {
    pub(super) runtime: Arc<Runtime>,
    /// Its sender is dropped when nobody waits for the command, and used when nobody is to.
    pub(super) abandoned: oneshot::Receiver<()>,
    /// Somebody cancels it by its id.
    pub(super) cancelled: watch::Receiver<bool>,
    /// The service stops: commands may end, but nobody can resume those of a paused runtime.
    pub(super) draining: watch::Receiver<bool>,
    pub(super) shutdown: watch::Receiver<bool>,
}

impl Stop {
    /// Resolves when the client is gone, somebody cancels it, the runtime no longer runs, or the service stops.
    async fn wanted(mut self) {
        let abandoned = async {
            if self.abandoned.await.is_ok() {
                std::future::pending().await
            }
        };
        let runtime = &self.runtime;
        let held = async {
            raised(&mut self.draining).await;
            runtime.until_paused().await;
        };
        tokio::select! {
            () = abandoned => {}
            () = held => {}
            () = raised(&mut self.cancelled) => {}
            _ = runtime.stopped_running() => {}
            () = raised(&mut self.shutdown) => {}
        }
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
