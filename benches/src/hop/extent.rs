//! How much of everything: a full run, or a quick one that still measures all of it, coarsely.

use std::time::Duration;

/// Counts and lengths of the steps.
pub(super) struct Extent {
    pub(super) starts: usize,
    /// What a new process gets before its memory counts as idle.
    pub(super) settle: Duration,
    /// Of small requests, each with a process of its own.
    pub(super) rounds: usize,
    /// Before anything counts.
    pub(super) warm: Duration,
    pub(super) closed: Duration,
    pub(super) fixed: Duration,
    pub(super) single: Duration,
    /// Of each direction.
    pub(super) bodies: Duration,
    pub(super) h2_rounds: usize,
    pub(super) h2_closed: Duration,
    pub(super) h2_fixed: Duration,
    pub(super) quota_rounds: usize,
    pub(super) quota: Duration,
    pub(super) scaling_rounds: usize,
    /// Of each number of threads.
    pub(super) scaling: Duration,
    pub(super) rotation_rounds: usize,
    /// Of each number of revisions.
    pub(super) rotation: Duration,
    /// The largest of these numbers.
    pub(super) most_revisions: usize,
    pub(super) idle_connections: usize,
    pub(super) websockets: usize,
    /// Leaves the further passes of ours out of what is about memory.
    pub(super) first_pass_only: bool,
}

impl Extent {
    pub(super) fn new(quick: bool, file_limit: u64) -> Self {
        let ms = Duration::from_millis;
        // This process holds both ends of what goes through the relay, and HAProxy wants room for both.
        let most = (file_limit.saturating_sub(2_500) / 2 / 1000 * 1000).max(200) as usize;
        if quick {
            Self {
                starts: 3,
                settle: ms(150),
                rounds: 5,
                warm: ms(100),
                closed: ms(250),
                fixed: ms(250),
                single: ms(50),
                bodies: ms(20),
                h2_rounds: 1,
                h2_closed: ms(250),
                h2_fixed: ms(250),
                quota_rounds: 1,
                quota: ms(600),
                scaling_rounds: 1,
                scaling: ms(600),
                rotation_rounds: 1,
                rotation: ms(400),
                most_revisions: most.min(1_000),
                idle_connections: most.min(1_000),
                websockets: most.min(500),
                first_pass_only: true,
            }
        } else {
            Self {
                starts: 15,
                settle: ms(300),
                rounds: 11,
                warm: ms(200),
                closed: ms(1_000),
                fixed: ms(1_500),
                single: ms(300),
                bodies: ms(500),
                h2_rounds: 5,
                h2_closed: ms(1_000),
                h2_fixed: ms(1_500),
                quota_rounds: 3,
                quota: ms(3_000),
                scaling_rounds: 5,
                scaling: ms(3_000),
                rotation_rounds: 3,
                rotation: ms(2_500),
                most_revisions: most.min(10_000),
                idle_connections: most.min(10_000),
                websockets: most.min(2_000),
                first_pass_only: false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_stay_within_the_limit_of_files() {
        assert_eq!(Extent::new(true, 20_000).idle_connections, 1_000);
        assert_eq!(Extent::new(false, 20_000).idle_connections, 8_000);
        assert_eq!(Extent::new(false, 1 << 20).idle_connections, 10_000);
        assert_eq!(Extent::new(false, 1024).idle_connections, 200);
    }
}
