//! The probe program of `examples/probe.rs`: found beside the server's binary and carried into a runtime by an exec.

use super::runtime::{Exec, Runtime};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Where the probe lies inside a runtime.
pub const INSIDE: &str = "/tmp/probe";

/// Where cargo put the probe on the host.
pub fn path() -> PathBuf {
    let bin = Path::new(env!("CARGO_BIN_EXE_cellblock"));
    let probe = bin
        .parent()
        .expect("a directory above the binary")
        .join("examples/probe");
    assert!(
        probe.exists(),
        "{} is missing: `cargo test` builds it, `cargo test --test NAME` does not (add --examples)",
        probe.display()
    );
    probe
}

/// A runtime that has the probe in it.
pub struct Probe {
    /// The runtime.
    pub runtime: Runtime,
}

impl Probe {
    /// Carries the probe into a runtime.
    pub fn in_runtime(runtime: Runtime) -> Probe {
        let bytes = std::fs::read(path()).expect("read the probe");
        let install = format!("cat > {INSIDE} && chmod 755 {INSIDE}");
        let body = json!({
            "command": "sh", "args": ["-c", install], "stdin_base64": base64(&bytes),
        });
        runtime.exec(&body).assert_code(0);
        Probe { runtime }
    }

    /// Runs one of its subcommands.
    pub fn run(&self, args: &[&str]) -> Exec {
        self.runtime.exec(&json!({"command": INSIDE, "args": args}))
    }

    /// Runs a subcommand that prints one errno number, and gives it (0: the call succeeded).
    pub fn errno(&self, args: &[&str]) -> i32 {
        let exec = self.run(args);
        let text = exec.stdout();
        text.trim()
            .parse()
            .unwrap_or_else(|_| panic!("probe {args:?} printed no errno: {exec:?}"))
    }
}

/// Standard base64 with padding. Written here so that the tests don't check a library against itself.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let block = chunk
            .iter()
            .fold(0u32, |sum, byte| sum << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            if digit <= chunk.len() {
                text.push(DIGITS[(block >> (18 - 6 * digit)) as usize & 63] as char);
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// Undoes [`base64`].
pub fn unbase64(text: &str) -> Vec<u8> {
    let value = |digit: u8| match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other} is no base64 digit"),
    };
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        assert_eq!(chunk.len(), 4, "base64 without its padding");
        let digits: Vec<u8> = chunk
            .iter()
            .copied()
            .filter(|digit| *digit != b'=')
            .collect();
        let block = digits
            .iter()
            .fold(0u32, |sum, digit| sum << 6 | u32::from(value(*digit)))
            << (6 * (4 - digits.len()));
        bytes.extend_from_slice(&block.to_be_bytes()[1..digits.len()]);
    }
    bytes
}
