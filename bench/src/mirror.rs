//! The mirrors that are compared.

use std::path::{Path, PathBuf};

use rustls::ClientConfig;
use std::sync::Arc;
use support::{CLOUDFRONT, Nginx, NginxBuilder, REGISTRY, nginx_conf};

use crate::hub::{self, Host, Origin};
use crate::load::Target;

pub(crate) const NAME: &str = "mirror.example.com";

/// Idle connections that are kept to each host, as `docker-keepalive.conf` has it.
const KEEPALIVE: u32 = 64;

/// Registries beside Docker Hub.
const OTHERS: [&str; 11] = [
    "ghcr.io",
    "quay.io",
    "gcr.io",
    "registry.k8s.io",
    "mcr.microsoft.com",
    "nvcr.io",
    "public.ecr.aws",
    "registry.gitlab.com",
    "docker.elastic.co",
    "a.example",
    "b.example",
];

/// A way to serve blobs that a registry redirects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    Recipe,
    Groups,
    Script,
    Module,
    /// The module without `docker_resume`.
    Unresumed,
    /// The module with `docker_verify`.
    Verified,
    /// The module with a memory of who is limited.
    Zone,
    /// The same, and what it does is counted.
    Status,
    /// The module with a memory of manifests.
    Manifests,
    /// `proxy_pass` with variables, which nginx reads anew for each request.
    Variable,
    /// The module with one registry declared.
    Registry,
    /// The module with twelve registries declared.
    Registries,
    /// The same, where the module makes the connections.
    OwnConnections,
    Direct,
}

impl Way {
    pub(crate) const ALL: [Self; 5] =
        [Self::Recipe, Self::Groups, Self::Script, Self::Module, Self::Direct];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Recipe => "recipe",
            Self::Groups => "configuration",
            Self::Script => "njs",
            Self::Module => "module",
            Self::Unresumed => "module without docker_resume",
            Self::Verified => "module, docker_verify",
            Self::Zone => "module with a zone",
            Self::Status => "module with a zone and docker_status",
            Self::Manifests => "module, docker_manifest_cache",
            Self::Variable => "variables",
            Self::Registry => "module with a registry",
            Self::Registries => "module with registries",
            Self::OwnConnections => "module with registries and its own connections",
            Self::Direct => "CDN alone",
        }
    }
}

/// Where a mirror's origins are, and how they are spoken to.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'o> {
    pub(crate) origin: &'o Origin,
    pub(crate) tls: bool,
    /// Behind the delay lines.
    pub(crate) far: bool,
}

/// The texts of a mirror's configuration.
pub(crate) struct Text {
    pub(crate) http: String,
    pub(crate) server: String,
    /// `docker-mirror.conf` and what it takes to talk to this origin.
    pub(crate) common: String,
}

