//! `docker_status`: the page is exact, bounded, and what Prometheus reads.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use support::{
    Answer, CLOUDFLARE, Connection, End, Fault, Hub, Nginx, NginxBuilder, REGISTRY, Reply,
    Response, Shape, get, head, nginx_t, request, wait_for,
};

const PATH: &str = "/v2/library/x/manifests/latest";
const FIRST: &str = "first.example";

fn hub() -> Hub {
    let hub = Hub::start();
    hub.authentication(false);
    hub.add_image("library/x", "latest", &[b"x"]);
    hub.add_host(FIRST);
    hub
}

fn mirror(hub: &Hub, zone: &str) -> NginxBuilder {
    Nginx::builder().workers(2).http(&hub.http_conf()).http(zone).server(&format!(
        "location / {{
             docker_follow_redirect on private={network};
             docker_fallback https://{FIRST};
             proxy_pass https://{REGISTRY};
         }}
         location = /status {{ docker_status; }}",
        network = hub.network()
    ))
}

/// The samples of the page, which Prometheus' own tool finds nothing wrong with.
fn page(nginx: &Nginx) -> BTreeMap<String, f64> {
    let answer = get(&nginx.url("/status")).send();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    check(&text);
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            (series.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// `promtool check metrics`, of Debian's prometheus package.
fn check(page: &str) {
    let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/build/tools/bin");
    let path = format!("{}:{tools}", std::env::var("PATH").unwrap_or_default());
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: scripts/setup test");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{page}");
}

#[track_caller]
fn value(page: &BTreeMap<String, f64>, series: &str) -> f64 {
    *page.get(series).unwrap_or_else(|| panic!("no {series} in {page:#?}"))
}

/// The sum of all samples of a metric.
fn total(page: &BTreeMap<String, f64>, name: &str) -> f64 {
    page.iter().filter(|(series, _)| series.split('{').next() == Some(name)).map(|(_, v)| v).sum()
}

fn of(name: &str, host: &str, kind: &str) -> String {
    format!("{name}{{backend=\"https://{host}\",kind=\"{kind}\"}}")
}

/// A request is counted when it is over, which is after its client has the answer.
fn settled(nginx: &Nginx, requests: usize) -> BTreeMap<String, f64> {
    let mut last = BTreeMap::new();
    wait_for("all requests to be counted", || {
        last = page(nginx);
        total(&last, "docker_requests_total") == requests as f64
    });
    last
}

#[test]
fn what_the_page_says_is_what_the_hub_has_seen() {
    const CLIENTS: usize = 8;
    const ROUNDS: usize = 40;
    let hub = hub();
    let image = hub.add_image("library/y", "latest", &[&[b'y'; 50_000]]);
    let blob = format!("/v2/library/y/blobs/{}", image.layers[0]);
    let size = hub.blob(&image.layers[0]).unwrap().len();
    let nginx = mirror(&hub, "docker_zone docker:1m;").start();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut connection = Connection::open(&get(&nginx.url("/v2/"))).unwrap();
                for _ in 0..ROUNDS {
                    for request in [
                        get(&nginx.url("/v2/")),
                        head(&nginx.url(PATH)),
                        get(&nginx.url(PATH)),
                        get(&nginx.url(&blob)),
                    ] {
                        assert_eq!(connection.send(&request).unwrap().status, 200);
                    }
                }
            });
        }
    });

    let page = settled(&nginx, 4 * CLIENTS * ROUNDS);
    let rounds = (CLIENTS * ROUNDS) as f64;
    let seen = hub.counts(REGISTRY).requests as f64;
    assert_eq!(total(&page, "docker_upstream_requests_total"), seen);
    assert_eq!(
        value(&page, &of("docker_upstream_requests_total", REGISTRY, "manifest")),
        2. * rounds
    );
    assert_eq!(2. * hub.manifests_counted() as f64, 2. * rounds);
    assert_eq!(value(&page, &of("docker_requests_total", REGISTRY, "ping")), rounds);
    assert_eq!(value(&page, &of("docker_requests_total", REGISTRY, "manifest")), 2. * rounds);
    assert_eq!(value(&page, &of("docker_requests_total", REGISTRY, "blob")), rounds);
    let bytes = value(&page, &of("docker_body_bytes_total", REGISTRY, "blob"));
    assert_eq!(bytes, rounds * size as f64);
    let cdn = hub.counts(CLOUDFLARE);
    let redirects = format!("docker_redirects_total{{host=\"{CLOUDFLARE}\"}}");
    assert_eq!(value(&page, &redirects), cdn.requests as f64);

    // Connections of the CDN's are the module's own, and each answer came over one.
    let opened = value(&page, "docker_connections_opened_total{origin=\"redirect\"}");
    let reused = value(&page, "docker_connections_reused_total{origin=\"redirect\"}");
    assert_eq!(opened, cdn.connections as f64);
    assert_eq!(opened + reused, rounds);
    let resumed = page.get("docker_connections_resumed_total{origin=\"redirect\"}").unwrap_or(&0.);
    assert_eq!(*resumed, cdn.resumed as f64);

    for kind in ["ping", "manifest", "blob"] {
        let count = value(&page, &format!("docker_first_byte_seconds_count{{kind=\"{kind}\"}}"));
        assert_eq!(count, value(&page, &of("docker_requests_total", REGISTRY, kind)), "{kind}");
        let bucket = format!("docker_first_byte_seconds_bucket{{kind=\"{kind}\",le=\"+Inf\"}}");
        assert_eq!(count, value(&page, &bucket), "{kind}");
    }
    let remaining = format!("docker_ratelimit_remaining{{backend=\"https://{REGISTRY}\"}}");
    assert!(page.contains_key(&remaining), "{page:#?}");

    // The zone's own figures: what it costs.
    let (locks, waits) =
        (value(&page, "docker_zone_locks_total"), value(&page, "docker_zone_lock_waits_total"));
    let requests = 4. * rounds;
    assert!(locks <= 2. * requests, "{locks} locks");
    println!("{requests} requests, {locks} locks, {waits} waits");
    assert!(waits <= 0.01 * locks + 5., "{waits} waits for {locks} locks");
}

