//! The status page: what a help desk or a manager looks at. HTML and SVG from the server, without a script; no identity
//! is on it.

use time::OffsetDateTime;
use time::macros::format_description;

use crate::html::escape;
use crate::retention::Report;
use crate::server::admin::chart::{Bar, Chart, Tone, grouped};
use crate::server::status::{Severity, Status};

const DAY: u64 = 24 * 60 * 60;
/// A page that stays open on a screen is made anew so often, in seconds.
const REFRESH: u32 = 60;

const STYLE: &str = r"
:root { color-scheme: light dark; --text: #1b1f24; --quiet: #57606a; --back: #ffffff; --line: #d0d7de;
  --bar: #0a6ebd; --good: #116329; --warn: #8a4600; --bad: #a40e26 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --quiet: #9da7b3; --back: #0d1117; --line: #3d444d; --bar: #58a6ff; --good: #56d364;
    --warn: #e3b341; --bad: #ff7b72 }
}
body { font: 1rem/1.55 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 62rem;
  margin: 0 auto; padding: 1.5rem 1.2rem 4rem }
h1 { font-size: 1.45rem; margin: 0 }
h2 { font-size: 1.05rem; margin: 0 }
.state { font-size: 1.2rem; font-weight: 600; margin: .3rem 0 1rem }
.good { color: var(--good) } .warning { color: var(--warn) } .critical { color: var(--bad) }
ul { padding-left: 1.2rem } li { margin: .35rem 0 }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: .9rem; margin: 1.4rem 0 }
dl div { border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem }
dt { color: var(--quiet); font-size: .9rem } dd { margin: 0; font-size: 1.15rem; font-weight: 600 }
dd small { display: block; font-weight: 400; font-size: .85rem; color: var(--quiet) }
figure { margin: 2rem 0; border-top: 1px solid var(--line); padding-top: 1.2rem }
figcaption p { margin: .2rem 0 .6rem; color: var(--quiet) }
svg { width: 100%; height: auto; max-width: 54rem } svg text { fill: var(--text); font-size: 13px; text-anchor: middle }
svg .bar { fill: var(--bar) } svg .bar.warning { fill: var(--warn) } svg .axis { stroke: var(--line) }
summary { color: var(--quiet); font-size: .9rem; cursor: pointer }
table { border-collapse: collapse; font-size: .9rem } th, td { text-align: left; padding: .15rem 1.2rem .15rem 0; font-weight: 400 }
footer { color: var(--quiet); font-size: .85rem; margin-top: 3rem }
";

/// The page.
pub(super) fn render(status: &Status) -> String {
    let alerts = status.alerts();
    let worst = alerts.iter().map(|line| line.severity).max();
    let (class, state) = match worst {
        None => ("good", "Everything is as it should be"),
        Some(Severity::Warning) => ("warning", "Something wants a look"),
        Some(Severity::Critical) => ("critical", "Something is wrong"),
    };
    let lines: String = alerts
        .iter()
        .map(|line| {
            let (class, word) = match line.severity {
                Severity::Warning => ("warning", "Look at this:"),
                Severity::Critical => ("critical", "Wrong:"),
            };
            format!(
                "<li><strong class=\"{class}\">{word}</strong> {}</li>\n",
                escape(&line.text)
            )
        })
        .collect();
    let lines = if lines.is_empty() {
        String::new()
    } else {
        format!("<h2>What needs attention</h2>\n<ul>\n{lines}</ul>\n")
    };
    let charts = match status.report() {
        Some(report) => ages(report) + &uploads(status) + &sizes(report),
        None => uploads(status),
    };
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta http-equiv="refresh" content="{REFRESH}">
<title>{state} · Threema Safe backups</title>
<style>{STYLE}</style>
</head>
<body>
<header><h1>Threema Safe backups</h1>
<p class="state {class}">{state}</p></header>
<main>
{lines}{facts}{charts}</main>
<footer>threema-safe-server {version} · as of {now} UTC; the page renews itself every minute</footer>
</body>
</html>
"#,
        facts = facts(status),
        version = escape(&status.version),
        now = date(status.now),
    )
}

