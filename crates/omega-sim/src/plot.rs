//! Pictures of a run, as SVG text.
//!
//! Drawn from the same series the numbers come from. Meaning never rests on colour alone: every line is named in the
//! legend, and the numbers stand in the table beside it.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::report::{Report, Series};

/// Why a plot could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw the plot: {0}")]
pub struct PlotError(String);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (920, 260);

// Okabe and Ito's palette: told apart by readers who do not see red and green alike.
const BLUE: RGBColor = RGBColor(0, 114, 178);
const ORANGE: RGBColor = RGBColor(213, 94, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const SKY: RGBColor = RGBColor(86, 180, 233);
const GREY: RGBColor = RGBColor(90, 90, 90);
const FAULT: RGBColor = RGBColor(204, 121, 167);

/// A named line.
struct Line<'a> {
    name: &'a str,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
    /// Fill down to zero.
    filled: bool,
}

/// Every plot of one run, with its caption, in the order they are shown.
pub(crate) fn plots(report: &Report) -> Result<Vec<(String, String)>, PlotError> {
    let series = &report.series;
    let mut plots = vec![
        (String::from("Arrivals against quota (tokens per second)"), arrivals(report)?),
        (String::from("What the policy added to answered requests (seconds)"), waits(series)?),
        (String::from("429s and failed calls (per second)"), troubles(series)?),
    ];
    if !series.circuit.is_empty() {
        plots.push((String::from("Circuit breaker"), circuit(series)?));
    }
    if !report.tenants.is_empty() {
        plots.push((String::from("Answered in time, by tenant (percent of its requests)"), tenants(report)?));
    }
    Ok(plots)
}

fn arrivals(report: &Report) -> Result<String, PlotError> {
    let series = &report.series;
    let quota = report.tokens_per_minute as f64 / 60.0;
    let end = series.end();
    chart(
        series,
        "tokens/s",
        &[
            Line {
                name: "offered",
                colour: SKY,
                points: series.stepped(&series.offered_per_s),
                filled: true,
            },
            Line {
                name: "charged at arrival",
                colour: BLUE,
                points: series.stepped(&series.admitted_per_s),
                filled: false,
            },
            Line { name: "quota", colour: ORANGE, points: vec![(0.0, quota), (end, quota)], filled: false },
        ],
    )
}

fn waits(series: &Series) -> Result<String, PlotError> {
    chart(
        series,
        "s",
        &[
            Line {
                name: "99th percentile",
                colour: SKY,
                points: series.stepped(&series.wait_p99_s),
                filled: true,
            },
            Line { name: "median", colour: BLUE, points: series.stepped(&series.wait_p50_s), filled: false },
        ],
    )
}

fn troubles(series: &Series) -> Result<String, PlotError> {
    let rate = |counts: &[u32]| -> Vec<f64> {
        counts.iter().map(|count| f64::from(*count) / series.step_s).collect()
    };
    chart(
        series,
        "calls/s",
        &[
            Line { name: "sent", colour: SKY, points: series.stepped(&series.sent_per_s), filled: true },
            Line {
                name: "429",
                colour: ORANGE,
                points: series.stepped(&rate(&series.throttled)),
                filled: false,
            },
            Line {
                name: "failed",
                colour: GREY,
                points: series.stepped(&rate(&series.failed)),
                filled: false,
            },
        ],
    )
}

/// A line plot over the time of the trace, faults shaded.
fn chart(series: &Series, unit: &str, lines: &[Line<'_>]) -> Result<String, PlotError> {
    let highest = lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value).fold(0.0, f64::max);
    let top = if highest > 0.0 { highest * 1.08 } else { 1.0 };
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(34)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..series.end(), 0.0..top)
            .map_err(wrong)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE.mix(0.0))
            .bold_line_style(BLACK.mix(0.1))
            .x_desc("seconds from the start")
            .y_desc(unit)
            .y_label_formatter(&short)
            .draw()
            .map_err(wrong)?;
        for (start, end) in &series.faults {
            let shade =
                Rectangle::new([(*start, 0.0), (end.min(series.end()), top)], FAULT.mix(0.25).filled());
            chart
                .draw_series([shade])
                .map_err(wrong)?
                .label("fault")
                .legend(|(x, y)| Rectangle::new([(x, y - 5), (x + 16, y + 5)], FAULT.mix(0.25).filled()));
        }
        for line in lines {
            let (colour, points) = (line.colour, line.points.iter().copied());
            let drawn = if line.filled {
                chart.draw_series(
                    AreaSeries::new(points, 0.0, colour.mix(0.25)).border_style(colour.stroke_width(1)),
                )
            } else {
                chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))
            };
            drawn
                .map_err(wrong)?
                .label(line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(3)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.2))
            .draw()
            .map_err(wrong)
    })
}

