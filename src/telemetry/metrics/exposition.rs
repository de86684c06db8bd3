//! Prometheus' text format 0.0.4: the encoder through which every name, label and number leaves.

use std::fmt::Write;

/// A metric's name, help and type. Names are ours, so they are static.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Family {
    pub const fn counter(name: &'static str, help: &'static str) -> Family {
        Family { name, help, kind: Kind::Counter }
    }

    pub const fn gauge(name: &'static str, help: &'static str) -> Family {
        Family { name, help, kind: Kind::Gauge }
    }

    pub const fn histogram(name: &'static str, help: &'static str) -> Family {
        Family { name, help, kind: Kind::Histogram }
    }

    /// Writes the family's head and the samples that `fill` pushes; nothing when it pushes none.
    pub fn write(&self, text: &mut String, fill: impl FnOnce(&mut Samples<'_>)) {
        let before = text.len();
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "# HELP {} {}\n# TYPE {} {kind}\n", self.name, self.help, self.name);
        let head = text.len();
        fill(&mut Samples { name: self.name, text });
        if text.len() == head {
            text.truncate(before);
        }
    }
}

/// Where a family's samples go.
pub struct Samples<'a> {
    name: &'static str,
    text: &'a mut String,
}

impl Samples<'_> {
    /// One sample. Label values may hold anything; they are escaped.
    pub fn push(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, None, value);
    }

    /// One histogram: `counts` has one more element than `bounds` and is not cumulative.
    pub fn histogram(&mut self, labels: &[(&str, &str)], bounds: &[f64], counts: &[u64], sum: f64) {
        let mut total = 0;
        for (i, count) in counts.iter().enumerate() {
            total += count;
            match bounds.get(i) {
                Some(bound) => self.line("_bucket", labels, Some(&bound.to_string()), total as f64),
                None => self.line("_bucket", labels, Some("+Inf"), total as f64),
            }
        }
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, total as f64);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], le: Option<&str>, value: f64) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let mut open = '{';
        for (name, label) in labels.iter().copied().chain(le.map(|le| ("le", le))) {
            self.text.push(open);
            open = ',';
            self.text.push_str(name);
            self.text.push_str("=\"");
            for c in label.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if open == ',' {
            self.text.push('}');
        }
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_cannot_break_out() {
        let mut text = String::new();
        Family::gauge("g", "A gauge.").write(&mut text, |s| s.push(&[("node", "a\"} 1\nb\\")], 2.5));
        assert_eq!(text, "# HELP g A gauge.\n# TYPE g gauge\ng{node=\"a\\\"} 1\\nb\\\\\"} 2.5\n");
    }

    #[test]
    fn a_family_without_samples_leaves_nothing() {
        let mut text = String::from("x\n");
        Family::counter("c", "None.").write(&mut text, |_| {});
        assert_eq!(text, "x\n");
    }
}
