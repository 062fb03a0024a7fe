//! The report as one HTML file that needs nothing else: tables, plots as inline SVG, no script.

use std::fmt::Write as _;

use crate::plot::{self, PlotError};
use crate::report::Report;

const STYLE: &str = "\
:root{color-scheme:light}\
body{font:15px/1.5 system-ui,sans-serif;max-width:980px;margin:2rem auto;padding:0 1rem;color:#1c1c1c;background:#fff}\
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2.5rem;border-bottom:1px solid #ccc}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{padding:.3rem .6rem;border-bottom:1px solid #e3e3e3;text-align:right;white-space:nowrap}\
th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #888}\
figure{margin:1.2rem 0}figcaption{font-weight:600}svg{max-width:100%;height:auto}\
.scroll{overflow-x:auto}.small{color:#555}";

/// One page over several runs. `title` is what was replayed; each run has the name it is shown under.
///
/// # Errors
/// A plot could not be drawn.
pub fn html(title: &str, runs: &[(String, Report)]) -> Result<String, PlotError> {
    let mut page = String::with_capacity(64 * 1024);
    page.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    // Writing to a string cannot fail.
    let _ = write!(page, "<title>{0}</title><style>{STYLE}</style></head><body><h1>{0}</h1>", escape(title));
    summary(&mut page, runs);
    for (name, report) in runs {
        let _ = write!(page, "<h2>{}</h2>", escape(name));
        let _ = write!(
            page,
            "<p class=\"small\">Provider: {} requests and {} tokens per minute, {} s of it at once; charge {}; \
             max_tokens {}; deadline {} s; seed {}.</p>",
            report.requests_per_minute,
            report.tokens_per_minute,
            report.burst_seconds,
            report.charge,
            report.max_tokens,
            report.deadline_s,
            report.seed
        );
        for (caption, svg) in plot::plots(report)? {
            let _ = write!(
                page,
                "<figure><figcaption>{}</figcaption>{}</figure>",
                escape(&caption),
                inline(&svg)
            );
        }
        tenants(&mut page, report);
    }
    page.push_str("</body></html>\n");
    Ok(page)
}

fn summary(page: &mut String, runs: &[(String, Report)]) {
    page.push_str(
        "<div class=\"scroll\"><table><thead><tr><th>run</th><th>load</th><th>requests</th><th>in time</th>\
         <th>of oracle</th><th>429s per 1,000</th><th>calls per request</th><th>refused</th><th>wait p50</th>\
         <th>wait p99</th><th>wasted</th><th>recovered</th></tr></thead><tbody>",
    );
    for (name, report) in runs {
        let recovered = match report.recovery_first_s {
            Some(after) => format!("{after:.1} s"),
            None if report.series.faults.is_empty() => String::from("–"),
            None => String::from("never"),
        };
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{:.2}</td><td>{}</td><td>{}</td><td>{:.2} %</td><td>{:.2}</td><td>{:.3}</td>\
             <td>{:.2} %</td><td>{:.2} s</td><td>{:.2} s</td><td>{}</td><td>{recovered}</td></tr>",
            escape(name),
            report.load,
            report.requests,
            report.good,
            report.goodput_of_oracle * 100.0,
            report.rate_limited_per_1000,
            report.upstream_calls_per_request,
            report.refused_share * 100.0,
            report.wait_p50_s,
            report.wait_p99_s,
            report.wasted_calls
        );
    }
    page.push_str("</tbody></table></div>");
}

fn tenants(page: &mut String, report: &Report) {
    if report.tenants.is_empty() {
        return;
    }
    page.push_str(
        "<div class=\"scroll\"><table><thead><tr><th>tenant</th><th>requests</th><th>in time</th><th>of oracle</th>\
         <th>refused</th><th>wait p50</th><th>wait p99</th></tr></thead><tbody>",
    );
    for tenant in &report.tenants {
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{:.2} %</td><td>{:.2} %</td><td>{:.2} %</td><td>{:.2} s</td>\
             <td>{:.2} s</td></tr>",
            escape(&tenant.tenant),
            tenant.requests,
            tenant.success * 100.0,
            tenant.goodput_of_oracle * 100.0,
            tenant.refused_share * 100.0,
            tenant.wait_p50_s,
            tenant.wait_p99_s
        );
    }
    page.push_str("</tbody></table></div>");
}

/// The SVG element alone: a prologue has no place inside HTML.
fn inline(svg: &str) -> String {
    let element = svg.find("<svg").map_or(svg, |start| &svg[start..]);
    element.trim_end().to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
