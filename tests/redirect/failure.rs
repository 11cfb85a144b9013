//! What fails on the way: the client is told where and why, and not sent there itself.

use std::time::{Duration, Instant};

use support::{
    CLOUDFLARE, Certificate, Dns, End, Fault, Framing, Hub, REGISTRY, Reply, Response, Shape, Step,
    get, request,
};

use crate::{CDN, IMPATIENT, blob_of, follow, lead, message, mirror, server, start, start_hub};

type Case = (&'static str, fn(&Hub), &'static str);

/// What can befall a CDN, and what the client is told.
const FAILURES: [Case; 19] = [
    ("dead host", |hub| hub.refuse(CDN), "could not be connected"),
    (
        "unknown name",
        |hub| hub.resolve(CDN, Dns::NxDomain),
        "could not be resolved (Host not found)",
    ),
    ("SERVFAIL", |hub| hub.resolve(CDN, Dns::ServFail), "could not be resolved (Server failure)"),
    ("REFUSED", |hub| hub.resolve(CDN, Dns::Refused), "could not be resolved (Operation refused)"),
    (
        "silent DNS",
        |hub| hub.resolve(CDN, Dns::Silence),
        "could not be resolved (Operation timed out)",
    ),
    (
        "no address",
        |hub| hub.resolve(CDN, Dns::Addresses(Vec::new())),
        "could not be resolved (Host not found)",
    ),
    (
        "alias of an unknown name",
        |hub| hub.resolve(CDN, Dns::Alias("nowhere.example".to_owned())),
        "could not be resolved (Host not found)",
    ),
    (
        "certificate of another host",
        |hub| hub.certificate(CDN, Certificate::WrongName),
        "certificate not valid for this host",
    ),
    (
        "unknown authority",
        |hub| hub.certificate(CDN, Certificate::UnknownAuthority),
        "certificate not valid for this host",
    ),
    (
        "expired certificate",
        |hub| hub.certificate(CDN, Certificate::Expired),
        "certificate not valid for this host",
    ),
    ("stalled connect", |hub| hub.blackhole(CDN), "connect timed out"),
    ("stalled TLS handshake", |hub| hub.mute(CDN), "TLS handshake timed out"),
    (
        "end without an answer",
        |hub| hub.on(CDN, "/", Fault::Close(End::Close)),
        "closed the connection without an answer",
    ),
    (
        "reset",
        |hub| hub.on(CDN, "/", Fault::Close(End::Reset)),
        "closed the connection without an answer",
    ),
    (
        "end within the header",
        |hub| hub.on(CDN, "/", Fault::Shape(Shape::CutHead(20, End::Close))),
        "closed the connection without an answer",
    ),
    ("no answer", |hub| hub.on(CDN, "/", Fault::Stall), "timed out"),
    (
        "half a header",
        |hub| {
            let steps = vec![Step::send("HTTP/1.1 200 OK\r\nContent-"), Step::Stall];
            hub.on(CDN, "/", Fault::Answer(Reply::Raw(steps)));
        },
        "timed out",
    ),
    (
        "invalid header",
        |hub| hub.on(CDN, "/", Fault::raw("HTTP/1.1 200 OK\r\nno colon\r\n\r\n")),
        "sent an invalid header",
    ),
    (
        "header larger than the buffer",
        |hub| {
            let line = "x".repeat(20_000);
            hub.on(CDN, "/", Fault::raw(format!("HTTP/1.1 200 OK\r\nX: {line}\r\n\r\n")));
        },
        "sent an invalid header",
    ),
];

fn fails(&(name, befall, reason): &Case) {
    let hub = start_hub();
    let nginx = mirror(&hub).http(IMPATIENT).server(&server(&hub, "")).start();
    lead(&hub, format!("https://{CDN}/x?signature=1"));
    befall(&hub);
    for method in ["GET", "HEAD"] {
        let start = Instant::now();
        let answer = request(method, &nginx.url("/v2/x")).send();
        let what = format!("{method}, {name}, {}", nginx.errors());
        assert_eq!((answer.status, answer.header("location")), (502, None), "{what}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        if method == "GET" {
            let message = message(&answer, name);
            assert!(message.starts_with(&format!("CDN {CDN}: ")), "{message}: {what}");
            assert!(message.ends_with(reason), "{message}: {what}");
            let address = hub.address(CDN).to_string();
            assert!(!message.contains(&address), "{message}: {what}");
        } else {
            assert_eq!(answer.body.len(), 0, "{what}");
        }
    }
}

#[test]
fn a_failing_cdn_is_named_with_the_reason_and_the_client_is_not_sent_there() {
    // Most of the time is spent waiting.
    std::thread::scope(|scope| {
        for cases in FAILURES.chunks(4) {
            scope.spawn(|| cases.iter().for_each(fails));
        }
    });
}

