//! The description of the API, OpenAPI 3.1: what `/openapi.json`, `cellblock openapi` and the checked-in `openapi.json`
//! are. Request bodies are read by hand (`fields`) and answers are written piece by piece, so the types here exist for their
//! schemas only; whether they tell the truth is what `tests/schemathesis` asks the real server.
//!
//! ```text
//! paths        one declaration per operation, by tag      schemas      shapes of bodies and answers
//! errors       the error answers, by status               conventions  what holds for all operations
//! ```

#![allow(dead_code)] // declarations: nothing calls the functions or reads the fields

mod conventions;
mod errors;
mod paths;
mod schemas;

use conventions::Conventions;
use paths::{checkpoints, execs, files, images, runtimes, service, unsupported};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cellblock",
        description = include_str!("description.md"),
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "runtimes", description = "Root file systems with a sandbox profile, limits and a state."),
        (name = "execs", description = "Commands and what is remembered of them."),
        (name = "files", description = "Files of a runtime, one at a time."),
        (name = "checkpoints", description = "Copies of a runtime's disk to start other runtimes from."),
        (name = "images", description = "Root file systems that runtimes are made of."),
        (name = "service", description = "The server itself. Only `/metrics` needs a token."),
        (name = "not supported", description = "Operations that answer 501 `unimplemented`."),
    ),
    paths(
        runtimes::create_runtime, runtimes::list_runtimes, runtimes::get_runtime, runtimes::patch_runtime,
        runtimes::delete_runtime, runtimes::start_runtime, runtimes::stop_runtime, runtimes::pause_runtime,
        runtimes::resume_runtime,
        execs::exec_runtime, execs::exec_stream, execs::list_execs, execs::get_exec, execs::cancel_exec,
        execs::get_exec_output,
        files::read_file, files::head_file, files::write_file,
        checkpoints::create_checkpoint, checkpoints::list_checkpoints, checkpoints::get_checkpoint,
        checkpoints::delete_checkpoint,
        images::list_images,
        service::healthz, service::healthz_head, service::readyz, service::metrics, service::openapi_json,
        service::docs, service::docs_file,
    ),
    components(schemas(errors::ErrorEnvelope)),
    modifiers(&Unsupported, &Conventions),
)]
struct Description;

struct Unsupported;

impl Modify for Unsupported {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        unsupported::add(&mut description.paths);
    }
}

/// The description.
fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// The description as JSON, as it is checked in.
pub fn json() -> String {
    // It holds nothing that JSON can't.
    let mut text = description().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
