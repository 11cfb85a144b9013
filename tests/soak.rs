//! Many clients pull while hosts fail in every way, nginx reloads, its logs are rotated, its binary
//! is upgraded, and its workers are killed: what arrives is right, and in the end nothing is left
//! over.
//!
//! ```text
//! make soak MINUTES=20 [SEED=number]
//! ```
//!
//! Among the tests it runs for some seconds with fewer clients.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{
    Answer, CLOUDFLARE, Certificate, Dns, End, Fault, Hub, Nginx, OWN_REGISTRY, REGISTRY, Random,
    Shape, everything, get, noise, until,
};

const FALLBACK: &str = "fallback.example";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const TIMEOUTS: &str = "proxy_connect_timeout 500ms; proxy_read_timeout 1s;
                        proxy_send_timeout 1s; resolver_timeout 500ms;";
/// A client gives a request up after so long. Faults last for a second at most.
const PATIENCE: Duration = Duration::from_secs(40);
/// And a pull after so long: 200 clients have each other's time-outs to bear as well, where the
/// machine has more to do.
const GIVE_UP: Duration = Duration::from_secs(180);

#[test]
fn pulls_survive_faults_reloads_and_killed_workers() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (time, clients, seed) = match number("MINUTES") {
        Some(minutes) => (Duration::from_secs(60 * minutes), 200, number("SEED").unwrap_or(1)),
        None => (Duration::from_secs(12), 40, 1),
    };
    println!("soak: SEED={seed}, {} s, {clients} clients", time.as_secs());

    let hub = Hub::start();
    hub.record(false);
    hub.authentication(false);
    hub.pull_limit(1_000_000_000);
    hub.add_host(FALLBACK);
    let mut contents: Vec<(String, Vec<u8>)> = (1..=40)
        .map(|number| {
            let bytes = noise(number, 1000 + usize::try_from(number).unwrap() * 7919);
            (format!("/v2/library/x/blobs/{}", hub.add_blob(bytes.clone())), bytes)
        })
        .collect();
    for number in 0..10 {
        let manifest = format!("{{\"schemaVersion\":2,\"number\":{number}}}").into_bytes();
        let tag = format!("tag-{number}");
        let digest = hub.add_manifest("library/x", &tag, MANIFEST_TYPE, manifest.clone());
        for name in [tag, digest] {
            contents.push((format!("/v2/library/x/manifests/{name}"), manifest.clone()));
        }
    }
    let nginx = everything(&hub, &format!("https://{FALLBACK}"))
        .main("worker_shutdown_timeout 20s; events { worker_connections 4096; }")
        .http(TIMEOUTS)
        .daemon()
        .workers(2)
        .log_level("notice")
        // The test's own doing: a worker may be killed while it has the zone's mutex, of which nginx
        // tells when it takes it from it.
        .allow_log("exited on signal 9")
        .allow_log("was locked by")
        .start();

    let tally = Tally::default();
    // What a worker has when it has served everything once.
    for (target, bytes) in &contents {
        assert_eq!(get(&nginx.url(target)).send().body, *bytes);
    }
    let before = [memory(&nginx), resident(nginx.pid())];
    let most = descriptors(&nginx).iter().map(Vec::len).max().unwrap_or(0);
    let end = Instant::now() + time;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for client in 0..clients {
            let (nginx, tally, contents) = (&nginx, &tally, &contents);
            scope.spawn(move || pull(client, seed, nginx, contents, tally, end));
        }
        let (nginx, hub, tally, is_over) = (&nginx, &hub, &tally, &is_over);
        scope.spawn(move || disturb(nginx, seed, tally, end, is_over));
        trouble(hub, seed, tally, end);
    });
    assert!(is_over.load(Ordering::Relaxed));
    println!("soak: {tally}");
    let problems = tally.problems.lock().unwrap().join("\n");
    assert!(problems.is_empty(), "SEED={seed}\n{problems}");
    assert!(tally.of("pulled") > 100, "{tally}");

    // Everything works, and nothing is left over.
    for (target, bytes) in &contents {
        assert_eq!(get(&nginx.url(target)).send().body, *bytes);
    }
    let few = until(Duration::from_secs(30), || nginx.workers().len() == 2);
    assert!(few, "workers of old configurations are left: {:?}", nginx.workers());
    // Idle connections to origins last for 5 s; then there is no more than there was at the start.
    let is_back = || descriptors(&nginx).iter().all(|open| open.len() <= most);
    let returned = until(Duration::from_secs(30), is_back);
    let after: Vec<usize> = descriptors(&nginx).iter().map(Vec::len).collect();
    println!("soak: descriptors of a worker: {most} before, {after:?} after");
    assert!(returned, "{most} descriptors of a worker before, then {:#?}", descriptors(&nginx));
    let after = [memory(&nginx), resident(nginx.pid())];
    println!(
        "soak: {before:?} KiB in the largest worker and in the master before, {after:?} after"
    );
    let grown = before.iter().zip(&after).any(|(before, after)| *after > before + 32 * 1024);
    assert!(!grown, "{before:?} KiB before, {after:?} after");
}

