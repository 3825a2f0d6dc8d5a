//! `DATA_DIR/up.json`: where a running `up` listens, for scripts and tests.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::Value;

/// Name of the file in the data folder.
const NAME: &str = "up.json";

/// The file of this run.
pub struct StateFile(PathBuf);

impl StateFile {
    /// Writes the file whole: a reader sees all of it or none.
    pub fn write(data_dir: &Path, state: &Value) -> anyhow::Result<Self> {
        let path = data_dir.join(NAME);
        let new = data_dir.join(format!("{NAME}.new"));
        fs::write(&new, format!("{state:#}\n"))
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(path))
    }

    /// Removes what a run that was killed left behind. Only for who holds the data folder.
    pub fn remove_stale(data_dir: &Path) -> io::Result<()> {
        match fs::remove_file(data_dir.join(NAME)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Removes the file at the end of the run.
    pub fn remove(self) {
        // Somebody else may have removed it already.
        let _ = fs::remove_file(&self.0);
    }
}
