//! The registries behind one name: which are declared, and which of them a request means.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::rc::Rc;

use crate::authority::Authority;
use crate::challenge::is_path_byte;
use crate::kind::is_name;
use crate::location::Url;
use crate::syntax::{self, hex_digit};

/// A declared registry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Registry {
    /// The host in image references, `ghcr.io`: what `ns=` and path prefixes say. Lower case.
    pub name: String,
    /// Where it is; the path is `/`.
    pub origin: Url,
    /// Its token servers are below these; its own origin is always one of them.
    pub realms: Vec<Url>,
    /// The service that the first of its realms is asked for, if that is known.
    pub service: Option<String>,
    /// Hosts of the mirror that mean this registry. Lower case, without a port.
    pub aliases: Vec<String>,
    /// Images whose name is one word are below `library/`.
    pub library: bool,
    /// It is meant by requests that name none.
    pub default: bool,
}

/// A registry that needs nothing but its name.
struct WellKnown {
    name: &'static str,
    origin: &'static str,
    realms: &'static [&'static str],
    service: Option<&'static str>,
    library: bool,
}

/// Realms are as the registries' own challenges name them; each entry says where that is written.
const WELL_KNOWN: [WellKnown; 10] = [
    // distribution.github.io/distribution/spec/auth/token; the second realm is what its IPv6
    // endpoint names. `library/`: docs.docker.com, "Docker Official Images".
    WellKnown {
        name: "docker.io",
        origin: "https://registry-1.docker.io",
        realms: &["https://auth.docker.io/token", "https://auth.ipv6.docker.com/token"],
        service: Some("registry.docker.io"),
        library: true,
    },
    // docs.github.com, "Working with the Container registry".
    WellKnown {
        name: "ghcr.io",
        origin: "https://ghcr.io",
        realms: &["https://ghcr.io/token"],
        service: Some("ghcr.io"),
        library: false,
    },
    // docs.quay.io/api: the endpoint is a part of Quay itself (quay/quay, endpoints/v2/v2auth.py).
    WellKnown {
        name: "quay.io",
        origin: "https://quay.io",
        realms: &["https://quay.io/v2/auth"],
        service: Some("quay.io"),
        library: false,
    },
    // cloud.google.com/artifact-registry/docs/docker/authentication.
    WellKnown {
        name: "gcr.io",
        origin: "https://gcr.io",
        realms: &["https://gcr.io/v2/token"],
        service: Some("gcr.io"),
        library: false,
    },
    // kubernetes/registry.k8s.io, "request-handling": no authentication, redirects to a region.
    WellKnown {
        name: "registry.k8s.io",
        origin: "https://registry.k8s.io",
        realms: &[],
        service: None,
        library: false,
    },
    // mcr.microsoft.com: anonymous (microsoft/containerregistry).
    WellKnown {
        name: "mcr.microsoft.com",
        origin: "https://mcr.microsoft.com",
        realms: &[],
        service: None,
        library: false,
    },
    // The second realm comes with error="invalid_token" when a token of the first has expired
    // (NVIDIA/nvidia-container-toolkit, issue 1945).
    WellKnown {
        name: "nvcr.io",
        origin: "https://nvcr.io",
        realms: &["https://nvcr.io/proxy_auth", "https://authn.nvidia.com/token"],
        service: Some("nvcr.io"),
        library: false,
    },
    // docs.aws.amazon.com/AmazonECR, "Public registries".
    WellKnown {
        name: "public.ecr.aws",
        origin: "https://public.ecr.aws",
        realms: &["https://public.ecr.aws/token/"],
        service: Some("public.ecr.aws"),
        library: false,
    },
    // docs.gitlab.com/administration/packages/container_registry: the realm is GitLab's own host.
    WellKnown {
        name: "registry.gitlab.com",
        origin: "https://registry.gitlab.com",
        realms: &["https://gitlab.com/jwt/auth"],
        service: Some("container_registry"),
        library: false,
    },
    // elastic.co/guide, "Docker"; the realm is what its challenge names.
    WellKnown {
        name: "docker.elastic.co",
        origin: "https://docker.elastic.co",
        realms: &["https://docker-auth.elastic.co/auth"],
        service: Some("token-service"),
        library: false,
    },
];

impl Registry {
    /// The registry of this name, as far as it is known without its configuration: a well-known
    /// one, or else one at `https://` and the name. `None` if `name` is no host, perhaps with a
    /// port, in lower case.
    pub fn named(name: &str) -> Option<Self> {
        if name.starts_with('[')
            || name.ends_with('.')
            || name.bytes().any(|b| b.is_ascii_uppercase())
        {
            return None;
        }
        Authority::parse(name.as_bytes()).ok()?;
        let url = |text: &str| Url::parse(text.as_bytes()).ok();
        let known = WELL_KNOWN.iter().find(|known| known.name == name);
        let origin = match known {
            Some(known) => url(known.origin)?,
            None => url(&format!("https://{name}"))?,
        };
        Some(Self {
            name: name.to_owned(),
            origin,
            realms: known.iter().flat_map(|known| known.realms).filter_map(|r| url(r)).collect(),
            service: known.and_then(|known| known.service).map(str::to_owned),
            aliases: Vec::new(),
            library: known.is_some_and(|known| known.library),
            default: false,
        })
    }

