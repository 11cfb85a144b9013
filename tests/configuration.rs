//! What nginx says of the directives, where they act, and how they survive a reload.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::{
    AUTH, Answer, CLOUDFLARE, Fault, Hub, INDEX, Kind, Nginx, NginxBuilder, REGISTRY, Response,
    get, head, nginx_conf, nginx_t, request, wait_for,
};

const PATH: &str = "/v2/library/x/manifests/latest";
const FIRST: &str = "first.example";
const SECOND: &str = "second.example";

fn hub() -> Hub {
    Hub::with_mirrors(&[FIRST, SECOND])
}

fn mirror(hub: &Hub) -> NginxBuilder {
    Nginx::builder().http(&hub.http_conf()).http(
        "add_header X-Fallback $docker_fallback always;
         add_header X-Origin $docker_origin_host always;
         add_header X-Redirects $docker_redirects always;",
    )
}

/// nginx refuses a configuration whose `http` block has this body, and says this.
#[track_caller]
fn assert_refused(name: &str, http: &str, want: &str) {
    let (good, says) = nginx_t(http);
    assert!(!good, "{name}: {http}");
    let refusals: Vec<&str> = says.lines().filter(|line| line.contains("[emerg]")).collect();
    assert_eq!(refusals.len(), 1, "{name}: {says}");
    assert!(refusals[0].contains(&format!("[emerg] {want}")), "{name}: {says}");
    assert!(refusals[0].contains("nginx.conf:"), "{name}: file and line: {says}");
}

#[track_caller]
fn assert_good(name: &str, http: &str) {
    let (good, says) = nginx_t(http);
    assert!(good, "{name}: {says}");
    assert!(!says.contains("[warn]"), "{name}: {says}");
}

// Refusals.

/// `directive` refuses each row's arguments at the value given there, in every context.
#[track_caller]
fn assert_invalid(directive: &str, rows: &[(&str, &str, &str, &str)]) {
    for (name, arguments, value, allowed) in rows {
        let want = format!(
            "invalid value \"{value}\" in \"{directive}\" directive, it must be {allowed} in "
        );
        assert_refused(name, &format!("{directive} {arguments};"), &want);
    }
}

const ONLY: &str = "the only argument";
const ONCE: &str = "given once only";

#[test]
fn docker_realm_rewrite_says_what_it_takes() {
    let allowed = "\"on\", \"off\", or a URL that begins with \"http://\" or \"https://\" and \
                   holds nothing but a host, a port and a path";
    assert_invalid(
        "docker_realm_rewrite",
        &[
            ("another word", "yes", "yes", allowed),
            ("upper case", "On", "On", allowed),
            ("another scheme", "ftp://a", "ftp://a", allowed),
            ("query", "https://a?b", "https://a?b", allowed),
            ("empty", "''", "", allowed),
            ("off beside others", "off https://a", "off", ONLY),
            ("on twice", "on on", "on", ONLY),
        ],
    );
}

#[test]
fn docker_follow_redirect_says_what_it_takes() {
    let allowed = "\"on\", \"off\", \"hops=number\", \"allow=host[:port]\", \"private=network\" \
                   or \"verify=on|off\"";
    let host = "\"allow=host\", \"allow=.suffix\" or \"allow=~regex\", with or without \":port\"";
    let host = |cause: &str| format!("{host}: {cause}");
    let network = |cause: &str| format!("a network such as \"private=10.0.0.0/8\": {cause}");
    assert_invalid(
        "docker_follow_redirect",
        &[
            ("another word", "yes", "yes", allowed),
            ("unknown parameter", "on timeout=1s", "timeout=1s", allowed),
            ("no on", "hops=3", "hops=3", "given together with \"on\""),
            ("on twice", "on on", "on", ONCE),
            ("off beside on", "on off", "off", ONLY),
            ("off beside a parameter", "hops=3 off", "off", ONLY),
            ("no hops", "on hops=0", "hops=0", "a number from 1 to 8"),
            ("too many hops", "on hops=9", "hops=9", "a number from 1 to 8"),
            ("no number", "on hops=x", "hops=x", "a number from 1 to 8"),
            ("hops twice", "on hops=1 hops=2", "hops=2", ONCE),
            ("host twice", "on allow=a allow=b allow=a", "allow=a", ONCE),
            ("no host", "on allow=", "allow=", &host("no valid host")),
            ("port 0", "on allow=a:0", "allow=a:0", &host("the port is not between 1 and 65535")),
            ("bad regex", "on allow=~(", "allow=~(", &host("unclosed group")),
            ("empty regex", "on allow=~", "allow=~", &host("empty regex")),
            (
                "bits behind the prefix",
                "on private=10.0.0.1/8",
                "private=10.0.0.1/8",
                &network("address bits behind the prefix"),
            ),
            ("verify", "on verify=1", "verify=1", "\"verify=on\" or \"verify=off\""),
            ("verify twice", "on verify=on verify=on", "verify=on", ONCE),
        ],
    );
}

#[test]
fn docker_fallback_says_what_it_takes() {
    let allowed = "\"off\", \"credentials=bearer|none\", \"verify=on|off\", or a URL that begins \
                   with \"http://\" or \"https://\" and holds nothing but a host, a port and a path";
    let credentials = "\"credentials=bearer\" or \"credentials=none\"";
    let nine: String = (1..=9).map(|number| format!("https://{number}.example ")).collect();
    assert_invalid(
        "docker_fallback",
        &[
            ("query", "https://a/?b", "https://a/?b", allowed),
            ("fragment", "https://a#b", "https://a#b", allowed),
            ("variable", "https://$host", "https://$host", "a URL without variables"),
            (
                "variable in the path",
                "https://a/${uri}",
                "https://a/${uri}",
                "a URL without variables",
            ),
            ("same URL", "https://a https://A:443/", "https://A:443/", ONCE),
            ("too many", &nine, "https://9.example", "one of at most 8 URLs"),
            ("no URL", "verify=on", "verify=on", "given together with a URL"),
            ("empty", "https://a ''", "", &format!("{allowed}: empty URL")),
            ("off beside a URL", "https://a off", "off", ONLY),
            ("off beside a parameter", "off verify=on", "off", ONLY),
            ("credentials", "https://a credentials=all", "credentials=all", credentials),
            (
                "credentials twice",
                "https://a credentials=none credentials=none",
                "credentials=none",
                ONCE,
            ),
            ("verify", "https://a verify=no", "verify=no", "\"verify=on\" or \"verify=off\""),
        ],
    );
    // What is wrong with a URL is said behind what is allowed.
    for (name, url) in [
        ("another word", "yes"),
        ("host only", "mirror.example"),
        ("another scheme", "ftp://a"),
        ("user", "https://u:p@a"),
        ("no host", "https://"),
        ("port 0", "https://a:0"),
        ("space", "'https://a/ b'"),
    ] {
        let value = url.trim_matches('\'');
        let want = format!(
            "invalid value \"{value}\" in \"docker_fallback\" directive, it must be {allowed}: "
        );
        assert_refused(name, &format!("docker_fallback {url};"), &want);
    }
}

