//! The boot arguments of a kernel module: what the VM is to be, and what its guest is told.
//!
//! The words before a word `--` configure the VM, the text after it is the guest's command line, unchanged. A text
//! without `--` configures the VM to its end, and the guest's command line is empty. A text is at most 8 KiB long.
//!
//! | word | meaning | if absent |
//! |---|---|---|
//! | `memory=SIZE` | RAM; a number with `K`, `M` or `G`, a multiple of 2 MiB, at least 32 MiB | `256M` |
//! | `device=BB:DD.F` | a PCI function of its own; may be repeated, up to 8 | none |
//! | `device=/PATH` | a device of its own that is none, by its node in the machine's tree; counts among the 8 | none |
//! | `cpu=TIER` | how its vCPUs' writes are to be known: `auto`, `hardware`, `faults` | `auto` |
//! | `sizes=HOW` | how sizes change under its vCPUs: `auto`, or `hold` them even where the core needs no holding | `auto` |
//! | `dma=TIER` | how the devices' writes are to be known: `auto`, `hardware`, `stall`, `digest`, `assume` | `auto` |
//! | `name=NAME` | what its lines on the console begin with: up to 16 of `a-z`, `0-9`, `-` | `vm0`, `vm1`, ... |

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use strandline_abi::{CpuTier, DmaTier};

use crate::guest_map::{RAM_MAX_BYTES, RAM_MIN_BYTES, RAM_STEP_BYTES};
use crate::vpci::Bdf;

/// RAM of a VM whose arguments don't say.
pub const DEFAULT_MEMORY: u64 = 256 << 20;
/// The most devices one VM can have.
pub const MAX_DEVICES: usize = strandline::vm::MAX_DEVICES;
/// The longest text, in bytes: a guest's command line is copied into EL2's heap, which is small.
pub const MAX_BYTES: usize = 8 << 10;
/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 16;

/// How the writes of a VM's devices are to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaChoice {
    /// By the best tier the machine has.
    Auto,
    /// By this tier, or not at all.
    Tier(DmaTier),
}

/// How the writes of a VM's vCPUs are to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuChoice {
    /// By the best tier the CPU has.
    Auto,
    /// By this tier, or not at all.
    Tier(CpuTier),
}

/// What the boot arguments say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// What the VM is called.
    pub name: String,
    /// Bytes of RAM: a multiple of 2 MiB, at least 32 MiB, and some IPA size holds it.
    pub memory: u64,
    /// Its PCI functions, in the order given, each once.
    pub devices: Vec<Bdf>,
    /// Its other devices: paths in the machine's device tree, in the order given, each once.
    pub nodes: Vec<String>,
    /// How their writes are to be known.
    pub dma: DmaChoice,
    /// How its vCPUs' writes are to be known.
    pub cpu: CpuChoice,
    /// vCPUs are held for changes of size, whatever the core can bear.
    pub hold: bool,
    /// The guest's command line.
    pub command_line: String,
}

/// A word that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgsError {
    /// No word of ours.
    Unknown(String),
    /// Its value is none: the word, and what the value must be.
    Malformed(String, &'static str),
    /// It stands there twice, or says what another word has said.
    Duplicate(String),
    /// It is one device more than [`MAX_DEVICES`].
    TooManyDevices(String),
    /// The text is longer than [`MAX_BYTES`]; carries its bytes.
    TooLong(usize),
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => {
                write!(
                    f,
                    "unknown word '{word}' (known: memory=, device=, cpu=, dma=, sizes=, name=; the guest's own come after --)"
                )
            }
            Self::Malformed(word, expected) => write!(f, "'{word}': {expected}"),
            Self::Duplicate(word) => write!(f, "'{word}': given twice"),
            Self::TooManyDevices(word) => write!(f, "'{word}': a VM can have {MAX_DEVICES} devices"),
            Self::TooLong(bytes) => {
                write!(f, "{bytes} bytes are too many: shorten the command line, {MAX_BYTES} are possible")
            }
        }
    }
}

