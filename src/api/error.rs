//! Errors on the wire: the only place that knows which failure has which status and code, and what of it a client may
//! see. Causes go to the log under the request id.

mod files;
#[cfg(test)]
mod tests;

use crate::exec::{AdmissionError, ExecError, OutputError};
use crate::log::chain;
use crate::metrics::METRICS;
use crate::runtime::{Invalid, RuntimeError};
use crate::store::StoreError;
use crate::warden::client::WardenError;
use crate::warden::protocol::{Busy, Failure};
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// The codes that clients know; finer detail goes into `details`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each code is documented by the API
pub enum Code {
    Unauthenticated,
    PermissionDenied,
    NotFound,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    RateLimited,
    Internal,
    Unimplemented,
    Unavailable,
    DeadlineExceeded,
}

impl Code {
    /// Whether it stands for so many things that a program needs to be told which: what it waits for, or what to change.
    fn asks_for_reason(self) -> bool {
        matches!(
            self,
            Self::AlreadyExists | Self::FailedPrecondition | Self::RateLimited | Self::Unavailable
        )
    }

    fn parts(self) -> (&'static str, StatusCode) {
        match self {
            Self::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED),
            Self::PermissionDenied => ("permission_denied", StatusCode::FORBIDDEN),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND),
            Self::AlreadyExists => ("already_exists", StatusCode::CONFLICT),
            Self::FailedPrecondition => ("failed_precondition", StatusCode::CONFLICT),
            Self::InvalidArgument => ("invalid_argument", StatusCode::UNPROCESSABLE_ENTITY),
            Self::RateLimited => ("rate_limited", StatusCode::TOO_MANY_REQUESTS),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
            Self::Unimplemented => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
            Self::DeadlineExceeded => ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
        }
    }
}

/// An error for a client. It becomes a body only in [`ApiError::render`], where the request id is known.
#[derive(Debug, Clone)]
pub struct ApiError {
    code: Code,
    status: StatusCode,
    message: String,
    details: Map<String, Value>,
    retry_after_secs: Option<u64>,
    cause: Option<String>,
}

impl ApiError {
    /// An error with its code's usual status; one of [`ApiError::with_reason`] where its code asks for a reason.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        debug_assert!(!code.asks_for_reason(), "{code:?} without a reason");
        Self::of(code, message)
    }

    /// An error that says in one word what happened, so that programs can tell it from others of its code.
    pub fn with_reason(code: Code, reason: &str, message: impl Into<String>) -> Self {
        Self::of(code, message).detail("reason", reason)
    }

    fn of(code: Code, message: impl Into<String>) -> Self {
        let retry_after_secs = matches!(code, Code::RateLimited | Code::Unavailable).then_some(1);
        Self {
            code,
            status: code.parts().1,
            message: message.into(),
            details: Map::new(),
            retry_after_secs,
            cause: None,
        }
    }

    /// An [`Code::InvalidArgument`] with another status.
    pub fn invalid(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            ..Self::new(Code::InvalidArgument, message)
        }
    }

    /// Something that this service does not have.
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, message)
    }

    /// Our own failure; the client learns nothing but the request id.
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        let message =
            "the server failed to carry this out; the log has details under the request id";
        Self::new(Code::Internal, message).because(cause)
    }

    /// Adds a detail.
    pub fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.into(), value.into());
        self
    }

    fn because(mut self, cause: &(dyn std::error::Error + 'static)) -> Self {
        self.cause = Some(chain(cause));
        self
    }

    fn retry_after(mut self, secs: u64) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }

    /// Whether the same request may succeed a little later.
    pub fn is_temporary(&self) -> bool {
        self.retry_after_secs.is_some()
    }

    /// Whether it is our own fault.
    pub fn is_internal(&self) -> bool {
        self.code == Code::Internal
    }

    /// What a client sees of it. What is our own fault gets a log line.
    pub fn view(&self) -> Value {
        if self.is_temporary() {
            let reason = self.details.get("reason").and_then(Value::as_str);
            METRICS.refused(self.status.as_u16(), reason.unwrap_or("other"));
        }
        if self.status.is_server_error() && self.code != Code::Unimplemented {
            let cause = self.cause.as_deref().unwrap_or_default();
            tracing::warn!(
                status = self.status.as_u16(),
                message = self.message,
                cause,
                "request failed"
            );
        }
        let mut error = json!({ "code": self.code.parts().0, "message": self.message });
        if !self.details.is_empty() {
            error["details"] = Value::Object(self.details.clone());
        }
        error
    }

    /// The body, with the request id beside the error.
    pub fn into_body(self, request_id: &str) -> String {
        json!({ "error": self.view(), "request_id": request_id }).to_string()
    }

    /// Makes `response` this error's.
    pub fn render(self, request_id: &str, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.remove(header::CONTENT_LENGTH);
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, secs.into());
        }
        if self.code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        *response.body_mut() = Body::from(self.into_body(request_id));
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        let error =
            Self::new(Code::InvalidArgument, invalid.to_string()).detail("field", invalid.field);
        if invalid.allowed.is_empty() {
            error
        } else {
            error.detail("allowed", invalid.allowed)
        }
    }
}

