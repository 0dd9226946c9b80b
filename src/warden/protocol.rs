//! The messages between the api process and the warden: one JSON object per SOCK_SEQPACKET packet, at most
//! [`MAX_MESSAGE`] bytes, file descriptors beside it by SCM_RIGHTS. The warden re-validates every field: whoever took
//! over the api process gains no more than the right to run cells.

use crate::image::digest::Digest;
use crate::resources::{CellResources, RuntimeResources, Usage};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU16;
use uuid::Uuid;

/// The largest message in bytes, in both directions.
pub const MAX_MESSAGE: usize = 4096;

/// Most ids in one [`Reply::Ids`], so that the packet stays under [`MAX_MESSAGE`].
pub const MAX_IDS: usize = 64;

/// Most images in one [`Reply::Images`]: they come in a memfd, but each is a file to be read.
pub const MAX_IMAGES: usize = 16;

/// Which kind of file system a runtime's commands write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filesystem {
    /// One writable layer on disk, kept between execs.
    Persistent,
    /// Each exec starts from the image; what it writes vanishes with it.
    Ephemeral,
    /// Nothing but `/tmp` and `/dev/shm` can be written.
    ReadOnly,
}

impl Filesystem {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Persistent => "persistent",
            Self::Ephemeral => "ephemeral",
            Self::ReadOnly => "read_only",
        }
    }
}

/// What the warden keeps of a runtime: root's own record, never taken from the api process again after creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeSpec {
    /// The runtime's id; also its directory name.
    pub id: Uuid,
    /// A name of the image store.
    pub image: String,
    /// A name in sandbox-profiles.
    pub profile: String,
    /// Where writes go.
    pub filesystem: Filesystem,
    /// Size of the writable layer in MiB (persistent: on disk; ephemeral: the tmpfs of each cell).
    pub disk_mib: u64,
}

/// The size of a terminal in characters; zero is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Lines.
    pub rows: NonZeroU16,
    /// Characters in a line.
    pub cols: NonZeroU16,
}

/// A signal that a client may send to its command: a closed set, so that none can stop a cell's main process for good or
/// be taken for the kernel's own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // signal(7) documents each
pub enum CommandSignal {
    Hup,
    Int,
    Quit,
    Kill,
    Usr1,
    Usr2,
    Term,
}

impl CommandSignal {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Hup,
        Self::Int,
        Self::Quit,
        Self::Kill,
        Self::Usr1,
        Self::Usr2,
        Self::Term,
    ];

    /// The signal.
    pub fn signal(self) -> Signal {
        match self {
            Self::Hup => Signal::SIGHUP,
            Self::Int => Signal::SIGINT,
            Self::Quit => Signal::SIGQUIT,
            Self::Kill => Signal::SIGKILL,
            Self::Usr1 => Signal::SIGUSR1,
            Self::Usr2 => Signal::SIGUSR2,
            Self::Term => Signal::SIGTERM,
        }
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.signal() as u8
    }

    /// Its name without SIG.
    pub fn name(self) -> &'static str {
        self.signal().as_str().trim_start_matches("SIG")
    }
}

/// A cell to be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellRequest {
    /// See [`Request`]; names the exec in all later messages.
    pub seq: u64,
    /// The runtime to run in.
    pub runtime: Uuid,
    /// Limits of the runtime's group (set again with each exec, so that a changed limit holds at once).
    pub runtime_resources: RuntimeResources,
    /// Limits of this cell.
    pub cell_resources: CellResources,
    /// Host name inside.
    pub hostname: String,
    /// Whether the command's stdin is a pipe that the api writes; else it reads EOF at once.
    pub stdin: bool,
    /// A terminal of this size in the place of all three pipes; `stdin` is false then.
    pub terminal: Option<TerminalSize>,
}