/// Reads the boot arguments of the VM that is started as number `index`, which names it where they don't.
///
/// # Errors
/// They are too long, or the first word that can't be used.
pub fn parse(bootargs: &str, index: usize) -> Result<VmConfig, ArgsError> {
    if bootargs.len() > MAX_BYTES {
        return Err(ArgsError::TooLong(bootargs.len()));
    }
    let (configuration, command_line) = split(bootargs);
    let mut words = Words::default();
    for word in configuration.split_ascii_whitespace() {
        words.take(word)?;
    }
    Ok(VmConfig {
        name: words.name.unwrap_or_else(|| format!("vm{index}")),
        memory: words.memory.unwrap_or(DEFAULT_MEMORY),
        devices: words.devices,
        nodes: words.nodes,
        dma: words.dma.unwrap_or(DmaChoice::Auto),
        cpu: words.cpu.unwrap_or(CpuChoice::Auto),
        hold: words.hold.unwrap_or(false),
        command_line: command_line.to_string(),
    })
}

/// The text before the first word `--`, and the text after it without the space around it.
fn split(bootargs: &str) -> (&str, &str) {
    let is_separator = |at: usize| {
        let outside = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_whitespace);
        let bytes = bootargs.as_bytes();
        outside(at.checked_sub(1).and_then(|before| bytes.get(before))) && outside(bytes.get(at + 2))
    };
    let separator = bootargs.match_indices("--").find(|(at, _)| is_separator(*at));
    match separator.and_then(|(at, dashes)| Some((bootargs.get(..at)?, bootargs.get(at + dashes.len()..)?))) {
        Some((before, after)) => (before, after.trim_ascii()),
        None => (bootargs, ""),
    }
}

/// What the words so far have said.
#[derive(Default)]
struct Words {
    name: Option<String>,
    memory: Option<u64>,
    devices: Vec<Bdf>,
    nodes: Vec<String>,
    dma: Option<DmaChoice>,
    cpu: Option<CpuChoice>,
    hold: Option<bool>,
}

impl Words {
    fn take(&mut self, word: &str) -> Result<(), ArgsError> {
        match word.split_once('=') {
            Some(("memory", value)) => set(&mut self.memory, memory(value), word),
            Some(("device", value)) => self.add_device(value, word),
            Some(("sizes", value)) => set(&mut self.hold, sizes(value), word),
            Some(("cpu", value)) => set(&mut self.cpu, cpu(value), word),
            Some(("dma", value)) => set(&mut self.dma, dma(value), word),
            Some(("name", value)) => set(&mut self.name, name(value), word),
            _ => Err(ArgsError::Unknown(word.to_string())),
        }
    }

    fn add_device(&mut self, value: &str, word: &str) -> Result<(), ArgsError> {
        let bdf = value.parse().ok();
        if bdf.is_none() && !value.starts_with('/') {
            return Err(ArgsError::Malformed(
                word.to_string(),
                "a PCI function is written BB:DD.F, as in 00:01.0, another device by its path",
            ));
        }
        if bdf.is_some_and(|bdf| self.devices.contains(&bdf)) || self.nodes.iter().any(|node| node == value) {
            return Err(ArgsError::Duplicate(word.to_string()));
        }
        if self.devices.len() + self.nodes.len() == MAX_DEVICES {
            return Err(ArgsError::TooManyDevices(word.to_string()));
        }
        match bdf {
            Some(bdf) => self.devices.push(bdf),
            None => self.nodes.push(value.to_string()),
        }
        Ok(())
    }
}

/// Sets what `word` says, unless its value is none or another word said it before.
fn set<T>(place: &mut Option<T>, value: Result<T, &'static str>, word: &str) -> Result<(), ArgsError> {
    let value = value.map_err(|expected| ArgsError::Malformed(word.to_string(), expected))?;
    if place.is_some() {
        return Err(ArgsError::Duplicate(word.to_string()));
    }
    *place = Some(value);
    Ok(())
}

fn memory(value: &str) -> Result<u64, &'static str> {
    let bytes = size(value).ok_or("a size is a number with K, M or G, as in 256M")?;
    if bytes < RAM_MIN_BYTES {
        return Err("a VM needs at least 32M");
    }
    if bytes > RAM_MAX_BYTES {
        return Err("more than a guest's address space holds");
    }
    if !bytes.is_multiple_of(RAM_STEP_BYTES) {
        return Err("memory comes in multiples of 2M");
    }
    Ok(bytes)
}

