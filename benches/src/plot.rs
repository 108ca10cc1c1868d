//! Plots of figures that have a place in a series, as SVG.

use std::collections::BTreeMap;
use std::path::Path;

use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;

use crate::figure::{Figure, size_name};

const SIZE: (u32, u32) = (900, 520);
/// Colours that are told apart in print and by the colour-blind.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(120, 94, 240),
    RGBColor(90, 90, 90),
];

/// A picture: its file, its title, what its ordinate is, and whose series begin with one of these words.
struct Picture {
    file: &'static str,
    title: &'static str,
    ordinate: &'static str,
    series: &'static [&'static str],
    /// What stands beside each is drawn as well.
    limits: bool,
    abscissa: Abscissa,
    /// From 0 on, and not by its logarithm.
    linear: bool,
}

/// What a place in a series is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Abscissa {
    /// A size of guest memory or of a granule.
    Bytes,
    /// The share of 2 MiB regions that are touched.
    Percent,
    /// The number of a round.
    Rounds,
}

impl Abscissa {
    const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes of guest memory",
            Self::Percent => "% of 2 MiB regions that are touched",
            Self::Rounds => "round",
        }
    }

    fn label(self, x: f64) -> String {
        match self {
            Self::Bytes => size_name(x as u64),
            Self::Percent | Self::Rounds => format!("{x}"),
        }
    }

    /// What the marks of its axis are powers of, where it reaches so many times its beginning.
    fn base(self, reach: f64) -> f64 {
        match self {
            Self::Bytes if reach <= 1024.0 => 4.0,
            Self::Bytes => 16.0,
            Self::Percent => 10.0,
            Self::Rounds => 2.0,
        }
    }
}

/// What reports were, round by round, under one pattern of writes.
const fn reported(file: &'static str, title: &'static str, series: &'static [&'static str]) -> Picture {
    let ordinate = "pages reported / pages written";
    Picture { file, title, ordinate, series, limits: false, abscissa: Abscissa::Rounds, linear: false }
}

/// What was mapped by blocks, round by round, under one pattern of writes.
const fn in_blocks(file: &'static str, title: &'static str, series: &'static [&'static str]) -> Picture {
    let ordinate = "% of the memory";
    Picture { file, title, ordinate, series, limits: false, abscissa: Abscissa::Rounds, linear: true }
}

/// A new series appears in the picture whose words it begins with.
const PICTURES: [Picture; 16] = [
    Picture {
        file: "harvest.svg",
        title: "Harvest of one view: time a page (crosses: plain read of the same descriptors)",
        ordinate: "ns a page",
        series: &["harvest"],
        limits: true,
        abscissa: Abscissa::Bytes,
        linear: false,
    },
    Picture {
        file: "structure.svg",
        title: "Split, merge, map, unmap: time a page (crosses: the limit)",
        ordinate: "ns a page",
        series: &["split", "merge", "map", "unmap"],
        limits: true,
        abscissa: Abscissa::Bytes,
        linear: false,
    },
    Picture {
        file: "log.svg",
        title: "A log of a VM without devices: time a page",
        ordinate: "ns a page",
        series: &["log:"],
        limits: false,
        abscissa: Abscissa::Bytes,
        linear: false,
    },
    Picture {
        file: "calls.svg",
        title: "Hypercalls with one device, under the emulator: instructions",
        ordinate: "instructions",
        series: &["start,", "sync-", "clear,", "stop,"],
        limits: false,
        abscissa: Abscissa::Bytes,
        linear: false,
    },
    Picture {
        file: "memory.svg",
        title: "Memory of a log, two views: 4 KiB frames",
        ordinate: "frames",
        series: &["frames of a log"],
        limits: false,
        abscissa: Abscissa::Bytes,
        linear: false,
    },
    Picture {
        file: "false-dirty.svg",
        title: "Bytes reported over bytes written, by granule",
        ordinate: "factor",
        series: &["false dirty"],
        limits: false,
        abscissa: Abscissa::Bytes,
        linear: false,
    },
    Picture {
        file: "adaptive-start.svg",
        title: "Adaptive start: time a GiB (crosses: the same by pages)",
        ordinate: "ns a GiB",
        series: &["adaptive start"],
        limits: true,
        abscissa: Abscissa::Bytes,
        linear: false,
    },
    Picture {
        file: "adaptive-harvest.svg",
        title: "Adaptive harvest, and sync: time a GiB (crosses: the same by pages)",
        ordinate: "ns a GiB",
        series: &["adaptive harvest", "adaptive sync"],
        limits: true,
        abscissa: Abscissa::Percent,
        linear: false,
    },
    reported(
        "reported-sequential.svg",
        "Reported over written by round: sequential",
        &["reported by round, sequential"],
    ),
    in_blocks(
        "in-blocks-sequential.svg",
        "Memory mapped by blocks by round: sequential",
        &["in blocks, sequential"],
    ),
    reported("reported-random.svg", "Reported over written by round: random", &["reported by round, random"]),
    in_blocks("in-blocks-random.svg", "Memory mapped by blocks by round: random", &["in blocks, random"]),
    reported(
        "reported-hot-spot.svg",
        "Reported over written by round: hot spot",
        &["reported by round, hot spot"],
    ),
    in_blocks(
        "in-blocks-hot-spot.svg",
        "Memory mapped by blocks by round: hot spot",
        &["in blocks, hot spot"],
    ),
    reported(
        "reported-working-set.svg",
        "Reported over written by round: working set",
        &["reported by round, working set"],
    ),
    in_blocks(
        "in-blocks-working-set.svg",
        "Memory mapped by blocks by round: working set",
        &["in blocks, working set"],
    ),
];

