//! QEMU's machine as a board on a desk: firmware or none, a card or none, and a console.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use crate::Outcome;

/// What a boot may take on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(300);
/// Firmware for QEMU's machine, as Debian installs it.
const UBOOT: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";
const UEFI: &str = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd";

/// A machine to be switched on.
pub struct Machine {
    arguments: Vec<String>,
}

impl Machine {
    /// The machine the demo is for, with nothing in it that boots.
    fn new() -> Self {
        let machine = "virt,virtualization=on,gic-version=3,iommu=smmuv3,acpi=off";
        let bare = Self { arguments: vec![] }.with(&["-M", machine, "-cpu", "max", "-m", "2G"]);
        bare.with(&["-display", "none", "-serial", "stdio", "-monitor", "none", "-net", "none"])
            .with(&["-device", "edu,addr=01.0,dma_mask=0xffffffffffffffff"])
    }

    /// With an image that the emulator itself jumps to, and a bundle.
    #[must_use]
    pub fn direct(image: &Path, bundle: &Path) -> Self {
        Self::new().with(&["-kernel", &image.display().to_string(), "-initrd", &bundle.display().to_string()])
    }

    /// With U-Boot.
    ///
    /// # Panics
    /// It isn't installed.
    #[must_use]
    pub fn uboot() -> Self {
        Self::new().firmware(UBOOT)
    }

    /// With UEFI.
    ///
    /// # Panics
    /// It isn't installed.
    #[must_use]
    pub fn uefi() -> Self {
        Self::new().firmware(UEFI)
    }

    fn firmware(self, file: &str) -> Self {
        assert!(fs::exists(file).unwrap_or(false), "{file} is missing: run scripts/setup firmware");
        self.with(&["-bios", file])
    }

    /// With a card in its slot. What the machine writes to it is forgotten.
    #[must_use]
    pub fn card(self, card: &Path) -> Self {
        let drive = format!("if=none,id=card,format=raw,snapshot=on,file={}", card.display());
        self.with(&["-drive", &drive, "-device", "virtio-blk-pci,drive=card"])
    }

    /// With a network that has a TFTP server for the files in `folder`.
    #[must_use]
    pub fn tftp(self, folder: &Path) -> Self {
        let network = format!("user,id=net,restrict=on,tftp={}", folder.display());
        self.with(&["-netdev", &network, "-device", "virtio-net-pci,netdev=net,romfile="])
    }

    /// With further arguments for QEMU.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Switches on, and waits until the machine is off.
    #[must_use]
    pub fn run(self) -> Outcome {
        self.watch(None)
    }

    /// Switches on, and off again when a line contains `text`: firmware that is told that something can't be started
    /// goes on looking for ever.
    ///
    /// # Panics
    /// No line does.
    #[must_use]
    pub fn until(self, text: &str) -> Outcome {
        let outcome = self.watch(Some(text));
        assert!(outcome.says(text), "no line says '{text}'{}", outcome.show());
        outcome
    }

    fn watch(self, text: Option<&str>) -> Outcome {
        let emulator = env::var("QEMU").unwrap_or_else(|_| "qemu-system-aarch64".into());
        let mut child = Command::new(emulator)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the emulator starts");
        let lines = lines(&mut child, text);
        // It may have ended by itself already.
        let _ = text.is_some_and(|_| child.kill().is_ok());
        // Switching itself off is all that a machine can say by its exit; the last line says whether all went well.
        let ended = child.wait().is_ok_and(|status| status.success());
        let succeeded = ended && lines.last().is_some_and(|line| line == "strandline: succeeded");
        let mut errors = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            let _bytes = stderr.read_to_string(&mut errors);
        }
        Outcome { succeeded, lines, errors, trace: vec![] }
    }
}

/// What the machine prints: up to its end, the time limit, or a line that contains `text`.
fn lines(child: &mut Child, text: Option<&str>) -> Vec<String> {
    let (sender, receiver) = mpsc::channel();
    let console = BufReader::new(child.stdout.take().expect("it was piped"));
    let reader = thread::spawn(move || {
        for line in console.split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).replace('\r', "")).is_err() {
                return;
            }
        }
    });
    let end = Instant::now() + LIMIT;
    let mut lines = vec![];
    while let Ok(line) = receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
        lines.push(line);
        if text.is_some_and(|text| lines.last().is_some_and(|line| line.contains(text))) {
            break;
        }
    }
    if Instant::now() >= end {
        // It may have ended this very moment.
        let _ = child.kill();
        lines.push(format!("(switched off after {} seconds)", LIMIT.as_secs()));
    }
    drop(receiver);
    // It ends with the emulator, at the latest.
    if reader.is_finished() {
        let _ = reader.join();
    }
    lines
}