/// A decimal number with one of `K`, `M`, `G` in either case, or without; `None` for other texts and for a product that
/// wraps.
fn size(value: &str) -> Option<u64> {
    let (digits, unit) = match value.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (value.get(..value.len() - 1)?, 1 << 10),
        b'M' => (value.get(..value.len() - 1)?, 1 << 20),
        b'G' => (value.get(..value.len() - 1)?, 1 << 30),
        _ => (value, 1),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn cpu(value: &str) -> Result<CpuChoice, &'static str> {
    match value {
        "auto" => Ok(CpuChoice::Auto),
        "hardware" => Ok(CpuChoice::Tier(CpuTier::Hardware)),
        "faults" => Ok(CpuChoice::Tier(CpuTier::Faults)),
        _ => Err("one of auto, hardware, faults"),
    }
}

fn sizes(value: &str) -> Result<bool, &'static str> {
    match value {
        "auto" => Ok(false),
        "hold" => Ok(true),
        _ => Err("one of auto, hold"),
    }
}

fn dma(value: &str) -> Result<DmaChoice, &'static str> {
    match value {
        "auto" => Ok(DmaChoice::Auto),
        "hardware" => Ok(DmaChoice::Tier(DmaTier::Hardware)),
        "stall" => Ok(DmaChoice::Tier(DmaTier::Stall)),
        "digest" => Ok(DmaChoice::Tier(DmaTier::Digest)),
        "assume" => Ok(DmaChoice::Tier(DmaTier::Assume)),
        _ => Err("one of auto, hardware, stall, digest, assume"),
    }
}