    /// Whether the registry may have its tokens from `realm`: who asks there sends credentials.
    pub fn trusts(&self, realm: &Url) -> bool {
        let (path, _) = realm.uri.split_once('?').unwrap_or((&realm.uri, ""));
        stays_below(path)
            && (realm.same_origin(&self.origin)
                || self.realms.iter().any(|prefix| {
                    let rest = path.strip_prefix(prefix.uri.trim_end_matches('/'));
                    realm.same_origin(prefix)
                        && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                }))
    }

    /// The name of a repository as the registry has it, for one that a client asks by.
    pub fn own_name<'n>(&self, name: &'n str) -> Cow<'n, str> {
        let name = self.without_prefix(name).unwrap_or(name);
        if self.library && !name.contains('/') {
            Cow::Owned(format!("library/{name}"))
        } else {
            Cow::Borrowed(name)
        }
    }

    /// A repository's name behind this registry's own and a slash.
    fn without_prefix<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_prefix(self.name.as_str())?.strip_prefix('/')
    }
}

/// No segment of `path` may lead out of a prefix, however it is read.
pub(crate) fn stays_below(path: &str) -> bool {
    !path.contains("/.") && !path.contains(['%', '\\'])
}

/// The declared registries.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Registries {
    all: Vec<Rc<Registry>>,
    /// The one that is meant by requests that name none.
    default: Option<Rc<Registry>>,
    /// The hosts that mean one.
    aliases: Vec<(String, Rc<Registry>)>,
}

impl Registries {
    /// Declares a further registry.
    ///
    /// # Errors
    ///
    /// If a request could then mean two.
    pub fn add(&mut self, registry: Registry) -> Result<(), Conflict> {
        if self.get(&registry.name).is_some() {
            return Err(Conflict::Name(registry.name));
        }
        if let Some(other) = self.default.as_ref().filter(|_| registry.default) {
            return Err(Conflict::Default(other.name.clone()));
        }
        let is_taken = |alias: &&String| self.aliases.iter().any(|(other, _)| other == *alias);
        if let Some(alias) = registry.aliases.iter().find(is_taken) {
            return Err(Conflict::Alias(alias.clone()));
        }
        let registry = Rc::new(registry);
        let aliases = registry.aliases.iter().map(|alias| (alias.clone(), Rc::clone(&registry)));
        self.aliases.extend(aliases);
        if registry.default {
            self.default = Some(Rc::clone(&registry));
        }
        self.all.push(registry);
        Ok(())
    }

    /// All of them, in the order of their declarations.
    pub fn iter(&self) -> impl Iterator<Item = &Registry> {
        self.all.iter().map(Rc::as_ref)
    }

    /// The registry of this name.
    pub fn get(&self, name: &str) -> Option<&Rc<Registry>> {
        self.all.iter().find(|registry| registry.name == name)
    }

    /// The registry whose name is the first segment of `name`, if it has further ones.
    fn of_prefix(&self, name: &str) -> Option<&Rc<Registry>> {
        self.get(name.split_once('/')?.0)
    }

    /// The registry whose prefix the repository has that a query asks a token for. A client that
    /// learned of a token server by `/v2/` alone asks it for the images of all. Of several
    /// repositories, the first that is pushed to is meant, else the first: blobs are mounted from
    /// others.
    pub fn of_form(&self, form: &str) -> Option<&Rc<Registry>> {
        let scopes = form.split('&').filter_map(|field| unescaped(field.strip_prefix("scope=")?));
        let scopes: Vec<String> = scopes.collect();
        let repositories =
            scopes.iter().flat_map(|scopes| scopes.split(' ')).filter_map(repository);
        let is_pulled =
            |(_, _, actions): &(_, _, &str)| !actions.split(',').any(|action| action == "push");
        let (_, name, _) = repositories.min_by_key(is_pulled)?;
        self.of_prefix(name)
    }

    /// The registry that `host`, with or without a port, is an alias of.
    fn of_alias(&self, host: &[u8]) -> Option<&Rc<Registry>> {
        if self.aliases.is_empty() {
            return None;
        }
        let host = Authority::parse(host).ok()?.host;
        // nginx finds the server without the dot of a name that is absolute.
        let host = host.strip_suffix('.').unwrap_or(host);
        let found = self.aliases.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(host));
        found.map(|(_, registry)| registry)
    }
}

/// Two declarations that cannot both be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Conflict {
    /// Two registries of this name.
    Name(String),
    /// A host that means two registries.
    Alias(String),
    /// Another default beside this registry.
    Default(String),
}

/// How a request says which registry it means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    /// `?ns=` (OCI distribution-spec, "Registry Proxying").
    Namespace,
    /// `/v2/ghcr.io/...`
    Prefix,
    /// The host that it was sent to.
    Alias,
    /// It does not.
    Default,
}

/// Where a request of the registry API goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// To this registry,
    pub registry: Rc<Registry>,
    /// which was named so.
    pub by: By,
    /// What is asked for there: path and query.
    pub uri: String,
    /// Not for `/v2/` and `/v2/_catalog`.
    repository: Option<Repository>,
    /// What stands behind the session of an upload, where the request continues one: the session's
    /// last segment, and the query.
    pub upload: Option<(String, String)>,
}

