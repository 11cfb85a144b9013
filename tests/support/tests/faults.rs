//! Each fault reaches the peer as its name says, and the harness sees what it is there to see.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use support::{
    Certificate, Connection, Dns, End, Fault, Framing, Hub, Kind, Nginx, R2, Reply, Request,
    Response, Shape, Step, get, head, nginx_t, request, until,
};

const HOST: &str = "blank.example";

fn hub() -> Hub {
    let hub = Hub::start();
    hub.add_host_as(HOST, Kind::Blank);
    hub
}

fn https(hub: &Hub, target: &str) -> Request {
    let address = SocketAddr::from((hub.address(HOST), 443));
    get(&format!("https://{HOST}{target}")).connect(address).ca(hub.ca_file())
}

fn http(hub: &Hub, target: &str) -> Request {
    get(&format!("http://{HOST}{target}")).connect((hub.address(HOST), 80).into())
}

#[test]
fn a_cut_body_is_seen_as_cut_over_plain_http_and_tls() {
    let hub = hub();
    hub.route(HOST, |request| {
        let end = match request.path() {
            "/close" => End::Close,
            "/truncate" => End::Truncate,
            _ => End::Reset,
        };
        Response::text(200, [b'x'; 1000]).shape(Shape::CutBody(400, end)).into()
    });
    for target in ["/close", "/truncate", "/reset"] {
        for request in [http(&hub, target), https(&hub, target)] {
            let answer = request.send();
            assert_eq!(answer.framing, Framing::Length(1000), "{target}");
            assert!(!answer.complete, "{target}");
            assert_eq!(answer.body.len(), 400, "{target}: {:?}", answer.problem);
        }
    }
}

#[test]
fn shapes_change_how_an_answer_arrives_and_not_what_it_is() {
    let pause = Duration::from_millis(150);
    let cases = [
        ("delay", Shape::Delay(pause), true),
        ("pause in the body", Shape::PauseBody(3, pause), true),
        ("slow", Shape::Slow(4, Duration::from_millis(40)), true),
        ("chunked", Shape::Chunked(5), false),
        ("whole", Shape::Whole, false),
    ];
    let hub = hub();
    for (name, shape, slow) in cases {
        hub.on(HOST, "/", Fault::Shape(shape));
        let start = Instant::now();
        let answer = https(&hub, "/a?b=%2f").send();
        assert_eq!(answer.text(), "blank.example GET /a?b=%2f\n", "{name}");
        assert!(answer.complete, "{name}");
        assert_eq!(start.elapsed() >= pause, slow, "{name}");
        let chunked = name == "chunked";
        assert_eq!(answer.framing == Framing::Chunked, chunked, "{name}");
    }
}

#[test]
fn a_stalled_answer_ends_when_its_client_does() {
    let hub = hub();
    for fault in [Fault::Stall, Fault::Shape(Shape::StallBody(5))] {
        hub.on(HOST, "/", fault);
        let request = https(&hub, "/").patience(Duration::from_millis(200));
        if let Ok(answer) = request.try_send() {
            assert_eq!((answer.complete, answer.body.len()), (false, 5));
        }
        assert!(until(Duration::from_secs(5), || hub.counts(HOST).open == 0));
    }
}

#[test]
fn raw_bytes_arrive_as_they_are_and_the_connection_is_kept() {
    let hub = hub();
    hub.on_times(HOST, "/raw", 1, Fault::raw("SSH-2.0-banner\r\n"));
    let mut connection = Connection::open(&http(&hub, "/")).unwrap();
    connection.start(&http(&hub, "/raw")).unwrap();
    assert_eq!(connection.take(16).unwrap(), b"SSH-2.0-banner\r\n");
    assert!(connection.closes(Duration::from_secs(5)));

    let raw = [Step::send("HTTP/1.1 200 OK\r\nContent-Le"), Step::send("ngth: 1\r\n\r\nxsurplus")];
    hub.on(HOST, "/surplus", Fault::Answer(Reply::Raw(raw.into())));
    let mut connection = Connection::open(&http(&hub, "/")).unwrap();
    assert_eq!(connection.send(&http(&hub, "/surplus")).unwrap().body, b"x");
    assert_eq!(connection.take(7).unwrap(), b"surplus");
    assert_eq!(connection.send(&http(&hub, "/")).unwrap().status, 200, "still usable");

    let seen = hub.requests(HOST);
    assert_eq!(seen[0].head, b"GET /raw HTTP/1.1\r\nHost: blank.example\r\n\r\n");
    assert_ne!(seen[0].connection, seen[1].connection);
    assert_eq!(seen[1].connection, seen[2].connection);
}

