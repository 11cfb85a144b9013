//! Which registry a request goes to, and what it asks for there.

use support::{
    Connection, Dns, Fault, Kind, Nginx, REGISTRY, Response, get, head, noise, request, wait_for,
};

use crate::{DECLARED, GHCR, OWN, QUAY, echo, echo_all, http_conf, hub, mirror};

#[test]
fn a_request_goes_to_the_registry_that_it_names() {
    let hub = hub();
    echo_all(&hub);
    let nginx = mirror(&hub, "").start();
    let rows = [
        ("default", "m", "/v2/a/b/manifests/1", REGISTRY, "/v2/a/b/manifests/1"),
        ("ping", "m", "/v2/", REGISTRY, "/v2/"),
        ("namespace", "m", "/v2/a/b/manifests/1?ns=ghcr.io", GHCR, "/v2/a/b/manifests/1"),
        ("namespace's ping", "m", "/v2/?ns=ghcr.io", GHCR, "/v2/"),
        (
            "namespace among others",
            "m",
            "/v2/a/tags/list?n=5&ns=ghcr.io&last=%2Fx",
            GHCR,
            "/v2/a/tags/list?n=5&last=%2Fx",
        ),
        ("prefix", "m", "/v2/ghcr.io/a/b/blobs/sha256:0", GHCR, "/v2/a/b/blobs/sha256:0"),
        ("host", "quay.mirror.example.com:80", "/v2/a/tags/list", QUAY, "/v2/a/tags/list"),
        ("absolute host", "Quay.mirror.example.com.", "/v2/a/tags/list", QUAY, "/v2/a/tags/list"),
        (
            "prefix before host",
            "quay.mirror.example.com",
            "/v2/registry.example.com/a/tags/list",
            OWN,
            "/v2/a/tags/list",
        ),
        ("library", "m", "/v2/nginx/manifests/1", REGISTRY, "/v2/library/nginx/manifests/1"),
        (
            "library, by digest",
            "m",
            "/v2/docker.io/nginx/manifests/sha256:00",
            REGISTRY,
            "/v2/library/nginx/manifests/sha256:00",
        ),
        (
            "library, referrers",
            "m",
            "/v2/nginx/referrers/sha256:00?artifactType=a%2Fb",
            REGISTRY,
            "/v2/library/nginx/referrers/sha256:00?artifactType=a%2Fb",
        ),
        ("escape", "m", "/v2/ghcr.io/a/blobs/sha256%3A00", GHCR, "/v2/a/blobs/sha256%3A00"),
        (
            "library, named as a token server is",
            "m",
            "/v2/token/manifests/1",
            REGISTRY,
            "/v2/library/token/manifests/1",
        ),
    ];

    for (name, host, uri, registry, want) in rows {
        let answer = get(&nginx.url(uri)).header("Host", host).send();
        let want = format!("{registry} {registry} GET {want}");
        assert_eq!((answer.status, answer.text()), (200, want), "{name}");
        let namespace = answer.all("oci-namespace");
        let is_named = uri.contains("ns=");
        assert_eq!(namespace, if is_named { vec![registry] } else { vec![] }, "{name}");
    }
}

