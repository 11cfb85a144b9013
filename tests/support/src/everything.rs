//! A mirror on which every directive is on: what the tests of the whole run against.

use crate::hub::{AUTH, Hub, REGISTRY};
use crate::nginx::{Nginx, NginxBuilder};

/// A new directive of the `http` block has its line here.
const HTTP: &str = "
docker_zone       docker:1m;
docker_keepalive  32;
";

/// A new directive of servers and locations has its line here; `%network%` is the hub's.
const SERVER: &str = "
docker_realm_rewrite    on;
docker_follow_redirect  on private=%network%;
docker_breaker          on backoff=1ms max_backoff=1ms retry_after=1ms max_retry_after=1ms;
docker_fallback_reserve 5;
docker_resume           on tries=3 stall=300ms;
";

/// An nginx before `hub`, with every directive of the module and these fallbacks: what stands
/// behind `docker_fallback`. The second server speaks HTTP/2. Log lines name every variable of the module.
#[must_use]
pub fn everything(hub: &Hub, fallbacks: &str) -> NginxBuilder {
    let own = SERVER.replace("%network%", &hub.network());
    let server = format!(
        "{own}
         access_log %prefix%/access.log everything;
         docker_fallback {fallbacks};
         location / {{ proxy_pass https://{REGISTRY}; }}
         location = /docker-status {{ docker_status; }}
         location /token {{ proxy_pass https://{AUTH}; docker_fallback {fallbacks}; }}"
    );
    Nginx::builder()
        .http(&hub.http_conf())
        .http(HTTP)
        .http(
            "log_format everything '$remote_addr \"$request\" $status $body_bytes_sent '
                 '$docker_origin_host $docker_redirects $docker_fallback '
                 '$docker_kind $docker_repository $docker_reference $docker_digest '
                 '$docker_fallback_reason $docker_ratelimit_remaining '
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
}
