//! Peers that are this very program, called with a word that its help does not name.

use std::{net::SocketAddr, process::Command};

use anyhow::Context;

use super::{Plan, Protocol, relay};

pub(super) const RELAY: &str = "__relay";
pub(super) const PINGORA: &str = "__pingora";

/// What this process was started to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    word: &'static str,
    listen: String,
    backend: String,
    h2c: bool,
}

pub(super) fn prepare(command: &mut Command, word: &str, plan: &Plan<'_>) {
    let protocol = if plan.protocol == Protocol::H2c { "h2c" } else { "http1" };
    command.args([word, &plan.listen.to_string(), &plan.backend.to_string(), protocol]);
}

/// `None` when this process was started as the bench itself.
pub(crate) fn asked(arguments: impl Iterator<Item = String>) -> Option<Asked> {
    let mut arguments = arguments.skip(1);
    let first = arguments.next()?;
    let word = [RELAY, PINGORA].into_iter().find(|word| *word == first)?;
    let (listen, backend) = (arguments.next()?, arguments.next()?);
    Some(Asked { word, listen, backend, h2c: arguments.next()? == "h2c" })
}

impl Asked {
    /// Is a peer until killed.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let listen: SocketAddr = self.listen.parse().context("where to listen")?;
        let backend: SocketAddr = self.backend.parse().context("where to connect")?;
        if self.word == RELAY {
            return relay::run(listen, backend);
        }
        #[cfg(feature = "pingora")]
        return super::pingora::run(listen, backend, self.h2c);
        #[cfg(not(feature = "pingora"))]
        anyhow::bail!("built without pingora");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_word_makes_this_program_a_peer() {
        let asked = |words: &[&str]| asked(words.iter().map(ToString::to_string));
        let as_peer = |word, h2c| Some(Asked { word, listen: "a".into(), backend: "b".into(), h2c });
        assert_eq!(asked(&["benches", "__relay", "a", "b", "http1"]), as_peer(RELAY, false));
        assert_eq!(asked(&["benches", "__pingora", "a", "b", "h2c"]), as_peer(PINGORA, true));
        assert_eq!(asked(&["benches", "queue-proxy", "--quick"]), None);
        assert_eq!(asked(&["benches"]), None);
    }
}
