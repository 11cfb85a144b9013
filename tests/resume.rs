//! `docker_resume`: a download that breaks off is finished from where it stopped.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{
    Answer, CLOUDFLARE, CLOUDFRONT, Connection, End, Fault, Hub, Kind, Nginx, NginxBuilder,
    REGISTRY, Reply, Request, Response, Shape, get, head, noise, wait_for,
};

const MB: usize = 1 << 20;
const FALLBACK: &str = "fallback.example";

const BUFFERED: &str = "proxy_buffering on;";
const UNBUFFERED: &str = "proxy_buffering off; proxy_buffer_size 64k; proxy_buffers 4 64k;";

/// A hub without authentication, with a blob, and the blob's path.
fn hub(size: usize) -> (Hub, String, Vec<u8>) {
    let hub = Hub::start();
    hub.authentication(false);
    hub.add_host_as(FALLBACK, Kind::Mirror);
    let blob = noise(7, size);
    let digest = hub.add_blob(blob.clone());
    (hub, format!("/v2/library/x/blobs/{digest}"), blob)
}

/// An nginx before the hub. What nginx itself says of a cut is no surprise here.
fn mirror(hub: &Hub) -> NginxBuilder {
    let private = hub.network();
    Nginx::builder().http(&hub.http_conf()).http(&format!(
        "log_format resumes '$status $body_bytes_sent $docker_resumes $docker_origin_host';
         proxy_connect_timeout 20s;
         docker_follow_redirect on private={private};"
    ))
}

