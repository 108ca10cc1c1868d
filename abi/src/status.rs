//! What a call answers in x0.

use core::fmt;

/// A call's answer where it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All of it is done.
    Done,
    /// A bounded part is done: call again with the same arguments and x5 = the returned x1.
    More,
}

impl Status {
    /// The value in x0.
    #[must_use]
    pub const fn to_x0(self) -> u64 {
        match self {
            Self::Done => 0,
            Self::More => 1,
        }
    }
}

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Why a call failed: few values, each of which says what to change. x1 holds the offending value.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Error {
            $($(#[$doc])* $name,)*
        }

        impl Error {
            /// Every error, in the order of their values.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The value in x0, negative as a signed 64-bit number.
            #[must_use]
            pub const fn to_x0(self) -> u64 {
                let code: i64 = match self {
                    $(Self::$name => $value,)*
                };
                code.cast_unsigned()
            }

            /// The error in x0, or `None` where x0 holds no error of this interface.
            #[must_use]
            pub const fn from_x0(x0: u64) -> Option<Self> {
                match x0.cast_signed() {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for Error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $text,)*
                })
            }
        }
    };
}

errors! {
    /// The call, or what it asks for, does not exist here (the value SMCCC gives to unknown functions).
    NotSupported = -1, "not supported";
    /// An argument has a value it may not have: a reserved bit, a length of zero, a step out of turn.
    InvalidParameter = -3, "invalid parameter";
    /// An address or a length is not aligned as the call wants it.
    Unaligned = -16, "unaligned";
    /// An address or a range is outside what it must lie in, or wraps.
    OutOfRange = -17, "out of range";
    /// The caller may not do this, or not in this state of the log.
    Denied = -18, "denied";
    /// A log is on already, or another call is at work on it: stop it, or try again.
    Busy = -19, "busy";
    /// Table frames are lacking; x1 holds how many the call needed. Nothing was changed.
    NoMemory = -20, "no memory";
    /// Hardware stopped answering: what the log says can't be relied on until it is stopped and started again.
    Untrusted = -21, "untrusted";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_documented_values() {
        let values = [-1, -3, -16, -17, -18, -19, -20, -21];
        assert!(Error::ALL.iter().map(|e| e.to_x0().cast_signed()).eq(values));
        assert_eq!(Error::NotSupported.to_x0(), 0xffff_ffff_ffff_ffff);
        assert_eq!(Error::NoMemory.to_x0(), 0xffff_ffff_ffff_ffec);
    }

    #[test]
    fn an_error_is_read_back_and_a_status_is_none() {
        assert!(Error::ALL.iter().all(|e| Error::from_x0(e.to_x0()) == Some(*e)));
        assert_eq!(Error::from_x0(Status::Done.to_x0()), None);
        assert_eq!(Error::from_x0(Status::More.to_x0()), None);
    }
}
