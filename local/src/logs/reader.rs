//! The read side of a log, for `kubectl logs`: tail, since, timestamps, previous, follow.
//!
//! [`open`] finds the instance and where to start, and gives a stream of the text. With `follow` the stream waits for the
//! kernel's notification (inotify) between lines and ends when the container has ended.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;

use super::{cri, notify::Notify, pod_dir, rotated, text::Text};

const CHUNK: usize = 64 * 1024;

/// What to read; the fields are those of `PodLogOptions`.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only the last so many lines.
    pub tail_lines: Option<u64>,
    /// Only lines written at or after.
    pub since: Option<Timestamp>,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// The instance before the last restart.
    pub previous: bool,
    /// Go on with new lines until the container ends.
    pub follow: bool,
}

/// Why there is no log to read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container never ran on this node.
    #[error("container \"{0}\" has no log: it has not started")]
    NotStarted(String),
    /// `previous` was asked and there was only one instance.
    #[error("previous terminated container \"{0}\" not found")]
    NoPrevious(String),
    /// The file cannot be read.
    #[error("log of container \"{container}\": {source}")]
    Io {
        /// Which container.
        container: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Opens the log of a container. Errors come at once; what happens later is in the stream.
pub async fn open(
    data_dir: &Path,
    uid: &str,
    container: &str,
    query: Query,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, Error> {
    let failed = |source| Error::Io { container: container.to_owned(), source };
    let plain = |name: &str| !name.is_empty() && name != ".." && !name.contains('/');
    if !plain(uid) || !plain(container) {
        return Err(Error::NotStarted(container.to_owned()));
    }
    let instances = instances(&pod_dir(data_dir, uid).join(container)).map_err(failed)?;
    let mut newest_first = instances.into_iter().rev();
    let current = newest_first.next().ok_or_else(|| Error::NotStarted(container.to_owned()))?;
    let path = if query.previous {
        newest_first.next().ok_or_else(|| Error::NoPrevious(container.to_owned()))?
    } else {
        current
    };
    let tail = query.tail_lines;
    let started = tokio::task::spawn_blocking(move || Source::open(path, tail)).await;
    let source = started.map_err(io::Error::other).and_then(|opened| opened).map_err(failed)?;
    let notify = if query.follow { Some(Notify::new(&source.path).map_err(failed)?) } else { None };
    let text = Text::new(query.since.map(cri::time), query.timestamps);
    let state = State { source, notify, text, remaining: query.limit_bytes.unwrap_or(u64::MAX) };
    Ok(futures::stream::try_unfold(state, State::next))
}

/// The last lines of a log, for the message of a container that failed. Best effort: an unreadable log is empty.
pub fn tail(path: &Path, max_lines: usize, max_bytes: usize) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(CHUNK as u64)))?;
        let mut bytes = Vec::new();
        file.take(CHUNK as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let mut out = Vec::new();
    Text::default().push(&read().unwrap_or_default(), &mut out);
    let text = String::from_utf8_lossy(&out);
    let lines: Vec<&str> = text.lines().collect();
    let text = lines[lines.len().saturating_sub(max_lines)..].join("\n");
    let cut = (text.len().saturating_sub(max_bytes)..=text.len()).find(|&at| text.is_char_boundary(at));
    text[cut.unwrap_or(text.len())..].to_owned()
}

/// The log files of a container's instances, oldest first.
fn instances(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let restart = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|n| n.parse::<u32>().ok());
        found.extend(restart);
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|restart| dir.join(format!("{restart}.log"))).collect())
}

/// The bytes of one instance: the rotated file, the current one, and the ones that replace it while we read.
struct Source {
    path: PathBuf,
    files: VecDeque<File>,
}