fn facts(status: &Status) -> String {
    let mut facts: Vec<(&str, String, String)> = Vec::new();
    if let Some(report) = status.report() {
        let backups = grouped(report.kept);
        let trash = format!("{} more in the trash", grouped(report.trash_kept));
        facts.push(("Backups", backups, trash));
        let [day, week] = [1, 7].map(|days| report.ages.younger_than(days));
        facts.push((
            "Renewed within a day",
            grouped(day),
            format!("{} within a week", grouped(week)),
        ));
        facts.push((
            "Expire within 14 days",
            grouped(report.expiring_in_14_days),
            format!("{} within 30 days", grouped(report.expiring_in_30_days)),
        ));
    }
    if let Some(certificate) = &status.certificate {
        let left = certificate.ends.saturating_sub(status.now) / DAY;
        let ends = format!("until {}", date(certificate.ends));
        facts.push(("Certificate", format!("{left} days left"), ends));
    }
    let used = status.report().map_or_else(String::new, |report| {
        format!(
            "{} used by backups",
            bytes(report.kept_bytes + report.trash_bytes)
        )
    });
    let free = status
        .storage
        .free_bytes
        .map_or_else(|| "not known".into(), bytes);
    facts.push(("Disk space free", free, used));
    if let Some(sweep) = &status.sweep {
        let done = sweep.report.as_ref().map_or_else(
            || "broke off".to_owned(),
            |report| match report.refused {
                Some(_) => "removed nothing, see above".to_owned(),
                None => format!(
                    "{} removed, {:.1} seconds",
                    grouped(report.removed),
                    sweep.seconds
                ),
            },
        );
        facts.push(("Last sweep", ago(status.now, sweep.began), done));
    }
    let since = format!("since {}", date(status.started));
    facts.push(("Up", span(status.now.saturating_sub(status.started)), since));
    let facts: String = facts
        .iter()
        .map(|(name, value, more)| {
            format!("<div><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>\n")
        })
        .collect();
    format!("<dl>\n{facts}</dl>\n")
}

/// How fresh backups are.
fn ages(report: &Report) -> String {
    let mut before = 0;
    let bars: Vec<_> = report
        .ages
        .buckets()
        .iter()
        .map(|class| {
            let label = match class.younger_than_days {
                Some(1) => "under 1 day".to_owned(),
                Some(days) => format!("{before}–{days} days"),
                None => format!("over {before}"),
            };
            before = class.younger_than_days.unwrap_or(before);
            Bar {
                label,
                value: class.backups,
                tone: if class.younger_than_days.is_none() {
                    Tone::Warning
                } else {
                    Tone::Plain
                },
            }
        })
        .collect();
    let week = report.ages.younger_than(7);
    let all: u64 = bars.iter().map(|bar| bar.value).sum();
    Chart {
        name: "ages",
        title: "How fresh the backups are",
        summary: format!(
            "{} of {} were renewed within the last week. Phones renew theirs every day, iPhones only when something has changed.",
            grouped(week),
            grouped(all)
        ),
        columns: ["last renewed", "backups"],
        bars,
    }
    .render()
}

/// How large backups are.
fn sizes(report: &Report) -> String {
    let mut before = 0;
    let bars: Vec<_> = report
        .sizes
        .buckets()
        .iter()
        .map(|class| {
            let label = match class.up_to_percent {
                Some(percent) => format!("{before}–{percent} %"),
                None => format!("over {before} %"),
            };
            let is_high = class.up_to_percent.is_none_or(|percent| percent > 80);
            before = class.up_to_percent.unwrap_or(before);
            Bar {
                label,
                value: class.backups,
                tone: if is_high { Tone::Warning } else { Tone::Plain },
            }
        })
        .collect();
    Chart {
        name: "sizes",
        title: "How large the backups are",
        summary: format!(
            "{} use more than 80 % of the size that is allowed. A phone whose backup grows beyond it keeps its last one, and tells nobody.",
            grouped(report.sizes.over_80_percent())
        ),
        columns: ["of the size that is allowed", "backups"],
        bars,
    }
    .render()
}

/// Uploads of the last thirty days.
fn uploads(status: &Status) -> String {
    let bars: Vec<_> = status
        .uploads
        .iter()
        .map(|day| Bar {
            label: month_and_day(day.day * DAY),
            value: day.uploads,
            tone: Tone::Plain,
        })
        .collect();
    let today = status.uploads.last().map_or(0, |day| day.uploads);
    Chart {
        name: "uploads",
        title: "Uploads each day",
        summary: format!("{} today until now. Days are those of UTC.", grouped(today)),
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

fn ago(now: u64, then: u64) -> String {
    format!("{} ago", span(now.saturating_sub(then)))
}

fn span(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..120 => (seconds, "seconds"),
        120..7_200 => (seconds / 60, "minutes"),
        7_200..172_800 => (seconds / 3_600, "hours"),
        _ => (seconds / DAY, "days"),
    };
    format!("{number} {unit}")
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with three digits")]
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    let digits = usize::from(value < 10.0 && unit > 0);
    format!("{value:.digits$} {}", UNITS.get(unit).unwrap_or(&""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The colours that this block of the style gives to names.
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

    /// WCAG 2.2, relative luminance.
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
    fn text_can_be_read_and_bars_can_be_seen_in_both_schemes() {
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
    fn spans_and_sizes_are_told_in_the_unit_that_fits() {
        for (seconds, expected) in [
            (0, "0 seconds"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7_200, "2 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(span(seconds), expected);
        }
        for (number, expected) in [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (1_536, "1.5 KiB"),
            (524_288, "512 KiB"),
            (5 << 40, "5.0 TiB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
        assert_eq!(date(1_795_600_000), "2026-11-25 09:46");
        assert_eq!(month_and_day(1_795_600_000), "11-25");
    }
}
