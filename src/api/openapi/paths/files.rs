//! Files of a runtime.

use crate::api::openapi::errors::{Fails, Work};
use crate::api::openapi::schemas::common::{RawBytes, RuntimeKey};
use utoipa::IntoParams;

/// Which file.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct FilePath {
    /// Absolute, or relative to the home of the runtime's commands.
    #[param(min_length = 1, max_length = 4095, pattern = "^[^\\u0000]*$")]
    path: String,
}

/// Read a file
///
/// Also while the runtime is shut down. An answer that ends before its `Content-Length` is not the whole file.
#[utoipa::path(
    get, path = "/v1/runtimes/{runtime}/files", tag = "files",
    params(RuntimeKey, FilePath),
    responses(
        (status = 200, description = "Its bytes.", body = RawBytes, content_type = "application/octet-stream"),
        Fails<403>, Fails<404>, Fails<409>, Fails<422>, Fails<429>, Fails<504>, Work,
    ),
)]
pub fn read_file() {}

/// Ask for a file's size
///
/// As GET, without the bytes: the size is the `Content-Length`.
#[utoipa::path(
    head, path = "/v1/runtimes/{runtime}/files", tag = "files",
    params(RuntimeKey, FilePath),
    responses(
        (status = 200, description = "It can be read.", content_type = "application/octet-stream"),
        Fails<403>, Fails<404>, Fails<409>, Fails<422>, Fails<429>, Fails<504>, Work,
    ),
)]
pub fn head_file() {}

/// Write a file
///
/// Directories that it lies in are made. The file is replaced in one step when all bytes have arrived and are on the disk.
/// Also while the runtime is shut down. `Content-Range`, `Content-Encoding`, `If-Match`, `If-None-Match` and
/// `If-Unmodified-Since` are refused. 409: the runtime is paused or keeps no files, its disk is full, or it was stopped
/// meanwhile. 404: also a path through a link to nothing, or through `..` of a directory that does not exist.
#[utoipa::path(
    put, path = "/v1/runtimes/{runtime}/files", tag = "files",
    params(RuntimeKey, FilePath),
    request_body(content = Option<RawBytes>, content_type = "application/octet-stream", description = "Its bytes."),
    responses(
        (status = 204, description = "It is stored."),
        Fails<400>, Fails<403>, Fails<404>, Fails<409>, Fails<413>, Fails<415>, Fails<422>, Fails<429>,
        Fails<504>, Work,
    ),
)]
pub fn write_file() {}
