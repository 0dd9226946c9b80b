//! Exec: one command, run in a cell; its output kept up to a cap, read along, or both; and what is remembered of it.
//!
//! The types mark how far a request has come; each step needs what the one before it gave:
//!
//! ```text
//! ExecRequest ──validate──▶ ValidExec ──admit──▶ Permit ──start──▶ Execution ──judge──▶ Finished
//!  types only     422       rules hold  429/503  slot and  503    in a task    outcome   wire
//!                                                memory           of its own
//! ```
//!
//! Called by `api`. Knows runtimes and the warden's client, but neither HTTP nor SQL.

mod admission;
mod ages;
mod control;
mod deadline;
mod drive;
mod error;
mod executor;
mod live;
mod outcome;
mod outputs;
mod pipes;
mod pump;
mod reader;
mod record;
mod recording;
mod records;
mod request;
mod retention;
mod sink;
mod spool;
mod stream;
mod text;

pub use admission::{Admission, AdmissionError, BufferReservation, Permit};
pub use control::Control;
pub(crate) use deadline::time_is_up;
pub(crate) use drive::{KILL_WAIT, Launch, START_WAIT, until_started};
pub use error::ExecError;
pub use executor::{Busy, Execution, Executor, Finished, Start};
pub use live::LiveExec;
pub use outcome::{Outcome, Verdict};
pub use outputs::{Outputs, Stream};
pub use pump::PIECE;
pub use reader::{LiveOutput, live_input};
pub use record::{OUTCOMES, RUNNING, Record, Report, UNKNOWN};
pub use records::{Kept, OutputError, Records};
pub use request::{ExecRequest, OutputEncoding, ValidExec};
pub use retention::KEY_LIFE;
pub use sink::{Captured, Input, Io, Sink};
pub use spool::{Progress, Spool};
pub use stream::{StreamRequest, ValidStream, terminal_size};
pub use text::{Lossy, cut};
