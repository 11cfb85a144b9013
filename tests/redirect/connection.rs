//! Connections: kept where that is safe, closed where it is not.

use std::process::Command;
use std::time::{Duration, Instant};

use support::{
    End, Fault, Hub, Kind, Nginx, REGISTRY, Reply, Response, Shape, Step, get, request, wait_for,
};

use crate::{CDN, OTHER, follow, lead, mirror, server, start, start_hub};

/// What must not be taken for the answer to another request.
const POISON: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// Sends a request ten times, one after the other, and sees that each gets the CDN's answer.
#[track_caller]
fn ten_times(nginx: &Nginx, method: &str, name: &str) {
    for _ in 0..10 {
        let answer = request(method, &nginx.url("/v2/x")).send();
        assert_eq!(answer.status, 200, "{name}: {}: {}", answer.text(), nginx.errors());
        let text = if method == "HEAD" { String::new() } else { format!("{CDN} {method} /x\n") };
        assert_eq!(answer.text(), text, "{name}");
    }
}

/// Closes what is open to a host, so that the connections to come can be counted.
fn count_anew(hub: &Hub, host: &str) {
    hub.disconnect(host);
    hub.forget();
}

#[test]
fn the_registrys_connection_is_kept_across_a_redirect() {
    let hub = start_hub();
    let cached = "proxy_cache_path %prefix%/cache keys_zone=cache:1m;";
    let own = server(&hub, "");
    let nginx = mirror(&hub)
        .http(cached)
        .server(&own)
        .server(&format!("proxy_buffering off; {own}"))
        .server(&format!("proxy_cache cache; proxy_cache_valid any 1m; {own}"))
        .start();
    let to = format!("https://{CDN}/x");
    let redirect = |body: usize| Response::redirect(307, &to).body("b".repeat(body));
    let cases = [
        ("small body", "GET", redirect(50)),
        ("no body", "GET", redirect(0)),
        ("body that fills most of the buffer", "GET", redirect(3000)),
        ("one chunk", "GET", redirect(50).chunked(1000)),
        ("many chunks", "GET", redirect(500).chunked(7)),
        ("no chunk but the last", "GET", redirect(0).chunked(7)),
        ("HEAD", "HEAD", redirect(50)),
        ("HEAD, chunked", "HEAD", redirect(50).chunked(7)),
    ];

    for (name, method, response) in cases {
        for server in 0..3 {
            hub.off(REGISTRY);
            hub.on(REGISTRY, "/v2/", Fault::Answer(response.clone().into()));
            count_anew(&hub, REGISTRY);
            for number in 0..10 {
                // Another URI each time: the third server caches what comes from the CDN.
                let url = nginx.url_of(server, &format!("/v2/{number}/{}", name.len()));
                let answer = request(method, &url).send();
                assert_eq!(answer.status, 200, "{name}: {}", nginx.errors());
            }
            let counts = hub.counts(REGISTRY);
            assert_eq!((counts.connections, counts.requests), (1, 10), "{name}, server {server}");
        }
    }
}

#[test]
fn a_connection_with_more_to_come_is_not_kept() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let to = format!("https://{CDN}/x");
    let redirect = |body: usize| Response::redirect(307, &to).body("b".repeat(body));
    let pause = Duration::from_secs(10);
    let http10 = format!("HTTP/1.0 302 Found\r\nLocation: {to}\r\n\r\nuntil the end");
    let cases: [(&str, Reply); 8] = [
        ("half a body", redirect(50).shape(Shape::PauseBody(20, pause)).into()),
        ("no byte of the body", redirect(50).shape(Shape::PauseBody(0, pause)).into()),
        ("half a chunk", redirect(50).chunked(30).shape(Shape::PauseBody(20, pause)).into()),
        (
            "all but the last chunk's end",
            redirect(5).chunked(5).shape(Shape::PauseBody(13, pause)).into(),
        ),
        ("a body larger than the buffer", redirect(20_000).into()),
        ("a body that is never sent", redirect(50).shape(Shape::StallBody(20)).into()),
        ("Connection: close", redirect(50).header("Connection", "close").into()),
        ("a body that ends with the connection", Reply::raw(http10)),
    ];

    for (name, reply) in cases {
        hub.off(REGISTRY);
        hub.on(REGISTRY, "/v2/", Fault::Answer(reply));
        count_anew(&hub, REGISTRY);
        let start = Instant::now();
        ten_times(&nginx, "GET", name);
        assert!(start.elapsed() < 5 * pause, "{name}: the rest of the body is not waited for");
        let counts = hub.counts(REGISTRY);
        assert_eq!((counts.connections, counts.requests), (10, 10), "{name}");
    }
    hub.off(REGISTRY);
    wait_for("connections to be closed", || hub.counts(REGISTRY).open == 0);
}

