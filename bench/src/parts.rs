//! What is measured, a part at a time.

use std::time::Duration;

use support::REGISTRY;

use crate::hub::{self, Host, Origin};
use crate::load::{self, Client, Outcome, Target, Until};
use crate::mirror::{Mirror, Modules, Setting, Way};
use crate::report::{Bound, Report};
use crate::stats::median;
use crate::{callgrind, delay, process};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const LAYER: u64 = 200_000_000;
const ROUND_TRIP: Duration = Duration::from_millis(100);

/// A part of the measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Throughput,
    Handshakes,
    FirstByte,
    Gap,
    Counted,
    Instructions,
    Layer,
    Buffers,
}

impl Part {
    pub(crate) const ALL: [Self; 8] = [
        Self::Throughput,
        Self::Handshakes,
        Self::FirstByte,
        Self::Gap,
        Self::Counted,
        Self::Instructions,
        Self::Layer,
        Self::Buffers,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Handshakes => "handshakes",
            Self::FirstByte => "first-byte",
            Self::Gap => "gap",
            Self::Counted => "counted",
            Self::Instructions => "instructions",
            Self::Layer => "layer",
            Self::Buffers => "buffers",
        }
    }

    pub(crate) async fn run(self, modules: &Modules, quick: bool, report: &mut Report) {
        match self {
            Self::Throughput => throughput(modules, quick, report).await,
            Self::Handshakes => handshakes(modules, quick, report).await,
            Self::FirstByte => first_byte(modules, report).await,
            Self::Gap => gap(modules, report).await,
            Self::Counted => counted(modules, quick, report).await,
            Self::Instructions => instructions(modules, report).await,
            Self::Layer => layer(modules, report).await,
            Self::Buffers => buffers(modules, quick, report).await,
        }
    }
}

fn near(origin: &Origin) -> Setting<'_> {
    Setting { origin, tls: true, far: false }
}

/// All ways that can be measured here.
fn ways(modules: &Modules) -> Vec<Way> {
    let is_here = |way: &Way| *way != Way::Script || modules.script.is_some();
    Way::ALL.into_iter().filter(is_here).collect()
}

fn start_all(origin: &Origin, modules: &Modules) -> Vec<Mirror> {
    let start = |way| Mirror::start(way, near(origin), modules, &[]);
    ways(modules).into_iter().map(start).collect()
}

fn find<T: Copy>(of: &[(Way, T)], way: Way) -> Option<T> {
    of.iter().find(|(other, _)| *other == way).map(|(_, value)| *value)
}

