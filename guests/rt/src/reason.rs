//! Why a check failed, in words: a line of text without an allocator.

use core::fmt;

const CAPACITY: usize = 240;

/// A line of text; what does not fit is cut off.
#[derive(Clone)]
pub struct Reason {
    text: [u8; CAPACITY],
    len: usize,
}

/// The result of a check, or of a step made of checks.
pub type Checked<T = ()> = Result<T, Reason>;

impl Reason {
    /// The text that `args` make.
    #[must_use]
    pub fn new(args: fmt::Arguments<'_>) -> Self {
        let mut reason = Self { text: [0; CAPACITY], len: 0 };
        // Writing into the buffer does not fail; what a `Display` of ours writes before it fails is kept.
        let _ = fmt::write(&mut reason, args);
        reason
    }
}

impl fmt::Write for Reason {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            let mut utf8 = [0; 4];
            let bytes = c.encode_utf8(&mut utf8).as_bytes();
            let Some(room) = self.text.get_mut(self.len..self.len + bytes.len()) else {
                return Ok(());
            };
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
        Ok(())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(core::str::from_utf8(&self.text[..self.len]).unwrap_or("(unreadable)"))
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<crate::args::BadValue<'_>> for Reason {
    fn from(bad: crate::args::BadValue<'_>) -> Self {
        Self::new(format_args!("{bad}"))
    }
}

/// `Ok` where the condition holds, else a [`Reason`] with the formatted text.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($text:tt)+) => {
        if $condition {
            Ok(())
        } else {
            Err($crate::reason::Reason::new(::core::format_args!($($text)+)))
        }
    };
}

/// A [`Reason`] with the formatted text.
#[macro_export]
macro_rules! reason {
    ($($text:tt)+) => { $crate::reason::Reason::new(::core::format_args!($($text)+)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_fails_says_why() {
        assert!(check!(1 < 2, "never seen").is_ok());
        let reason: Checked = check!(2 < 1, "{} is not below {}", 2, 1);
        assert_eq!(reason.unwrap_err().to_string(), "2 is not below 1");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = reason!("x{}", "é".repeat(200));
        assert_eq!(long.to_string().len(), 239);
    }
}
