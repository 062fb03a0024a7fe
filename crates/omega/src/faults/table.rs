//! The table in words and as JSON.

use omega_client::ErrorKind;
use serde_json::{Value, json};

use super::cell::{Cell, Ending};
use super::{DEADLINE, Report};
use crate::demo::render::checks;

/// One line for every cell, then what had to hold.
pub fn render(report: &Report) -> String {
    let width = report.cells.iter().map(|cell| cell.fault.to_string().len()).max().unwrap_or_default();
    let mut text = format!(
        "{} fails, {} calls, deadline {} s\n\n  {:width$}  {:6}  {:8}  {:22}  {:>7}  outcome\n",
        report.provider.name(),
        report.cells.len(),
        DEADLINE.as_secs(),
        "fault",
        "call",
        "fallback",
        "attempts",
        "elapsed",
    );
    for cell in &report.cells {
        let fault = cell.fault.to_string();
        text.push_str(&format!(
            "  {fault:width$}  {:6}  {:8}  {:22}  {:>5.2} s  {}\n",
            cell.call.name(),
            if cell.has_fallback { "yes" } else { "no" },
            attempts(cell),
            cell.elapsed.as_secs_f64(),
            outcome(cell),
        ));
    }
    text.push('\n');
    text.push_str(&checks(&report.checks));
    text.push_str(if report.held() { "\neverything held\n" } else { "\nnot everything held\n" });
    text
}

pub(super) fn json(report: &Report) -> Value {
    json!({
        "provider": report.provider.name(),
        "deadline_s": DEADLINE.as_secs_f64(),
        "held": report.held(),
        "checks": report.checks.iter().map(|check| {
            json!({"what": check.what, "held": check.held, "found": check.found})
        }).collect::<Vec<_>>(),
        "cells": report.cells.iter().map(cell_json).collect::<Vec<_>>(),
    })
}

fn cell_json(cell: &Cell) -> Value {
    let (answered_by, error) = match &cell.ending {
        Ending::Answered { by, .. } => (Some(by.as_str()), None),
        Ending::Failed { message, .. } => (None, Some(message.as_str())),
    };
    json!({
        "fault": cell.fault.to_string(),
        "call": cell.call.name(),
        "fallback": cell.has_fallback,
        "outcome": outcome(cell),
        "answered_by": answered_by,
        "error": error,
        "attempts": {cell.provider.name(): cell.asked.len(), cell.other.name(): cell.asked_elsewhere},
        "elapsed_s": cell.elapsed.as_secs_f64(),
    })
}

fn attempts(cell: &Cell) -> String {
    let own = format!("{} {}", cell.provider.name(), cell.asked.len());
    if cell.asked_elsewhere == 0 {
        own
    } else {
        format!("{own}, {} {}", cell.other.name(), cell.asked_elsewhere)
    }
}

fn outcome(cell: &Cell) -> String {
    match &cell.ending {
        Ending::Answered { by, finish, .. } if finish == "stop" => format!("answered by {by}"),
        Ending::Answered { by, finish, .. } => format!("answered by {by}, finish {finish}"),
        Ending::Failed { kind, status, delivered, .. } => {
            let mut text = String::from(words(*kind));
            if let Some(status) = status {
                text.push_str(&format!(" ({status})"));
            }
            if *delivered > 0 {
                text.push_str(&format!(", after {delivered} characters"));
            }
            text
        }
    }
}

fn words(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::CircuitOpen => "error: circuit open",
        ErrorKind::RateLimited => "error: rate limited",
        ErrorKind::QuotaExhausted => "error: quota exhausted",
        ErrorKind::Authentication => "error: key refused",
        ErrorKind::InvalidRequest => "error: invalid request",
        ErrorKind::ContextLength => "error: context length",
        ErrorKind::ContentFilter => "error: content filter",
        ErrorKind::Provider => "error: provider failed",
        ErrorKind::StreamBroken => "error: stream broken",
        ErrorKind::Deadline => "error: out of time",
        ErrorKind::Transport => "error: transport",
        ErrorKind::Config => "error: configuration",
        ErrorKind::Unsupported => "error: unsupported",
        _ => "error",
    }
}
