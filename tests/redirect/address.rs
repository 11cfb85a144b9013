//! Addresses and names: which are asked, in which order, and who knows them.

use std::time::{Duration, Instant};

use support::{Dns, Hub, Nginx, REGISTRY, get, wait_for};

use crate::{CDN, OTHER, follow, lead, message, mirror, server, start, start_hub};

/// Requests one after the other, each over a connection of its own; returns the addresses that
/// nginx asked for each, the CDN's alone.
fn asked_addresses(nginx: &Nginx, requests: usize) -> Vec<String> {
    for _ in 0..requests {
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(answer.status, 200, "{}: {}", answer.text(), nginx.errors());
    }
    let logged = || nginx.accesses().lines().count();
    wait_for("the access log", || logged() == requests);
    let lines = nginx.accesses();
    lines.lines().map(|line| line.split_once(" : ").unwrap().1.to_owned()).collect()
}

/// A mirror that keeps no connection and logs `$upstream_addr`.
fn start_without_keepalive(hub: &Hub, parameters: &str) -> Nginx {
    let http = "log_format addresses '$upstream_addr'; docker_keepalive off;";
    let log = "access_log %prefix%/access.log addresses;";
    mirror(hub).http(http).server(&format!("{log} {}", server(hub, parameters))).start()
}

#[test]
fn an_address_that_refuses_is_passed_by_and_goes_last_from_then_on() {
    let hub = start_hub();
    let live = hub.address(CDN).to_string();
    let dead = format!("{}.250", live.rsplit_once('.').unwrap().0);
    hub.resolve_to(CDN, &[&dead, &live]);
    lead(&hub, format!("https://{CDN}/x"));
    let nginx = start_without_keepalive(&hub, "");

    // Which address comes first is the resolver's choice, and changes.
    let asked = asked_addresses(&nginx, 16);
    let over_dead = format!("{dead}:443, {live}:443");
    let only_live = format!("{live}:443");
    assert_eq!(asked.iter().filter(|addresses| **addresses == over_dead).count(), 1, "{asked:?}");
    assert_eq!(asked.iter().filter(|addresses| **addresses == only_live).count(), 15, "{asked:?}");
}

#[test]
fn an_address_that_does_not_answer_costs_one_request_one_second() {
    let hub = start_hub();
    let live = hub.address(CDN).to_string();
    hub.blackhole(OTHER);
    let dead = hub.address(OTHER).to_string();
    hub.resolve_to(CDN, &[&dead, &live]);
    lead(&hub, format!("https://{CDN}/x"));
    let nginx = start_without_keepalive(&hub, "");

    let start = Instant::now();
    for _ in 0..16 {
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(answer.status, 200, "{}", nginx.errors());
    }
    // proxy_connect_timeout, which is for the last address, is 60 seconds.
    let elapsed = start.elapsed();
    assert!((1..30).contains(&elapsed.as_secs()), "{elapsed:?}");
    nginx.wait_for_log("upstream timed out");
    assert_eq!(nginx.errors().matches("upstream timed out").count(), 1, "{}", nginx.errors());
}

#[test]
fn both_families_are_asked() {
    let hub = start_hub();
    let v6 = hub.listen_at(CDN, "[::1]:0".parse().unwrap(), true);
    let (port, v4) = (v6.port(), hub.address(CDN).to_string());
    hub.resolve_to(CDN, &[&v4, "::1"]);
    lead(&hub, format!("https://{CDN}:{port}/x"));
    let nginx = start_without_keepalive(&hub, "private=::1");

    // Nothing listens at the IPv4 address's port.
    let asked = asked_addresses(&nginx, 12);
    assert!(asked.iter().all(|addresses| addresses.ends_with(&format!("[::1]:{port}"))));
    assert!(asked.iter().filter(|addresses| addresses.contains(&v4)).count() <= 1, "{asked:?}");
    assert_eq!(hub.last_request(CDN).sni.as_deref(), Some(CDN));

    // Now at the IPv4 address only.
    hub.resolve_to(OTHER, &["::1", &hub.address(OTHER).to_string()]);
    hub.listen(OTHER, 8443, true);
    lead(&hub, format!("https://{OTHER}:8443/x"));
    for _ in 0..6 {
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(answer.status, 200, "{}", nginx.errors());
    }
}

#[test]
fn when_no_address_answers_the_client_is_told_once() {
    let hub = start_hub();
    let network = hub.address(CDN).to_string().rsplit_once('.').unwrap().0.to_owned();
    let dead: Vec<String> = (250..253).map(|number| format!("{network}.{number}")).collect();
    hub.resolve_to(CDN, &dead.iter().map(String::as_str).collect::<Vec<_>>());
    lead(&hub, format!("https://{CDN}/x"));
    let nginx = start(&hub, "");
    for _ in 0..2 {
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(message(&answer, "dead"), format!("CDN {CDN}: could not be connected"));
    }
    let log = nginx.errors();
    for address in dead {
        assert_eq!(log.matches(&format!("upstream: \"https://{address}:443/x\"")).count(), 2);
    }
}

