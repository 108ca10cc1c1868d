//! Calls by the million, of anything with anything, while a device does DMA.

use guest_rt::area::Area;
use guest_rt::boot::{self, Guest};
use guest_rt::edu::{BUFFER_BYTES, Direction, Edu};
use guest_rt::power::{hvc, smc};
use guest_rt::reason::Checked;
use guest_rt::rng::Rng;
use guest_rt::window::Window;
use guest_rt::{check, log, println, reason, timer};
use smccc::psci::{PSCI_CPU_OFF, PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET, PSCI_VERSION};
use strandline_abi::{Call, Features, PAGE_BYTES, bitmap_bytes};

use crate::fuzz::works_afterwards;
use crate::places::cut;

/// Pages that are logged more often than others.
const LOG_PAGES: u64 = 200;
/// x0 of a call that is to be made again.
const MORE: u64 = 1;
/// Between two looks at whether everything is as it should be.
const CALLS_BETWEEN_LOOKS: u64 = 1 << 12;
/// Where QEMU's `virt` has EL2's image: text, data, stack. This guest has RAM of its own at these addresses.
const EL2_IMAGE: [u64; 3] = [0x4021_0000, 0x4024_0000, 0x4028_0000];
/// As much of the end of RAM is left to EL2 too.
const END_BYTES: u64 = 0x2_0000;
/// Behind EL2's image, in that memory.
const EL2_END: u64 = 0x4040_0000;

/// `storm calls=N seed=S`: N random calls (100000). Where EL2 writes, it writes to room that is kept for it.
pub fn random_calls_by_the_million(guest: &Guest) -> Checked {
    let args = guest.tree.args();
    let calls = args.number_or("calls", 100_000)?;
    let mut storm = Storm::new(guest, args.number_or("seed", 1)?)?;
    let features = log::features()?;
    let start = timer::now();
    let (mut done, mut next_look) = (0, 0);
    while done < calls {
        done += storm.strike();
        if done >= next_look {
            storm.look(&features).map_err(|e| reason!("after {done} calls: {e}"))?;
            next_look = done + CALLS_BETWEEN_LOOKS;
        }
    }
    let seconds = (timer::us_since(start) / 1_000_000).max(1);
    println!("{calls} calls, {} a second; {} did something", calls / seconds, storm.answered);
    let Storm { started, stopped, transfers, .. } = storm;
    println!(
        "{started} logs were started and {stopped} stopped, {transfers} transfers made by DMA meanwhile"
    );
    check!(calls < 100_000 || (started > 100 && stopped > 100 && transfers > 0), "too little happened")?;
    storm.ends_well()
}

struct Storm {
    rng: Rng,
    ram: Area,
    /// What EL2 may write to.
    room: Area,
    /// What is logged.
    memory: Area,
    edu: Edu,
    ecam: Window,
    source: Window,
    target: Window,
    answered: u64,
    started: u64,
    stopped: u64,
    transfers: u64,
}

impl Storm {
    fn new(guest: &Guest, seed: u64) -> Checked<Self> {
        let mut free = guest.free;
        let el2 = EL2_END.checked_sub(free.start()).filter(|_| free.start() <= EL2_IMAGE[0]);
        // The bits of all RAM fit behind the last address that EL2 is given.
        let bytes = el2
            .ok_or_else(|| reason!("free RAM does not begin before {:#x}: {free}", EL2_IMAGE[0]))?
            + bitmap_bytes(guest.ram.pages())
            + PAGE_BYTES;
        let room = cut(&mut free, bytes)?.area();
        let memory = cut(&mut free, LOG_PAGES * PAGE_BYTES)?.area();
        let (source, target) = (cut(&mut free, BUFFER_BYTES)?, cut(&mut free, BUFFER_BYTES)?);
        let rest = free.bytes() > END_BYTES && free.end() == guest.ram.end();
        check!(rest, "the end of RAM is not free: {free}")?;
        let ecam = guest.tree.pci()?.ok_or_else(|| reason!("no PCI host bridge"))?.ecam;
        let ecam =
            Window::new(ecam).ok_or_else(|| reason!("configuration space lies over the guest's image"))?;
        let edu = Edu::of(guest)?;
        let (rng, ram) = (Rng::new(seed), guest.ram);
        let (answered, started, stopped, transfers) = (0, 0, 0, 0);
        Ok(Self { rng, ram, room, memory, edu, ecam, source, target, answered, started, stopped, transfers })
    }

    /// One call, or now and then an access to an emulated device. A call of several steps is mostly gone on with, with
    /// others between its steps now and then. Gives back how many calls that were.
    fn strike(&mut self) -> u64 {
        if self.rng.below(64) == 0 {
            self.touch_configuration();
            return 0;
        }
        let function = self.function();
        let mut args = self.arguments(function);
        if self.rng.below(32) == 0 {
            let _ = smc(function, args);
            return 1;
        }
        let mut calls = 1;
        let mut answer = hvc(function, args);
        while answer[0] == MORE && self.rng.below(32) != 0 {
            args[4] = answer[1];
            answer = hvc(function, args);
            calls += 1;
        }
        self.answered += u64::from(answer[0] <= MORE);
        if answer[0] == 0 {
            self.started += u64::from(function == Call::Start.id());
            self.stopped += u64::from(function == Call::Stop.id());
        }
        calls
    }

