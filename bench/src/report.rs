//! The tables, as text.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// `BENCHMARKS.md` while it is written.
pub(crate) struct Report {
    text: String,
    targets: Vec<[String; 4]>,
}

/// How a figure is to be, against its target.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Report {
    pub(crate) fn new(quick: bool) -> Self {
        let mut text = String::new();
        if quick {
            text.push_str("(a quick run: fewer and shorter runs than the real one)\n\n");
        }
        Self { text, targets: Vec::new() }
    }

    /// Begins a section with a few sentences.
    pub(crate) fn section(&mut self, title: &str, words: &str) {
        let _ = write!(self.text, "\n## {title}\n\n{words}\n");
    }

    /// Adds a table; the first column is text, the others are numbers.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let rule: String =
            (0..head.len()).map(|column| if column == 0 { "---|" } else { "---:|" }).collect();
        let _ = write!(self.text, "\n| {} |\n|{rule}\n", head.join(" | "));
        for row in rows {
            let _ = writeln!(self.text, "| {} |", row.join(" | "));
        }
    }

    /// Notes a figure that has a target; `shown` and `wanted` are how both are written.
    pub(crate) fn target(&mut self, what: &str, figure: f64, unit: &str, bound: Bound) {
        let (reached, wanted) = match bound {
            Bound::AtLeast(least) => (figure >= least, format!("at least {least}{unit}")),
            Bound::AtMost(most) => (figure <= most, format!("at most {most}{unit}")),
        };
        let digits = if figure >= 100.0 || figure.fract() == 0.0 { 0 } else { 2 };
        let reached = if reached { "yes" } else { "**no**" };
        self.targets.push([
            what.to_owned(),
            wanted,
            format!("{figure:.digits$}{unit}"),
            reached.to_owned(),
        ]);
    }

    pub(crate) fn write(&self, path: &Path) {
        let mut summary = String::from("| | wanted | measured | reached |\n|---|---:|---:|---|\n");
        for row in &self.targets {
            let _ = writeln!(summary, "| {} |", row.join(" | "));
        }
        let text = format!(
            "# Benchmarks\n\n`make bench` measures and writes this file. {}\n\n{summary}{}",
            machine(),
            self.text
        );
        std::fs::write(path, &text).expect("the report written");
        println!("{text}");
    }
}

/// Where and with what it was measured.
fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name))
        .unwrap_or("unknown processor")
        .trim();
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let nginx = std::env::var("TEST_NGINX_BINARY").unwrap_or_else(|_| "nginx".to_owned());
    let about = said(&nginx, &["-V"]);
    let line = |start: &str| {
        let found = about.lines().find_map(|line| line.strip_prefix(start)).unwrap_or("?");
        found.to_owned()
    };
    format!(
        "The last time on {}: {count} cores ({model}), Linux {}, {}, {}, {}, module {}.",
        said("date", &["--utc", "+%Y-%m-%d"]).trim(),
        kernel.trim(),
        line("nginx version: "),
        line("built with "),
        said("rustc", &["--version"]).trim().split(" (").next().unwrap_or_default(),
        env!("CARGO_PKG_VERSION"),
    )
}

/// What a program prints, on either stream.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env_remove("NGINX").output();
    output.map_or(String::new(), |output| {
        let streams = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&streams).into_owned()
    })
}
