//! The hub as a program, for demonstrations and for trying things out by hand.
//!
//! ```text
//! hub [--mirror NAME]... [--size BYTES]
//! ```
//!
//! Starts a stand-in for Docker Hub on loopback addresses, with the image `library/hello:latest`
//! (three layers of `--size` bytes, 1,000,000 by default, that do not compress) and the mirrors
//! named. Prints what others need to know, a word and its values on each line, `ready` last:
//!
//! ```text
//! dns 127.90.1.1:53
//! ca /tmp/authority-x/ca.pem
//! host registry-1.docker.io 127.90.1.2
//! image library/hello:latest sha256:...
//! control http://127.90.1.8
//! ready
//! ```
//!
//! `control` answers `GET /counters` and `GET /requests?host=NAME` in JSON, forgets both by
//! `POST /reset`, and switches faults by `POST /fault?host=NAME&path=PREFIX&fault=FAULT&times=N`
//! (`path` and `times` may be left out), where FAULT is `pull-limit`, `abuse-limit`, `login-limit`,
//! a status from 400 on, `close`, `reset`, `stall`, `refuse`, `mute`, or `off` for all of a host.
//!
//! Ends on SIGTERM, SIGINT, and, when standard input is a pipe, at its end.
#![allow(clippy::expect_used, reason = "a stand-in that cannot start says so and stops")]

use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::process::ExitCode;
use std::sync::{Arc, Weak};

use serde_json::{Map, Value, json};
use support::{End, Fault, Hub, Kind, Recorded, Response, noise};
use tokio::signal::unix::{SignalKind, signal};

const CONTROL: &str = "control.invalid";
const IMAGE: (&str, &str) = ("library/hello", "latest");

struct Options {
    mirrors: Vec<String>,
    size: usize,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("hub: {problem}\nusage: hub [--mirror NAME]... [--size BYTES]");
            return ExitCode::FAILURE;
        }
    };

    let hub = Arc::new(Hub::start());
    for mirror in &options.mirrors {
        hub.add_host(mirror);
    }
    let layers = [1, 2, 3].map(|seed| noise(seed, options.size));
    let layers = layers.each_ref().map(Vec::as_slice);
    let image = hub.add_image(IMAGE.0, IMAGE.1, &layers);

    let mut out = format!("dns {}\nca {}\n", hub.resolver(), hub.ca_file().display());
    for (name, address) in hub.hosts() {
        out.push_str(&format!("host {name} {address}\n"));
    }
    out.push_str(&format!("image {}:{} {}\n", IMAGE.0, IMAGE.1, image.digest));
    let control = hub.add_host_as(CONTROL, Kind::Blank);
    out.push_str(&format!("control http://{control}\nready\n"));
    let weak = Arc::downgrade(&hub);
    // `refuse` and the like wait for the hub's own threads.
    hub.route(CONTROL, move |request| {
        tokio::task::block_in_place(|| answer(&weak, request)).into()
    });

    let mut stdout = std::io::stdout();
    if stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        return ExitCode::FAILURE;
    }
    wait_for_the_end();
    ExitCode::SUCCESS
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { mirrors: Vec::new(), size: 1_000_000 };
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{argument}: a value is missing"));
        match argument.as_str() {
            "--mirror" => options.mirrors.push(value?),
            "--size" => {
                options.size = value?.parse().map_err(|error| format!("--size: {error}"))?;
            }
            _ => return Err(format!("unknown option {argument}")),
        }
    }
    Ok(options)
}

fn wait_for_the_end() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for signals");
    let (send, closed) = tokio::sync::oneshot::channel();
    let piped = std::fs::metadata("/dev/stdin").is_ok_and(|input| input.file_type().is_fifo());
    std::thread::spawn(move || {
        if piped {
            let mut bytes = [0; 64];
            while matches!(std::io::stdin().read(&mut bytes), Ok(1..)) {}
            // Nobody waits any longer when a signal was faster.
            let _ = send.send(());
        } else {
            // The sender must outlive the wait.
            std::mem::forget(send);
        }
    });
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM");
        let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT");
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = closed => {}
        }
    });
}

fn answer(hub: &Weak<Hub>, request: &Recorded) -> Response {
    let Some(hub) = hub.upgrade() else {
        return Response::text(503, "the hub ends\n");
    };
    match (request.method.as_str(), request.path()) {
        ("GET", "/counters") => Response::json(200, &counters(&hub)),
        ("GET", "/requests") => match parameter(request, "host") {
            Some(host) if known(&hub, host) => Response::json(200, &requests(&hub, host)),
            _ => Response::text(400, "no such host\n"),
        },
        ("POST", "/reset") => {
            // The control's own function must stay.
            for (host, _) in hub.hosts() {
                if host != CONTROL {
                    hub.off(&host);
                }
            }
            hub.forget();
            Response::text(200, "done\n")
        }
        ("POST", "/fault") => match switch(&hub, request) {
            Ok(()) => Response::text(200, "done\n"),
            Err(problem) => Response::text(400, format!("{problem}\n")),
        },
        _ => Response::text(404, "GET /counters, GET /requests, POST /reset, POST /fault\n"),
    }
}

fn switch(hub: &Hub, request: &Recorded) -> Result<(), String> {
    let host = parameter(request, "host").ok_or("host= is missing")?;
    if !known(hub, host) {
        return Err(format!("no such host: {host}"));
    }
    let fault = match parameter(request, "fault").ok_or("fault= is missing")? {
        "off" => {
            hub.off(host);
            hub.accept(host);
            return Ok(());
        }
        "refuse" => {
            hub.refuse(host);
            return Ok(());
        }
        "mute" => {
            hub.mute(host);
            return Ok(());
        }
        "pull-limit" => Fault::TooManyRequests,
        "abuse-limit" => Fault::Hap429,
        "login-limit" => Fault::LoginLimit,
        "close" => Fault::Close(End::Close),
        "reset" => Fault::Close(End::Reset),
        "stall" => Fault::Stall,
        other => match other.parse() {
            Ok(status @ 400..=599) => Fault::Status(status),
            _ => return Err(format!("unknown fault: {other}")),
        },
    };
    let path = parameter(request, "path").unwrap_or_default();
    match parameter(request, "times").map(str::parse) {
        None => hub.on(host, path, fault),
        Some(Ok(times)) => hub.on_times(host, path, times, fault),
        Some(Err(_)) => return Err("times= must be a number".to_owned()),
    }
    Ok(())
}

fn counters(hub: &Hub) -> Value {
    let mut hosts = Map::new();
    for (name, _) in hub.hosts() {
        let counts = hub.counts(&name);
        let value = json!({
            "connections": counts.connections,
            "open": counts.open,
            "handshakes_full": counts.full,
            "handshakes_resumed": counts.resumed,
            "handshakes_failed": counts.failed,
            "requests": counts.requests,
        });
        hosts.insert(name, value);
    }
    hosts.remove(CONTROL);
    json!({ "hosts": hosts, "manifests_counted": hub.manifests_counted() })
}

fn requests(hub: &Hub, host: &str) -> Value {
    hub.requests(host)
        .iter()
        .map(|request| {
            json!({
                "method": request.method,
                "uri": request.uri,
                "headers": request.headers,
                "connection": request.connection,
                "tls": request.tls,
                "sni": request.sni,
            })
        })
        .collect()
}

fn known(hub: &Hub, host: &str) -> bool {
    hub.hosts().iter().any(|(name, _)| name == host)
}

fn parameter<'a>(request: &'a Recorded, name: &str) -> Option<&'a str> {
    let pairs = request.query().split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(other, _)| *other == name).map(|(_, value)| value)
}
