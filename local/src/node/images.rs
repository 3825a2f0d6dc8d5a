//! What an image runs as, where there is no container runtime.
//!
//! In this order: our own reserved images; the operator's word (`--image REF=COMMAND`); the container's own `command`;
//! else an error that names these ways. `args` of the container are appended to a mapped command.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use k8s_openapi::api::core::v1::Container;

/// Image that runs the built-in demo server.
pub const HELLO_IMAGE: &str = "dormouse.dev/hello";

/// A mapping that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// There is no `=`.
    #[error("--image {0:?}: expected REF=COMMAND")]
    NoCommand(String),
    /// The command is empty or its quotes do not match.
    #[error("--image {0:?}: the command cannot be split into words: {1}")]
    Words(String, String),
}

/// An image that cannot run here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Nothing says what to run.
    #[error(
        "image {0:?} cannot run without a container runtime: map it to a program with `--image '{0}=COMMAND'`, \
         or set `command:` in the manifest, or run on a machine with a container runtime"
    )]
    NoMapping(String),
    /// The mapping leads to nothing.
    #[error("image {image:?} is mapped to {program:?}, which does not exist or is not executable")]
    MissingProgram {
        /// The image.
        image: String,
        /// What it is mapped to.
        program: String,
    },
}

/// One `--image REF=COMMAND`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pattern: String,
    command: Vec<String>,
}

impl FromStr for Mapping {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (pattern, command) = text
            .split_once('=')
            .filter(|(pattern, command)| !pattern.trim().is_empty() && !command.trim().is_empty())
            .ok_or_else(|| ParseError::NoCommand(text.to_owned()))?;
        let command =
            shell_words::split(command).map_err(|error| ParseError::Words(text.to_owned(), error.to_string()))?;
        if command.first().is_none_or(String::is_empty) {
            return Err(ParseError::Words(text.to_owned(), "it is empty".to_owned()));
        }
        Ok(Self { pattern: pattern.trim().to_owned(), command })
    }
}

/// All mappings; the first that matches counts.
#[derive(Debug, Clone, Default)]
pub struct ImageMap {
    mappings: Vec<Mapping>,
    exe: PathBuf,
    queue_image: String,
    /// Where `up` was started: relative paths in mappings are relative to it, not to the container's folder.
    base: PathBuf,
}

impl ImageMap {
    /// Mappings in the order in which they count. `exe` runs the reserved images.
    pub fn new(mappings: Vec<Mapping>, exe: PathBuf, queue_image: String, base: PathBuf) -> Self {
        Self { mappings, exe, queue_image, base }
    }

    /// Whether an image is our own sidecar.
    pub fn is_queue_proxy(&self, image: &str) -> bool {
        forms(image).iter().any(|form| *form == self.queue_image) || image == self.queue_image
    }

    /// The words to run for a container: program (absolute path, or a name to look up in `PATH`), then arguments.
    pub fn resolve(&self, container: &Container, path: &str) -> Result<Vec<String>, Error> {
        let image = container.image.as_deref().unwrap_or_default();
        let arguments = || container.args.iter().flatten().cloned();
        let built_in = |word: &str| vec![self.exe.to_string_lossy().into_owned(), word.to_owned()];
        if self.is_queue_proxy(image) {
            return Ok(built_in("queue-proxy"));
        }
        if let Some(words) = self.mapped(image) {
            let program = find_program(&words[0], path, &self.base)
                .ok_or_else(|| Error::MissingProgram { image: image.to_owned(), program: words[0].clone() })?;
            let rest = words.into_iter().skip(1).map(|word| absolute(&self.base, word));
            return Ok(std::iter::once(program).chain(rest).chain(arguments()).collect());
        }
        if forms(image).contains(&HELLO_IMAGE) {
            return Ok(built_in("hello").into_iter().chain(arguments()).collect());
        }
        match container.command.as_deref() {
            Some(command) if !command.is_empty() => Ok(command.iter().cloned().chain(arguments()).collect()),
            _ => Err(Error::NoMapping(image.to_owned())),
        }
    }

    /// The command of the first mapping that matches any form of the reference.
    fn mapped(&self, image: &str) -> Option<Vec<String>> {
        self.mappings.iter().find_map(|mapping| {
            let pattern = short(&mapping.pattern);
            forms(image).into_iter().find_map(|form| {
                let captures = matches(pattern, form)?;
                // A reference has no such parts; what has is not a reference.
                if captures.iter().any(|text| text.split('/').any(|part| part == "..")) {
                    return None;
                }
                let mut captures = captures.into_iter();
                Some(mapping.command.iter().map(|word| fill(word, &mut captures)).collect())
            })
        })
    }
}

/// A reference without what `docker pull` would add.
fn short(image: &str) -> &str {
    let image = image.strip_prefix("index.docker.io/").unwrap_or(image);
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    image.strip_prefix("library/").unwrap_or(image)
}

/// The forms under which a reference may be mapped: without tag and digest, without digest, in full.
fn forms(image: &str) -> [&str; 3] {
    let full = short(image);
    let tagged = full.split('@').next().unwrap_or(full);
    let name_start = tagged.rfind('/').map_or(0, |slash| slash + 1);
    let bare = tagged[name_start..].find(':').map_or(tagged, |colon| &tagged[..name_start + colon]);
    [bare, tagged, full]
}

