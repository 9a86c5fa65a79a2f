//! Numbers as people read them, the same on both sides of the wire.
//!
//! Knows no language: words around the numbers are `i18n`'s.

/// A count with thin groups of three digits: `12 345`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digits.len() > 4 {
            // A narrow space that doesn't break.
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

/// A count of parameters: `13.7B`, `3.1M`, `512K`.
#[must_use]
pub fn parameters(number: u64) -> String {
    let number = number as f64;
    for (unit, name) in [(1e9, "B"), (1e6, "M"), (1e3, "K")] {
        if number >= unit {
            return format!("{:.1}{name}", number / unit);
        }
    }
    format!("{number}")
}

/// A size in memory: `25.5 GiB`.
#[must_use]
pub fn bytes(number: u64) -> String {
    let number = number as f64;
    for (unit, name) in [(f64::from(1 << 30), "GiB"), (f64::from(1 << 20), "MiB"), (1024.0, "KiB")] {
        if number >= unit {
            return format!("{:.1} {name}", number / unit);
        }
    }
    format!("{number} B")
}

/// A duration given in milliseconds: `85 ms`, `1.2 s`.
#[must_use]
pub fn milliseconds(number: f32) -> String {
    if number < 1000.0 { format!("{number:.0} ms") } else { format!("{:.1} s", number / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_from_five_digits_on() {
        assert_eq!(count(0), "0");
        assert_eq!(count(8192), "8192");
        assert_eq!(count(12345), "12\u{202f}345");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn sizes_have_a_unit_that_fits() {
        assert_eq!(parameters(13_714_841_600), "13.7B");
        assert_eq!(parameters(3_100_000), "3.1M");
        assert_eq!(bytes(27_380_416_512), "25.5 GiB");
        assert_eq!(bytes(512), "512 B");
    }

    #[test]
    fn short_times_have_no_decimals() {
        assert_eq!(milliseconds(84.6), "85 ms");
        assert_eq!(milliseconds(1234.0), "1.2 s");
    }
}
