//! `mkbundle OUTPUT {kernel|ramdisk FILE ARGUMENTS}...`: bundles files; `scripts/image` calls it.

use std::process::ExitCode;
use std::{env, fs};

use strandline_bundle::{Entry, Kind, write};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match make(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("mkbundle: {why}");
            ExitCode::FAILURE
        }
    }
}

fn make(words: &[String]) -> Result<(), String> {
    let (output, parts) = words.split_first().ok_or("no output is named")?;
    let (triples, []) = parts.as_chunks::<3>() else {
        return Err("a part is three words: kernel or ramdisk, a file, its arguments".into());
    };
    let files = triples.iter().map(|[kind, file, _]| read(kind, file)).collect::<Result<Vec<_>, _>>()?;
    let entries: Vec<Entry<'_>> = triples
        .iter()
        .zip(&files)
        .map(|([_, _, arguments], (kind, data))| Entry { kind: *kind, arguments, data })
        .collect();
    if entries.first().is_none_or(|entry| entry.kind != Kind::Kernel) {
        return Err("the first part must be a kernel".into());
    }
    let bundle = write(&entries).map_err(|error| error.to_string())?;
    fs::write(output, bundle).map_err(|error| format!("{output}: {error}"))
}

fn read(kind: &str, file: &str) -> Result<(Kind, Vec<u8>), String> {
    let kind = match kind {
        "kernel" => Kind::Kernel,
        "ramdisk" => Kind::Ramdisk,
        _ => return Err(format!("'{kind}' is neither kernel nor ramdisk")),
    };
    let data = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    if data.is_empty() {
        return Err(format!("{file}: is empty"));
    }
    Ok((kind, data))
}
