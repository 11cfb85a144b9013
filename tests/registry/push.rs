//! `docker_push`: uploads through the mirror.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;

use rules::digest::Digest;
use support::{Connection, DockerRegistry, Fault, Island, Nginx, Response, get, noise, request};

use crate::{DECLARED, GHCR, LOCATIONS, echo_all, http_conf, hub, mirror};

#[test]
fn without_it_nothing_is_written() {
    let hub = hub();
    echo_all(&hub);
    let nginx = mirror(&hub, "").start();
    let rows = [
        ("POST", "/v2/ghcr.io/a/blobs/uploads/"),
        ("PATCH", "/v2/ghcr.io/a/blobs/uploads/x"),
        ("PUT", "/v2/a/b/manifests/latest"),
        ("DELETE", "/v2/a/b/manifests/latest?ns=ghcr.io"),
    ];
    for (method, uri) in rows {
        let answer = request(method, &nginx.url(uri)).body(noise(1, 200_000)).send();
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
        assert!(answer.text().contains(r#""code":"UNSUPPORTED""#), "{method}: {}", answer.text());
    }
    for (host, _) in hub.hosts() {
        assert_eq!(hub.counts(&host).requests, 0, "{host}");
    }
}

#[test]
fn an_upload_goes_on_where_the_registry_says() {
    let hub = hub();
    let nginx = mirror(&hub, "docker_push on;").start();
    let rows = [
        (
            "relative",
            "/v2/a/b/blobs/uploads/1?_state=x%2Fy",
            "/v2/a/b/blobs/uploads/1?_state=x%2Fy",
        ),
        ("absolute", "https://ghcr.io/v2/a/b/blobs/uploads/1", "/v2/a/b/blobs/uploads/1"),
        (
            "by another name of its",
            "http://internal:5000/v2/a/b/blobs/uploads/1?s=t",
            "/v2/a/b/blobs/uploads/1?s=t",
        ),
        ("elsewhere on it", "/artifacts-uploads/x/y?z", "/artifacts-uploads/x/y?z"),
    ];
    for (name, location, own) in rows {
        hub.off(GHCR);
        let begun = Response::new(202)
            .header("Location", location)
            .header("Range", "0-0")
            .header("OCI-Chunk-Min-Length", "1048576");
        hub.on(GHCR, "/v2/a/b/blobs/uploads/", Fault::Answer(begun.into()));
        let start = "/v2/ghcr.io/a/b/blobs/uploads/?mount=sha256:0&from=ghcr.io%2Fc";
        let begun = request("POST", &nginx.url(start)).body("").send();
        assert_eq!(begun.status, 202, "{name}");
        assert_eq!(begun.header("oci-chunk-min-length"), Some("1048576"), "{name}");
        assert_eq!(hub.last_request(GHCR).uri, "/v2/a/b/blobs/uploads/?mount=sha256:0&from=c");
        let next = begun.header("location").expect("a location").to_owned();
        assert!(next.starts_with("/v2/ghcr.io/a/b/blobs/uploads/"), "{name}: {next}");

        hub.on(GHCR, "/", Fault::Answer(Response::new(204).into()));
        let patch = request("PATCH", &nginx.url(&next))
            .header("Content-Range", "0-9")
            .body("0123456789")
            .send();
        assert_eq!(patch.status, 204, "{name}");
        let sent = hub.last_request(GHCR);
        assert_eq!((sent.uri.as_str(), sent.body.as_slice()), (own, b"0123456789".as_slice()));
        assert_eq!(sent.header("content-range"), Some("0-9"), "{name}");

        let put = request("PUT", &nginx.url(&format!("{next}?digest=sha256:0"))).body("").send();
        assert_eq!(put.status, 204, "{name}");
        let separator = if own.contains('?') { '&' } else { '?' };
        let want = format!("{own}{separator}digest=sha256:0");
        assert_eq!(hub.last_request(GHCR).uri, want, "{name}");
    }
}

#[test]
fn an_upload_that_nobody_began_is_unknown() {
    let hub = hub();
    hub.on(GHCR, "/", Fault::Answer(Response::new(202).header("Location", "/x").into()));
    let nginx = mirror(&hub, "docker_push on;").start();
    let begun = request("POST", &nginx.url("/v2/ghcr.io/a/blobs/uploads/")).body("").send();
    let location = begun.header("location").unwrap().to_owned();
    let before = hub.counts(GHCR).requests;
    let rows = [
        ("made up", "/v2/ghcr.io/a/blobs/uploads/1".to_owned()),
        ("altered", format!("{location}A")),
        ("another registry's", location.replace("/ghcr.io/", "/quay.io/")),
        ("as a token", location.replace("/v2/ghcr.io/a/blobs/uploads/", "/token/")),
    ];
    for (name, uri) in rows {
        let answer = request("PATCH", &nginx.url(&uri)).body("x").send();
        let want = if name == "as a token" { 400 } else { 404 };
        assert_eq!(answer.status, want, "{name}: {}", answer.text());
    }
    assert_eq!(hub.counts(GHCR).requests, before);
}

#[test]
fn answers_lead_back_by_the_name_that_the_client_knows() {
    let hub = hub();
    let nginx = mirror(&hub, "docker_push on;").start();
    let made = Response::new(201).header("Location", "https://ghcr.io/v2/a/manifests/sha256:0");
    hub.on(GHCR, "/v2/a/manifests/", Fault::Answer(made.into()));
    let made = request("PUT", &nginx.url("/v2/ghcr.io/a/manifests/1")).body("{}").send();
    assert_eq!(made.header("location"), Some("/v2/ghcr.io/a/manifests/sha256:0"));
    let made = request("PUT", &nginx.url("/v2/a/manifests/1?ns=ghcr.io")).body("{}").send();
    assert_eq!(made.header("location"), Some("/v2/a/manifests/sha256:0?ns=ghcr.io"));

    let tags =
        Response::text(200, "{}").header("Link", "</v2/a/tags/list?n=1&last=x>; rel=\"next\"");
    hub.on(GHCR, "/v2/a/tags/", Fault::Answer(tags.into()));
    let tags = get(&nginx.url("/v2/ghcr.io/a/tags/list?n=1")).send();
    let want = "</v2/ghcr.io/a/tags/list?n=1&last=x>; rel=\"next\"";
    assert_eq!(tags.header("link"), Some(want));

    let page = Response::text(200, "{}")
        .header("Link", "<https://ghcr.io/v2/_catalog?n=1&last=x>; rel=\"next\"");
    hub.on(GHCR, "/v2/_catalog", Fault::Answer(page.into()));
    let page = get(&nginx.url("/v2/_catalog?n=1&ns=ghcr.io")).send();
    let want = "</v2/_catalog?n=1&last=x&ns=ghcr.io>; rel=\"next\"";
    assert_eq!(page.header("link"), Some(want));

    let elsewhere = Response::new(201).header("Location", "https://elsewhere.example/v2/a/x");
    hub.on(GHCR, "/v2/b/manifests/", Fault::Answer(elsewhere.into()));
    let elsewhere = request("PUT", &nginx.url("/v2/ghcr.io/b/manifests/1")).body("{}").send();
    assert_eq!(elsewhere.header("location"), Some("https://elsewhere.example/v2/a/x"));
}

#[test]
fn what_is_there_can_be_deleted() {
    let hub = hub();
    echo_all(&hub);
    let nginx = mirror(&hub, "docker_push on;").start();
    for (uri, want) in [
        ("/v2/ghcr.io/a/manifests/sha256:0", "/v2/a/manifests/sha256:0"),
        ("/v2/a/blobs/sha256:0?ns=ghcr.io", "/v2/a/blobs/sha256:0"),
    ] {
        let answer = request("DELETE", &nginx.url(uri)).send();
        assert_eq!(answer.text(), format!("{GHCR} {GHCR} DELETE {want}"), "{uri}");
    }
}

#[test]
fn a_large_body_streams() {
    const PIECE: usize = 1 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let registry = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = 0;
        let mut buffer = vec![0; 65_536];
        while received < 2 * PIECE {
            received += stream.read(&mut buffer).unwrap();
            sender.send(received).unwrap();
        }
        stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").unwrap();
        received
    });
    let nginx = Nginx::builder()
        .server(&format!(
            "docker_registry own.example http://{address} default;
             docker_push on;
             proxy_http_version 1.1;
             proxy_request_buffering off;
             client_max_body_size 0;
             {LOCATIONS}"
        ))
        .start();
    let url = nginx.url("/v2/a/manifests/1");
    let mut connection = Connection::open(&get(&url)).unwrap();
    let head = format!(
        "PUT /v2/a/manifests/1 HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n",
        2 * PIECE
    );
    connection.write(head.as_bytes()).unwrap();
    connection.write(&vec![b'x'; PIECE]).unwrap();
    // The registry has most of the first half while the second is not sent.
    support::wait_for("half a body at the registry", || {
        receiver.try_iter().any(|received| received > PIECE - 100_000)
    });
    connection.write(&vec![b'x'; PIECE]).unwrap();
    assert_eq!(connection.answer("PUT").unwrap().status, 202);
    assert!(registry.join().unwrap() >= 2 * PIECE);
}

