//! `cellblock doctor`: the host's checks, a line each.

use crate::config::Config;
use crate::doctor::{self, Verdict};
use std::process::ExitCode;

/// Prints the report; fails when `serve` would refuse.
pub fn run(config: &Config) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for check in doctor::checks(config) {
        let (word, text) = match &check.verdict {
            Verdict::Ok(how) => ("ok", how.clone()),
            Verdict::Allowed(remedy) => ("allowed", format!("missing; {remedy}")),
            Verdict::Missing(remedy) => {
                code = ExitCode::FAILURE;
                ("missing", remedy.clone())
            }
        };
        crate::log::print(format!("{word:<8} {:<32} {text}", check.name));
    }
    code
}
