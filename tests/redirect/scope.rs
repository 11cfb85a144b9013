//! Where the directive acts.

use support::{Fault, REGISTRY, get};

use crate::{CDN, follow, lead, mirror, start_hub};

#[test]
fn what_a_location_inherits_acts_on_the_registrys_api_alone() {
    let hub = start_hub();
    let to = format!("https://{CDN}/end");
    hub.on(REGISTRY, "/", Fault::redirect(302, &to));
    let follow = follow(&hub, "");
    let pass = format!("proxy_pass https://{REGISTRY};");
    let body = format!(
        "location / {{ {pass} }}
         location /mapped/ {{ proxy_pass https://{REGISTRY}/v2/; }}
         location /rewritten/ {{ rewrite ^/rewritten/(.*) /v2/$1 break; {pass} }}
         location /v2/web/ {{ proxy_pass https://{REGISTRY}/web/; }}
         location /v2/off/ {{ docker_follow_redirect off; {pass}
             location /v2/off/nested/ {{ {pass} }}
         }}
         location /own/ {{ {follow} {pass}
             location /own/nested/ {{ {pass} }}
             location /own/nested/v2/ {{ rewrite ^/own/nested(.*) $1 break; {pass} }}
         }}
         location /if/ {{ {follow} if ($arg_if) {{ add_header X-If 1 always; }} {pass} }}
         location /inherited-if/ {{ if ($arg_if) {{ add_header X-If 1 always; }} {pass} }}
         location /except/ {{ {follow} limit_except POST {{ allow all; }} {pass} }}"
    );
    let nginx = mirror(&hub)
        .http(&follow)
        .server(&body)
        .server(&format!("{follow} {body}"))
        .server(&format!("docker_follow_redirect off; {body}"))
        .start();
    // Followed under: http, server, off in the server.
    let cases = [
        ("/", [false, false, false]),
        ("/web/page", [false, false, false]),
        ("/v1/search", [false, false, false]),
        ("/v2", [false, false, false]),
        ("/v2x/", [false, false, false]),
        ("/v2/", [true, true, false]),
        ("/v2/x", [true, true, false]),
        ("/v2/x?a=b", [true, true, false]),
        ("/mapped/x", [true, true, false]),
        ("/rewritten/x", [true, true, false]),
        ("/v2/web/x", [false, false, false]),
        ("/v2/off/x", [false, false, false]),
        ("/v2/off/nested/x", [false, false, false]),
        ("/own/x", [true, true, true]),
        ("/own/nested/x", [false, false, false]),
        ("/own/nested/v2/x", [true, true, true]),
        ("/if/x", [true, true, true]),
        ("/if/x?if=1", [true, true, true]),
        ("/inherited-if/x?if=1", [false, false, false]),
        ("/except/x", [true, true, true]),
    ];

    for (target, followed) in cases {
        for (server, followed) in followed.into_iter().enumerate() {
            let answer = get(&nginx.url_of(server, target)).send();
            let name = format!("{target}, server {server}: {}", nginx.errors());
            if followed {
                assert_eq!(answer.text(), format!("{CDN} GET /end\n"), "{name}");
            } else {
                assert_eq!(answer.status, 302, "{name}");
                assert_eq!(answer.header("location"), Some(to.as_str()), "{name}");
            }
        }
    }
}

#[test]
fn without_the_directive_redirects_reach_the_client() {
    let hub = start_hub();
    let nginx =
        mirror(&hub).server(&format!("location / {{ proxy_pass https://{REGISTRY}; }}")).start();
    lead(&hub, format!("https://{CDN}/x"));
    let answer = get(&nginx.url("/v2/x")).send();
    assert_eq!(answer.status, 307);
    assert_eq!(hub.counts(CDN).connections, 0);
}
