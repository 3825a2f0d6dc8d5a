//! What `dormouse up` shows while it runs: whole lines, and lines that grow as something happens.
//!
//! A growing line is written piece by piece, so it works on a terminal and in a file alike. When another line has to
//! come in between, the growing one is cut there and written again from its start when it goes on.

use std::{
    io::{self, Write},
    sync::Mutex,
};

/// Shared by everything that reports to the user.
pub struct Screen {
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    /// Key and text of the line that has no end yet.
    growing: Option<(String, String)>,
}

impl Screen {
    /// On standard output.
    pub fn stdout() -> Self {
        Self::new(Box::new(io::stdout()))
    }

    fn new(out: Box<dyn Write + Send>) -> Self {
        Self { state: Mutex::new(State { out, growing: None }) }
    }

    /// Writes one line.
    pub fn line(&self, text: &str) {
        self.with(|s| {
            s.break_line();
            s.write(&format!("{text}\n"));
        });
    }

    /// Shows `text` as the line of `key`, which goes on from what it showed before.
    pub fn grow(&self, key: &str, text: &str) {
        self.with(|s| match s.growing.take() {
            Some((old_key, old)) if old_key == key && text.starts_with(&old) => {
                s.write(&text[old.len()..]);
                s.growing = Some((old_key, text.to_owned()));
            }
            other => {
                s.growing = other;
                s.break_line();
                s.write(text);
                s.growing = Some((key.to_owned(), text.to_owned()));
            }
        });
    }

    /// Shows `text` as the line of `key` and ends it.
    pub fn finish(&self, key: &str, text: &str) {
        self.grow(key, text);
        self.with(State::break_line);
    }

    fn with(&self, f: impl FnOnce(&mut State)) {
        // A panic while writing to the terminal would have poisoned it; the next line is still worth showing.
        f(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl State {
    fn break_line(&mut self) {
        if self.growing.take().is_some() {
            self.write("\n");
        }
    }

    /// A closed terminal must not stop the system: what cannot be shown is dropped.
    fn write(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_grows_in_place_and_is_repeated_after_an_interruption() {
        let buffer = Buffer::default();
        let screen = Screen::new(Box::new(buffer.clone()));
        screen.grow("a", "a: 1");
        screen.grow("a", "a: 1 2");
        screen.line("news");
        screen.finish("a", "a: 1 2 3");
        screen.line("end");
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "a: 1 2\nnews\na: 1 2 3\nend\n");
    }
}
