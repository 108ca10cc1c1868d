//! What was measured: one line of the report each.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A figure, with what it stands beside. Nothing is in it that was not measured in the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured, of how much.
    pub name: String,
    /// The median.
    pub value: f64,
    /// What one of it is.
    pub unit: String,
    /// The median of what the machine can do at best.
    pub limit: Option<f64>,
    /// The median of another crate's way to do the same.
    pub peer: Option<f64>,
    /// The median of value / limit, or of peer / value: each of two neighbours in time.
    pub ratio: Option<f64>,
    /// What the ratio, or else the value, is to be.
    pub goal: Option<Goal>,
    /// What keeps the goal whatever the ratio is, and is so.
    pub instead: Option<String>,
    /// The tenth and the ninetieth percentile of what the ratio, or else the value, was.
    pub spread: Option<(f64, f64)>,
    /// What the limit, or the peer, is.
    pub beside: Option<String>,
    /// The group it is plotted with, and its place there (bytes, or percent).
    pub series: Option<(String, f64)>,
}

/// A bound that a figure is to keep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Goal {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

impl Goal {
    /// Whether `value` keeps it.
    #[must_use]
    pub fn is_kept(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
        }
    }
}

impl Figure {
    /// A figure that stands alone.
    #[must_use]
    pub fn new(name: impl Into<String>, value: f64, unit: &str) -> Self {
        Self {
            name: name.into(),
            value,
            unit: unit.into(),
            limit: None,
            peer: None,
            ratio: None,
            goal: None,
            instead: None,
            spread: None,
            beside: None,
            series: None,
        }
    }

    /// With a bound.
    #[must_use]
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    /// With what keeps the bound whatever the ratio is.
    #[must_use]
    pub fn instead(mut self, what: &str) -> Self {
        self.instead = Some(what.into());
        self
    }

    /// As a point of a plot.
    #[must_use]
    pub fn series(mut self, name: &str, at: f64) -> Self {
        self.series = Some((name.into(), at));
        self
    }

    /// The median of what it stands beside: a limit, or a peer.
    #[must_use]
    pub fn other(&self) -> Option<f64> {
        self.limit.or(self.peer)
    }

    /// What the goal is about.
    #[must_use]
    pub fn judged(&self) -> f64 {
        self.ratio.unwrap_or(self.value)
    }
}

/// One part of a run: the figures, and what there is to know about how they came about.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Part {
    /// The figures.
    pub figures: Vec<Figure>,
    /// Figures that are points of plots alone, and no lines of the table.
    #[serde(default)]
    pub points: Vec<Figure>,
    /// What was left out, and why; what the machine is.
    pub notes: Vec<String>,
}

impl Part {
    /// Where the part `name` of a run is kept.
    #[must_use]
    pub fn path(name: &str) -> PathBuf {
        folder().join("parts").join(format!("{name}.json"))
    }

    /// Keeps it for the report.
    ///
    /// # Panics
    /// The folder can't be written.
    pub fn write(&self, name: &str) {
        let path = Self::path(name);
        fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("target can be written");
        let text = serde_json::to_string_pretty(self).expect("plain data");
        fs::write(path, text).expect("target can be written");
    }

    /// The part of that name, if there was such a run.
    ///
    /// # Panics
    /// The file holds something else.
    #[must_use]
    pub fn read(name: &str) -> Option<Self> {
        let text = fs::read_to_string(Self::path(name)).ok()?;
        Some(serde_json::from_str(&text).expect("what a run wrote"))
    }
}

/// What the goal of digests says besides: which hash that is, and beside which it was measured, is in
/// `docs/architecture.md`.
pub const BEST_HASH: &str = "the best no_std hash measured";

/// Where the results go.
#[must_use]
pub fn folder() -> PathBuf {
    qemu_tests::root().join("target/bench")
}

/// The value below which `part` of the values lie (0.5: the median); 0 where there are none.
#[must_use]
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len().saturating_sub(1)) as f64 * part).round() as usize;
    sorted.get(index).copied().unwrap_or(0.0)
}

/// The median.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// `bytes` as people say it.
#[must_use]
pub fn size_name(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 40 => format!("{} TiB", b >> 40),
        b if b >= 1 << 30 => format!("{} GiB", b >> 30),
        b if b >= 1 << 20 => format!("{} MiB", b >> 20),
        b => format!("{} KiB", b >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_and_percentiles_are_values_there_were() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(percentile(&[5.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0], 0.9), 10.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn goals_bind_on_their_side() {
        assert!(Goal::AtMost(1.5).is_kept(1.5) && !Goal::AtMost(1.5).is_kept(1.51));
        assert!(Goal::AtLeast(10.0).is_kept(10.0) && !Goal::AtLeast(10.0).is_kept(9.9));
    }
}