impl Setting<'_> {
    fn scheme(self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// An `upstream` block named after a host.
    fn group(self, name: &str, host: Host, keepalive: u32) -> String {
        let port = if self.tls { 443 } else { 80 };
        let address = self.origin.address(host);
        let keepalive = match keepalive {
            0 => String::new(),
            number => format!("keepalive {number};"),
        };
        format!("upstream {name} {{ server {address}:{port}; {keepalive} }}\n")
    }

    fn registry(self) -> Host {
        if self.far { Host::FarRegistry } else { Host::Registry }
    }

    fn cdn(self) -> Host {
        if self.far { Host::FarCdn } else { Host::Cdn }
    }

    /// The shipped proxy settings, which trust this origin.
    fn common(self) -> String {
        let bundle = "/etc/ssl/certs/ca-certificates.crt";
        let ours = self.origin.ca_file().display().to_string();
        nginx_conf("docker-mirror.conf", &[(bundle, &ours)])
    }

    pub(crate) fn text(self, way: Way) -> Text {
        let mut text = self.text_with_module(way);
        if !matches!(way, Way::Module | Way::Verified | Way::Zone | Way::Status | Way::Manifests) {
            let lines = text.common.lines().filter(|line| !line.trim().starts_with("docker_"));
            text.common = lines.collect::<Vec<_>>().join("\n");
        }
        text
    }

    fn text_with_module(self, way: Way) -> Text {
        let scheme = self.scheme();
        let resolver = format!("resolver {};\n", self.origin.resolver());
        let registry = |keepalive| self.group(REGISTRY, self.registry(), keepalive);
        let cdn = || self.group(CLOUDFRONT, self.cdn(), KEEPALIVE);
        let redirect = "
            proxy_intercept_errors on;
            error_page 301 302 307 = @redirect;";
        match way {
            // As it is published, but for the token that it sends to the CDN.
            Way::Recipe => Text {
                http: format!("{resolver}{}", registry(0)),
                server: format!(
                    "location /v2/ {{
                        proxy_pass {scheme}://{REGISTRY};
                        proxy_ssl_server_name on;
                        proxy_set_header Host {REGISTRY};
                        proxy_set_header X-Real-IP $remote_addr;
                        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                        proxy_set_header Authorization $http_authorization;
                        {redirect}
                    }}
                    location @redirect {{
                        set $target $upstream_http_location;
                        proxy_pass $target;
                        proxy_ssl_server_name on;
                        proxy_set_header Authorization \"\";
                    }}"
                ),
                // nginx 1.22 does not offer TLS 1.3 by itself.
                common: "proxy_ssl_protocols TLSv1.2 TLSv1.3;".to_owned(),
            },
            Way::Groups => Text {
                http: format!("{}{}", registry(KEEPALIVE), cdn()),
                server: format!(
                    "location /v2/ {{
                        proxy_pass {scheme}://{REGISTRY};
                        {redirect}
                    }}
                    location @redirect {{
                        set $target $upstream_http_location;
                        proxy_pass $target;
                        proxy_set_header Connection \"\";
                        proxy_set_header Authorization \"\";
                    }}"
                ),
                common: self.common(),
            },
            Way::Script => Text {
                http: format!("js_import mirror from mirror.js;\n{}{}", registry(KEEPALIVE), cdn()),
                server: format!(
                    "set $target \"\";
                    location /v2/ {{ js_content mirror.blob; }}
                    location /registry/ {{
                        internal;
                        proxy_pass {scheme}://{REGISTRY}/;
                    }}
                    location @redirect {{
                        proxy_pass $target;
                        proxy_set_header Connection \"\";
                        proxy_set_header Authorization \"\";
                    }}"
                ),
                common: self.common(),
            },
            Way::Module => Text {
                http: format!("{resolver}{}", registry(KEEPALIVE)),
                server: format!(
                    "docker_realm_rewrite on;
                    docker_follow_redirect on private={};
                    location /v2/ {{ proxy_pass {scheme}://{REGISTRY}; }}
                    location /other/ {{ return 200 other; }}",
                    self.origin.network()
                ),
                common: self.common(),
            },
            Way::Unresumed => self.text(Way::Module),
            Way::Verified => {
                let Text { http, server, common } = self.text(Way::Module);
                Text { http, server: format!("docker_verify on;\n{server}"), common }
            }
            Way::Zone => {
                let Text { http, server, common } = self.text(Way::Module);
                Text {
                    http: format!("docker_zone docker:1m;\n{http}"),
                    server: format!("docker_fallback http://fallback.invalid;\n{server}"),
                    common,
                }
            }
            Way::Status => {
                let Text { http, server, common } = self.text(Way::Zone);
                Text {
                    http,
                    server: format!("{server}\nlocation = /s {{ docker_status; }}"),
                    common,
                }
            }
            Way::Manifests => {
                let Text { http, server, common } = self.text(Way::Module);
                Text {
                    http: format!("docker_zone docker:1m;\n{http}"),
                    server: format!("docker_manifest_cache zone=docker;\n{server}"),
                    common,
                }
            }
            Way::Variable => {
                let Text { http, common, .. } = self.text(Way::Direct);
                Text {
                    http,
                    server: format!(
                        "set $registry {scheme}://{REGISTRY};
                        location /v2/ {{ proxy_pass $registry$request_uri; }}"
                    ),
                    common,
                }
            }
            // The connections are those of the upstream block: what differs is the choice.
            Way::Registry | Way::Registries | Way::OwnConnections => {
                let Text { http, common, .. } = self.text(Way::Module);
                let others: &[&str] = if way == Way::Registry { &[] } else { &OTHERS };
                let others: String =
                    others.iter().map(|name| format!("docker_registry {name};\n")).collect();
                Text {
                    http: if way == Way::OwnConnections { resolver } else { http },
                    server: format!(
                        "docker_realm_rewrite on;
                        docker_follow_redirect on private={};
                        {others}
                        docker_registry docker.io {scheme}://{REGISTRY} default;
                        location /v2/ {{ proxy_pass $docker_upstream; }}",
                        self.origin.network()
                    ),
                    common,
                }
            }
            Way::Direct => Text {
                http: format!("{}{}", registry(KEEPALIVE), cdn()),
                server: format!(
                    "location /registry-v2/ {{
                        proxy_pass {scheme}://{CLOUDFRONT};
                        proxy_set_header Connection \"\";
                        proxy_set_header Authorization \"\";
                    }}
                    location /v2/ {{ proxy_pass {scheme}://{REGISTRY}; }}
                    location /other/ {{ return 200 other; }}"
                ),
                common: self.common(),
            },
        }
    }
}

