//! What an unquoted YAML word means: as `sigs.k8s.io/yaml` (go-yaml v2) resolves it, which is what kubectl and the API
//! server use.
//!
//! That is YAML 1.1 in the places that bite: `yes`, `no`, `on`, `off`, `y` and `n` are booleans, `0755` is octal, `1_000`
//! is a thousand. Dates stay text.

use super::node::Body;
use serde_json::Number;

/// Resolves an untagged plain scalar.
pub(super) fn resolve(text: &str) -> Body {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Body::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Body::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Body::Bool(false),
        _ => number(text).map_or_else(|| Body::Text(text.to_owned()), Body::Number),
    }
}

/// A number in any of go-yaml's forms, or `None` for text.
pub(super) fn number(text: &str) -> Option<Number> {
    let first = *text.as_bytes().first()?;
    if first == b'.' {
        return float(text);
    }
    if !matches!(first, b'0'..=b'9' | b'+' | b'-') {
        return None;
    }
    let plain = text.replace('_', "");
    integer(&plain).or_else(|| float(&plain))
}

/// Go's `strconv.ParseInt(text, 0, 64)`, then `ParseUint`.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // `from_str_radix` would accept one more sign here.
    if !digits.bytes().next()?.is_ascii_hexdigit() {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative { 0i64.checked_sub_unsigned(magnitude).map(Number::from) } else { Some(Number::from(magnitude)) }
}

/// Decimal floats only; infinities and NaN have no JSON form and stay text. A whole number becomes an integer, as
/// the way through JSON makes of it in the real server (`port: 80.0` is 80).
fn float(text: &str) -> Option<Number> {
    let plausible = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    let value: f64 = if plausible { text.parse().ok()? } else { return None };
    let whole = value as i64;
    // Exact by construction: below 2^53 every whole f64 is an i64.
    if value.abs() < 9_007_199_254_740_992.0 && whole as f64 == value {
        return Some(Number::from(whole));
    }
    Number::from_f64(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn plain_words_mean_what_kubectl_makes_of_them() {
        for (text, expected) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("yes", json!(true)),
            ("y", json!(true)),
            ("OFF", json!(false)),
            ("oN", json!("oN")),
            ("80", json!(80)),
            ("-1", json!(-1)),
            ("+5", json!(5)),
            ("0x50", json!(80)),
            ("0o17", json!(15)),
            ("0755", json!(493)),
            ("089", json!(89)),
            ("0b101", json!(5)),
            ("1_000", json!(1000)),
            ("80.0", json!(80)),
            ("1e3", json!(1000)),
            (".5", json!(0.5)),
            ("1.5", json!(1.5)),
            ("--1", json!("--1")),
            ("0x", json!("0x")),
            ("10.0.0.0/8", json!("10.0.0.0/8")),
            ("1.2.3", json!("1.2.3")),
            ("2024-01-01", json!("2024-01-01")),
            (".inf", json!(".inf")),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
        ] {
            let value = match resolve(text) {
                Body::Null => Value::Null,
                Body::Bool(value) => json!(value),
                Body::Number(value) => Value::Number(value),
                Body::Text(value) => json!(value),
                Body::List(_) | Body::Map(_) => unreachable!("a scalar"),
            };
            assert_eq!(value, expected, "{text:?}");
        }
    }
}
