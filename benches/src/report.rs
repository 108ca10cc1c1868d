//! The report of a run: a table for people, the same as data, and plots.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::figure::{Figure, Part, folder};
use crate::plot;

/// The parts of a run: the heading, what its kind of figure is, and its name.
const PARTS: [(&str, &str, &str); 3] = [
    ("Host", "Time of a page, frame or call on this machine; of a GiB where it says so.", "host"),
    ("Policy of the adaptive granule", "Counts of a simulation: the same on every machine.", "policy"),
    ("Emulator", "QEMU with `-icount`: the same on every machine.", "emulator"),
];

/// The first line that a program prints.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_string()
}

/// What is written about the machine.
fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown").to_string();
    format!(
        "{}, {cores} CPUs of {}, load {load}; {}; revision {}.",
        std::env::consts::ARCH,
        model.unwrap_or("unknown make"),
        first_line("rustc", &["--version"]),
        first_line("git", &["describe", "--always", "--dirty"])
    )
}

/// A number with three digits that count, or whole.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn row(figure: &Figure) -> String {
    let number = |value: Option<f64>| value.map(short).unwrap_or_default();
    let spread = figure.spread.map(|(low, high)| format!("{} to {}", short(low), short(high)));
    let goal = figure.goal.map(|goal| match (goal.is_kept(figure.judged()), &figure.instead) {
        (true, None) => format!("{goal}: kept"),
        (false, None) => format!("{goal}: **missed**"),
        (true, Some(instead)) => format!("{goal}, or {instead}: kept by both"),
        (false, Some(instead)) => format!("{goal}, or {instead}: kept by that alone"),
    });
    format!(
        "| {} | {} {} | {} | {} | {} | {} | {} |\n",
        figure.name,
        short(figure.value),
        figure.unit,
        number(figure.other()),
        figure.beside.as_deref().unwrap_or_default(),
        number(figure.ratio),
        spread.unwrap_or_default(),
        goal.unwrap_or_default()
    )
}

/// Writes `report.md`, `report.json` and the plots of the parts there are; gives back the table.
///
/// # Panics
/// The folder can't be written.
#[must_use]
pub fn write() -> String {
    let mut text = format!("# What it costs\n\n{}\n", machine());
    text += "A ratio is value / limit, or peer / value; the spread is its tenth and ninetieth percentile, or the value's.\n";
    let mut figures = vec![];
    for (heading, what, name) in PARTS {
        let Some(part) = Part::read(name) else {
            let _ = write!(text, "\n## {heading}\n\nNot measured in this run.\n");
            continue;
        };
        let _ = write!(text, "\n## {heading}\n\n{what}\n\n");
        text += "| what | value | limit or peer | which | ratio | spread | goal |\n|---|---|---|---|---|---|---|\n";
        part.figures.iter().for_each(|figure| text += &row(figure));
        text.push('\n');
        part.notes.iter().for_each(|note| text += &format!("- {note}\n"));
        figures.extend(part.figures.into_iter().chain(part.points));
    }
    let folder = folder();
    fs::create_dir_all(&folder).expect("target can be written");
    let drawn = plot::draw_all(&figures, &folder).expect("plots can be written");
    text += "\n";
    drawn.iter().for_each(|file| text += &format!("![{file}]({file})\n"));
    fs::write(folder.join("report.md"), &text).expect("target can be written");
    let data = serde_json::to_string_pretty(&figures).expect("plain data");
    fs::write(folder.join("report.json"), data).expect("target can be written");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Goal;

    #[test]
    fn a_row_says_whether_its_goal_is_kept() {
        let figure = Figure { ratio: Some(1.6), limit: Some(0.2), ..Figure::new("split", 0.32, "ns") };
        assert!(row(&figure.clone().goal(Goal::AtMost(1.5))).contains("| ≤ 1.5: **missed** |"));
        assert!(row(&figure.clone().goal(Goal::AtMost(2.0))).contains("| ≤ 2: kept |"));
        let otherwise = row(&figure.goal(Goal::AtMost(1.5)).instead("the best there is"));
        assert!(otherwise.contains("| ≤ 1.5, or the best there is: kept by that alone |"));
    }
}