#[test]
fn bytes_behind_an_answer_of_the_registry_are_never_taken_for_another() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let to = format!("https://{CDN}/x");
    let redirect = || Response::redirect(307, &to);
    let poison = || Shape::Surplus(POISON.to_vec());
    let late = Reply::Raw(vec![
        Step::send(format!("HTTP/1.1 307 T\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")),
        Step::Wait(Duration::from_millis(30)),
        Step::send(POISON),
    ]);
    let cases: [(&str, &str, Reply); 8] = [
        ("GET", "GET", redirect().shape(poison()).into()),
        ("GET, no body", "GET", redirect().body("").shape(poison()).into()),
        ("GET, chunked", "GET", redirect().chunked(5).shape(poison()).into()),
        ("HEAD", "HEAD", redirect().shape(poison()).into()),
        ("HEAD, chunked", "HEAD", redirect().chunked(5).shape(poison()).into()),
        ("HEAD, no length", "HEAD", redirect().body("").shape(poison()).into()),
        ("one byte", "HEAD", redirect().shape(Shape::Surplus(b"\n".to_vec())).into()),
        ("late", "GET", late),
    ];

    for (name, method, reply) in cases {
        hub.off(REGISTRY);
        hub.on(REGISTRY, "/v2/", Fault::Answer(reply));
        count_anew(&hub, REGISTRY);
        for _ in 0..5 {
            let answer = request(method, &nginx.url("/v2/x")).send();
            assert_eq!(answer.header("x-redirects"), Some("1"), "{name}: {}", answer.text());
            assert!(!answer.text().contains("poison"), "{name}");
            if name == "late" {
                // Whoever asks before they have come takes them for the answer.
                wait_for("bytes unasked for", || hub.counts(REGISTRY).open == 0);
            }
        }
        assert_eq!(hub.counts(REGISTRY).connections, 5, "{name}");
    }
}

#[test]
fn bytes_behind_an_answer_of_the_cdn_are_never_taken_for_another() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/x"));
    let poison = || Shape::Surplus(POISON.to_vec());
    let late = Reply::Raw(vec![
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"),
        Step::Wait(Duration::from_millis(30)),
        Step::send(POISON),
    ]);
    let cases: [(&str, &str, Reply); 7] = [
        ("GET", "GET", Response::text(200, "fine").shape(poison()).into()),
        ("GET, chunked", "GET", Response::text(200, "fine").chunked(9).shape(poison()).into()),
        ("GET, no body", "GET", Response::text(200, "").shape(poison()).into()),
        ("HEAD", "HEAD", Response::text(200, "fine").shape(poison()).into()),
        ("304", "GET", Response::new(304).shape(poison()).into()),
        ("204", "GET", Response::new(204).shape(poison()).into()),
        ("late", "GET", late),
    ];

    for (name, method, reply) in cases {
        hub.off(CDN);
        hub.on(CDN, "/", Fault::Answer(reply));
        count_anew(&hub, CDN);
        for _ in 0..5 {
            let answer = request(method, &nginx.url("/v2/x")).send();
            assert!(!answer.text().contains("poison"), "{name}");
            assert!(matches!(answer.status, 200 | 204 | 304), "{name}: {}", answer.status);
            if name == "late" {
                // Whoever asks before they have come takes them for the answer.
                wait_for("bytes unasked for", || hub.counts(CDN).open == 0);
            }
        }
        assert_eq!(hub.counts(CDN).connections, 5, "{name}: {}", nginx.errors());
    }
}

#[test]
fn an_interim_answer_is_not_the_last_one_and_its_connection_is_not_kept() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let interim = |status| {
        Fault::Answer(Reply::Raw(vec![
            Step::send(format!("HTTP/1.1 {status} Interim\r\n\r\n")),
            Step::Wait(Duration::from_millis(30)),
            Step::send(POISON),
        ]))
    };
    for (name, host, status) in [
        ("registry", REGISTRY, 102),
        ("registry, an upgrade that nobody wants", REGISTRY, 101),
        ("CDN", CDN, 102),
        ("CDN, an upgrade", CDN, 101),
    ] {
        lead(&hub, format!("https://{CDN}/x"));
        hub.off(CDN);
        hub.on(host, "/", interim(status));
        for method in ["GET", "HEAD"] {
            count_anew(&hub, host);
            for _ in 0..3 {
                let answer = request(method, &nginx.url("/v2/x")).send();
                assert_eq!(answer.status, 502, "{name}, {method}: {}", answer.text());
                assert!(!answer.text().contains("poison"), "{name}, {method}");
                std::thread::sleep(Duration::from_millis(60));
            }
            assert_eq!(hub.counts(host).connections, 3, "{name}, {method}");
        }
    }
}

