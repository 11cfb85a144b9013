//! What is refused, and the words for it.

use support::{Answer, Fault, Nginx, REGISTRY, Response, get, head};

use crate::{CDN, OTHER, follow, lead, message, mirror, server, start, start_hub};

/// The error that stands in log and answer, for a host and a reason.
#[track_caller]
fn refuses(nginx: &Nginx, answer: &Answer, name: &str, want: &str) {
    assert_eq!(message(answer, name), want, "{name}");
    let logged = nginx.wait_for_log(&format!("redirect is not followed, {want}"));
    assert!(logged.contains("[error]"), "{name}: {logged}");
}

#[test]
fn more_hops_than_configured_are_refused() {
    let hub = start_hub();
    for (parameters, hops) in [("", 5), ("hops=1", 1), ("hops=8", 8)] {
        let nginx = start(&hub, parameters);
        let hosts = [REGISTRY, CDN, OTHER];
        let last = format!("https://{OTHER}/end");
        let answer = get(&nginx.url(&hub.chain(&hosts, hops, 302, &last))).send();
        assert_eq!(answer.status, 200, "{hops}: {}", answer.text());

        let path = hub.chain(&hosts, hops + 1, 302, &last);
        let answer = get(&nginx.url(&path)).send();
        let want = format!("{}: more than {hops} redirects", hosts[hops % 3]);
        refuses(&nginx, &answer, parameters, &want);
        assert_eq!(head(&nginx.url(&path)).send().status, 502, "{parameters}");
    }
}

#[test]
fn a_circle_of_redirects_ends() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let cases = [
        ("to itself", "/v2/x".to_owned(), format!("{REGISTRY}: more than 5 redirects")),
        ("to itself in full", format!("https://{REGISTRY}/v2/x"), REGISTRY.to_owned()),
        ("over the CDN", format!("https://{CDN}/v2/x"), CDN.to_owned()),
    ];
    hub.on(CDN, "/", Fault::redirect(302, format!("https://{REGISTRY}/v2/x")));
    for (name, location, want) in cases {
        lead(&hub, location);
        let answer = get(&nginx.url("/v2/x")).send();
        assert!(message(&answer, name).starts_with(&want), "{name}: {}", answer.text());
    }
    assert!(hub.counts(REGISTRY).requests < 20, "{}", hub.counts(REGISTRY).requests);
}

#[test]
fn https_does_not_go_on_to_http() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let reason = "a redirect from https to http is not followed";
    for (name, location) in [
        ("CDN", format!("http://{CDN}/x")),
        ("port of https", format!("http://{CDN}:443/x")),
        ("the registry itself", format!("http://{REGISTRY}/x")),
    ] {
        lead(&hub, &location);
        let host = if location.contains(CDN) { CDN } else { REGISTRY };
        let answer = get(&nginx.url("/v2/x")).send();
        refuses(&nginx, &answer, name, &format!("{host}: {reason}"));
    }
    lead(&hub, format!("https://{CDN}/x"));
    hub.on(CDN, "/", Fault::redirect(307, format!("http://{OTHER}/x")));
    let answer = get(&nginx.url("/v2/x")).send();
    refuses(&nginx, &answer, "second hop", &format!("{OTHER}: {reason}"));
    assert_eq!(hub.counts(OTHER).connections, 0);
}

#[test]
fn http_goes_on_to_http_and_to_https() {
    let hub = start_hub();
    let nginx = mirror(&hub)
        .server(&format!(
            "{} location / {{ proxy_pass http://{}; }}",
            follow(&hub, ""),
            hub.address(REGISTRY)
        ))
        .start();
    for scheme in ["http", "https"] {
        lead(&hub, format!("{scheme}://{CDN}/x"));
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(answer.text(), format!("{CDN} GET /x\n"), "{scheme}: {}", nginx.errors());
        assert_eq!(hub.last_request(CDN).tls, scheme == "https");
    }
}

#[test]
fn addresses_that_are_not_public_are_refused() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let cases = [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "172.16.0.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:7f00:1::1]",
        "[2001::5ef5:79fb:0:59d:a247:fafe]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[ff02::1]",
    ];
    for host in cases {
        for port in ["", ":22"] {
            lead(&hub, format!("https://{host}{port}/latest/meta-data/?token=x"));
            let answer = get(&nginx.url("/v2/x")).send();
            let want = format!("{host}: redirects to this address are not allowed");
            refuses(&nginx, &answer, host, &want);
        }
    }
}

#[test]
fn names_of_addresses_that_are_not_public_are_refused_without_telling_the_address() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let cases = [
        ("loopback", "127.0.0.1"),
        ("loopback, IPv6", "::1"),
        ("mapped loopback", "::ffff:127.0.0.1"),
        ("metadata", "169.254.169.254"),
        ("metadata, IPv6", "fd00:ec2::254"),
        ("private", "10.9.8.7"),
        ("NAT64 of loopback", "64:ff9b::7f00:1"),
    ];
    for (number, (name, address)) in cases.into_iter().enumerate() {
        let host = format!("inside{number}.example");
        hub.resolve_to(&host, &[address]);
        lead(&hub, format!("https://{host}/x?signature=1"));
        let answer = get(&nginx.url("/v2/x")).send();
        let want = format!("{host}: redirects to this address are not allowed");
        assert_eq!(message(&answer, name), want);
        assert!(!answer.text().contains(address), "{name}: {}", answer.text());
        let logged = nginx.wait_for_log(&want);
        assert!(logged.contains("[error]"), "{name}: {logged}");
    }
}