/// From the api process to the warden. `seq` is chosen by the sender and comes back in the reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Make a runtime's disk and reserve its uid range.
    CreateRuntime {
        /// See [`Request`].
        seq: u64,
        /// What to make.
        spec: RuntimeSpec,
        /// The checkpoint that its disk is a copy of; none is an empty one.
        checkpoint: Option<Uuid>,
    },
    /// Kill a runtime's cells and remove its disk.
    DeleteRuntime {
        /// See [`Request`].
        seq: u64,
        /// Which one.
        id: Uuid,
    },
    /// Mount a runtime, which proves that commands can run in it.
    StartRuntime {
        /// See [`Request`].
        seq: u64,
        /// Which one.
        id: Uuid,
    },
    /// Kill a runtime's cells and let go of its mounts; the disk stays.
    StopRuntime {
        /// See [`Request`].
        seq: u64,
        /// Which one.
        id: Uuid,
    },
    /// Freeze a runtime's cells: done when the last process stands still. No cell is opened until it is resumed.
    PauseRuntime {
        /// See [`Request`].
        seq: u64,
        /// Which one.
        id: Uuid,
    },
    /// Let a paused runtime's cells go on.
    ResumeRuntime {
        /// See [`Request`].
        seq: u64,
        /// Which one.
        id: Uuid,
    },
    /// Change the limits of a runtime's group, and those of cells that had the whole runtime's before.
    SetResources {
        /// See [`Request`].
        seq: u64,
        /// Which one.
        id: Uuid,
        /// The new ones.
        resources: RuntimeResources,
    },
    /// Copy a runtime's disk. Its cells stand still meanwhile, and what is asked to run waits.
    CreateCheckpoint {
        /// See [`Request`].
        seq: u64,
        /// The checkpoint's id.
        id: Uuid,
        /// The runtime, a persistent one.
        runtime: Uuid,
    },
    /// Remove a checkpoint's disk.
    DeleteCheckpoint {
        /// See [`Request`].
        seq: u64,
        /// Which one.
        id: Uuid,
    },
    /// Ids of checkpoints on disk, in order, after `after`; answered with [`Reply::Ids`].
    ListCheckpoints {
        /// See [`Request`].
        seq: u64,
        /// The last id of the page before.
        after: Option<Uuid>,
    },
    /// Ids of runtimes on disk, in order, after `after`.
    ListRuntimes {
        /// See [`Request`].
        seq: u64,
        /// The last id of the page before.
        after: Option<Uuid>,
    },
    /// The images that a runtime may use, in the order of their names, after `after`.
    ListImages {
        /// See [`Request`].
        seq: u64,
        /// The last name of the page before.
        after: Option<String>,
    },
    /// Open a cell and run a command in it. One fd: a sealed memfd with the encoded [`crate::cell::command::Command`].
    Exec(CellRequest),
    /// Send a signal to the process group of an exec's main process, or to what is about to become it. Unknown or ended
    /// execs are ignored.
    Signal {
        /// The exec's `seq`.
        seq: u64,
        /// Which one.
        signal: CommandSignal,
    },
    /// Kill everything in the cell of an exec. Unknown or ended ones are ignored: the end may be on its way.
    Kill {
        /// The exec's `seq`.
        seq: u64,
    },
}

/// From the warden to the api process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// What was asked for is done.
    Done {
        /// See [`Request`].
        seq: u64,
    },
    /// A runtime is made. With an imported image, one fd: a sealed memfd with the
    /// [`ImageConfig`](crate::image::content::ImageConfig) that holds in it.
    Created {
        /// See [`Request`].
        seq: u64,
        /// The content that its image's name stood for; none where it is no imported one.
        image_id: Option<Digest>,
    },
    /// The request did not happen; nothing of it is left behind.
    Failed {
        /// See [`Request`].
        seq: u64,
        /// Why.
        failure: Failure,
    },
    /// A checkpoint is made.
    Checkpointed {
        /// See [`Request`].
        seq: u64,
        /// What it takes on the host's disk, in bytes, as long as it shares nothing with the runtime's.
        disk_bytes: u64,
    },
    /// One page of runtimes or checkpoints on disk, at most [`MAX_IDS`]; an empty one is the end.
    Ids {
        /// See [`Request`].
        seq: u64,
        /// In order.
        ids: Vec<Uuid>,
    },
    /// One page of images. One fd: a sealed memfd with a list of at most [`MAX_IMAGES`]
    /// [`Listed`](crate::image::listed::Listed).
    Images {
        /// See [`Request`].
        seq: u64,
        /// The name to go on after; none is the end.
        next: Option<String>,
    },
    /// An exec's command is let go: its cell is built, its time runs. Fds: stdout read end, stderr read end and, where
    /// asked for, stdin write end; or a terminal's master alone.
    Started {
        /// The exec's `seq`.
        seq: u64,
    },
    /// Nothing of an exec runs any more, after [`Reply::Started`]; the kernel may not have taken its cell apart yet.
    Ended {
        /// The exec's `seq`.
        seq: u64,
        /// How the main process ended.
        end: CellEnd,
        /// The first count of the kernel's OOM killer was seen.
        oom_killed: bool,
        /// The warden killed the cell because its CPU seconds were used up.
        cpu_exceeded: bool,
        /// What the cell used.
        usage: Usage,
        /// How long it took to begin.
        beginning: Beginning,
    },
}

