//! Status page for a help desk: HTML and SVG, without a script. It contains no account names and no
//! backup ids.

use indicatif::{BinaryBytes, HumanCount};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::html::{Value, escape, fill};
use crate::retention::Report;
use crate::server::admin::chart::{Bar, Chart, Colour};
use crate::server::status::{Alert, Severity, Status};
use crate::time::{DAY, HumanSeconds};

const TEMPLATE: &str = include_str!("status_page.html");
const STYLE: &str = include_str!("status_page.css");

/// Renders the status page as HTML.
pub(super) fn render(status: &Status) -> String {
    let alerts = status.alerts();
    // The worst comes first.
    let worst = alerts
        .first()
        .map_or(Severity::Good, |alert| alert.severity);
    let state = match worst {
        Severity::Good => "No problems",
        Severity::Warning => "Warnings: action recommended",
        Severity::Critical => "Critical: action required",
    };
    let charts = match status.report() {
        Some(report) => ages(report) + &uploads(status) + &sizes(report),
        None => uploads(status),
    };
    let values = [
        ("state", Value::Text(state)),
        ("severity", Value::Text(worst.label())),
        ("style", Value::Markup(STYLE)),
        ("alerts", Value::Markup(&list(&alerts))),
        ("facts", Value::Markup(&facts(status))),
        ("charts", Value::Markup(&charts)),
        ("version", Value::Text(&status.version)),
        ("now", Value::Text(&date(status.now))),
    ];
    fill(TEMPLATE, &values)
}

fn list(alerts: &[Alert]) -> String {
    if alerts.is_empty() {
        return String::new();
    }
    let items: String = alerts
        .iter()
        .map(|alert| {
            let (severity, text) = (alert.severity.label(), escape(&alert.text));
            format!("<li><strong class=\"{severity}\">{severity}:</strong> {text}</li>\n")
        })
        .collect();
    format!("<h2>Alerts</h2>\n<ul>\n{items}</ul>\n")
}

fn facts(status: &Status) -> String {
    let mut facts: Vec<(&str, String, String)> = Vec::new();
    if let Some(report) = status.report() {
        let backups = HumanCount(report.kept).to_string();
        let trash = format!("{} more in the trash", HumanCount(report.trash_kept));
        facts.push(("Backups", backups, trash));
        let [day, week] = [1, 7].map(|days| report.ages.younger_than(days));
        facts.push((
            "Renewed within a day",
            HumanCount(day).to_string(),
            format!("{} within a week", HumanCount(week)),
        ));
        facts.push((
            "Expire within 14 days",
            HumanCount(report.expiring_in_14_days).to_string(),
            format!("{} within 30 days", HumanCount(report.expiring_in_30_days)),
        ));
    }
    if let Some(certificate) = &status.certificate {
        let left = HumanSeconds(certificate.ends.saturating_sub(status.now));
        let ends = format!("until {}", date(certificate.ends));
        facts.push(("Certificate", format!("{left} left"), ends));
    }
    let used = status.report().map_or_else(String::new, |report| {
        format!("{} used by backups", BinaryBytes(report.stored_bytes()))
    });
    let free = status
        .storage
        .free_bytes
        .map_or_else(|| "unknown".into(), |free| BinaryBytes(free).to_string());
    facts.push(("Disk space free", free, used));
    if let Some(sweep) = &status.sweep {
        let done = sweep.report.as_ref().map_or_else(
            || "aborted".to_owned(),
            |report| match report.refused {
                Some(_) => "removed nothing, see the alerts".to_owned(),
                None => format!(
                    "{} removed, {:.1} seconds",
                    HumanCount(report.removed),
                    sweep.seconds
                ),
            },
        );
        let since = HumanSeconds(status.now.saturating_sub(sweep.began));
        facts.push(("Last sweep", format!("{since} ago"), done));
    }
    let since = format!("since {}", date(status.started));
    let up = HumanSeconds(status.now.saturating_sub(status.started));
    facts.push(("Uptime", up.to_string(), since));
    let facts: String = facts
        .iter()
        .map(|(name, value, more)| {
            let [name, value, more] = [*name, value, more].map(escape);
            format!("<div><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>\n")
        })
        .collect();
    format!("<dl>\n{facts}</dl>\n")
}