#[test]
fn fallbacks_breakers_and_refusals_are_on_the_page() {
    let hub = hub();
    let nginx = mirror(&hub, "docker_zone docker:1m;").start();
    let limit = Response::error(429, "TOOMANYREQUESTS", "x").header("Retry-After", "60");
    hub.on_times(REGISTRY, PATH, 1, Fault::Answer(limit.into()));
    for _ in 0..3 {
        assert_eq!(get(&nginx.url(PATH)).send().status, 200);
    }
    hub.on(REGISTRY, "/v2/library/x/blobs/", Fault::redirect(307, "http://169.254.169.254/"));
    hub.on(FIRST, "/v2/library/x/blobs/", Fault::Status(404));
    assert_eq!(get(&nginx.url("/v2/library/x/blobs/sha256:00")).send().status, 502);
    assert_eq!(request("POST", &nginx.url("/status")).send().status, 405);
    assert_eq!(head(&nginx.url("/status")).send().status, 200);

    let page = settled(&nginx, 4);
    let rows = [
        (of("docker_requests_total", FIRST, "manifest"), 3.),
        (of("docker_upstream_requests_total", REGISTRY, "manifest"), 1.),
        (of("docker_upstream_requests_total", FIRST, "manifest"), 3.),
        (of("docker_requests_total", REGISTRY, "blob"), 1.),
        ("docker_fallbacks_total{reason=\"http_429\"}".to_owned(), 1.),
        ("docker_fallbacks_total{reason=\"pull_limit\"}".to_owned(), 2.),
        ("docker_fallbacks_total{reason=\"error\"}".to_owned(), 1.),
        ("docker_redirects_refused_total{reason=\"downgrade\"}".to_owned(), 1.),
        (format!("docker_breaker_state{{backend=\"https://{REGISTRY}\",class=\"pulls\"}}"), 2.),
        (format!("docker_breaker_state{{backend=\"https://{REGISTRY}\",class=\"all\"}}"), 0.),
        (format!("docker_breaker_state{{backend=\"https://{FIRST}\",class=\"pulls\"}}"), 0.),
    ];
    for (series, want) in rows {
        assert_eq!(value(&page, &series), want, "{series}");
    }
}

#[test]
fn one_fallback_is_two_turns_with_the_mutex() {
    let hub = hub();
    let nginx = mirror(&hub, "docker_zone docker:1m;").workers(1).start();
    let limit = Response::error(429, "TOOMANYREQUESTS", "x").header("Retry-After", "1");
    let ask = || assert_eq!(get(&nginx.url(PATH)).send().status, 200);
    let probe = || {
        thread::sleep(Duration::from_millis(1100));
        ask();
    };
    let locks = || value(&page(&nginx), "docker_zone_locks_total");
    // The page takes it too, as often each time; and a worker looks for each counter once, such as
    // for one of those that times are sorted into.
    let locks_of = |tries, act: &dyn Fn()| {
        let once = |_| {
            let (first, before) = (locks(), locks());
            act();
            locks() - before - (before - first)
        };
        (0..tries).map(once).fold(f64::INFINITY, f64::min)
    };

    assert_eq!(locks_of(10, &ask), 1., "the quota is noted");
    hub.on(REGISTRY, PATH, Fault::Answer(limit.into()));
    assert_eq!(locks_of(10, &ask), 2., "the registry is passed by");
    let before = hub.counts(REGISTRY).requests;
    assert_eq!(locks_of(3, &probe), 2., "the registry is asked, and still limited");
    assert_eq!(hub.counts(REGISTRY).requests - before, 3);
}

