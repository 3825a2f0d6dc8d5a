//! SIGTERM and Ctrl-C, the same for every process: the first asks it to end in order, the second ends it at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal as listen};
use tokio_util::sync::CancellationToken;

/// Listens from this call on; the future is done at the first signal. A second signal ends the process with code 1,
/// whatever it is doing. Needs a running runtime.
pub fn signal() -> io::Result<impl Future<Output = ()>> {
    let token = CancellationToken::new();
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let first = token.clone();
    tokio::spawn(async move {
        for again in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if again {
                std::process::exit(1);
            }
            first.cancel();
        }
    });
    Ok(async move { token.cancelled().await })
}

/// A token that the first signal cancels; see [`signal`].
pub fn token() -> io::Result<CancellationToken> {
    let (token, signalled) = (CancellationToken::new(), signal()?);
    let cancel = token.clone();
    tokio::spawn(async move {
        signalled.await;
        cancel.cancel();
    });
    Ok(token)
}