type Series<'f> = BTreeMap<&'f str, Vec<&'f Figure>>;

/// Draws what there are figures of into `folder`; gives back the names of the files.
///
/// # Errors
/// A file can't be written.
pub fn draw_all(figures: &[Figure], folder: &Path) -> Result<Vec<&'static str>, Box<dyn std::error::Error>> {
    let mut drawn = vec![];
    for picture in &PICTURES {
        let mut series = Series::new();
        for figure in figures {
            let Some((name, _)) = &figure.series else { continue };
            if picture.series.iter().any(|word| name.starts_with(word)) {
                series.entry(name).or_default().push(figure);
            }
        }
        if series.values().any(|points| points.len() > 1) {
            draw(picture, &series, &folder.join(picture.file))?;
            drawn.push(picture.file);
        }
    }
    Ok(drawn)
}

fn at(figure: &Figure) -> f64 {
    figure.series.as_ref().map_or(1.0, |(_, at)| *at)
}

/// The series, the highest first, so that their names stand as their curves do.
fn from_above<'f>(series: &Series<'f>) -> Vec<(&'f str, Vec<&'f Figure>)> {
    let mut sorted: Vec<_> = series.iter().map(|(name, points)| (*name, points.clone())).collect();
    sorted.iter_mut().for_each(|(_, points)| points.sort_by(|a, b| at(a).total_cmp(&at(b))));
    // By their first points: not all reach as far.
    let height = |points: &[&Figure]| points.first().map_or(0.0, |figure| figure.value);
    sorted.sort_by(|(_, a), (_, b)| height(b).total_cmp(&height(a)));
    sorted
}

fn draw(picture: &Picture, series: &Series<'_>, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let points = || series.values().flatten();
    let values =
        || points().flat_map(|f| [Some(f.value), f.other().filter(|_| picture.limits)].into_iter().flatten());
    let (x0, x1) =
        points().map(|f| at(f)).fold((f64::MAX, 0.0), |(a, b): (f64, f64), x| (a.min(x), b.max(x)));
    let (y0, y1) = values().fold((f64::MAX, 0.0), |(a, b): (f64, f64), y| (a.min(y), b.max(y)));
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut builder = ChartBuilder::on(&area);
    builder.caption(picture.title, ("sans-serif", 19)).margin(12).x_label_area_size(40).y_label_area_size(78);
    let base = picture.abscissa.base(x1 / x0);
    let margin = if picture.abscissa == Abscissa::Rounds { 1.0 } else { 1.5 };
    let x = (x0 / margin..x1 * margin).log_scale().base(base);
    // Above the curves there is room for their names.
    if picture.linear {
        let y = 0.0..y1 * (1.15 + 0.06 * series.len() as f64);
        curves(picture, series, builder.build_cartesian_2d(x, y)?)?;
    } else {
        let headroom = (y1 / y0).max(4.0).powf(0.06 * series.len() as f64) * 1.5;
        curves(picture, series, builder.build_cartesian_2d(x, (y0 / 1.6..y1 * headroom).log_scale())?)?;
    }
    area.present()?;
    Ok(())
}

type Chart<'a, X, Y> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>;

fn curves<X, Y>(
    picture: &Picture,
    series: &Series<'_>,
    mut chart: Chart<'_, X, Y>,
) -> Result<(), Box<dyn std::error::Error>>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_desc(picture.abscissa.name())
        .y_desc(picture.ordinate)
        .x_label_formatter(&|x| picture.abscissa.label(*x))
        .y_label_formatter(&|y| if *y >= 10_000.0 { format!("{y:.0e}") } else { format!("{y}") })
        .light_line_style(WHITE)
        .draw()?;
    for ((name, points), colour) in from_above(series).iter().zip(COLOURS.iter().cycle()) {
        chart
            .draw_series(
                LineSeries::new(points.iter().map(|f| (at(f), f.value)), colour.stroke_width(2))
                    .point_size(if picture.abscissa == Abscissa::Rounds { 2 } else { 3 }),
            )?
            .label(*name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        if picture.limits {
            let limits = points.iter().filter_map(|f| Some((at(f), f.other()?)));
            chart.draw_series(limits.map(|place| Cross::new(place, 4, colour.stroke_width(2))))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