    /// Calls there are, calls next to those, and any number; none that ends the VM.
    fn function(&mut self) -> u32 {
        let function = match self.rng.below(8) {
            0 => self.rng.next() as u32,
            1 => Call::Features.id() + self.rng.below(16) as u32,
            2 => PSCI_VERSION + self.rng.below(32) as u32 + (self.rng.below(2) as u32 * 0x4000_0000),
            3 => Call::Uid.id() ^ self.rng.below(8) as u32,
            4 => Call::Start.id() + self.rng.below(8) as u32,
            _ => [Call::Sync, Call::Clear, Call::Status, Call::Faults, Call::Read]
                [self.rng.below(5) as usize]
                .id(),
        };
        let ends = [PSCI_CPU_OFF, PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET];
        if ends.contains(&function) { PSCI_VERSION } else { function }
    }

    fn arguments(&mut self, function: u32) -> [u64; 5] {
        let mut args = [0; 5].map(|_: u64| self.value());
        if self.rng.below(2) == 0 {
            // Mostly right, so that something happens.
            args = [self.memory.start(), self.memory.bytes(), PAGE_BYTES, 0, 0];
            if function != Call::Start.id() {
                args[2] = self.room.start();
                args[3] = 1 + self.rng.below(7);
            }
            if self.rng.below(2) == 0 {
                args[self.rng.below(5) as usize] = self.value();
            }
        }
        if self.rng.below(16) != 0 {
            self.empty_unused(function, &mut args);
        }
        self.spare_own(function, &mut args);
        args
    }

    /// What a call has no register for is 0, or it is refused for that alone.
    fn empty_unused(&self, function: u32, args: &mut [u64; 5]) {
        match Call::from_id(function) {
            Some(Call::Stop) => args[..4].fill(0),
            Some(Call::Status | Call::Faults | Call::Devices) => args[2..].fill(0),
            Some(Call::Features) => args.fill(0),
            Some(Call::Read) => args[3] = 0,
            _ => {}
        }
    }

    /// EL2 writes nothing that this program needs.
    fn spare_own(&self, function: u32, args: &mut [u64; 5]) {
        let mut reach = bitmap_bytes(self.ram.pages());
        if function == Call::Read.id() {
            // As much as is read is written; and not much, for copying is most of what a call takes then.
            args[1] = args[1].min(2 * PAGE_BYTES).min(self.room.bytes());
            reach = self.room.bytes();
        }
        for place in [0, 2] {
            if self.is_own(args[place], reach) && function != Call::Start.id() {
                args[place] = self.room.start();
            }
        }
    }

    /// A number: of a place, of a size, or any.
    fn value(&mut self) -> u64 {
        let shift = self.rng.below(64);
        let any = self.rng.next();
        match self.rng.below(17) {
            0 => 0,
            1 => 1 << shift,
            2 => u64::MAX << shift,
            3 => any >> shift,
            4 => any >> shift & !0xfff,
            5 => self.ram.start(),
            6 => self.ram.end() - any % END_BYTES,
            7 => self.ram.end(),
            8 => EL2_IMAGE[self.rng.below(3) as usize] + (any & 0xfff8),
            9 => self.ecam.start() + (any & 0xfff8),
            10 => self.edu.registers().start(),
            11 => self.room.start() + (any & 0xff8),
            12 => self.memory.start() + (any & 0xf_f000),
            13 => self.memory.bytes(),
            14 => self.ram.bytes(),
            // Somewhere in the machine's RAM, where EL2 has its tables.
            15 => EL2_IMAGE[0] + (any & 0x7fff_f000),
            _ => u64::MAX - (any & 0xffff),
        }
    }

    /// Whether EL2, told to write there, would reach what this program needs: all RAM but the room.
    fn is_own(&self, address: u64, reach: u64) -> bool {
        let end = address.saturating_add(reach);
        let in_room = self.room.start() <= address && end <= self.room.end();
        let outside = end <= self.ram.start() || address >= self.ram.end();
        // The last bytes of RAM are nobody's.
        let at_end = address > self.ram.end() - END_BYTES;
        !(in_room || outside || at_end)
    }

    fn touch_configuration(&mut self) {
        let offset = self.rng.below(self.ecam.area().bytes()) & !7;
        // The device's own function too, but not its command register: DMA goes on.
        if self.rng.below(2) == 0 && offset >> 12 != self.edu.function().requester_id() {
            self.ecam.write32(offset, self.rng.next() as u32);
        } else {
            let _ = self.ecam.read64(offset);
        }
    }

    /// The next well-formed call is answered rightly, and the device works.
    fn look(&mut self, features: &Features) -> Checked {
        let now = log::features()?;
        check!(now == *features, "the features changed")?;
        if !self.edu.is_busy() {
            let (direction, address) = match self.transfers % 2 {
                0 => (Direction::FromMemory, self.source.start()),
                _ => (Direction::ToMemory, self.target.start()),
            };
            self.edu.begin(direction, address, BUFFER_BYTES)?;
            self.transfers += 1;
        }
        Ok(())
    }

    /// DMA arrives, and a log that is made now is right.
    fn ends_well(self) -> Checked {
        let start = timer::now();
        while self.edu.is_busy() {
            check!(timer::us_since(start) < 2_000_000, "a DMA does not end")?;
            timer::sleep_us(10_000);
        }
        self.source.fill(0x0dd_ba11);
        self.target.fill(0);
        self.edu.copy(self.source.start(), self.target.start(), BUFFER_BYTES)?;
        let arrived = (0..BUFFER_BYTES).step_by(8).all(|offset| self.target.read64(offset) == 0x0dd_ba11);
        check!(arrived, "the DMA afterwards did not arrive")?;
        check!(
            boot::own_areas().iter().all(|own| !own.overlaps(self.room)),
            "the room is this program's own"
        )?;
        works_afterwards(self.memory, self.room)
    }
}
