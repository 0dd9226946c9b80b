//! Proper requests, to be sent as they are or spoilt.

use cellblock::cell::command::Command as Line;
use cellblock::resources::{CellResources, MIB, RuntimeResources};
use cellblock::warden::protocol::{CellRequest, Filesystem, Reply, Request, RuntimeSpec};
use serde_json::Value;
use uuid::Uuid;

/// The number that a reply has.
pub fn number(reply: &Reply) -> u64 {
    let value = serde_json::to_value(reply).expect("plain data");
    value["seq"].as_u64().expect("a number")
}

/// A request to make a runtime, but for its number.
pub fn create(id: Uuid, filesystem: Filesystem) -> Value {
    let spec = RuntimeSpec {
        id,
        image: "host".to_owned(),
        profile: "default".to_owned(),
        filesystem,
        disk_mib: 16,
    };
    let request = Request::CreateRuntime {
        seq: 0,
        spec,
        checkpoint: None,
    };
    serde_json::to_value(request).expect("plain data")
}

/// A request to run something, but for its number.
pub fn exec(runtime: Uuid) -> Value {
    let request = Request::Exec(CellRequest {
        seq: 0,
        runtime,
        runtime_resources: RuntimeResources {
            memory_bytes: 256 * MIB,
            pids: 64,
            cpu_millis: 1000,
        },
        cell_resources: CellResources {
            memory_bytes: 128 * MIB,
            pids: 32,
            cpu_secs: None,
        },
        hostname: "cell".to_owned(),
        stdin: false,
        terminal: None,
    });
    serde_json::to_value(request).expect("plain data")
}

/// A shell line in a directory.
pub fn shell(cwd: &str, line: &str) -> Line {
    Line {
        cwd: cwd.to_owned(),
        instead: Vec::new(),
        command: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), line.to_owned()],
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        shell_fallback: false,
    }
}
