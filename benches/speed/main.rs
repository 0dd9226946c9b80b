//! `cargo bench`: what an exec costs over HTTP, everything fresh for each, against a server that spawns the same program without
//! any sandbox (`plain`), against the least that a cell costs (`floor`), and against `bwrap` and `runc` where they are installed. All take turns in one run: only what was
//! measured in turns can be compared. Prints the table, and writes it as JSON beside the build.
//!
//!     cargo bench                             # all rows but the long one, about five minutes
//!     cargo bench --bench speed -- --long     # 100,000 execs too
//!     cargo bench --bench speed -- --only p50 # rows whose name contains this
//!     cargo bench --bench speed -- --before target/old/cellblock # what another build of the server needs, in the same turns
//!
//! Needs root, as the server does. Reports and never fails for a number: what a machine does beside it is not ours.

mod contenders;
mod floor;
mod http;
mod measure;
mod plain;
mod report;
mod rows;
mod server;

use report::Report;
use std::path::PathBuf;

/// What was asked for.
pub struct Options {
    /// Rows whose name contains this.
    pub only: String,
    /// The row of 100,000 execs too.
    pub long: bool,
    /// A tenth of everything: whether it works at all.
    pub quick: bool,
    /// Another build of the server, which takes its turns too.
    pub before: Option<PathBuf>,
}

impl Options {
    fn wants(&self, row: &str) -> bool {
        row.contains(&self.only)
    }
}

fn main() {
    let mut options = Options {
        only: String::new(),
        long: false,
        quick: false,
        before: None,
    };
    let mut out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("speed.json");
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value behind it");
        match argument.as_str() {
            plain::ROLE => return plain::serve(),
            // What cargo passes to every bench.
            "--bench" => {}
            "--only" => options.only = value(),
            "--out" => out = value().into(),
            "--before" => options.before = Some(value().into()),
            "--long" => options.long = true,
            "--quick" => options.quick = true,
            other => {
                eprintln!(
                    "unknown argument {other}: --only NAME, --long, --quick, --out FILE, --before SERVER"
                );
                std::process::exit(2);
            }
        }
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("run this as root: the server needs it");
        std::process::exit(2);
    }
    let mut report = Report::new();
    rows::run(&options, &mut report);
    report.write(&out);
    println!("\nwritten to {}", out.display());
}