/// What each worker has open.
fn descriptors(nginx: &Nginx) -> Vec<Vec<String>> {
    let open = |pid| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| Some(std::fs::read_link(file.path()).ok()?.display().to_string()))
    };
    nginx.workers().into_iter().map(|pid| open(pid).collect()).collect()
}

/// Pulls one content after the other; each again until it is there.
fn pull(
    client: usize,
    seed: u64,
    nginx: &Nginx,
    contents: &[(String, Vec<u8>)],
    tally: &Tally,
    end: Instant,
) {
    let mut chance = Random::new(seed, &format!("client {client}"));
    while Instant::now() < end && !tally.has_problems() {
        let (target, bytes) = &contents[chance.below(contents.len())];
        let way = chance.below(10);
        let url = match way {
            0..=5 => nginx.url(target),
            6 | 7 => nginx.url_of(1, target),
            8 => nginx.url_of(2, target),
            _ => nginx.url_of(2, &format!("{target}?ns={OWN_REGISTRY}")),
        };
        let mut request = get(&url).patience(PATIENCE);
        if matches!(way, 6 | 7) {
            request = request.http2();
        }
        let start = Instant::now();
        loop {
            match request.try_send() {
                Ok(answer) if answer.status == 200 && answer.complete => {
                    if answer.body != *bytes {
                        tally.problem(format!("{target}: {} wrong bytes", answer.body.len()));
                    }
                    tally.count("pulled");
                    break;
                }
                Ok(answer) if answer.status == 200 => tally.count("failure: cut"),
                Ok(answer) => tally.count(cause(&answer)),
                Err(_) => tally.count("failure: no answer"),
            }
            tally.count("retries");
            if start.elapsed() > GIVE_UP {
                tally.problem(format!("{target}: not pulled within {GIVE_UP:?}"));
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What the answer's error says.
fn cause(answer: &Answer) -> String {
    let is_json = answer.complete && answer.header("content-type") == Some("application/json");
    let json = is_json.then(|| answer.json());
    let message = json.as_ref().and_then(|json| json["errors"][0]["message"].as_str());
    let message = message.unwrap_or("no message");
    format!("failure: {} {message}", answer.status)
}

/// Lets one host after the other fail for a while, sometimes two at once.
fn trouble(hub: &Hub, seed: u64, tally: &Tally, end: Instant) {
    let mut chance = Random::new(seed, "trouble");
    while Instant::now() < end && !tally.has_problems() {
        let both = chance.percent(20);
        let host = chance.pick(&[REGISTRY, CLOUDFLARE, FALLBACK, OWN_REGISTRY]);
        let hosts = if both { vec![host, FALLBACK] } else { vec![host] };
        for host in &hosts {
            let name = fail(hub, host, &mut chance);
            tally.count(format!("fault: {name}"));
        }
        thread::sleep(Duration::from_millis(200 + chance.number() % 800));
        for host in &hosts {
            hub.off(host);
            hub.certificate(host, Certificate::Good);
            hub.resolve_for(host, Dns::Addresses(vec![hub.address(host).into()]), 1);
            hub.accept(host);
        }
        thread::sleep(Duration::from_millis(chance.number() % 300));
    }
}

fn fail(hub: &Hub, host: &str, chance: &mut Random) -> &'static str {
    let on = |fault| hub.on(host, "/", fault);
    match chance.below(14) {
        0 => (on(Fault::TooManyRequests), "pull limit").1,
        1 => (on(Fault::Hap429), "abuse limit").1,
        2 => (on(Fault::Status(500)), "500").1,
        3 => (on(Fault::Status(503)), "503").1,
        4 => (on(Fault::Stall), "stalled").1,
        5 => (on(Fault::Shape(Shape::CutBody(500, End::Reset))), "cut").1,
        6 => (on(Fault::Shape(Shape::StallBody(500))), "stalled body").1,
        7 => (on(Fault::Shape(Shape::Slow(4000, Duration::from_millis(5)))), "slow").1,
        8 => (on(Fault::Close(End::Close)), "closes").1,
        9 => (hub.refuse(host), "refused").1,
        10 => (hub.mute(host), "mute").1,
        11 => (hub.certificate(host, Certificate::WrongName), "wrong certificate").1,
        12 => (hub.resolve_for(host, Dns::ServFail, 1), "DNS failing").1,
        _ => (hub.hang_up(host), "hung up").1,
    }
}

/// Reloads, kills a worker, rotates the log, upgrades the binary, in turn.
fn disturb(nginx: &Nginx, seed: u64, tally: &Tally, end: Instant, is_over: &AtomicBool) {
    let mut chance = Random::new(seed, "disturb");
    let pause = (end - Instant::now()).min(Duration::from_secs(10)) / 5;
    for turn in 0.. {
        thread::sleep(pause);
        if Instant::now() + pause > end || tally.has_problems() {
            break;
        }
        match turn % 5 {
            1 | 4 => {
                let workers = nginx.workers();
                signal("-KILL", chance.pick(&workers));
                tally.count("killed workers");
            }
            3 if turn % 15 == 3 => {
                nginx.upgrade();
                tally.count("upgrades");
            }
            0 | 3 => {
                nginx.reload();
                tally.count("reloads");
            }
            _ => {
                let log = nginx.prefix().join("access.log");
                let _ = std::fs::rename(&log, log.with_extension("1"));
                signal("-USR1", nginx.pid());
                let opened = until(Duration::from_secs(10), || log.exists());
                if !opened {
                    tally.problem("the log was not opened anew".to_owned());
                }
                tally.count("rotations");
            }
        }
    }
    is_over.store(true, Ordering::Relaxed);
}

fn signal(signal: &str, pid: u32) {
    // A worker that has ended meanwhile is as good as killed.
    let _ = Command::new("kill").args([signal, &pid.to_string()]).output();
}

/// Resident memory of the largest worker, KiB.
fn memory(nginx: &Nginx) -> u64 {
    nginx.workers().into_iter().map(resident).max().unwrap_or(0)
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[derive(Default)]
struct Tally {
    counts: Mutex<BTreeMap<String, u64>>,
    problems: Mutex<Vec<String>>,
}

impl Tally {
    fn count(&self, what: impl Into<String>) {
        *self.counts.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    fn of(&self, what: &str) -> u64 {
        self.counts.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    fn problem(&self, what: String) {
        self.problems.lock().unwrap().push(what);
    }

    fn has_problems(&self) -> bool {
        !self.problems.lock().unwrap().is_empty()
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = self.counts.lock().unwrap();
        let counts: Vec<String> = counts.iter().map(|(what, n)| format!("{what} {n}")).collect();
        f.write_str(&counts.join("\n      "))
    }
}