/// Matches with `*` for any text (also empty, also `/`); gives what each `*` stood for.
fn matches<'a>(pattern: &str, text: &'a str) -> Option<Vec<&'a str>> {
    let Some((head, rest)) = pattern.split_once('*') else { return (pattern == text).then(Vec::new) };
    let after = text.strip_prefix(head)?;
    if !rest.contains('*') {
        // The last one takes all up to the end that must follow.
        return after.strip_suffix(rest).map(|captured| vec![captured]);
    }
    let literal = rest.split('*').next().unwrap_or_default();
    let mut from = 0;
    while let Some(at) = after[from..].find(literal).map(|at| at + from) {
        if let Some(mut captures) = matches(rest, &after[at..]) {
            captures.insert(0, &after[..at]);
            return Some(captures);
        }
        from = at + after[at..].chars().next().map_or(1, char::len_utf8);
        if from > after.len() {
            break;
        }
    }
    None
}

/// Puts captures in the places of the `*`s, in order.
fn fill<'a>(word: &str, captures: &mut impl Iterator<Item = &'a str>) -> String {
    let mut parts = word.split('*');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(captures.next().unwrap_or("*"));
        out.push_str(part);
    }
    out
}

/// Where a program is: a path as it is (relative to `base`), a name in the folders of `path`.
pub fn find_program(program: &str, path: &str, base: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let runs = |file: &Path| file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    let found = if program.contains('/') {
        Some(base.join(program)).filter(|file| runs(file))
    } else {
        path.split(':').filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join(program)).find(|file| runs(file))
    };
    found.map(|file| file.to_string_lossy().into_owned())
}

/// An argument that names a file beside which `up` was started is made absolute: the process runs in a folder of its
/// own. Only words that look like a path (`server.py`, `./site`) are considered.
fn absolute(base: &Path, word: String) -> String {
    let like_path = !word.starts_with(['-', '/']) && word.contains(['/', '.']);
    match base.join(&word) {
        file if like_path && file.exists() => file.to_string_lossy().into_owned(),
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(mappings: &[&str]) -> ImageMap {
        let mappings = mappings.iter().map(|text| text.parse().unwrap()).collect();
        ImageMap::new(mappings, "/bin/dormouse".into(), "dormouse.dev/queue-proxy".into(), "/".into())
    }

    fn container(image: &str, command: &[&str], args: &[&str]) -> Container {
        let words = |words: &[&str]| (!words.is_empty()).then(|| words.iter().map(ToString::to_string).collect());
        Container { image: Some(image.into()), command: words(command), args: words(args), ..Container::default() }
    }

    fn run(map: &ImageMap, container: &Container) -> Result<String, Error> {
        map.resolve(container, "/usr/bin:/bin").map(|words| words.join(" "))
    }

    #[test]
    fn references_match_however_they_are_spelled() {
        for (pattern, image, wanted) in [
            ("app", "app", true),
            ("app", "app:v1", true),
            ("app", "app@sha256:abc", true),
            ("app", "docker.io/library/app:v1@sha256:abc", true),
            ("docker.io/library/app", "app", true),
            ("app:v1", "app:v1@sha256:abc", true),
            ("app:v2", "app:v1", false),
            ("app", "apple", false),
            ("app", "ghcr.io/app", false),
            ("localhost:5000/app", "localhost:5000/app:v1", true),
            ("*/app", "ghcr.io/x/app:v1", true),
            ("*", "anything/at/all", true),
        ] {
            let found = map(&[&format!("{pattern}=/bin/sh")]).mapped(image).is_some();
            assert_eq!(found, wanted, "{pattern} on {image}");
        }
    }

    #[test]
    fn stars_of_the_pattern_fill_stars_of_the_command() {
        let mapped = |mapping, image| map(&[mapping]).mapped(image).unwrap().join("|");
        assert_eq!(mapped("ko.local/*=/dir/*", "ko.local/hello:latest"), "/dir/hello");
        assert_eq!(mapped("*/app-*=run 'a b' --reg=* *", "r.io/x/app-7"), "run|a b|--reg=r.io/x|7");
        assert_eq!(mapped("x=run *", "x"), "run|*");
        assert_eq!(map(&["ko.local/*=/dir/*"]).mapped("ko.local/../../bin/sh"), None);
    }

    #[test]
    fn mapping_then_command_then_an_error_that_helps() {
        let map = map(&["app=sh -c", "gone=/no/such/file"]);
        assert_eq!(run(&map, &container("app", &["true"], &["x"])).unwrap(), "/usr/bin/sh -c x");
        assert_eq!(run(&map, &container("other", &["true", "a"], &["b"])).unwrap(), "true a b");
        assert_eq!(
            run(&map, &container("dormouse.dev/queue-proxy:v1", &[], &[])).unwrap(),
            "/bin/dormouse queue-proxy"
        );
        assert_eq!(run(&map, &container("dormouse.dev/hello", &[], &[])).unwrap(), "/bin/dormouse hello");
        let error = run(&map, &container("nginx:1", &[], &["x"])).unwrap_err().to_string();
        for way in ["--image 'nginx:1=COMMAND'", "`command:`", "container runtime"] {
            assert!(error.contains(way), "{error}");
        }
        let error = run(&map, &container("gone", &["true"], &[])).unwrap_err().to_string();
        assert!(error.contains("/no/such/file"), "{error}");
    }

    #[test]
    fn broken_mappings_are_refused() {
        for text in ["", "app", "=x", "app=", "app= ", "app='x", "app=''"] {
            assert!(text.parse::<Mapping>().is_err(), "{text}");
        }
    }

    #[test]
    fn files_beside_up_are_found_from_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("server.py"), "").unwrap();
        std::fs::create_dir(dir.path().join("hello")).unwrap();
        let file = dir.path().join("server.py").to_string_lossy().into_owned();
        for (word, wanted) in [("server.py", file.as_str()), ("hello", "hello"), ("-x.y", "-x.y"), ("no.py", "no.py")] {
            assert_eq!(absolute(dir.path(), word.into()), wanted);
        }
    }
}
