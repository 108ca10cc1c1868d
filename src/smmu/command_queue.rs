//! The Command queue (IHI 0070 §3.5, §3.21.2, §4.1): commands in, completion out, errors repaired.

use crate::addr::Pa;
use crate::frames::FrameBlock;
use crate::hw::{Memory, Platform, Word, wait_until};

use super::device::Device;
use super::errata::Errata;
use super::error::CommandError;
use super::global_error::GlobalErrors;
use super::registers::Registers;
use super::ring::Ring;
use super::spec::command::{COMMAND_BYTES, COMMAND_WORDS, Command, RawCommand};
use super::spec::pages::{Register32, Register64};
use super::spec::registers::{CMDQ_CONS, QUEUE_BASE};

/// The Command queue. Between calls it is empty, unless the SMMU stopped answering.
pub(super) struct CommandQueue {
    base: Pa,
    ring: Ring,
    /// The write index, as CMDQ_PROD holds it or will with the next publication.
    prod: u32,
    /// The write index CMDQ_PROD holds.
    published: u32,
    /// The read index as it was last read: never ahead of the SMMU's, so never too much space is seen.
    cons: u32,
    /// A wait ran out of time: nobody waits again before the SMMU has caught up.
    stuck: bool,
    /// What stands behind the last CMD_SYNC: more than nothing between calls where one has failed.
    run: Run,
    /// The last CMD_RESUME that was written and not dropped, and where it stands, or stood when it was consumed: known while
    /// the queue is at work, and after a wait that ran out of time.
    resume: Option<(Command, u32)>,
    /// A CMD_RESUME that was dropped: its transaction waits for it.
    owed: Option<Command>,
}

/// Commands of one kind behind each other, on a part with [`Errata::SYNC_BETWEEN`].
#[derive(Default)]
struct Run {
    /// The last command's number.
    opcode: u64,
    /// How many of that number there were since the last CMD_SYNC.
    count: u32,
}

/// As many commands of one kind as may follow each other there. Linux's driver, which all these parts have been run
/// with, ends a batch of 63 by a CMD_SYNC.
const MOST_OF_A_KIND: u32 = 63;

impl Run {
    /// The SMMU may have consumed commands, nobody knows which, and none was a CMD_SYNC.
    const UNKNOWN: Self = Self { opcode: 0, count: u32::MAX };

    /// Whether a CMD_SYNC has to stand before `command`, which comes next: it is of another kind than those before it,
    /// or the queue, or what such a part bears, is full of them but for a CMD_SYNC.
    fn needs_sync(&mut self, command: Command, ring: Ring) -> bool {
        if command == Command::Sync {
            *self = Self::default();
            return false;
        }
        let opcode = command.words()[0] & 0xff;
        let most = MOST_OF_A_KIND.min(ring.len() - 1).max(1);
        let ends = self.count != 0 && (opcode != self.opcode || self.count >= most);
        self.opcode = opcode;
        self.count = if ends { 1 } else { self.count + 1 };
        ends
    }
}

impl CommandQueue {
    /// A queue of `2^bits` commands in `block`.
    pub(super) fn new(block: FrameBlock, bits: u32) -> Self {
        let (base, ring) = (block.into_pa(), Ring::new(bits));
        let (run, resume, owed) = (Run::default(), None, None);
        Self { base, ring, prod: 0, published: 0, cons: 0, stuck: false, run, resume, owed }
    }

    /// Bytes of a queue of `2^bits` commands.
    pub(super) const fn bytes(bits: u32) -> u64 {
        COMMAND_BYTES << bits
    }

