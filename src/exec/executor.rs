//! Runs commands. Each has a task of its own ([`drive`](super::drive)) that ends when its cell is gone. The caller holds
//! nothing but the wait: a caller that is dropped (its client hung up) makes the task kill the command, and the slot is
//! free again only when it is dead.

use super::admission::{Admission, BufferReservation, Permit};
use super::control::Control;
use super::drive::{Job, Stop, drive};
use super::error::ExecError;
use super::live::{Live, LiveExec};
use super::outcome::Verdict;
use super::outputs::Stream;
use super::record::{RUNNING, shortened};
use super::recording::Recording;
use super::records::Records;
use super::request::ValidExec;
use super::sink::{Captured, Io};
use crate::resources::Usage;
use crate::runtime::Runtime;
use crate::store::{ExecRow, KeyRow};
use crate::tenant::TenantId;
use crate::warden::client::Warden;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// A command that ran.
#[derive(Debug)]
pub struct Finished {
    /// Its id, UUIDv7.
    pub exec_id: Uuid,
    /// How it ended.
    pub verdict: Verdict,
    /// Wall clock.
    pub duration: Duration,
    /// When all of its output was there.
    pub drained: Instant,
    /// The same for clients, at least 1.
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
    draining: watch::Sender<bool>,
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
            draining: watch::Sender::new(false),
            cancel: watch::Sender::new(false),
            tasks: watch::Sender::new(0),
        }
    }

    /// Who may run now.
    pub fn admission(&self) -> &Admission {
        &self.admission
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
        let streamed = exec.live && !exec.detach;
        let listed = self
            .live
            .list(exec_id, runtime.tenant, io.progress(), streamed);
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
        let recording = Recording::begin(&self.records, row, key, streamed, listed);
        let job = Job {
            exec_id,
            warden: self.warden.clone(),
            permit,
            stop: Stop {
                runtime: runtime.clone(),
                abandoned,
                cancelled: recording.stopped(),
                draining: self.draining.subscribe(),
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
            ending: Ending::Awaited(task),
            records: self.records.clone(),
        }
    }

    /// Makes [`Executor::idle`] wait until it is dropped.
    pub fn busy(&self) -> Busy {
        Busy::new(&self.tasks)
    }

    /// Admits nobody any more. What runs goes on; what is paused can't any more, and ends as cancelled.
    pub fn close(&self) {
        self.admission.close();
        self.draining.send_replace(true);
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
    ending: Ending,
    records: Records,
}

type End = Result<Finished, ExecError>;

/// What a task ends with. It is waited for in one place, [`Ending::known`], and kept until somebody takes it: asking too
/// often gives an error and can't be a panic, which would end the whole service.
#[derive(Debug)]
enum Ending {
    Awaited(JoinHandle<End>),
    Known(Box<End>),
    Taken,
}

impl Ending {
    /// Waits until the end is known. A cancelled wait may be repeated, and so may a finished one.
    async fn known(&mut self) {
        if let Self::Awaited(task) = self {
            // A task that panicked says nothing; its record says `unknown`.
            *self = task
                .await
                .map_or(Self::Taken, |end| Self::Known(end.into()));
        }
    }
}

impl Execution {
    /// Waits until the command runs, or has ended, and does nothing else: a cancelled wait may be repeated.
    pub async fn begun(&mut self) {
        if let Some(started) = &mut self.started {
            let control = started.await;
            self.started = None;
            self.control = control.ok();
        }
        if self.control.is_none() {
            self.ended().await;
        }
    }

    /// Waits until the command has ended, and does nothing else: a cancelled wait may be repeated.
    pub async fn ended(&mut self) {
        self.ending.known().await;
    }

    /// Waits until the command runs, or has ended.
    ///
    /// # Errors
    /// As [`Execution::refused`].
    pub async fn started(&mut self) -> Result<(), ExecError> {
        self.begun().await;
        match self.control {
            Some(_) => Ok(()),
            // Killed before it ran, which is an end like others, or refused.
            None => self.refused().await,
        }
    }

    /// Waits for the end; fails where there is none to tell, because the command could not be run. Not to be cancelled: what
    /// it forgets the client must be told. Where the wait has a bound, [`Execution::ended`] comes first.
    ///
    /// # Errors
    /// Why it was not run. The client is to be told, and so nothing is remembered of it: no key stands for it, and there is
    /// no record where the error names none.
    pub async fn refused(&mut self) -> Result<(), ExecError> {
        self.ended().await;
        let Ending::Known(end) = &self.ending else {
            return Ok(());
        };
        let Err(error) = &**end else {
            return Ok(());
        };
        if error.ran_nothing() {
            self.records.release_key(self.exec_id);
            if !error.names_record() {
                self.records.forget(self.exec_id);
            }
            // Whoever asks next must not find it.
            if let Err(error) = self.records.flush().await {
                let error = crate::log::chain(&error);
                tracing::error!(exec_id = %self.exec_id, error, "forgetting an exec that was refused");
            }
        }
        self.finished().await.map(drop)
    }

    /// What can be done to the command; none before it was [`started`](Self::started).
    pub fn control(&self) -> Option<&Control> {
        self.control.as_ref()
    }

    /// Waits for the end and takes it. A cancelled wait may be repeated.
    pub async fn finished(&mut self) -> Result<Finished, ExecError> {
        let exec_id = self.exec_id;
        self.ending.known().await;
        match std::mem::replace(&mut self.ending, Ending::Taken) {
            Ending::Known(end) => *end,
            _ => Err(ExecError::Interrupted { exec_id }),
        }
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