fn location(directives: &str) -> String {
    format!(
        "access_log %prefix%/access.log resumes;
         location / {{ {directives} proxy_pass https://{REGISTRY}; }}"
    )
}

fn start(hub: &Hub, directives: &str) -> Nginx {
    mirror(hub).server(&location(directives)).start()
}

/// The next GETs of `host` are answered so, those behind them normally.
fn answers(hub: &Hub, host: &str, replies: impl IntoIterator<Item = Reply>) {
    let left: Mutex<VecDeque<Reply>> = Mutex::new(replies.into_iter().collect());
    hub.off(host);
    hub.route(host, move |request| match request.method.as_str() {
        "GET" => left.lock().unwrap().pop_front().unwrap_or(Reply::Normal),
        _ => Reply::Normal,
    });
}

fn cut(after: usize) -> Reply {
    Reply::Shaped(Shape::CutBody(after, End::Close))
}

#[track_caller]
fn assert_whole(answer: &Answer, blob: &[u8], name: &str) {
    assert!(answer.complete, "{name}: {} bytes, {:?}", answer.body.len(), answer.problem);
    assert!(answer.body == blob, "{name}: {} bytes, of other content", answer.body.len());
}

/// What the client got is the beginning of the blob, and known to be no more.
#[track_caller]
fn assert_cut(answer: &Answer, blob: &[u8], length: usize, name: &str) {
    assert!(!answer.complete, "{name}: complete with {} bytes", answer.body.len());
    assert_eq!(answer.body.len(), length, "{name}");
    assert!(blob.starts_with(&answer.body), "{name}: other content");
}

#[test]
fn a_download_that_breaks_off_is_finished() {
    let (hub, path, blob) = hub(2 * MB);
    const QUARTER: usize = MB / 4;
    let shapes = [
        ("closed", Shape::CutBody(QUARTER, End::Close)),
        ("truncated", Shape::CutBody(QUARTER, End::Truncate)),
        ("reset", Shape::CutBody(QUARTER, End::Reset)),
        ("stalled", Shape::StallBody(QUARTER)),
    ];
    for settings in [BUFFERED, UNBUFFERED] {
        let directives = format!("docker_resume on stall={}ms; {settings}", Nginx::time(100));
        let nginx =
            mirror(&hub).h2c_server(&location(&directives)).server(&location(&directives)).start();
        let url = [nginx.url_of(1, &path), nginx.url_of(0, &path)];
        for (how, shape) in &shapes {
            for request in [get(&url[0]), get(&url[1]).http2()] {
                let name = format!("{how}, {settings} {request:?}");
                answers(&hub, CLOUDFLARE, vec![Reply::Shaped(shape.clone()); 4]);

                let answer = request.send();

                assert_eq!(answer.status, 200, "{name}");
                assert_whole(&answer, &blob, &name);
            }
        }
    }
}

#[test]
fn without_the_directive_a_cut_reaches_the_client() {
    let (hub, path, blob) = hub(MB);
    for (name, directives) in [
        ("none", ""),
        ("off", "docker_resume off;"),
        ("off over the server's", "docker_resume off; "),
    ] {
        let server = if name == "none" { "" } else { "docker_resume on;" };
        let nginx = mirror(&hub).http(server).server(&location(directives)).start();
        answers(&hub, CLOUDFLARE, [cut(1000)]);

        assert_cut(&get(&nginx.url(&path)).send(), &blob, 1000, name);

        assert_eq!(hub.counts(CLOUDFLARE).requests, 1, "{name}");
        hub.forget();
    }
}

#[test]
fn each_resume_is_told_and_counted() {
    let (hub, path, blob) = hub(MB);
    let nginx = start(&hub, "docker_resume on;");
    answers(&hub, CLOUDFLARE, [cut(1000), cut(500_000)]);

    assert_whole(&get(&nginx.url(&path)).send(), &blob, "two cuts");

    wait_for("the access log", || nginx.accesses().contains('\n'));
    assert_eq!(nginx.accesses(), format!("200 {MB} 2 {CLOUDFLARE}\n"));
    for position in [1000, 501_000] {
        let line = nginx.wait_for_log(&format!("download broke off after {position} of"));
        let want = format!(
            "download broke off after {position} of {MB} bytes, CDN {CLOUDFLARE}: closed the \
             connection, asking CDN {CLOUDFLARE} for the rest"
        );
        assert!(line.contains("[warn]") && line.contains(&want), "{line}");
    }
    let requests = hub.requests(CLOUDFLARE);
    let ranges: Vec<_> = requests.iter().map(|request| request.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=1000-"), Some("bytes=501000-")]);
    let etag = path.rsplit('/').next().map(|digest| format!("\"{digest}\""));
    assert_eq!(requests[2].header("if-range"), etag.as_deref());
    assert_eq!(requests[0].uri, requests[2].uri, "the same signature");
    assert!(!nginx.errors().contains("Signature"), "no signature in the log");
}

#[test]
fn the_client_connection_serves_another_request() {
    let (hub, path, blob) = hub(MB);
    let nginx = start(&hub, "docker_resume on;");
    let request = get(&nginx.url(&path));
    let mut client = Connection::open(&request).unwrap();
    for name in ["first", "second", "third"] {
        answers(&hub, CLOUDFLARE, [cut(100_000), cut(100_000)]);
        assert_whole(&client.send(&request).unwrap(), &blob, name);
    }
}

#[test]
fn what_is_not_exactly_the_rest_is_not_taken() {
    let (hub, path, blob) = hub(100_000);
    let nginx = start(&hub, "docker_resume on tries=1;");
    let rest = |range: &str| Response::new(206).header("Content-Range", range).body(&blob[1000..]);
    let right = "bytes 1000-99999/100000";
    let rows: [(&str, Reply, &str); 16] = [
        ("the whole", Response::new(200).body(&blob).into(), "answered 200"),
        (
            "no status 206",
            Response::new(200).header("Content-Range", right).body(&blob[1000..]).into(),
            "answered 200",
        ),
        ("nothing", Response::new(204).into(), "answered 204"),
        ("forbidden", Fault::Status(403).reply(), "answered 403"),
        ("unsatisfied", Fault::Status(416).reply(), "answered 416"),
        ("failed", Fault::Status(500).reply(), "answered 500"),
        ("no range", Response::new(206).body(&blob[1000..]).into(), "sent another range"),
        ("too early", rest("bytes 999-99998/100000").into(), "sent another range"),
        ("too late", rest("bytes 1001-100000/100001").into(), "sent another range"),
        ("another total", rest("bytes 1000-99999/100001").into(), "sent another range"),
        ("unknown total", rest("bytes 1000-99999/*").into(), "sent another range"),
        (
            "too short",
            Response::new(206)
                .header("Content-Range", "bytes 1000-1999/100000")
                .body(&blob[1000..2000])
                .into(),
            "sent another range",
        ),
        (
            "another length",
            Response::new(206).header("Content-Range", right).body(&blob[999..]).into(),
            "sent another length",
        ),
        ("another tag", rest(right).header("ETag", "\"other\"").into(), "sent another entity tag"),
        (
            "encoded",
            rest(right).header("Content-Encoding", "gzip").into(),
            "sent an encoded answer",
        ),
        ("twice", rest(right).header("Content-Range", right).into(), "sent a header line twice"),
    ];

    for (name, reply, reason) in rows {
        answers(&hub, CLOUDFLARE, [cut(1000), reply]);
        let before = nginx.errors().len();

        let answer = get(&nginx.url(&path)).send();

        assert_cut(&answer, &blob, 1000, name);
        let broke_off = "download broke off after 1000 of 100000 bytes";
        let want = format!("{broke_off}, CDN {CLOUDFLARE}: {reason} while ");
        wait_for(&format!("{name}: {want}"), || nginx.errors()[before..].contains(&want));
    }
}

#[test]
fn the_rest_may_come_in_chunks_and_no_longer_than_it_is() {
    let (hub, path, blob) = hub(100_000);
    let nginx = start(&hub, "docker_resume on tries=1;");
    let rest = |range: std::ops::Range<usize>| -> Reply {
        Response::new(206)
            .header("Content-Range", "bytes 1000-99999/100000")
            .body(&blob[range])
            .chunked(7000)
            .into()
    };
    answers(&hub, CLOUDFLARE, [cut(1000), rest(1000..100_000)]);
    assert_whole(&get(&nginx.url(&path)).send(), &blob, "in chunks");

    answers(&hub, CLOUDFLARE, [cut(1000), rest(1000..50_000)]);
    let answer = get(&nginx.url(&path)).send();
    assert!(!answer.complete && answer.body.len() <= 50_000, "too short");

    answers(&hub, CLOUDFLARE, [cut(1000), rest(0..100_000)]);
    let answer = get(&nginx.url(&path)).send();
    assert!(!answer.complete && answer.body.len() < 100_000, "too long");
    nginx.wait_for_log(&format!("{CLOUDFLARE}: sent more than the rest of a download"));
}

#[test]
fn an_expired_signature_is_renewed_by_the_registry() {
    let (hub, path, blob) = hub(MB);
    let nginx = start(&hub, "docker_resume on;");
    let digest = path.rsplit('/').next().unwrap();
    let other = format!("https://{CLOUDFRONT}{}", hub.signed(CLOUDFRONT, "GET", digest));
    answers(&hub, REGISTRY, [Reply::Normal, Reply::redirect(307, &other)]);
    answers(&hub, CLOUDFLARE, [cut(1000), Fault::Status(403).reply()]);
    // Who sends now is asked first.
    answers(&hub, CLOUDFRONT, [cut(1000)]);

    let answer = get(&nginx.url(&path)).header("Authorization", "Bearer secret").send();

    assert_whole(&answer, &blob, "renewed");
    assert_eq!(hub.counts(REGISTRY).requests, 2);
    let again = hub.last_request(REGISTRY);
    assert_eq!(again.header("authorization"), Some("Bearer secret"));
    let ranges: Vec<_> =
        hub.requests(CLOUDFRONT).iter().map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [Some("bytes=1000-".to_owned()), Some("bytes=2000-".to_owned())]);
    assert!(hub.requests(CLOUDFRONT).iter().all(|r| r.header("authorization").is_none()));
    wait_for("the access log", || nginx.accesses().contains('\n'));
    assert_eq!(nginx.accesses(), format!("200 {MB} 2 {CLOUDFRONT}\n"));
    nginx.wait_for_log(&format!(
        "after 1000 of {MB} bytes, CDN {CLOUDFLARE}: answered 403, asking registry {REGISTRY} for the rest"
    ));
}

#[test]
fn a_cdn_that_is_gone_is_replaced_by_the_registry() {
    let (hub, path, blob) = hub(MB);
    let nginx = start(&hub, "docker_resume on;");
    answers(&hub, CLOUDFLARE, [Reply::Shaped(Shape::StallBody(1000))]);
    let request = get(&nginx.url(&path));
    std::thread::scope(|scope| {
        let download = scope.spawn(|| request.send());
        wait_for("the download", || hub.counts(CLOUDFLARE).requests == 1);
        hub.use_cdn(CLOUDFRONT);
        hub.refuse(CLOUDFLARE);
        assert_whole(&download.join().unwrap(), &blob, "replaced");
    });
    assert_eq!((hub.counts(REGISTRY).requests, hub.counts(CLOUDFRONT).requests), (2, 1));
    nginx.wait_for_log(&format!(
        "CDN {CLOUDFLARE}: could not be connected, asking registry {REGISTRY} for the rest"
    ));
}

#[test]
fn the_connection_of_a_refusal_serves_the_rest() {
    let (hub, path, blob) = hub(MB);
    for settings in [BUFFERED, UNBUFFERED] {
        hub.forget();
        let nginx = start(&hub, &format!("docker_resume on; {settings}"));
        answers(&hub, CLOUDFLARE, [cut(1000), Fault::Status(403).reply()]);

        assert_whole(&get(&nginx.url(&path)).send(), &blob, settings);

        let counts = hub.counts(CLOUDFLARE);
        assert_eq!((counts.requests, counts.connections), (3, 2), "{settings}");
    }
}

#[test]
fn where_nobody_answers_the_fallback_is_asked() {
    let (hub, path, blob) = hub(MB);
    let nginx = start(
        &hub,
        &format!(
            "docker_resume on; docker_fallback https://{FALLBACK}; docker_fallback_on http_499;"
        ),
    );
    answers(&hub, REGISTRY, [Reply::Normal, Fault::Status(404).reply()]);
    answers(&hub, CLOUDFLARE, [cut(1000), Fault::Close(End::Close).reply()]);

    let answer = get(&nginx.url(&path)).header("Authorization", "Bearer secret").send();

    assert_whole(&answer, &blob, "by the fallback");
    let request = hub.last_request(FALLBACK);
    assert_eq!(request.header("authorization"), Some("Bearer secret"));
    assert_eq!(request.header("range"), Some("bytes=1000-"));
    wait_for("the access log", || nginx.accesses().contains('\n'));
    assert_eq!(nginx.accesses(), format!("200 {MB} 1 {FALLBACK}\n"));

    // A password never falls back.
    hub.forget();
    let lost = Fault::Status(404).reply();
    answers(&hub, REGISTRY, [vec![Reply::Normal], vec![lost; 4]].concat());
    answers(&hub, CLOUDFLARE, [cut(1000), Fault::Status(403).reply()]);
    let answer = get(&nginx.url(&path)).header("Authorization", "Basic eDp5").send();
    assert_cut(&answer, &blob, 1000, "with a password");
    assert_eq!(hub.counts(FALLBACK).requests, 0);
}

/// What another registry has under an entity tag that happens to be the same.
fn rest_of_another_list() -> Response {
    Response::new(206)
        .header("ETag", "\"a\"")
        .header("Content-Range", format!("bytes 1000-{}/{MB}", MB - 1))
        .body(noise(10, MB - 1000))
}

#[test]
fn an_entity_tag_means_nothing_at_another_registry() {
    let (hub, ..) = hub(MB);
    let list = noise(9, MB);
    let path = "/v2/library/x/tags/list";
    let nginx = start(&hub, &format!("docker_resume on; docker_fallback https://{FALLBACK};"));
    let whole = Response::new(200).header("ETag", "\"a\"").body(&list);
    let answer = whole.clone().shape(Shape::CutBody(1000, End::Close));
    answers(&hub, REGISTRY, [answer.into(), Fault::Status(503).reply()]);
    hub.route(FALLBACK, |_| rest_of_another_list().into());
    assert_cut(&get(&nginx.url(path)).send(), &list, 1000, "a list of tags");
    assert_eq!(hub.counts(FALLBACK).requests, 0);

    // Nor has the registry the rest of what a fallback has begun.
    let begun = whole.shape(Shape::CutBody(1000, End::Close));
    answers(&hub, FALLBACK, [begun.into(), Fault::Status(503).reply()]);
    answers(&hub, REGISTRY, [Fault::Status(503).reply(), rest_of_another_list().into()]);
    assert_cut(&get(&nginx.url(path)).send(), &list, 1000, "of the fallback");
}

#[test]
fn an_open_breaker_leads_to_no_other_registry_for_the_rest_of_a_list() {
    let (hub, ..) = hub(MB);
    let list = noise(9, MB);
    let breaker = "docker_breaker failures=1 backoff=60s;";
    let nginx = mirror(&hub)
        .http("docker_zone docker:1m;")
        .server(&location(&format!(
            "docker_resume on tries=2; {breaker} docker_fallback https://{FALLBACK};"
        )))
        .start();
    let answer = Response::new(200).header("ETag", "\"a\"").body(&list);
    let answer = answer.shape(Shape::CutBody(1000, End::Close));
    answers(&hub, REGISTRY, [answer.into(), Fault::Status(503).reply()]);
    hub.route(FALLBACK, |_| rest_of_another_list().into());
    let path = "/v2/library/x/tags/list";
    assert_cut(&get(&nginx.url(path)).send(), &list, 1000, "a list of tags");
    assert_eq!(hub.counts(FALLBACK).requests, 0);
    nginx.wait_for_log("breaker is open");
}

#[test]
fn an_expired_token_ends_it() {
    let (hub, path, blob) = hub(MB);
    let nginx = start(&hub, &format!("docker_resume on; docker_fallback https://{FALLBACK};"));
    answers(&hub, REGISTRY, [Reply::Normal, Fault::Status(401).reply()]);
    answers(&hub, CLOUDFLARE, [cut(1000), Fault::Status(403).reply()]);

    let answer = get(&nginx.url(&path)).header("Authorization", "Bearer old").send();

    assert_cut(&answer, &blob, 1000, "401");
    nginx.wait_for_log(&format!("bytes, registry {REGISTRY}: answered 401 while "));
    assert_eq!((hub.counts(REGISTRY).requests, hub.counts(FALLBACK).requests), (2, 0));
}

#[test]
fn no_more_requests_are_made_than_tries_say() {
    let (hub, path, blob) = hub(MB);
    let nginx = start(&hub, "docker_resume on tries=3;");
    hub.route(CLOUDFLARE, |_| cut(1000));

    let answer = get(&nginx.url(&path)).send();

    assert_cut(&answer, &blob, 4000, "three tries");
    assert_eq!(hub.counts(CLOUDFLARE).requests, 4);
    wait_for("the access log", || nginx.accesses().contains('\n'));
    assert_eq!(nginx.accesses(), format!("200 4000 3 {CLOUDFLARE}\n"));
}

/// A location whose upstream sends blobs itself, without a redirect.
fn direct(hub: &Hub, directives: &str) -> String {
    format!(
        "access_log %prefix%/access.log resumes;
         location / {{
             proxy_set_header Host {FALLBACK};
             proxy_ssl_name {FALLBACK};
             {directives}
             proxy_pass https://{};
         }}",
        hub.address(FALLBACK)
    )
}

#[test]
fn an_upstream_that_does_not_redirect_is_asked_again() {
    let (hub, path, blob) = hub(MB);
    // Nothing is on that leads elsewhere.
    let nginx = Nginx::builder()
        .http(&hub.http_conf())
        .http("log_format resumes '$status $body_bytes_sent $docker_resumes $docker_origin_host';")
        .server(&direct(&hub, &format!("docker_resume on stall={}ms;", Nginx::time(100))))
        .start();
    answers(
        &hub,
        FALLBACK,
        [cut(1000), cut(1000), Reply::Shaped(Shape::StallBody(1000)), Fault::Stall.reply()],
    );

    let answer = get(&nginx.url(&path)).header("If-None-Match", "\"other\"").send();

    assert_whole(&answer, &blob, "direct");
    wait_for("the access log", || nginx.accesses().contains('\n'));
    assert_eq!(nginx.accesses(), format!("200 {MB} 3 {FALLBACK}\n"));
    let requests = hub.requests(FALLBACK);
    assert_eq!(requests[0].header("if-none-match"), Some("\"other\""));
    // What nginx had read and not passed on is read again.
    assert_eq!(requests[4].header("range"), Some("bytes=2000-"));
    assert_eq!(requests[4].header("if-none-match"), None, "a condition that was met");
}

#[test]
fn a_location_that_passes_range_by_a_variable_is_resumed() {
    let (hub, path, blob) = hub(MB);
    let lines = "proxy_set_header Range $http_range; proxy_set_header If-Range $http_if_range;";
    let nginx = mirror(&hub)
        .server(&direct(&hub, &format!("docker_resume on; {lines}")))
        .server(&location(&format!("docker_resume on; {lines}")))
        .http("log_format ranges '$http_range'; access_log %prefix%/access.log ranges;")
        .start();
    for (name, server, range, part) in [
        ("direct", 0, None, &blob[..]),
        ("direct, a part", 0, Some("bytes=5000-"), &blob[5000..]),
        ("by a redirect", 1, None, &blob[..]),
        ("by a redirect, a part", 1, Some("bytes=5000-"), &blob[5000..]),
    ] {
        answers(&hub, FALLBACK, [cut(1000), cut(1000)]);
        // The registry is asked anew, too.
        answers(&hub, CLOUDFLARE, [cut(1000), Fault::Status(403).reply(), cut(1000)]);
        let request = get(&nginx.url_of(server, &path));
        let request = range.iter().fold(request, |request, range| request.header("Range", range));
        assert_whole(&request.send(), part, name);
    }
}

#[test]
fn a_range_is_finished_where_it_ends() {
    let (hub, path, blob) = hub(MB);
    let nginx = start(&hub, "docker_resume on;");
    for (name, range, asked, part) in [
        ("within", "bytes=1000-99999", "bytes=2000-99999", &blob[1000..100_000]),
        ("to the end", "bytes=1000-", "bytes=2000-", &blob[1000..]),
        ("from the end", "bytes=-50000", "bytes=999576-", &blob[MB - 50_000..]),
    ] {
        hub.forget();
        answers(&hub, CLOUDFLARE, [cut(1000)]);

        let answer = get(&nginx.url(&path)).header("Range", range).send();

        assert_eq!(answer.status, 206, "{name}");
        assert_whole(&answer, part, name);
        let request = hub.last_request(CLOUDFLARE);
        assert_eq!(request.all("range"), [asked], "{name}");
    }
}

#[test]
fn where_it_could_not_be_exact_it_stays_out() {
    let (hub, path, blob) = hub(100_000);
    let cached = "proxy_cache a; proxy_cache_valid 200 1m;";
    let nginx = mirror(&hub)
        .log_level("debug")
        .http("proxy_cache_path %prefix%/cache keys_zone=a:1m; gzip_proxied any;")
        .server(&direct(&hub, &format!("docker_resume on; {cached}")))
        .server(&direct(&hub, "docker_resume on; proxy_store %prefix%/stored;"))
        .server(&direct(&hub, "docker_resume on; gzip on; gzip_types *;"))
        .server(&direct(&hub, "docker_resume on; sub_filter a b; sub_filter_types *;"))
        .server(&direct(
            &hub,
            "docker_resume on; proxy_force_ranges on; proxy_set_header Range '';",
        ))
        .server(&direct(&hub, "docker_resume on; slice 50k; proxy_set_header Range $slice_range;"))
        .start();
    let plain = |server: usize| get(&nginx.url_of(server, &path));
    let rows: [(&str, Request, &str); 8] = [
        ("cached", plain(0), "it is being cached or stored"),
        ("stored", plain(1), "it is being cached or stored"),
        ("gzip", plain(2).header("Accept-Encoding", "gzip"), "a filter changes it"),
        ("sub", plain(3), "a filter changes it"),
        ("a range of nginx's", plain(4).header("Range", "bytes=0-9999"), "a filter changes it"),
        ("slice", plain(5), "a filter changes it"),
        ("body", plain(0).body("x"), "it is being cached or stored"),
        ("another body", plain(4).body("x"), "the request has a body"),
    ];
    for (name, request, why) in rows {
        answers(&hub, FALLBACK, [cut(5000)]);
        let before = nginx.errors().len();

        let answer = request.send();

        assert!(!answer.complete || answer.body.len() < blob.len(), "{name}: not complete");
        let want = format!("download would not be resumed, {why}\n");
        wait_for(name, || nginx.errors()[before..].contains(&want));
        assert_eq!(nginx.errors().matches("for the rest").count(), 0, "{name}");
    }

    let encoded = Response::new(200).header("Content-Encoding", "br").body(&blob);
    let chunked = Response::new(200).body(&blob).chunked(1000);
    for (name, reply, why) in [
        ("encoded", encoded.shape(Shape::CutBody(5000, End::Close)), "sent an encoded answer"),
        ("chunked", chunked.shape(Shape::CutBody(5000, End::Close)), "sent another length"),
    ] {
        answers(&hub, FALLBACK, [reply.into()]);
        let before = nginx.errors().len();
        assert!(!plain(4).send().complete, "{name}");
        let want = format!("download would not be resumed, upstream {why}\n");
        wait_for(name, || nginx.errors()[before..].contains(&want));
    }
    assert_eq!(nginx.errors().matches("for the rest").count(), 0);
}

#[test]
fn a_slow_client_is_no_stall() {
    let (hub, path, blob) = hub(20 * MB);
    for settings in [BUFFERED, UNBUFFERED] {
        let nginx = start(
            &hub,
            &format!(
                "docker_resume on stall={}ms; {settings} proxy_max_temp_file_size 0;",
                Nginx::time(800)
            ),
        );
        answers(&hub, CLOUDFLARE, [cut(15 * MB)]);
        let request = get(&nginx.url(&path));
        let mut client = Connection::open(&request).unwrap();
        client.start(&request).unwrap();
        let head = client.head("GET").unwrap();
        assert_eq!(head.status, 200);

        let mut body = client.take(MB).unwrap();
        std::thread::sleep(Duration::from_millis(Nginx::time(2000)));
        assert_eq!(hub.counts(CLOUDFLARE).requests, 1, "{settings}: the client is to blame");
        body.extend(client.take(19 * MB).unwrap());

        assert!(body == blob, "{settings}: other content");
        assert_eq!(hub.counts(CLOUDFLARE).requests, 2, "{settings}");
        assert!(!nginx.errors().contains("timed out"), "{settings}");
        hub.forget();
    }
}

#[test]
fn a_pause_longer_than_the_client_is_given_is_none_of_the_client() {
    let (hub, path, blob) = hub(4 * MB);
    let directives = format!(
        "docker_resume on stall={}ms; send_timeout {}ms;",
        Nginx::time(900),
        Nginx::time(300)
    );
    let nginx = start(&hub, &directives);
    let pause = Duration::from_millis(Nginx::time(600));
    answers(
        &hub,
        CLOUDFLARE,
        [
            Reply::Shaped(Shape::StallBody(MB)),
            Reply::Shaped(Shape::Delay(pause)),
            Reply::Shaped(Shape::PauseBody(100, pause)),
        ],
    );

    assert_whole(&get(&nginx.url(&path)).send(), &blob, "paused");
}

#[test]
fn a_limited_rate_is_kept() {
    let (hub, path, blob) = hub(MB);
    let nginx = start(&hub, "docker_resume on; limit_rate 1m;");
    answers(&hub, CLOUDFLARE, vec![cut(100_000); 3]);
    let start = Instant::now();

    assert_whole(&get(&nginx.url(&path)).send(), &blob, "limited");

    assert!(start.elapsed() > Duration::from_millis(500), "{:?}", start.elapsed());
}

#[test]
fn a_client_that_leaves_ends_everything() {
    let (hub, path, _) = hub(MB);
    for (name, rest) in [
        ("before the rest", Fault::Stall.reply()),
        ("within the rest", Reply::Shaped(Shape::StallBody(1000))),
    ] {
        for http2 in [false, true] {
            let nginx = mirror(&hub)
                .server(&location("docker_resume on;"))
                .h2c_server(&location("docker_resume on;"))
                .start();
            answers(&hub, CLOUDFLARE, [cut(1000), rest.clone()]);
            if http2 {
                let request = get(&nginx.url_of(1, &path)).http2();
                let _ = request.abort_http2(1000, Duration::from_secs(5));
            } else {
                let request = get(&nginx.url(&path));
                let mut client = Connection::open(&request).unwrap();
                client.start(&request).unwrap();
                client.head("GET").unwrap();
                client.take(1000).unwrap();
                nginx.wait_for_log("for the rest");
                wait_for("the request for the rest", || hub.counts(CLOUDFLARE).requests == 2);
                drop(client);
            }
            wait_for(&format!("{name}: no connection to the CDN"), || {
                hub.counts(CLOUDFLARE).open == 0
            });

            hub.forget();
        }
    }
}

/// nginx 1.29.7 and later keeps connections where the configuration does not say so.
#[test]
fn a_finished_download_leaves_its_connection_as_nginx_does() {
    let (hub, path, blob) = hub(4 * MB);
    let connections = |resume: &str| {
        hub.forget();
        let location = format!("location / {{ {resume} proxy_pass http://plain; }}");
        let nginx = mirror(&hub)
            .http(&format!("upstream plain {{ server {}:80; }}", hub.address(REGISTRY)))
            .workers(1)
            .server(&location)
            .start();
        let whole = || Response::new(200).body(&blob).into();
        answers(&hub, REGISTRY, [whole(), whole(), whole()]);
        let before = hub.counts(REGISTRY).connections;
        for _ in 0..3 {
            assert_whole(&get(&nginx.url(&path)).send(), &blob, resume);
        }
        hub.counts(REGISTRY).connections - before
    };
    let without = connections("docker_resume off;");
    assert_eq!(connections("docker_resume on;"), without);
    println!("{without} connections for 3 downloads");
}

/// The same where who is asked for the rest has none.
#[test]
fn who_has_no_rest_is_left_as_nginx_leaves_it() {
    let (hub, path, blob) = hub(4 * MB);
    let nginx = mirror(&hub)
        .http(&format!("upstream plain {{ server {}:80; }}", hub.address(REGISTRY)))
        .workers(1)
        .server("location / { docker_resume on tries=1; proxy_pass http://plain; }")
        .start();
    let connections = |replies: [Reply; 2]| {
        answers(&hub, REGISTRY, replies);
        let before = hub.counts(REGISTRY).connections;
        let complete = get(&nginx.url(&path)).send().complete;
        (complete, hub.counts(REGISTRY).connections - before)
    };
    let whole = || connections([Response::new(200).body(&blob).into(), Reply::Normal]);
    whole();
    let (_, opened) = whole();

    let digest = path.rsplit('/').next().unwrap();
    let cdn = format!("https://{CLOUDFLARE}{}", hub.signed(CLOUDFLARE, "GET", digest));
    for (name, reply, finished) in [
        ("gone", Fault::Status(404).reply(), false),
        ("elsewhere", Reply::redirect(307, cdn), true),
    ] {
        // The connection of the beginning ends with it.
        let beginning = Response::new(200).body(&blob).shape(Shape::CutBody(1000, End::Close));
        assert_eq!(connections([beginning.into(), reply]), (finished, 1 + opened), "{name}");
        assert_eq!(whole(), (true, opened), "{name}");
    }
}

#[test]
fn inherited_it_acts_on_the_registry_alone() {
    let (hub, path, blob) = hub(MB);
    let page = "/page.html";
    let nginx = mirror(&hub)
        .http("docker_resume on;")
        .server(&format!(
            "{} location /own/ {{ docker_resume on; proxy_pass https://{REGISTRY}/; }}",
            location("")
        ))
        .start();
    for (name, target, finished) in [
        ("a blob", path.as_str(), true),
        ("a page", page, false),
        ("a page in a location that says so", "/own/page.html", true),
    ] {
        answers(&hub, CLOUDFLARE, [cut(1000)]);
        let whole = Response::new(200).header("ETag", "\"a\"").body(&blob);
        let rest = Response::new(206)
            .header("Content-Range", format!("bytes 1000-{}/{MB}", MB - 1))
            .header("ETag", "\"a\"")
            .body(&blob[1000..]);
        if target != path {
            answers(
                &hub,
                REGISTRY,
                [whole.shape(Shape::CutBody(1000, End::Close)).into(), rest.into()],
            );
        }
        let answer = get(&nginx.url(target)).send();
        if finished {
            assert_whole(&answer, &blob, name);
        } else {
            assert_cut(&answer, &blob, 1000, name);
        }
        hub.off(REGISTRY);
    }
}

#[test]
fn subrequests_of_others_are_left_alone() {
    let (hub, path, blob) = hub(100_000);
    let nginx = mirror(&hub)
        .log_level("debug")
        .http("docker_resume on;")
        .server(&format!(
            "{}
             location /v2/checked/ {{
                 auth_request /check;
                 mirror /copy;
                 proxy_pass https://{REGISTRY};
             }}
             location /check {{ proxy_pass https://{REGISTRY}/v2/; docker_resume on; }}
             location /copy {{ proxy_pass https://{REGISTRY}{path}; docker_resume on; }}",
            location("")
        ))
        .server(&format!(
            "{}
             location = /page {{
                 default_type text/html;
                 add_after_body {path};
                 return 200 page;
             }}",
            direct(&hub, "docker_resume on;")
        ))
        .start();
    answers(&hub, CLOUDFLARE, [cut(1000), cut(1000), cut(1000)]);
    let checked = path.replace("/v2/library/x", "/v2/checked/x");

    assert_whole(&get(&nginx.url(&checked)).send(), &blob, "with auth_request and mirror");

    // Whose answer is for the client, but not all of it.
    let before = nginx.errors().len();
    answers(&hub, FALLBACK, [cut(1000)]);
    let answer = get(&nginx.url_of(1, "/page")).send();
    assert!(answer.text().starts_with("page"));
    assert!(answer.body.len() <= 1004, "{} bytes", answer.body.len());
    let want = "download would not be resumed, it is for somebody's subrequest\n";
    wait_for(want, || nginx.errors()[before..].contains(want));
    assert!(!nginx.errors()[before..].contains("for the rest"));
}

#[test]
fn head_has_nothing_to_resume() {
    let (hub, path, _) = hub(100_000);
    let nginx = start(&hub, "docker_resume on;");
    let answer = head(&nginx.url(&path)).send();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("100000")));
}

#[test]
fn a_reload_does_not_end_downloads() {
    let (hub, path, blob) = hub(4 * MB);
    let nginx = start(&hub, "docker_resume on;");
    let pause = Duration::from_millis(150);
    let slow = Reply::Shaped(Shape::Slow(MB / 2, pause));
    answers(&hub, CLOUDFLARE, [cut(MB), slow.clone(), cut(MB), slow]);
    let request = get(&nginx.url(&path));
    std::thread::scope(|scope| {
        let download = scope.spawn(|| request.send());
        wait_for("the rest", || hub.counts(CLOUDFLARE).requests == 2);
        let old = nginx.workers();
        nginx.reload();
        assert_whole(&download.join().unwrap(), &blob, "over a reload");
        nginx.wait_until_gone(&old);
    });
}

/// How a download of the crowd breaks off, and where; always the same for the same numbers.
fn some_cut(client: usize, cut: usize, length: usize) -> Reply {
    let random =
        usize::from_le_bytes(noise((client * 10 + cut + 1) as u64, 80)[72..].try_into().unwrap());
    let after = random % length;
    Reply::Shaped(match random / length % 4 {
        0 => Shape::CutBody(after, End::Close),
        1 => Shape::CutBody(after, End::Truncate),
        2 => Shape::CutBody(after, End::Reset),
        _ => Shape::StallBody(after),
    })
}

/// Compares what comes with a blob, as it comes: all of many would not fit into memory.
struct Comparison<'b> {
    blob: &'b [u8],
    position: usize,
    is_slow: bool,
}

impl Comparison<'_> {
    fn take(&mut self, piece: &[u8]) -> Result<(), String> {
        let pauses = |position: usize| position / (self.blob.len() / 16 + 1);
        let end = self.position + piece.len();
        if self.blob.get(self.position..end) != Some(piece) {
            return Err(format!("other content behind {}", self.position));
        }
        let before = std::mem::replace(&mut self.position, end);
        if self.is_slow && pauses(before) != pauses(end) {
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// Whether the blob comes whole.
fn download(request: &Request, blob: &[u8], is_slow: bool) -> Result<(), String> {
    let mut comparison = Comparison { blob, position: 0, is_slow };
    if request.is_http2() {
        let mut result = Ok(());
        let end = request.receive_http2(|piece| {
            if result.is_ok() {
                result = comparison.take(piece);
            }
        });
        result.and(end.map_err(|error| error.to_string()))?;
    } else {
        let mut client = Connection::open(request).map_err(|error| error.to_string())?;
        client.start(request).map_err(|error| error.to_string())?;
        let head = client.head("GET").map_err(|error| error.to_string())?;
        if head.status != 200 {
            return Err(format!("status {}", head.status));
        }
        for piece in blob.chunks(64 * 1024) {
            let got = client.take(piece.len());
            let got = got.map_err(|error| format!("{error} behind {}", comparison.position))?;
            comparison.take(&got)?;
        }
    }
    let whole = comparison.position == blob.len();
    whole.then_some(()).ok_or(format!("ended behind {}", comparison.position))
}

/// Of a crowd, those whose rest nobody sends.
fn is_hopeless(client: usize) -> bool {
    client % 10 == 9
}

/// `RESUME_TEST_MB=200` makes it a test of large layers.
#[test]
fn a_crowd_gets_whole_downloads_over_reloads_and_leaves_nothing() {
    let megabytes = std::env::var("RESUME_TEST_MB").ok().and_then(|mb| mb.parse().ok());
    let (hub, path, blob) = hub(megabytes.unwrap_or(2) * MB);
    hub.record(false);
    // On a machine that is busy a silence need be no stall: there are tries enough for any number.
    let directives = |settings: &str| {
        location(&format!("docker_resume on tries=1000 stall={}ms; {settings}", Nginx::time(500)))
    };
    let nginx = mirror(&hub)
        .workers(2)
        .http("docker_keepalive off;")
        .server(&directives(BUFFERED))
        .server(&directives(UNBUFFERED))
        .h2c_server(&directives(BUFFERED))
        .h2c_server(&directives(UNBUFFERED))
        .start();
    // How often each client has asked a host.
    let seen: Arc<Mutex<HashMap<(&str, usize), usize>>> = Arc::default();
    let asks = move |host, request: &support::Recorded| {
        let client = request.header("user-agent").and_then(|client| client.parse().ok());
        let client: usize = client.unwrap_or(0);
        let mut seen = seen.lock().unwrap();
        let times = seen.entry((host, client)).or_default();
        *times += 1;
        (client, *times)
    };
    let length = blob.len();
    let registry = asks.clone();
    hub.route(REGISTRY, move |request| match registry(REGISTRY, request) {
        (client, 2..) if is_hopeless(client) => Fault::Status(401).reply(),
        _ => Reply::Normal,
    });
    hub.route(CLOUDFLARE, move |request| {
        let (client, times) = asks(CLOUDFLARE, request);
        let range = request.header("range").and_then(|range| range.strip_prefix("bytes="));
        let first = range.and_then(|range| range.strip_suffix('-')?.parse().ok()).unwrap_or(0);
        match times {
            2.. if is_hopeless(client) => Fault::Status(403).reply(),
            times if times <= 1 + client % 5 => some_cut(client, times, length - first),
            _ => Reply::Normal,
        }
    });

    let round = |first: usize, reloads: bool| {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (first..first + 50)
                .map(|number| {
                    let server = number % 4;
                    let request = get(&nginx.url_of(server, &path))
                        .header("User-Agent", number.to_string())
                        .patience(Duration::from_secs(if megabytes.is_some() { 900 } else { 120 }));
                    let request = if server < 2 { request } else { request.http2() };
                    let blob = &blob;
                    // Of every server, some clients are slow.
                    let is_slow = number / 4 % 4 == 0;
                    scope.spawn(move || (number, download(&request, blob, is_slow)))
                })
                .collect();
            for _ in 0..if reloads { 2 } else { 0 } {
                std::thread::sleep(Duration::from_millis(200));
                nginx.reload();
            }
            for client in clients {
                let (number, result) = client.join().unwrap();
                assert_eq!(result.is_err(), is_hopeless(number), "client {number}: {result:?}");
            }
        });
        wait_for("the CDN's connections to end", || hub.counts(CLOUDFLARE).open == 0);
        // As many as `keepalive` says, in each of two workers.
        assert!(hub.counts(REGISTRY).open <= 32, "{} at the registry", hub.counts(REGISTRY).open);
    };
    round(100, true);
    nginx.reload();
    round(200, false);
    // A worker whom few clients came to may have them all the next time, and grow once.
    let mut memory = nginx.memory();
    let is_steady = (3..8).any(|hundreds| {
        round(100 * hundreds, false);
        let before = std::mem::replace(&mut memory, nginx.memory());
        memory.saturating_sub(before) < 8 << 20
    });

    assert!(nginx.errors().matches("for the rest").count() > 100);
    assert!(is_steady, "{memory} bytes, and more each time");
}