    /// Gives the registers the empty queue. CR0.CMDQEN is 0; the base comes first, since it decides which index
    /// bits exist (§6.3.26).
    pub(super) fn program<P: Platform, R: Registers>(&self, device: &Device<'_, P, R>) {
        let base = QUEUE_BASE::ALLOCATE::SET
            + QUEUE_BASE::ADDR.val(self.base.0 >> QUEUE_BASE::ADDR.shift)
            + QUEUE_BASE::LOG2SIZE.val(u64::from(self.ring.bits()));
        device.registers.write64(Register64::CmdqBase, base.value);
        device.registers.write32(Register32::CmdqProd, self.prod);
        device.registers.write32(Register32::CmdqCons, self.prod);
    }

    /// Issues `commands` and one CMD_SYNC behind them, and returns when that has completed: then everything the
    /// commands ask for has happened. This is where the errata of commands are dealt with ([`Errata`]).
    ///
    /// Stores this PE made before the call are visible to the SMMU before any of the commands.
    ///
    /// # Errors
    /// The first command the SMMU refused, or that it did not answer in time. A refused command does not keep the
    /// others from being carried out, unless the queue's memory itself could not be read.
    pub(super) fn execute<P: Platform, R: Registers>(
        &mut self,
        device: &Device<'_, P, R>,
        commands: impl IntoIterator<Item = Command> + Clone,
    ) -> Result<(), CommandError> {
        self.ready(device)?;
        if device.errata.contains(Errata::REPEAT) && commands.clone().into_iter().any(|c| c.invalidates()) {
            // The second time when the first time's CMD_SYNC has completed. Stalled transactions are ended once.
            self.execute_once(device, commands.clone().into_iter().filter(Command::invalidates))?;
        }
        self.execute_once(device, commands)
    }

    /// [`CommandQueue::execute`] of a CMD_RESUME, which must be carried out once: a second one could meet another
    /// transaction that has been given the same tag.
    ///
    /// # Errors
    /// As [`CommandQueue::execute`], and whether it was given: where the SMMU does not answer it stays in the queue, and should
    /// it be dropped from there when the SMMU comes back, it is given again. It was not where it was refused for itself.
    pub(super) fn answer<P: Platform, R: Registers>(
        &mut self,
        device: &Device<'_, P, R>,
        resume: Command,
    ) -> Result<(), (CommandError, bool)> {
        self.ready(device).map_err(|error| (error, false))?;
        // Dropped at once: that is the caller's to know.
        self.give(device, resume).inspect_err(|_| self.owed = None)
    }

    /// Gives a CMD_RESUME; where that fails, whether it was: it was not if it could not even be written, or was dropped,
    /// and then it is owed.
    fn give<P: Platform, R: Registers>(
        &mut self,
        device: &Device<'_, P, R>,
        resume: Command,
    ) -> Result<(), (CommandError, bool)> {
        self.resume = None;
        let given = self.execute_once(device, [resume]);
        let written = self.resume.is_some();
        if !self.stuck {
            // The queue is empty: a place in it means nothing any more.
            self.resume = None;
        }
        given.map_err(|error| (error, written))
    }

    /// Gives a CMD_RESUME that was dropped behind its caller's back. What is wrong with others of its batch is nobody's who
    /// calls now.
    fn pay<P: Platform, R: Registers>(&mut self, device: &Device<'_, P, R>) -> Result<(), CommandError> {
        let Some(resume) = self.owed.take() else { return Ok(()) };
        let Err((error, given)) = self.give(device, resume) else { return Ok(()) };
        // Refused for itself twice, not for want of the queue's memory: for ever. The transaction ends with its stream.
        let void = !error.withdrew() && error.is_of(resume);
        self.owed = if given || void { None } else { Some(resume) };
        if self.stuck || self.owed.is_some() { Err(error) } else { Ok(()) }
    }

    /// The first `count` entries from the read index on are dropped: a CMD_RESUME among them is owed.
    fn drop_resume(&mut self, count: u32) {
        if let Some((command, index)) = self.resume
            && self.ring.used(index, self.cons) < count
        {
            (self.resume, self.owed) = (None, Some(command));
        }
    }