#[test]
fn a_server_that_speaks_no_http_is_not_relayed() {
    let hub = start_hub();
    let address = hub.address(CDN);
    let nginx = mirror(&hub)
        .server(&format!(
            "{} location / {{ proxy_pass http://{}; }}",
            follow(&hub, ""),
            hub.address(REGISTRY)
        ))
        .start();
    for (name, banner) in [
        ("SSH", "SSH-2.0-OpenSSH_9.2p1\r\n"),
        ("SMTP", "220 mail.example ESMTP\r\n"),
        ("Redis", "-ERR unknown command\r\n"),
        ("HTML of HTTP/0.9", "<html>secret</html>\n"),
    ] {
        lead(&hub, format!("http://{address}/x"));
        hub.off(CDN);
        hub.on(CDN, "/", Fault::raw(banner));
        let answer = get(&nginx.url("/v2/x")).try_send();
        let answer = answer.unwrap_or_else(|error| panic!("{name}: {error}: {}", nginx.errors()));
        assert_eq!(answer.status, 502, "{name}: {}", answer.text());
        let message = message(&answer, name);
        assert!(message.starts_with(&format!("CDN {address}")), "{name}: {message}");

        hub.off(REGISTRY);
        hub.on(REGISTRY, "/", Fault::raw(banner));
        let answer = get(&nginx.url("/v2/x")).try_send();
        let answer = answer.unwrap_or_else(|error| panic!("{name}, registry: {error}"));
        assert_eq!(answer.status, 502, "{name}, registry: {}", answer.text());
    }
}

#[test]
fn errors_of_the_cdn_reach_the_client() {
    let hub = start_hub();
    let (blob, _) = blob_of(&hub, 10);
    let nginx = start(&hub, "");
    for status in [400, 403, 404, 410, 416, 429, 500, 502, 503, 504] {
        hub.off(CLOUDFLARE);
        let answer = Response::text(status, "from the CDN").header("Retry-After", "7");
        hub.on(CLOUDFLARE, "/", Fault::Answer(answer.into()));
        let answer = get(&nginx.url(&blob)).send();
        assert_eq!((answer.status, answer.text().as_str()), (status, "from the CDN"));
        assert_eq!(answer.header("retry-after"), Some("7"), "{status}");
        assert_eq!(answer.header("x-origin"), Some(CLOUDFLARE), "{status}");
    }
    hub.off(CLOUDFLARE);
    lead(&hub, format!("https://{CLOUDFLARE}/registry-v2/x"));
    let answer = get(&nginx.url(&blob)).send();
    assert_eq!(answer.status, 404);
    let message = format!("CDN {CLOUDFLARE}: 404 Not Found");
    assert_eq!(answer.json()["errors"][0]["message"], message.as_str(), "instead of XML");
}

#[test]
fn an_error_page_of_the_location_takes_the_place_of_the_error() {
    let hub = start_hub();
    let page = "error_page 502 /sorry; location = /sorry { internal; return 503 sorry; }";
    let nginx = mirror(&hub).server(&format!("{page} {}", server(&hub, ""))).start();
    for location in [format!("https://{CDN}/x"), format!("http://{CDN}/x"), "file:///".to_owned()] {
        hub.refuse(CDN);
        lead(&hub, &location);
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!((answer.status, answer.text().as_str()), (502, "sorry"), "{location}");
        hub.accept(CDN);
    }
}

#[test]
fn verify_off_takes_any_certificate() {
    let hub = start_hub();
    let nginx = start(&hub, "verify=off");
    lead(&hub, format!("https://{CDN}/x"));
    for certificate in [Certificate::WrongName, Certificate::UnknownAuthority, Certificate::Expired]
    {
        hub.certificate(CDN, certificate);
        hub.disconnect(CDN);
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(answer.status, 200, "{certificate:?}: {}", nginx.errors());
    }
    lead(&hub, format!("https://{}/x", hub.address(CDN)));
    assert_eq!(get(&nginx.url("/v2/x")).send().status, 200, "an address has a name in no case");
}

/// A blob whose body ends too early, by each way to end.
#[test]
fn a_cut_body_is_no_complete_answer() {
    let hub = start_hub();
    let (blob, bytes) = blob_of(&hub, 200_000);
    let own = server(&hub, "");
    let nginx = mirror(&hub)
        .http("proxy_read_timeout 1s;")
        .server(&own)
        .server(&format!("proxy_buffering off; {own}"))
        .tls_server(&own)
        .start();
    let cases = [
        ("closed", Shape::CutBody(100_000, End::Close)),
        ("cut without a goodbye", Shape::CutBody(100_000, End::Truncate)),
        ("reset", Shape::CutBody(100_000, End::Reset)),
        ("stalled", Shape::StallBody(100_000)),
        ("nothing but the header", Shape::CutBody(0, End::Close)),
        ("one byte short", Shape::CutBody(199_999, End::Close)),
    ];
    for (name, shape) in cases {
        for chunked in [false, true] {
            hub.off(CLOUDFLARE);
            let response =
                Response::new(200).body(&bytes).header("Content-Type", "application/octet-stream");
            let response = if chunked { response.chunked(10_000) } else { response };
            hub.on(CLOUDFLARE, "/", Fault::Answer(response.shape(shape.clone()).into()));
            for (server, request) in [
                ("buffered", get(&nginx.url_of(0, &blob))),
                ("unbuffered", get(&nginx.url_of(1, &blob))),
                ("HTTP/2", get(&nginx.url_of(2, &blob)).ca(nginx.ca_file()).http2()),
            ] {
                let name = format!("{name}, chunked: {chunked}, {server}");
                // Without a byte of the body, nginx may end the connection instead.
                let Ok(answer) = request.try_send() else { continue };
                assert_eq!(answer.status, 200, "{name}");
                assert!(!answer.complete, "{name}: {:?}", answer.framing);
                assert!(answer.framing != Framing::Close, "{name}");
                assert!(answer.body.len() < bytes.len(), "{name}");
                assert!(bytes.starts_with(&answer.body), "{name}");
            }
        }
    }
    hub.off(CLOUDFLARE);
    let whole = get(&nginx.url(&blob)).send();
    assert!(whole.complete && whole.body == bytes);
}
