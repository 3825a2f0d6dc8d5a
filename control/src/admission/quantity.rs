//! Kubernetes quantities (`100m`, `64Mi`, `1e3`): is this one?

/// Whether a text is a quantity.
pub fn is_quantity(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    if digits == 0 || number.bytes().filter(|b| *b == b'.').count() > 1 {
        return false;
    }
    match suffix {
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => true,
        _ => suffix.strip_prefix(['e', 'E']).is_some_and(|e| {
            let e = e.strip_prefix(['+', '-']).unwrap_or(e);
            !e.is_empty() && e.bytes().all(|b| b.is_ascii_digit())
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_told_from_junk() {
        for good in ["1", "0.5", ".5", "5.", "100m", "64Mi", "1e3", "1E-3", "-1", "2Gi", "1E"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "m", "1x", "1 Mi", "1..2", "1mi", "e3", "-", "1e"] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }
}