#[test]
fn docker_fallback_on_says_what_it_takes() {
    let allowed = "\"error\", \"timeout\", or \"http_\" with a status from 400 to 599, but not \
                   401 or 407";
    assert_invalid(
        "docker_fallback_on",
        &[
            ("another word", "always", "always", allowed),
            ("off", "off", "off", allowed),
            ("a challenge", "error http_401", "http_401", allowed),
            ("a challenge of a proxy", "http_407", "http_407", allowed),
            ("success", "http_200", "http_200", allowed),
            ("a redirect", "http_302", "http_302", allowed),
            ("out of range", "http_600", "http_600", allowed),
            ("a class", "http_5xx", "http_5xx", allowed),
            ("of proxy_next_upstream", "invalid_header", "invalid_header", allowed),
            ("twice", "timeout http_429 timeout", "timeout", ONCE),
        ],
    );
}

#[test]
fn docker_resume_says_what_it_takes() {
    let allowed = "\"on\", \"off\", \"tries=number\" or \"stall=time\"";
    let time = "a time such as \"500ms\", \"60s\" or \"1h30m\", up to 24 days";
    assert_invalid(
        "docker_resume",
        &[
            ("another word", "yes", "yes", allowed),
            ("unknown parameter", "on try=1", "try=1", allowed),
            ("no on", "tries=1", "tries=1", "given together with \"on\""),
            ("off beside a parameter", "stall=1s off", "off", ONLY),
            ("none", "on tries=0", "tries=0", "a number from 1 to 1000"),
            ("too many", "on tries=1001", "tries=1001", "a number from 1 to 1000"),
            ("no time", "on stall=0", "stall=0", time),
            ("twice", "on stall=1s stall=2s", "stall=2s", ONCE),
        ],
    );
}

#[test]
fn docker_verify_says_what_it_takes() {
    assert_invalid(
        "docker_verify",
        &[("another word", "yes", "yes", "\"on\" or \"off\""), ("two words", "on off", "on", ONLY)],
    );
}

#[test]
fn docker_keepalive_says_what_it_takes() {
    let allowed =
        "a number of connections, \"off\", \"timeout=time\", \"requests=number\" or \"time=time\"";
    let time = "a time such as \"500ms\", \"60s\" or \"1h30m\", up to 24 days";
    assert_invalid(
        "docker_keepalive",
        &[
            ("another word", "on", "on", allowed),
            ("unknown parameter", "8 max=1", "max=1", allowed),
            ("none", "0", "0", "a number from 1 to 65536"),
            ("too many", "65537", "65537", "a number from 1 to 65536"),
            ("two numbers", "8 8", "8", ONCE),
            (
                "no number",
                "timeout=1s",
                "timeout=1s",
                "given together with a number of connections",
            ),
            ("off beside a number", "8 off", "off", ONLY),
            ("no requests", "8 requests=0", "requests=0", "a number from 1 to 1000000000"),
            ("no time", "8 timeout=0", "timeout=0", time),
            ("unit", "8 time=1x", "time=1x", time),
            ("too long", "8 time=25d", "time=25d", time),
            ("time twice", "8 time=1s time=1s", "time=1s", ONCE),
        ],
    );
}

#[test]
fn docker_breaker_says_what_it_takes() {
    let allowed = "\"on\", \"off\", \"failures=number\", \"backoff=time\", \"max_backoff=time\", \
                   \"retry_after=time\" or \"max_retry_after=time\"";
    let time = "a time such as \"500ms\", \"60s\" or \"1h30m\", up to 24 days";
    assert_invalid(
        "docker_breaker",
        &[
            ("another word", "yes", "yes", allowed),
            ("unknown parameter", "on max=1", "max=1", allowed),
            ("off beside another", "off failures=1", "off", ONLY),
            ("no failures", "failures=0", "failures=0", "a number from 1 to 1000"),
            ("time", "on backoff=1x", "backoff=1x", time),
            ("longest shorter", "backoff=2m", "backoff=2m", "no more than \"max_backoff\""),
            ("twice", "on failures=1 failures=1", "failures=1", ONCE),
        ],
    );
    assert_invalid(
        "docker_fallback_reserve",
        &[
            ("no number", "many", "many", "a number from 0 to 1000000000"),
            ("negative", "-1", "-1", "a number from 0 to 1000000000"),
            ("two", "1 2", "2", ONLY),
        ],
    );
}

#[test]
fn docker_zone_says_what_it_takes() {
    let form = "a name and a size such as \"docker:4m\", of 32768 bytes or more";
    assert_invalid(
        "docker_zone",
        &[
            ("no size", "docker", "docker", form),
            ("too small", "docker:16k", "docker:16k", form),
            ("two", "a:1m b:1m", "b:1m", ONLY),
        ],
    );
    assert_good("two zones", "docker_zone a:1m; docker_zone b:1m;");
    assert_refused(
        "twice",
        "docker_zone a:1m; docker_zone a:1m;",
        "\"docker_zone\" directive is duplicate in ",
    );
    let (good, says) = nginx_t("limit_req_zone $uri zone=a:1m rate=1r/s; docker_zone a:1m;");
    assert!(!good && says.contains("already declared"), "another module's: {says}");
}

#[test]
fn docker_manifest_cache_says_what_it_takes() {
    let allowed = "\"zone=name\", \"max=size\", \"stale=time\" or \"off\"";
    assert_invalid(
        "docker_manifest_cache",
        &[
            ("another word", "on", "on", allowed),
            ("no zone", "max=1m", "max=1m", "given together with \"zone=name\""),
            ("off beside a zone", "zone=a off", "off", ONLY),
            ("too large", "zone=a max=17m", "max=17m", "a size from 1 to \"16m\""),
            ("unknown", "zone=a", "zone=a", "the name of a \"docker_zone\" before it"),
        ],
    );
    let zone = "docker_zone a:1m; docker_manifest_cache zone=a;";
    let inner = "server { location / { docker_manifest_cache zone=a max=4m stale=1h; } \
                 location /a { docker_manifest_cache off; } }";
    assert_good("at each level", &format!("{zone} {inner}"));
    assert_refused(
        "twice",
        &format!("{zone} docker_manifest_cache off;"),
        "\"docker_manifest_cache\" directive is duplicate in ",
    );
}