    fn execute_once<P: Platform, R: Registers>(
        &mut self,
        device: &Device<'_, P, R>,
        commands: impl IntoIterator<Item = Command>,
    ) -> Result<(), CommandError> {
        let mut refused = None;
        for command in commands.into_iter().chain([Command::Sync]) {
            let written = self.write(device, command, &mut refused);
            // What was written before it may be consumed yet, without a CMD_SYNC.
            written.inspect_err(|_| self.run = Run::UNKNOWN)?;
        }
        self.publish(device);
        self.wait(device, &mut refused, |queue| queue.ring.is_empty(queue.prod, queue.cons))?;
        refused.map_or(Ok(()), Err)
    }

    /// Writes `command`, behind a CMD_SYNC where the part must have one there.
    fn write<P: Platform, R: Registers>(
        &mut self,
        device: &Device<'_, P, R>,
        command: Command,
        refused: &mut Option<CommandError>,
    ) -> Result<(), CommandError> {
        if device.errata.contains(Errata::SYNC_BETWEEN) && self.run.needs_sync(command, self.ring) {
            self.put(device, Command::Sync, refused)?;
        }
        self.put(device, command, refused)
    }

    /// Writes `command` behind the others, as soon as there is room.
    fn put<P: Platform, R: Registers>(
        &mut self,
        device: &Device<'_, P, R>,
        command: Command,
        refused: &mut Option<CommandError>,
    ) -> Result<(), CommandError> {
        if self.ring.is_full(self.prod, self.cons) {
            self.publish(device);
            self.wait(device, refused, |queue| !queue.ring.is_full(queue.prod, queue.cons))?;
        }
        self.push(device, command);
        Ok(())
    }

    /// Writes `command` behind the others, invisible to the SMMU as yet.
    fn push<P: Platform, R: Registers>(&mut self, device: &Device<'_, P, R>, command: Command) {
        self.store(device, self.prod, command);
        if matches!(command, Command::Resume { .. }) {
            self.resume = Some((command, self.prod));
        }
        self.prod = self.ring.next(self.prod);
        let counters = &device.counters;
        counters.commands.add(1);
        match command {
            Command::TlbiS12Vmall(_) => counters.tlbi_vmall.add(1),
            Command::TlbiS2Ipa { .. } => counters.tlbi_ipa.add(1),
            Command::Sync => counters.syncs.add(1),
            Command::CfgiSte { .. } | Command::CfgiAll => counters.cfgi.add(1),
            Command::TlbiEl2All | Command::TlbiNsnhAll | Command::Resume { .. } | Command::StallTerm(_) => {}
        }
    }

    fn entry(&self, index: u32) -> Pa {
        self.base.offset(u64::from(self.ring.slot(index)) * COMMAND_BYTES)
    }

    fn store<P: Memory, R>(&self, device: &Device<'_, P, R>, index: u32, command: Command) {
        let words = device.platform.words(self.entry(index), COMMAND_WORDS);
        for (word, value) in words.iter().zip(command.words()) {
            word.store(value);
        }
    }

    /// Makes the commands written since the last publication the SMMU's: entries, cache clean where it needs one,
    /// barrier, write index, in this order (§3.21.2). The barrier also covers every store made before the commands
    /// were written: descriptors, STEs.
    fn publish<P: Platform, R: Registers>(&mut self, device: &Device<'_, P, R>) {
        for (first, count) in self.ring.spans(self.published, self.prod) {
            device
                .clean(self.base.offset(u64::from(first) * COMMAND_BYTES), u64::from(count) * COMMAND_BYTES);
        }
        device.order_stores();
        device.registers.write32(Register32::CmdqProd, self.prod);
        self.published = self.prod;
    }

    /// Reads CMDQ_CONS, notes its index and gives back the register.
    fn read_cons<P, R: Registers>(&mut self, device: &Device<'_, P, R>) -> u32 {
        let raw = device.registers.read32(Register32::CmdqCons);
        self.cons = self.ring.index(CMDQ_CONS::RD.read(raw));
        raw
    }