#[test]
fn of_several_addresses_only_those_that_are_allowed_are_asked() {
    let hub = start_hub();
    let address = hub.address(CDN).to_string();
    let nginx = mirror(&hub).http("docker_keepalive off;").server(&server(&hub, "")).start();
    // Were it asked, the listener that another test may have at ::1 would not matter: connecting
    // to the others takes too long or is refused, and a log line says so.
    hub.resolve_to(CDN, &["10.9.8.7", &address, "::1", "169.254.169.254"]);
    lead(&hub, format!("https://{CDN}/x"));
    for _ in 0..8 {
        assert_eq!(get(&nginx.url("/v2/x")).send().status, 200);
    }
    let log = nginx.errors();
    assert!(!log.contains("10.9.8.7") && !log.contains("[::1]"), "{log}");
}

#[test]
fn private_networks_are_reached_when_they_are_allowed() {
    let hub = start_hub();
    let address = hub.address(CDN).to_string();
    let v6 = hub.listen_at(CDN, "[::1]:0".parse().unwrap(), false);
    let port = v6.port();
    hub.resolve_to("six.example", &["::1"]);
    let network = hub.network();
    let cases = [
        ("name", format!("private={network}"), format!("http://{CDN}/x"), true),
        ("literal", format!("private={network}"), format!("http://{address}/x"), true),
        ("one address", format!("private={address}"), format!("http://{CDN}/x"), true),
        ("another address", "private=127.0.0.1".to_owned(), format!("http://{CDN}/x"), false),
        (
            "mapped form",
            format!("private={address}/32"),
            format!("http://[::ffff:{address}]/x"),
            true,
        ),
        ("none", String::new(), format!("http://{CDN}/x"), false),
        ("IPv6", "private=::1".to_owned(), format!("http://[::1]:{port}/x"), true),
        ("IPv6 network", "private=::/96".to_owned(), format!("http://six.example:{port}/x"), true),
        ("IPv6 of IPv4", "private=127.0.0.0/8".to_owned(), format!("http://[::1]:{port}/"), false),
        (
            "several",
            format!("private=10.0.0.0/8 private=::1 private={network}"),
            format!("http://six.example:{port}/x"),
            true,
        ),
    ];

    for (name, parameters, location, allowed) in cases {
        let nginx = mirror(&hub)
            .server(&format!(
                "docker_follow_redirect on {parameters};
                 location / {{ proxy_pass http://{}; }}",
                hub.address(REGISTRY)
            ))
            .start();
        lead(&hub, &location);
        let answer = get(&nginx.url("/v2/x")).send();
        if allowed {
            assert_eq!(answer.text(), format!("{CDN} GET /x\n"), "{name}: {}", nginx.errors());
        } else {
            let refused = "redirects to this address are not allowed";
            assert!(message(&answer, name).ends_with(refused), "{name}: {}", answer.text());
        }
    }
}

#[test]
fn allow_says_which_hosts_may_be_led_to() {
    let hub = start_hub();
    hub.listen(CDN, 8443, true);
    hub.resolve_to("cdn.example", &[&hub.address(CDN).to_string()]);
    let cases = [
        ("host", "allow=cdn.example", "https://cdn.example/x", true),
        ("host in another case", "allow=CDN.example", "https://cdn.EXAMPLE/x", true),
        ("another host", "allow=cdn.example", "https://other.example/x", false),
        ("host below", "allow=example", "https://cdn.example/x", false),
        ("several", "allow=a.example allow=cdn.example", "https://cdn.example/x", true),
        ("suffix", "allow=.example", "https://cdn.example/x", true),
        ("suffix within a label", "allow=.dn.example", "https://cdn.example/x", false),
        ("regex", r"'allow=~c[a-z]{2}\.example'", "https://cdn.example/x", true),
        ("regex of a part", "allow=~cdn", "https://cdn.example/x", false),
        ("port that is not named", "allow=cdn.example", "https://cdn.example:8443/x", false),
        ("port", "allow=cdn.example:8443", "https://cdn.example:8443/x", true),
        ("another port", "allow=cdn.example:8443", "https://cdn.example/x", false),
        ("any host, any port", "", "https://cdn.example:8443/x", true),
    ];

    for (name, parameters, location, allowed) in cases {
        let nginx = start(&hub, parameters);
        lead(&hub, location);
        let answer = get(&nginx.url("/v2/x")).send();
        if allowed {
            assert_eq!(answer.text(), format!("{CDN} GET /x\n"), "{name}: {}", nginx.errors());
        } else {
            let host = location.trim_start_matches("https://").split([':', '/']).next().unwrap();
            let want = format!("{host}: redirects to this host are not allowed");
            refuses(&nginx, &answer, name, &want);
        }
    }
}

#[test]
fn the_same_origin_needs_no_allow() {
    let hub = start_hub();
    let nginx = start(&hub, "allow=cdn.example");
    lead(&hub, "/end");
    hub.on(REGISTRY, "/end", Fault::Answer(Response::text(200, "end").into()));
    assert_eq!(get(&nginx.url("/v2/x")).send().text(), "end");
}

#[test]
fn a_location_that_is_no_url_is_refused() {
    let hub = start_hub();
    let nginx = mirror(&hub)
        .http("proxy_buffer_size 32k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k;")
        .server(&server(&hub, ""))
        .start();
    let user = "user information in the URL";
    let scheme = "the URL is neither http nor https";
    let host = "no valid host in the URL";
    let port = "no valid port in the URL";
    let long = format!("https://{CDN}/{}", "x".repeat(17_000));
    let cases: [(&str, &[u8], &str); 30] = [
        ("empty", b"", "empty URL"),
        ("space", b"https://cdn.example/a b", "byte 0x20 in the URL"),
        ("tab", b"https://cdn.example/a\tb", "byte 0x09 in the URL"),
        ("control byte", b"https://cdn.example/a\x01b", "byte 0x01 in the URL"),
        ("escape", b"https://cdn.example/\x1b[31m", "byte 0x1b in the URL"),
        ("DEL", b"https://cdn.example/a\x7fb", "byte 0x7f in the URL"),
        ("Latin-1", b"https://cdn.example/\xfc", "byte 0xfc in the URL"),
        ("UTF-8", "https://cdn.example/ü".as_bytes(), "byte 0xc3 in the URL"),
        ("user", b"https://user@cdn.example/", user),
        ("user and password", b"https://user:password@cdn.example/", user),
        ("empty user", b"https://@cdn.example/", user),
        ("host as a user", b"https://cdn.example@evil.example/", user),
        ("file", b"file:///etc/passwd", scheme),
        ("ftp", b"ftp://cdn.example/", scheme),
        ("gopher", b"gopher://127.0.0.1:6379/_INFO", scheme),
        ("javascript", b"javascript:alert(1)", scheme),
        ("data", b"data:text/plain,x", scheme),
        ("unix", b"unix:/run/docker.sock:/info", scheme),
        ("no host", b"https:///x", host),
        ("no slashes", b"https:cdn.example", host),
        ("backslash", b"https://cdn.example\\x/", host),
        ("percent in the host", b"https://%63dn.example/", host),
        ("underlined garbage", b"https://c!d!n/", host),
        ("IPv4 as a number", b"https://2130706433/", host),
        ("octal IPv4", b"https://0177.0.0.1/", host),
        ("zone", b"https://[fe80::1%25lo]/", host),
        ("open bracket", b"https://[::1/", host),
        ("port 0", b"https://cdn.example:0/", port),
        ("port beyond", b"https://cdn.example:65536/", port),
        ("too long", long.as_bytes(), "the URL is longer than 16384 bytes"),
    ];

    for (name, location, reason) in cases {
        lead(&hub, location);
        let answer = get(&nginx.url("/v2/x")).send();
        let want = format!("{REGISTRY}: invalid redirect, {reason}");
        refuses(&nginx, &answer, name, &want);
    }
    assert_eq!(hub.counts(CDN).connections, 0);
}

#[test]
fn bytes_that_break_a_header_line_do_not_reach_anybody() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    for (name, location) in
        [("NUL", &b"https://cdn.example/\0x"[..]), ("carriage return", b"https://cdn.example/\rx")]
    {
        lead(&hub, location);
        // Whether nginx's own parser or ours refuses it differs by version.
        assert_eq!(get(&nginx.url("/v2/x")).send().status, 502, "{name}");
    }
    lead(&hub, "https://cdn.example/a\r\nX-Injected: 1");
    let answer = get(&nginx.url("/v2/x")).send();
    assert_eq!(answer.text(), format!("{CDN} GET /a\n"));
    assert_eq!(hub.last_request(CDN).header("x-injected"), None);
    assert_eq!(answer.header("x-injected"), None);
}

#[test]
fn a_location_of_8_kilobytes_is_followed() {
    let hub = start_hub();
    let buffers = "proxy_buffer_size 16k; proxy_buffers 8 16k; proxy_busy_buffers_size 32k;";
    let nginx = mirror(&hub).http(buffers).server(&server(&hub, "")).start();
    let uri = format!("/x?signature={}", "0123456789abcdef".repeat(512));
    lead(&hub, format!("https://{CDN}{uri}"));
    assert_eq!(get(&nginx.url("/v2/x")).send().status, 200, "{}", nginx.errors());
    assert_eq!(hub.last_request(CDN).uri, uri);

    // Where nginx's buffer is too small for it, that is upstream's failure.
    let nginx = start(&hub, "");
    assert_eq!(get(&nginx.url("/v2/x")).send().status, 502);
    nginx.wait_for_log("upstream sent too big header");
}