#[test]
fn a_zone_of_another_size_starts_empty() {
    let nginx = Nginx::builder().http("include zone.conf;").file("zone.conf", "docker_zone a:1m;");
    let nginx = nginx.start();
    let path = nginx.prefix().join("zone.conf");

    nginx.reload();
    assert!(!nginx.errors().contains("starts empty"), "the same: {}", nginx.errors());

    std::fs::write(path, "docker_zone a:2m;").expect("a file that can be written");
    nginx.reload();
    let line = nginx.wait_for_log("docker_zone \"a\" has another size now and starts empty");
    assert!(line.contains("[notice]"), "{line}");
}

#[test]
fn a_second_directive_at_the_same_level_is_refused() {
    for (directive, argument) in [
        ("docker_realm_rewrite", "on"),
        ("docker_follow_redirect", "on"),
        ("docker_fallback_on", "error"),
        ("docker_resume", "on"),
        ("docker_breaker", "on"),
        ("docker_fallback_reserve", "1"),
        ("docker_verify", "on"),
        ("docker_keepalive", "8"),
    ] {
        let twice = format!("{directive} {argument}; {directive} {argument};");
        let want = format!("\"{directive}\" directive is duplicate in ");
        assert_refused(directive, &twice, &want);
        if directive != "docker_keepalive" {
            assert_refused(directive, &format!("server {{ {twice} }}"), &want);
            assert_refused(directive, &format!("server {{ location / {{ {twice} }} }}"), &want);
            let levels = format!(
                "{directive} {argument}; server {{ {directive} {argument}; location / \
                 {{ {directive} {argument}; }} }}"
            );
            assert_good(directive, &levels);
        }
    }
}

#[test]
fn docker_fallback_is_repeated_for_other_targets_only() {
    assert_good(
        "other targets",
        "docker_fallback https://a; docker_fallback https://b credentials=none;",
    );
    let either = "URLs only, or \"off\" only in ";
    let invalid = |value: &str, allowed: &str| {
        format!("invalid value \"{value}\" in \"docker_fallback\" directive, it must be {allowed}")
    };
    for (name, directives, want) in [
        (
            "the same URL",
            "docker_fallback https://a/b; docker_fallback https://c https://A:443/b/ verify=off;",
            invalid("https://a/b", "given once only in "),
        ),
        (
            "off behind a URL",
            "docker_fallback https://a; docker_fallback off;",
            invalid("off", either),
        ),
        (
            "a URL behind off",
            "docker_fallback off; docker_fallback https://a verify=on;",
            invalid("https://a verify=on", either),
        ),
        ("off twice", "docker_fallback off; docker_fallback off;", invalid("off", either)),
    ] {
        assert_refused(name, directives, &want);
        assert_refused(name, &format!("server {{ location / {{ {directives} }} }}"), &want);
    }
}

#[test]
fn hops_and_targets_together_are_what_nginx_allows() {
    let targets = |count: usize| -> String {
        (0..count).map(|number| format!("https://{number}.example ")).collect()
    };
    let want = |hops: usize, count: usize| {
        format!(
            "\"docker_follow_redirect\" with hops={hops} and {count} \"docker_fallback\" targets \
             are {} attempts, there must be at most 8 in ",
            hops + count
        )
    };
    let both = |hops: usize, count: usize| {
        format!(
            "server {{ docker_follow_redirect on hops={hops}; docker_fallback {}; }}",
            targets(count)
        )
    };
    for (hops, count) in [(8, 0), (7, 1), (5, 3), (1, 7), (0, 8)] {
        let text = match (hops, count) {
            (_, 0) => format!("server {{ docker_follow_redirect on hops={hops}; }}"),
            (0, _) => format!("server {{ docker_fallback {}; }}", targets(count)),
            _ => both(hops, count),
        };
        assert_good("within the limit", &text);
    }
    for (hops, count) in [(8, 1), (5, 4), (1, 8)] {
        assert_refused("beyond the limit", &both(hops, count), &want(hops, count));
    }
    assert_refused(
        "the default of hops counts",
        &format!("server {{ docker_follow_redirect on; docker_fallback {}; }}", targets(4)),
        &want(5, 4),
    );
    assert_refused(
        "levels count together",
        &format!(
            "docker_follow_redirect on hops=6; server {{ location / {{ docker_fallback {}; }} }}",
            targets(3)
        ),
        &want(6, 3),
    );
    assert_good(
        "off is no attempt",
        &format!(
            "docker_follow_redirect on; server {{ location / {{ docker_follow_redirect off; \
             docker_fallback {}; }} }}",
            targets(8)
        ),
    );
    assert_refused(
        "repeated directives count together",
        &format!(
            "server {{ docker_follow_redirect on; docker_fallback {}; docker_fallback \
             https://x.example https://y.example; }}",
            targets(2)
        ),
        &want(5, 4),
    );
}

