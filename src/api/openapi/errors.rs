//! The error answers. Each stands once in the description, and operations refer to it by its status.

use super::conventions::{header_ref, headers_of};
use std::collections::BTreeMap;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// Every error of the server.
#[derive(ToSchema)]
pub struct ErrorEnvelope {
    error: ErrorBody,
    /// The request's id, as in the `X-Request-Id` header; the server's log has details under it.
    #[schema(format = "uuid")]
    request_id: String,
}

/// What went wrong.
#[derive(ToSchema)]
struct ErrorBody {
    code: ErrorCode,
    /// One sentence for a person: what is wrong, and where it can be helped, how.
    message: String,
    /// More for programs, such as the `field` that is wrong, the `allowed` values, or a `reason`.
    #[schema(required = false)]
    details: Option<ErrorDetails>,
}

/// More for programs; which of these there are depends on the error, and there may be others.
#[derive(ToSchema)]
struct ErrorDetails {
    /// The field, parameter or header that can't be accepted.
    #[schema(required = false, nullable = false)]
    field: Option<String>,
    /// The values that it may have.
    #[schema(required = false, nullable = false)]
    allowed: Option<Vec<String>>,
    /// What exactly happened, in one word.
    #[schema(required = false, nullable = false)]
    reason: Option<String>,
    /// The exec that this is about.
    #[schema(required = false, nullable = false, format = "uuid")]
    exec_id: Option<String>,
}

/// The codes; finer detail is in `details`.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum ErrorCode {
    Unauthenticated,
    PermissionDenied,
    NotFound,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    CommandFailed,
    RateLimited,
    Internal,
    Unimplemented,
    Unavailable,
    DeadlineExceeded,
}

/// A status, its answer's name in the description, and what it means.
type Answer = (u16, &'static str, &'static str);

/// All of them.
const ANSWERS: [Answer; 13] = [
    (
        400,
        "BadRequest",
        "`invalid_argument`: the body is not JSON, or did not arrive in whole.",
    ),
    (
        401,
        "Unauthenticated",
        "`unauthenticated`: no token, or one that is not valid.",
    ),
    (
        403,
        "PermissionDenied",
        "`permission_denied`: the token, or the user inside the runtime, may not do this.",
    ),
    (
        404,
        "NotFound",
        "`not_found`: there is no such thing, or it is another tenant's.",
    ),
    (
        409,
        "Conflict",
        "`already_exists` or `failed_precondition`: not in this state.",
    ),
    (
        413,
        "TooLarge",
        "`invalid_argument`: the body is larger than the server takes.",
    ),
    (
        415,
        "WrongType",
        "`invalid_argument`: the body is of a type, or an encoding, that the server does not take.",
    ),
    (
        422,
        "Invalid",
        "`invalid_argument`: a field can't be accepted; `details.field` names it.",
    ),
    (
        429,
        "RateLimited",
        "`rate_limited`: too much at the same time.",
    ),
    (500, "Internal", "`internal`: the server's own failure."),
    (501, "Unimplemented", "`unimplemented`: not supported."),
    (
        503,
        "Unavailable",
        "`unavailable`: not now; the same request may succeed later.",
    ),
    (
        504,
        "DeadlineExceeded",
        "`deadline_exceeded`: the runtime did not answer.",
    ),
];

fn name(status: u16) -> &'static str {
    let found = ANSWERS.iter().find(|(other, ..)| *other == status);
    found.map_or("", |(_, name, _)| name)
}

/// The answers to refer to, by their names.
pub fn components() -> impl Iterator<Item = (String, Response)> {
    ANSWERS.into_iter().map(|(status, name, text)| {
        let schema = Ref::from_schema_name("ErrorEnvelope");
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let mut answer = ResponseBuilder::new()
            .description(text)
            .content("application/json", content)
            .build();
        let headers = headers_of(status).iter();
        answer
            .headers
            .extend(headers.map(|name| (name.to_string(), header_ref(name))));
        (name.to_owned(), answer)
    })
}

fn refer(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    let refer = |status: &u16| {
        let answer = Ref::from_response_name(name(*status));
        (status.to_string(), answer.into())
    };
    statuses.iter().map(refer).collect()
}

/// The error answer with this status.
pub struct Fails<const STATUS: u16>;

impl<const STATUS: u16> IntoResponses for Fails<STATUS> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        const { assert!(known(STATUS), "no such answer in ANSWERS") };
        refer(&[STATUS])
    }
}

const fn known(status: u16) -> bool {
    let mut index = 0;
    while index < ANSWERS.len() {
        if ANSWERS[index].0 == status {
            return true;
        }
        index += 1;
    }
    false
}

/// What any operation with a JSON body can answer.
pub struct JsonBody;

impl IntoResponses for JsonBody {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refer(&[400, 413, 415, 422, 503])
    }
}

/// What any operation can answer that has something done by the launcher or stored.
pub struct Work;

impl IntoResponses for Work {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refer(&[500, 503])
    }
}