async fn throughput(modules: &Modules, quick: bool, report: &mut Report) {
    let (rounds, time) =
        if quick { (3, Duration::from_millis(500)) } else { (5, Duration::from_millis(1500)) };
    let origin = Origin::start(&[KIB, 64 * KIB, MIB]);
    let mirrors = start_all(&origin, modules);
    let names: Vec<&str> = mirrors.iter().map(|mirror| mirror.way.name()).collect();
    report.section(
        "Blobs per second",
        "A client asks for blobs that the registry redirects to the CDN; TLS 1.3 with ECDSA P-256 \
         on every leg. Registry and CDN are one nginx, each mirror has one worker, the runs are \
         interleaved. In brackets: microseconds of the worker's processor time a blob.\n\n\
         - *recipe*: two `proxy_pass` and an `error_page`, as it is usually published, without the \
         token that it sends to the CDN (it would be answered 400);\n\
         - *configuration*: the same with kept connections, in `upstream` groups that are named \
         after the hosts; it closes the registry's connection at every redirect;\n\
         - *njs*: a subrequest of a script reads the redirect, so that all connections are kept; \
         groups as before: CDN hosts are fixed in advance, and checked against nothing;\n\
         - *module*: this one, as `nginx-conf/docker-mirror.conf` sets it up, which knows no CDN \
         host in advance;\n\
         - *CDN alone*: `proxy_pass` straight to the CDN, no redirect: the ceiling.",
    );

    let mut rows = Vec::new();
    for (label, size) in [("1 KiB", KIB), ("64 KiB", 64 * KIB), ("1 MiB", MIB)] {
        for connections in [8, 64] {
            let mut runs: Vec<(Way, Vec<Outcome>)> =
                mirrors.iter().map(|mirror| (mirror.way, Vec::new())).collect();
            for _ in 0..rounds {
                for (mirror, (_, outcomes)) in mirrors.iter().zip(&mut runs) {
                    let target = mirror.blob(size);
                    let until = Until::Elapsed(time);
                    outcomes.push(load::run(&target, connections, until, mirror.worker()).await);
                }
            }
            let rates: Vec<(Way, f64)> = runs
                .iter()
                .map(|(way, outcomes)| (*way, median(outcomes.iter().map(Outcome::per_second))))
                .collect();
            let mut row = vec![format!("{label}, {connections} connections")];
            for ((_, outcomes), (_, rate)) in runs.iter().zip(&rates) {
                let cpu = median(outcomes.iter().map(Outcome::cpu_each));
                row.push(format!("{rate:.0} ({cpu:.0})"));
            }
            let ours = find(&rates, Way::Module).unwrap_or(f64::NAN);
            for rival in [Way::Recipe, Way::Script] {
                let ratio = find(&rates, rival).map(|rate| ours / rate);
                row.push(ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")));
                let least = if rival == Way::Recipe { 10.0 } else { 1.0 };
                if let Some(ratio) = ratio.filter(|_| size == KIB) {
                    let what = format!(
                        "{label} blobs per second against {}, {connections} connections",
                        rival.name()
                    );
                    report.target(&what, ratio, " times", Bound::AtLeast(least));
                }
            }
            eprintln!("  {}", row.join(" | "));
            rows.push(row);
        }
    }
    let mut head = vec!["blob"];
    head.extend(names);
    head.extend(["module / recipe", "module / njs"]);
    report.table(&head, &rows);
}

async fn handshakes(modules: &Modules, quick: bool, report: &mut Report) {
    const REQUESTS: u64 = 10_000;
    let origin = Origin::start(&[KIB]);
    report.section(
        "Handshakes for 10,000 blobs",
        "Of 1 KiB, through one worker that was just started: TLS handshakes with the registry and \
         with the CDN, and how many of both resumed a session.",
    );
    let mut rows = Vec::new();
    for connections in [8_usize, 64] {
        for way in ways(modules) {
            let is_slow = matches!(way, Way::Recipe | Way::Groups);
            let asked = if is_slow && quick { REQUESTS / 10 } else { REQUESTS };
            let mirror = Mirror::start(way, near(&origin), modules, &[]);
            let before = origin.handshakes();
            // The connections' first requests count.
            let until = Until::Requests(asked - connections as u64);
            load::run(&mirror.blob(KIB), connections, until, mirror.worker()).await;
            let made = origin.handshakes() - before;
            let row = vec![
                format!("{}, {connections} connections", way.name()),
                made.registry.to_string(),
                made.cdn.to_string(),
                made.all().to_string(),
                made.resumed.to_string(),
            ];
            eprintln!("  {}", row.join(" | "));
            rows.push(row);
            if way == Way::Module {
                let most = if connections == 8 { 40.0 } else { 200.0 };
                let what = format!("handshakes for 10,000 blobs, {connections} connections");
                report.target(&what, made.all() as f64, "", Bound::AtMost(most));
            }
        }
    }
    report.table(&["", "registry", "CDN", "both", "resumed"], &rows);
}

async fn first_byte(modules: &Modules, report: &mut Report) {
    let origin = Origin::start(&[KIB]);
    let (trips, _) = far_away(&origin);
    report.section(
        "First byte of a blob at a round trip of 100 ms",
        "Between mirror and origins lie delay lines in user space, which charge each connection a \
         round trip of its own. The first request meets an nginx that was just started; warm are \
         the median of those after the third. Round trips are measured (time / 100 ms) and \
         counted.",
    );
    let setting = Setting { origin: &origin, tls: true, far: true };
    let mut rows = Vec::new();
    for way in ways(modules) {
        let mirror = Mirror::start(way, setting, modules, &[]);
        let mut client = Client::connect(&mirror.blob(KIB)).await;
        let mut took = Vec::new();
        let mut counted = Vec::new();
        for _ in 0..10 {
            let before = trips.count();
            took.push(client.get().await.as_secs_f64() / ROUND_TRIP.as_secs_f64());
            counted.push((trips.count() - before) as f64);
            // What a closed connection still sends is not the next request's.
            tokio::time::sleep(ROUND_TRIP * 2).await;
        }
        let warm = median(took[3..].iter().copied());
        let counted_warm = median(counted[3..].iter().copied());
        rows.push(vec![
            way.name().to_owned(),
            format!("{:.2}", took[0]),
            format!("{:.0}", counted[0]),
            format!("{warm:.2}"),
            format!("{counted_warm:.0}"),
        ]);
        if way == Way::Module {
            let what = "round trips to the first byte of a blob, warm";
            report.target(what, warm, "", Bound::AtMost(2.1));
            report.target("the same, counted", counted_warm, "", Bound::AtMost(2.0));
        }
        eprintln!("  {}", rows.last().expect("a row").join(" | "));
    }
    rows.push(direct_client(&origin).await);
    report.table(&["", "first", "counted", "warm", "counted"], &rows);
}

/// Puts delay lines before both hosts. What is returned counts all round trips, and breaks the line
/// to the CDN.
fn far_away(origin: &Origin) -> (delay::Trips, delay::Break) {
    let trips = delay::Trips::default();
    let line = |end, host, breaks: &delay::Break| {
        delay::line(origin.socket(end, 443), origin.socket(host, 443), ROUND_TRIP, &trips, breaks);
    };
    let breaks = delay::Break::default();
    line(Host::FarRegistry, Host::Registry, &delay::Break::default());
    line(Host::FarCdn, Host::Cdn, &breaks);
    origin.far();
    (trips, breaks)
}

async fn gap(modules: &Modules, report: &mut Report) {
    const ROUNDS: usize = 7;
    let origin = Origin::start(&[MIB, hub::EXPIRING]);
    let (trips, breaks) = far_away(&origin);
    report.section(
        "A download that breaks off at a round trip of 100 ms",
        "For how long a client gets nothing of a blob of 1 MiB when the CDN's connection breaks \
         within it, by the delay lines of the table above: the longest time between two pieces. \
         Median of 7, and the round trips that were counted, without those of the request itself.",
    );
    let setting = Setting { origin: &origin, tls: true, far: true };
    let mut rows = Vec::new();
    for (what, size, most) in [
        ("by the same URL", MIB, 3.0),
        ("by the registry, when the URL has expired", hub::EXPIRING, 5.0),
    ] {
        let mirror = Mirror::start(Way::Module, setting, modules, &[]);
        let mut client = Client::connect(&mirror.blob(size)).await;
        let mut took = Vec::new();
        let mut counted = Vec::new();
        for round in 0..ROUNDS + 2 {
            let before = trips.count();
            let is_warm = round >= 2;
            breaks.after(if is_warm { MIB / 2 } else { 0 });
            let gap = client.longest_gap().await;
            if is_warm {
                took.push(gap.as_secs_f64() / ROUND_TRIP.as_secs_f64());
                // One for the redirect, and one for the blob.
                counted.push((trips.count() - before) as f64 - 2.0);
            }
            tokio::time::sleep(ROUND_TRIP * 2).await;
        }
        let (took, counted) = (median(took), median(counted));
        rows.push(vec![what.to_owned(), format!("{took:.2}"), format!("{counted:.0}")]);
        eprintln!("  {}", rows.last().expect("a row").join(" | "));
        let what = format!("round trips without a byte when a download breaks off, {what}");
        report.target(&what, took, "", Bound::AtMost(most + 0.1));
        report.target("the same, counted", counted, "", Bound::AtMost(most));
    }
    report.table(&["the rest comes", "round trips", "counted"], &rows);
}

/// What manifests cost: counted requests, round trips, and the mirror's work.
async fn counted(modules: &Modules, quick: bool, report: &mut Report) {
    const PULLS: u64 = 1_000;
    // Many short ones: what else the machine does is then the same to all.
    let (rounds, time) = (if quick { 10 } else { 40 }, Duration::from_millis(250));
    let connections = 50;
    let origin = Origin::start(&[]);
    let trips = delay::Trips::default();
    delay::line(
        origin.socket(Host::FarRegistry, 443),
        origin.socket(Host::Registry, 443),
        ROUND_TRIP,
        &trips,
        &delay::Break::default(),
    );
    report.section(
        "Manifests",
        "Of 1,000 pulls of one tag by 50 clients at once, through an nginx that was just started: \
         GETs of the manifest at the registry, which Docker Hub counts against the pull limit (a \
         pull of an image gets two manifests, its index and its platform's; this is for one). Then \
         the first byte of the manifest at a round trip of 100 ms on warm connections, and \
         manifests per second over 50 connections with, in brackets, microseconds of the worker's \
         processor time each: a manifest of half a kilobyte, the smallest there is (one layer), and \
         an index of ten, as an official image has. A HEAD spares the transfer of either, and costs \
         what remembering costs: that is more than half a kilobyte does, and less than both that a \
         pull takes.",
    );
    let mut rows = Vec::new();
    let ways = [Way::Recipe, Way::Module, Way::Zone, Way::Manifests];
    let mirrors = ways.map(|way| Mirror::start(way, near(&origin), modules, &[]));
    let mut runs = [ways.map(|_| Vec::new()), ways.map(|_| Vec::new())];
    let mut pulls = Vec::new();
    for mirror in &mirrors {
        let before = origin.counted();
        // All of them at once, cold.
        load::at_once(&mirror.manifest(), connections, PULLS / connections as u64).await;
        pulls.push(origin.counted() - before);
    }
    for _ in 0..rounds {
        let targets: [fn(&Mirror) -> Target; 2] = [Mirror::manifest, Mirror::index];
        for (target, runs) in targets.into_iter().zip(&mut runs) {
            for (mirror, outcomes) in mirrors.iter().zip(runs) {
                let until = Until::Elapsed(time);
                outcomes
                    .push(load::run(&target(mirror), connections, until, mirror.worker()).await);
            }
        }
    }
    let [small, large] = &runs;
    for (((way, counted), small), large) in ways.into_iter().zip(pulls).zip(small).zip(large) {
        let far = Setting { origin: &origin, tls: true, far: true };
        let rate = |outcomes: &[Outcome]| {
            let rate = median(outcomes.iter().map(Outcome::per_second));
            let cpu = median(outcomes.iter().map(Outcome::cpu_each));
            format!("{rate:.0} ({cpu:.0})")
        };
        let trips = far_manifest(way, far, modules).await;
        rows.push(vec![
            way.name().to_owned(),
            counted.to_string(),
            format!("{trips:.2}"),
            rate(small),
            rate(large),
        ]);
        eprintln!("  {}", rows.last().expect("a row").join(" | "));
        if way == Way::Manifests {
            let what = "counted requests for 1,000 pulls of a manifest";
            report.target(what, counted as f64, "", Bound::AtMost(1.0));
            let what = "round trips to a manifest from memory, warm";
            report.target(what, trips, "", Bound::AtMost(1.1));
        }
    }
    // The memory is in a zone: what that costs is none of the memory's.
    let [[_, _, small_proxied, small_kept], [_, _, large_proxied, large_kept]] = &runs;
    let ratio = |of: fn(&Outcome) -> f64| {
        let both = |small: &[Outcome], large: &[Outcome]| {
            small.iter().zip(large).map(|(small, large)| of(small) + of(large)).collect::<Vec<_>>()
        };
        let (proxied, kept) = (both(small_proxied, large_proxied), both(small_kept, large_kept));
        median(kept.into_iter().zip(proxied).map(|(kept, proxied)| kept / proxied))
    };
    let pulls = "pulls (an index of 10 kB, a manifest of 0.5 kB) from memory, against proxied ones";
    let named = format!("throughput of {pulls}");
    let time = ratio(|run| 1.0 / run.per_second());
    report.target(&named, 1.0 / time, " times", Bound::AtLeast(1.0));
    let named = format!("processor time of {pulls}");
    report.target(&named, ratio(Outcome::cpu_each), " times", Bound::AtMost(1.0));
    report.table(&["", "counted", "round trips", "manifests/s", "indexes/s"], &rows);
}

/// Round trips to the first byte of the manifest, warm.
async fn far_manifest(way: Way, far: Setting<'_>, modules: &Modules) -> f64 {
    let mirror = Mirror::start(way, far, modules, &[]);
    let mut client = Client::connect(&mirror.manifest()).await;
    let mut took = Vec::new();
    for _ in 0..8 {
        took.push(client.get().await.as_secs_f64() / ROUND_TRIP.as_secs_f64());
        // What a closed connection still sends is not the next request's.
        tokio::time::sleep(ROUND_TRIP * 2).await;
    }
    median(took[3..].iter().copied())
}

/// What a client without a mirror sees: it keeps both connections itself.
async fn direct_client(origin: &Origin) -> Vec<String> {
    let tls = support::tls_client(&origin.ca_file(), &[]);
    let target = |host, name: &str, path: &str, length| Target {
        address: origin.socket(host, 443),
        tls: Some((name.to_owned(), tls.clone())),
        request: hub::request(path, name),
        length,
    };
    let mut registry = Client::connect(&target(
        Host::FarRegistry,
        REGISTRY,
        &hub::manifest(),
        hub::manifest_size(),
    ))
    .await;
    let mut cdn_target = target(Host::FarCdn, support::CLOUDFRONT, &hub::signed(KIB), KIB);
    cdn_target.request = hub::request_without_token(&hub::signed(KIB), support::CLOUDFRONT);
    let mut cdn = Client::connect(&cdn_target).await;
    let mut took = Vec::new();
    for _ in 0..5 {
        let both = registry.get().await + cdn.get().await;
        took.push(both.as_secs_f64() / ROUND_TRIP.as_secs_f64());
    }
    let warm = median(took);
    vec![
        "a client without a mirror".to_owned(),
        "-".to_owned(),
        "-".to_owned(),
        format!("{warm:.2}"),
        "2".to_owned(),
    ]
}

async fn instructions(modules: &Modules, report: &mut Report) {
    let origin = Origin::start(&[KIB, MIB, 16 * MIB]);
    let (layer, large) = (hub::blob(MIB), hub::blob(16 * MIB));
    let plain = Setting { origin: &origin, tls: false, far: false };
    let encrypted = Setting { tls: true, ..plain };
    report.section(
        "Instructions",
        "Counted by callgrind over kept connections, plain HTTP but where it says TLS, for one \
         request: the difference of a run with 450 and one with 50, divided by 400; of blobs from \
         1 MiB, 45 and 5.",
    );
    let count = |way, path: String, length| async move {
        callgrind::instructions(way, plain, modules, &path, length).await
    };
    let mut rows = Vec::new();
    let mut compare = |what: &str, [without, with]: [f64; 2], most: Option<f64>| {
        let more = (with / without - 1.0) * 100.0;
        rows.push(vec![
            what.to_owned(),
            format!("{without:.0}"),
            format!("{with:.0}"),
            format!("{more:+.2} %"),
        ]);
        eprintln!("  {}", rows.last().expect("a row").join(" | "));
        if let Some(most) = most {
            let what = format!("instructions of {what}: more by");
            report.target(&what, more, " %", Bound::AtMost(most));
        }
    };
    let manifest = hub::manifest();
    let size = hub::manifest_size();
    for (what, [with, without], path, length, most) in [
        (
            "a request that no directive touches, against nginx without the module",
            [Way::Module, Way::Direct],
            "/other/x",
            5,
            Some(1.0),
        ),
        (
            "a manifest, against bare proxy_pass",
            [Way::Module, Way::Direct],
            &*manifest,
            size,
            Some(3.0),
        ),
        (
            "a manifest from memory, against a proxied one of a mirror with docker_zone",
            [Way::Manifests, Way::Zone],
            &*manifest,
            size,
            None,
        ),
        (
            "a manifest with docker_zone and docker_fallback, against the module without",
            [Way::Zone, Way::Module],
            &*manifest,
            size,
            Some(3.0),
        ),
        (
            "the same with docker_status, against the module without any",
            [Way::Status, Way::Module],
            &*manifest,
            size,
            Some(3.0),
        ),
        (
            "a manifest with twelve registries declared, against one",
            [Way::Registries, Way::Registry],
            &*manifest,
            size,
            Some(2.0),
        ),
        (
            "a manifest by a proxy_pass with variables, against bare proxy_pass: nginx alone",
            [Way::Variable, Way::Direct],
            &*manifest,
            size,
            None,
        ),
        (
            "a manifest of one registry, against a proxy_pass with variables",
            [Way::Registry, Way::Variable],
            &*manifest,
            size,
            None,
        ),
        (
            "the same over connections of the module, re-resolved, against an upstream block",
            [Way::OwnConnections, Way::Registries],
            &*manifest,
            size,
            None,
        ),
    ] {
        let without = count(without, path.to_owned(), length).await;
        let with = count(with, path.to_owned(), length).await;
        compare(what, [without, with], most);
    }
    for (what, path, length) in [("1 MiB", layer, MIB), ("16 MiB", large, 16 * MIB)] {
        for (how, setting, most) in
            [("over plain HTTP", plain, None), ("by TLS, as of a CDN", encrypted, Some(1.0))]
        {
            let count = |way| callgrind::instructions(way, setting, modules, &path, length);
            let what =
                format!("a blob of {what} {how}, with docker_resume, against the module without");
            compare(&what, [count(Way::Unresumed).await, count(Way::Module).await], most);
        }
    }
    report.table(&["", "without", "with", "more"], &rows);

    let mut rows = Vec::new();
    for way in ways(modules) {
        let path = if way == Way::Direct { hub::signed(KIB) } else { hub::blob(KIB) };
        let number = count(way, path, KIB).await;
        rows.push(vec![way.name().to_owned(), format!("{number:.0}")]);
        eprintln!("  {}", rows.last().expect("a row").join(" | "));
    }
    report.table(&["a blob of 1 KiB behind a redirect", "instructions"], &rows);
}

/// Throughput in MB/s and processor seconds a GB of one blob.
async fn transfer(mirror: &Mirror) -> (f64, f64) {
    let outcome = load::run(&mirror.blob(LAYER), 1, Until::Requests(1), mirror.worker()).await;
    let bytes = LAYER as f64;
    (bytes / 1e6 / outcome.elapsed.as_secs_f64(), outcome.cpu.as_secs_f64() / (bytes / 1e9))
}

async fn layer(modules: &Modules, report: &mut Report) {
    let rounds = 11;
    let origin = Origin::start(&[LAYER, MIB]);
    report.section(
        "A layer of 200 MB, and many slow ones",
        "One client over TLS, median of 11 runs, of which all but the recipe's are interleaved; \
         then the memory of the worker (its own pages) with 500 downloads that have begun and stand \
         still. The recipe's are left out: it writes them all to temporary files. With \
         `docker_verify`, a SHA-256 runs over every byte, by the processor's own instructions.",
    );
    let ways = [Way::Direct, Way::Module, Way::Verified, Way::Recipe];
    let mirrors = ways.map(|way| Mirror::start(way, near(&origin), modules, &[]));
    let mut runs = ways.map(|way| (way, Vec::new()));
    // The recipe writes 200 MB to disk each time, and whoever comes next waits for that.
    let (compared, alone) = (0..3, 3..4);
    for group in [compared, alone] {
        for _ in 0..rounds {
            for (mirror, (_, transfers)) in
                mirrors[group.clone()].iter().zip(&mut runs[group.clone()])
            {
                transfers.push(transfer(mirror).await);
            }
        }
    }
    let mut rows = Vec::new();
    let mut figures = Vec::new();
    for (mirror, (way, transfers)) in mirrors.iter().zip(&runs) {
        let rate = median(transfers.iter().map(|(rate, _)| *rate));
        let cpu = median(transfers.iter().map(|(_, cpu)| *cpu));
        let memory = match way {
            Way::Recipe => None,
            _ => Some(memory_of_slow(mirror, LAYER).await),
        };
        figures.push((*way, (rate, cpu, memory.unwrap_or(f64::NAN))));
        rows.push(vec![
            way.name().to_owned(),
            format!("{rate:.0}"),
            format!("{cpu:.2}"),
            format!("{:.0}", 1e3 / cpu),
            memory.map_or("-".to_owned(), |memory| format!("{:.1}", memory / 1024.0)),
        ]);
        eprintln!("  {}", rows.last().expect("a row").join(" | "));
    }
    if let (Some(ours), Some(bare)) = (find(&figures, Way::Module), find(&figures, Way::Direct)) {
        let percent = |ours: f64, bare: f64| (ours / bare - 1.0) * 100.0;
        report.target(
            "200 MB: throughput against bare proxy_pass: less by",
            -percent(ours.0, bare.0),
            " %",
            Bound::AtMost(5.0),
        );
        report.target(
            "200 MB: processor time against bare proxy_pass: more by",
            percent(ours.1, bare.1),
            " %",
            Bound::AtMost(5.0),
        );
        report.target(
            "memory with 500 slow downloads against bare proxy_pass: more by",
            percent(ours.2, bare.2),
            " %",
            Bound::AtMost(5.0),
        );
    }
    let head =
        ["", "MB/s", "processor seconds/GB", "MB/s of a whole core", "MiB with 500 downloads"];
    report.table(&head, &rows);
}

/// Memory of a worker with 500 downloads that have begun, KiB.
async fn memory_of_slow(mirror: &Mirror, size: u64) -> f64 {
    const DOWNLOADS: usize = 500;
    let target = mirror.blob(size);
    let mut clients = Vec::new();
    for _ in 0..DOWNLOADS {
        let mut client = Client::connect(&target).await;
        client.begin(64 * KIB).await;
        clients.push(client);
    }
    // Sockets and buffers fill up.
    tokio::time::sleep(Duration::from_millis(500)).await;
    process::memory(mirror.worker()) as f64
}

async fn buffers(modules: &Modules, quick: bool, report: &mut Report) {
    let rounds = if quick { 3 } else { 7 };
    let origin = Origin::start(&[LAYER]);
    report.section(
        "Buffers",
        "What `docker-mirror.conf` ships was chosen by this table: the module with other values of \
         `proxy_buffering` and `proxy_buffer_size`; the 200 MB and the 500 downloads as above.",
    );
    let choices = [
        ("on, 4k (nginx's default)", "on", "4k", "8 4k"),
        ("on, 64k", "on", "64k", "4 64k"),
        ("off, 4k", "off", "4k", "8 4k"),
        ("off, 16k", "off", "16k", "4 16k"),
        ("off, 32k", "off", "32k", "4 32k"),
        ("off, 64k (shipped)", "off", "64k", "4 64k"),
        ("off, 128k", "off", "128k", "4 128k"),
    ];
    let mirrors = choices.map(|(_, buffering, size, buffers)| {
        let more = [
            ("proxy_buffering", buffering),
            ("proxy_buffer_size", size),
            ("proxy_buffers", buffers),
        ];
        Mirror::start(Way::Module, near(&origin), modules, &more)
    });
    let mut runs = choices.map(|_| Vec::new());
    for _ in 0..rounds {
        for (mirror, transfers) in mirrors.iter().zip(&mut runs) {
            transfers.push(transfer(mirror).await);
        }
    }
    let mut rows = Vec::new();
    for ((choice, mirror), transfers) in choices.iter().zip(&mirrors).zip(&runs) {
        rows.push(vec![
            choice.0.to_owned(),
            format!("{:.0}", median(transfers.iter().map(|(rate, _)| *rate))),
            format!("{:.2}", median(transfers.iter().map(|(_, cpu)| *cpu))),
            format!("{:.1}", memory_of_slow(mirror, LAYER).await / 1024.0),
        ]);
        eprintln!("  {}", rows.last().expect("a row").join(" | "));
    }
    report.table(&["proxy_buffering, size", "MB/s", "processor seconds/GB", "MiB"], &rows);
}
