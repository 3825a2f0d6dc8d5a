//! Any bytes are a stat or an error, and what was read is written the same again.
#![no_main]

use api::stat::{Stat, WireStatMessages};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(stat) = Stat::decode(bytes) {
        let once = stat.encode_to_vec();
        assert_eq!(Stat::decode(once.as_slice()).unwrap().encode_to_vec(), once);
    }
    if let Ok(messages) = WireStatMessages::decode(bytes) {
        let once = messages.encode_to_vec();
        assert_eq!(WireStatMessages::decode(once.as_slice()).unwrap().encode_to_vec(), once);
    }
});
