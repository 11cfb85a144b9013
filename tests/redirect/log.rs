//! What is logged: who answered, and no secret.

use support::{Certificate, End, Fault, Hub, REGISTRY, Response, Shape, get, wait_for};

use crate::{CDN, IMPATIENT, OTHER, lead, mirror, server, start_hub};

#[test]
fn variables_say_who_answered_and_how_many_redirects_were_followed() {
    let hub = start_hub();
    let format = "log_format own '$uri host=$docker_origin_host redirects=$docker_redirects \
                  fallback=$docker_fallback status=$status upstream=$upstream_status';";
    let nginx = mirror(&hub)
        .http(format)
        .server(&format!(
            "access_log %prefix%/access.log own;
             location = /none {{ return 200; }}
             location = /static {{ root %prefix%; }}
             {}",
            server(&hub, "")
        ))
        .start();
    hub.on(REGISTRY, "/v2/plain", Fault::Answer(Response::text(200, "plain").into()));
    let to = |path: &str, location: String| hub.on(REGISTRY, path, Fault::redirect(302, location));
    to("/v2/one", format!("https://{CDN}/x"));
    to("/v2/port", format!("https://{CDN}:8443/x"));
    hub.listen(CDN, 8443, true);
    to("/v2/relative", "/v2/plain".to_owned());
    to("/v2/refused", format!("http://{CDN}/x"));
    to("/v2/dead", format!("https://{}.250/x", network(&hub)));
    to("/v2/unknown", "https://nowhere.example/x".to_owned());
    let chain = hub.chain(&[REGISTRY, CDN, OTHER], 3, 307, &format!("https://{CDN}/x"));
    let cases = [
        ("/none", "- redirects=0", "200 upstream=-"),
        ("/static", "- redirects=0", "404 upstream=-"),
        ("/v2/plain", "registry-1.docker.io redirects=0", "200 upstream=200"),
        ("/v2/one", "cdn.example redirects=1", "200 upstream=302 : 200"),
        ("/v2/port", "cdn.example redirects=1", "200 upstream=302 : 200"),
        ("/v2/relative", "registry-1.docker.io redirects=1", "200 upstream=302 : 200"),
        (&chain, "cdn.example redirects=3", "200 upstream=307 : 307 : 307 : 200"),
        ("/v2/refused", "registry-1.docker.io redirects=0", "502 upstream=302"),
        ("/v2/dead", "registry-1.docker.io redirects=1", "502 upstream=302 : 502"),
        ("/v2/unknown", "registry-1.docker.io redirects=1", "502 upstream=302, 502"),
    ];
    for (number, (target, host, status)) in cases.into_iter().enumerate() {
        let _ = get(&nginx.url(target)).send();
        wait_for("the access log", || nginx.accesses().lines().count() > number);
        let want = format!("{target} host={host} fallback= status={status}");
        let log = nginx.accesses();
        assert_eq!(log.lines().last(), Some(want.as_str()), "{}", nginx.errors());
    }
}

fn network(hub: &Hub) -> String {
    hub.address(CDN).to_string().rsplit_once('.').unwrap().0.to_owned()
}

type Befallen = (&'static str, fn(&Hub));

#[test]
fn no_query_no_token_and_no_password_is_logged() {
    let hub = start_hub();
    let nginx = mirror(&hub).http(IMPATIENT).server(&server(&hub, "hops=2")).start();
    let befallen: [Befallen; 15] = [
        ("nothing", |_| {}),
        ("403", |hub| hub.on(CDN, "/", Fault::Status(403))),
        ("closed", |hub| hub.on(CDN, "/", Fault::Close(End::Close))),
        ("cut", |hub| hub.on(CDN, "/", Fault::Shape(Shape::CutBody(3, End::Close)))),
        ("stalled body", |hub| hub.on(CDN, "/", Fault::Shape(Shape::StallBody(3)))),
        ("no answer", |hub| hub.on(CDN, "/", Fault::Stall)),
        ("invalid header", |hub| hub.on(CDN, "/", Fault::raw("HTTP/1.1 200 OK\r\nx\r\n\r\n"))),
        ("wrong certificate", |hub| {
            hub.certificate(CDN, Certificate::WrongName);
            hub.disconnect(CDN);
        }),
        ("a further redirect", |hub| {
            hub.certificate(CDN, Certificate::Good);
            hub.on(CDN, "/", Fault::redirect(302, "/y?SECRET-again"));
        }),
        ("a password", |hub| {
            lead(hub, "https://user:SECRET-password@cdn.example/x?SECRET-signature");
        }),
        ("downgrade", |hub| lead(hub, "http://cdn.example/x?SECRET-signature")),
        ("garbage", |hub| lead(hub, "https://cdn.example/x?SECRET-sign ature")),
        ("unknown name", |hub| lead(hub, "https://nowhere.example/x?SECRET-signature")),
        ("inside", |hub| lead(hub, "https://10.0.0.1/x?SECRET-signature")),
        ("dead host", |hub| {
            lead(hub, "https://cdn.example/x?SECRET-signature");
            hub.refuse(CDN);
        }),
    ];
    lead(&hub, format!("https://{CDN}/x?SECRET-signature"));
    for (name, befall) in befallen {
        hub.off(CDN);
        befall(&hub);
        let request = get(&nginx.url("/v2/x")).bearer("SECRET-token");
        let answer = request.header("Cookie", "a=SECRET-cookie").try_send();
        if let Ok(answer) = answer {
            let text = answer.text();
            assert!(name == "nothing" || !text.contains("SECRET"), "{name}: {text}");
        }
        let log = nginx.errors() + &nginx.accesses();
        let line = log.lines().find(|line| line.contains("SECRET"));
        assert_eq!(line, None, "{name}");
    }
    assert!(nginx.errors().contains("/x\""), "URLs are logged all the same: {}", nginx.errors());
}
