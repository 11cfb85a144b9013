//! What holds for every valid input. Where `fuzz/` throws bytes at a parser, these tests build the
//! input from its parts, so they know what must come out.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use rules::address::{Cidr, is_special};
use rules::body::{Body, Framing, read};
use rules::breaker::{Admit, Breaker, PROBE, Records, Settings, Way};
use rules::challenge::rewrite_realm;
use rules::error::{Code, body};
use rules::fallback::{Authorization, Conditions, Outcome, Queue, Request, Step, decide};
use rules::kind::{self, Class, Kind};
use rules::location::Url;
use rules::registry::{By, Registries, Registry};
use rules::request::{Carry, Head, head};
use rules::ticket::{Key, Ticket};
use rules::{breaker, retry_after};

const BASE: &str = "https://mirror.example:5000";

/// A challenge as it is written, and as it must be rewritten.
fn challenge() -> impl Strategy<Value = (String, String)> {
    let alone = "[A-Za-z][A-Za-z0-9-]{0,8}".prop_map(|scheme| (scheme.clone(), scheme));
    let token68 = "(Negotiate|NTLM|bearer) {1,2}[A-Za-z0-9._~+/-]{1,9}={0,2}"
        .prop_map(|text| (text.clone(), text));
    let params = (select(vec!["Bearer", "bearer", "BEARER"]), " {1,3}", vec(param(), 1..4))
        .prop_map(|(scheme, space, params)| {
            let (before, after): (Vec<_>, Vec<_>) = params.into_iter().unzip();
            let join = |params: Vec<String>| format!("{scheme}{space}{}", params.join(","));
            (join(before), join(after))
        });
    // Params of any other scheme stay, whatever they are.
    let other = ("(Basic|Digest|Bearerx)", vec(param(), 1..4)).prop_map(|(scheme, params)| {
        let params: Vec<_> = params.into_iter().map(|(before, _)| before).collect();
        let text = format!("{scheme} {}", params.join(", "));
        (text.clone(), text)
    });
    prop_oneof![alone, token68, params, other]
}

/// An auth-param as it is written, and as it must be rewritten in a Bearer challenge.
fn param() -> impl Strategy<Value = (String, String)> {
    let plain = ("(service|scope|error)", "[ \t]{0,2}=[ \t]{0,2}", value())
        .prop_map(|(name, equals, value)| format!("{name}{equals}{value}"))
        .prop_map(|text| (text.clone(), text));
    let realm = (
        "(realm|Realm|REALM)",
        "[ \t]{0,2}=[ \t]{0,2}",
        "(http|https|HTTPS)://[a-z.]{1,9}(:[0-9]{1,5})?",
        r#"((\\?/|\?)([a-z0-9/?%&=, ]|\\["\\]){0,9})?"#,
    )
        .prop_map(|(name, equals, origin, rest)| {
            let written = format!("{name}{equals}\"{origin}{rest}\"");
            (written, format!("{name}{equals}\"{BASE}{rest}\""))
        });
    prop_oneof![plain, realm]
}

/// A token or a quoted string.
fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[!#$%&'*+.^_`|~0-9a-z-]{1,9}", r#""([ \t!#-\[\]-~]|\\["\\, a-z]){0,12}""#,]
}

/// A path of plain segments, which begins with a slash and has no dot segment.
fn path() -> impl Strategy<Value = String> {
    vec("([a-z0-9%:@;=_~-][a-z0-9.]{0,6})?", 1..5).prop_map(|segments| {
        segments.iter().fold(String::new(), |path, segment| path + "/" + segment)
    })
}

