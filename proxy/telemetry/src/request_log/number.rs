//! Numbers as Go prints them, appended to a line.

/// Nanoseconds of a second, as a float.
const NANOS: f64 = 1e9;

/// A whole number.
pub(super) fn push_int(out: &mut Vec<u8>, n: i64) {
    if n < 0 {
        out.push(b'-');
    }
    push_digits(out, n.unsigned_abs(), 1);
}

/// At least `least` digits, at most 20.
fn push_digits(out: &mut Vec<u8>, mut n: u64, least: usize) {
    if n < 10 && least <= 1 {
        return out.push(b'0' + n as u8);
    }
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while n > 0 && at > 0 {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    out.extend_from_slice(&digits[at.min(digits.len().saturating_sub(least))..]);
}

/// Shortest digits that read back the same; exponent form below 1e-4 and from 1e21.
pub(super) fn push_float(out: &mut Vec<u8>, n: f64) {
    match whole_nanos(n) {
        Some(nanos) => push_nanos(out, nanos),
        None => out.extend_from_slice(shortest(n).as_bytes()),
    }
}

/// Most floats of a log are latencies: whole nanoseconds. `Some` if `n` is the float nearest to that many billionths
/// and they have at most 15 digits: then these digits are the shortest, for no two decimals of up to 15 digits are read
/// as the same float.
fn whole_nanos(n: f64) -> Option<u64> {
    let nanos = (n * NANOS).round();
    ((0.0..1e15).contains(&nanos) && nanos / NANOS == n && n.is_sign_positive()).then_some(nanos as u64)
}

fn push_nanos(out: &mut Vec<u8>, nanos: u64) {
    let (whole, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if whole == 0 && (1..100_000).contains(&fraction) {
        // Below 1e-4: d.dddde-0X.
        let exponent = 9 - fraction.ilog10();
        let (mut digits, one) = (fraction, 10_u64.pow(9 - exponent));
        push_digits(out, digits / one, 1);
        digits %= one;
        push_fraction(out, digits, (9 - exponent) as usize);
        out.extend_from_slice(b"e-");
        push_digits(out, u64::from(exponent), 2);
        return;
    }
    push_digits(out, whole, 1);
    push_fraction(out, fraction, 9);
}

/// A point and `places` digits without the zeros at their end; nothing if all are zeros.
fn push_fraction(out: &mut Vec<u8>, mut fraction: u64, mut places: usize) {
    if fraction == 0 {
        return;
    }
    while fraction.is_multiple_of(10) {
        fraction /= 10;
        places -= 1;
    }
    out.push(b'.');
    push_digits(out, fraction, places);
}

/// For every float.
fn shortest(n: f64) -> String {
    let scientific = format!("{n:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return n.to_string() };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if n == 0.0 || (-4..21).contains(&exponent) {
        return n.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn float(n: f64) -> String {
        let mut out = Vec::new();
        push_float(&mut out, n);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn floats_print_as_go_prints_them() {
        for (n, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.0123, "0.0123"),
            (0.0001, "0.0001"),
            (0.000_099, "9.9e-05"),
            (0.000_01, "1e-05"),
            (0.000_010_203, "1.0203e-05"),
            (1.5e-7, "1.5e-07"),
            (1e-9, "1e-09"),
            (1e-10, "1e-10"),
            (100.000_000_001, "100.000000001"),
            (123_456_789.0, "123456789"),
            (-0.5, "-0.5"),
            (1e21, "1e+21"),
        ] {
            assert_eq!(float(n), text);
        }
    }

    #[test]
    fn whole_numbers() {
        for n in [0, 7, -1, 10, 404, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            push_int(&mut out, n);
            assert_eq!(out, n.to_string().as_bytes());
        }
    }

    proptest! {
        #[test]
        fn the_short_way_prints_what_the_long_way_prints(nanos in 0_u64..20_000_000_000, any in any::<f64>()) {
            for n in [Duration::from_nanos(nanos).as_secs_f64(), Duration::from_nanos(nanos % 300_000).as_secs_f64(), any] {
                prop_assert_eq!(float(n), shortest(n));
            }
        }
    }
}
