//! Sizes as people write them: `4096`, `64K`, `1MiB`, `2G`, `10MB`.

/// Reads a number of bytes.
///
/// The letters are those of GNU tools: `K`, `M`, `G` and `T`, also followed by `iB`, are powers of
/// 1024, and followed by `B` powers of 1000.
///
/// # Errors
///
/// Why it is not a size, in words for the user.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("a size begins with a number, as in 64K, 1MiB or 2G".to_owned());
    }
    let number: u64 = number.parse().map_err(|_| "the number is too large".to_owned())?;
    let (power, base) = match unit.strip_suffix("iB").or(unit.strip_suffix("B")) {
        Some("") if unit == "B" => (0, 1024_u64),
        Some(letter) => (power(letter)?, if unit.ends_with("iB") { 1024 } else { 1000 }),
        None if unit.is_empty() => (0, 1024),
        None => (power(unit)?, 1024),
    };
    base.checked_pow(power)
        .and_then(|unit| number.checked_mul(unit))
        .ok_or_else(|| "the number is too large".to_owned())
}

fn power(letter: &str) -> Result<u32, String> {
    match letter {
        "K" | "k" => Ok(1),
        "M" | "m" => Ok(2),
        "G" | "g" => Ok(3),
        "T" | "t" => Ok(4),
        _ => Err("the unit is not one of K, M, G, T, KiB, KB and so on".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_read_as_gnu_tools_read_them() {
        let cases = [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("17B", Some(17)),
            ("64K", Some(64 << 10)),
            ("64k", Some(64 << 10)),
            ("1MiB", Some(1 << 20)),
            ("10MB", Some(10_000_000)),
            ("2G", Some(2 << 30)),
            ("1T", Some(1 << 40)),
            ("16777215T", Some(16_777_215 << 40)),
            ("16777216T", None),
            ("18446744073709551616", None),
            ("", None),
            ("K", None),
            ("iB", None),
            ("1iB", None),
            ("1 K", None),
            ("1Q", None),
            ("-1", None),
            ("1.5G", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).ok(), want, "{text:?}");
        }
    }
}
