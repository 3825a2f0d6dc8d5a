//! The write side of a log: bytes of a process in, bounded files out. Called by the keeper only.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{
    MAX_FILE_BYTES,
    cri::{self, MAX_PART, Stream},
    rotated,
};

/// Writes one log file and rotates it. A full disk or a vanished folder loses lines, never blocks the process.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    size: u64,
    max: u64,
    /// The unfinished line of each stream, at most [`MAX_PART`] long.
    partial: [Vec<u8>; 2],
    records: Vec<u8>,
}

impl Writer {
    /// Creates the file (and its folder).
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::create_bounded(path, MAX_FILE_BYTES)
    }

    fn create_bounded(path: &Path, max: u64) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.into(), file, size, max, partial: [Vec::new(), Vec::new()], records: Vec::new() })
    }

    /// Takes what a stream of the process wrote. Finished lines reach the file before this returns.
    pub fn write(&mut self, now: Timestamp, stream: Stream, mut bytes: &[u8]) -> io::Result<()> {
        let partial = &mut self.partial[stream as usize];
        let now = cri::time(now);
        while !bytes.is_empty() {
            let room = MAX_PART - partial.len();
            let line_end = bytes.iter().take(room + 1).position(|&b| b == b'\n');
            let (text, rest, full) = match line_end {
                Some(end) => (&bytes[..end], &bytes[end + 1..], true),
                None if bytes.len() > room => (&bytes[..room], &bytes[room..], false),
                None => {
                    partial.extend_from_slice(bytes);
                    break;
                }
            };
            partial.extend_from_slice(text);
            cri::write(&mut self.records, &now, stream, full, partial);
            partial.clear();
            bytes = rest;
        }
        self.flush()
    }

    /// Ends the log: a last line without end is written, the file becomes read-only, followers see the end.
    pub fn finish(mut self, now: Timestamp) -> io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let partial = std::mem::take(&mut self.partial[stream as usize]);
            if !partial.is_empty() {
                cri::write(&mut self.records, &cri::time(now), stream, true, &partial);
            }
        }
        self.flush()?;
        self.file.set_permissions(fs::Permissions::from_mode(0o444))
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        if self.size > 0 && self.size + self.records.len() as u64 > self.max {
            fs::rename(&self.path, rotated(&self.path))?;
            self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            self.size = 0;
        }
        let result = self.file.write_all(&self.records);
        self.size += self.records.len() as u64;
        self.records.clear();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap().replace("1970-01-01T00:00:00.000000000Z ", "")
    }

    #[test]
    fn streams_keep_their_own_unfinished_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c/0.log");
        let mut log = Writer::create(&path).unwrap();
        log.write(Timestamp::UNIX_EPOCH, Stream::Stdout, b"one\ntw").unwrap();
        log.write(Timestamp::UNIX_EPOCH, Stream::Stderr, b"err").unwrap();
        log.write(Timestamp::UNIX_EPOCH, Stream::Stdout, b"o\n\n").unwrap();
        assert_eq!(text(&path), "stdout F one\nstdout F two\nstdout F \n");
        log.finish(Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(text(&path), "stdout F one\nstdout F two\nstdout F \nstderr F err\n");
        assert!(fs::metadata(&path).unwrap().permissions().readonly());
    }

    #[test]
    fn long_lines_are_split_into_parts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = Writer::create(&path).unwrap();
        let long = vec![b'x'; MAX_PART + 1];
        log.write(Timestamp::UNIX_EPOCH, Stream::Stdout, &long).unwrap();
        log.write(Timestamp::UNIX_EPOCH, Stream::Stdout, b"\n").unwrap();
        log.write(Timestamp::UNIX_EPOCH, Stream::Stdout, &long[1..]).unwrap();
        log.write(Timestamp::UNIX_EPOCH, Stream::Stdout, b"\n").unwrap();
        let x = "x".repeat(MAX_PART);
        assert_eq!(text(&path), format!("stdout P {x}\nstdout F x\nstdout F {x}\n"));
    }

    #[test]
    fn a_chatty_process_fills_two_files_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = Writer::create_bounded(&path, 1000).unwrap();
        for n in 0..500 {
            log.write(Timestamp::UNIX_EPOCH, Stream::Stdout, format!("line {n}\n").as_bytes()).unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() <= 1000);
        assert!(fs::metadata(rotated(&path)).unwrap().len() <= 1000);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(text(&path).ends_with("line 499\n"));
    }
}
