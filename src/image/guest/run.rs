//! Running a VM: what brings its vCPU to EL2, and what EL2 answers.

use core::fmt;

use alloc::format;
use alloc::string::String;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTV_CTL_EL0, CNTV_CVAL_EL0, Readable, VTTBR_EL2, Writeable};
use strandline::dirty_log::WriteFault;
use strandline::hypercall;
use strandline::smmu::{Access, FaultEvent};
use strandline_abi::{Call, FaultRecord};

use super::{Guest, Host, create};
use crate::aarch32;
use crate::console::say;
use crate::cpu;
use crate::guest_map;
use crate::id_registers;
use crate::inject::Fault;
use crate::irq;
use crate::masked;
use crate::mmio::{self, MmioAccess, NotMmio};
use crate::psci::{self, Answer};
use crate::smmus::{EventSink, Inbox, RealSmmu, Stream};
use crate::timer;
use crate::trapped::{self, SystemAccess};
use crate::vcpu::{Exit, Vcpu};
use crate::vpci;
use crate::write_protect::{self, Writer};

/// How a VM ended.
#[derive(Clone, Debug)]
pub enum Ending {
    /// By SYSTEM_OFF.
    Off,
    /// By SYSTEM_RESET.
    Reset,
    /// Its last vCPU switched itself off.
    LastCpuOff,
    /// It did what it may not, and was stopped; says what.
    Stopped(String),
}

impl Ending {
    /// Whether it ended as it should.
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Off)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("ended by SYSTEM_OFF"),
            Self::Reset => f.write_str("ended by SYSTEM_RESET"),
            Self::LastCpuOff => f.write_str("ended, as its last CPU went off without SYSTEM_OFF"),
            Self::Stopped(why) => write!(f, "stopped: {why}"),
        }
    }
}

/// ESR_EL2.EC (Arm ARM D19.2.40): why an exception was taken.
mod class {
    pub const WFX: u64 = 0x01;
    pub const HVC64: u64 = 0x16;
    pub const SMC64: u64 = 0x17;
    pub const SYSTEM_REGISTER: u64 = 0x18;
    pub const INSTRUCTION_ABORT: u64 = 0x20;
    pub const DATA_ABORT: u64 = 0x24;
}
const EC_SHIFT: u32 = 26;
const EC_MASK: u64 = 0x3f;
/// ISS of a trapped WFI or WFE, TI: 0 is WFI (the field is WFE or WFxT otherwise).
const WFX_NOT_WFI: u64 = 0b11;
/// The longest a WFI without a timer sleeps: there are no virtual interrupts yet that could end it.
const NAP_US: u64 = 10_000;
/// How many faults of a VM's devices are told on the console.
const TOLD_FAULTS: u32 = 8;
/// How many exceptions that a VM was given are told on the console.
const TOLD_EXCEPTIONS: u32 = 8;
/// ISS of HVC: the immediate. All but 0 are reserved.
const HVC_IMMEDIATE: u64 = 0xffff;
/// SMCCC's answer to what is not there.
const SMCCC_NOT_SUPPORTED: u64 = u64::MAX;

