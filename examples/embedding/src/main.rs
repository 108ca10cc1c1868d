//! Strandline's library in a program of its own at EL2, on QEMU's virt machine; `docs/library.md` tells how to run it.
#![no_std]
#![no_main]

mod board;
mod story;
use core::arch::{asm, global_asm};
use core::{fmt, fmt::Write, ptr};

use strandline::addr::{Ipa, Pa, StreamId};
use strandline::smmu::Mmio;

/// Where the virt machine has what is used here; function 00:01.0 of its PCI bus is stream 8.
const UART: usize = 0x900_0000;
const SMMU: usize = 0x905_0000;
const PCI_WINDOW: usize = 0x1000_0000;
const EDU_CONFIG: usize = 0x40_1000_8000;

global_asm!(".global entry", "entry:", "adrp x1, stack_top", "mov sp, x1", "b {main}", main = sym main);

extern "C" fn main() -> ! {
    map_everything();
    // SAFETY: the virt machine has an SMMUv3's registers there, mapped as device memory and used by nobody else.
    let smmu = unsafe { Mmio::at(SMMU as *mut u8) }.expect("an SMMU can be there");
    let (board, ram) = (board::Board::default(), Pa(board::GUEST_RAM));
    story::tell(&board, smmu, ram, StreamId(8), edu_writes, &mut Uart).expect("it is told");
    let _ = writeln!(Uart, "embedding: succeeded");
    power_off()
}

/// Has the edu device write eight bytes to `to` by DMA, and waits until it has (QEMU, docs/specs/edu.rst).
fn edu_writes(to: Ipa) {
    assert_eq!(read::<u32>(EDU_CONFIG), 0x11e8_1234, "the machine has no edu device at 00:01.0");
    write(EDU_CONFIG + 0x10, PCI_WINDOW as u32);
    write(EDU_CONFIG + 0x04, 0b110_u16);
    for (register, value) in [(0x80, 0x4_0000), (0x88, to.0), (0x90, 8), (0x98, 0b11)] {
        write(PCI_WINDOW + register, value);
    }
    while read::<u64>(PCI_WINDOW + 0x98) & 1 != 0 {}
}

fn write<T>(address: usize, value: T) {
    // SAFETY: called with addresses of this machine's device registers, of the width that they have.
    unsafe { ptr::write_volatile(address as *mut T, value) }
}
fn read<T>(address: usize) -> T {
    // SAFETY: as `write`.
    unsafe { ptr::read_volatile(address as *const T) }
}

/// EL2's own mapping, a GiB an entry, each at its own address: atomics need cacheable memory. The first is devices', the
/// second RAM, and PCI's configuration space is in the 257th.
#[repr(align(4096))]
struct Table(#[expect(dead_code, reason = "the MMU reads it")] [u64; 512]);
static TABLE: Table = {
    const DEVICE: u64 = 1 << 54 | 1 << 10 | 1 << 6 | 1;
    const RAM: u64 = 1 << 10 | 0b11 << 8 | 1 << 6 | 1 << 2 | 1;
    let mut table = [0; 512];
    table[0] = DEVICE;
    table[1] = 0x4000_0000 | RAM;
    table[256] = 0x40_0000_0000 | DEVICE;
    Table(table)
};

fn map_everything() {
    // SAFETY: what is used is mapped at the address it has already. MAIR: 0 is Device-nGnRE, 1 write-back. TCR: 39 bits,
    // write-back inner shareable walks, 40-bit output. SCTLR: MMU and caches on.
    unsafe {
        asm!("msr mair_el2, {}", "msr tcr_el2, {}", "msr ttbr0_el2, {}", "tlbi alle2", "dsb sy", "isb",
            "msr sctlr_el2, {}", "isb",
            in(reg) 0xff04_u64, in(reg) 0x8082_3519_u64, in(reg) &raw const TABLE, in(reg) 0x30c5_1835_u64);
    }
}

struct Uart;
impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| write(UART, u32::from(byte)));
        Ok(())
    }
}

fn power_off() -> ! {
    // SAFETY: PSCI's SYSTEM_OFF ends the machine.
    unsafe { asm!("smc #0", "2: wfi", "b 2b", in("x0") 0x8400_0008_u64, options(noreturn)) }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Uart, "embedding: failed: {info}");
    power_off()
}
