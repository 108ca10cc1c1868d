//! What compilers make of the C header: it is C11 and C++17 without a warning, and its records lie as the crate's do.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::{env, fs, process};

use strandline_abi::{FaultRecord, LogStatus};

const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include");

const C: &[&str] = &["-std=c11", "-xc"];
const CPP: &[&str] = &["-std=c++17", "-xc++"];

/// Compilers and their languages. Those for AArch64 see the call itself, which is nothing on other hosts.
const COMPILERS: [(&str, &[&str]); 4] =
    [("cc", C), ("c++", CPP), ("aarch64-linux-gnu-gcc", C), ("aarch64-linux-gnu-g++", CPP)];

/// A record: its name in the header, its bytes, and the name and offset of each field.
type Record = (&'static str, u64, &'static [(&'static str, usize)]);

/// A program that is right where the records of the header are those of the crate.
fn program(records: &[Record]) -> String {
    let mut text = String::from(
        "#include \"strandline.h\"\n#include \"strandline.h\"\n#include <stddef.h>\n\
         #ifdef __cplusplus\n#define ASSERT static_assert\n#else\n#define ASSERT _Static_assert\n#endif\n",
    );
    for (record, bytes, fields) in records {
        let record = format!("struct strandline_{record}");
        writeln!(text, "ASSERT(sizeof({record}) == {bytes}, \"size of {record}\");").unwrap();
        for (field, offset) in *fields {
            let line = format!("ASSERT(offsetof({record}, {field}) == {offset}, \"{field} of {record}\");");
            writeln!(text, "{line}").unwrap();
            writeln!(text, "ASSERT(sizeof((({record} *)0)->{field}) == 8, \"{field} of {record}\");")
                .unwrap();
        }
    }
    text.push_str(
        "struct strandline_result use(uint64_t a);\n\
         #ifdef __aarch64__\n\
         struct strandline_result use(uint64_t a)\n\
         { return strandline_call(STRANDLINE_STATUS, a, sizeof(struct strandline_log_status), 0, 0, 0); }\n\
         #endif\n",
    );
    text
}

fn compile(compiler: &str, language: &[&str], name: &str, program: &str) -> (ExitStatus, String) {
    let file: PathBuf = env::temp_dir().join(format!("strandline-{}-{name}.c", process::id()));
    fs::write(&file, program).expect("the temporary directory can be written");
    let output = Command::new(compiler)
        .args(language)
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-ffreestanding", "-O2", "-S", "-o", "/dev/null"])
        .args(["-I", HEADER])
        .arg(&file)
        .output()
        .unwrap_or_else(|error| panic!("{compiler}: {error}; scripts/setup installs it"));
    fs::remove_file(&file).expect("it is there");
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn records() -> [Record; 2] {
    [
        ("log_status", LogStatus::BYTES, LogStatus::FIELDS),
        ("fault_record", FaultRecord::BYTES, FaultRecord::FIELDS),
    ]
}

#[test]
fn c11_and_cpp17_compilers_have_nothing_to_say_and_find_the_records_as_the_crate_has_them() {
    for (compiler, language) in COMPILERS {
        let (status, said) = compile(compiler, language, &format!("right-{compiler}"), &program(&records()));
        assert!(status.success() && said.is_empty(), "{compiler} {language:?}:\n{said}");
    }
}

#[test]
fn a_record_that_lies_otherwise_is_found() {
    let swapped: Record = ("log_status", LogStatus::BYTES, &[("tiers", 0), ("state", 8)]);
    let smaller: Record = ("log_status", 152, &[("state", 0)]);
    for (name, record) in [("offset", swapped), ("size", smaller)] {
        let (status, said) = compile("cc", C, name, &program(&[record]));
        assert!(!status.success() && said.contains("static assertion failed"), "{name}:\n{said}");
    }
}