#[test]
fn a_real_registry_takes_what_is_pushed_in_chunks() {
    let hub = hub();
    let island = Island::new("");
    let storage = PathBuf::from(island.path("registry"));
    let registry = DockerRegistry::start(&storage, None);
    let nginx = Nginx::builder()
        .http(&http_conf(&hub))
        .server(&format!(
            "{DECLARED}
             docker_registry own.example http://{};
             docker_push on;
             client_max_body_size 0;
             {LOCATIONS}",
            registry.address()
        ))
        .start();
    let blob = noise(7, 300_000);
    let digest = Digest::of(&blob).to_string();
    let begun = request("POST", &nginx.url("/v2/own.example/x/y/blobs/uploads/")).body("").send();
    assert_eq!(begun.status, 202, "{}", begun.text());
    let mut next = begun.header("location").unwrap().to_owned();
    for (number, chunk) in blob.chunks(100_000).enumerate() {
        let first = number * 100_000;
        let patched = request("PATCH", &nginx.url(&next))
            .header("Content-Type", "application/octet-stream")
            .header("Content-Range", format!("{first}-{}", first + chunk.len() - 1))
            .body(chunk)
            .send();
        assert_eq!(patched.status, 202, "{}", patched.text());
        let range = format!("0-{}", first + chunk.len() - 1);
        assert_eq!(patched.header("range"), Some(range.as_str()));
        next = patched.header("location").unwrap().to_owned();
    }
    let asked = get(&nginx.url(&next)).send();
    assert_eq!((asked.status, asked.header("range")), (204, Some("0-299999")));
    let separator = if next.contains('?') { '&' } else { '?' };
    let done =
        request("PUT", &nginx.url(&format!("{next}{separator}digest={digest}"))).body("").send();
    assert_eq!(done.status, 201, "{}", done.text());
    let location = format!("/v2/own.example/x/y/blobs/{digest}");
    assert_eq!(done.header("location"), Some(location.as_str()));
    assert_eq!(get(&nginx.url(&location)).send().body, blob);

    let mount = format!("/v2/own.example/z/blobs/uploads/?mount={digest}&from=own.example%2Fx%2Fy");
    let mounted = request("POST", &nginx.url(&mount)).body("").send();
    assert_eq!(mounted.status, 201, "{}", mounted.text());
    let location = mounted.header("location").unwrap();
    assert_eq!(get(&nginx.url(location)).send().body, blob);
}