impl Guest<'_> {
    /// Runs it to its end.
    pub fn run(&mut self, host: &Host<'_>, smmus: &[RealSmmu], inbox: &mut Inbox) -> Ending {
        self.enter_views(host);
        loop {
            let exit = self.vcpu.run();
            let ended = self.answer(exit, host, smmus, inbox);
            inbox.attend(smmus, &mut self.sink());
            if let Some(ending) = ended {
                let name = self.name;
                self.uart.flush(|line| say!("{name}| {line}"));
                Vcpu::leave(host.cpu);
                return ending;
            }
        }
    }

    /// Makes this CPU walk the VM's CPU view, with EL1 as out of reset.
    #[expect(unsafe_code, reason = "VTCR_EL2 has no writable type")]
    fn enter_views(&self, host: &Host<'_>) {
        let space = self.vm.space.read();
        let view = space.cpu_view();
        let vttbr = view.walker.vttbr(&view.tree);
        // SAFETY: stage 2 is used by EL1 and EL0 alone, which run nothing now.
        unsafe { crate::sysreg::write_sysreg!("vtcr_el2", self.vtcr) };
        VTTBR_EL2.set(crate::platform::vttbr_word(vttbr));
        barrier::isb(barrier::SY);
        Vcpu::init_el1(0, host.cpu);
    }

    fn answer(
        &mut self,
        exit: Exit,
        host: &Host<'_>,
        smmus: &[RealSmmu],
        inbox: &mut Inbox,
    ) -> Option<Ending> {
        match exit {
            Exit::Irq | Exit::Fiq => {
                irq::handle();
                None
            }
            Exit::SError { esr } => {
                let pc = self.vcpu.pc;
                Some(Ending::Stopped(format!("asynchronous external abort (ESR {esr:#x}), PC {pc:#x}")))
            }
            Exit::Sync { esr, .. } if !aarch32::condition_holds(esr, self.vcpu.pstate) => {
                self.vcpu.skip_instruction(esr);
                None
            }
            Exit::Sync { esr, far, hpfar } => match esr >> EC_SHIFT & EC_MASK {
                class::HVC64 if esr & HVC_IMMEDIATE == 0 => self.call(host, smmus, inbox),
                class::HVC64 => {
                    self.vcpu.x[0] = SMCCC_NOT_SUPPORTED;
                    None
                }
                class::SMC64 => {
                    // A trapped SMC has not been executed; firmware calls are made by HVC.
                    self.vcpu.skip_instruction(esr);
                    self.vcpu.x[0] = SMCCC_NOT_SUPPORTED;
                    None
                }
                class::WFX => {
                    self.vcpu.skip_instruction(esr);
                    if esr & WFX_NOT_WFI == 0 {
                        sleep();
                    }
                    None
                }
                class::DATA_ABORT | class::INSTRUCTION_ABORT if self.was_clean(host, esr, far, hpfar) => None,
                class::DATA_ABORT => self.data_abort(host, esr, far, hpfar),
                class::INSTRUCTION_ABORT => {
                    let place = mmio::place_of_fault(esr, far, hpfar);
                    let by = if mmio::is_walk(esr) { "by page tables at" } else { "from" };
                    self.inject(Fault::Instruction { far }, format_args!("instruction fetch {by} {place}"))
                }
                class::SYSTEM_REGISTER => self.system_register(esr),
                // What is left are instructions that trap.
                _ => self.undefined(esr),
            },
        }
    }

    /// Has the guest take an exception, and tells the first few on the console. Ends the VM where that leads nowhere.
    fn inject(&mut self, fault: Fault, what: fmt::Arguments<'_>) -> Option<Ending> {
        let pc = self.vcpu.pc;
        if !self.vcpu.inject(fault) {
            return Some(Ending::Stopped(format!("{what}, at PC {pc:#x}, its exception vector")));
        }
        self.told_exceptions = self.told_exceptions.saturating_add(1);
        if self.told_exceptions <= TOLD_EXCEPTIONS {
            say!("strandline: VM {}: {what}, at PC {pc:#x}: it gets an exception", self.name);
        }
        None
    }

    /// Whether an abort was a write to a page that is clean in a log: it is recorded and open then, and the guest tries
    /// again. So it does where its own tables have changed since.
    fn was_clean(&self, host: &Host<'_>, esr: u64, far: u64, hpfar: u64) -> bool {
        let fetch = esr >> EC_SHIFT & EC_MASK == class::INSTRUCTION_ABORT;
        let ipa = match write_protect::writer(esr, fetch) {
            None => return false,
            Some(Writer::Walk) => Some(mmio::faulting_ipa(0, hpfar)),
            Some(Writer::Instruction) => self.vcpu.translate(far),
        };
        let answer = |ipa| self.vm.space.read().write_fault(host.platform, ipa);
        ipa.is_none_or(|ipa| answer(ipa) == WriteFault::Recorded)
    }

    fn undefined(&mut self, esr: u64) -> Option<Ending> {
        self.inject(Fault::Undefined, format_args!("an instruction it may not use (ESR {esr:#x})"))
    }

    fn system_register(&mut self, esr: u64) -> Option<Ending> {
        let access = SystemAccess::decode(esr);
        let value = match access.answer() {
            trapped::Answer::Undefined => return self.undefined(esr),
            trapped::Answer::Identification => {
                let [.., crm, op2] = access.register;
                id_registers::shown(crm, op2, cpu::id_register(crm, op2))
            }
            trapped::Answer::Nothing => 0,
        };
        if let (true, Some(register)) = (access.read, self.vcpu.x.get_mut(usize::from(access.rt))) {
            *register = value;
        }
        self.vcpu.skip_instruction(esr);
        None
    }

    /// HVC: our own calls, or the guest's firmware.
    fn call(&mut self, host: &Host<'_>, smmus: &[RealSmmu], inbox: &mut Inbox) -> Option<Ending> {
        let x = &self.vcpu.x;
        let (id, arguments) = (hypercall::function_id(x[0]), [x[1], x[2], x[3], x[4], x[5]]);
        if id == Call::Faults.id() {
            // What has happened is told even where its interrupt has not come yet.
            inbox.poll(smmus, &mut self.sink());
        }
        masked::begin();
        let reply = hypercall::dispatch(host.platform, &self.vm, id, &arguments);
        masked::end(id);
        if let Some(reply) = reply {
            self.vcpu.x[..reply.len()].copy_from_slice(&reply);
            return None;
        }
        match psci::call(id, arguments[0]) {
            Answer::Value(value) => {
                self.vcpu.x[..4].copy_from_slice(&[value, 0, 0, 0]);
                None
            }
            Answer::Off => Some(Ending::Off),
            Answer::Reset => Some(Ending::Reset),
            Answer::LastCpuOff => Some(Ending::LastCpuOff),
        }
    }

    /// An access outside what is mapped: emulated, or answered by an abort, as where no device is.
    fn data_abort(&mut self, host: &Host<'_>, esr: u64, far: u64, hpfar: u64) -> Option<Ending> {
        let access = match mmio::decode(esr, far, hpfar) {
            Ok(access) => access,
            Err(NotMmio::CacheMaintenance) => {
                // No cache has anything of what is not mapped.
                self.vcpu.skip_instruction(esr);
                return None;
            }
            Err(why) => {
                let place = mmio::place_of_fault(esr, far, hpfar);
                return self.inject(Fault::Data { esr, far }, format_args!("access to {place}: {why}"));
            }
        };
        if let Some(offset) = access.offset_in(guest_map::UART, guest_map::UART_BYTES) {
            self.uart_access(&access, offset);
        } else if let (Some(offset), Some(pci)) =
            (access.offset_in(guest_map::ECAM, guest_map::ECAM_BYTES), &host.pci)
        {
            if access.write {
                let value = access.stored(&self.vcpu.x);
                self.pci.write(&pci.ecam, offset, access.width, value);
            } else {
                let value = self.pci.read(&pci.ecam, offset, access.width);
                access.load(&mut self.vcpu.x, value);
            }
        } else {
            let what = if access.write { "write to" } else { "read from" };
            return self.inject(
                Fault::Data { esr, far },
                format_args!("{what} {}, where it has no memory", access.ipa),
            );
        }
        self.vcpu.skip_instruction(esr);
        None
    }

    fn uart_access(&mut self, access: &MmioAccess, offset: u64) {
        if access.write {
            let name = self.name;
            self.uart.write(offset, access.stored(&self.vcpu.x), |line| say!("{name}| {line}"));
        } else {
            let value = self.uart.read(offset, access.width);
            access.load(&mut self.vcpu.x, value);
        }
    }

    /// Who takes the events of its devices.
    fn sink(&mut self) -> DeviceFaults<'_> {
        DeviceFaults {
            name: self.name,
            streams: &self.streams,
            faults: &self.vm.faults,
            told: &mut self.told,
        }
    }

    /// Takes it apart, in the order that leaves nothing for a device or a walker to follow: streams abort, functions
    /// are quiet, VMIDs are invalidated; then frames are free.
    pub fn take_apart(
        mut self,
        host: &mut Host<'_>,
        smmus: &[RealSmmu],
        inbox: &mut Inbox,
    ) -> Result<(), String> {
        for (smmu, stream) in &self.streams {
            if let Some(driver) = smmus.get(*smmu) {
                driver.detach(*stream).map_err(|error| format!("{error}"))?;
            }
        }
        if let Some(root) = &mut host.pci {
            for function in core::mem::take(&mut self.pci).into_functions() {
                vpci::quiesce(&root.ecam, function.bdf(), timer::wait_us);
                function.release(&mut root.windows);
            }
        }
        inbox.poll(smmus, &mut self.sink());
        let (space, log) = (self.vm.space.into_inner(), self.vm.log.into_inner());
        for dma in space.dma_views() {
            for vmid in dma.vmids() {
                dma.view.walker.tlb.free_vmid(vmid).map_err(|error| format!("{error}"))?;
            }
        }
        create::forget(host.platform, &space)?;
        log.dismantle(host.platform);
        space.free(host.platform);
        Ok(())
    }
}

