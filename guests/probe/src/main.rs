//! The demo guest: a small kernel at EL1 that tells what Strandline does for it, step by step, and checks each step
//! itself. It ends by SYSTEM_OFF where every check passed, else by SYSTEM_RESET.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(
    target_os = "none",
    expect(
        clippy::result_large_err,
        reason = "a check that fails is the last thing that happens; there is no heap"
    )
)]

#[cfg(target_os = "none")]
mod clean;
#[cfg(target_os = "none")]
mod cpu_writes;
#[cfg(target_os = "none")]
mod device;
#[cfg(target_os = "none")]
mod dma_writes;
#[cfg(target_os = "none")]
mod hello;
#[cfg(target_os = "none")]
mod one_byte;
#[cfg(target_os = "none")]
mod start_stop;
#[cfg(target_os = "none")]
mod story;

#[cfg(target_os = "none")]
mod run {
    use guest_rt::boot::Guest;
    use guest_rt::reason::Checked;
    use guest_rt::{power, println};

    use crate::story::Story;
    use crate::{clean, cpu_writes, device, dma_writes, hello, one_byte, start_stop};

    guest_rt::guest_main!(main);

    fn main(guest: &Guest) -> ! {
        match tell(guest) {
            Ok(checks) => {
                println!();
                println!("probe: all {checks} checks passed");
                power::off()
            }
            Err(reason) => {
                println!("probe: FAILED: {reason}");
                power::fail()
            }
        }
    }

    fn tell(guest: &Guest) -> Checked<u32> {
        let mut story = Story::begin(guest)?;
        hello::introduces_itself(&mut story)?;
        device::copies_memory(&mut story)?;
        device::cannot_leave_the_vm(&mut story)?;
        let before = start_stop::splits_the_blocks(&mut story)?;
        cpu_writes::are_reported_exactly(&mut story)?;
        dma_writes::are_reported_by_the_tier(&mut story)?;
        clean::sees_the_hypervisors_own_writes(&mut story)?;
        clean::discards_what_a_mask_names(&mut story)?;
        start_stop::brings_the_blocks_back(&mut story, &before)?;
        one_byte::shows_as_what_the_log_can_see(&mut story)?;
        Ok(story.checks())
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("probe is a guest kernel: build it with --target aarch64-unknown-none-softfloat");
}
