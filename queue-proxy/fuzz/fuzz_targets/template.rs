//! Any text is a template of the request log or an error, when it is read and when it is filled in.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = telemetry::request_log::sample(text);
});
