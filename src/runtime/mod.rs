//! Runtimes: the API's objects that commands run in.
//!
//! ```text
//! create ─▶ creating ─▶ running ─▶ deleting ─▶ (gone)
//!               │           │
//!             (gone)      error        disk lost, or deleting failed
//! ```
//!
//! [`Runtimes`] is the only one that moves a runtime from one status to another: in the store first, then in memory.
//! `request` turns what a client asked for into valid [`Settings`], `catalogue` finds runtimes without SQL, `reconcile`
//! makes store and disk agree at start.

mod catalogue;
mod defaults;
mod env;
mod error;
mod model;
mod name;
mod page;
mod policy;
mod reconcile;
mod request;
mod service;
mod sizes;

pub use defaults::{Profile, Profiles};
pub use env::{check_variables, merged};
pub use error::{Invalid, RuntimeError};
pub use model::{Runtime, Settings, Status};
pub use page::{Page, PageRequest};
pub use policy::{Egress, EgressMode, IdlePolicy, TokenSaving};
pub use request::{ARCH, CreateRequest, ValidCreate};
pub use service::Runtimes;
pub use sizes::{HostSizes, MIN_MEMORY_MIB};

#[cfg(test)]
pub(crate) use defaults::tests::profiles as test_profiles;
