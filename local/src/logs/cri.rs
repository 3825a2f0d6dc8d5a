//! The line format of CRI logs: `2026-01-02T03:04:05.123456789Z stdout F text`.
//!
//! `F` ends a line; `P` is a part of a line that goes on in the next record of the same stream (written when a line is
//! longer than [`MAX_PART`]).

use jiff::Timestamp;

/// Longest text of one record; longer lines are split, as container runtimes do.
pub const MAX_PART: usize = 16 * 1024;

/// Which of the process's outputs a record is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One record of a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// When, exactly as written.
    pub time: &'a str,
    /// Whether a line ends here.
    pub full: bool,
    /// The text, without a line end.
    pub text: &'a [u8],
}

/// A time as records have it. Text so that many lines can share the work; it also sorts as the times do.
pub fn time(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// Appends one record to `out`.
pub fn write(out: &mut Vec<u8>, time: &str, stream: Stream, full: bool, text: &[u8]) {
    for part in [time, " ", stream.name(), if full { " F " } else { " P " }] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// Reads one record (a line of the file without its end); `None` when it is none, as after a torn write.
pub fn parse(line: &[u8]) -> Option<Record<'_>> {
    let mut parts = line.splitn(4, |&b| b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let _stream = parts.next()?;
    let full = match parts.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Record { time, full, text: parts.next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_looks_as_runtimes_write_it() {
        let mut out = Vec::new();
        let at = time("2026-01-02T03:04:05.1Z".parse().unwrap());
        write(&mut out, &at, Stream::Stderr, true, b"a text");
        assert_eq!(out, b"2026-01-02T03:04:05.100000000Z stderr F a text\n");
    }

    #[test]
    fn junk_is_no_record() {
        for junk in [&b""[..], b"x", b"t stdout", b"t stdout Z text", b"t stdout F"] {
            assert_eq!(parse(junk), None, "{:?}", String::from_utf8_lossy(junk));
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(text in proptest::collection::vec(proptest::prelude::any::<u8>().prop_filter("line", |b| *b != b'\n'), 0..200), full: bool) {
            use proptest::prelude::*;
            let mut out = Vec::new();
            write(&mut out, &time(Timestamp::UNIX_EPOCH), Stream::Stdout, full, &text);
            let record = parse(out.strip_suffix(b"\n").unwrap()).unwrap();
            prop_assert_eq!(record.text, &text[..]);
            prop_assert_eq!(record.full, full);
        }
    }
    use proptest::strategy::Strategy as _;
}