/// What the strongest rival without a module of its own does: a subrequest reads the redirect.
pub(crate) const SCRIPT: &str = r"
function blob(r) {
    r.subrequest('/registry' + r.uri, { args: r.variables.args || '' }, function (reply) {
        if (reply.status != 307) {
            r.return(reply.status, reply.responseText);
            return;
        }
        r.variables.target = reply.headersOut['Location'];
        r.internalRedirect('@redirect');
    });
}

export default { blob };
";

/// Where the modules are.
pub(crate) struct Modules {
    pub(crate) own: PathBuf,
    pub(crate) script: Option<PathBuf>,
}

impl Modules {
    pub(crate) fn of(&self, way: Way) -> Option<&Path> {
        match way {
            Way::Module
            | Way::Unresumed
            | Way::Verified
            | Way::Zone
            | Way::Status
            | Way::Manifests
            | Way::Registry
            | Way::Registries
            | Way::OwnConnections => Some(&self.own),
            Way::Script => self.script.as_deref(),
            Way::Recipe | Way::Groups | Way::Variable | Way::Direct => None,
        }
    }
}

/// A mirror that runs.
pub(crate) struct Mirror {
    pub(crate) way: Way,
    nginx: Nginx,
    tls: Arc<ClientConfig>,
}

impl Mirror {
    /// Starts a mirror with one worker. `more` replaces directives of `docker-mirror.conf`.
    pub(crate) fn start(
        way: Way,
        setting: Setting<'_>,
        modules: &Modules,
        more: &[(&str, &str)],
    ) -> Self {
        let Text { http, server, mut common } = setting.text(way);
        for (directive, value) in more {
            common = replaced(&common, directive, value);
        }
        let mut builder: NginxBuilder = Nginx::builder().without_module();
        if let Some(module) = modules.of(way) {
            builder = builder.load_module(module);
        }
        let nginx = builder
            .log_level("error")
            .main("worker_rlimit_nofile 16384;\nevents { worker_connections 8192; }")
            .file("mirror.js", SCRIPT)
            .http(&format!(
                "access_log off;\nssl_protocols TLSv1.3;\nkeepalive_requests 10000000;\n{http}"
            ))
            .tls_server(&format!("{common}\n{server}"))
            .start();
        let tls = support::tls_client(&nginx.ca_file(), &[]);
        Self { way, nginx, tls }
    }

    pub(crate) fn worker(&self) -> u32 {
        *self.nginx.workers().first().expect("a worker")
    }

    /// A blob of this size, asked as this mirror serves it.
    pub(crate) fn blob(&self, size: u64) -> Target {
        self.target(
            &if self.way == Way::Direct { hub::signed(size) } else { hub::blob(size) },
            size,
        )
    }

    /// The manifest.
    pub(crate) fn manifest(&self) -> Target {
        self.target(&hub::manifest(), hub::manifest_size())
    }

    /// The index.
    pub(crate) fn index(&self) -> Target {
        self.target(&hub::index(), hub::index_size())
    }

    fn target(&self, path: &str, length: u64) -> Target {
        Target {
            address: ([127, 0, 0, 1], self.nginx.port()).into(),
            tls: Some((NAME.to_owned(), Arc::clone(&self.tls))),
            request: hub::request(path, NAME),
            length,
        }
    }
}

/// A configuration with another value for one of its directives.
fn replaced(text: &str, directive: &str, value: &str) -> String {
    let is_it = |line: &&str| line.split_whitespace().next() == Some(directive);
    let mut lines: Vec<String> =
        text.lines().filter(|line| !is_it(line)).map(str::to_owned).collect();
    lines.push(format!("{directive} {value};"));
    lines.join("\n")
}