#[test]
fn what_has_arrived_unasked_is_seen_before_nginx_sees_it() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let after = |milliseconds| std::thread::sleep(Duration::from_millis(milliseconds));
    lead(&hub, format!("https://{CDN}/x"));
    let unasked = Reply::Raw(vec![
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"),
        Step::Wait(Duration::from_millis(600)),
        Step::send(POISON),
    ]);
    hub.on_times(CDN, "/", 1, Fault::Answer(unasked));
    assert_eq!(get(&nginx.url("/v2/x")).send().text(), "fine");

    // The worker finds two events: the registry's redirect, then the poison.
    hub.off(REGISTRY);
    let redirect = Response::redirect(307, format!("https://{CDN}/x"));
    let delay = Shape::Delay(Duration::from_millis(300));
    hub.on(REGISTRY, "/v2/", Fault::Answer(redirect.shape(delay).into()));
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| get(&nginx.url("/v2/x")).send());
        after(150);
        signal(&nginx, "-STOP");
        after(1000);
        signal(&nginx, "-CONT");
        assert_eq!(answer.join().unwrap().text(), format!("{CDN} GET /x\n"));
    });
}

fn signal(nginx: &Nginx, signal: &str) {
    for worker in nginx.workers() {
        let sent = Command::new("kill").args([signal, &worker.to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal} {worker}");
    }
}

#[test]
fn connections_to_cdns_are_kept() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    for (name, to) in [("https", format!("https://{CDN}/x")), ("relative", "/x".to_owned())] {
        lead(&hub, to);
        hub.on(REGISTRY, "/x", Fault::Answer(Response::text(200, "cdn.example GET /x\n").into()));
        ten_times(&nginx, "GET", name);
    }
    hub.on(CDN, "/", Fault::Answer(Response::text(200, "cdn.example GET /x\n").chunked(3).into()));
    lead(&hub, format!("https://{CDN}/x"));
    ten_times(&nginx, "GET", "chunked");
    ten_times(&nginx, "HEAD", "HEAD");
    let counts = hub.counts(CDN);
    assert_eq!((counts.connections, counts.full, counts.resumed), (1, 1, 0));
    // One of nginx's own upstream, one of the follow location.
    assert_eq!(hub.counts(REGISTRY).connections, 2);
}

#[test]
fn connections_are_not_shared_between_hosts_schemes_and_ports() {
    let hub = start_hub();
    hub.listen(CDN, 8080, false);
    let nginx = mirror(&hub)
        .server(&format!(
            "{} location / {{ proxy_pass http://{}; }}",
            follow(&hub, ""),
            hub.address(REGISTRY)
        ))
        .start();
    // Two names of one address.
    hub.resolve_to("alias.example", &[&hub.address(CDN).to_string()]);
    let origins = [
        format!("http://{CDN}"),
        "http://alias.example".to_owned(),
        format!("http://{CDN}:8080"),
        format!("https://{CDN}"),
    ];
    for _ in 0..3 {
        for origin in &origins {
            lead(&hub, format!("{origin}/x"));
            assert_eq!(get(&nginx.url("/v2/x")).send().status, 200, "{origin}");
            let authority = origin.split("//").nth(1).unwrap();
            assert_eq!(hub.last_request(CDN).header("host"), Some(authority));
        }
    }
    assert_eq!(hub.counts(CDN).connections, 4);
}

#[test]
fn tls_sessions_with_cdns_are_resumed() {
    let hub = start_hub();
    let nginx = mirror(&hub).http("docker_keepalive off;").server(&server(&hub, "")).start();
    lead(&hub, format!("https://{CDN}/x"));
    ten_times(&nginx, "GET", "off");
    let counts = hub.counts(CDN);
    assert_eq!((counts.connections, counts.full, counts.resumed), (10, 1, 9));

    // TLS 1.2 as well.
    let nginx = mirror(&hub)
        .http("docker_keepalive off; proxy_ssl_protocols TLSv1.2;")
        .server(&server(&hub, ""))
        .start();
    hub.forget();
    ten_times(&nginx, "GET", "TLS 1.2");
    let counts = hub.counts(CDN);
    assert_eq!((counts.full, counts.resumed), (1, 9));

    let nginx = mirror(&hub)
        .http("docker_keepalive off;")
        .server(&format!("proxy_ssl_session_reuse off; {}", server(&hub, "")))
        .start();
    hub.forget();
    ten_times(&nginx, "GET", "the follow location says on itself");
    assert_eq!(hub.counts(CDN).full, 1);
}

/// The connections to the CDN that `requests` requests need, with pauses between.
fn connections(hub: &Hub, keepalive: &str, requests: usize, pause: Duration) -> u64 {
    let nginx = mirror(hub)
        .http(&format!("docker_keepalive {keepalive};"))
        .server(&server(hub, ""))
        .start();
    lead(hub, format!("https://{CDN}/x"));
    hub.forget();
    for number in 0..requests {
        if number > 0 {
            std::thread::sleep(pause);
        }
        assert_eq!(get(&nginx.url("/v2/x")).send().status, 200, "{keepalive}");
    }
    hub.counts(CDN).connections
}