#[test]
fn literal_addresses_of_both_families_are_asked() {
    let hub = start_hub();
    let v6 = hub.listen_at(CDN, "[::1]:0".parse().unwrap(), false);
    let v4 = hub.address(CDN);
    let nginx = mirror(&hub)
        .server(&format!(
            "{} location / {{ proxy_pass http://{}; }}",
            follow(&hub, "private=::1"),
            hub.address(REGISTRY)
        ))
        .start();
    let port = v6.port();
    let cases = [
        ("IPv4", format!("http://{v4}/x"), v4.to_string()),
        ("IPv4 and port", format!("http://{v4}:80/x"), v4.to_string()),
        ("IPv6 and port", format!("http://[::1]:{port}/x"), format!("[::1]:{port}")),
        ("IPv6 at length", format!("http://[0:0::0:1]:{port}/x"), format!("[0:0::0:1]:{port}")),
    ];
    for (name, location, host) in cases {
        lead(&hub, location);
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(answer.text(), format!("{CDN} GET /x\n"), "{name}: {}", nginx.errors());
        assert_eq!(hub.last_request(CDN).header("host"), Some(host.as_str()), "{name}");
    }
}

#[test]
fn requests_that_wait_for_one_name_are_all_served() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/x"));
    let url = nginx.url("/v2/x");
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| get(&url).send().status)).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), 200);
        }
    });
    assert!(hub.queries(CDN) <= 4, "nginx's resolver asks once: {}", hub.queries(CDN));
}

#[test]
fn aliases_are_followed_and_truncated_answers_asked_by_tcp() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let address = hub.address(CDN);
    hub.resolve("a.example", Dns::Alias("b.example".to_owned()));
    hub.resolve("b.example", Dns::Alias("c.example".to_owned()));
    hub.resolve("c.example", Dns::Addresses(vec![address.into()]));
    hub.resolve("big.example", Dns::Truncated(vec![address.into()]));
    for name in ["a.example", "big.example"] {
        lead(&hub, format!("https://{name}/x"));
        // The certificate is for another name: that it is looked at shows that the name was found.
        let answer = get(&nginx.url("/v2/x")).send();
        let want = format!("CDN {name}: certificate not valid for this host");
        assert_eq!(message(&answer, name), want);
    }
}

#[test]
fn a_name_is_asked_for_again_when_its_time_to_live_is_over() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let address = hub.address(CDN);
    hub.resolve_for("short.example", Dns::Addresses(vec![address.into()]), 1);
    let ask = |name: &str| {
        lead(&hub, format!("https://{name}/x"));
        let _ = get(&nginx.url("/v2/x")).send();
        hub.queries(name)
    };
    // A and AAAA.
    assert_eq!((ask(CDN), ask("short.example")), (2, 2));
    assert_eq!((ask(CDN), ask("short.example")), (2, 2));
    let mut asked = 0;
    wait_for("another question", || {
        std::thread::sleep(Duration::from_millis(200));
        asked = ask("short.example");
        asked > 2
    });
    assert_eq!((ask(CDN), asked), (2, 4));
}

#[test]
fn the_resolver_of_the_location_is_asked() {
    let hub = start_hub();
    let resolver = format!("resolver {};", hub.resolver());
    let conf = hub.http_conf().replace(&resolver, "resolver 127.0.0.1:1; resolver_timeout 1s;");
    let location = format!("{{ {resolver} proxy_pass https://{REGISTRY}; }}");
    let nginx = Nginx::builder()
        .http(&conf)
        .server(&format!("{} location /v2/location/ {location}", server(&hub, "")))
        .server(&format!("{resolver} {}", server(&hub, "")))
        .start();
    lead(&hub, format!("https://{CDN}/x"));
    assert_eq!(get(&nginx.url_of(0, "/v2/location/x")).send().status, 200, "{}", nginx.errors());
    assert_eq!(get(&nginx.url_of(1, "/v2/x")).send().status, 200, "{}", nginx.errors());
    let answer = get(&nginx.url_of(0, "/v2/x")).send();
    assert!(message(&answer, "http").contains("could not be resolved"), "{}", answer.text());
}

/// The mount namespace of this test has a `resolv.conf` of its own.
#[test]
fn without_a_resolver_the_name_servers_of_resolv_conf_are_asked() {
    const FILE: &str = "TEST_RESOLV_CONF";
    const NAME: &str = "address::without_a_resolver_the_name_servers_of_resolv_conf_are_asked";
    let Some(file) = std::env::var_os(FILE) else {
        let file = std::env::temp_dir().join(format!("resolv-{}.conf", std::process::id()));
        std::fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
        let status = std::process::Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"")
            .arg(&file)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(FILE, &file)
            .status();
        std::fs::remove_file(&file).unwrap();
        assert!(status.unwrap().success());
        return;
    };

    let hub = start_hub();
    let resolver = format!("resolver {};", hub.resolver());
    let conf = hub.http_conf().replace(&resolver, "");
    // Written in place: the file is mounted.
    let server_line = hub.resolver();
    let address = server_line.split(':').next().unwrap();
    std::fs::write(file, format!("# comment\nsearch example\nnameserver {address}\n")).unwrap();
    let nginx = Nginx::builder().http(&conf).server(&server(&hub, "")).start();
    lead(&hub, format!("https://{CDN}/x"));
    let answer = get(&nginx.url("/v2/x")).send();
    assert_eq!(answer.status, 200, "{}: {}", answer.text(), nginx.errors());
    assert_eq!(hub.queries(CDN), 2);
}