#[test]
fn a_host_can_refuse_be_mute_or_vanish_and_come_back() {
    let hub = hub();
    let quick = || https(&hub, "/").patience(Duration::from_millis(300)).try_send();
    let address = SocketAddr::from((hub.address(HOST), 443));
    assert_eq!(quick().unwrap().status, 200);

    hub.refuse(HOST);
    let error = TcpStream::connect(address).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);

    hub.mute(HOST);
    assert!(TcpStream::connect(address).is_ok());
    assert!(quick().is_err(), "no TLS handshake");

    hub.blackhole(HOST);
    let error = TcpStream::connect_timeout(&address, Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);

    hub.accept(HOST);
    assert_eq!(quick().unwrap().status, 200);
}

#[test]
fn certificates_are_good_or_bad_as_told() {
    let hub = hub();
    let cases = [
        (Certificate::WrongName, "not valid for name"),
        (Certificate::UnknownAuthority, "UnknownIssuer"),
        (Certificate::Expired, "expired"),
    ];
    for (certificate, words) in cases {
        hub.certificate(HOST, certificate);
        let error = https(&hub, "/").try_send().unwrap_err().to_string();
        assert!(error.contains(words), "{certificate:?}: {error}");
    }
    hub.certificate(HOST, Certificate::Good);
    assert_eq!(https(&hub, "/").send().status, 200);
}

#[test]
fn limits_look_like_those_of_docker_hub() {
    let hub = hub();
    hub.on(HOST, "/pull", Fault::TooManyRequests);
    hub.on(HOST, "/abuse", Fault::Hap429);
    hub.on(HOST, "/login", Fault::LoginLimit);

    let pull = http(&hub, "/pull").send();
    assert_eq!((pull.status, pull.header("retry-after")), (429, Some("3600")));
    assert_eq!(pull.json()["errors"][0]["code"], "TOOMANYREQUESTS");
    let abuse = http(&hub, "/abuse").send();
    assert_eq!((abuse.status, abuse.text().as_str()), (429, "Too Many Requests (HAP429).\n"));
    assert_eq!(http(&hub, "/login").send().status, 429);
}

#[test]
fn a_chain_leads_over_its_hosts_to_the_last_location() {
    let hub = hub();
    hub.add_host_as("second.example", Kind::Blank);
    let start = hub.chain(&[HOST, "second.example"], 3, 308, "https://x.example/?a=%2F");
    let first = http(&hub, &start).send();
    assert_eq!(first.status, 308);
    let location = first.header("location").unwrap();
    assert_eq!(location, format!("https://second.example{}", start.replace("/0", "/1")));
    let last = http(&hub, &start.replace("/0", "/2")).send();
    assert_eq!(last.header("location"), Some("https://x.example/?a=%2F"));
}

#[test]
fn ranges_and_conditions_are_answered_by_the_cdn() {
    let hub = Hub::start();
    let digest = hub.add_blob("0123456789");
    let target = hub.signed(R2, "GET", &digest);
    let blob = || get(&format!("http://{R2}{target}")).connect((hub.address(R2), 80).into());
    let cases = [
        ("whole", "", 200, "0123456789"),
        ("from", "bytes=4-", 206, "456789"),
        ("part", "bytes=4-5", 206, "45"),
        ("suffix", "bytes=-3", 206, "789"),
        ("longer suffix", "bytes=-30", 206, "0123456789"),
        ("other unit", "lines=1-2", 200, "0123456789"),
    ];
    for (name, range, status, body) in cases {
        let answer = blob().header("Range", range).send();
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{name}");
    }
    let beyond = blob().header("Range", "bytes=10-").send();
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10")));
    let known = blob().header("If-None-Match", format!("\"{digest}\"")).send();
    assert_eq!((known.status, known.body.len()), (304, 0));

    let other = head(&format!("http://{R2}{target}")).connect((hub.address(R2), 80).into());
    assert_eq!(other.send().status, 403, "the signature covers the method");
}