#[test]
fn what_is_not_declared_is_never_asked() {
    let hub = hub();
    hub.add_host_as("stranger.example", Kind::Blank);
    let nginx = mirror(&hub, "").start();
    let long = format!("/v2/{}/manifests/1", "a".repeat(256));
    let rows = [
        ("namespace", "/v2/a/manifests/1?ns=stranger.example", 404, "NAME_UNKNOWN"),
        ("prefix", "/v2/stranger.example/a/manifests/1", 404, "NAME_UNKNOWN"),
        ("address", "/v2/?ns=127.0.0.1:22", 404, "NAME_UNKNOWN"),
        ("no registry's path", "/v2/a/b/c", 400, "NAME_INVALID"),
        ("upper case", "/v2/A/manifests/1", 400, "NAME_INVALID"),
        ("dot segment", "/v2/a/../b/manifests/1", 400, "NAME_INVALID"),
        ("escaped dot segment", "/v2/a/%2e%2e/b/manifests/1", 400, "NAME_INVALID"),
        ("two slashes", "/v2/a//b/manifests/1", 400, "NAME_INVALID"),
        ("beyond ASCII", "/v2/%fc/manifests/1", 400, "NAME_INVALID"),
        ("beyond ASCII, as it is", "/v2/\u{fc}/manifests/1", 400, "NAME_INVALID"),
        ("NUL, by nginx itself", "/v2/a%00/manifests/1", 400, "NAME_INVALID"),
        ("no name", "/v2//manifests/1", 400, "NAME_INVALID"),
        ("too long", &long, 400, "NAME_INVALID"),
    ];

    for (name, uri, status, code) in rows {
        let answer = get(&nginx.url(uri)).send();
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{name}");
        assert!(
            answer.text().contains(&format!(r#""code":"{code}""#)),
            "{name}: {}",
            answer.text()
        );
        let bodiless = head(&nginx.url(uri)).send();
        assert_eq!((bodiless.status, bodiless.body.len()), (status, 0), "{name}");
    }
    let readable = get(&nginx.url("/v2/stranger.example/a/manifests/1")).send();
    assert!(readable.text().contains("registry stranger.example is not served by this mirror"));
    for (host, _) in hub.hosts() {
        assert_eq!(hub.counts(&host).connections, 0, "{host}");
    }
    assert_eq!(hub.queries("stranger.example"), 0);
    assert!(!nginx.errors().contains("[error]"), "{}", nginx.errors());
}

#[test]
fn another_proxy_pass_of_the_same_server_is_left_alone() {
    let hub = hub();
    echo(&hub, GHCR);
    let address = hub.address(GHCR);
    let nginx = Nginx::builder()
        .http(&http_conf(&hub))
        .server(&format!(
            "{DECLARED}
             location /v2/   {{ proxy_pass $docker_upstream; }}
             location /web/  {{ proxy_pass http://{address}; }}
             location /name/ {{
                 proxy_set_header X-Upstream $docker_upstream;
                 proxy_pass http://{address};
             }}
             location /text/ {{ return 200 text; }}
             location /auth/ {{ auth_request /check; proxy_pass http://{address}; }}
             location /check {{ proxy_pass http://{address}; }}"
        ))
        .start();

    let web = get(&nginx.url("/web/A//b?c")).send();
    assert_eq!(web.text(), format!("{GHCR} {address} GET /web/A//b?c"));
    let name = get(&nginx.url("/name/")).send();
    assert_eq!(name.text(), format!("{GHCR} {address} GET /name/"));
    assert_eq!(get(&nginx.url("/text/")).send().text(), "text");
    assert_eq!(get(&nginx.url("/auth/")).send().status, 200);
    let posted = request("POST", &nginx.url("/web/")).body("x").send();
    assert_eq!(posted.status, 200);
}

#[test]
fn connections_to_registries_are_kept_and_sessions_resumed() {
    let hub = hub();
    echo_all(&hub);
    let nginx = mirror(&hub, "").start();
    for uri in ["/v2/a/b/manifests/1", "/v2/ghcr.io/a/manifests/1", "/v2/ghcr.io/b/manifests/1"] {
        for _ in 0..5 {
            assert_eq!(get(&nginx.url(uri)).send().status, 200);
        }
    }
    assert_eq!(hub.counts(REGISTRY).connections, 1);
    assert_eq!(hub.counts(GHCR).connections, 1);
    assert_eq!(hub.counts(GHCR).requests, 10);

    hub.disconnect(GHCR);
    assert_eq!(get(&nginx.url("/v2/ghcr.io/a/manifests/1")).send().status, 200);
    let counts = hub.counts(GHCR);
    assert_eq!((counts.connections, counts.full, counts.resumed), (2, 1, 1));
}

#[test]
fn a_connection_is_for_those_who_show_the_same_certificate() {
    let hub = hub();
    echo(&hub, GHCR);
    hub.ask_client_certificate(GHCR);
    let (certificate, key) = hub.authority().issue(&["alice"]);
    let nginx = mirror(&hub, "proxy_ssl_certificate $own; proxy_ssl_certificate_key $own_key;")
        .http(&format!(
            "map $http_x_user $own     {{ alice {}; }}
             map $http_x_user $own_key {{ alice {}; }}",
            certificate.display(),
            key.display()
        ))
        .start();
    for _ in 0..2 {
        for user in ["alice", "bob"] {
            let answer = get(&nginx.url("/v2/ghcr.io/a/manifests/1")).header("X-User", user).send();
            assert_eq!(answer.status, 200, "{user}");
            assert_eq!(hub.last_request(GHCR).client_certificate, user == "alice", "{user}");
        }
    }
    assert_eq!(hub.counts(GHCR).connections, 2);
}

#[test]
fn a_registry_is_resolved_again_when_its_ttl_is_over() {
    let hub = hub();
    echo(&hub, GHCR);
    hub.resolve_for(GHCR, support::Dns::Addresses(vec![hub.address(GHCR).into()]), 1);
    let nginx = mirror(&hub, "docker_follow_redirect off;").start();
    let ask = || get(&nginx.url("/v2/ghcr.io/a/manifests/1")).send().status;
    let start = std::time::Instant::now();
    assert_eq!(ask(), 200);
    let before = hub.queries(GHCR);
    assert_eq!(ask(), 200);
    // Under valgrind a second may be over.
    let is_soon = start.elapsed() < std::time::Duration::from_millis(900);
    assert!(!is_soon || hub.queries(GHCR) == before, "cached");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(ask(), 200);
    assert!(hub.queries(GHCR) > before, "asked again");
}

#[test]
fn a_registry_that_cannot_be_resolved_is_a_bad_gateway() {
    let hub = hub();
    hub.resolve(GHCR, support::Dns::NxDomain);
    let nginx = mirror(&hub, "").start();
    assert_eq!(get(&nginx.url("/v2/ghcr.io/a/manifests/1")).send().status, 502);
    nginx.wait_for_log("ghcr.io: could not be resolved (Host not found)");
    assert_eq!(hub.counts(GHCR).connections, 0);
}

#[test]
fn every_address_of_a_registry_is_asked_once_for_what_it_does_not_have() {
    let hub = hub();
    for host in [GHCR, QUAY] {
        hub.route(host, |_| Response::text(404, "").into());
    }
    hub.resolve(GHCR, support::Dns::Addresses([GHCR, QUAY].map(|h| hub.address(h).into()).into()));
    let directives = "proxy_ssl_verify off; proxy_next_upstream http_404;";
    let nginx = mirror(&hub, directives).start();
    for round in 1..4 {
        assert_eq!(get(&nginx.url("/v2/ghcr.io/a/manifests/1")).send().status, 404);
        let asked = [GHCR, QUAY].map(|host| hub.counts(host).requests);
        assert_eq!(asked, [round; 2], "connections are new, then kept");
    }
}

#[test]
fn the_certificate_must_be_the_registrys() {
    let hub = hub();
    hub.certificate(GHCR, support::Certificate::WrongName);
    let nginx = mirror(&hub, "").start();
    assert_eq!(get(&nginx.url("/v2/ghcr.io/a/manifests/1")).send().status, 502);
    assert_eq!(hub.counts(GHCR).requests, 0);
}

#[test]
fn an_upstream_of_the_users_own_comes_first() {
    let hub = hub();
    echo_all(&hub);
    let quay = hub.address(QUAY);
    let nginx = mirror(&hub, "proxy_ssl_verify off;")
        .http(&format!("upstream ghcr.io {{ server {quay}:443; }}"))
        .start();
    let answer = get(&nginx.url("/v2/ghcr.io/a/manifests/1")).send();
    assert_eq!(answer.text(), format!("{QUAY} {GHCR} GET /v2/a/manifests/1"));
    assert_eq!(hub.queries(GHCR), 0);
}

#[test]
fn a_proxy_pass_without_variables_to_the_same_host_stays_as_it_is() {
    let hub = hub();
    echo_all(&hub);
    let quay = hub.address(QUAY);
    let nginx = Nginx::builder()
        .http(&http_conf(&hub))
        .server(&format!(
            "docker_registry own.example http://{quay}:80;
             location /v2/    {{ proxy_pass $docker_upstream; }}
             location /fixed/ {{ proxy_pass http://{quay}:80; }}"
        ))
        .start();
    let ours = get(&nginx.url("/v2/own.example/a/manifests/1")).send();
    assert_eq!(ours.text(), format!("{QUAY} {quay} GET /v2/a/manifests/1"));
    let fixed = get(&nginx.url("/fixed/")).send();
    assert_eq!(fixed.text(), format!("{QUAY} {quay} GET /fixed/"));
}

#[test]
fn redirects_of_every_registry_are_followed() {
    let hub = hub();
    let blob = hub.add_blob("a layer".as_bytes());
    let nginx =
        mirror(&hub, &format!("docker_follow_redirect on private={};", hub.network())).start();
    for prefix in ["", "ghcr.io/", "quay.io/"] {
        let answer = get(&nginx.url(&format!("/v2/{prefix}a/b/blobs/{blob}"))).send();
        assert_eq!((answer.status, answer.text().as_str()), (200, "a layer"), "{prefix}");
    }
    let named = get(&nginx.url(&format!("/v2/a/b/blobs/{blob}?ns=ghcr.io"))).send();
    assert_eq!((named.text().as_str(), named.header("oci-namespace")), ("a layer", Some(GHCR)));

    // Relative to the registry, not to what the client asked.
    hub.on(GHCR, "/v2/a/b/blobs/", Fault::redirect(302, "/artifacts-downloads/x?y"));
    hub.on(GHCR, "/artifacts-downloads/x?y", Fault::Answer(Response::text(200, "relative").into()));
    let relative = get(&nginx.url(&format!("/v2/ghcr.io/a/b/blobs/{blob}"))).send();
    assert_eq!((relative.status, relative.text().as_str()), (200, "relative"));
}

#[test]
fn the_default_registry_alone_falls_back() {
    let hub = hub();
    hub.add_host("mirror2.example.net");
    hub.add_image("a/b", "1", &[b"x"]);
    let nginx = mirror(&hub, "docker_fallback https://mirror2.example.net;").start();
    for host in [REGISTRY, GHCR] {
        hub.on(host, "/", Fault::Answer(Response::text(429, "slow down").into()));
    }
    let served = get(&nginx.url("/v2/a/b/manifests/1")).send();
    assert_eq!((served.status, served.header("x-served-by")), (200, Some("mirror2.example.net")));
    // That mirror would take it for an image of Docker Hub's.
    for uri in ["/v2/ghcr.io/a/b/manifests/1", "/v2/a/b/manifests/1?ns=ghcr.io"] {
        assert_eq!(get(&nginx.url(uri)).send().status, 429, "{uri}");
    }
    assert_eq!(hub.counts("mirror2.example.net").requests, 1);

    hub.refuse(REGISTRY);
    let served = get(&nginx.url("/v2/a/b/manifests/1")).send();
    assert_eq!((served.status, served.header("x-served-by")), (200, Some("mirror2.example.net")));
    hub.resolve(REGISTRY, support::Dns::NxDomain);
    nginx.reload();
    let served = get(&nginx.url("/v2/a/b/manifests/1")).send();
    assert_eq!((served.status, served.header("x-served-by")), (200, Some("mirror2.example.net")));
}

#[test]
fn the_log_names_the_registry() {
    let hub = hub();
    echo_all(&hub);
    let nginx = mirror(&hub, "access_log %prefix%/registry.log registry;")
        .http("log_format registry '$docker_registry $docker_upstream $proxy_host $status';")
        .start();
    let _ = get(&nginx.url("/v2/ghcr.io/a/manifests/1")).send();
    let _ = get(&nginx.url("/v2/stranger.example/a/manifests/1")).send();
    let log = nginx.prefix().join("registry.log");
    support::wait_for("two lines", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() == 2)
    });
    let text = std::fs::read_to_string(&log).unwrap();
    let want = "ghcr.io https://ghcr.io/v2/a/manifests/1 ghcr.io 200";
    assert_eq!(text.lines().next(), Some(want));
    assert!(text.lines().nth(1).unwrap().starts_with("- - "), "{text}");
}

/// nginx copies a request to go on with its content, past all phases before that.
#[test]
fn a_copy_of_a_request_asks_what_the_request_asks() {
    const DIRECT: &str = "direct.example";
    let hub = hub();
    hub.add_host_as(DIRECT, Kind::Mirror);
    let blob = noise(7, 100_000);
    let path = format!("/v2/{DIRECT}/a/b/blobs/{}", hub.add_blob(blob.clone()));
    let mirror = |directives: &str| {
        mirror(
            &hub,
            &format!(
                "docker_registry {DIRECT};
                 proxy_cache a;
                 proxy_cache_valid 200 206 1s;
                 proxy_ignore_headers Cache-Control Expires;
                 add_header X-Cache $upstream_cache_status;
                 {directives}"
            ),
        )
        .http("proxy_cache_path %prefix%/cache keys_zone=a:1m;")
        .start()
    };

    let nginx =
        mirror("slice 30k; proxy_set_header Range $slice_range; proxy_cache_key $uri$slice_range;");
    let whole = get(&nginx.url(&path)).send();
    assert!(whole.complete && whole.body == blob, "{} bytes", whole.body.len());
    assert_eq!(hub.counts(DIRECT).requests, 4);

    let nginx = mirror("proxy_cache_use_stale updating; proxy_cache_background_update on;");
    let cached = || {
        let answer = get(&nginx.url(&path)).send();
        answer.header("x-cache").unwrap_or_default().to_owned()
    };
    assert_eq!(cached(), "MISS");
    wait_for("what is old", || cached() == "STALE");
    wait_for("what is new", || cached() == "HIT");
}

#[test]
fn the_status_page_counts_what_each_registry_has_answered() {
    let hub = hub();
    echo_all(&hub);
    let directives = "docker_follow_redirect on; location = /status { docker_status; }";
    let nginx = mirror(&hub, directives).http("docker_zone docker:1m;").start();
    for path in ["/v2/a/tags/list", "/v2/ghcr.io/a/tags/list", "/v2/ghcr.io/a/manifests/1"] {
        assert_eq!(get(&nginx.url(path)).send().status, 200);
    }
    let page = || get(&nginx.url("/status")).send().text();
    wait_for("all to be counted", || page().matches("docker_requests_total{").count() == 3);
    let page = page();
    for (host, kind) in [(REGISTRY, "tags"), (GHCR, "tags"), (GHCR, "manifest")] {
        for name in ["docker_requests_total", "docker_upstream_requests_total"] {
            let sample = format!("{name}{{backend=\"https://{host}\",kind=\"{kind}\"}} 1\n");
            assert!(page.contains(&sample), "{sample}{page}");
        }
    }
}

#[test]
fn an_error_names_the_registry_that_has_answered() {
    let hub = hub();
    let page = Response::new(500).header("Content-Type", "text/html").body("<html></html>");
    hub.on(GHCR, "/", Fault::Answer(page.into()));
    hub.refuse(QUAY);
    let nginx = mirror(&hub, "").start();
    for (path, want) in [
        ("/v2/ghcr.io/a/manifests/1", "registry ghcr.io: 500 Internal Server Error"),
        ("/v2/quay.io/a/manifests/1", "registry quay.io: could not be connected"),
    ] {
        let message = get(&nginx.url(path)).send().json()["errors"][0]["message"].clone();
        assert_eq!(message, want, "{path}");
    }
}

/// nginx runs the request once more then, and the name server has not answered yet.
#[test]
fn a_post_action_of_a_client_that_left_waits_for_no_registry() {
    let hub = hub();
    hub.resolve(GHCR, Dns::Silence);
    let location = format!("location @done {{ proxy_pass http://{}; }}", hub.address(QUAY));
    let nginx = mirror(&hub, &format!("post_action @done; {location}")).start();
    let request = get(&nginx.url("/v2/ghcr.io/a/tags/list"));
    let mut client = Connection::open(&request).unwrap();
    client.start(&request).unwrap();
    wait_for("the name to be asked for", || hub.queries(GHCR) > 0);
    client.reset();
    wait_for("the post action", || hub.counts(QUAY).requests > 0);
}
