//! What the image does under QEMU with `-icount`: an instruction takes a nanosecond of the machine's time, so that ticks are
//! instructions, the same on every host. SMMU commands are counted in QEMU's own trace.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use qemu_tests::emulator::patched;
use qemu_tests::{Boot, Outcome, built, root};
use strandline_abi::GRANULE_ADAPTIVE;

use crate::figure::{BEST_HASH, Figure, Goal, Part, size_name};

/// An instruction a nanosecond; time that nobody spends passes at once.
const COUNTED: [&str; 2] = ["-icount", "shift=0,sleep=off"];
/// Every command, and every character of the console, by which commands are told apart.
const TRACED: [&str; 2] = ["trace:smmuv3_cmdq_opcode", "trace:pl011_write"];
/// Interrupts are masked for no longer, in ticks: 50 µs.
const MASKED_MOST: f64 = 50_000.0;
const GIB: u64 = 1 << 30;

/// One call over one range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Measured {
    call: String,
    bytes: u64,
}

/// What a run of the case `measure` told.
#[derive(Debug, Default)]
struct Told {
    /// Steps, and instructions.
    costs: BTreeMap<Measured, (u64, u64)>,
    /// Table frames, bitmaps and the rest, by bytes.
    frames: BTreeMap<u64, u64>,
    /// SMMU commands by kind.
    commands: BTreeMap<Measured, BTreeMap<String, u64>>,
    /// Instructions with interrupts masked, by call.
    masked: BTreeMap<String, u64>,
    /// To read a page; with its digest.
    digest: Option<(u64, u64)>,
}

/// The numbers in `text`, in order.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
}

impl Told {
    fn of(outcome: &Outcome) -> Self {
        let mut told = Self::default();
        outcome.lines.iter().for_each(|line| told.line(line));
        told.commands = commands(&outcome.trace);
        told
    }

    fn line(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("vm0| cost ") {
            let (call, rest) = rest.split_once(' ').unwrap_or_default();
            if let [bytes, steps, ticks, _longest] = numbers(rest)[..] {
                self.costs.insert(Measured { call: call.into(), bytes }, (steps, ticks));
            }
        } else if let Some(rest) = line.strip_prefix("vm0| tables ") {
            if let [bytes, frames] = numbers(rest)[..] {
                self.frames.insert(bytes, frames);
            }
        } else if let Some(rest) = line.strip_prefix("strandline: interrupts masked for ") {
            let call = rest.rsplit(' ').next().unwrap_or_default();
            if let [ticks] = numbers(rest)[..] {
                self.masked.insert(call.to_lowercase(), ticks);
            }
        } else if let Some(rest) = line.strip_prefix("vm0| digest: ")
            && let [read, digest] = numbers(rest)[..]
        {
            self.digest = Some((read, digest));
        }
    }
}

/// The commands between the lines `begin CALL BYTES` and `end CALL BYTES` of the console, both of which the trace holds
/// character by character.
fn commands(trace: &[String]) -> BTreeMap<Measured, BTreeMap<String, u64>> {
    let (mut all, mut line, mut now) = (BTreeMap::new(), String::new(), None::<Measured>);
    for event in trace {
        if let Some(rest) = event.split("pl011_write addr 0x000 value 0x").nth(1) {
            let value = rest.split(' ').next().and_then(|hex| u32::from_str_radix(hex, 16).ok());
            match value.and_then(char::from_u32) {
                Some('\n') => {
                    let words: Vec<&str> = line.split_ascii_whitespace().collect();
                    if let [.., "begin", call, bytes] = words[..] {
                        let bytes = bytes.parse().unwrap_or_default();
                        let measured = Measured { call: call.into(), bytes };
                        all.insert(measured.clone(), BTreeMap::new());
                        now = Some(measured);
                    } else if words.contains(&"end") {
                        now = None;
                    }
                    line.clear();
                }
                Some(c) => line.push(c),
                None => {}
            }
        } else if let (Some(measured), Some(command)) = (&now, event.split("SMMU_CMD_").nth(1))
            && let Some(counts) = all.get_mut(measured)
        {
            *counts.entry(command.trim().to_string()).or_default() += 1;
        }
    }
    all
}

