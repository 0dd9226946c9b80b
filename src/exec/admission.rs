//! Who may run now: bounds on commands and on the memory that their input and output may take, in each runtime and in
//! all. A request waits for a bounded time in a bounded queue, first for its runtime's bounds and then for the server's,
//! so that one busy runtime fills its own queue and not the server's. This is the one place that admits.
//!
//! A paused command would hold its place in the server for as long as its owner likes, so it is *parked*: it gives that
//! place to others, and its time stands still. So many can be parked and no more ([`ExecBounds::max_parked`]), since each
//! costs the server its descriptors; one beyond that keeps its place, and its time runs on. When it is resumed a parked
//! command goes on at once, and is the next to get a place.

use crate::config::ExecBounds;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use uuid::Uuid;

/// Memory is set aside in units of this many bytes.
const UNIT: u64 = 4096;

/// Why a command may not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// The runtime's bounds are reached.
    #[error("the runtime runs as many commands as it may, and as many wait as may")]
    RuntimeBusy,
    /// The server's bounds are reached.
    #[error("the server runs as many commands as it may, and as many wait as may")]
    ServerBusy,
    /// The service is shutting down.
    #[error("the service is shutting down")]
    Closed,
    /// It can never run: input and output together are more than one runtime may hold.
    #[error(
        "stdin and twice the output cap are {asked} bytes together, but {most} is the most that one runtime may hold"
    )]
    NeverFits {
        /// Bytes asked for.
        asked: u64,
        /// Bytes that one runtime may hold.
        most: u64,
    },
}

/// One level of bounds: a runtime's, or the server's.
#[derive(Debug)]
struct Gate {
    slots: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    waiting: AtomicU32,
    max_waiting: u32,
}

impl Gate {
    fn new(slots: u32, bytes: u64, max_waiting: u32) -> Arc<Self> {
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(slots as usize)),
            memory: Arc::new(Semaphore::new(units(bytes) as usize)),
            waiting: AtomicU32::new(0),
            max_waiting,
        })
    }

    /// A slot and memory: at once where nobody waits, else in the queue where there is room.
    async fn pass(
        self: &Arc<Self>,
        memory: u32,
        busy: AdmissionError,
    ) -> Result<Passed, AdmissionError> {
        let slot = self.slots.clone().try_acquire_owned();
        let held = self.memory.clone().try_acquire_many_owned(memory);
        if let (Ok(slot), Ok(memory)) = (slot, held) {
            return Ok(Passed { slot, memory });
        }
        let _waiting = Waiting::enter(self).ok_or(busy)?;
        // Closing a semaphore is how shutdown ends the waits.
        let closed = |_| AdmissionError::Closed;
        let slot = self.slots.clone().acquire_owned().await.map_err(closed)?;
        let memory = self
            .memory
            .clone()
            .acquire_many_owned(memory)
            .await
            .map_err(closed)?;
        Ok(Passed { slot, memory })
    }
}

/// A place in a gate's queue.
struct Waiting<'a>(&'a Gate);

impl<'a> Waiting<'a> {
    fn enter(gate: &'a Gate) -> Option<Self> {
        let enter = |waiting| (waiting < gate.max_waiting).then_some(waiting + 1);
        gate.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter)
            .ok()
            .map(|_| Self(gate))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Passed {
    slot: OwnedSemaphorePermit,
    memory: OwnedSemaphorePermit,
}

/// The bounds of the server and of every runtime.
#[derive(Debug)]
pub struct Admission {
    bounds: ExecBounds,
    server: Arc<Gate>,
    parking: Arc<Semaphore>,
    // A runtime's gate is here while somebody runs or waits in it.
    runtimes: Mutex<HashMap<Uuid, Arc<Gate>>>,
}

impl Admission {
    /// Nothing runs yet.
    pub fn new(bounds: ExecBounds) -> Arc<Self> {
        let server = Gate::new(
            bounds.max_execs,
            bounds.max_buffered_bytes,
            bounds.max_queue,
        );
        let parking = Semaphore::new(bounds.max_parked() as usize);
        Arc::new(Self {
            bounds,
            server,
            parking: Arc::new(parking),
            runtimes: Mutex::default(),
        })
    }

    /// Waits for the right to run a command in `runtime` that may hold `bytes` of input and output in memory.
    pub async fn admit(
        self: &Arc<Self>,
        runtime: Uuid,
        bytes: u64,
    ) -> Result<Permit, AdmissionError> {
        let most = self.bounds.max_buffered_bytes_per_runtime;
        if bytes > most {
            return Err(AdmissionError::NeverFits { asked: bytes, most });
        }
        if self.server.slots.is_closed() {
            return Err(AdmissionError::Closed);
        }
        let memory = units(bytes);
        let visit = self.visit(runtime);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(self.bounds.queue_secs);
        let busy = AdmissionError::RuntimeBusy;
        let in_runtime = tokio::time::timeout_at(deadline, visit.gate.pass(memory, busy))
            .await
            .unwrap_or(Err(busy))?;
        let busy = AdmissionError::ServerBusy;
        let in_server = tokio::time::timeout_at(deadline, self.server.pass(memory, busy))
            .await
            .unwrap_or(Err(busy))?;
        Ok(Permit {
            _in_runtime: in_runtime.slot,
            in_server: Place::Running(in_server.slot),
            still: watch::Sender::new(false),
            memory: BufferReservation {
                _memory: (in_runtime.memory, in_server.memory),
                visit,
            },
        })
    }

