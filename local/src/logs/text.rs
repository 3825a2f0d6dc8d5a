//! From the records of a file to the text that the user sees: times in or out, old lines left out, parts joined. Pure.

use super::cri;

/// A record is a part and its header; anything longer in a file is not ours and is dropped.
const MAX_RECORD: usize = cri::MAX_PART + 128;

/// Records in, the text that the user sees out. Pure.
#[derive(Default)]
pub(super) struct Text {
    /// Leave out lines before this, in the records' own form.
    since: Option<String>,
    /// Put the time before each line.
    timestamps: bool,
    /// A record that is not complete yet.
    carry: Vec<u8>,
    /// The last record was a part: the next one goes on with its line.
    in_line: bool,
    /// The line that goes on is older than `since`.
    skipping: bool,
}

impl Text {
    /// From the beginning of a log, or of a line in it.
    pub(super) fn new(since: Option<String>, timestamps: bool) -> Self {
        Self { since, timestamps, ..Self::default() }
    }

    /// Takes bytes of the file, cut anywhere; appends what they say to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&b| b == b'\n') {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            if self.carry.is_empty() {
                self.record(line, out);
            } else {
                let mut whole = std::mem::take(&mut self.carry);
                whole.extend_from_slice(line);
                self.record(&whole, out);
            }
            rest = after;
        }
        let room = MAX_RECORD.saturating_sub(self.carry.len());
        self.carry.extend_from_slice(&rest[..rest.len().min(room)]);
    }

    fn record(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(record) = cri::parse(line) else { return };
        if !self.in_line {
            self.skipping = self.since.as_deref().is_some_and(|since| record.time < since);
            if self.timestamps && !self.skipping {
                out.extend_from_slice(record.time.as_bytes());
                out.push(b' ');
            }
        }
        self.in_line = !record.full;
        if !self.skipping {
            out.extend_from_slice(record.text);
            if record.full {
                out.push(b'\n');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: Text, chunks: &[&[u8]]) -> String {
        let (mut text, mut out) = (text, Vec::new());
        for chunk in chunks {
            text.push(chunk, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn records_may_be_cut_anywhere() {
        let whole = b"t1 stdout P a\nt1 stdout F b\njunk\nt2 stderr F c d\n";
        for at in 0..whole.len() {
            let (head, tail) = whole.split_at(at);
            assert_eq!(text(Text::default(), &[head, tail]), "ab\nc d\n", "cut at {at}");
        }
    }

    #[test]
    fn times_stand_once_before_a_line_and_old_lines_go_with_all_their_parts() {
        let records: &[u8] = b"t1 stdout P a\nt3 stdout F b\nt2 stdout F c\n";
        let times = Text { timestamps: true, ..Text::default() };
        assert_eq!(text(times, &[records]), "t1 ab\nt2 c\n");
        let since = Text { since: Some("t2".into()), ..Text::default() };
        assert_eq!(text(since, &[records]), "c\n");
    }

    #[test]
    fn a_file_without_line_ends_fills_no_memory() {
        let mut text = Text::default();
        for _ in 0..100 {
            text.push(&[b'x'; 4096], &mut Vec::new());
        }
        assert!(text.carry.len() <= MAX_RECORD);
    }
}
