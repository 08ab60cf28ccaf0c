//! Bar charts as SVG, each with a table of the same figures for screen readers.

use std::fmt::Write;

use indicatif::HumanCount;

use crate::html::escape;

/// Width and height of the drawing in SVG user units; the page scales it.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
/// Space below the bars for their labels, and above for the figure of the highest.
const MARGIN_BOTTOM: f64 = 30.0;
const MARGIN_TOP: f64 = 22.0;
/// The number of labels; of more bars, every second, third and so on has one.
const MAX_LABELS: usize = 10;
/// Space on both sides for the labels of the outermost bars.
const MARGIN_SIDE: f64 = 24.0;
/// Distance of bars below which only the highest has a figure above it, because figures would
/// overlap.
const MIN_FIGURE_DISTANCE: f64 = 40.0;

/// The colour of a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Plain,
    Warning,
}

/// One bar.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: u64,
    pub(super) colour: Colour,
}

/// A chart.
pub(super) struct Chart<'a> {
    /// The prefix of its HTML ids, unique on the page.
    pub(super) name: &'a str,
    pub(super) title: &'a str,
    /// A sentence that summarizes the figures.
    pub(super) summary: String,
    /// The headings of the table.
    pub(super) columns: [&'a str; 2],
    pub(super) bars: Vec<Bar>,
}

impl Chart<'_> {
    /// Renders the figure.
    pub(super) fn render(&self) -> String {
        let (name, title) = (self.name, self.title);
        let summary = escape(&self.summary);
        format!(
            r#"<figure>
<figcaption><h2 id="{name}-title">{title}</h2><p id="{name}-summary">{summary}</p></figcaption>
<svg viewBox="-{MARGIN_SIDE} 0 {all} {HEIGHT}" role="img" aria-labelledby="{name}-title" aria-describedby="{name}-summary">
{bars}<line class="axis" x1="0" y1="{base}" x2="{WIDTH}" y2="{base}"/>
</svg>
<details><summary>The figures as a table</summary>
{table}</details>
</figure>
"#,
            all = WIDTH + 2.0 * MARGIN_SIDE,
            bars = self.bars(),
            base = HEIGHT - MARGIN_BOTTOM,
            table = self.table()
        )
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "bars are drawn to a few hundred steps"
    )]
    fn bars(&self) -> String {
        let highest = self
            .bars
            .iter()
            .map(|bar| bar.value)
            .max()
            .unwrap_or(0)
            .max(1);
        let step = WIDTH / self.bars.len().max(1) as f64;
        let every = self.bars.len().div_ceil(MAX_LABELS).max(1);
        let room = HEIGHT - MARGIN_BOTTOM - MARGIN_TOP;
        let mut svg = String::new();
        // The last one always has a label: of days, the last is today.
        let last = self.bars.len().saturating_sub(1);
        let peak = self.bars.iter().position(|bar| bar.value == highest);
        for (position, bar) in self.bars.iter().enumerate() {
            let height = bar.value as f64 / highest as f64 * room;
            // A value above zero is visible, however small.
            let height = if bar.value == 0 { 0.0 } else { height.max(2.0) };
            let (left, top) = (
                position as f64 * step + step * 0.1,
                HEIGHT - MARGIN_BOTTOM - height,
            );
            let (middle, width) = (left + step * 0.4, step * 0.8);
            let class = match bar.colour {
                Colour::Plain => "bar",
                Colour::Warning => "bar warning",
            };
            let label = escape(&bar.label);
            let value = HumanCount(bar.value);
            let _ = writeln!(
                svg,
                r#"<rect class="{class}" x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}"><title>{label}: {value}</title></rect>"#
            );
            if step >= MIN_FIGURE_DISTANCE || Some(position) == peak {
                let above = top - 6.0;
                let _ = writeln!(
                    svg,
                    r#"<text class="value" x="{middle:.1}" y="{above:.1}">{value}</text>"#
                );
            }
            if (last - position).is_multiple_of(every) {
                let below = HEIGHT - 10.0;
                let _ = writeln!(
                    svg,
                    r#"<text x="{middle:.1}" y="{below:.1}">{label}</text>"#
                );
            }
        }
        svg
    }

    fn table(&self) -> String {
        let [what, value] = self.columns;
        let mut table = format!(
            "<table><thead><tr><th scope=\"col\">{what}</th><th scope=\"col\">{value}</th></tr></thead><tbody>\n"
        );
        for bar in &self.bars {
            let _ = writeln!(
                table,
                "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
                escape(&bar.label),
                HumanCount(bar.value)
            );
        }
        table + "</tbody></table>"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[u64]) -> Chart<'static> {
        Chart {
            name: "test",
            title: "A title",
            summary: "Less & more".into(),
            columns: ["what", "how many"],
            bars: values
                .iter()
                .enumerate()
                .map(|(position, &value)| Bar {
                    label: format!("<{position}"),
                    value,
                    colour: Colour::Plain,
                })
                .collect(),
        }
    }

    #[test]
    fn the_highest_bar_has_full_height_and_a_small_one_is_visible() {
        let svg = chart(&[0, 1, 1_000_000]).render();

        assert!(
            svg.contains("height=\"0.0\"><title>&lt;0: 0</title>"),
            "{svg}"
        );
        assert!(
            svg.contains("height=\"2.0\"><title>&lt;1: 1</title>"),
            "{svg}"
        );
        let full = format!(
            "height=\"{:.1}\"><title>&lt;2: 1,000,000</title>",
            HEIGHT - MARGIN_BOTTOM - MARGIN_TOP
        );
        assert!(svg.contains(&full), "{svg}");
        assert!(svg.contains("Less &amp; more"));
        assert!(svg.contains("<tr><th scope=\"row\">&lt;2</th><td>1,000,000</td></tr>"));
    }

    #[test]
    fn an_empty_chart_is_rendered() {
        for values in [&[][..], &[0, 0]] {
            assert!(!chart(values).render().contains("NaN"));
        }
    }

    #[test]
    fn of_many_bars_some_have_labels_among_them_the_last() {
        let svg = chart(&[7; 30]).render();

        assert_eq!(
            svg.matches("class=\"value\"").count(),
            1,
            "they would overlap"
        );
        assert_eq!(svg.matches("<text x=").count(), 10);
        assert!(svg.contains(">&lt;29</text>"));
    }
}