#[test]
fn nothing_is_forgotten_by_a_reload() {
    let hub = hub();
    let nginx = mirror(&hub, "docker_zone docker:1m;").start();
    let mut before: BTreeMap<String, f64> = BTreeMap::new();
    for round in 1..4 {
        for _ in 0..10 {
            assert_eq!(get(&nginx.url(PATH)).send().status, 200);
        }
        let now = settled(&nginx, 10 * round);
        for (series, value) in before.iter().filter(|(series, _)| !is_gauge(series)) {
            assert!(now.get(series).is_some_and(|now| now >= value), "{series} went back");
        }
        before = now;
        nginx.reload();
    }
}

#[test]
fn what_no_page_shows_is_not_counted() {
    let hub = hub();
    let nginx = mirror(&hub, "docker_zone docker:1m;").start();
    let ask = || assert_eq!(get(&nginx.url(PATH)).send().status, 200);
    ask();
    let before = settled(&nginx, 1);

    let reload = || {
        nginx.reload();
        wait_for("the old workers' end", || nginx.workers().len() == 2);
    };
    let file = nginx.prefix().join("nginx.conf");
    let with_page = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, with_page.replace("docker_status;", "return 204;")).unwrap();
    reload();
    (0..5).for_each(|_| ask());
    std::fs::write(&file, with_page).unwrap();
    reload();

    let after = page(&nginx);
    for name in ["docker_requests_total", "docker_connections_opened_total"] {
        assert_eq!(total(&after, name), total(&before, name), "{name}");
    }
    ask();
    settled(&nginx, 2);
}

fn is_gauge(series: &str) -> bool {
    series.starts_with("docker_breaker") || series.starts_with("docker_ratelimit")
}

#[test]
fn hosts_of_redirects_are_told_once_and_do_not_grow() {
    const HOSTS: usize = 300;
    let hub = hub();
    let nginx = mirror(&hub, "docker_zone docker:1m;").start();
    for number in 0..HOSTS {
        let location = format!("https://h{number}.example/");
        hub.on(REGISTRY, "/v2/library/x/blobs/", Fault::redirect(307, &location));
        let _ = get(&nginx.url(&format!("/v2/library/x/blobs/sha256:{number}"))).send();
        hub.off(REGISTRY);
    }
    let page = settled(&nginx, HOSTS);
    let hosts = page.keys().filter(|series| series.starts_with("docker_redirects_total"));
    assert_eq!(hosts.count(), 65);
    let others = (HOSTS - 64) as f64;
    assert_eq!(value(&page, "docker_redirects_total{host=\"other\"}"), others);
    assert_eq!(total(&page, "docker_redirects_total"), HOSTS as f64);
    let told = |log: &str| log.matches("redirect to a host not seen before").count();
    assert_eq!(told(&nginx.errors()), 64);
    assert!(nginx.errors().contains("[notice]"));

    // Neither another worker nor a new configuration tells it again.
    nginx.reload();
    hub.on(REGISTRY, "/v2/library/x/blobs/", Fault::redirect(307, "https://h0.example/"));
    for _ in 0..8 {
        let _ = get(&nginx.url("/v2/library/x/blobs/sha256:00")).send();
    }
    assert_eq!(told(&nginx.errors()), 64);
}

#[test]
fn without_a_zone_each_worker_tells_hosts_once() {
    let hub = hub();
    let nginx = Nginx::builder()
        .http(&hub.http_conf())
        .server(&format!(
            "location / {{
                 docker_follow_redirect on private={network};
                 proxy_pass https://{REGISTRY};
             }}",
            network = hub.network()
        ))
        .start();
    for number in 0..200 {
        let location = format!("https://h{}.example/", number % 100);
        hub.on(REGISTRY, "/v2/", Fault::redirect(307, &location));
        let _ = get(&nginx.url("/v2/x/blobs/sha256:00")).send();
        hub.off(REGISTRY);
    }
    assert_eq!(nginx.errors().matches("redirect to a host not seen before").count(), 64);
}

