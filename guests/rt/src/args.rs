//! The words of a command line: `name` or `key=value`.

/// A command line, as `/chosen` carries it.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a>(pub &'a str);

impl<'a> Args<'a> {
    /// The value of the first word `key=value`.
    #[must_use]
    pub fn value(self, key: &str) -> Option<&'a str> {
        self.0.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// Whether the line has the word `name`.
    #[must_use]
    pub fn has(self, name: &str) -> bool {
        self.0.split_ascii_whitespace().any(|word| word == name)
    }

    /// The number of `key=value`; `default` where the line has no such word.
    ///
    /// # Errors
    /// The value is no number, as [`number`] reads it.
    pub fn number_or(self, key: &'static str, default: u64) -> Result<u64, BadValue<'a>> {
        match self.value(key) {
            None => Ok(default),
            Some(value) => number(value).ok_or(BadValue { key, value }),
        }
    }

    /// The answer of `key=yes` or `key=no`; `default` where the line has no such word.
    ///
    /// # Errors
    /// The value is another one.
    pub fn flag_or(self, key: &'static str, default: bool) -> Result<bool, BadValue<'a>> {
        match self.value(key) {
            None => Ok(default),
            Some("yes") => Ok(true),
            Some("no") => Ok(false),
            Some(value) => Err(BadValue { key, value }),
        }
    }
}

/// A word whose value can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadValue<'a> {
    /// The key.
    pub key: &'static str,
    /// What stands behind `=`.
    pub value: &'a str,
}

impl core::fmt::Display for BadValue<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "bad value '{}' of '{}'", self.value, self.key)
    }
}

/// Reads a number: decimal or `0x` hexadecimal, with an optional unit K, M or G (powers of 1024).
#[must_use]
pub fn number(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let value = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => digits.parse::<u64>().ok()?,
    };
    value.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_belongs_to_the_whole_key() {
        let args = Args("resize=1  size=2M case=start nodma");
        assert_eq!(args.value("size"), Some("2M"));
        assert_eq!(args.value("case"), Some("start"));
        assert_eq!(args.value("nodma"), None);
        assert!(args.has("nodma") && !args.has("case"));
    }

    #[test]
    fn numbers_have_units_and_bases() {
        assert_eq!(number("64"), Some(64));
        assert_eq!(number("2M"), Some(0x20_0000));
        assert_eq!(number("1G"), Some(0x4000_0000));
        assert_eq!(number("0x1f"), Some(31));
        assert_eq!(number(""), None);
        assert_eq!(number("M"), None);
        assert_eq!(number("-1"), None);
        assert_eq!(number("17179869184G"), None);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let args = Args("size=big start=maybe dma=yes");
        assert_eq!(args.number_or("size", 1), Err(BadValue { key: "size", value: "big" }));
        assert_eq!(args.flag_or("start", true), Err(BadValue { key: "start", value: "maybe" }));
        assert_eq!(args.flag_or("dma", false), Ok(true));
        assert_eq!(args.number_or("rounds", 7), Ok(7));
    }
}