    /// Admits nobody any more and ends all waits. What runs goes on.
    pub fn close(&self) {
        self.server.slots.close();
        self.server.memory.close();
        for gate in self.gates().values() {
            gate.slots.close();
            gate.memory.close();
        }
    }

    /// How many commands run, beside those that are parked.
    pub fn running(&self) -> usize {
        (self.bounds.max_execs as usize).saturating_sub(self.server.slots.available_permits())
    }

    /// How many commands wait, for their runtime's bounds or the server's.
    pub fn waiting(&self) -> u64 {
        let gates = self.gates();
        let all = gates.values().chain([&self.server]);
        all.map(|gate| u64::from(gate.waiting.load(Ordering::Relaxed)))
            .sum()
    }

    fn visit(self: &Arc<Self>, runtime: Uuid) -> Visit {
        let bounds = &self.bounds;
        let gate = self
            .gates()
            .entry(runtime)
            .or_insert_with(|| {
                Gate::new(
                    bounds.max_execs_per_runtime,
                    bounds.max_buffered_bytes_per_runtime,
                    bounds.max_queue_per_runtime,
                )
            })
            .clone();
        Visit {
            admission: self.clone(),
            runtime,
            gate,
        }
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Gate>>> {
        self.runtimes
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Keeps a runtime's gate in the map; the last one to leave takes it out.
#[derive(Debug)]
struct Visit {
    admission: Arc<Admission>,
    runtime: Uuid,
    gate: Arc<Gate>,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut gates = self.admission.gates();
        // Clones are made under the lock that is held here: the map's and ours mean that nobody else is inside.
        if Arc::strong_count(&self.gate) == 2 {
            gates.remove(&self.runtime);
        }
    }
}

/// The right to run one command.
#[derive(Debug)]
pub struct Permit {
    _in_runtime: OwnedSemaphorePermit,
    in_server: Place,
    still: watch::Sender<bool>,
    memory: BufferReservation,
}

/// What a command holds of the server.
#[derive(Debug)]
enum Place {
    Running(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit),
    Parked(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit),
}

impl Permit {
    /// Whether the command's time stands still, to be watched.
    pub fn still(&self) -> watch::Receiver<bool> {
        self.still.subscribe()
    }

    /// Does `work`, and meanwhile parks the command whenever `paused` is true.
    pub async fn during<T>(
        &mut self,
        paused: watch::Receiver<bool>,
        work: impl Future<Output = T>,
    ) -> T {
        tokio::select! {
            biased;
            done = work => done,
            never = self.park(paused) => match never {},
        }
    }

    async fn park(&mut self, mut paused: watch::Receiver<bool>) -> Infallible {
        let admission = self.memory.visit.admission.clone();
        loop {
            if !becomes(&mut paused, true).await {
                // Nobody is left who could pause it.
                return std::future::pending().await;
            }
            if let Place::Running(_) = self.in_server
                && let Ok(place) = admission.parking.clone().try_acquire_owned()
            {
                self.in_server = Place::Parked(place);
            }
            self.still
                .send_replace(matches!(self.in_server, Place::Parked(_)));
            becomes(&mut paused, false).await;
            self.still.send_replace(false);
            if let Place::Parked(_) = self.in_server {
                tokio::select! {
                    // It fails when the service shuts down.
                    Ok(place) = admission.server.slots.clone().acquire_owned() => {
                        self.in_server = Place::Running(place);
                    }
                    true = becomes(&mut paused, true) => {}
                    else => return std::future::pending().await,
                }
            }
        }
    }

    /// Gives the slot back and keeps the memory: the command has ended, its output is still on its way.
    pub fn ended(self) -> BufferReservation {
        self.memory
    }
}

/// Waits until a flag has a value; false when nobody can set it any more.
async fn becomes(flag: &mut watch::Receiver<bool>, value: bool) -> bool {
    flag.wait_for(|now| *now == value).await.is_ok()
}

/// Memory set aside for input and output; given back on drop.
#[derive(Debug)]
pub struct BufferReservation {
    _memory: (OwnedSemaphorePermit, OwnedSemaphorePermit),
    visit: Visit,
}

/// How many units hold so many bytes. Bounds come from the configuration, which keeps them far below 2^32 units.
fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
