//! Who takes part: ours in its passes, no proxy at all, the relay, and the peers that are there.

use anyhow::bail;

use super::entry::Entry;
use crate::{
    peers::{Kind, Peer},
    system,
};

/// Every word that `--only` knows.
const WORDS: [&str; 10] =
    ["dormouse", "full", "log", "direct", "relay", "haproxy", "nginx", "envoy", "pingora", "upstream"];

/// The entries, and notes about them.
pub(super) fn find(only: &[String]) -> anyhow::Result<(Vec<Entry>, Vec<String>)> {
    if let Some(unknown) = only.iter().find(|word| !WORDS.contains(&word.as_str())) {
        bail!("--only {unknown}: no such subject; there are {}", WORDS.join(", "));
    }
    let ours = system::build_shipped("queue-proxy", "queue-proxy")?;
    let (mut entries, mut notes) = (Vec::new(), Vec::new());
    for word in WORDS.into_iter().filter(|word| only.is_empty() || only.iter().any(|asked| asked == word)) {
        let found = match word {
            "dormouse" => Some(Entry::new("dormouse", "", Some(Peer::built(Kind::Sidecar, &ours)))),
            "full" => {
                notes.push("full_: ours with a concurrency limit above the load and Prometheus metrics on".to_owned());
                Some(Entry::new("dormouse", "full_", Some(Peer::built(Kind::FullSidecar, &ours))))
            }
            "log" => {
                notes.push("log_: as full_, with the request log on and read from a pipe".to_owned());
                Some(Entry::new("dormouse", "log_", Some(Peer::built(Kind::LoggingSidecar, &ours))))
            }
            "direct" => Some(Entry::new("direct", "", None)),
            "relay" => Some(Entry::new("relay", "", Some(Peer::relay()?))),
            "pingora" if cfg!(feature = "pingora") => {
                let program = system::build_binary("benches", "pingora", "pingora")?;
                Some(Entry::new("pingora", "", Some(Peer::built(Kind::Pingora, &program))))
            }
            "upstream" => Peer::upstream().map(|peer| Entry::new("upstream", "", Some(peer))),
            "haproxy" => installed(Kind::Haproxy, "haproxy", &mut notes),
            "nginx" => installed(Kind::Nginx, "nginx", &mut notes),
            "envoy" => installed(Kind::Envoy, "envoy", &mut notes),
            _ => None,
        };
        match (found, word) {
            (Some(entry), _) => entries.push(entry),
            (None, "pingora") => notes.push("pingora: left out, run with `--features pingora`".to_owned()),
            (None, "upstream") => notes.push("upstream: left out, UPSTREAM_QUEUE_PROXY names no program".to_owned()),
            (None, name) => notes.push(format!("{name}: not installed, left out")),
        }
    }
    Ok((entries, notes))
}

fn installed(kind: Kind, name: &'static str, notes: &mut Vec<String>) -> Option<Entry> {
    let peer = Peer::installed(kind, name)?;
    notes.push(format!("{name}: {}", peer.version().unwrap_or_else(|| "unknown version".to_owned())));
    Some(Entry::new(name, "", Some(peer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_word_is_said_before_anything_is_built() {
        let error = find(&["dormouse".to_owned(), "relais".to_owned()]).err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains("--only relais") && text.contains("relay, haproxy")));
    }
}
