//! How an import shows what it does: bars on a terminal, a line per step elsewhere. On stderr, so that stdout has the result.

use crate::cli::image::show::size;
use crate::image::progress::{Progress, Step};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal;

/// Shows steps to a person, or to a log.
#[derive(Debug)]
pub struct Shown(Option<MultiProgress>);

impl Shown {
    /// As fits stderr.
    #[allow(
        clippy::new_without_default,
        reason = "it looks at the process's stderr"
    )]
    pub fn new() -> Shown {
        Shown(std::io::stderr().is_terminal().then(MultiProgress::new))
    }
}

impl Progress for Shown {
    fn begin(&self, what: &str, total: Option<u64>) -> Box<dyn Step + '_> {
        let Some(bars) = &self.0 else {
            crate::log::tell(match total {
                Some(total) => format!("{what} ({})", size(total)),
                None => what.to_owned(),
            });
            return Box::new(Line);
        };
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{msg:24!} {wide_bar} {binary_bytes:>11} of {binary_total_bytes:>10} {eta:>5}",
            ),
            None => (
                ProgressBar::no_length(),
                "{msg:24!} {spinner} {binary_bytes:>11}",
            ),
        };
        // On one line of 80 columns: a longer one is drawn on two.
        let style = ProgressStyle::with_template(template).expect("a valid template");
        let bar = bars.add(
            bar.with_style(style.progress_chars("=> "))
                .with_message(what.to_owned()),
        );
        Box::new(Bar(bar))
    }

    fn note(&self, text: &str) {
        match &self.0 {
            Some(bars) => bars.suspend(|| crate::log::tell(text)),
            None => crate::log::tell(text),
        }
    }
}

struct Line;

impl Step for Line {
    fn at(&mut self, _: u64) {}
}

struct Bar(ProgressBar);

impl Step for Bar {
    fn at(&mut self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
