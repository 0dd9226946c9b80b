//! Runtimes: the API's objects that commands run in, and checkpoints of them.
//!
//! ```text
//! create ─▶ creating ─▶ running ◀─start── shutdown, crashed
//!               │        │ ▲ └────stop──▶ shutdown      stop also from paused, suspended, crashed
//!             (gone)  pause resume
//!                        ▼ │
//!                       paused, suspended        delete from anywhere ─▶ deleting ─▶ (gone)
//!                                                error: disk lost, or deleting failed
//! ```
//!
//! [`Runtimes`] is the only one that moves a runtime from one status to another, and only for the holder of the runtime's
//! turn; `lifecycle` has the table. Whoever starts a command holds the status still by [`Runtime::starting`].
//!
//! `request` turns what a client asked for into valid [`Settings`], `catalogue` finds runtimes without SQL, `reconcile`
//! makes store and disk agree at start.

mod catalogue;
mod checkpoint;
mod checkpoints;
mod defaults;
mod env;
mod error;
mod lifecycle;
mod making;
mod memory;
mod model;
mod name;
mod page;
mod patch;
mod policy;
mod reconcile;
mod request;
mod service;
mod settings;
mod sizes;
mod status;

pub use checkpoint::{Checkpoint, CheckpointState};
pub use checkpoints::CheckpointRequest;
pub use defaults::{Identity, Profile, Profiles};
pub use env::{check_variables, merged};
pub use error::{Invalid, RuntimeError};
pub use lifecycle::Operation;
pub use model::{Runtime, Starting};
pub use page::{Key, Page, PageRequest, Scope};
pub use policy::{
    Agent, Egress, EgressMode, IdlePolicy, Ingress, IngressProtocol, TokenSaving, TokenSavingPatch,
};
pub use request::{ARCH, Base, CreateRequest, Valid};
pub use service::Runtimes;
pub use settings::Settings;
pub use sizes::{HostSizes, MIN_MEMORY_MIB};
pub use status::Status;

#[cfg(test)]
pub(crate) use defaults::tests::profiles as test_profiles;
#[cfg(test)]
pub(crate) use model::tests::runtime as test_runtime;
