//! Lines `name:value` as a request's headers: classified, checked and rewritten without a panic, and nothing that ends
//! here goes on.
#![no_main]

use proxy::headers::Present;
use http::header::{CONNECTION, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]))
        {
            headers.append(name, value);
        }
    }
    let present = Present::of(&headers);
    let _ = queue_proxy::probe::classify((&headers).into(), present);
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        let _ = proxy::headers::check(version, &headers, false);
    }
    let _ = queue_proxy::forwarded::of((&headers).into(), present);
    let upgrade = proxy::headers::upgrade_token(&headers).is_some();
    proxy::headers::remove_hop_by_hop(&mut headers, present);
    assert!(!headers.contains_key(TRANSFER_ENCODING));
    assert!(upgrade || !headers.contains_key(CONNECTION));
    let forwarded = proxy::headers::forwarded_for((&headers).into(), present, &HeaderValue::from_static("192.0.2.1"));
    assert!(forwarded.as_bytes().ends_with(b"192.0.2.1"), "{forwarded:?}");
});