impl Source {
    fn open(path: PathBuf, tail: Option<u64>) -> io::Result<Self> {
        let mut files = VecDeque::new();
        match File::open(rotated(&path)) {
            Ok(file) => files.push_back(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        files.push_back(File::open(&path)?);
        if let Some(lines) = tail {
            seek_to_tail(&mut files, lines)?;
        }
        Ok(Self { path, files })
    }

    /// Reads on; 0 bytes mean that there is no more for now.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Asked before the read: a file that was replaced by then gets no more lines.
            let last = self.files.len() > 1 || self.replaced()?;
            let Some(file) = self.files.front_mut() else { return Ok(0) };
            let n = file.read(buffer)?;
            if n > 0 || !last {
                return Ok(n);
            }
            self.files.pop_front();
            if self.files.is_empty() {
                self.files.push_back(File::open(&self.path)?);
            }
        }
    }

    /// Whether a rotation has put another file in the place of the one we read.
    fn replaced(&self) -> io::Result<bool> {
        let Some(file) = self.files.front() else { return Ok(false) };
        match fs::metadata(&self.path) {
            Ok(now) => Ok(now.ino() != file.metadata()?.ino()),
            // Between rename and create, or the pod's folder is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the writer has ended the log, or nobody can find it any more.
    fn ended(&self) -> bool {
        match fs::metadata(&self.path) {
            Ok(meta) => meta.permissions().readonly(),
            // In the middle of a rotation the file is missing, but not its folder.
            Err(_) => !self.path.parent().is_some_and(Path::exists),
        }
    }
}

/// Moves `files` so that the last `lines` lines are left to read.
fn seek_to_tail(files: &mut VecDeque<File>, lines: u64) -> io::Result<()> {
    let keep = usize::try_from(lines).unwrap_or(usize::MAX);
    let mut starts: VecDeque<(usize, u64)> = VecDeque::new();
    let mut at_line_start = true;
    let mut end = (0, 0);
    for (index, file) in files.iter().enumerate() {
        let mut reader = BufReader::with_capacity(CHUNK, file);
        let mut offset = 0;
        let mut record = Vec::new();
        loop {
            record.clear();
            let n = reader.read_until(b'\n', &mut record)? as u64;
            if n == 0 || record.last() != Some(&b'\n') {
                break;
            }
            if at_line_start {
                starts.push_back((index, offset));
                if starts.len() > keep {
                    starts.pop_front();
                }
            }
            at_line_start = cri::parse(&record[..record.len() - 1]).is_none_or(|record| record.full);
            offset += n;
        }
        end = (index, offset);
    }
    let (index, offset) = starts.front().copied().unwrap_or(end);
    for (i, file) in files.iter_mut().enumerate() {
        file.seek(SeekFrom::Start(if i == index { offset } else { 0 }))?;
    }
    files.drain(..index);
    Ok(())
}

struct State {
    source: Source,
    notify: Option<Notify>,
    text: Text,
    remaining: u64,
}

impl State {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        let mut buffer = vec![0; CHUNK];
        while self.remaining > 0 {
            // Asked before the read: what was written before the end is then surely read.
            let ended = self.source.ended();
            let n = self.source.read(&mut buffer)?;
            if n == 0 {
                match &self.notify {
                    Some(notify) if !ended => notify.changed().await?,
                    _ => return Ok(None),
                }
                continue;
            }
            let mut out = Vec::new();
            self.text.push(&buffer[..n], &mut out);
            out.truncate(usize::try_from(self.remaining).unwrap_or(usize::MAX));
            if !out.is_empty() {
                self.remaining -= out.len() as u64;
                return Ok(Some((Bytes::from(out), self)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Writer, *};
    use crate::logs::{cri::Stream as Out, file};
    use futures::{StreamExt as _, TryStreamExt as _};

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn log(dir: &Path, restart: u32, lines: std::ops::Range<i64>) -> Writer {
        let mut writer = Writer::create(&file(dir, "uid", "app", restart)).unwrap();
        for n in lines {
            writer.write(time(n), Out::Stdout, format!("line {n}\n").as_bytes()).unwrap();
        }
        writer
    }

    async fn read(dir: &Path, query: Query) -> String {
        let chunks: Vec<Bytes> = open(dir, "uid", "app", query).await.unwrap().try_collect().await.unwrap();
        String::from_utf8(chunks.concat()).unwrap()
    }

    #[tokio::test]
    async fn options_choose_lines() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path(), 0, 0..3).finish(time(3)).unwrap();
        let _open = log(dir.path(), 1, 3..6);
        let q = Query::default;
        for (query, wanted) in [
            (q(), "line 3\nline 4\nline 5\n"),
            (Query { tail_lines: Some(2), ..q() }, "line 4\nline 5\n"),
            (Query { tail_lines: Some(0), ..q() }, ""),
            (Query { tail_lines: Some(99), ..q() }, "line 3\nline 4\nline 5\n"),
            (Query { since: Some(time(5)), ..q() }, "line 5\n"),
            (Query { limit_bytes: Some(8), ..q() }, "line 3\nl"),
            (Query { previous: true, ..q() }, "line 0\nline 1\nline 2\n"),
            (Query { timestamps: true, tail_lines: Some(1), ..q() }, "1970-01-01T00:00:05.000000000Z line 5\n"),
        ] {
            assert_eq!(read(dir.path(), query.clone()).await, wanted, "{query:?}");
        }
    }

    #[tokio::test]
    async fn missing_logs_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = |container: &'static str, previous| {
            let path = dir.path().to_owned();
            async move { open(&path, "uid", container, Query { previous, ..Query::default() }).await.err().unwrap() }
        };
        assert!(matches!(error("app", false).await, Error::NotStarted(_)));
        assert!(matches!(error("../../etc", false).await, Error::NotStarted(_)));
        let _open = log(dir.path(), 0, 0..1);
        assert!(matches!(error("app", true).await, Error::NoPrevious(_)));
    }

    #[tokio::test]
    async fn follow_sees_new_lines_and_ends_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = log(dir.path(), 0, 0..1);
        let query = Query { follow: true, ..Query::default() };
        let mut stream = Box::pin(open(dir.path(), "uid", "app", query).await.unwrap());
        assert_eq!(stream.next().await.unwrap().unwrap(), "line 0\n");
        writer.write(time(1), Out::Stderr, b"line 1\n").unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "line 1\n");
        writer.write(time(1), Out::Stderr, b"rest").unwrap();
        writer.finish(time(2)).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "rest\n");
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn follow_goes_on_over_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = log(dir.path(), 0, 0..0);
        let query = Query { follow: true, ..Query::default() };
        let mut stream = Box::pin(open(dir.path(), "uid", "app", query).await.unwrap());
        let line = [vec![b'x'; 999], vec![b'\n']].concat();
        let write = tokio::task::spawn_blocking(move || {
            // 10.4 MiB: one rotation.
            for n in 0..10_400 {
                writer.write(time(n), Out::Stdout, &line).unwrap();
            }
            writer.finish(time(0)).unwrap();
        });
        let mut bytes = 0;
        while let Some(chunk) = stream.next().await {
            bytes += chunk.unwrap().len();
        }
        write.await.unwrap();
        assert_eq!(bytes, 10_400_000);
        assert!(rotated(&file(dir.path(), "uid", "app", 0)).exists());
    }

    #[test]
    fn parts_are_joined_and_tail_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "uid", "app", 0);
        let mut writer = Writer::create(&path).unwrap();
        writer.write(time(0), Out::Stdout, &vec![b'x'; cri::MAX_PART + 5]).unwrap();
        writer.write(time(0), Out::Stdout, b"\nfirst\nlast").unwrap();
        writer.finish(time(0)).unwrap();
        assert_eq!(tail(&path, 2, 2048), "first\nlast");
        assert_eq!(tail(&path, 80, 8), "rst\nlast");
        let mut out = Vec::new();
        Text::new(None, true).push(&fs::read(&path).unwrap(), &mut out);
        assert_eq!(String::from_utf8_lossy(&out).matches("00Z ").count(), 3);
    }
}