#[test]
fn a_flood_of_names_leaves_a_small_zone_usable() {
    let hub = hub();
    let nginx = mirror(&hub, "docker_zone docker:64k;").start();
    let answers: Vec<Answer> = (0..1000)
        .map(|number| {
            let token = format!("opaque-{number}");
            let limit = Response::error(429, "TOOMANYREQUESTS", "x").header("Retry-After", "60");
            hub.on_times(REGISTRY, "/v2/r", 1, Fault::Answer(limit.into()));
            get(&nginx.url(&format!("/v2/r{number}/manifests/latest"))).bearer(&token).send()
        })
        .collect();
    // The fallback has no such repository: it says so, or the original answer comes.
    assert!(answers.iter().all(|answer| [404, 429].contains(&answer.status)));
    let page = settled(&nginx, 1000);
    let series = page.len();
    assert!(series < 150, "{series}");
    assert!(value(&page, "docker_zone_evictions_total") > 0., "{page:#?}");
    assert_eq!(get(&nginx.url(PATH)).send().status, 200);
}

#[test]
fn what_memory_and_resumes_save_is_on_the_page() {
    let hub = hub();
    let nginx = Nginx::builder()
        .http(&hub.http_conf())
        .http("docker_zone docker:1m;")
        .server(&format!(
            "location / {{
                 docker_follow_redirect on private={network};
                 docker_resume on;
                 docker_manifest_cache zone=docker stale=1m;
                 proxy_pass https://{REGISTRY};
             }}
             location = /status {{ docker_status; }}",
            network = hub.network()
        ))
        .start();
    for _ in 0..3 {
        assert_eq!(get(&nginx.url(PATH)).send().status, 200);
    }
    assert_eq!(get(&nginx.url(PATH)).header("Range", "bytes=0-9").send().status, 200);
    hub.on(REGISTRY, PATH, Fault::Status(503));
    assert_eq!(get(&nginx.url(PATH)).send().status, 200);
    assert_eq!(hub.manifests_counted(), 2);

    let blob = format!("/v2/library/x/blobs/{}", hub.add_blob(vec![b'z'; 300_000]));
    hub.on_times(CLOUDFLARE, "/", 2, Fault::Shape(Shape::CutBody(1000, End::Reset)));
    assert_eq!(get(&nginx.url(&blob)).send().body.len(), 300_000);

    let page = settled(&nginx, 6);
    for (series, want) in [
        ("docker_manifest_cache_total{result=\"MISS\"}", 1.),
        ("docker_manifest_cache_total{result=\"REVALIDATED\"}", 2.),
        ("docker_manifest_cache_total{result=\"STALE\"}", 1.),
        ("docker_manifest_cache_total{result=\"BYPASS\"}", 1.),
        ("docker_manifest_gets_saved_total", 3.),
        ("docker_resumes_total{result=\"served\"}", 2.),
        // GET, two HEADs, GET, HEAD; and the blob, whose rest comes from where its beginning came.
        (&of("docker_upstream_requests_total", REGISTRY, "manifest"), 5.),
        (&of("docker_requests_total", REGISTRY, "blob"), 1.),
    ] {
        assert_eq!(value(&page, series), want, "{series} in {page:#?}");
    }
}

/// Each request has a repository, a token and a redirect's host of its own.
#[test]
fn a_flood_of_names_takes_no_memory() {
    const THREADS: usize = 4;
    const EACH: usize = 500;
    let hub = hub();
    hub.record(false);
    hub.route(REGISTRY, |request| {
        let number = request.uri.trim_start_matches("/v2/r/");
        let number = number.split('/').next().unwrap_or_default();
        Reply::redirect(307, format!("https://h{number}.example/"))
    });
    let nginx = mirror(&hub, "docker_zone docker:256k;").log_level("crit").start();
    let flood = |round: usize| {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let nginx = &nginx;
                scope.spawn(move || {
                    for number in 0..EACH {
                        let number = (round * THREADS + thread) * EACH + number;
                        let url = nginx.url(&format!("/v2/r/{number}/manifests/latest"));
                        let claims = format!("{{\"sub\":\"account-{number}\"}}");
                        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
                        let answer = get(&url).bearer(&token).send();
                        assert!([404, 502].contains(&answer.status), "{}", answer.status);
                    }
                });
            }
        });
    };
    flood(0);
    let (memory, before) = (nginx.memory(), settled(&nginx, THREADS * EACH));
    flood(1);
    flood(2);
    let after = settled(&nginx, 3 * THREADS * EACH);
    // What becomes of connections has names of the module's own, and some are met late.
    let both = before.keys().chain(after.keys());
    let changed = both.filter(|series| before.contains_key(*series) != after.contains_key(*series));
    let changed = changed.filter(|series| !series.starts_with("docker_connections_"));
    assert_eq!(changed.collect::<Vec<_>>(), Vec::<&String>::new());
    let grown = nginx.memory().saturating_sub(memory);
    let free = value(&after, "docker_zone_free_bytes");
    println!("{} series, {free} bytes of 256k free, workers grew by {grown} bytes", after.len());
    for host in [REGISTRY, FIRST] {
        let asked = value(&after, &of("docker_upstream_requests_total", host, "manifest"));
        assert_eq!(asked, hub.counts(host).requests as f64, "{host}");
    }
    // valgrind's own memory grows too.
    assert!(grown < 1_500_000 || Nginx::is_under_valgrind(), "{grown}");
}

