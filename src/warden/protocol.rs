//! The messages between the api process and the warden: one JSON object per SOCK_SEQPACKET packet, at most
//! [`MAX_MESSAGE`] bytes, file descriptors beside it by SCM_RIGHTS. The warden re-validates every field: whoever took
//! over the api process gains no more than the right to run cells.

use crate::resources::{CellResources, RuntimeResources, Usage};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The largest message in bytes, in both directions.
pub const MAX_MESSAGE: usize = 4096;

/// Most ids in one [`Reply::Runtimes`], so that the packet stays under [`MAX_MESSAGE`].
pub const MAX_IDS: usize = 64;

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
    },
    /// Kill a runtime's cells and remove its disk.
    DeleteRuntime {
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
    /// Ids of runtimes on disk, in order, after `after`.
    ListRuntimes {
        /// See [`Request`].
        seq: u64,
        /// The last id of the page before.
        after: Option<Uuid>,
    },
    /// Names of the images that a runtime may use.
    ListImages {
        /// See [`Request`].
        seq: u64,
    },
    /// Open a cell and run a command in it. One fd: a sealed memfd with the encoded [`crate::cell::command::Command`].
    Exec {
        /// See [`Request`]; names the exec in all later messages.
        seq: u64,
        /// The runtime to run in.
        runtime: Uuid,
        /// Limits of the runtime's group (set again with each exec, so that a changed limit holds at once).
        runtime_resources: RuntimeResources,
        /// Limits of this cell.
        cell_resources: CellResources,
        /// Host name inside.
        hostname: String,
        /// Whether the command's stdin is a pipe that the api writes; else it reads EOF at once.
        stdin: bool,
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
    /// Create, delete or stop is done.
    Done {
        /// See [`Request`].
        seq: u64,
    },
    /// The request did not happen; nothing of it is left behind.
    Failed {
        /// See [`Request`].
        seq: u64,
        /// Why.
        failure: Failure,
    },
    /// One page of runtimes on disk, at most [`MAX_IDS`]; an empty one is the end.
    Runtimes {
        /// See [`Request`].
        seq: u64,
        /// In order.
        ids: Vec<Uuid>,
    },
    /// The images, at most as many as fit the message.
    Images {
        /// See [`Request`].
        seq: u64,
        /// In order.
        names: Vec<String>,
    },
    /// An exec's command is let go: its cell is built, its time runs. Fds: stdout read end, stderr read end and, where asked for, stdin write end.
    Started {
        /// The exec's `seq`.
        seq: u64,
    },
    /// An exec's last process is gone, after [`Reply::Started`].
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
    },
}

/// How a cell's main process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellEnd {
    /// It exited with this code (127 and 126 also stand for a command that could not be found or executed).
    Exited(u8),
    /// A signal of this number ended it.
    Signaled(u8),
    /// Its end was not seen: the cell was killed as a whole.
    Killed,
    /// It never ran: the working directory could not be entered.
    CwdRefused(String),
    /// It never ran: the kernel found argv and env too large together (E2BIG).
    ArgumentsTooLong,
    /// It never ran: the cell could not be built. The chain is in the warden's log under the exec's `seq`.
    SetupFailed,
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
    /// The host has no room: disk, uid ranges, processes. Says of what.
    NoRoom(String),
    /// Anything else; the chain is in the warden's log.
    Internal,
}