#[test]
fn docker_keepalive_bounds_requests_idleness_and_age_of_a_connection() {
    let hub = start_hub();
    let at_once = Duration::ZERO;
    let cases = [
        ("off", 4, at_once, 4),
        ("32", 6, at_once, 1),
        ("1", 6, at_once, 1),
        ("8 requests=2", 6, at_once, 3),
        ("8 requests=1", 4, at_once, 4),
        ("requests=3 8", 7, at_once, 3),
        ("8 timeout=200ms", 3, Duration::from_millis(500), 3),
        ("8 timeout=10s", 3, Duration::from_millis(500), 1),
        // Checked when an answer is complete: the second one comes too late to be kept.
        ("8 time=200ms", 4, Duration::from_millis(300), 2),
        ("8 time=10s", 4, Duration::from_millis(300), 1),
    ];
    for (keepalive, requests, pause, want) in cases {
        assert_eq!(connections(&hub, keepalive, requests, pause), want, "{keepalive}");
    }
}

#[test]
fn an_idle_connection_is_closed_when_its_time_is_over() {
    let hub = start_hub();
    let nginx =
        mirror(&hub).http("docker_keepalive 8 timeout=300ms;").server(&server(&hub, "")).start();
    lead(&hub, format!("https://{CDN}/x"));
    assert_eq!(get(&nginx.url("/v2/x")).send().status, 200);
    assert_eq!(hub.counts(CDN).open, 1);
    wait_for("the connection to be closed", || hub.counts(CDN).open == 0);
}

#[test]
fn the_least_recently_used_connection_makes_room() {
    let hub = start_hub();
    let nginx = mirror(&hub).http("docker_keepalive 2;").server(&server(&hub, "")).start();
    let ask = |host: &str| {
        lead(&hub, format!("https://{host}/x"));
        assert_eq!(get(&nginx.url("/v2/x")).send().status, 200, "{host}");
    };
    hub.add_host_as("third.example", Kind::Blank);
    for host in [CDN, OTHER, CDN, "third.example", CDN, "third.example"] {
        ask(host);
    }
    assert_eq!((hub.counts(CDN).connections, hub.counts(CDN).open), (1, 1));
    assert_eq!(hub.counts("third.example").connections, 1);
    wait_for("the oldest to be closed", || hub.counts(OTHER).open == 0);
    ask(OTHER);
    assert_eq!(hub.counts(OTHER).connections, 2);
}

#[test]
fn many_clients_at_once_need_no_more_connections_than_clients() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/x"));
    let url = nginx.url("/v2/x");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    assert_eq!(get(&url).send().status, 200);
                }
            });
        }
    });
    let counts = hub.counts(CDN);
    assert_eq!(counts.requests, 200);
    assert!(counts.connections <= 8, "{counts:?}");
    assert!(hub.counts(REGISTRY).connections <= 8, "{:?}", hub.counts(REGISTRY));
}

#[test]
fn a_kept_connection_that_has_ended_costs_no_request() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/x"));
    for _ in 0..3 {
        ten_times(&nginx, "GET", "closed while idle");
        hub.disconnect(CDN);
    }

    // The CDN closes as the next request arrives: nginx cannot know before it has asked.
    for end in [End::Close, End::Truncate, End::Reset] {
        ten_times(&nginx, "GET", "open");
        hub.on_times(CDN, "/", 1, Fault::Close(end));
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(answer.status, 200, "{end:?}: {}", nginx.errors());
    }
}

#[test]
fn records_of_tls_itself_do_not_end_an_idle_connection() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/x"));
    let pause = Duration::from_millis(30);
    let steps = vec![
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"),
        Step::Wait(pause),
        Step::KeyUpdate,
        Step::Wait(pause),
        Step::KeyUpdate,
    ];
    hub.on(CDN, "/", Fault::Answer(Reply::Raw(steps)));
    for _ in 0..5 {
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!((answer.status, answer.text().as_str()), (200, "fine"), "{}", nginx.errors());
        std::thread::sleep(3 * pause);
    }
    let counts = hub.counts(CDN);
    assert_eq!((counts.connections, counts.open, counts.requests), (1, 1, 5));
}

#[test]
fn a_worker_that_ends_closes_its_idle_connections() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/x"));
    assert_eq!(get(&nginx.url("/v2/x")).send().status, 200);
    let old = nginx.workers();
    nginx.reload();
    nginx.wait_until_gone(&old);
    wait_for("the connection to be closed", || hub.counts(CDN).open == 0);
    assert_eq!(get(&nginx.url("/v2/x")).send().status, 200);
}
