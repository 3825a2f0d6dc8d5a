//! Names as Kubernetes wants them, with its words for what is wrong.

const LABEL_LENGTH: &str = "must be no more than 63 characters";
const DNS1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
    alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
    validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const DNS1123_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
    must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS1123_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
    '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation \
    is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
    with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

fn lower_or_digit(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().all(|c| lower_or_digit(*c) || *c == b'-')
        && bytes.first().is_some_and(|c| lower_or_digit(*c))
        && bytes.last().is_some_and(|c| lower_or_digit(*c))
}

/// What is wrong with a DNS-1035 label; nothing, when empty.
pub fn dns1035_label(text: &str) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    if text.len() > 63 {
        wrong.push(LABEL_LENGTH);
    }
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        wrong.push(DNS1035);
    }
    wrong
}

/// What is wrong with the beginning of one: it may end with a dash, for something follows.
pub fn dns1035_prefix(text: &str) -> Vec<&'static str> {
    match text.strip_suffix('-') {
        Some(head) if !head.is_empty() => dns1035_label(&format!("{head}a")),
        _ => dns1035_label(text),
    }
}

/// What is wrong with a DNS-1123 label.
pub fn dns1123_label(text: &str) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    if text.len() > 63 {
        wrong.push(LABEL_LENGTH);
    }
    if !is_label(text) {
        wrong.push(DNS1123_LABEL);
    }
    wrong
}

/// What is wrong with a DNS-1123 subdomain.
pub fn dns1123_subdomain(text: &str) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    if text.len() > 253 {
        wrong.push("must be no more than 253 characters");
    }
    if !text.split('.').all(is_label) {
        wrong.push(DNS1123_SUBDOMAIN);
    }
    wrong
}

/// What is wrong with a fully qualified domain name as the field `name`, as one text; nothing, where it is one.
pub fn not_fully_qualified(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("name: Required value".to_owned());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let invalid = |value: &str, why: &str| format!("name: Invalid value: {value:?}: {why}");
    let wrong = dns1123_subdomain(name);
    if !wrong.is_empty() {
        return Some(invalid(name, &wrong.join(",")));
    }
    if !name.contains('.') {
        return Some(invalid(name, "should be a domain with at least two segments separated by dots"));
    }
    let labels = name.split('.').map(|label| (label, dns1123_label(label)));
    let wrong: Vec<String> =
        labels.filter(|(_, wrong)| !wrong.is_empty()).map(|(label, wrong)| invalid(label, &wrong.join(","))).collect();
    match wrong.len() {
        0 => None,
        1 => wrong.into_iter().next(),
        _ => Some(format!("[{}]", wrong.join(", "))),
    }
}

/// What is wrong with a qualified name (without a prefix).
pub fn qualified_name(text: &str) -> Vec<&'static str> {
    let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.rsplit('/').next().unwrap_or(text).as_bytes();
    let mut wrong = Vec::new();
    if bytes.is_empty() {
        wrong.push("name part must be non-empty");
    } else if bytes.len() > 63 {
        wrong.push("name part must be no more than 63 characters");
    }
    let inner = bytes.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
    if !inner || !edge(bytes.first()) || !edge(bytes.last()) {
        wrong.push(QUALIFIED);
    }
    wrong
}

/// As Go prints a list: `[a b]`.
pub fn go_list(items: &[&str]) -> String {
    format!("[{}]", items.join(" "))
}

/// Whether a text is a reference to an image: `[registry[:port]/]repository[:tag][@sha256:digest]`.
pub fn is_image_reference(text: &str) -> bool {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let good_digest = digest.is_none_or(|d| {
        d.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
    });
    // A colon after the last slash begins the tag; one before it belongs to a port.
    let slash = rest.rfind('/').map_or(0, |i| i + 1);
    let (name, tag) = match rest[slash..].rfind(':') {
        Some(colon) => (&rest[..slash + colon], Some(&rest[slash + colon + 1..])),
        None => (rest, None),
    };
    let good_tag = tag.is_none_or(|t| {
        (1..=127).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    });
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
        _ => (None, name),
    };
    let good_registry = registry.is_none_or(|r| {
        !r.is_empty()
            && r.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b':' | b'-' | b'_' | b'[' | b']'))
    });
    let good_repository = (1..=255).contains(&repository.len())
        && !repository.starts_with('/')
        && repository.bytes().all(|b| lower_or_digit(b) || matches!(b, b'_' | b'-' | b'.' | b'/'));
    good_digest && good_tag && good_registry && good_repository
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_judged() {
        let long = "a".repeat(64);
        for (text, good) in
            [("a", true), ("a-1", true), ("1a", false), ("a-", false), ("A", false), ("", false), ("a.b", false)]
        {
            assert_eq!(dns1035_label(text).is_empty(), good, "{text}");
        }
        assert_eq!(dns1035_label(&long), [LABEL_LENGTH]);
        assert!(dns1035_prefix("a-").is_empty() && !dns1035_prefix("-").is_empty());
        assert!(dns1123_label("1a").is_empty() && dns1123_subdomain("a.1b").is_empty());
        assert!(!dns1123_subdomain("a..b").is_empty());
        assert!(qualified_name("a_B.1").is_empty() && !qualified_name("-a").is_empty());
    }

    #[test]
    fn image_references_are_judged() {
        let digest = format!("busybox@sha256:{}", "0".repeat(64));
        for good in ["busybox", "gcr.io/a/b:v1", "localhost:5000/x", "ko.local/hello-abc:latest", "a/b_c.d-e", &digest]
        {
            assert!(is_image_reference(good), "{good}");
        }
        for bad in ["Foo", "a b", "x:", "x@sha256:12", "/x", "", "x:a b", "http://x/y"] {
            assert!(!is_image_reference(bad), "{bad}");
        }
    }
}