#[test]
fn nginx_resumes_its_sessions_with_the_hub_and_asks_its_dns() {
    let hub = hub();
    hub.resolve_for(HOST, Dns::Addresses(vec![hub.address(HOST).into()]), 1);
    let nginx = Nginx::builder()
        .without_module()
        .http(&format!("resolver {} ipv6=off;", hub.resolver()))
        .server(&format!(
            "location / {{ set $to {HOST}; proxy_pass https://$to; }}
             location /fixed {{ proxy_pass https://{}; }}",
            hub.address(HOST)
        ))
        .start();
    for _ in 0..3 {
        assert_eq!(get(&nginx.url("/fixed")).send().status, 200);
    }
    let counts = hub.counts(HOST);
    assert_eq!((counts.connections, counts.full, counts.resumed), (3, 1, 2));
    assert_eq!(get(&nginx.url("/")).send().status, 200);
    assert!(hub.queries(HOST) >= 1);

    hub.resolve_for(HOST, Dns::ServFail, 1);
    assert!(until(Duration::from_secs(5), || get(&nginx.url("/")).send().status == 502));
    nginx.wait_for_log("could not be resolved (2: Server failure)");
}

#[test]
fn http2_clients_see_answers_and_cuts() {
    let hub = hub();
    let location = format!("location / {{ proxy_pass http://{}; }}", hub.address(HOST));
    let nginx =
        Nginx::builder().without_module().tls_server(&location).h2c_server(&location).start();
    let tls = |target: &str| get(&nginx.url(target)).ca(nginx.ca_file()).http2();
    assert_eq!(tls("/a").send().text(), "127.0.0.1 GET /a\n".replace("127.0.0.1", HOST));
    let clear = get(&nginx.url_of(1, "/b")).http2().send();
    assert_eq!(clear.text(), "blank.example GET /b\n");
    let post = request("POST", &nginx.url_of(1, "/c")).http2().body("form").send();
    assert_eq!(post.status, 200);
    assert_eq!(hub.last_request(HOST).body, b"form");

    hub.on(HOST, "/cut", Fault::Shape(Shape::CutBody(4, End::Close)));
    let cut = tls("/cut").send();
    assert!(!cut.complete, "{cut:?}");

    let others: Vec<_> = (0..20).map(|number| tls(&format!("/many/{number}"))).collect();
    let answers = tls("/many").send_together(&others).unwrap();
    assert_eq!(answers.len(), 21);
    for answer in answers {
        assert_eq!(answer.unwrap().status, 200);
    }

    hub.on(HOST, "/stall", Fault::Shape(Shape::StallBody(4)));
    for target in ["/stall/body", "/stall"] {
        tls(target).abort_http2(4, Duration::from_millis(300)).unwrap();
        assert!(until(Duration::from_secs(5), || hub.counts(HOST).open == 0), "{target}");
    }
}

#[test]
fn nginx_reloads_and_tells_good_configurations_from_bad() {
    let nginx = Nginx::builder().without_module().workers(2).server("return 200 ok;").start();
    let old = nginx.workers();
    assert_eq!(old.len(), 2);
    nginx.reload();
    nginx.wait_until_gone(&old);
    assert_eq!(get(&nginx.url("/")).send().text(), "ok");
    assert!(Nginx::version() >= (1, 22, 0));

    let (good, says) = Nginx::builder().without_module().http("bad_directive;").test();
    assert!(!good);
    assert!(says.contains("unknown directive \"bad_directive\""), "{says}");
    let whole = "worker_processes 1;\nhttp { server { listen 127.0.0.1:%port0%; return 204; } }";
    let nginx = Nginx::builder().without_module().whole(whole).start();
    assert_eq!(head(&nginx.url("/")).send().status, 204);
    // Without the module beside this executable, loading it is what fails.
    assert!(!nginx_t("bad_directive;").0);
}

#[test]
fn an_alert_in_the_log_fails_the_test_unless_it_was_expected() {
    let broken = |allowed: bool| {
        let nginx = Nginx::builder().without_module().server("return 200;").start();
        if allowed {
            nginx.allow_log("exited on signal 9");
        }
        let worker = nginx.workers()[0];
        let killed = std::process::Command::new("kill").args(["-9", &worker.to_string()]).status();
        assert!(killed.unwrap().success());
        nginx.wait_for_log("exited on signal 9");
    };
    broken(true);
    assert!(std::panic::catch_unwind(|| broken(false)).is_err());
}

#[test]
fn a_host_can_listen_on_ipv6_and_other_ports() {
    let hub = hub();
    let v6 = hub.listen_at(HOST, "[::1]:0".parse().unwrap(), true);
    let answer = https(&hub, "/six").connect(v6).send();
    assert_eq!(answer.text(), "blank.example GET /six\n");
    let other = hub.listen(HOST, 8080, false);
    assert_eq!(http(&hub, "/").connect(other).send().status, 200);
}
