//! What is remembered of execs.

use utoipa::ToSchema;

/// An exec's record.
#[derive(ToSchema)]
pub struct ExecRecord {
    #[schema(format = "uuid")]
    exec_id: String,
    outcome: RecordOutcome,
}

/// How it ended, if it did.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum RecordOutcome {
    Running,
    Exited,
    Signaled,
    TimedOut,
    OomKilled,
    Cancelled,
    Failed,
    Unknown,
}
