//! Interleaved measurement: a subject, its limit and its peers take turns, so that whatever else the machine does hits all
//! of them alike; ratios are those of neighbours in time.

use std::time::Duration;

use crate::figure::{Figure, Goal, median, percentile};

/// Does its work once and says how long that took; what it takes to prepare it is not counted.
pub type Run<'a, F> = Box<dyn FnMut(&mut F) -> Duration + 'a>;

/// What a contestant stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The library.
    Subject,
    /// The best the machine can do.
    Limit,
    /// Another crate.
    Peer,
}

/// One that takes part.
struct Contestant<'a, F> {
    name: String,
    role: Role,
    goal: Option<Goal>,
    run: Run<'a, F>,
    taken: Vec<f64>,
}

/// A subject with what it stands beside, all on one fixture.
pub struct Contest<'a, F> {
    name: String,
    /// By how much the time of one run is divided: pages, frames.
    per: f64,
    contestants: Vec<Contestant<'a, F>>,
    series: Option<(String, f64)>,
    instead: Option<String>,
    turns: usize,
}

impl<'a, F> Contest<'a, F> {
    /// A contest of `subject`, whose one run works on `per` items.
    pub fn new(name: impl Into<String>, per: u64, subject: impl FnMut(&mut F) -> Duration + 'a) -> Self {
        let contest = Self {
            name: name.into(),
            per: per as f64,
            contestants: vec![],
            series: None,
            instead: None,
            turns: 0,
        };
        contest.with("strandline", Role::Subject, None, subject)
    }

    fn with(
        mut self,
        name: &str,
        role: Role,
        goal: Option<Goal>,
        run: impl FnMut(&mut F) -> Duration + 'a,
    ) -> Self {
        self.contestants.push(Contestant {
            name: name.into(),
            role,
            goal,
            run: Box::new(run),
            taken: vec![],
        });
        self
    }

    /// Beside a limit, of which the subject's time is to be at most `goal` times.
    #[must_use]
    pub fn limit(self, name: &str, goal: Option<f64>, run: impl FnMut(&mut F) -> Duration + 'a) -> Self {
        self.with(name, Role::Limit, goal.map(Goal::AtMost), run)
    }

    /// Beside a peer, whose time is to be at least `goal` times the subject's.
    #[must_use]
    pub fn peer(self, name: &str, goal: Option<f64>, run: impl FnMut(&mut F) -> Duration + 'a) -> Self {
        self.with(name, Role::Peer, goal.map(Goal::AtLeast), run)
    }

    /// A point of a plot.
    #[must_use]
    pub fn series(mut self, name: &str, at: f64) -> Self {
        self.series = Some((name.into(), at));
        self
    }

    /// What keeps its goal whatever the ratio is.
    #[must_use]
    pub fn instead(mut self, what: &str) -> Self {
        self.instead = Some(what.into());
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One turn of everybody, each time another one first; gives back the subject's time.
    pub fn turn(&mut self, fixture: &mut F) -> Duration {
        let (count, first) = (self.contestants.len(), self.turns);
        self.turns += 1;
        let mut subject = Duration::ZERO;
        for index in 0..count {
            let contestant = &mut self.contestants[(first + index) % count];
            let taken = (contestant.run)(fixture);
            contestant.taken.push(taken.as_secs_f64() * 1e9 / self.per);
            if contestant.role == Role::Subject {
                subject = taken;
            }
        }
        subject
    }

    /// What came of it: one figure for each that the subject stood beside, or one alone. The first turn, which meets cold
    /// caches and untouched memory, does not count. Nothing where there was no second one.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let Some((subject, others)) = self.contestants.split_first() else { return vec![] };
        let Some(subject) = subject.taken.get(1..).filter(|taken| !taken.is_empty()) else { return vec![] };
        let alone = Figure {
            series: self.series.clone(),
            instead: self.instead.clone(),
            spread: Some((percentile(subject, 0.1), percentile(subject, 0.9))),
            ..Figure::new(&self.name, median(subject), "ns")
        };
        if others.is_empty() {
            return vec![alone];
        }
        others.iter().enumerate().map(|(i, other)| figure(&alone, subject, other, i == 0)).collect()
    }
}

fn figure<F>(alone: &Figure, subject: &[f64], other: &Contestant<'_, F>, first: bool) -> Figure {
    let taken = &other.taken[1..];
    let ratios: Vec<f64> = subject
        .iter()
        .zip(taken)
        .map(|(subject, other_one)| match other.role {
            Role::Peer => other_one / subject,
            Role::Limit | Role::Subject => subject / other_one,
        })
        .collect();
    let value = Some(median(taken));
    Figure {
        limit: value.filter(|_| other.role == Role::Limit),
        peer: value.filter(|_| other.role == Role::Peer),
        ratio: Some(median(&ratios)),
        spread: Some((percentile(&ratios, 0.1), percentile(&ratios, 0.9))),
        goal: other.goal,
        beside: Some(other.name.clone()),
        // One point of a plot, however many stand beside it.
        series: alone.series.clone().filter(|_| first),
        ..alone.clone()
    }
}
