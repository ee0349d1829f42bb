//! What all charts share: a scale of powers of ten, and the frame around them.

use super::text::{escape, ns};
use std::fmt::Write;

/// Units of a chart are pixels of a narrow phone; wider pages have several charts in a row.
pub(super) const WIDTH: f64 = 360.0;
/// As many colours as there are, see the style sheet.
pub(super) const COLOURS: usize = 12;
/// One more, broken, for what is not measured but measures.
pub(super) const CLOCK: usize = COLOURS;

/// The colour of that number; they come again after the last.
pub(super) fn colour(number: usize) -> usize {
    if number == CLOCK { CLOCK } else { number % COLOURS }
}

/// From values to places, by powers of ten.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Whole powers of ten around these values; those that have no logarithm are left out. `None` where none is left.
    pub(super) fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let logs = values.filter(|value| *value > 0.0 && value.is_finite()).map(f64::log10);
        let (least, most) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), log| (least.min(log), most.max(log)));
        if least > most {
            return None;
        }
        let low = (least + 1e-9).floor();
        Some(Self { low, high: (most - 1e-9).ceil().max(low + 1.0), from, to })
    }

    pub(super) fn at(self, value: f64) -> f64 {
        let log = value.max(f64::MIN_POSITIVE).log10().clamp(self.low, self.high);
        self.from + (log - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// The powers of ten, at most about eight of them.
    pub(super) fn ticks(self) -> impl Iterator<Item = f64> {
        let decades = (self.high - self.low).round() as i32;
        let step = (decades as usize).div_ceil(8).max(1);
        (0..=decades).step_by(step).map(move |decade| 10f64.powi(self.low as i32 + decade))
    }
}

/// The room of a chart with nanoseconds upwards.
pub(super) const LEFT: f64 = 46.0;
pub(super) const TOP: f64 = 8.0;
pub(super) const BOTTOM: f64 = 212.0;

/// A chart's frame, the nanoseconds of a scale from [`BOTTOM`] to [`TOP`], and what is counted across.
pub(super) fn over_ns(title: &str, scale: Scale, across: &str) -> String {
    let mut svg = open(title, BOTTOM + 34.0);
    for tick in scale.ticks() {
        let y = scale.at(tick);
        let _ = writeln!(
            svg,
            "<line class=\"tick\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{WIDTH}\" y2=\"{y:.1}\"/>\
             <text class=\"axis end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 5.0,
            y + 3.5,
            ns(tick)
        );
    }
    let _ = writeln!(svg, "<text class=\"axis end\" x=\"{WIDTH}\" y=\"{}\">{across}</text>", BOTTOM + 29.0);
    svg
}

/// A chart with its title, its legend (name and colour) and a note.
pub(super) fn figure(title: &str, svg: &str, legend: &[(String, usize)], note: &str) -> String {
    let mut html = format!("<figure>\n<figcaption>{}</figcaption>\n{svg}", escape(title));
    if !legend.is_empty() {
        html += "<ul class=\"legend\">";
        for (name, colour) in legend {
            let _ = write!(html, "<li><span class=\"b{}\"></span>{}</li>", self::colour(*colour), escape(name));
        }
        html += "</ul>\n";
    }
    if !note.is_empty() {
        let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(note));
    }
    html + "</figure>\n"
}

/// The opening of a drawing; `title` is for those who cannot see it.
pub(super) fn open(title: &str, height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n", escape(title))
}

/// Charts side by side.
pub(super) fn grid(figures: &[String]) -> String {
    if figures.iter().all(String::is_empty) { String::new() } else { format!("<div class=\"grid\">\n{}</div>\n", figures.concat()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_ten_are_evenly_spaced_and_hold_the_values() {
        let scale = Scale::around([3.0, 250.0].into_iter(), 0.0, 300.0).unwrap();
        assert_eq!([1.0, 10.0, 100.0, 1000.0].map(|value| scale.at(value).round()), [0.0, 100.0, 200.0, 300.0]);
        assert_eq!(scale.ticks().count(), 4);
        assert_eq!(scale.at(0.0), 0.0, "nothing lies outside");
        assert!(Scale::around([0.0, f64::NAN].into_iter(), 0.0, 1.0).is_none());
        assert!(Scale::around([1e-3, 1e12].into_iter(), 0.0, 1.0).unwrap().ticks().count() <= 9);
    }

    #[test]
    fn a_single_value_has_a_scale_too() {
        let scale = Scale::around(std::iter::once(10.0), 0.0, 100.0).unwrap();
        assert!((0.0..=100.0).contains(&scale.at(10.0)) && scale.ticks().count() == 2);
    }
}