    /// Waits until `done`, repairing command errors on the way; the first is left in `refused`.
    fn wait<P: Platform, R: Registers>(
        &mut self,
        device: &Device<'_, P, R>,
        refused: &mut Option<CommandError>,
        done: fn(&Self) -> bool,
    ) -> Result<(), CommandError> {
        let (mut cons, mut withdrawn) = (0, None);
        let in_time = wait_until(device.platform, device.limit_us, || {
            cons = self.read_cons(device);
            if done(self) {
                return true;
            }
            // CONS stands still while CMDQ_ERR is active (§7.1).
            let repaired = self.repair(device);
            *refused = refused.or(repaired);
            withdrawn = repaired.filter(CommandError::withdrew).and(*refused);
            withdrawn.is_some()
        });
        self.stuck = !in_time;
        // With what was withdrawn the batch has ended, a CMD_SYNC that was to stand between its commands among it.
        match withdrawn {
            Some(error) => Err(error),
            None if in_time => Ok(()),
            None => Err(CommandError::Timeout { cons }),
        }
    }

    /// Fails where commands could not even be written, since earlier ones have not been consumed in time; gives what is
    /// owed before them.
    fn ready<P: Platform, R: Registers>(&mut self, device: &Device<'_, P, R>) -> Result<(), CommandError> {
        if self.stuck {
            self.recover(device)?;
        }
        self.pay(device)
    }

    /// After a time-out: the queue is fit for use again if the SMMU has worked it off meanwhile. Does not wait.
    fn recover<P: Platform, R: Registers>(&mut self, device: &Device<'_, P, R>) -> Result<(), CommandError> {
        // What was refused belongs to a batch that has failed already.
        let _of_the_failed_batch = self.repair(device);
        let cons = self.read_cons(device);
        self.stuck = !self.ring.is_empty(self.prod, self.cons);
        if self.stuck {
            return Err(CommandError::Timeout { cons });
        }
        self.resume = None;
        Ok(())
    }

    /// If CMDQ_ERR is active: takes the command CONS points at out of the queue, lets the SMMU go on, and says what
    /// was refused.
    ///
    /// While the error is active, the SMMU has dropped what it had fetched, and entries from CONS on may be changed
    /// (§7.1). An illegal command becomes a CMD_SYNC, which has no parameters to get wrong; a CMD_SYNC that could
    /// not complete an ATC invalidation is tried again. Where the queue could not be read, trying again would abort
    /// again: everything not yet consumed is withdrawn, by moving the write index back.
    pub(super) fn repair<P: Platform, R: Registers>(
        &mut self,
        device: &Device<'_, P, R>,
    ) -> Option<CommandError> {
        if device.active_errors() & GlobalErrors::COMMAND_QUEUE.bits() == 0 {
            return None;
        }
        let code = CMDQ_CONS::ERR.read(self.read_cons(device));
        let offender = self.entry(self.cons);
        let found = device.platform.words(offender, COMMAND_WORDS);
        let command = RawCommand([found[0].load(), found[1].load()]);
        if code == u32::from(CommandError::ABORT) {
            self.withdraw(device);
        } else if code != CMDQ_CONS::ERR::Value::AtcInvalidateSync as u32 {
            self.drop_resume(1);
            self.store(device, self.cons, Command::Sync);
            device.make_visible(offender, COMMAND_BYTES);
        }
        device.acknowledge(GlobalErrors::COMMAND_QUEUE.bits());
        Some(CommandError::Refused { code: code as u8, command })
    }

    /// Takes back every command not yet consumed; allowed while a command error is active, and only then (§7.1).
    fn withdraw<P: Platform, R: Registers>(&mut self, device: &Device<'_, P, R>) {
        self.drop_resume(self.ring.used(self.prod, self.cons));
        self.prod = self.cons;
        self.published = self.cons;
        self.run = Run::UNKNOWN;
        device.registers.write32(Register32::CmdqProd, self.cons);
    }
}