fn query() -> impl Strategy<Value = String> {
    option::of(r#"\?[!-"$-~]{0,20}"#).prop_map(Option::unwrap_or_default)
}

fn origin() -> impl Strategy<Value = String> {
    ("https?", r"([a-z]{1,5}\.){0,2}[a-z]{1,5}|\[::[1-9a-f]\]", 1_u16..)
        .prop_map(|(scheme, host, port)| format!("{scheme}://{host}:{port}"))
}

fn text(url: &Url) -> String {
    format!("{}://{}:{}{}", url.scheme.as_str(), url.host, url.port, url.uri)
}

proptest! {
    #[test]
    fn realms_of_bearer_challenges_are_replaced_and_nothing_else(
        challenges in vec(challenge(), 0..5),
        separator in "[ \t]?(,[ \t]{0,2}){1,3}",
    ) {
        let (before, after): (Vec<_>, Vec<_>) = challenges.into_iter().unzip();
        let (before, after) = (before.join(&separator), after.join(&separator));
        let got = rewrite_realm(before.as_bytes(), BASE.as_bytes());
        let want = (before != after).then(|| after.into_bytes());
        prop_assert_eq!(got, Ok(want));
    }

    #[test]
    fn a_reference_resolves_to_what_it_was_made_of(
        base in origin(), base_path in path(), base_query in query(),
        other in origin(), path in path(), query in query(),
        fragment in option::of("#[!-~]{0,5}"),
    ) {
        let url = Url::parse(format!("{base}{base_path}{base_query}").as_bytes()).unwrap();
        let fragment = fragment.unwrap_or_default();
        let join = |reference: &str| {
            url.join(format!("{reference}{fragment}").as_bytes()).map(|url| text(&url))
        };

        let absolute = format!("{other}{path}{query}");
        prop_assert_eq!(join(&absolute), Ok(absolute.clone()));
        if !path.starts_with("//") {
            prop_assert_eq!(join(&format!("{path}{query}")), Ok(format!("{base}{path}{query}")));
        }
        if !query.is_empty() {
            prop_assert_eq!(join(&query), Ok(format!("{base}{base_path}{query}")));
        }
        let (directory, _) = base_path.rsplit_once('/').unwrap();
        let below = format!("{base}{directory}{path}{query}");
        prop_assert_eq!(join(&format!(".{path}{query}")), Ok(below));
        prop_assert_eq!(join(&format!(".{path}/..")), {
            let (parent, _) = path.rsplit_once('/').unwrap();
            Ok(format!("{base}{directory}{parent}/"))
        });
    }

    #[test]
    fn what_is_encoded_in_chunks_is_decoded(
        chunks in vec(vec(any::<u8>(), 1..40), 0..6),
        extension in r#"([ \t]?;[ \t]?[a-z]{1,4}(="?[a-z]{1,4}"?)?)?"#,
        trailer in "([A-Za-z-]{1,8}: ?[ -~]{0,8}\r\n){0,2}",
        cut in any::<prop::sample::Index>(),
        more in any::<u8>(),
    ) {
        let mut encoded = Vec::new();
        for chunk in &chunks {
            encoded.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
            encoded.extend_from_slice(chunk);
            encoded.extend_from_slice(b"\r\n");
        }
        encoded.extend_from_slice(format!("0{extension}\r\n{trailer}\r\n").as_bytes());

        let whole = Body::Whole(Cow::Owned(chunks.concat()));
        prop_assert_eq!(read(Framing::Chunked, &encoded), whole);
        let cut = cut.get(&encoded[..]);
        let cut = encoded.iter().position(|byte| std::ptr::eq(byte, cut)).unwrap();
        prop_assert_eq!(read(Framing::Chunked, encoded.get(..cut).unwrap()), Body::Partial);
        encoded.push(more);
        prop_assert_eq!(read(Framing::Chunked, &encoded), Body::Surplus);
    }

    #[test]
    fn an_address_is_in_the_networks_around_it_only(
        bits in any::<u32>(), bits6 in any::<u128>(), prefix in 0_u32..=32, prefix6 in 0_u32..=128,
        flip in any::<u128>(),
    ) {
        let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
        let network: Cidr = format!("{}/{prefix}", Ipv4Addr::from(bits & mask)).parse().unwrap();
        let other = Ipv4Addr::from(bits ^ flip as u32);
        prop_assert_eq!(network.contains(other.into()), flip as u32 & mask == 0);
        prop_assert_eq!(network.contains(other.to_ipv6_mapped().into()), flip as u32 & mask == 0);

        let mask = u128::MAX.checked_shl(128 - prefix6).unwrap_or(0);
        let network: Cidr = format!("{}/{prefix6}", Ipv6Addr::from(bits6 & mask)).parse().unwrap();
        let other = Ipv6Addr::from(bits6 ^ flip);
        if other.to_ipv4_mapped().is_none() {
            prop_assert_eq!(network.contains(other.into()), flip & mask == 0);
        }
    }

    #[test]
    fn an_ipv4_address_is_judged_alike_in_its_ipv6_forms(bits in any::<u32>()) {
        let address = Ipv4Addr::from(bits);
        let special = is_special(address.into());
        prop_assert_eq!(is_special(address.to_ipv6_mapped().into()), special);
        let nat64: Ipv6Addr = format!("64:ff9b::{address}").parse().unwrap();
        prop_assert_eq!(is_special(IpAddr::V6(nat64)), special);
    }

    #[test]
    fn a_head_reads_as_it_was_written(
        uri in path(), query in query(),
        lines in vec(("[A-Za-z-]{1,12}", "([!-~]([ -~]{0,10}[!-~])?)?"), 0..8),
    ) {
        let url = Url::parse(format!("https://a.example{uri}{query}").as_bytes()).unwrap();
        let given = || lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let written = head("HEAD", &url, &Carry::All, given());
        let read = Head::parse(&written).unwrap();

        prop_assert_eq!(read.method(), b"HEAD");
        prop_assert_eq!(read.uri(), url.uri.as_bytes());
        let mut expected = read.lines();
        prop_assert_eq!(expected.next(), Some((b"Host".as_slice(), b"a.example".as_slice())));
        // Every line that is carried, in its order, and no other.
        let mut given = given();
        prop_assert!(expected.all(|line| given.any(|other| other == line)));
    }

    #[test]
    fn an_error_body_holds_its_message(message in any::<String>()) {
        let body = body(Code::Denied, &message);
        let inside = body
            .strip_prefix(r#"{"errors":[{"code":"DENIED","message":""#)
            .and_then(|rest| rest.strip_suffix("\"}]}\n"))
            .unwrap();
        prop_assert!(!inside.chars().any(|char| char < ' '));
        prop_assert_eq!(unescaped(inside), message);
    }

    #[test]
    fn a_request_is_known_by_the_parts_that_it_is_made_of(
        components in vec(component(), 1..5), tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}",
        digest in "[a-z0-9]{1,6}([+._-][a-z0-9]{1,4})?:[a-zA-Z0-9=_-]{1,64}",
        query in query(), bad in any::<prop::sample::Index>(), byte in "[A-Z%~!@:.,$]",
    ) {
        let name = components.join("/");
        let rows = [
            (format!("/manifests/{tag}"), Kind::Manifest, tag.as_str(), ""),
            (format!("/manifests/{digest}"), Kind::Manifest, &digest, &digest),
            (format!("/blobs/{digest}"), Kind::Blob, "", &digest),
            (format!("/referrers/{digest}"), Kind::Referrers, "", &digest),
            ("/tags/list".to_owned(), Kind::Tags, "", ""),
            (format!("/blobs/uploads/{tag}"), Kind::Upload, "", ""),
        ];
        for (path, kind, reference, digest) in rows {
            let uri = format!("/v2/{name}{path}{query}");
            let got = kind::Request::of(b"GET", uri.as_bytes());
            prop_assert_eq!(got.kind, kind);
            prop_assert_eq!(got.repository, name.as_bytes());
            prop_assert_eq!(got.reference, reference.as_bytes());
            prop_assert_eq!(got.digest, digest.as_bytes());

            // No name holds such a byte, and none but a dot may stand in one: not in front.
            let at = if byte == "." { 0 } else { bad.index(name.len()) };
            let mut name = name.clone();
            name.insert_str(at, &byte);
            let uri = format!("/v2/{name}{path}");
            prop_assert_eq!(kind::Request::of(b"GET", uri.as_bytes()).kind, Kind::Other);
        }
    }

    #[test]
    fn a_delay_is_what_is_left_until_a_date(now in 0_u64..4_000_000_000, seconds in 1_u64..3600) {
        let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(now + seconds);
        let date = httpdate::fmt_http_date(date);
        let delay = |value: &str| {
            retry_after::delay([value.as_bytes()].into_iter(), now, 1, 3_600_000)
        };
        prop_assert_eq!(delay(&date), seconds * 1000);
        prop_assert_eq!(delay(&seconds.to_string()), seconds * 1000);
        if now + seconds >= 1_000_000_000 {
            prop_assert_eq!(delay(&(now + seconds).to_string()), seconds * 1000);
        }
    }

    /// A simulation: requests come at random, some are asked about, some report and some never
    /// do, and the backend is down or up.
    #[test]
    fn a_backend_that_is_down_sees_few_and_one_that_is_up_sees_all(
        gaps in vec(0_u64..400, 300), lost in vec(any::<bool>(), 300),
        latency in 0_u64..300,
    ) {
        let settings = Settings::default();
        let mut records = Records::default();
        let mut now = 1_000;
        let mut asked_at = Vec::new();
        let mut reports: Vec<(u64, u64)> = Vec::new();
        for (gap, lost) in gaps.into_iter().zip(lost) {
            now += gap;
            reports.retain(|(asked, at)| {
                if *at <= now {
                    records.class.failed(*asked, *at, &settings);
                }
                *at > now
            });
            match breaker::decide(&mut records, Class::Blob, 0, now) {
                Way::PassBy(_) => {}
                Way::Ask => reports.push((now, now + latency)),
                Way::Probe => {
                    // One at a time, and never before its time.
                    let last = asked_at.last().copied().unwrap_or(0);
                    prop_assert!(now >= last + settings.backoff.min(PROBE));
                    asked_at.push(now);
                    if !lost {
                        reports.push((now, now + latency));
                    }
                }
            }
        }
        // It is up again: after the longest time that it may be open, everybody is served.
        let later = now + settings.max_backoff + PROBE;
        if records.class.state(later) != Admit::Pass {
            prop_assert_eq!(breaker::decide(&mut records, Class::Blob, 0, later), Way::Probe);
            records.class.succeeded(later);
        }
        prop_assert_eq!(records.class.state(later), Admit::Pass);
        prop_assert_eq!(breaker::decide(&mut records, Class::Blob, 0, later), Way::Ask);
    }

    #[test]
    fn what_limits_one_owner_limits_nobody_else(
        delay in 1_u64..100_000, now in 1_u64..1_000_000, reserve in 0_u32..100,
    ) {
        let mut owner = Breaker::default();
        owner.limited(now, delay);
        let shared = Records::default();
        for class in Class::ALL {
            let mut limited = Records { owner, ..shared };
            let way = breaker::decide(&mut limited, class, reserve, now);
            prop_assert_eq!(matches!(way, Way::PassBy(_)), class == Class::ManifestGet);
            let mut other = shared;
            prop_assert_eq!(breaker::decide(&mut other, class, reserve, now), Way::Ask);
        }
    }

    #[test]
    fn a_request_asks_each_target_once_and_ends(
        outcomes in vec(outcome(), 10), targets in 0_usize..8,
        passed_by in vec(0_usize..9, 0..9),
        get_or_head in any::<bool>(), has_body in any::<bool>(), looped in any::<bool>(),
        rewrites_realm in any::<bool>(),
        authorization in select(vec![
            Authorization::None, Authorization::Bearer, Authorization::Other,
        ]),
    ) {
        let request = Request { get_or_head, has_body, authorization, looped, rewrites_realm };
        let conditions = Conditions::default();
        let mut queue = Queue::default();
        passed_by.into_iter().for_each(|target| queue.pass_by(target));
        let mut target = queue.next(targets).unwrap();
        for outcome in outcomes {
            prop_assert!(target <= targets && !queue.asked(target));
            queue.ask(target);
            match decide(outcome, target, queue.next(targets), &request, &conditions) {
                Step::Next(next) => {
                    prop_assert!(target > 0 || request.may_fall_back());
                    target = next;
                }
                Step::Answer if target == 0 => return Ok(()),
                Step::Answer => {
                    prop_assert!(matches!(outcome, Outcome::Status(200..=299 | 304 | 401 | 416)));
                    return Ok(());
                }
                Step::Original => {
                    prop_assert_eq!(queue.next(targets), None);
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "it did not end");
    }

    #[test]
    fn what_a_client_asks_for_is_found_again_from_the_registrys_answer(
        repository in repository(), tail in tail(), style in 0..3,
    ) {
        let all = registries();
        let (uri, by) = match style {
            0 => (format!("/v2/{repository}{tail}"), By::Default),
            1 => (format!("/v2/ghcr.io/{repository}{tail}"), By::Prefix),
            _ => {
                let separator = if tail.contains('?') { '&' } else { '?' };
                (format!("/v2/{repository}{tail}{separator}ns=ghcr.io"), By::Namespace)
            }
        };
        let route = all.route(uri.as_bytes(), None).unwrap();
        prop_assert_eq!(route.by, by);
        prop_assert!(route.uri.ends_with(&tail));
        let own = match (by, repository.contains('/')) {
            (By::Default, false) => format!("library/{repository}"),
            _ => repository.clone(),
        };
        prop_assert_eq!(route.own_name(), Some(own.as_str()));

        let client = route.client_uri(&route.uri).unwrap();
        let asked = uri.replace("?ns=ghcr.io", "").replace("&ns=ghcr.io", "");
        prop_assert_eq!(client, asked);
        let scope = format!("repository:{own}:pull,push");
        prop_assert_eq!(route.registry.own_scope(&route.client_scope(&scope)), scope);
    }

    #[test]
    fn a_ticket_is_opened_by_its_key_alone(
        bytes in any::<[u8; 32]>(), other in any::<[u8; 32]>(),
        registry in "[a-z.:0-9]{0,20}", url in "[!-~]{0,200}", service in option::of("[ -~]{0,40}"),
        for_all in any::<bool>(),
    ) {
        let ticket = match service {
            Some(service) if service.len() % 2 == 0 => {
                Ticket::Realm { registry, realm: url, service: Some(service), for_all }
            }
            Some(_) => Ticket::Realm { registry, realm: url, service: None, for_all },
            None => Ticket::Upload { registry, uri: url },
        };
        let text = ticket.seal(&Key::new(bytes));
        prop_assert_eq!(Ticket::open(&text, &Key::new(bytes)), Some(ticket));
        prop_assert!(bytes == other || Ticket::open(&text, &Key::new(other)).is_none());
    }
}

/// A Docker Hub that is meant by default, and another registry.
fn registries() -> Registries {
    let mut all = Registries::default();
    for name in ["docker.io", "ghcr.io"] {
        let mut registry = Registry::named(name).unwrap();
        registry.default = name == "docker.io";
        all.add(registry).unwrap();
    }
    all
}

/// A repository's name.
fn repository() -> impl Strategy<Value = String> {
    vec("[a-z0-9]{1,4}((_|__|-{1,2})[a-z0-9]{1,3}){0,2}", 1..4).prop_map(|parts| parts.join("/"))
}

/// What stands behind a repository's name.
fn tail() -> impl Strategy<Value = String> {
    "(/manifests/[A-Za-z0-9_][A-Za-z0-9._-]{0,8}|/(blobs|referrers)/sha256(:|%3A)[0-9a-f]{4}\
     |/tags/list|/blobs/uploads/)(\\?n=[0-9]{1,2}&last=[!$%(-;=@-Z_a-z~]{0,8})?"
}

/// A component of a repository's name.
fn component() -> impl Strategy<Value = String> {
    "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}"
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Error),
        Just(Outcome::Timeout),
        Just(Outcome::Page),
        select(vec![200, 206, 304, 307, 401, 404, 416, 429, 500, 502, 503, 504])
            .prop_map(Outcome::Status),
    ]
}

/// What a JSON string that escapes quotes, backslashes and control characters means.
fn unescaped(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = String::new();
    while let Some(char) = chars.next() {
        out.push(match char {
            '\\' => match chars.next().unwrap() {
                'u' => {
                    let digits: String = chars.by_ref().take(4).collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap()
                }
                char => char,
            },
            char => char,
        });
    }
    out
}