/// The chart of backups by age.
fn ages(report: &Report) -> String {
    let mut before = 0;
    let bars: Vec<_> = report
        .ages
        .buckets()
        .iter()
        .map(|bucket| {
            let label = match bucket.younger_than_days {
                Some(1) => "under 1 day".to_owned(),
                Some(days) => format!("{before}–{days} days"),
                None => format!("over {before}"),
            };
            before = bucket.younger_than_days.unwrap_or(before);
            Bar {
                label,
                value: bucket.backups,
                colour: if bucket.younger_than_days.is_none() {
                    Colour::Warning
                } else {
                    Colour::Plain
                },
            }
        })
        .collect();
    let week = report.ages.younger_than(7);
    let all: u64 = bars.iter().map(|bar| bar.value).sum();
    Chart {
        name: "ages",
        title: "Backups by age",
        summary: format!(
            "{} of {} were renewed within the last week. Phones renew theirs every day, iPhones only after changes.",
            HumanCount(week),
            HumanCount(all)
        ),
        columns: ["last renewed", "backups"],
        bars,
    }
    .render()
}

/// The chart of backups by size.
fn sizes(report: &Report) -> String {
    let mut before = 0;
    let bars: Vec<_> = report
        .sizes
        .buckets()
        .iter()
        .map(|bucket| {
            let label = match bucket.up_to_percent {
                Some(percent) => format!("{before}–{percent} %"),
                None => format!("over {before} %"),
            };
            let is_high = bucket.up_to_percent.is_none_or(|percent| percent > 80);
            before = bucket.up_to_percent.unwrap_or(before);
            Bar {
                label,
                value: bucket.backups,
                colour: if is_high {
                    Colour::Warning
                } else {
                    Colour::Plain
                },
            }
        })
        .collect();
    Chart {
        name: "sizes",
        title: "Backups by size",
        summary: format!(
            "{} use more than 80 % of the allowed size. An app whose backup exceeds it stops uploading without telling its user.",
            HumanCount(report.sizes.over_80_percent())
        ),
        columns: ["of the allowed size", "backups"],
        bars,
    }
    .render()
}

/// The chart of uploads in the last thirty days.
fn uploads(status: &Status) -> String {
    let bars: Vec<_> = status
        .uploads
        .iter()
        .map(|day| Bar {
            label: month_and_day(day.day * DAY),
            value: day.uploads,
            colour: Colour::Plain,
        })
        .collect();
    let today = status.uploads.last().map_or(0, |day| day.uploads);
    Chart {
        name: "uploads",
        title: "Uploads per day",
        summary: format!("{} today so far. Days are in UTC.", HumanCount(today)),
        columns: ["day", "uploads"],
        bars,
    }
    .render()
}

fn date(unix: u64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]");
    format_time(unix, format)
}

fn month_and_day(unix: u64) -> String {
    format_time(unix, format_description!("[month]-[day]"))
}

fn format_time(unix: u64, format: &[time::format_description::BorrowedFormatItem<'_>]) -> String {
    let seconds = i64::try_from(unix).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| unix.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The colours that a block of the stylesheet defines, as sRGB components.
    fn colours(block: &str) -> std::collections::BTreeMap<&str, [f64; 3]> {
        let values = block
            .split(';')
            .filter_map(|part| part.rsplit_once("--")?.1.split_once(": #"));
        values
            .map(|(name, hex)| {
                let number = u32::from_str_radix(hex.get(..6).unwrap(), 16).unwrap();
                let channel = |shift: u32| f64::from(number >> shift & 0xff) / 255.0;
                (name, [channel(16), channel(8), channel(0)])
            })
            .collect()
    }

    /// Relative luminance (WCAG 2.2).
    fn luminance(colour: [f64; 3]) -> f64 {
        let linear = colour.map(|channel| {
            if channel <= 0.04045 {
                channel / 12.92
            } else {
                ((channel + 0.055) / 1.055).powf(2.4)
            }
        });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    }

    #[test]
    fn text_and_bars_have_enough_contrast_in_both_colour_schemes() {
        let (light, dark) = STYLE.split_once("@media").unwrap();
        let (dark, _) = dark.split_once("body {").unwrap();
        for scheme in [colours(light), colours(dark)] {
            let back = luminance(scheme["back"]);
            for (name, least) in [
                ("text", 7.0),
                ("quiet", 4.5),
                ("good", 4.5),
                ("warn", 4.5),
                ("bad", 4.5),
                ("bar", 3.0),
            ] {
                let other = luminance(scheme[name]);
                let contrast = (back.max(other) + 0.05) / (back.min(other) + 0.05);
                assert!(contrast >= least, "{name}: {contrast}");
            }
        }
    }

    #[test]
    fn dates_are_formatted_to_the_minute() {
        assert_eq!(date(1_795_600_000), "2026-11-25 09:46");
        assert_eq!(month_and_day(1_795_600_000), "11-25");
    }
}
