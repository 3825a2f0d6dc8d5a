//! Any text is a readiness definition or an error; what was understood can be run: no zero patience, paths with a slash.
#![no_main]

use libfuzzer_sys::fuzz_target;
use queue_proxy::readiness::{Action, Readiness};

fuzz_target!(|text: &str| {
    for auto_detect in [false, true] {
        let Ok(readiness) = Readiness::parse(text, auto_detect) else { return };
        for probe in readiness.probes {
            assert!(!probe.timeout.is_zero());
            assert_ne!(probe.aggressive, Some(0));
            if let Action::Http(get) = probe.action {
                assert!(get.path.starts_with('/') && !get.host.is_empty());
            }
        }
    }
});