impl From<RuntimeError> for ApiError {
    fn from(error: RuntimeError) -> Self {
        let text = error.to_string();
        match error {
            RuntimeError::NotFound(_) => Self::new(Code::NotFound, text),
            RuntimeError::Exists(_) => {
                Self::with_reason(Code::AlreadyExists, "name_taken", text).detail("field", "name")
            }
            RuntimeError::NotRunning { status, .. } => {
                conflict("not_running", text).detail("status", status)
            }
            RuntimeError::Impossible { status, .. } => {
                conflict("wrong_status", text).detail("status", status)
            }
            RuntimeError::NotReady { state, .. } => {
                conflict("not_ready", text).detail("state", state)
            }
            RuntimeError::NothingToKeep { filesystem, .. } => {
                conflict("not_persistent", text).detail("filesystem", filesystem)
            }
            RuntimeError::StillCreating(_) => conflict("creating", text),
            RuntimeError::ProfileGone => conflict("profile_gone", text),
            RuntimeError::CheckpointNotFound(_) => Self::new(Code::NotFound, text),
            RuntimeError::Busy(_) | RuntimeError::CheckpointBusy(_) => unavailable("busy", text),
            RuntimeError::Invalid(invalid) => invalid.into(),
            RuntimeError::NoRoom(_) => unavailable("no_room", text).retry_after(30),
            RuntimeError::Store(source) => source.into(),
            RuntimeError::Warden { ref source, .. } => refused(source).because(&error),
            RuntimeError::Corrupt { .. } | RuntimeError::Random(_) | RuntimeError::Interrupted => {
                Self::internal(&error)
            }
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.is_full() {
            unavailable("no_room", "the server's disk is full")
                .because(&error)
                .retry_after(30)
        } else if error.is_unwritable() {
            let message = "the server's state can't be written or read now; its log says why";
            unavailable("state_unwritable", message)
                .because(&error)
                .retry_after(30)
        } else {
            Self::internal(&error)
        }
    }
}

impl From<ExecError> for ApiError {
    fn from(error: ExecError) -> Self {
        match error {
            ExecError::Admission(refusal) => refusal.into(),
            ExecError::Invalid(invalid) => invalid.into(),
            ExecError::Runtime(error) => error.into(),
            ExecError::Record(source) => source.into(),
            ExecError::Start(ref source) => refused(source).because(&error),
            ExecError::Lost { exec_id } => unavailable("launcher_restarted", error.to_string())
                .detail("exec_id", exec_id.to_string()),
            ExecError::Unseen { exec_id } => unavailable("killed_by_host", error.to_string())
                .detail("exec_id", exec_id.to_string()),
            ExecError::Late { exec_id } => Self::new(Code::DeadlineExceeded, error.to_string())
                .detail("exec_id", exec_id.to_string()),
            ExecError::NotKilled { exec_id } => {
                unavailable("not_killed", error.to_string()).detail("exec_id", exec_id.to_string())
            }
            ExecError::NoRoom { exec_id } => unavailable("no_room", error.to_string())
                .retry_after(1)
                .detail("exec_id", exec_id.to_string()),
            ExecError::Setup { exec_id } | ExecError::Interrupted { exec_id } => {
                Self::internal(&error).detail("exec_id", exec_id.to_string())
            }
        }
    }
}

impl From<OutputError> for ApiError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Store(error) => error.into(),
            OutputError::File(_) => Self::internal(&error),
        }
    }
}

impl From<AdmissionError> for ApiError {
    fn from(refusal: AdmissionError) -> Self {
        let text = refusal.to_string();
        match refusal {
            AdmissionError::RuntimeBusy => {
                Self::with_reason(Code::RateLimited, "runtime_busy", text)
            }
            AdmissionError::ServerBusy => unavailable("server_busy", text),
            AdmissionError::Closed => unavailable("shutting_down", text).retry_after(5),
            AdmissionError::NeverFits { .. } => {
                Self::new(Code::InvalidArgument, text).detail("field", "max_output_bytes")
            }
        }
    }
}

fn conflict(reason: &str, message: impl Into<String>) -> ApiError {
    ApiError::with_reason(Code::FailedPrecondition, reason, message)
}

fn unavailable(reason: &str, message: impl Into<String>) -> ApiError {
    ApiError::with_reason(Code::Unavailable, reason, message)
}

/// What a client learns of the warden's refusal.
fn refused(error: &WardenError) -> ApiError {
    let failure = match error {
        WardenError::Refused(failure) => failure,
        WardenError::Lost => {
            let message = "the launcher was restarted before it answered; the outcome is unknown";
            return unavailable("launcher_restarted", message);
        }
        WardenError::Io { .. } => {
            return unavailable("launcher_unreachable", "the launcher can't be reached");
        }
    };
    match failure {
        Failure::UnknownRuntime => ApiError::new(Code::NotFound, "the runtime was not found"),
        Failure::UnknownImage => {
            conflict("image_gone", "the runtime's image does not exist any more")
        }
        Failure::UnknownProfile => RuntimeError::ProfileGone.into(),
        Failure::BadImage(why) => conflict(
            "image_unusable",
            format!("the runtime's image can't be used: {why}"),
        ),
        Failure::UnknownCheckpoint => ApiError::new(Code::NotFound, "the checkpoint was not found"),
        Failure::Paused => conflict("not_running", "the runtime is not running (status: paused)")
            .detail("status", "paused"),
        Failure::Busy(Busy::Memory) => {
            let message = "more memory is in use than is to be allowed";
            conflict("memory_in_use", message).detail("field", "resources.limits.memory_mib")
        }
        Failure::Busy(Busy::Operation) => {
            let message = "another operation on the runtime is still under way; try again later";
            unavailable("busy", message)
        }
        Failure::Busy(Busy::Processes) => {
            let message = "the runtime's processes could not be stopped in time; they go on";
            unavailable("busy", message)
        }
        Failure::Invalid(field) => Invalid::new(field.as_str(), "is out of its range").into(),
        Failure::NoRoom(what) => {
            unavailable("no_room", format!("the server has no room left: {what}")).retry_after(10)
        }
        Failure::Killed => {
            let message = "a process of the service was killed by the host before it had done this; send it again";
            unavailable("killed_by_host", message)
        }
        Failure::Internal => ApiError::internal(error),
    }
}
