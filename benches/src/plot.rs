//! Plots of figures that have a place in a series, as SVG.

use std::collections::BTreeMap;
use std::path::Path;

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
    /// The limit of each is drawn as well.
    limits: bool,
}

/// A new series appears in the picture whose words it begins with.
const PICTURES: [Picture; 6] = [
    Picture {
        file: "harvest.svg",
        title: "Harvest of one view: time a page (crosses: plain read of the same descriptors)",
        ordinate: "ns a page",
        series: &["harvest"],
        limits: true,
    },
    Picture {
        file: "structure.svg",
        title: "Split, merge, map, unmap: time a page (crosses: the limit)",
        ordinate: "ns a page",
        series: &["split", "merge", "map", "unmap"],
        limits: true,
    },
    Picture {
        file: "log.svg",
        title: "A log of a VM without devices: time a page",
        ordinate: "ns a page",
        series: &["log:"],
        limits: false,
    },
    Picture {
        file: "calls.svg",
        title: "Hypercalls with one device, under the emulator: instructions",
        ordinate: "instructions",
        series: &["start,", "sync-", "clear,", "stop,"],
        limits: false,
    },
    Picture {
        file: "memory.svg",
        title: "Memory of a log, two views: 4 KiB frames",
        ordinate: "frames",
        series: &["frames of a log"],
        limits: false,
    },
    Picture {
        file: "false-dirty.svg",
        title: "Bytes reported over bytes written, by granule",
        ordinate: "factor",
        series: &["false dirty"],
        limits: false,
    },
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
        || points().flat_map(|f| [Some(f.value), f.limit.filter(|_| picture.limits)].into_iter().flatten());
    let (x0, x1) =
        points().map(|f| at(f)).fold((f64::MAX, 0.0), |(a, b): (f64, f64), x| (a.min(x), b.max(x)));
    let (y0, y1) = values().fold((f64::MAX, 0.0), |(a, b): (f64, f64), y| (a.min(y), b.max(y)));
    // Above the curves there is room for their names.
    let headroom = (y1 / y0).max(4.0).powf(0.06 * series.len() as f64) * 1.5;
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(picture.title, ("sans-serif", 19))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(78)
        .build_cartesian_2d(
            (x0 / 1.5..x1 * 1.5).log_scale().base(16.0),
            (y0 / 1.6..y1 * headroom).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("bytes of guest memory")
        .y_desc(picture.ordinate)
        .x_label_formatter(&|x| size_name(*x as u64))
        .y_label_formatter(&|y| if *y >= 10_000.0 { format!("{y:.0e}") } else { format!("{y}") })
        .light_line_style(WHITE)
        .draw()?;
    for ((name, points), colour) in from_above(series).iter().zip(COLOURS.iter().cycle()) {
        chart
            .draw_series(
                LineSeries::new(points.iter().map(|f| (at(f), f.value)), colour.stroke_width(2))
                    .point_size(3),
            )?
            .label(*name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        if picture.limits {
            let limits = points.iter().filter_map(|f| Some((at(f), f.limit?)));
            chart.draw_series(limits.map(|place| Cross::new(place, 4, colour.stroke_width(2))))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}
