//! What goes along: to another origin nothing that says who asks.

use support::{Fault, Hub, REGISTRY, Request, get, request};

use crate::{CDN, OTHER, follow, lead, message, mirror, server, start, start_hub};

/// Names of the fields that a host received, sorted, in lower case.
fn names(hub: &Hub, host: &str) -> Vec<String> {
    let fields = hub.last_request(host).headers;
    let mut names: Vec<String> = fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort();
    names
}

/// A client that says more than a CDN should know.
fn talkative(method: &str, url: &str) -> Request {
    request(method, url)
        .bearer("secret-token")
        .header("Cookie", "session=1")
        .header("User-Agent", "docker/29.1")
        .header("Accept", "application/vnd.oci.image.index.v1+json")
        .header("Accept", "application/json")
        .header("Accept-Encoding", "identity")
        .header("Accept-Language", "en")
        .header("Range", "bytes=0-9")
        .header("If-Range", "\"tag\"")
        .header("Referer", "https://intranet.example/")
        .header("Origin", "https://intranet.example")
        .header("Forwarded", "for=192.0.2.1")
        .header("X-Custom", "1")
}

#[test]
fn another_origin_learns_nothing_about_the_client() {
    let hub = start_hub();
    let nginx = mirror(&hub)
        .server(&format!(
            "{}
             proxy_set_header Connection '';
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
             proxy_set_header X-Forwarded-Proto $scheme;
             proxy_set_header X-Real-IP $remote_addr;
             location / {{ proxy_pass https://{REGISTRY}; }}",
            follow(&hub, "")
        ))
        .start();
    let public = [
        "accept",
        "accept",
        "accept-encoding",
        "cdn-loop",
        "host",
        "if-range",
        "range",
        "user-agent",
    ];

    hub.listen(REGISTRY, 8443, true);
    let cases = [
        ("another host", format!("https://{CDN}/x"), CDN),
        ("another port", format!("https://{REGISTRY}:8443/x"), REGISTRY),
        ("a host named alike", format!("https://{OTHER}/x"), OTHER),
    ];
    for (name, location, host) in cases {
        for method in ["GET", "HEAD"] {
            hub.off(REGISTRY);
            hub.on_times(REGISTRY, "/v2/", 1, Fault::redirect(307, &location));
            let _ = talkative(method, &nginx.url("/v2/x")).send();
            assert_eq!(names(&hub, host), public, "{name}");
            let asked = hub.last_request(host);
            let accept = ["application/vnd.oci.image.index.v1+json", "application/json"];
            assert_eq!(asked.all("accept"), accept, "{name}");
            assert_eq!(asked.header("user-agent"), Some("docker/29.1"), "{name}");
            let authority = location.split('/').nth(2);
            assert_eq!(asked.header("host"), authority, "{name}");
        }
    }
}

#[test]
fn the_same_origin_gets_what_the_registry_got() {
    let hub = start_hub();
    let nginx = mirror(&hub)
        .server(&format!(
            "{}
             proxy_set_header Connection '';
             proxy_set_header X-Real-IP $remote_addr;
             proxy_set_header Accept-Language '';
             location / {{ proxy_pass https://{REGISTRY}; }}",
            follow(&hub, "")
        ))
        .start();
    let cases = [
        ("relative", "/end".to_owned()),
        ("absolute", format!("https://{REGISTRY}/end")),
        ("absolute with the port", format!("https://{REGISTRY}:443/end")),
    ];
    for (name, location) in cases {
        lead(&hub, &location);
        let _ = talkative("GET", &nginx.url("/v2/x")).send();
        let requests = hub.requests(REGISTRY);
        let [.., first, second] = &requests[..] else { panic!("two requests: {name}") };
        assert_eq!((first.line(), second.line()), ("GET /v2/x".to_owned(), "GET /end".to_owned()));
        let mut fields = [first.headers.clone(), second.headers.clone()];
        fields.iter_mut().for_each(|fields| fields.sort());
        assert_eq!(fields[0], fields[1], "{name}");
        assert_eq!(second.header("authorization"), Some("Bearer secret-token"));
        assert_eq!(second.header("cookie"), Some("session=1"));
        assert_eq!(second.header("x-real-ip"), Some("127.0.0.1"));
        assert_eq!(second.header("accept-language"), None);
    }
}

#[test]
fn credentials_do_not_come_back_over_a_foreign_origin() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/back"));
    hub.on(CDN, "/back", Fault::redirect(302, format!("https://{REGISTRY}/end")));
    let answer = talkative("GET", &nginx.url("/v2/x")).send();
    assert_eq!(answer.header("x-redirects"), Some("2"));
    let back = hub.last_request(REGISTRY);
    assert_eq!(back.line(), "GET /end");
    assert_eq!((back.header("authorization"), back.header("cookie")), (None, None));

    hub.off(CDN);
    hub.on_times(CDN, "/back", 1, Fault::redirect(302, "relative"));
    let answer = talkative("GET", &nginx.url("/v2/x")).send();
    assert_eq!(answer.text(), format!("{CDN} GET /relative\n"));
    assert_eq!(hub.last_request(CDN).header("authorization"), None);
}

#[test]
fn the_mirror_names_itself_in_cdn_loop_and_ends_a_request_that_came_by_twice() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/"));
    let _ = get(&nginx.url("/v2/x")).send();
    let id = hub.last_request(CDN).header("cdn-loop").unwrap().to_owned();
    let digits = id.strip_prefix("docker-mirror-").unwrap();
    assert!(digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");

    let _ = get(&nginx.url("/v2/x")).header("CDN-Loop", "other; a=b").send();
    let want = format!("other; a=b, {id}");
    assert_eq!(hub.last_request(CDN).header("cdn-loop"), Some(want.as_str()));

    let once = get(&nginx.url("/v2/x")).header("CDN-Loop", &id).send();
    assert_eq!(once.status, 200, "a chain of locations of one mirror is no loop");
    let before = hub.counts(CDN).requests;
    let twice = get(&nginx.url("/v2/x")).header("CDN-Loop", format!("{id}, a, {id}")).send();
    assert!(message(&twice, "twice").contains("the request runs in a loop"));
    assert_eq!(hub.counts(CDN).requests, before);
}

#[test]
fn the_id_in_cdn_loop_is_the_same_in_all_workers() {
    let hub = start_hub();
    let nginx = mirror(&hub).server(&server(&hub, "")).workers(3).start();
    lead(&hub, format!("https://{CDN}/"));
    for _ in 0..12 {
        assert_eq!(get(&nginx.url("/v2/x")).send().status, 200);
    }
    let mut ids: Vec<String> = hub
        .requests(CDN)
        .iter()
        .map(|request| request.header("cdn-loop").unwrap_or_default().to_owned())
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[test]
fn a_host_of_the_clients_choice_leads_to_no_other_server() {
    let hub = start_hub();
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_follow_redirect on allow={CDN};
             proxy_set_header Connection '';
             proxy_set_header Host $http_host;
             proxy_set_header Authorization 'Basic c2VjcmV0';
             location / {{ proxy_pass https://{REGISTRY}; }}"
        ))
        .start();
    hub.on_times(REGISTRY, "/v2/", 1, Fault::redirect(301, "/v2/x"));
    let _ = get(&nginx.url("/v2//x")).header("Host", OTHER).send();

    assert_eq!(hub.requests(OTHER).len(), 0, "{}", nginx.errors());
    let asked = hub.requests(REGISTRY);
    let asked: Vec<_> =
        asked.iter().map(|request| (&*request.uri, request.header("host"))).collect();
    assert_eq!(asked, [("/v2//x", Some(OTHER)), ("/v2/x", Some(OTHER))]);
}