fn circuit(series: &Series) -> Result<String, PlotError> {
    let end = series.end().max(series.circuit.last().map_or(0.0, |(at, _)| *at));
    let mut points = vec![(0.0, 0.0)];
    for (at, level) in &series.circuit {
        let before = points.last().map_or(0.0, |(_, level)| *level);
        points.push((*at, before));
        points.push((*at, f64::from(*level)));
    }
    let last = points.last().map_or(0.0, |(_, level)| *level);
    points.push((end, last));
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(34)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..end, -0.2..2.3)
            .map_err(wrong)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(WHITE.mix(0.0))
            .bold_line_style(BLACK.mix(0.1))
            .x_desc("seconds from the start")
            .y_labels(3)
            .y_label_formatter(&|level: &f64| {
                String::from(match level.round() as i64 {
                    0 => "closed",
                    1 => "half-open",
                    2 => "open",
                    _ => "",
                })
            })
            .draw()
            .map_err(wrong)?;
        for (start, fault_end) in &series.faults {
            let shade = Rectangle::new([(*start, -0.2), (fault_end.min(end), 2.3)], FAULT.mix(0.25).filled());
            chart.draw_series([shade]).map_err(wrong)?;
        }
        chart.draw_series(LineSeries::new(points, BLUE.stroke_width(2))).map_err(wrong)?;
        Ok(())
    })
}

/// More tenants than this are in the table only.
const TENANTS_MAX: usize = 30;

fn tenants(report: &Report) -> Result<String, PlotError> {
    let shown: Vec<_> = report.tenants.iter().take(TENANTS_MAX).collect();
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(34)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..shown.len() as f64, 0.0..105.0)
            .map_err(wrong)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE.mix(0.0))
            .bold_line_style(BLACK.mix(0.1))
            .x_labels(shown.len())
            .x_label_formatter(&|_| String::new())
            .x_desc("tenants, largest first")
            .y_desc("%")
            .draw()
            .map_err(wrong)?;
        let bars = shown.iter().enumerate().map(|(place, tenant)| {
            let left = place as f64;
            Rectangle::new([(left + 0.15, 0.0), (left + 0.85, tenant.success * 100.0)], GREEN.filled())
        });
        chart.draw_series(bars).map_err(wrong)?;
        let names = shown.iter().enumerate().map(|(place, tenant)| {
            let name: String = tenant.tenant.chars().take(8).collect();
            Text::new(name, (place as f64 + 0.2, 6.0), ("sans-serif", 12).into_font().color(&WHITE))
        });
        chart.draw_series(names).map_err(wrong)?;
        Ok(())
    })
}

fn draw(paint: impl FnOnce(&Area<'_>) -> Result<(), PlotError>) -> Result<String, PlotError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(wrong)?;
        paint(&area)?;
        area.present().map_err(wrong)?;
    }
    Ok(text)
}

/// 12000 reads 12k.
fn short(value: &f64) -> String {
    match value.abs() {
        big if big >= 1e6 => format!("{:.1}M", value / 1e6),
        big if big >= 10_000.0 => format!("{:.0}k", value / 1e3),
        big if big >= 10.0 => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

fn wrong(error: impl std::fmt::Display) -> PlotError {
    PlotError(error.to_string())
}

impl Series {
    /// The end of the time axis, in seconds.
    fn end(&self) -> f64 {
        (self.step_s * self.offered_per_s.len() as f64).max(1.0)
    }

    /// The value of each step, at its middle.
    fn stepped(&self, values: &[f64]) -> Vec<(f64, f64)> {
        values.iter().enumerate().map(|(step, value)| ((step as f64 + 0.5) * self.step_s, *value)).collect()
    }
}
