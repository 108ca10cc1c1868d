//! What the steps share: the places in RAM they use, the device, and the count of checks.

use core::fmt;

use guest_rt::area::{Area, Size};
use guest_rt::bitmap::{Bitmap, Mismatch};
use guest_rt::boot::Guest;
use guest_rt::edu::Edu;
use guest_rt::reason::Checked;
use guest_rt::rng::Rng;
use guest_rt::window::Window;
use guest_rt::{println, reason};
use strandline_abi::{LogStatus, PAGE_BYTES, bitmap_bytes};

/// How many steps the story has.
const STEPS: u32 = 10;
/// The same on every run, so that two runs can be compared.
const SEED: u64 = 0x7374_7261_6e64_6c69;
/// The fewest pages the playground must have.
const LEAST_PAGES: u64 = 2048;

/// The story's state.
pub struct Story<'a> {
    /// The guest.
    pub guest: &'a Guest,
    /// The device, unless the command line says `nodma`.
    pub edu: Option<Edu>,
    /// Where in RAM things are.
    pub places: Places,
    /// Random numbers.
    pub rng: Rng,
    step: u32,
    checks: u32,
}

/// Parts of the free RAM, none of which overlaps another.
pub struct Places {
    /// The log's bits: one for each page of RAM.
    pub bitmap: Window,
    /// Bits for the pages of `bitmap` itself.
    pub bitmap_bits: Window,
    /// A page a DMA reads.
    pub source: Window,
    /// A page a DMA writes.
    pub target: Window,
    /// All the rest: whatever is written there is written on purpose.
    pub playground: Window,
}

impl Places {
    fn cut(guest: &Guest) -> Option<Self> {
        let mut free = guest.free;
        let mut cut = |bytes| Window::new(free.cut(bytes)?);
        let bitmap = cut(bitmap_bytes(guest.ram.pages()))?;
        let bitmap_bits = cut(bitmap_bytes(bitmap.area().pages()))?;
        let (source, target) = (cut(PAGE_BYTES)?, cut(PAGE_BYTES)?);
        let playground = Window::new(free)?;
        (free.pages() >= LEAST_PAGES).then_some(Self { bitmap, bitmap_bits, source, target, playground })
    }
}

impl<'a> Story<'a> {
    /// Finds the device and divides the RAM.
    ///
    /// # Errors
    /// There is too little RAM, or no edu device where one is wanted.
    pub fn begin(guest: &'a Guest) -> Checked<Self> {
        println!("probe: a guest kernel that watches what is written to its memory, and by whom");
        println!(
            "RAM {} ({}, {} pages of 4 KiB), of which {} is free",
            guest.ram,
            Size(guest.ram.bytes()),
            guest.ram.pages(),
            guest.free
        );
        let places = Places::cut(guest).ok_or_else(|| reason!("too little free RAM: {}", guest.free))?;
        let edu = if guest.tree.args().has("nodma") { None } else { Some(Edu::of(guest)?) };
        Ok(Self { guest, edu, places, rng: Rng::new(SEED), step: 0, checks: 0 })
    }

    /// Prints the headline of the next step.
    pub fn next_step(&mut self, headline: &str) {
        self.step += 1;
        println!();
        println!("[{}/{STEPS}] {headline}", self.step);
    }

    /// Counts a check and says what holds.
    ///
    /// # Errors
    /// It does not hold.
    pub fn check(&mut self, holds: bool, what: fmt::Arguments<'_>) -> Checked {
        if !holds {
            return Err(reason!("step {}: this does not hold: {what}", self.step));
        }
        self.checks += 1;
        println!("  ok: {what}");
        Ok(())
    }

    /// Counts the comparison of a bitmap with what was expected, and says what holds.
    ///
    /// # Errors
    /// They differ.
    pub fn compare(&mut self, found: Result<(), Mismatch>, what: fmt::Arguments<'_>) -> Checked {
        match found {
            Ok(()) => self.check(true, what),
            Err(mismatch) => Err(reason!("step {}: {mismatch}; this does not hold: {what}", self.step)),
        }
    }

    /// How many checks have passed.
    pub const fn checks(&self) -> u32 {
        self.checks
    }

    /// All the RAM.
    pub const fn ram(&self) -> Area {
        self.guest.ram
    }

    /// The bits of all RAM, as the last sync over all RAM left them.
    pub const fn ram_bits(&self) -> Bitmap<'_, Window> {
        Bitmap::new(&self.places.bitmap, self.guest.ram.pages())
    }

    /// The number of the page at `address`, counted from the start of RAM.
    pub const fn page_of(&self, address: u64) -> u64 {
        (address - self.guest.ram.start()) / PAGE_BYTES
    }
}

/// SMMU commands that were issued between two looks at the statistics.
pub struct Commands {
    /// All.
    pub all: u64,
    /// CMD_TLBI_S12_VMALL.
    pub vmall: u64,
    /// CMD_TLBI_S2_IPA.
    pub ipa: u64,
    /// CMD_SYNC.
    pub syncs: u64,
}

impl Commands {
    /// What was issued from `before` to `after`.
    pub const fn between(before: &LogStatus, after: &LogStatus) -> Self {
        Self {
            all: after.smmu_commands.wrapping_sub(before.smmu_commands),
            vmall: after.smmu_tlbi_vmall.wrapping_sub(before.smmu_tlbi_vmall),
            ipa: after.smmu_tlbi_ipa.wrapping_sub(before.smmu_tlbi_ipa),
            syncs: after.smmu_syncs.wrapping_sub(before.smmu_syncs),
        }
    }

    /// Prints them, with the number of hypercalls the operation took.
    pub fn show(&self, operation: &str, calls: u32) {
        let Self { all, vmall, ipa, syncs } = self;
        println!(
            "  {operation}: {calls} hypercall(s); SMMU commands: {all} ({vmall} TLBI_S12_VMALL, {ipa} TLBI_S2_IPA, \
             {syncs} SYNC)"
        );
    }
}