/// Where an exec's time went before its command ran, in microseconds; nothing is what was done ahead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beginning {
    /// From the request until its cell had a first process.
    pub open: u64,
    /// From there until the cell was built and bound to its user namespace.
    pub bind: u64,
    /// From there until execve(2) was called, all that the command may not have given up.
    pub exec: u64,
}

/// How a cell's main process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellEnd {
    /// It exited with this code (127 and 126 also stand for a command that could not be found or executed).
    Exited(u8),
    /// A signal of this number ended it.
    Signaled(u8),
    /// Its end was not seen: the warden killed the cell as a whole.
    Killed,
    /// Its end was not seen, and the warden had no part in it: somebody on the host killed the cell's init, or that could
    /// not go on.
    Unseen,
    /// It never ran: the working directory could not be entered.
    CwdRefused(String),
    /// It never ran: the kernel found argv and env too large together (E2BIG).
    ArgumentsTooLong,
    /// It never ran: the cell could not be built. The chain is in the warden's log under the exec's `seq`.
    SetupFailed,
    /// It never ran: its first processes had no room, within the runtime's limits or the machine's.
    NoRoom,
}

/// The signal that can't be handled.
pub const SIGKILL: u8 = libc::SIGKILL as u8;

impl CellEnd {
    /// What it was, said by a cell that was killed or not. With cgroup version 1 the processes of a cell are killed one
    /// after the other, and one may still tell of the other's death, or of a step of the setup that this was the end of.
    pub fn seen(self, killed: bool) -> CellEnd {
        match self {
            CellEnd::Signaled(SIGKILL) | CellEnd::SetupFailed | CellEnd::NoRoom if killed => {
                CellEnd::Killed
            }
            said => said,
        }
    }
}

/// What keeps a request from being carried out for the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Busy {
    /// Another operation on the same runtime is under way.
    Operation,
    /// Its processes could not be brought to stand still in time; they go on.
    Processes,
    /// More memory is in use than is to be allowed.
    Memory,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "detail")]
pub enum Failure {
    /// No runtime of that id on disk.
    UnknownRuntime,
    /// No image of that name.
    UnknownImage,
    /// No profile of that name.
    UnknownProfile,
    /// The image can't be used as a rootfs, and why.
    BadImage(String),
    /// A field is out of its range; names the field.
    Invalid(String),
    /// No checkpoint of that id on disk.
    UnknownCheckpoint,
    /// The runtime is paused: no cell is opened.
    Paused,
    /// It can't be done now: [`Busy`] says why.
    Busy(Busy),
    /// The host has no room: disk, uid ranges, processes. Says of what.
    NoRoom(String),
    /// The process that was to do it was killed, and not by us; whoever asks again finds nothing half done.
    Killed,
    /// Anything else; the chain is in the warden's log.
    Internal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_cell_tells_of_its_death_is_that_it_was_killed() {
        let own = [CellEnd::Exited(0), CellEnd::Signaled(15)];
        let kills = [
            CellEnd::Signaled(SIGKILL),
            CellEnd::SetupFailed,
            CellEnd::NoRoom,
        ];
        for end in own.iter().chain(&kills) {
            assert_eq!(end.clone().seen(false), *end);
        }
        assert_eq!(own.clone().map(|end| end.seen(true)), own, "it came first");
        for end in kills {
            assert_eq!(end.seen(true), CellEnd::Killed);
        }
    }
}
