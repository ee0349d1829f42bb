//! Numbers and names as people read them.

/// For HTML, inside elements and attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            // no such character may stand in a page
            control if control.is_control() && control != '\n' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Three digits, as far as there are so many.
pub(super) fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        0.0..0.01 => format!("{value:.4}"),
        0.01..1.0 => format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        1.0..10.0 => format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        10.0..100.0 => format!("{value:.1}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        _ => format!("{value:.0}"),
    }
}

fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    let (scale, unit) = units.iter().rev().find(|(scale, _)| value >= *scale * 0.9995).unwrap_or(&units[0]);
    format!("{} {unit}", digits(value / scale))
}

/// Nanoseconds.
pub(super) fn ns(value: f64) -> String {
    scaled(value, &[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")])
}

/// Milliseconds.
pub(super) fn ms(value: f64) -> String {
    ns(value * 1e6)
}

/// Bytes, in powers of ten.
pub(super) fn bytes(value: f64) -> String {
    scaled(value, &[(1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB")])
}

/// How many.
pub(super) fn count(value: f64) -> String {
    scaled(value, &[(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")]).replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_record_says_stays_text() {
        assert_eq!(escape("<script>\"a\" & 'b'\u{7}"), "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;\u{fffd}");
    }

    #[test]
    fn numbers_have_three_digits_and_their_unit() {
        for (found, wanted) in [
            (ns(3.456), "3.46 ns"),
            (ns(999.9), "1 µs"),
            (ns(1234.0), "1.23 µs"),
            (ns(28_096_377.0), "28.1 ms"),
            (ms(0.1), "100 µs"),
            (ms(32_000.0), "32 s"),
            (bytes(2_970_000.0), "2.97 MB"),
            (count(10_000.0), "10k"),
            (count(50.0), "50"),
            (digits(0.001), "0.0010"),
            (digits(0.986), "0.986"),
        ] {
            assert_eq!(found, wanted);
        }
    }
}