/// The repository that is asked for, under its two names.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Repository {
    /// Where in the route's URI its registry's own name for it ends.
    end: usize,
    /// The client has put the registry's name in front.
    has_prefix: bool,
    /// The client has left `library/` out.
    is_official: bool,
}

/// Why a request goes nowhere.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// It is none of the registry API, or its repository's name is none: `NAME_INVALID`.
    Invalid,
    /// It means a registry that is not declared, or none at all: `NAME_UNKNOWN`.
    Unknown(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => f.write_str("invalid repository name"),
            Self::Unknown(name) if name.is_empty() => {
                f.write_str("the request names no registry, and this mirror has no default one")
            }
            Self::Unknown(name) => write!(f, "registry {name} is not served by this mirror"),
        }
    }
}

impl Registries {
    /// Which registry a request for `uri`, path and query as they came, to `host` means, and what
    /// it is to be asked.
    ///
    /// What stands behind the repository's name stays byte for byte, and so does the query but for
    /// `ns`.
    ///
    /// # Errors
    ///
    /// See [`Refusal`]. A path is refused that is none of the registry API, or could be read in two
    /// ways: with an escape in the name, an empty or a dot segment, a byte that a path does not
    /// hold.
    pub fn route(&self, uri: &[u8], host: Option<&[u8]>) -> Result<Route, Refusal> {
        let uri = str::from_utf8(uri).map_err(|_| Refusal::Invalid)?;
        let (path, query) = split_once(uri, b'?').unwrap_or((uri, ""));
        let rest = match path {
            "/v2" => "",
            _ => path.strip_prefix("/v2/").ok_or(Refusal::Invalid)?,
        };
        if !query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#') {
            return Err(Refusal::Invalid);
        }
        let (namespace, query) = without_namespace(query)?;
        let name = match rest {
            "" | "_catalog" => None,
            _ => Some(split_name(rest).ok_or(Refusal::Invalid)?),
        };
        let (registry, by) = self.meant(namespace.as_deref(), name.map(|(name, _)| name), host)?;

        let mut uri = String::with_capacity("/v2/library/".len() + rest.len() + 1 + query.len());
        uri.push_str("/v2/");
        let Some((name, tail)) = name else {
            uri.push_str(rest);
            let registry = Rc::clone(registry);
            return Ok(Route {
                registry,
                by,
                uri: with_query(uri, &query),
                repository: None,
                upload: None,
            });
        };
        let without_prefix = registry.without_prefix(name);
        let has_prefix = without_prefix.is_some();
        let name = without_prefix.unwrap_or(name);
        if !is_name(name.as_bytes()) {
            return Err(Refusal::Invalid);
        }
        let is_official = registry.library && !name.contains('/');
        if is_official {
            uri.push_str("library/");
        }
        uri.push_str(name);
        let repository = Some(Repository { end: uri.len(), has_prefix, is_official });
        uri.push_str(tail);
        let query = with_own_source(registry, query);
        let session = tail.strip_prefix("/blobs/uploads/").filter(|session| !session.is_empty());
        let upload = session.map(|session| (session.to_owned(), query.clone().into_owned()));
        let registry = Rc::clone(registry);
        Ok(Route { registry, by, uri: with_query(uri, &query), repository, upload })
    }

    /// The registry that a request means which names it by `namespace`, by the first segment of the
    /// repository's `name`, by `host`, or not at all.
    fn meant(
        &self,
        namespace: Option<&str>,
        name: Option<&str>,
        host: Option<&[u8]>,
    ) -> Result<(&Rc<Registry>, By), Refusal> {
        if let Some(namespace) = namespace {
            let unknown = || Refusal::Unknown(namespace.to_owned());
            return Ok((self.get(namespace).ok_or_else(unknown)?, By::Namespace));
        }
        let first = name.and_then(|name| split_once(name, b'/')).map(|(first, _)| first);
        if let Some(registry) = first.and_then(|first| self.get(first)) {
            return Ok((registry, By::Prefix));
        }
        if let Some(registry) = host.and_then(|host| self.of_alias(host)) {
            return Ok((registry, By::Alias));
        }
        match (&self.default, first) {
            (None, _) => Err(Refusal::Unknown(String::new())),
            // A host that is not declared must not be taken for a repository of the default's.
            (Some(_), Some(first)) if first.bytes().any(|byte| matches!(byte, b'.' | b':')) => {
                let is_host = Authority::parse(first.as_bytes()).is_ok();
                Err(if is_host { Refusal::Unknown(first.to_owned()) } else { Refusal::Invalid })
            }
            (Some(registry), _) => Ok((registry, By::Default)),
        }
    }
}

impl Route {
    /// The repository that is asked for, as its registry has it; not for `/v2/` and `/v2/_catalog`.
    pub fn own_name(&self) -> Option<&str> {
        self.uri.get("/v2/".len()..self.repository.as_ref()?.end)
    }

