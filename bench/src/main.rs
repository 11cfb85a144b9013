//! Measures the module against what else could serve a registry's blobs, and writes
//! `BENCHMARKS.md`.
//!
//! ```text
//! bench [--njs MODULE] [--quick] [--only PART]... [--output FILE]
//! ```
//!
//! `TEST_NGINX_BINARY` and `TEST_NGINX_MODULE` name nginx and the module. Everything talks to
//! loopback addresses, at port 443 of some: run it as root. The profiles that instructions are
//! counted from are left in the folder `CALLGRIND_KEEP`, for `callgrind_annotate`.
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
use std::time::Instant;

use mirror::Modules;
use parts::Part;
use report::Report;
use tokio::signal::unix::{SignalKind, signal};

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
    let measured = runtime.block_on(async {
        tokio::select! {
            () = measure(&options, &mut report) => true,
            () = told_to_end() => false,
        }
    });
    if !measured {
        return ExitCode::FAILURE;
    }
    report.write(&options.output);
    ExitCode::SUCCESS
}

async fn measure(options: &Options, report: &mut Report) {
    for part in &options.parts {
        let start = Instant::now();
        eprintln!("bench: {}", part.name());
        part.run(&options.modules, options.quick, report).await;
        eprintln!("bench: {}: {} s", part.name(), start.elapsed().as_secs());
    }
}

/// Whoever stops the program must not be left with the nginx processes that it started.
async fn told_to_end() {
    let on = |kind| signal(kind).expect("a signal handler");
    let (mut interrupt, mut terminate) = (on(SignalKind::interrupt()), on(SignalKind::terminate()));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
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