/// How the DMA view of a run is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Smmu {
    /// The installed emulator's, without dirty state: every page is assumed written.
    Assume,
    /// The patched emulator's, with dirty state, of break-before-make level 2.
    Hardware,
}

/// Boots the case `measure` for ranges of up to `most` bytes; nothing where there is no such emulator.
fn boot(smmu: Smmu, image: &str, most: u64) -> Option<Told> {
    let memory = format!("{}M", (most >> 20) + 2048);
    let boot = Boot::case("measure", &format!("most={most}")).image(image).option("--memory", &memory);
    let boot = boot.qemu(&COUNTED).trace(&TRACED);
    let boot = match smmu {
        Smmu::Assume => boot.option("--config", "dma=assume"),
        Smmu::Hardware => boot.emulator(&patched()?).qemu(&["-global", "arm-smmuv3.httu=2"]),
    };
    let outcome = boot.run().success();
    assert!(outcome.says("case measure: ok"), "{}", outcome.show());
    Some(Told::of(&outcome))
}

/// Instructions from the machine's first to the guest's first: EL2 reads the machine, maps it, brings the SMMU up, makes a
/// VM of 1 GiB with a device, and tells of all that on the console.
fn boot_instructions() -> u64 {
    let outcome = Boot::case("entered", "").qemu(&COUNTED).run().success();
    let line = outcome.lines.iter().find_map(|line| line.strip_prefix("vm0| entered at tick "));
    line.and_then(|ticks| ticks.parse().ok()).unwrap_or_else(|| panic!("no tick is told{}", outcome.show()))
}

/// The figures that are the same on every host: name and value. Nothing is above 1 GiB, so that it takes seconds.
///
/// # Panics
/// The image does not run.
#[must_use]
pub fn deterministic() -> BTreeMap<String, u64> {
    let image = fs::metadata(built("strandline.img")).map_or(0, |file| file.len());
    let mut figures = BTreeMap::from([
        ("image: bytes".to_string(), image),
        ("boot: instructions to the guest's first".to_string(), boot_instructions()),
    ]);
    for (smmu, name) in [(Smmu::Assume, "assume"), (Smmu::Hardware, "hardware")] {
        let Some(told) = boot(smmu, "strandline.img", GIB) else { continue };
        for (Measured { call, bytes }, (steps, ticks)) in &told.costs {
            let of = format!("{name}: {call} {}", size_name(*bytes));
            figures.insert(format!("{of}: instructions"), *ticks);
            figures.insert(format!("{of}: calls"), *steps);
        }
        for (Measured { call, bytes }, counts) in &told.commands {
            for command in ["TLBI_S12_VMALL", "TLBI_S2_IPA", "SYNC"] {
                let count = counts.get(command).copied().unwrap_or(0);
                figures.insert(format!("{name}: {call} {}: {command}", size_name(*bytes)), count);
            }
        }
        for (bytes, frames) in &told.frames {
            figures.insert(format!("{name}: frames of a log of {}", size_name(*bytes)), *frames);
        }
    }
    figures
}

/// What a figure may be above the one that was accepted: 3 %.
#[must_use]
pub const fn is_worse(accepted: u64, now: u64) -> bool {
    now > accepted && (now - accepted) * 100 > accepted * 3
}

/// Where the accepted figures are.
#[must_use]
pub fn accepted_path() -> PathBuf {
    root().join("benches/figures.txt")
}

