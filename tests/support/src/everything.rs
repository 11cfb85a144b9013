//! A mirror on which every directive is on: what the tests of the whole run against.

use crate::hub::{AUTH, Hub, Kind, REGISTRY};
use crate::nginx::{Nginx, NginxBuilder};

/// The registry beside Docker Hub of the server that has several: `?ns=` leads there.
pub const OWN_REGISTRY: &str = "registry.example";

/// What its tickets are signed with.
pub const TOKEN_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A new directive of the `http` block has its line here.
const HTTP: &str = "
docker_zone       docker:1m;
docker_keepalive  32 timeout=5s;
docker_token_key  %prefix%/token.key;
";

/// A new directive of servers and locations has its line here; `%network%` is the hub's.
const SERVER: &str = "
docker_realm_rewrite    on;
docker_errors           on;
docker_follow_redirect  on private=%network%;
docker_breaker          on backoff=1ms max_backoff=1ms retry_after=1ms max_retry_after=1ms;
docker_fallback_reserve 5;
docker_resume           on tries=3 stall=300ms;
docker_verify           on;
docker_manifest_cache   zone=docker max=512k stale=1m;
";

/// An nginx before `hub`, with every directive of the module and these fallbacks: what stands
/// behind `docker_fallback`. The second server speaks HTTP/2, the third one has several registries,
/// one of them a new host of the hub. Log lines name every variable of the module.
#[must_use]
pub fn everything(hub: &Hub, fallbacks: &str) -> NginxBuilder {
    let own = SERVER.replace("%network%", &hub.network());
    hub.add_host_as(OWN_REGISTRY, Kind::Registry);
    let both = format!(
        "{own}
         access_log %prefix%/access.log everything;
         docker_fallback {fallbacks};"
    );
    let server = format!(
        "{both}
         location / {{ proxy_pass https://{REGISTRY}; }}
         location = /docker-status {{ docker_status; }}
         location /token {{ proxy_pass https://{AUTH}; docker_fallback {fallbacks}; }}"
    );
    let several = format!(
        "{both}
         docker_registry docker.io default;
         docker_registry {OWN_REGISTRY} realm=https://{AUTH}/token;
         docker_push     on;
         location /v2/    {{ proxy_pass $docker_upstream; }}
         location /token/ {{ proxy_pass $docker_upstream; }}"
    );
    Nginx::builder()
        .file("token.key", TOKEN_KEY)
        .http(&hub.http_conf())
        .http(HTTP)
        .http(
            "log_format everything '$remote_addr \"$request\" $status $body_bytes_sent '
                 '$docker_origin_host $docker_redirects $docker_fallback '
                 '$docker_kind $docker_repository $docker_reference $docker_digest '
                 '$docker_fallback_reason $docker_ratelimit_remaining '
                 '$docker_resumes $docker_manifest_cache '
                 '$upstream_addr $upstream_status';
             client_max_body_size 0;
             proxy_buffering off;
             proxy_buffer_size 64k;
             proxy_buffers 4 64k;
             proxy_max_temp_file_size 0;
             proxy_ignore_headers X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate \
                 X-Accel-Buffering X-Accel-Charset;",
        )
        .server(&server)
        .h2c_server(&server)
        .server(&several)
}