/// WFI on the guest's behalf: until its virtual timer's deadline, where that is armed.
fn sleep() {
    let armed = CNTV_CTL_EL0.is_set(CNTV_CTL_EL0::ENABLE) && !CNTV_CTL_EL0.is_set(CNTV_CTL_EL0::IMASK);
    // CNTVOFF_EL2 is 0: the virtual counter is the physical one.
    timer::sleep_until(if armed { CNTV_CVAL_EL0.get() } else { timer::after_us(NAP_US) });
}

/// Brings events of a VM's devices into its log, and tells the first few on the console.
struct DeviceFaults<'a> {
    name: &'a str,
    streams: &'a [Stream],
    faults: &'a spin::Mutex<strandline::vm::FaultLog>,
    told: &'a mut u32,
}

impl EventSink for DeviceFaults<'_> {
    fn event(&mut self, smmu: usize, event: &FaultEvent) -> bool {
        if !self.streams.contains(&(smmu, event.stream)) {
            return false;
        }
        let access = match event.access {
            Some(Access::Write) => FaultRecord::WRITE,
            Some(Access::Fetch) => FaultRecord::FETCH,
            Some(Access::Read) | None => 0,
        };
        let kind = event.raw[0] & 0xff;
        let stream = u64::from(event.stream.0);
        self.faults.lock().push(FaultRecord { stream, kind, ipa: event.address, access });
        *self.told = self.told.saturating_add(1);
        if *self.told <= TOLD_FAULTS {
            say!("strandline: VM {}: a device was stopped: {event}", self.name);
        }
        true
    }

    fn lost(&mut self) {
        self.faults.lock().count_lost(1);
    }
}