#[test]
fn whatever_a_registry_says_of_limits_the_page_can_be_read() {
    let hub = hub();
    let short =
        "docker_breaker on backoff=1ms max_backoff=1ms retry_after=1ms max_retry_after=1ms;";
    let nginx = mirror(
        &hub,
        &format!("docker_zone docker:1m; {short} proxy_buffers 8 32k; proxy_buffer_size 32k;"),
    )
    .start();
    let many = "9".repeat(5_000);
    let values: [&str; 10] = [
        "",
        "-1;w=1",
        "99999999999999999999;w=99999999999999999999",
        "100;w=-1;x=\"",
        "1e9;w=21600",
        "\"100\"\\;w=1",
        ";;;;w=;",
        "\u{e9}\u{1f40b}",
        "4294967295;w=4294967295",
        &many,
    ];
    for value in values {
        for status in [200, 429] {
            let mut answer = match status {
                200 => Response::new(200),
                _ => Response::error(429, "TOOMANYREQUESTS", "x").header("Retry-After", value),
            };
            for name in ["ratelimit-limit", "ratelimit-remaining", "docker-ratelimit-source"] {
                for _ in 0..if value.len() < 100 { 100 } else { 1 } {
                    answer = answer.header(name, value);
                }
            }
            hub.on_times(REGISTRY, PATH, 1, Fault::Answer(answer.into()));
            assert_eq!(get(&nginx.url(PATH)).send().status, 200, "{value:.99} {status}");
        }
        page(&nginx);
    }
    assert_eq!(hub.requests(REGISTRY).len(), 2 * values.len());
}

#[test]
fn the_example_shows_the_page_to_no_stranger() {
    let example = include_str!("../nginx-conf/docker-hub.conf");
    let start = example.find("location = /docker-status {").expect("its location");
    let length = example[start..].find('}').expect("its end");
    let location = &example[start..=start + length];
    let nginx = Nginx::builder()
        .http("docker_zone docker:1m; set_real_ip_from 127.0.0.1; real_ip_header X-From;")
        .server(location)
        .start();
    let url = nginx.url("/docker-status");
    assert_eq!(get(&url).send().status, 200);
    for stranger in ["192.0.2.1", "127.0.0.2", "10.0.0.1", "2001:db8::1"] {
        assert_eq!(get(&url).header("X-From", stranger).send().status, 403, "{stranger}");
    }
}

#[test]
fn a_page_without_a_zone_is_refused() {
    let (works, said) = nginx_t("server { location /status { docker_status; } }");
    assert!(!works && said.contains("\"docker_status\" has nothing to show without"), "{said}");
    let (works, said) =
        nginx_t("docker_zone a:1m; server { location /status { docker_status; docker_status; } }");
    assert!(!works && said.contains("\"docker_status\" directive is duplicate"), "{said}");
    let (works, said) = nginx_t("docker_zone a:1m; server { docker_status; }");
    assert!(!works && said.contains("\"docker_status\" directive is not allowed here"), "{said}");
}

#[test]
fn a_download_that_may_be_resumed_has_a_first_byte() {
    let hub = hub();
    let path = format!("/v2/library/x/blobs/{}", hub.add_blob(vec![b'x'; 500_000]));
    let whole = Response::new(200).body(vec![b'x'; 500_000]);
    hub.on(REGISTRY, "/v2/library/x/blobs/", Fault::Answer(whole.into()));
    let nginx = Nginx::builder()
        .http(&hub.http_conf())
        .http("docker_zone docker:1m;")
        .server(&format!(
            "location / {{
                 docker_resume on;
                 docker_fallback https://{FIRST};
                 proxy_pass https://{REGISTRY};
             }}
             location = /status {{ docker_status; }}"
        ))
        .start();
    assert_eq!(get(&nginx.url(&path)).send().status, 200);
    let counted = settled(&nginx, 1);
    assert_eq!(value(&counted, "docker_first_byte_seconds_count{kind=\"blob\"}"), 1.);
}
