//! Measures the module against what else could serve a registry's blobs, and writes
//! `BENCHMARKS.md`.
//!
//! ```text
//! bench [--njs MODULE] [--quick] [--only PART]... [--output FILE]
//! ```
//!
//! `TEST_NGINX_BINARY` and `TEST_NGINX_MODULE` name nginx and the module. Everything talks to
//! loopback addresses, at port 443 of some: run it as root.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a measurement that cannot go on says so and stops"
)]

mod callgrind;
mod delay;
mod hub;
mod load;
mod mirror;
mod parts;
mod process;
mod report;
mod stats;

use std::path::PathBuf;
use std::process::ExitCode;

use mirror::Modules;
use parts::Part;
use report::Report;

struct Options {
    modules: Modules,
    quick: bool,
    parts: Vec<Part>,
    output: PathBuf,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!(
                "bench: {problem}\nusage: bench [--njs MODULE] [--quick] [--only PART]... \
                 [--output FILE]"
            );
            return ExitCode::FAILURE;
        }
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut report = Report::new(options.quick);
    for part in &options.parts {
        let start = std::time::Instant::now();
        eprintln!("bench: {}", part.name());
        runtime.block_on(part.run(&options.modules, options.quick, &mut report));
        eprintln!("bench: {}: {} s", part.name(), start.elapsed().as_secs());
    }
    report.write(&options.output);
    ExitCode::SUCCESS
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let own = std::env::var_os("TEST_NGINX_MODULE").ok_or("TEST_NGINX_MODULE is not set")?;
    let mut options = Options {
        modules: Modules { own: own.into(), script: None },
        quick: false,
        parts: Vec::new(),
        output: PathBuf::from("BENCHMARKS.md"),
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        match word.as_str() {
            "--njs" => options.modules.script = Some(value()?.into()),
            "--quick" => options.quick = true,
            "--only" => {
                let name = value()?;
                let part = Part::ALL.into_iter().find(|part| part.name() == name);
                options.parts.push(part.ok_or(format!("no part {name}"))?);
            }
            "--output" => options.output = value()?.into(),
            _ => return Err(format!("no option {word}")),
        }
    }
    if options.parts.is_empty() {
        options.parts = Part::ALL.to_vec();
    }
    Ok(options)
}
