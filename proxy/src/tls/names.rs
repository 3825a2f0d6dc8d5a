//! The DNS names in a certificate, as they are written there.
//!
//! rustls checks names as host names, whose labels end at 63 bytes. A `kn-user-NAMESPACE` is a word to be compared, and
//! longer for a long namespace. For certificates that have been verified; of others it finds what it can.

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// `extensions [3]` of a certificate's body (RFC 5280 §4.1).
const EXTENSIONS: u8 = 0xa3;
/// `dNSName [2]` of a general name (RFC 5280 §4.2.1.6).
const DNS_NAME: u8 = 0x82;
/// `id-ce-subjectAltName`, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Whether a certificate (DER) carries exactly this DNS name among its alternative names.
pub(super) fn has_dns_name(certificate: &[u8], name: &str) -> bool {
    alternative_names(certificate)
        .is_some_and(|names| Parts(names).any(|(tag, found)| tag == DNS_NAME && found == name.as_bytes()))
}

fn alternative_names(certificate: &[u8]) -> Option<&[u8]> {
    let certificate = Parts(certificate).of(SEQUENCE)?;
    let body = Parts(certificate).of(SEQUENCE)?;
    let extensions = Parts(Parts(body).of(EXTENSIONS)?).of(SEQUENCE)?;
    let (_, extension) = Parts(extensions).find(|(tag, extension)| {
        *tag == SEQUENCE && Parts(extension).of(OBJECT_IDENTIFIER) == Some(SUBJECT_ALT_NAME)
    })?;
    Parts(Parts(extension).of(OCTET_STRING)?).of(SEQUENCE)
}

/// The values of DER, one behind the other: tag and content. Ends at the first that is broken.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    /// The first with a tag.
    fn of(mut self, tag: u8) -> Option<&'a [u8]> {
        self.find(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [tag, length, rest @ ..] = self.0 else { return None };
        let (length, rest) = match usize::from(*length) {
            short @ ..=0x7f => (short, rest),
            // So many bytes of length follow; a certificate is never longer than two of them can say.
            long @ (0x81 | 0x82) => {
                let (bytes, rest) = rest.split_at_checked(long - 0x80)?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let mut der = vec![tag];
        match length {
            0..0x80 => der.push(length as u8),
            0x80..0x100 => der.extend([0x81, length as u8]),
            _ => der.extend([0x82, (length >> 8) as u8, length as u8]),
        }
        der.extend(content);
        der
    }

    /// As much of a certificate as is looked at.
    fn certificate(names: &[&str]) -> Vec<u8> {
        let names: Vec<u8> = names.iter().flat_map(|name| value(DNS_NAME, name.as_bytes())).collect();
        let other =
            value(SEQUENCE, &[value(OBJECT_IDENTIFIER, &[0x55, 0x1d, 0x0f]), value(OCTET_STRING, b"x")].concat());
        let names = value(
            SEQUENCE,
            &[
                value(OBJECT_IDENTIFIER, SUBJECT_ALT_NAME),
                value(0x01, &[0xff]),
                value(OCTET_STRING, &value(SEQUENCE, &names)),
            ]
            .concat(),
        );
        let extensions = value(EXTENSIONS, &value(SEQUENCE, &[other, names].concat()));
        let body = value(SEQUENCE, &[value(0xa0, &[2]), value(SEQUENCE, b"subject"), extensions].concat());
        value(SEQUENCE, &[body, value(SEQUENCE, b"algorithm")].concat())
    }

    #[test]
    fn t70_the_name_is_found_first_or_second() {
        let long = format!("kn-user-{}", "n".repeat(63));
        for (names, found) in [
            (&["kn-user-ns", "data-plane.knative.dev"][..], true),
            (&["data-plane.knative.dev", "kn-user-ns"], true),
            (&["data-plane.knative.dev"], false),
            (&["kn-user-nsx", "xkn-user-ns", "*", ""], false),
            (&[], false),
        ] {
            assert_eq!(has_dns_name(&certificate(names), "kn-user-ns"), found, "{names:?}");
        }
        assert!(has_dns_name(&certificate(&[&long, &"x".repeat(300)]), &long), "longer than a label of DNS");
        assert!(!has_dns_name(b"", "kn-user-ns") && !has_dns_name(&[SEQUENCE, 0x84, 1], "kn-user-ns"));
    }

    proptest::proptest! {
        #[test]
        fn junk_has_no_name_and_does_no_harm(
            at in 0_usize..200, byte in proptest::num::u8::ANY, junk in proptest::collection::vec(0_u8.., 0..100)
        ) {
            has_dns_name(&junk, "kn-user-ns");
            let mut broken = certificate(&["kn-user-ns"]);
            if let Some(place) = broken.get_mut(at) {
                *place = byte;
            }
            has_dns_name(&broken, "kn-user-ns");
        }
    }
}
