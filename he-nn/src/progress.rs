//! How far a long piece of work is, told to whoever shows it.

/// Is told how far a piece of work is. A library tells, a command shows: nothing here
/// knows a terminal.
pub trait Progress {
    /// Work of so many steps begins.
    fn start(&mut self, steps: u64);
    /// So many steps more are done.
    fn advance(&mut self, steps: u64);
    /// What is being done, in a few words.
    fn note(&mut self, text: &str);
    /// All is done.
    fn finish(&mut self);
}

/// For whoever shows nothing.
impl Progress for () {
    fn start(&mut self, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn note(&mut self, _: &str) {}
    fn finish(&mut self) {}
}
