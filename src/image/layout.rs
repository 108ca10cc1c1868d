//! Where the parts of the image lie, as the linker script says and the loader decided.
#![expect(unsafe_code, reason = "declares the linker's symbols")]

use core::ffi::c_void;
use core::ops::Range;

macro_rules! symbols {
    ($($name:ident),* $(,)?) => {
        unsafe extern "C" {
            $(static $name: c_void;)*
        }
    };
}

symbols!(
    image_start,
    image_end,
    text_start,
    text_end,
    rodata_start,
    rodata_end,
    data_start,
    data_end,
    stack_guard_start,
    stack_start,
    stack_end,
    emergency_guard_start,
    emergency_stack_start,
    emergency_stack_end,
);

macro_rules! range {
    ($(#[$doc:meta])* $name:ident, $start:ident, $end:ident) => {
        $(#[$doc])*
        pub fn $name() -> Range<u64> {
            (&raw const $start).addr() as u64..(&raw const $end).addr() as u64
        }
    };
}

range!(
    /// All of it, guard pages and stacks included.
    image, image_start, image_end
);
range!(
    /// Code.
    text, text_start, text_end
);
range!(
    /// Constants, and the tables the entry code relocated.
    rodata, rodata_start, rodata_end
);
range!(
    /// Initialised data and `.bss`.
    data, data_start, data_end
);
range!(
    /// The stack.
    stack, stack_start, stack_end
);
range!(
    /// The page below the stack.
    stack_guard, stack_guard_start, stack_start
);
range!(
    /// The stack of EL2's own exceptions.
    emergency_stack, emergency_stack_start, emergency_stack_end
);
range!(
    /// The page below the emergency stack.
    emergency_guard, emergency_guard_start, emergency_stack_start
);
