//! What an import tells while it goes on. Who shows it decides how: bars on a terminal, lines elsewhere, nothing in a test.

/// Hears of the steps of an import.
pub trait Progress {
    /// A step begins: `what` in a few words, and how many bytes it will take where that is known. It ends when the value is
    /// dropped; several may be under way at a time.
    fn begin(&self, what: &str, total: Option<u64>) -> Box<dyn Step + '_>;

    /// Something that the operator should know of, and that is no failure.
    fn note(&self, text: &str);
}

/// A step under way.
pub trait Step {
    /// It has come so many bytes far.
    fn at(&mut self, bytes: u64);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: Option<u64>) -> Box<dyn Step + '_> {
        Box::new(Silent)
    }

    fn note(&self, _: &str) {}
}

impl Step for Silent {
    fn at(&mut self, _: u64) {}
}