    /// The same as the client asks for it: with a registry's prefix if there was one.
    pub fn client_name(&self) -> Option<String> {
        let (repository, own) = (self.repository.as_ref()?, self.own_name()?);
        let name = own.strip_prefix("library/").filter(|_| repository.is_official).unwrap_or(own);
        Some(if repository.has_prefix {
            format!("{}/{name}", self.registry.name)
        } else {
            name.to_owned()
        })
    }

    /// The URI by which this client reaches what the registry has at `uri`; `None` if that is
    /// nothing of the request's repository, or of the catalog that was asked for.
    pub fn client_uri(&self, uri: &str) -> Option<String> {
        if self.repository.is_none() {
            let path = |uri| split_once(uri, b'?').map_or(uri, |(path, _)| path);
            return (path(uri) == path(&self.uri)).then(|| uri.to_owned());
        }
        let tail = uri.strip_prefix("/v2/")?.strip_prefix(self.own_name()?)?;
        if !tail.starts_with('/') {
            return None;
        }
        Some(format!("/v2/{}{tail}", self.client_name()?))
    }

    /// The scopes of a challenge (RFC 6749, section 3.3) as this client has to ask for them.
    pub fn client_scope(&self, scope: &str) -> String {
        each_name(scope, |name| match self.client_name() {
            Some(client) if self.own_name() == Some(name) => client,
            // Without a prefix, it might have another registry's.
            _ => format!("{}/{name}", self.registry.name),
        })
    }
}

impl Registry {
    /// The scopes that a client asks for, as the registry has them; each of them once.
    pub fn own_scope(&self, scope: &str) -> String {
        let scopes = each_name(scope, |name| self.own_name(name).into_owned());
        each_once(scopes.split(' ')).join(" ")
    }

    /// A query, or a form of type `application/x-www-form-urlencoded`, that asks for a token, as
    /// the registry's own clients would ask: with its scopes, each of them once, and with the
    /// `service` of the registry's challenge. Every other field stays byte for byte.
    pub fn own_form(&self, form: &str, service: Option<&str>) -> String {
        let mut fields: Vec<Cow<'_, str>> = Vec::new();
        if let Some(service) = service {
            fields.push(Cow::Owned(format!("service={}", escaped(service))));
        }
        for field in form.split('&').filter(|field| !field.is_empty()) {
            let field = match field.split_once('=') {
                Some(("service", _)) => continue,
                Some(("scope", value)) => {
                    let Some(scope) = unescaped(value) else { continue };
                    Cow::Owned(format!("scope={}", escaped(&self.own_scope(&scope))))
                }
                _ => Cow::Borrowed(field),
            };
            fields.push(field);
        }
        each_once(fields.iter().map(Cow::as_ref)).join("&")
    }
}

/// The texts in their order, without those that were there before.
fn each_once<'t>(texts: impl Iterator<Item = &'t str>) -> Vec<&'t str> {
    let mut seen = HashSet::new();
    texts.filter(|text| seen.insert(*text)).collect()
}

/// Whether a `Content-Type` is that of a form (HTML Living Standard, "URL-encoded form data").
pub fn is_form(content_type: &[u8]) -> bool {
    syntax::is_media_type(content_type, b"application/x-www-form-urlencoded")
}

/// What a field of a form means; `None` if it is no text.
fn unescaped(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => rest.next().and_then(hex_digit)? << 4 | rest.next().and_then(hex_digit)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A field of a form, or of a query, which means `text`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:,*".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// `type:name:actions`, separated by spaces: the names of repositories go through `name`. A name
/// may hold colons, the type and the actions do not (distribution, "Token Scope Documentation").
fn each_name(scope: &str, name: impl Fn(&str) -> String) -> String {
    let scopes = scope.split(' ').map(|scope| match repository(scope) {
        Some((kind, repository, actions)) => {
            Cow::Owned(format!("{kind}:{}:{actions}", name(repository)))
        }
        None => Cow::Borrowed(scope),
    });
    scopes.collect::<Vec<_>>().join(" ")
}

/// Type, name and actions of one of them, if it is of a repository.
fn repository(scope: &str) -> Option<(&str, &str, &str)> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let is_repository = kind == "repository" || kind.starts_with("repository(");
    is_repository.then_some((kind, name, actions))
}

/// The value of `ns`, if there is one, and the query without it.
fn without_namespace(query: &str) -> Result<(Option<String>, Cow<'_, str>), Refusal> {
    if query.is_empty() || !query.contains("ns=") {
        return Ok((None, Cow::Borrowed(query)));
    }
    let mut namespace = None;
    let mut kept = Vec::new();
    for pair in query.split('&') {
        let Some(value) = pair.strip_prefix("ns=") else {
            kept.push(pair);
            continue;
        };
        // A colon before a port is all that a client escapes.
        let value = value.replace("%3A", ":").replace("%3a", ":").to_ascii_lowercase();
        if namespace.as_ref().is_some_and(|other| *other != value) {
            return Err(Refusal::Invalid);
        }
        namespace = Some(value);
    }
    if let Some(value) = &namespace
        && Authority::parse(value.as_bytes()).is_err()
    {
        return Err(Refusal::Invalid);
    }
    Ok((namespace, Cow::Owned(kept.join("&"))))
}

