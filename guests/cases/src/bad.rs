//! Every bad input, with the error it is answered by; nothing changes.

use guest_rt::area::Area;
use guest_rt::bitmap::Bitmap;
use guest_rt::boot::Guest;
use guest_rt::edu::Edu;
use guest_rt::log::{self, Failure};
use guest_rt::reason::Checked;
use guest_rt::window::Window;
use guest_rt::{check, println, reason};
use strandline_abi::{Call, Error, Flags, PAGE_BYTES};

use crate::bad_log;
use crate::places::cut;

/// Pages of the log that is on while calls are refused.
const LOG_PAGES: u64 = 100;
/// Those of them that are written before.
const WRITTEN: [u64; 4] = [0, 1, 64, 99];
/// Behind no VM's memory, and so large that sums with it wrap.
pub const LAST_PAGE: u64 = 0xffff_ffff_ffff_f000;

/// What bad requests are made of.
pub struct Pieces {
    /// RAM of the guest.
    pub ram: Area,
    /// A range of it that is logged, or would be.
    pub area: Area,
    /// Where its bits go.
    pub bits: u64,
    /// Addresses at which there is no RAM: behind and below it, far away, and device registers.
    pub not_ram: [u64; 7],
}

/// A request, and the answer it has to have.
pub struct Attempt {
    /// What is wrong with it.
    pub what: &'static str,
    /// Function identifier.
    pub function: u32,
    /// x1..x5.
    pub args: [u64; 5],
    /// The error.
    pub error: Error,
    /// What x1 holds, where one argument alone is to blame.
    pub value: Option<u64>,
}

impl Attempt {
    /// Makes the request, and finds the answer right and the log's state as it was.
    ///
    /// # Errors
    /// Something else happened.
    pub fn make(&self) -> Checked {
        let what = self.what;
        let before = log::status()?;
        let answer = log::step(self.function, self.args);
        let after = log::status()?;
        let wanted = match (answer, self.value) {
            (Err(Failure::Refused(error, value)), Some(offending)) => {
                error == self.error && value == offending
            }
            (Err(Failure::Refused(error, _)), None) => error == self.error,
            _ => false,
        };
        if !wanted {
            return Err(match answer {
                Ok(_) => reason!("{what}: accepted, not answered by '{}': {:#x?}", self.error, self.args),
                Err(other) => {
                    reason!("{what}: answered by '{other}', not by '{}': {:#x?}", self.error, self.args)
                }
            });
        }
        check!(before == after, "{what}: refused, but the state of the log changed")
    }
}

/// `bad`: refused with no log and with a log on; the log's content is the same afterwards.
pub fn every_bad_input_is_refused(guest: &Guest) -> Checked {
    let mut free = guest.free;
    let (bits, memory) = (cut(&mut free, PAGE_BYTES)?, cut(&mut free, LOG_PAGES * PAGE_BYTES)?);
    let pieces = pieces(guest, &bits, memory.area())?;
    let mut count = 0;
    let mut attempt = |attempt: Attempt| {
        count += 1;
        attempt.make()
    };
    unknown_functions(&mut attempt)?;
    bad_log::starts(&pieces, &mut attempt)?;
    bad_log::without_a_log(&pieces, &mut attempt)?;
    bad_log::buffers(&pieces, &mut attempt)?;

    log::start(memory.area())?;
    for page in WRITTEN {
        memory.write64(page * PAGE_BYTES, 1);
    }
    same_content(&memory, &bits).map_err(|e| reason!("before the bad calls: {e}"))?;
    unknown_functions(&mut attempt)?;
    bad_log::second_starts(&pieces, &mut attempt)?;
    bad_log::reads(&pieces, &mut attempt)?;
    bad_log::buffers(&pieces, &mut attempt)?;
    bad_log::stops(&mut attempt)?;
    same_content(&memory, &bits).map_err(|e| reason!("after the bad calls: {e}"))?;
    log::stop()?;
    println!("{count} bad calls were refused");
    Ok(())
}

fn pieces(guest: &Guest, bits: &Window, area: Area) -> Checked<Pieces> {
    let ram = guest.ram;
    let edu = Edu::of(guest)?;
    let ecam = guest.tree.pci()?.ok_or_else(|| reason!("no PCI host bridge"))?.ecam;
    let uart = guest.tree.uart()?;
    let not_ram = [
        0,
        ram.start() - PAGE_BYTES,
        ram.end(),
        1 << 47,
        uart.start(),
        ecam.start(),
        edu.registers().start(),
    ];
    Ok(Pieces { ram, area, bits: bits.start(), not_ram })
}

/// The log has exactly the written pages, and keeps them.
fn same_content(memory: &Window, bits: &Window) -> Checked {
    log::sync(memory.area(), bits, Flags::CPU)?;
    Bitmap::new(bits, LOG_PAGES).compare(0..LOG_PAGES, &WRITTEN).map_err(|e| reason!("{e}"))
}

/// Functions next to those there are, a 32-bit form, and ones of other owners.
fn unknown_functions(attempt: &mut impl FnMut(Attempt) -> Checked) -> Checked {
    let behind = Call::Read.id() + 1;
    let short = Call::Start.id() & !(1 << 30);
    for function in [behind, 0xc600_00ff, 0xc600_ffff, short, 0x8600_ff02, 0xc500_0000] {
        attempt(Attempt {
            what: "unknown function",
            function,
            args: [0; 5],
            error: Error::NotSupported,
            value: None,
        })?;
    }
    Ok(())
}
