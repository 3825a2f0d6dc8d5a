//! Who takes part: ours in its passes, no proxy at all, the relay, and the peers that are there.

use anyhow::bail;

use super::entry::Entry;
use crate::{
    peers::{Kind, Peer},
    system,
};

/// The program that a bench is about.
pub(crate) struct Ours {
    /// Package and binary.
    pub(crate) program: &'static str,
    /// Its passes.
    pub(crate) passes: &'static [Pass],
    /// Words of peers that take part beside those of [`PEERS`].
    pub(crate) peers: &'static [&'static str],
}

/// One way to run it.
pub(crate) struct Pass {
    /// What `--only` calls it.
    pub(crate) word: &'static str,
    /// What stands before its metrics; the first pass has nothing there.
    pub(crate) prefix: &'static str,
    pub(crate) kind: Kind,
    /// What sets it apart, for the notes.
    pub(crate) about: &'static str,
}

/// Whom every bench asks for.
const PEERS: [&str; 6] = ["direct", "relay", "haproxy", "nginx", "envoy", "pingora"];

/// The entries, and notes about them.
pub(super) fn find(ours: &Ours, only: &[String]) -> anyhow::Result<(Vec<Entry>, Vec<String>)> {
    let peers = || PEERS.iter().chain(ours.peers).copied();
    let words: Vec<&str> = ours.passes.iter().map(|pass| pass.word).chain(peers()).collect();
    if let Some(unknown) = only.iter().find(|word| !words.contains(&word.as_str())) {
        bail!("--only {unknown}: no such subject; there are {}", words.join(", "));
    }
    let wanted = |word: &str| only.is_empty() || only.iter().any(|asked| asked == word);
    let program = system::build_shipped(ours.program, ours.program)?;
    let (mut entries, mut notes) = (Vec::new(), Vec::new());
    for Pass { word, prefix, kind, about } in ours.passes.iter().filter(|pass| wanted(pass.word)) {
        entries.push(Entry::new("dormouse", prefix, Some(Peer::built(*kind, &program))));
        if !about.is_empty() {
            notes.push(format!("{word}: {about}"));
        }
    }
    for word in peers().filter(|word| wanted(word)) {
        let found = match word {
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
        let ours = Ours { program: "none", passes: &[], peers: &["upstream"] };
        let error = find(&ours, &["direct".to_owned(), "relais".to_owned()]).err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains("--only relais") && text.contains("relay, haproxy")));
    }
}