/// The query with the registry's own name of the repository that a blob is mounted from (OCI
/// distribution-spec, "Mounting a blob from another repository").
fn with_own_source<'q>(registry: &Registry, query: Cow<'q, str>) -> Cow<'q, str> {
    if query.is_empty() || !query.contains("from=") {
        return query;
    }
    let pairs = query.split('&').map(|pair| {
        let Some(written) = pair.strip_prefix("from=") else { return Cow::Borrowed(pair) };
        let name = written.replace("%2F", "/").replace("%2f", "/").replace("%3A", ":");
        match registry.own_name(&name) {
            own if own != name && is_name(own.as_bytes()) => Cow::Owned(format!("from={own}")),
            _ => Cow::Borrowed(pair),
        }
    });
    Cow::Owned(pairs.collect::<Vec<_>>().join("&"))
}

/// As `split_once`, which searches in a way that pays for long texts.
fn split_once(text: &str, at: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|byte| byte == at)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// The same from the end, at a slash.
fn rsplit_once(text: &str) -> Option<(&str, &str)> {
    let at = text.bytes().rposition(|byte| byte == b'/')?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// `uri` with `query` at the end of its own, if that is anything.
pub fn with_query(mut uri: String, query: &str) -> String {
    if !query.is_empty() {
        uri.push(if uri.contains('?') { '&' } else { '?' });
        uri.push_str(query);
    }
    uri
}

/// `name/manifests/reference` and its siblings → the name, and the rest with its slash (OCI
/// distribution-spec, "Endpoints"). A name may hold these words itself: the last one counts.
fn split_name(path: &str) -> Option<(&str, &str)> {
    let (before, last) = rsplit_once(path)?;
    let (name, kind) = rsplit_once(before)?;
    let name = match (kind, last) {
        // A new upload, or one that goes on.
        ("uploads", _) => name.strip_suffix("/blobs")?,
        ("manifests" | "blobs" | "referrers", "") => return None,
        ("manifests" | "blobs" | "referrers", _) | ("tags", "list") => name,
        _ => return None,
    };
    let (name, tail) = path.split_at_checked(name.len())?;
    is_plain(last).then_some((name, tail))
}

/// A segment that nobody takes for several, for another directory, or for more than text.
fn is_plain(segment: &str) -> bool {
    let mut length = 0;
    let mut dots = 0;
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => match (bytes.next().and_then(hex_digit), bytes.next().and_then(hex_digit)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return false,
            },
            byte if is_path_byte(byte) => byte,
            _ => return false,
        };
        if !byte.is_ascii_graphic() || matches!(byte, b'/' | b'\\' | b'%' | b'?' | b'#') {
            return false;
        }
        length += 1;
        dots += usize::from(byte == b'.');
    }
    !(matches!(length, 1 | 2) && dots == length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries() -> Registries {
        let mut all = Registries::default();
        for name in ["docker.io", "ghcr.io", "quay.io", "localhost:5000"] {
            let mut registry = Registry::named(name).unwrap();
            registry.default = name == "docker.io";
            if name == "quay.io" {
                registry.aliases.push("quay.mirror.example".to_owned());
            }
            all.add(registry).unwrap();
        }
        all
    }

    fn routed(host: &str, uri: &str) -> Result<(String, By, String), Refusal> {
        let all = registries();
        let route = all.route(uri.as_bytes(), Some(host.as_bytes()))?;
        Ok((route.registry.name.clone(), route.by, route.uri))
    }

    #[test]
    fn a_request_goes_to_the_registry_that_it_means() {
        let rows = [
            ("ping", "m", "/v2/", "docker.io", By::Default, "/v2/"),
            ("ping without its slash", "m", "/v2", "docker.io", By::Default, "/v2/"),
            ("ping of a namespace", "m", "/v2/?ns=ghcr.io", "ghcr.io", By::Namespace, "/v2/"),
            ("catalog", "m", "/v2/_catalog?n=5", "docker.io", By::Default, "/v2/_catalog?n=5"),
            (
                "namespace",
                "m",
                "/v2/a/b/manifests/1?ns=ghcr.io",
                "ghcr.io",
                By::Namespace,
                "/v2/a/b/manifests/1",
            ),
            (
                "namespace among others",
                "m",
                "/v2/a/tags/list?n=5&ns=ghcr.io&last=%2f",
                "ghcr.io",
                By::Namespace,
                "/v2/a/tags/list?n=5&last=%2f",
            ),
            (
                "namespace with a port",
                "m",
                "/v2/a/tags/list?ns=LOCALHOST%3A5000",
                "localhost:5000",
                By::Namespace,
                "/v2/a/tags/list",
            ),
            (
                "namespace before prefix and host",
                "quay.mirror.example",
                "/v2/ghcr.io/a/manifests/1?ns=docker.io",
                "docker.io",
                By::Namespace,
                "/v2/ghcr.io/a/manifests/1",
            ),
            (
                "namespace and its own prefix",
                "m",
                "/v2/ghcr.io/a/b/manifests/1?ns=ghcr.io",
                "ghcr.io",
                By::Namespace,
                "/v2/a/b/manifests/1",
            ),
            (
                "prefix",
                "m",
                "/v2/ghcr.io/a/b/blobs/sha256:0?x=y",
                "ghcr.io",
                By::Prefix,
                "/v2/a/b/blobs/sha256:0?x=y",
            ),
            (
                "prefix with a port",
                "m",
                "/v2/localhost:5000/a/manifests/1",
                "localhost:5000",
                By::Prefix,
                "/v2/a/manifests/1",
            ),
            (
                "prefix before host",
                "quay.mirror.example",
                "/v2/ghcr.io/a/manifests/1",
                "ghcr.io",
                By::Prefix,
                "/v2/a/manifests/1",
            ),
            (
                "host",
                "QUAY.mirror.example:8443",
                "/v2/a/b/referrers/sha256:0",
                "quay.io",
                By::Alias,
                "/v2/a/b/referrers/sha256:0",
            ),
            (
                "library",
                "m",
                "/v2/nginx/manifests/latest",
                "docker.io",
                By::Default,
                "/v2/library/nginx/manifests/latest",
            ),
            (
                "library, of an image with a slash",
                "m",
                "/v2/a/nginx/manifests/latest",
                "docker.io",
                By::Default,
                "/v2/a/nginx/manifests/latest",
            ),
            (
                "library and prefix",
                "m",
                "/v2/docker.io/nginx/tags/list",
                "docker.io",
                By::Prefix,
                "/v2/library/nginx/tags/list",
            ),
            (
                "a registry's name alone",
                "m",
                "/v2/ghcr.io/tags/list",
                "docker.io",
                By::Default,
                "/v2/library/ghcr.io/tags/list",
            ),
            (
                "no library elsewhere",
                "m",
                "/v2/ghcr.io/nginx/manifests/1",
                "ghcr.io",
                By::Prefix,
                "/v2/nginx/manifests/1",
            ),
            (
                "words of the API in a name",
                "m",
                "/v2/ghcr.io/blobs/manifests/tags/list/manifests/1",
                "ghcr.io",
                By::Prefix,
                "/v2/blobs/manifests/tags/list/manifests/1",
            ),
            (
                "an escaped colon stays",
                "m",
                "/v2/a/b/blobs/sha256%3Aab",
                "docker.io",
                By::Default,
                "/v2/a/b/blobs/sha256%3Aab",
            ),
            (
                "a new upload",
                "m",
                "/v2/ghcr.io/a/b/blobs/uploads/",
                "ghcr.io",
                By::Prefix,
                "/v2/a/b/blobs/uploads/",
            ),
            (
                "a mount",
                "m",
                "/v2/ghcr.io/a/b/blobs/uploads/?mount=sha256:0&from=ghcr.io%2Fa%2Fc",
                "ghcr.io",
                By::Prefix,
                "/v2/a/b/blobs/uploads/?mount=sha256:0&from=a/c",
            ),
            (
                "a mount from another registry",
                "m",
                "/v2/ghcr.io/a/b/blobs/uploads/?from=quay.io%2Fa%2Fc",
                "ghcr.io",
                By::Prefix,
                "/v2/a/b/blobs/uploads/?from=quay.io%2Fa%2Fc",
            ),
        ];

        for (name, host, uri, registry, by, want) in rows {
            let got = routed(host, uri);
            assert_eq!(got, Ok((registry.to_owned(), by, want.to_owned())), "{name}");
        }
    }

    #[test]
    fn what_is_not_declared_is_unknown() {
        let rows = [
            ("namespace", "/v2/a/b/manifests/1?ns=stranger.example", "stranger.example"),
            ("ping of a namespace", "/v2/?ns=127.0.0.1:22", "127.0.0.1:22"),
            ("prefix", "/v2/stranger.example/a/manifests/1", "stranger.example"),
            ("prefix with a port", "/v2/localhost:1/a/manifests/1", "localhost:1"),
        ];

        for (name, uri, registry) in rows {
            let want = Refusal::Unknown(registry.to_owned());
            assert_eq!(routed("m", uri), Err(want), "{name}");
        }

        let mut one = Registries::default();
        one.add(Registry::named("ghcr.io").unwrap()).unwrap();
        for uri in ["/v2/", "/v2/a/b/manifests/1"] {
            assert_eq!(one.route(uri.as_bytes(), None), Err(Refusal::Unknown(String::new())));
        }
    }

    #[test]
    fn names_that_could_be_read_otherwise_are_invalid() {
        let long = format!("/v2/{}/manifests/1", "a".repeat(256));
        let rows = [
            ("not the API", "/v1/search"),
            ("the API's beginning", "/v22/"),
            ("nothing", ""),
            ("dot segment", "/v2/../manifests/1"),
            ("dot segment within", "/v2/a/../b/manifests/1"),
            ("dot segments behind the name", "/v2/a/manifests/.."),
            ("escaped dots", "/v2/a/manifests/%2e%2E"),
            ("escaped dots in the name", "/v2/%2e%2e/manifests/1"),
            ("escaped slash", "/v2/a%2fb/manifests/1"),
            ("escaped slash in the reference", "/v2/a/manifests/1%2f2"),
            ("escaped percent", "/v2/a/manifests/1%252f"),
            ("half an escape", "/v2/a/manifests/1%2"),
            ("no escape", "/v2/a/manifests/1%zz"),
            ("escaped NUL", "/v2/a/manifests/1%00"),
            ("NUL", "/v2/a/manifests/\0"),
            ("two slashes", "/v2/a//b/manifests/1"),
            ("slashes first", "/v2//manifests/1"),
            ("no name", "/v2/manifests/1"),
            ("no reference", "/v2/a/manifests/"),
            ("upper case", "/v2/A/manifests/1"),
            ("separator first", "/v2/-a/manifests/1"),
            ("separator last", "/v2/a./manifests/1"),
            ("three underscores", "/v2/a___b/manifests/1"),
            ("two dots", "/v2/a..b/manifests/1"),
            ("prefix and nothing", "/v2/ghcr.io//manifests/1"),
            ("backslash", "/v2/a\\b/manifests/1"),
            ("space", "/v2/a b/manifests/1"),
            ("beyond ASCII", "/v2/\u{fc}/manifests/1"),
            ("too long", &long),
            ("two namespaces", "/v2/?ns=docker.io&ns=ghcr.io"),
            ("empty namespace", "/v2/?ns="),
            ("namespace that is no host", "/v2/?ns=a/b"),
            ("fragment", "/v2/#"),
            ("unknown endpoint", "/v2/a/b/c"),
        ];

        for (name, uri) in rows {
            assert_eq!(routed("m", uri), Err(Refusal::Invalid), "{name}");
        }
        assert_eq!(registries().route(b"/v2/a/manifests/\xff", None), Err(Refusal::Invalid));
    }

    #[test]
    fn scopes_are_rewritten_both_ways() {
        let rows = [
            (
                "prefix",
                "/v2/ghcr.io/a/b/manifests/1",
                "repository:a/b:pull",
                "repository:ghcr.io/a/b:pull",
            ),
            (
                "several",
                "/v2/ghcr.io/a/b/blobs/uploads/",
                "repository:a/b:pull,push repository:c:pull registry:catalog:*",
                "repository:ghcr.io/a/b:pull,push repository:ghcr.io/c:pull registry:catalog:*",
            ),
            (
                "library",
                "/v2/nginx/manifests/1",
                "repository:library/nginx:pull",
                "repository:nginx:pull",
            ),
            (
                "library of the client's own",
                "/v2/library/nginx/manifests/1",
                "repository:library/nginx:pull",
                "repository:library/nginx:pull",
            ),
            (
                "class",
                "/v2/ghcr.io/a/manifests/1",
                "repository(plugin):a:pull",
                "repository(plugin):ghcr.io/a:pull",
            ),
            ("a port", "/v2/localhost:5000/a/manifests/1", "repository:a:*", {
                "repository:localhost:5000/a:*"
            }),
            (
                "namespace",
                "/v2/a/b/manifests/1?ns=ghcr.io",
                "repository:a/b:pull",
                "repository:a/b:pull",
            ),
            (
                "nothing that was asked for",
                "/v2/",
                "repository:ghcr.io/a/b:pull registry:catalog:*",
                "repository:docker.io/ghcr.io/a/b:pull registry:catalog:*",
            ),
            ("empty", "/v2/ghcr.io/a/manifests/1", "", ""),
            ("no scope", "/v2/ghcr.io/a/manifests/1", "repository:a", "repository:a"),
        ];

        let all = registries();
        for (name, uri, own, client) in rows {
            let route = all.route(uri.as_bytes(), None).unwrap();
            assert_eq!(route.client_scope(own), client, "{name}");
            assert_eq!(route.registry.own_scope(client), own, "{name}");
        }
        let hub = all.get("docker.io").unwrap();
        let both = "repository:nginx:pull repository:library/nginx:pull";
        assert_eq!(hub.own_scope(both), "repository:library/nginx:pull");
    }

    #[test]
    fn a_token_is_asked_for_as_the_registry_wants_it() {
        let rows = [
            (
                "prefix",
                "ghcr.io",
                "account=a%40b&scope=repository%3Aghcr.io%2Fa%2Fb%3Apull&service=m",
                "service=own%20one&account=a%40b&scope=repository:a/b:pull",
            ),
            (
                "several scopes, of which two mean the same",
                "docker.io",
                "scope=repository:nginx:pull&scope=repository:library/nginx:pull&offline_token=true",
                "service=own%20one&scope=repository:library/nginx:pull&offline_token=true",
            ),
            (
                "several in one field",
                "docker.io",
                "grant_type=password&scope=repository:a:pull+repository:b/c:pull%2Cpush",
                "service=own%20one&grant_type=password&\
                 scope=repository:library/a:pull%20repository:b/c:pull,push",
            ),
            ("nothing", "docker.io", "", "service=own%20one"),
            ("no text", "docker.io", "scope=%ff&scope=%2&a&=b", "service=own%20one&a&=b"),
        ];

        let all = registries();
        for (name, registry, form, want) in rows {
            let registry = all.get(registry).unwrap();
            assert_eq!(registry.own_form(form, Some("own one")), want, "{name}");
        }
        assert_eq!(all.get("ghcr.io").unwrap().own_form("service=x&a=b", None), "a=b");
    }

    #[test]
    fn a_form_takes_no_longer_for_what_a_stranger_has_put_in() {
        let hub = Registry::named("docker.io").unwrap();
        let many: Vec<String> = (0..200_000).map(|number| format!("{number:x}")).collect();
        for (separator, begin) in [("&", ""), ("%20", "scope=")] {
            let form = format!("{begin}{}", many.join(separator));
            assert_eq!(hub.own_form(&form, None), form);
        }
    }

    #[test]
    fn a_scope_tells_its_registry_by_a_prefix() {
        let rows = [
            ("scope=repository%3Aghcr.io%2Fa%3Apull", Some("ghcr.io")),
            ("a=b&scope=registry:catalog:*&scope=repository:localhost:5000/a:pull", {
                Some("localhost:5000")
            }),
            ("scope=repository:ghcr.io/a:push+repository:quay.io/a:pull", Some("ghcr.io")),
            ("scope=repository:a:pull+repository:quay.io/a:pull", None),
            ("scope=repository:quay.io/a:pull&scope=repository:a:pull,push", None),
            ("scope=repository:a:pull+repository:quay.io/a:push", Some("quay.io")),
            ("scope=repository:a/b:pull", None),
            ("scope=x:ghcr.io/a:pull", None),
            ("scope=repository:ghcr.io/a", None),
            ("scope=repository:ghcr.io:pull", None),
            ("scope=ghcr.io/a", None),
            ("", None),
        ];

        let all = registries();
        for (form, want) in rows {
            let found = all.of_form(form).map(|registry| registry.name.as_str());
            assert_eq!(found, want, "{form}");
        }
    }

    #[test]
    fn uris_of_the_repository_lead_back_to_it() {
        let all = registries();
        let route = all.route(b"/v2/ghcr.io/a/b/tags/list?n=2", None).unwrap();
        let rows = [
            ("/v2/a/b/tags/list?n=2&last=x", Some("/v2/ghcr.io/a/b/tags/list?n=2&last=x")),
            ("/v2/a/b/blobs/sha256:0", Some("/v2/ghcr.io/a/b/blobs/sha256:0")),
            ("/v2/a/bc/tags/list", None),
            ("/v2/c/tags/list", None),
            ("/elsewhere", None),
        ];

        for (uri, want) in rows {
            assert_eq!(route.client_uri(uri).as_deref(), want, "{uri}");
        }

        let catalog = all.route(b"/v2/_catalog?ns=ghcr.io", None).unwrap();
        for (uri, leads_back) in [
            ("/v2/_catalog?n=2&last=x", true),
            ("/v2/_catalog", true),
            ("/v2/_catalogs", false),
            ("/v2/a/tags/list", false),
            ("/", false),
        ] {
            assert_eq!(catalog.client_uri(uri).as_deref(), leads_back.then_some(uri));
        }
    }

    #[test]
    fn realms_are_trusted_below_their_prefix() {
        let mut registry = Registry::named("nvcr.io").unwrap();
        registry.realms.push(Url::parse(b"https://a.example/auth/").unwrap());
        let rows = [
            ("first", "https://nvcr.io/proxy_auth?a=b", true),
            ("second", "https://authn.nvidia.com/token?service=x", true),
            ("below", "https://authn.nvidia.com/token/x", true),
            ("own origin", "https://nvcr.io/v2/token", true),
            ("prefix with its slash", "https://a.example/auth", true),
            ("another path", "https://authn.nvidia.com/tokens", false),
            ("another host", "https://authn.nvidia.com.evil.example/token", false),
            ("another port", "https://authn.nvidia.com:8443/token", false),
            ("another scheme", "http://authn.nvidia.com/token", false),
            ("dot segments", "https://authn.nvidia.com/token/../x", false),
            ("escapes", "https://authn.nvidia.com/token/%2e%2e/x", false),
        ];

        for (name, realm, want) in rows {
            let realm = Url::parse(realm.as_bytes()).unwrap();
            assert_eq!(registry.trusts(&realm), want, "{name}");
        }
    }

    #[test]
    fn well_known_registries_are_complete() {
        for known in &WELL_KNOWN {
            let registry = Registry::named(known.name).unwrap();
            assert_eq!(registry.realms.len(), known.realms.len(), "{}", known.name);
            assert!(registry.realms.iter().all(|realm| registry.trusts(realm)), "{}", known.name);
            assert_eq!(registry.origin.uri, "/", "{}", known.name);
        }
    }

    #[test]
    fn two_registries_of_one_meaning_conflict() {
        let mut all = registries();
        let add = |all: &mut Registries, change: &dyn Fn(&mut Registry)| {
            let mut registry = Registry::named("a.example").unwrap();
            change(&mut registry);
            all.add(registry)
        };

        let again = add(&mut all, &|r| r.name = "ghcr.io".into());
        assert_eq!(again, Err(Conflict::Name("ghcr.io".into())));
        let alias = add(&mut all, &|r| r.aliases.push("quay.mirror.example".into()));
        assert_eq!(alias, Err(Conflict::Alias("quay.mirror.example".into())));
        let default = add(&mut all, &|r| r.default = true);
        assert_eq!(default, Err(Conflict::Default("docker.io".into())));
        assert_eq!(add(&mut all, &|_| {}), Ok(()));
    }
}