fn name(value: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if value.is_empty() || value.len() > MAX_NAME_BYTES || !value.bytes().all(allowed) {
        return Err("a name is 1 to 16 of a-z, 0-9 and -");
    }
    Ok(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(bootargs: &str) -> VmConfig {
        parse(bootargs, 0).unwrap()
    }

    fn refused(bootargs: &str) -> String {
        parse(bootargs, 0).unwrap_err().to_string()
    }

    #[test]
    fn nothing_said_makes_a_plain_vm() {
        let plain = VmConfig {
            name: "vm3".to_string(),
            memory: 0x1000_0000,
            devices: Vec::new(),
            nodes: Vec::new(),
            dma: DmaChoice::Auto,
            cpu: CpuChoice::Auto,
            hold: false,
            command_line: String::new(),
        };
        assert_eq!(parse("", 3), Ok(plain.clone()));
        assert_eq!(parse(" \t\n", 3), Ok(plain.clone()));
        assert_eq!(parse("--", 3), Ok(plain));
    }

    #[test]
    fn text_too_long_for_the_heap_is_refused() {
        let longest = format!("-- {}", "x".repeat(MAX_BYTES - 3));
        assert_eq!(config(&longest).command_line.len(), MAX_BYTES - 3);
        assert_eq!(
            refused(&format!("{longest}x")),
            "8193 bytes are too many: shorten the command line, 8192 are possible"
        );
    }

    #[test]
    fn device_may_be_a_node_of_the_machines_tree() {
        let config = config("device=/soc/dma@1000 device=00:01.0 device=/soc/dma@2000");
        assert_eq!(config.nodes, ["/soc/dma@1000", "/soc/dma@2000"]);
        assert_eq!(config.devices.len(), 1);
        assert_eq!(refused("device=/a device=/a"), "'device=/a': given twice");
        let eight: String = (0..8).map(|n| format!("device=/a{n} ")).collect();
        assert_eq!(refused(&format!("{eight} device=00:01.0")), "'device=00:01.0': a VM can have 8 devices");
    }

    #[test]
    fn every_word_is_understood() {
        let all = config(
            "memory=1G device=00:01.0 name=db-1 dma=assume device=00:02.1 -- console=ttyAMA0  root=/dev/vda",
        );
        assert_eq!(all.memory, 1 << 30);
        assert_eq!(all.devices, [Bdf::from_requester_id(0x08), Bdf::from_requester_id(0x11)]);
        assert_eq!(all.dma, DmaChoice::Tier(DmaTier::Assume));
        assert_eq!(all.name, "db-1");
        assert_eq!(all.command_line, "console=ttyAMA0  root=/dev/vda");
    }

    #[test]
    fn guests_text_begins_at_the_first_separator_alone() {
        assert_eq!(config("-- memory=1G").command_line, "memory=1G");
        assert_eq!(config("memory=64M --").command_line, "");
        assert_eq!(config("memory=64M -- init=/bin/sh -- -c x").command_line, "init=/bin/sh -- -c x");
        assert_eq!(config("memory=64M -- -- x").command_line, "-- x");
        assert_eq!(config("memory=64M -- --x").command_line, "--x");
    }

    #[test]
    fn text_without_separator_is_all_configuration() {
        assert_eq!(refused("memory=64M console=ttyAMA0").split(' ').nth(2), Some("'console=ttyAMA0'"));
        assert_eq!(config("memory=64M").command_line, "");
    }

    #[test]
    fn dashes_inside_a_word_separate_nothing() {
        assert_eq!(config("name=a--b -- c").name, "a--b");
        assert_eq!(parse("--memory=64M", 0), Err(ArgsError::Unknown("--memory=64M".to_string())));
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(config("memory=32M").memory, 0x200_0000);
        assert_eq!(config("memory=65536k").memory, 0x400_0000);
        assert_eq!(config("memory=67108864").memory, 0x400_0000);
        assert_eq!(config("memory=4g").memory, 0x1_0000_0000);
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        for word in [
            "memory=",
            "memory=M",
            "memory=1T",
            "memory=+64M",
            "memory=-1",
            "memory=0x4000000",
            "memory=64MM",
        ] {
            assert!(refused(word).contains("a size is a number"), "{word}");
        }
        assert!(refused("memory=99999999999999999999").contains("a size is a number"));
        assert!(refused("memory=18446744073709551615G").contains("a size is a number"));
    }

    #[test]
    fn memory_out_of_bounds_is_refused() {
        assert_eq!(refused("memory=30M"), "'memory=30M': a VM needs at least 32M");
        assert_eq!(refused("memory=33M"), "'memory=33M': memory comes in multiples of 2M");
        assert_eq!(refused("memory=33554433"), "'memory=33554433': memory comes in multiples of 2M");
        assert_eq!(refused("memory=16384G"), "'memory=16384G': more than a guest's address space holds");
        assert_eq!(config("memory=16383G").memory, 16383 << 30);
    }

    #[test]
    fn a_word_said_twice_is_refused() {
        assert_eq!(refused("memory=64M memory=64M"), "'memory=64M': given twice");
        assert_eq!(refused("dma=auto dma=assume"), "'dma=assume': given twice");
        assert_eq!(refused("name=a name=b"), "'name=b': given twice");
        assert_eq!(refused("device=00:01.0 device=00:02.0 device=00:01.0"), "'device=00:01.0': given twice");
    }

    #[test]
    fn ninth_device_is_refused() {
        let eight: String = (1..=8).map(|device| format!("device=00:0{device}.0 ")).collect();
        assert_eq!(config(&eight).devices.len(), 8);
        assert_eq!(refused(&(eight + "device=00:09.0")), "'device=00:09.0': a VM can have 8 devices");
    }

    #[test]
    fn malformed_values_are_named() {
        assert!(refused("device=1:0").starts_with("'device=1:0': a PCI function"));
        assert!(refused("dma=magic").starts_with("'dma=magic': one of"));
        for word in ["name=", "name=VM", "name=a_b", "name=seventeen-letters", "name=ä"] {
            assert!(refused(word).starts_with(&format!("'{word}': a name is")), "{word}");
        }
        assert_eq!(config("name=sixteen-letters-").name.len(), 16);
    }

    #[test]
    fn words_without_a_value_are_unknown() {
        assert!(refused("memory").starts_with("unknown word 'memory'"));
        assert!(refused("=1").starts_with("unknown word '=1'"));
        assert!(refused("Memory=64M").starts_with("unknown word"));
    }
}
