//! The kubeconfig that `up` writes for `kubectl` and `kn`. An existing file that is not ours is left alone.

use std::{fs, io, net::SocketAddr, path::Path};

use serde_json::json;

/// Name of cluster, user and context.
const NAME: &str = "dormouse";

/// Why the file was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else's file.
    #[error("{0} exists and was not written by dormouse: name another file with --kubeconfig")]
    Foreign(String),
    /// The file system said no.
    #[error("cannot write {path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// The file's text. JSON is YAML, so that every client reads it.
pub fn render(api: SocketAddr) -> String {
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": NAME,
        "clusters": [{"name": NAME, "cluster": {"server": format!("http://{api}")}}],
        "users": [{"name": NAME, "user": {}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
    });
    format!("{text:#}\n")
}

/// Writes the file for the API server at `api`.
pub fn write(path: &Path, api: SocketAddr) -> Result<(), Error> {
    let error = |source| Error::Io { path: path.display().to_string(), source };
    match fs::read_to_string(path) {
        Ok(old) if !old.contains(&format!("\"current-context\": \"{NAME}\"")) => {
            return Err(Error::Foreign(path.display().to_string()));
        }
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(error(e)),
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(error)?;
    }
    fs::write(path, render(api)).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_file_is_replaced_and_a_foreign_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/kubeconfig");
        write(&path, "127.0.0.1:1".parse().unwrap()).unwrap();
        write(&path, "127.0.0.1:2".parse().unwrap()).unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("http://127.0.0.1:2"));
        fs::write(&path, "apiVersion: v1\ncurrent-context: prod\n").unwrap();
        assert!(matches!(write(&path, "127.0.0.1:3".parse().unwrap()), Err(Error::Foreign(_))));
        assert!(fs::read_to_string(&path).unwrap().contains("prod"));
    }
}
