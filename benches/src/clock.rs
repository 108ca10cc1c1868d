//! Time that work took, on a machine that does other things as well.
#![expect(unsafe_code, reason = "the clock of a thread is libc's")]

use std::time::{Duration, Instant};

/// Below this a thread's own clock, which is asked by a system call, would tell of itself.
const SHORT: Duration = Duration::from_micros(50);

/// How long `work` took: the thread's own time, which does not run while others have its CPU; where it was short, so that
/// nobody is likely to have come between, the time that passed.
pub fn time(work: impl FnOnce()) -> Duration {
    let own = own_time();
    let began = Instant::now();
    work();
    let passed = began.elapsed();
    if passed < SHORT { passed } else { own_time().saturating_sub(own) }
}

/// Time this thread has had a CPU.
fn own_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is there to be written, for as long as the call lasts.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
