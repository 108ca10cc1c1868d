//! Takes a run's figures together: `benches emulator` counts, `benches report` writes the report, `benches accept` makes
//! today's deterministic figures those that a test holds later ones to.

use std::process::ExitCode;

use benches::emulator;
use benches::figure::Part;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("emulator") => {
            let mut part = Part::default();
            emulator::measure(&mut part);
            part.write("emulator");
        }
        Some("report") => print!("{}", benches::report::write()),
        Some("accept") => emulator::accept(&emulator::accepted_path(), &emulator::deterministic()),
        _ => {
            eprintln!("benches: emulator, report or accept");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