#[test]
fn directives_stand_in_http_server_and_location() {
    let directives = [
        ("docker_realm_rewrite", "on"),
        ("docker_follow_redirect", "on"),
        ("docker_fallback", "https://a"),
        ("docker_fallback_on", "error"),
        ("docker_resume", "on"),
        ("docker_verify", "on"),
        ("docker_manifest_cache", "off"),
        ("docker_breaker", "on"),
        ("docker_fallback_reserve", "1"),
        ("docker_keepalive", "8"),
        ("docker_zone", "a:1m"),
    ];
    for (directive, argument) in directives {
        let text = format!("{directive} {argument};");
        let here = "directive is not allowed here in ";
        let want = format!("\"{directive}\" {here}");
        assert_good(directive, &text);
        let inner = [
            format!("server {{ {text} }}"),
            format!("server {{ location / {{ {text} }} }}"),
            format!("server {{ location / {{ location /a {{ {text} }} }} }}"),
            format!("server {{ location @name {{ {text} }} }}"),
        ];
        for place in inner {
            if ["docker_keepalive", "docker_zone"].contains(&directive) {
                assert_refused(directive, &place, &want);
            } else {
                assert_good(directive, &place);
            }
        }
        for place in [
            format!("upstream a {{ server 127.0.0.1; {text} }}"),
            format!("server {{ if ($host) {{ {text} }} }}"),
            format!("server {{ location / {{ if ($host) {{ {text} }} }} }}"),
            format!("server {{ location / {{ limit_except GET {{ {text} }} }} }}"),
        ] {
            assert_refused(directive, &place, &want);
        }
        let (good, says) = Nginx::builder().main(&text).test();
        assert!(!good && says.contains(&want), "{directive} at the main level: {says}");
        assert_refused(
            directive,
            &format!("{directive};"),
            &format!("invalid number of arguments in \"{directive}\" directive in "),
        );
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    for directive in ["docker_realm_rewrite", "docker_follow_redirect", "docker_fallback"] {
        let builder = Nginx::builder().http("include bytes.conf;").file("bytes.conf", "");
        // The harness writes text only; nginx reads bytes.
        let nginx = builder.start();
        let mut bytes = format!("{directive} https://a/").into_bytes();
        bytes.extend_from_slice(b"\xff\xfe;\n");
        std::fs::write(nginx.prefix().join("bytes.conf"), bytes).unwrap();
        nginx.allow_log("invalid value");
        hup(&nginx);
        let line = nginx.wait_for_log("invalid value");
        assert!(line.contains("it must be UTF-8"), "{line}");
        assert!(line.contains(directive), "{line}");
    }
}

#[test]
fn variables_are_known_and_read_only() {
    let (good, says) = nginx_t("docker_realm_rewrite https://$nowhere;");
    assert!(!good && says.contains("unknown \"nowhere\" variable"), "{says}");
    assert_good(
        "ours are known",
        "log_format a '$docker_fallback$docker_origin_host$docker_redirects';",
    );
    assert_refused(
        "ours cannot be set",
        "server { location / { set $docker_redirects 1; } }",
        "the duplicate \"docker_redirects\" variable",
    );
}

// Levels.

/// Which of three things happen in a location: a realm of ours, a redirect followed, a fallback.
fn acts(nginx: &Nginx, path: &str) -> (bool, bool, Option<String>) {
    let realm = get(&nginx.url(&format!("{path}challenge"))).send();
    let realm = realm.header("www-authenticate").unwrap().contains("mirror");
    let redirect = get(&nginx.url(&format!("{path}redirect"))).send();
    assert!([200, 307].contains(&redirect.status), "{path}: {}", redirect.status);
    let limit = get(&nginx.url(&format!("{path}limit"))).send();
    let missing = get(&nginx.url(&format!("{path}missing"))).send();
    let answer = if limit.header("x-fallback").is_some() { limit } else { missing };
    let fallback = answer.header("x-fallback").map(|url| url.replace("https://", ""));
    (realm, redirect.status == 200, fallback)
}

/// A hub whose registry challenges, redirects, limits and misses, by the last part of the path.
fn hub_of_all_cases() -> Hub {
    let hub = hub();
    hub.add_host_as("cdn.example", Kind::Blank);
    hub.route(REGISTRY, |request| {
        match request.path().rsplit('/').next().unwrap_or_default() {
            "challenge" => Response::text(401, "who?")
                .header("WWW-Authenticate", "Bearer realm=\"https://auth.docker.io/token\""),
            "redirect" => Response::redirect(307, "https://cdn.example/blob"),
            "limit" => Response::text(429, "later"),
            _ => Response::text(404, "no"),
        }
        .into()
    });
    for host in [FIRST, SECOND] {
        hub.route(host, |_| Response::text(200, "fallback").into());
    }
    hub
}

#[test]
fn levels_replace_each_other() {
    let hub = hub_of_all_cases();
    let pass = format!("proxy_pass https://{REGISTRY};");
    let follow = format!("docker_follow_redirect on private={};", hub.network());
    let nginx = mirror(&hub)
        .http(&format!(
            "docker_realm_rewrite https://mirror.http;
             {follow}
             docker_fallback https://{FIRST};"
        ))
        .server(&format!(
            "location /v2/http/ {{ {pass} }}
             location /v2/realm-off/ {{ docker_realm_rewrite off; {pass} }}
             location /v2/follow-off/ {{ docker_follow_redirect off; {pass} }}
             location /v2/fallback-off/ {{ docker_fallback off; {pass} }}
             location /v2/all-off/ {{
                 docker_realm_rewrite off; docker_follow_redirect off; docker_fallback off;
                 location /v2/all-off/still/ {{ {pass} }}
                 location /v2/all-off/again/ {{
                     docker_realm_rewrite on; {follow} docker_fallback https://{SECOND};
                     {pass}
                 }}
                 {pass}
             }}
             location /v2/if/ {{
                 docker_fallback https://{SECOND};
                 if ($http_x_if) {{ {pass} }}
                 if ($uri ~ /v2/if/yes/) {{ {pass} }}
                 limit_except GET {{ deny all; }}
                 docker_realm_rewrite off;
                 {pass}
             }}
             location /v2/on-404/ {{ docker_fallback_on http_404; {pass} }}
             location /v2/nested/ {{
                 location ~ ^/v2/nested/deep {{
                     location ~ ^/v2/nested/deeper/ {{ docker_fallback https://{SECOND}; {pass} }}
                     {pass}
                 }}
                 {pass}
             }}"
        ))
        .server(&format!(
            "docker_realm_rewrite off;
             docker_follow_redirect off;
             docker_fallback off;
             location /v2/off/ {{ {pass} }}
             location /v2/on/ {{
                 docker_realm_rewrite https://mirror.location;
                 {follow}
                 docker_fallback https://{SECOND};
                 {pass}
             }}"
        ))
        .start();

    let some = |host: &str| Some(host.to_owned());
    let rows = [
        ("/v2/http/", (true, true, some(FIRST))),
        ("/v2/realm-off/", (false, true, some(FIRST))),
        ("/v2/follow-off/", (true, false, some(FIRST))),
        ("/v2/fallback-off/", (true, true, None)),
        ("/v2/all-off/", (false, false, None)),
        ("/v2/all-off/still/", (false, false, None)),
        ("/v2/if/", (false, true, some(SECOND))),
        ("/v2/if/yes/", (false, true, some(SECOND))),
        ("/v2/on-404/", (true, true, some(FIRST))),
        ("/v2/nested/", (true, true, some(FIRST))),
        ("/v2/nested/deep/", (true, true, some(FIRST))),
        ("/v2/nested/deeper/", (true, true, some(SECOND))),
    ];
    for (path, want) in rows {
        assert_eq!(acts(&nginx, path), want, "{path}");
    }
    let missing = |path: &str| get(&nginx.url(&format!("{path}missing"))).send();
    let limit = |path: &str| get(&nginx.url(&format!("{path}limit"))).send();
    assert_eq!((limit("/v2/http/").status, missing("/v2/http/").status), (200, 404));
    assert_eq!((limit("/v2/on-404/").status, missing("/v2/on-404/").status), (429, 200));
    assert_eq!(request("PUT", &nginx.url("/v2/if/x")).body("x").send().status, 403);

    let realm = |server: usize, path: &str| {
        let answer = get(&nginx.url_of(server, path)).header("Host", "mirror.self").send();
        answer.header("www-authenticate").unwrap().to_owned()
    };
    assert!(realm(0, "/v2/http/challenge").contains("https://mirror.http/token"));
    assert!(realm(0, "/v2/all-off/again/challenge").contains("http://mirror.self/token"));
    assert!(realm(1, "/v2/on/challenge").contains("https://mirror.location/token"));
    assert!(realm(1, "/v2/off/challenge").contains("https://auth.docker.io/token"));
    assert_eq!(get(&nginx.url_of(1, "/v2/off/limit")).send().status, 429);
    assert_eq!(get(&nginx.url_of(1, "/v2/off/redirect")).send().status, 307);
    let limited = get(&nginx.url_of(1, "/v2/on/limit")).send();
    assert_eq!(limited.header("x-fallback"), Some("https://second.example"));
    assert_eq!(get(&nginx.url_of(1, "/v2/on/redirect")).send().status, 200);
}

#[test]
fn an_inner_directive_replaces_the_outer_one_wholly() {
    let hub = hub_of_all_cases();
    let network = hub.network();
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_follow_redirect on private={network} hops=1;
             docker_fallback https://{FIRST} https://{SECOND};
             docker_fallback_on http_404 http_429;
             proxy_set_header X-Inner yes;
             location /v2/ {{ proxy_pass https://{REGISTRY}; }}
             location /v2/inner/ {{
                 docker_follow_redirect on hops=2;
                 docker_fallback https://{SECOND};
                 docker_fallback_on http_429;
                 proxy_pass https://{REGISTRY};
             }}"
        ))
        .start();
    assert_eq!(get(&nginx.url("/v2/redirect")).send().status, 200);
    let refused = get(&nginx.url("/v2/inner/redirect")).send();
    assert_eq!(refused.status, 502, "private= is not inherited beside hops=");
    assert_eq!(get(&nginx.url("/v2/inner/missing")).send().status, 404);
    let limited = get(&nginx.url("/v2/inner/limit")).send();
    assert_eq!(limited.header("x-fallback"), Some("https://second.example"));
}

#[test]
fn directives_change_nothing_where_nothing_is_proxied() {
    let hub = hub();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let application = std::thread::spawn(move || {
        for (status, line) in [
            ("302 Found", "Location: https://cdn.example/blob"),
            ("429 Too Many Requests", "Retry-After: 1"),
            ("502 Bad Gateway", "X-A: b"),
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 8192];
            assert!(stream.read(&mut bytes).unwrap() > 0);
            let answer = format!("Status: {status}\r\n{line}\r\n\r\nfrom the application");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let nginx = mirror(&hub)
        .file("html/index.html", "static\n")
        .server(&format!(
            "docker_realm_rewrite on;
             docker_follow_redirect on;
             docker_fallback https://{FIRST};
             docker_fallback_on error timeout http_403 http_404 http_429 http_502;
             location / {{ root %prefix%/html; }}
             location /v2/return/ {{ return 302 https://cdn.example/; }}
             location /v2/limit/ {{ return 429; }}
             location /v2/scgi/ {{ scgi_pass 127.0.0.1:{port}; scgi_param REQUEST_METHOD GET; }}
             location /v2/dead/scgi/ {{ scgi_pass 127.0.0.1:1; }}
             location /v2/dead/fastcgi/ {{ fastcgi_pass 127.0.0.1:1; }}
             location /v2/dead/uwsgi/ {{ uwsgi_pass 127.0.0.1:1; }}
             location /v2/dead/grpc/ {{ grpc_pass 127.0.0.1:1; }}
             location /v2/dead/memcached/ {{ set $memcached_key a; memcached_pass 127.0.0.1:1; }}
             location /v2/empty/ {{ }}"
        ))
        .start();
    let rows = [
        ("/", 200),
        ("/none", 404),
        ("/v2/return/", 302),
        ("/v2/limit/", 429),
        ("/v2/scgi/", 302),
        ("/v2/scgi/", 429),
        ("/v2/scgi/", 502),
        ("/v2/empty/", 404),
        ("/v2/dead/scgi/", 502),
        ("/v2/dead/fastcgi/", 502),
        ("/v2/dead/uwsgi/", 502),
        ("/v2/dead/grpc/", 502),
        ("/v2/dead/memcached/", 502),
    ];
    for (path, status) in rows {
        let answer = get(&nginx.url(path)).send();
        assert_eq!((answer.status, answer.header("x-fallback")), (status, None), "{path}");
    }
    application.join().unwrap();
    assert_eq!(hub.counts(FIRST).connections, 0);
}

#[test]
fn named_locations_of_the_users_stay() {
    let hub = hub();
    hub.on(REGISTRY, "/", Fault::TooManyRequests);
    let nginx = mirror(&hub)
        .server(&format!(
            "location /v2/ {{ docker_fallback https://{FIRST}; proxy_pass https://{REGISTRY}; }}
             location /try {{ try_files /none @user; }}
             location @user {{ return 200 'user'; }}
             location /named {{ try_files /none @named; }}
             location @named {{ docker_fallback https://{SECOND}; proxy_pass https://{REGISTRY}; }}"
        ))
        .start();
    assert_eq!(get(&nginx.url("/try")).send().text(), "user");
    assert_eq!(get(&nginx.url(PATH)).send().header("x-fallback"), Some("https://first.example"));
    let _ = get(&nginx.url("/named")).send();
    assert_eq!(hub.last_request(SECOND).uri, "/named");
}

#[test]
fn hundreds_of_locations_have_ways_of_their_own() {
    let hub = hub();
    hub.on(REGISTRY, "/", Fault::TooManyRequests);
    let locations: String = (0..300)
        .map(|number| {
            let target = if number % 2 == 0 { FIRST } else { SECOND };
            format!(
                "location /v2/{number}/ {{ docker_fallback https://{target}; \
                 proxy_pass https://{REGISTRY}/v2/library/; }}\n"
            )
        })
        .collect();
    let nginx = mirror(&hub).server(&locations).server(&locations).start();
    for (server, number) in [(0, 0), (0, 1), (0, 298), (0, 299), (1, 0), (1, 299)] {
        let answer = get(&nginx.url_of(server, &format!("/v2/{number}/x/manifests/latest"))).send();
        let want = if number % 2 == 0 { "https://first.example" } else { "https://second.example" };
        assert_eq!((answer.status, answer.header("x-fallback")), (200, Some(want)), "{number}");
    }
}

// Reloads and ends.

/// Tells nginx to reload, and does not wait.
fn hup(nginx: &Nginx) {
    let status = Command::new("kill").args(["-HUP", &nginx.pid().to_string()]).status().unwrap();
    assert!(status.success());
}

fn replace(nginx: &Nginx, from: &str, to: &str) {
    let file = nginx.prefix().join("nginx.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(file, text.replace(from, to)).unwrap();
}

fn reload_wholly(nginx: &Nginx) {
    let old = nginx.workers();
    nginx.reload();
    nginx.wait_until_gone(&old);
}

#[test]
fn a_reload_under_load_fails_no_request() {
    let hub = hub();
    let digest = hub.add_blob(vec![b'x'; 300_000]);
    hub.record(false);
    hub.on(REGISTRY, "/v2/limited/", Fault::TooManyRequests);
    hub.on(FIRST, "/v2/limited/", Fault::Answer(Response::text(200, "fallback").into()));
    let nginx = mirror(&hub)
        .workers(2)
        .server(&format!(
            "docker_realm_rewrite on;
             docker_follow_redirect on private={};
             docker_fallback https://{FIRST};
             location / {{ proxy_pass https://{REGISTRY}; }}
             location /gone/ {{ docker_fallback https://{FIRST}; proxy_pass http://127.0.0.1:1/; }}",
            hub.network()
        ))
        .start();
    let paths = [
        (PATH.to_owned(), 0),
        (format!("/v2/library/x/blobs/{digest}"), 300_000),
        ("/v2/limited/x".to_owned(), 8),
        (format!("/gone{PATH}"), 0),
    ];

    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|number| {
                let (nginx, paths, stop, sent) = (&nginx, &paths, &stop, &sent);
                scope.spawn(move || {
                    let mut failed = Vec::new();
                    for (path, length) in paths.iter().cycle().skip(number) {
                        if stop.load(Ordering::Relaxed) {
                            return failed;
                        }
                        match get(&nginx.url(path)).try_send() {
                            Ok(answer)
                                if answer.status == 200
                                    && answer.complete
                                    && (*length == 0 || answer.body.len() == *length) => {}
                            Ok(answer) => failed.push(format!(
                                "{path}: {}, {} bytes, {:?}",
                                answer.status,
                                answer.body.len(),
                                answer.problem
                            )),
                            Err(error) => failed.push(format!("{path}: {error}")),
                        }
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    failed
                })
            })
            .collect();
        for _ in 0..5 {
            let before = sent.load(Ordering::Relaxed);
            nginx.reload();
            wait_for("requests", || sent.load(Ordering::Relaxed) > before + 30);
        }
        stop.store(true, Ordering::Relaxed);
        let failed: Vec<_> = clients.into_iter().flat_map(|c| c.join().unwrap()).collect();
        assert!(failed.is_empty(), "{} failed: {:.3000}", failed.len(), failed.join("\n"));
    });
    assert!(sent.load(Ordering::Relaxed) > 150);
}

#[test]
fn a_reload_changes_every_setting() {
    let hub = hub_of_all_cases();
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_realm_rewrite https://mirror.old;
             docker_follow_redirect on private={};
             docker_fallback https://{FIRST};
             location / {{ proxy_pass https://{REGISTRY}; }}",
            hub.network()
        ))
        .start();
    assert_eq!(acts(&nginx, "/v2/"), (true, true, Some(FIRST.to_owned())));

    replace(&nginx, FIRST, SECOND);
    reload_wholly(&nginx);
    assert_eq!(acts(&nginx, "/v2/"), (true, true, Some(SECOND.to_owned())));

    replace(&nginx, "docker_fallback https", "docker_fallback off; #");
    replace(&nginx, "docker_follow_redirect on", "docker_follow_redirect off; #");
    replace(&nginx, "docker_realm_rewrite https", "docker_realm_rewrite off; #");
    reload_wholly(&nginx);
    assert_eq!(acts(&nginx, "/v2/"), (false, false, None));

    replace(&nginx, "docker_fallback off; #", "docker_fallback https");
    replace(&nginx, "docker_follow_redirect off; #", "docker_follow_redirect on");
    replace(&nginx, "docker_realm_rewrite off; #", "docker_realm_rewrite https");
    reload_wholly(&nginx);
    assert_eq!(acts(&nginx, "/v2/"), (true, true, Some(SECOND.to_owned())));
}

#[test]
fn a_configuration_that_is_refused_leaves_the_old_one_at_work() {
    let hub = hub_of_all_cases();
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_fallback https://{FIRST};
             location / {{ proxy_pass https://{REGISTRY}; }}"
        ))
        .start();
    nginx.allow_log("invalid value");
    nginx.allow_log("there must be at most");
    for (bad, says) in [
        ("https://first.example https://$host", "invalid value"),
        ("https://first.example; docker_follow_redirect on hops=8", "there must be at most"),
    ] {
        replace(&nginx, "https://first.example;", &format!("{bad};"));
        hup(&nginx);
        nginx.wait_for_log(says);
        assert_eq!(get(&nginx.url("/v2/limit")).send().status, 200);
        replace(&nginx, &format!("{bad};"), "https://first.example;");
    }
    reload_wholly(&nginx);
    assert_eq!(get(&nginx.url("/v2/limit")).send().status, 200);
}

#[test]
fn a_worker_that_ends_leaves_no_socket_open() {
    let hub = hub_of_all_cases();
    hub.add_host("third.example");
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_follow_redirect on private={};
             docker_fallback https://{FIRST};
             location / {{ proxy_pass https://{REGISTRY}; }}
             location /clear/ {{ docker_fallback http://third.example; \
              proxy_pass https://{REGISTRY}/; }}",
            hub.network()
        ))
        .start();
    let fill = || {
        for path in ["/v2/redirect", "/v2/limit", "/clear/v2/limit"] {
            let _ = get(&nginx.url(path)).send();
        }
    };
    let open = |count: u64| {
        ["cdn.example", FIRST, "third.example"].iter().all(|host| hub.counts(host).open == count)
    };
    fill();
    assert!(open(1), "idle connections are kept");
    reload_wholly(&nginx);
    wait_for("the old worker's connections to close", || open(0));
    fill();
    assert!(open(1));
    // The harness looks for "open socket" in the log.
    drop(nginx);
    wait_for("the worker's connections to close", || open(0));
}

#[test]
fn a_worker_that_ends_finishes_its_requests() {
    let hub = hub_of_all_cases();
    hub.on(
        "cdn.example",
        "/",
        Fault::Answer(
            Response::text(200, "slow")
                .shape(support::Shape::Delay(Duration::from_millis(800)))
                .into(),
        ),
    );
    hub.on(
        FIRST,
        "/",
        Fault::Answer(
            Response::text(200, "slow")
                .shape(support::Shape::Delay(Duration::from_millis(800)))
                .into(),
        ),
    );
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_follow_redirect on private={};
             docker_fallback https://{FIRST};
             location / {{ proxy_pass https://{REGISTRY}; }}",
            hub.network()
        ))
        .start();
    let old = nginx.workers();
    std::thread::scope(|scope| {
        let asked: Vec<_> = ["/v2/redirect", "/v2/limit"]
            .map(|path| scope.spawn(|| get(&nginx.url(path)).send()))
            .into();
        wait_for("both to be asked", || {
            ["cdn.example", FIRST].iter().all(|host| hub.counts(host).requests == 1)
        });
        nginx.reload();
        for asked in asked {
            let answer = asked.join().unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "slow"));
        }
    });
    nginx.wait_until_gone(&old);
    wait_for("connections to close", || hub.counts(FIRST).open == 0);
}

#[test]
fn a_single_process_serves_and_ends() {
    let hub = hub_of_all_cases();
    for reloaded in [false, true] {
        let nginx = mirror(&hub)
            .single_process()
            .server(&format!(
                "docker_realm_rewrite https://mirror.example;
                 docker_follow_redirect on private={};
                 docker_fallback https://{FIRST};
                 location / {{ proxy_pass https://{REGISTRY}; }}",
                hub.network()
            ))
            .start();
        assert_eq!(acts(&nginx, "/v2/"), (true, true, Some(FIRST.to_owned())));
        assert_eq!((hub.counts(FIRST).open, hub.counts("cdn.example").open), (1, 1));
        if reloaded {
            // nginx alone accepts nothing after this, without us as well; it must end well.
            hup(&nginx);
            wait_for("the new configuration", || {
                nginx.errors().matches("event method").count() == 2
            });
            // A signal that comes before it waits for events is seen at the next event only, and
            // there is none.
            std::thread::sleep(Duration::from_secs(2));
        }
        drop(nginx);
        wait_for("connections to close", || hub.counts(FIRST).open == 0);
    }
}

// Idle connections.

#[test]
fn docker_keepalive_bounds_what_is_kept() {
    let hub = hub_of_all_cases();
    let connections = |conf: &str, kept: u64| {
        let nginx = mirror(&hub)
            .http(conf)
            .server(&format!(
                "location / {{ docker_fallback https://{FIRST}; proxy_pass https://{REGISTRY}; }}
                 location /second/ {{
                     docker_fallback https://{SECOND};
                     proxy_pass https://{REGISTRY}/;
                 }}"
            ))
            .start();
        hub.forget();
        for _ in 0..6 {
            for path in ["/v2/limit", "/second/v2/limit"] {
                assert_eq!(get(&nginx.url(path)).send().status, 200, "{conf}");
            }
        }
        wait_for("connections that are not kept to close", || {
            hub.counts(FIRST).open + hub.counts(SECOND).open == kept
        });
        (hub.counts(FIRST).connections, hub.counts(SECOND).connections)
    };
    assert_eq!(connections("", 2), (1, 1), "kept by default");
    assert_eq!(connections("docker_keepalive 2;", 2), (1, 1), "one for each");
    assert_eq!(connections("docker_keepalive 1;", 1), (6, 6), "the one that was used last");
    assert_eq!(connections("docker_keepalive 2 requests=3;", 0), (2, 2), "three requests each");
    assert_eq!(connections("docker_keepalive off;", 0), (6, 6), "off");
}

#[test]
fn idle_connections_end_in_time() {
    let hub = hub_of_all_cases();
    let start = |parameter: &str| {
        mirror(&hub)
            .http(&format!("docker_keepalive 8 {parameter};"))
            .server(&format!(
                "location / {{ docker_fallback https://{FIRST}; proxy_pass https://{REGISTRY}; }}"
            ))
            .start()
    };
    let nginx = start("timeout=300ms");
    let _ = get(&nginx.url("/v2/limit")).send();
    assert_eq!(hub.counts(FIRST).open, 1);
    wait_for("the idle connection to end", || hub.counts(FIRST).open == 0);
    drop(nginx);

    let nginx = start("time=300ms");
    hub.forget();
    let _ = get(&nginx.url("/v2/limit")).send();
    std::thread::sleep(Duration::from_millis(400));
    let _ = get(&nginx.url("/v2/limit")).send();
    let _ = get(&nginx.url("/v2/limit")).send();
    assert!((2..=3).contains(&hub.counts(FIRST).connections));
    drop(nginx);
}

// The examples.

/// The files of `nginx-conf/`; those of clients lie in a directory.
fn examples() -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("nginx-conf");
    let entries = std::fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".conf")).collect()
}

/// An nginx that includes a file of `nginx-conf/`, with addresses, ports and certificates of this
/// test.
fn example(hub: &Hub, file: &str) -> NginxBuilder {
    let ca = hub.ca_file().display().to_string();
    let (certificate, key) = hub.authority().issue(&["mirror.example.com"]);
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let follow = format!("docker_follow_redirect on private={};", hub.network());
    let server = [("docker_follow_redirect on;", follow.as_str())];
    let tls = [
        ("listen              443 ssl;", "listen 127.0.0.1:%port0% ssl http2;"),
        ("/etc/nginx/tls/mirror.example.com.crt", certificate.as_str()),
        ("/etc/nginx/tls/mirror.example.com.key", key.as_str()),
    ];
    let text = match file {
        "behind-tls-terminator.conf" => {
            let clear = [("listen      127.0.0.1:8080;", "listen 127.0.0.1:%port0%;")];
            nginx_conf(file, &[&server[..], &clear].concat())
        }
        "public-mirror.conf" => {
            let clients = [("allow 192.0.2.0/24;", "allow 127.0.0.0/8;")];
            nginx_conf(file, &[&server[..], &tls, &clients].concat())
        }
        "docker-hub.conf" | "many-registries.conf" => {
            nginx_conf(file, &[&server[..], &tls].concat())
        }
        "docker-mirror.conf" | "docker-keepalive.conf" => nginx_conf(file, &[]),
        _ => panic!("nginx-conf/{file} is not known to this test"),
    };
    let mut keepalive = nginx_conf("docker-keepalive.conf", &[]);
    for host in [REGISTRY, AUTH, INDEX] {
        let (name, address) =
            (format!("server {host}:443"), format!("server {}:443", hub.address(host)));
        assert!(keepalive.contains(&name), "{name}");
        keepalive = keepalive.replace(&name, &address);
    }
    let settings =
        nginx_conf("docker-mirror.conf", &[("/etc/ssl/certs/ca-certificates.crt", ca.as_str())]);

    let builder = Nginx::builder()
        .whole(&format!(
            "http {{
                 access_log %prefix%/access.log;
                 client_body_temp_path %prefix%/body;
                 proxy_temp_path %prefix%/proxy;
                 resolver {};
                 {}
             }}",
            hub.resolver(),
            match file {
                "docker-mirror.conf" =>
                    "server { listen 127.0.0.1:%port0%; include docker-mirror.conf; }".to_owned(),
                _ => format!("include {file};"),
            }
        ))
        .file("docker-keepalive.conf", &keepalive)
        .file("docker-mirror.conf", &settings);
    if file.starts_with("docker-mirror") || file.starts_with("docker-keepalive") {
        builder
    } else {
        builder.file(file, &text)
    }
}

#[test]
fn parameters_that_weaken_safety_are_said_once_at_start() {
    let unchecked = "certificates are not checked";
    let led = "requests may be led to addresses that are not public";
    let rows = [
        ("docker_follow_redirect on verify=off", "verify=off", "docker_follow_redirect", unchecked),
        ("docker_follow_redirect on private=::1", "private=::1", "docker_follow_redirect", led),
        ("docker_fallback http://x.example verify=off", "verify=off", "docker_fallback", unchecked),
    ];
    for (line, parameter, directive, weakness) in rows {
        // Inherited by two locations.
        let (good, says) = nginx_t(&format!(
            "{line}; server {{ listen 127.0.0.1:1; location /a {{ proxy_pass http://127.0.0.1; }}
             location /b {{ proxy_pass http://127.0.0.1; }} }}"
        ));
        assert!(good, "{line}: {says}");
        let warnings: Vec<&str> = says.lines().filter(|line| line.contains("[warn]")).collect();
        let want = format!("[warn] \"{parameter}\" in \"{directive}\" directive, {weakness} in /");
        assert!(warnings.len() == 1 && warnings[0].contains(&want), "{line}: {says}");
    }
    assert_good("safe", "docker_follow_redirect on verify=on; docker_fallback https://x.example;");
}

#[test]
fn every_example_loads_without_a_warning() {
    let hub = hub();
    for file in examples() {
        let (good, says) = example(&hub, &file).test();
        assert!(good, "{file}: {says}");
        // The network is the test's own, in which the hub is.
        let own = format!("private={}", hub.network());
        let warned = says
            .lines()
            .any(|line| line.contains("[warn]") && !line.contains("http2") && !line.contains(&own));
        assert!(!warned, "{file}: {says}");
    }
}

/// Pulls an image as a client does: challenge, token, manifest, layer.
fn pull(hub: &Hub, nginx: &Nginx, layer: &str, ask: impl Fn(&str) -> Answer) {
    let challenge = ask(PATH);
    assert_eq!(challenge.status, 401);
    let realm = challenge.header("www-authenticate").unwrap().split('"').nth(1).unwrap().to_owned();
    let token_path = realm.split_once("mirror.example.com").unwrap().1.to_owned();
    let token_path = token_path.trim_start_matches(|c: char| c == ':' || c.is_ascii_digit());
    let scope = "service=registry.docker.io&scope=repository:library/x:pull";
    let token = ask(&format!("{token_path}?{scope}"));
    assert_eq!(token.status, 200, "{token_path}");
    let token = token.json()["token"].as_str().unwrap().to_owned();
    let with_token = |path: &str| ask(&format!("{path}\n{token}"));
    assert_eq!(with_token(PATH).status, 200);
    let blob = with_token(&format!("/v2/library/x/blobs/{layer}"));
    assert_eq!(Some(blob.body), hub.blob(layer), "{}", nginx.errors());
}

#[test]
fn the_examples_serve_a_pull() {
    let hub = Hub::start();
    let image = hub.add_image("library/x", "latest", &[b"x"]);
    hub.add_host("mirror2.example.net");
    hub.add_image("library/alpine", "latest", &[b"x"]);

    for file in ["docker-hub.conf", "behind-tls-terminator.conf"] {
        let nginx = example(&hub, file).start();
        let tls = file == "docker-hub.conf";
        let ask = |text: &str| {
            let (path, token) = text.split_once('\n').unwrap_or((text, ""));
            let port = nginx.port();
            let scheme = if tls { "https" } else { "http" };
            let url = format!("{scheme}://mirror.example.com:{port}{path}");
            let ask = get(&url).connect(([127, 0, 0, 1], port).into()).ca(hub.ca_file());
            let ask = if token.is_empty() { ask } else { ask.bearer(token) };
            ask.send()
        };
        pull(&hub, &nginx, &image.layers[0], ask);
        assert!(hub.counts(CLOUDFLARE).requests > 0, "{file}");
        hub.forget();

        if tls {
            let token = hub.token("library/x");
            hub.on(REGISTRY, "/", Fault::TooManyRequests);
            let answer = ask(&format!("{PATH}\n{token}"));
            assert_eq!(answer.header("x-served-by"), Some("mirror2.example.net"));
            hub.off(REGISTRY);
            hub.refuse(AUTH);
            let answer = ask("/token?service=registry.docker.io&scope=repository:library/x:pull");
            assert_eq!(answer.header("x-served-by"), Some("mirror2.example.net"));
            hub.accept(AUTH);
            assert_eq!(ask("/v1/search?q=nginx").status, 200);
            assert_eq!(hub.counts(INDEX).requests, 1);
        } else {
            hub.refuse(AUTH);
            let answer = ask("/auth/token?service=registry.docker.io");
            let message = &answer.json()["errors"][0]["message"];
            assert_eq!(message, "upstream auth.docker.io: could not be connected");
            hub.accept(AUTH);
        }
    }
}

#[test]
fn the_public_example_serves_what_it_lists() {
    let hub = Hub::start();
    let image = hub.add_image("library/alpine", "latest", &[b"x"]);
    hub.add_image("library/x", "latest", &[b"x"]);
    let nginx = example(&hub, "public-mirror.conf").start();
    let port = nginx.port();
    let ask = |path: &str| {
        get(&format!("https://mirror.example.com:{port}{path}"))
            .connect(([127, 0, 0, 1], port).into())
            .ca(hub.ca_file())
    };
    let token = hub.token("library/alpine");
    let manifest = ask("/v2/library/alpine/manifests/latest").bearer(&token);
    assert_eq!(manifest.send().header("docker-content-digest"), Some(image.digest.as_str()));
    let blob = ask(&format!("/v2/library/alpine/blobs/{}", image.layers[0])).bearer(&token).send();
    assert_eq!(Some(blob.body), hub.blob(&image.layers[0]));

    hub.refuse(AUTH);
    let failed = ask("/token?service=registry.docker.io").send();
    assert_eq!(failed.json()["errors"][0]["code"], "UNAVAILABLE");
    hub.accept(AUTH);

    let denied = ask(PATH).bearer(&token).send();
    assert_eq!(denied.status, 403);
    assert_eq!(denied.json()["errors"][0]["code"], "DENIED");
    let limited = (0..100).map(|_| manifest.send()).find(|answer| answer.status == 429).unwrap();
    assert_eq!(limited.json()["errors"][0]["code"], "TOOMANYREQUESTS");
    assert_eq!(limited.header("retry-after"), Some("60"));
    let head =
        head(&format!("https://mirror.example.com:{port}/v2/library/alpine/manifests/latest"))
            .connect(([127, 0, 0, 1], port).into())
            .ca(hub.ca_file())
            .bearer(&token)
            .send();
    assert_eq!(head.status, 200, "a HEAD counts nowhere");
}
