//! The command line of the drop-in, as Go's `flag` reads it: `-name=value`, `--name value`, switches without a value.
//!
//! Flags of Kubernetes' client say where the API server is. Flags of klog are taken and ignored, for there is no klog
//! here; so is the client's own rate limit, for what this process asks is a handful of watches.

/// Where the API server is, if the command line or the environment says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--server`: its URL.
    pub server: Option<String>,
    /// `--kubeconfig`, else `KUBECONFIG`: a file.
    pub kubeconfig: Option<String>,
    /// `--cluster`: which cluster of that file.
    pub cluster: Option<String>,
}

/// Why the command line is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// No such flag.
    #[error(
        "flag {0} is not defined; there are --kubeconfig, --cluster, --server, --kube-api-qps, --kube-api-burst and \
         klog's"
    )]
    Unknown(String),
    /// It needs a value.
    #[error("flag --{0} needs a value")]
    Bare(String),
    /// Its value cannot be used.
    #[error("flag --{name}={value:?}: want {want}")]
    Wrong {
        /// The flag.
        name: String,
        /// Its value.
        value: String,
        /// What it should be.
        want: &'static str,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Whole,
    Number,
    /// A switch: a value may only follow `=`.
    Switch,
}

const KNOWN: &[(&str, Kind)] = &[
    ("server", Kind::Text),
    ("kubeconfig", Kind::Text),
    ("cluster", Kind::Text),
    ("kube-api-burst", Kind::Whole),
    ("kube-api-qps", Kind::Number),
    ("add_dir_header", Kind::Switch),
    ("alsologtostderr", Kind::Switch),
    ("legacy_stderr_threshold_behavior", Kind::Switch),
    ("log_backtrace_at", Kind::Text),
    ("log_dir", Kind::Text),
    ("log_file", Kind::Text),
    ("log_file_max_size", Kind::Whole),
    ("logtostderr", Kind::Switch),
    ("one_output", Kind::Switch),
    ("skip_headers", Kind::Switch),
    ("skip_log_headers", Kind::Switch),
    ("stderrthreshold", Kind::Text),
    ("v", Kind::Whole),
    ("vmodule", Kind::Text),
];

impl Flags {
    /// Reads the arguments that follow the program's name; what does not begin with a dash ends the flags, as in Go.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, FlagError> {
        let mut flags = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else { break };
            if flag.is_empty() {
                break; // `--` ends the flags; a lone `-` is no flag
            }
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let Some((_, kind)) = KNOWN.iter().find(|(known, _)| *known == name) else {
                return Err(FlagError::Unknown(argument));
            };
            let value = match value {
                Some(value) => value,
                None if *kind == Kind::Switch => "true".to_owned(),
                None => arguments.next().ok_or_else(|| FlagError::Bare(name.to_owned()))?,
            };
            let want = match kind {
                Kind::Whole if value.parse::<i64>().is_err() => Some("a whole number"),
                Kind::Number if value.parse::<f64>().is_err() => Some("a number"),
                Kind::Switch if !is_boolean(&value) => Some("true or false"),
                Kind::Text | Kind::Whole | Kind::Number | Kind::Switch => None,
            };
            if let Some(want) = want {
                return Err(FlagError::Wrong { name: name.to_owned(), value, want });
            }
            let value = Some(value).filter(|value| !value.is_empty());
            match name {
                "server" => flags.server = value,
                "kubeconfig" => flags.kubeconfig = value,
                "cluster" => flags.cluster = value,
                _ => {}
            }
        }
        Ok(flags)
    }
}

/// Go's `strconv.ParseBool`.
fn is_boolean(text: &str) -> bool {
    api::settings::parse_bool(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, FlagError> {
        Flags::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let flags = parse("-v=2 --kubeconfig /k --logtostderr -server=http://a --kube-api-qps 12.5 -v 3 rest --nope");
        let expected = Flags { server: Some("http://a".into()), kubeconfig: Some("/k".into()), cluster: None };
        assert_eq!(flags, Ok(expected));
        assert_eq!(parse("--cluster c -- --nope").map(|flags| flags.cluster), Ok(Some("c".into())));
        assert_eq!(parse("--kubeconfig="), Ok(Flags::default()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, part) in [
            ("--nope", "flag --nope is not defined"),
            ("--server", "--server needs a value"),
            ("--kube-api-burst=ten", "--kube-api-burst=\"ten\": want a whole number"),
            ("--kube-api-qps=x", "want a number"),
            ("--logtostderr=maybe", "want true or false"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