/// The accepted figures, a `name = value` a line.
///
/// # Panics
/// The file can't be read.
#[must_use]
pub fn accepted(path: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(path).expect("the accepted figures are part of the project");
    let line = |line: &str| {
        let (name, value) = line.rsplit_once(" = ")?;
        Some((name.to_string(), value.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Writes `figures` as [`accepted`] reads them.
///
/// # Panics
/// The file can't be written.
pub fn accept(path: &Path, figures: &BTreeMap<String, u64>) {
    let text: String = figures.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
    fs::write(path, text).expect("the project can be written");
}

/// Measures all sizes, and keeps the part `emulator`.
///
/// # Panics
/// The image does not run.
pub fn measure(part: &mut Part) {
    let instructions = boot_instructions() as f64;
    part.figures.push(Figure::new("boot to the first guest instruction", instructions, "instructions"));
    let Some(told) = boot(Smmu::Hardware, "measure.img", 64 * GIB) else {
        part.notes
            .push("Under the emulator nothing was counted: the one with HTTU can't be built here.".into());
        return;
    };
    costs(part, &told);
    for (call, ticks) in &told.masked {
        let name = format!("longest time with interrupts masked, {call}");
        part.figures.push(Figure::new(name, *ticks as f64, "ticks").goal(Goal::AtMost(MASKED_MOST)));
    }
    for (bytes, frames) in &told.frames {
        let name = format!("frames of a log of {}, two views", size_name(*bytes));
        part.figures
            .push(Figure::new(name, *frames as f64, "frames").series("frames of a log", *bytes as f64));
    }
    if let Some((read, digest)) = told.digest {
        let figure = Figure::new("digest of a page at EL2", digest as f64, "instructions");
        part.figures.push(Figure {
            limit: Some(read as f64),
            ratio: Some(digest as f64 / read as f64),
            beside: Some("the same loads alone".into()),
            ..figure.goal(Goal::AtMost(1.25)).instead(BEST_HASH)
        });
    }
    grain(part);
}

fn costs(part: &mut Part, told: &Told) {
    let mut calls: Vec<&str> = told.costs.keys().map(|measured| measured.call.as_str()).collect();
    calls.dedup();
    for call in calls {
        let of_call = || told.costs.iter().filter(|(measured, _)| measured.call == call);
        for (Measured { bytes, .. }, (steps, ticks)) in of_call() {
            let name = format!("{call} {}, {steps} call(s)", size_name(*bytes));
            let figure = Figure::new(name, *ticks as f64, "instructions");
            part.figures.push(figure.series(&format!("{call}, instructions"), *bytes as f64));
        }
        let points: Vec<(f64, f64)> =
            of_call().map(|(m, (_, ticks))| (m.bytes as f64, *ticks as f64)).collect();
        let (fixed, per_page, power) = fit(&points);
        part.notes.push(format!(
            "{call}: {fixed:.0} + {per_page:.2} instructions a page of the range; between the two largest it grows as size^{power:.2}."
        ));
    }
    for (Measured { call, bytes }, counts) in &told.commands {
        let count = |command: &str| counts.get(command).copied().unwrap_or(0);
        let all: u64 = counts.values().sum();
        let kinds: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let figure = Figure::new(
            format!("{call} {}: {}", size_name(*bytes), kinds.join(", ")),
            all as f64,
            "commands",
        );
        let is_least = count("TLBI_S12_VMALL") == 1 && count("SYNC") == 1;
        part.figures.push(if call == "start" {
            assert!(all != 2 || is_least, "two commands that are none of these: {counts:?}");
            figure.goal(Goal::AtMost(2.0))
        } else {
            figure
        });
    }
}

/// A line through points (bytes, instructions), by least squares of relative errors: what it takes for nothing, and for a
/// page; and the exponent between the last two points.
#[must_use]
pub fn fit(points: &[(f64, f64)]) -> (f64, f64, f64) {
    let (mut w, mut wx, mut wy, mut wxx, mut wxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (bytes, y) in points {
        let (x, weight) = (bytes / 4096.0, 1.0 / (y * y));
        w += weight;
        wx += weight * x;
        wy += weight * y;
        wxx += weight * x * x;
        wxy += weight * x * y;
    }
    let per_page = (w * wxy - wx * wy) / (w * wxx - wx * wx);
    let power = match points {
        [.., (x0, y0), (x1, y1)] => (y1 / y0).ln() / (x1 / x0).ln(),
        _ => f64::NAN,
    };
    ((wy - per_page * wx) / w, per_page, power)
}

/// What a granule costs.
fn grain(part: &mut Part) {
    let Some(emulator) = patched() else { return };
    let boot = Boot::case("grain", "").option("--memory", "3G").emulator(&emulator);
    let boot = boot.qemu(&COUNTED).qemu(&["-global", "arm-smmuv3.httu=2"]);
    let outcome = boot.run().success();
    part.figures.extend(outcome.lines.iter().filter_map(|line| grain_figure(line)));
}

/// The figure that a line of the case `grain` tells.
fn grain_figure(line: &str) -> Option<Figure> {
    if let Some(rest) = line.strip_prefix("vm0| grain ") {
        let [granule, written, reported, round] = numbers(rest)[..] else { return None };
        let pattern = rest.split([' ', ':']).nth(1)?;
        let adaptive = granule == GRANULE_ADAPTIVE;
        let round = if adaptive { format!(", round {round}") } else { String::new() };
        let name = format!("false-dirty factor {}, {pattern} DMA{round}", granule_name(granule));
        let figure = Figure::new(name, reported as f64 / written as f64, "reported / written");
        // Adaptive is no size.
        Some(if adaptive {
            figure
        } else {
            figure.series(&format!("false dirty, {pattern}"), granule as f64)
        })
    } else {
        let rest = line.strip_prefix("vm0| copy ")?;
        let [granule, rounds, copied] = numbers(rest)[..] else { return None };
        let pattern = rest.split([' ', ':']).nth(1)?;
        let how = if rest.contains("not ended") { "not converged after" } else { "converged in" };
        let name = format!("copy of 16 MiB {}, {pattern} DMA: {how} {rounds} rounds", granule_name(granule));
        Some(Figure::new(name, copied as f64, "pages copied"))
    }
}

/// A granule as people say it.
fn granule_name(granule: u64) -> String {
    if granule == GRANULE_ADAPTIVE {
        "by an adaptive log".into()
    } else {
        format!("at {}", size_name(granule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_belong_to_the_call_between_whose_lines_they_stand() {
        let written = |text: &str| -> Vec<String> {
            text.bytes().map(|b| format!("pl011_write addr 0x000 value {b:#010x} reg DR")).collect()
        };
        let mut trace = written("vm0| begin start 4096\r\n");
        trace.push("smmuv3_cmdq_opcode <--- SMMU_CMD_SYNC".into());
        trace.extend(written("vm0| end start 4096\r\n"));
        trace.push("smmuv3_cmdq_opcode <--- SMMU_CMD_CFGI_STE".into());
        let found = commands(&trace);
        let start = Measured { call: "start".into(), bytes: 4096 };
        assert_eq!(found, BTreeMap::from([(start, BTreeMap::from([("SYNC".to_string(), 1)]))]));
    }

    #[test]
    fn an_adaptive_log_has_rounds_and_no_size() {
        let line = "vm0| grain 1 hot-spot: 20 pages written, 50 reported, round 2";
        let name = "false-dirty factor by an adaptive log, hot-spot DMA, round 2";
        assert_eq!(grain_figure(line), Some(Figure::new(name, 2.5, "reported / written")));
        let line = "vm0| grain 4096 random: 20 pages written, 20 reported, round 1";
        let name = "false-dirty factor at 4 KiB, random DMA";
        let figure = Figure::new(name, 1.0, "reported / written").series("false dirty, random", 4096.0);
        assert_eq!(grain_figure(line), Some(figure));
        let line = "vm0| copy 1 random: 4 rounds, ended, 5000 pages copied";
        let name = "copy of 16 MiB by an adaptive log, random DMA: converged in 4 rounds";
        assert_eq!(grain_figure(line), Some(Figure::new(name, 5000.0, "pages copied")));
        assert_eq!(grain_figure("vm0| case grain: ok"), None);
    }

    #[test]
    fn a_line_is_fitted_and_growth_is_its_exponent() {
        let points: Vec<(f64, f64)> =
            [1.0, 10.0, 100.0].map(|pages| (pages * 4096.0, 7.0 + 3.0 * pages)).into();
        let (fixed, per_page, power) = fit(&points);
        assert!((fixed - 7.0).abs() < 1e-6 && (per_page - 3.0).abs() < 1e-6 && (power - 0.92).abs() < 0.01);
    }

    #[test]
    fn three_percent_are_borne_and_no_more() {
        assert!(!is_worse(100, 103) && is_worse(100, 104) && !is_worse(100, 1));
        assert!(is_worse(0, 1) && !is_worse(0, 0));
    }
}
