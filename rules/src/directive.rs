//! The arguments of the module's directives, as they stand behind the directive's name.

use std::fmt;

use crate::address::Cidr;
use crate::breaker;
use crate::challenge;
use crate::fallback::{Conditions, Credentials, Target};
use crate::location::Url;
use crate::redirect::{Allow, Policy};
use crate::registry::{Conflict, Registry, stays_below};
use crate::syntax::decimal;

/// The redirects and the fallback targets of a location, together: nginx allows a request ten
/// internal redirects, and some of them are the user's.
pub const MAX_ATTEMPTS: usize = 8;

/// The longest time that a parameter takes, in milliseconds: 24 days, what nginx's timers hold on
/// every platform.
const MAX_TIME: u64 = 24 * 24 * 60 * 60 * 1000;
const MAX_NUMBER: u64 = 1_000_000_000;
const MAX_CONNECTIONS: u64 = 65_536;
const MAX_FAILURES: u64 = 1000;
/// What an attempt leaves behind is freed with its request only: some kilobytes.
const MAX_TRIES: u64 = 1000;

/// An argument that a directive does not take. Its text is nginx's; the directive's name belongs
/// in between: `invalid value "x" in "docker_fallback" directive, it must be ...`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ArgError {
    /// The argument as written.
    pub value: String,
    /// What is allowed, behind "it must be".
    pub allowed: String,
}

impl ArgError {
    fn new(value: &str, allowed: impl Into<String>) -> Self {
        Self { value: value.to_owned(), allowed: allowed.into() }
    }
}

impl fmt::Display for ArgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid value \"{}\", it must be {}", self.value, self.allowed)
    }
}

impl std::error::Error for ArgError {}

/// What a parameter gives up of the safety that there is without it, whichever the directive.
pub fn weakness(arg: &str) -> Option<&'static str> {
    match arg.split_once('=') {
        Some(("verify", "off")) => Some("certificates are not checked"),
        Some(("private", _)) => Some("requests may be led to addresses that are not public"),
        _ => None,
    }
}

const ONLY: &str = "the only argument";
const ONCE: &str = "given once only";

/// `docker_realm_rewrite on | off | url`
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Realm<'a> {
    /// `off`
    Off,
    /// `on`: the scheme and the authority of the request.
    On,
    /// The URL to begin the realm with, perhaps with variables. Without them it is a
    /// [`challenge::valid_base`].
    Url(&'a str),
}

/// Reads the arguments of `docker_realm_rewrite`.
///
/// # Errors
///
/// If there is not exactly one argument, or it is none of `on`, `off` and a URL. A value with
/// variables is checked as far as it is known: at run time it may still be no URL.
pub fn realm_rewrite<'a>(args: &[&'a str]) -> Result<Realm<'a>, ArgError> {
    const ALLOWED: &str = "\"on\", \"off\", or a URL that begins with \"http://\" or \"https://\" \
                           and holds nothing but a host, a port and a path";
    match args {
        ["on"] => Ok(Realm::On),
        ["off"] => Ok(Realm::Off),
        [url] if is_base(url) => Ok(Realm::Url(url)),
        [first, _, ..] => Err(ArgError::new(first, ONLY)),
        _ => Err(ArgError::new(args.first().unwrap_or(&""), ALLOWED)),
    }
}

fn is_base(url: &str) -> bool {
    if !url.contains('$') {
        return challenge::valid_base(url.as_bytes());
    }
    // What a variable holds is known at run time only; what stands around it is known now.
    let known = url.split('$').next().unwrap_or_default().to_ascii_lowercase();
    let begins = |scheme: &&str| known.starts_with(*scheme) || scheme.starts_with(&known);
    ["http://", "https://"].iter().any(begins)
        && url.bytes().all(|byte| challenge::is_path_byte(byte) || b"[]{}".contains(&byte))
}

/// Reads the arguments of `docker_follow_redirect`; `None` is `off`.
///
/// # Errors
///
/// If there is not exactly one `on` or `off`, if anything stands beside `off`, or at a parameter
/// that is unknown, repeated (but for different values of `allow` and `private`), or has a value
/// that it does not take.
pub fn follow_redirect(args: &[&str]) -> Result<Option<Policy>, ArgError> {
    const ALLOWED: &str = "\"on\", \"off\", \"hops=number\", \"allow=host[:port]\", \
                           \"private=network\" or \"verify=on|off\"";
    if is_off(args)? {
        return Ok(None);
    }

    let mut policy = Policy::default();
    let mut given = Given::default();
    for arg in args {
        match arg.split_once('=') {
            None if *arg == "on" => given.once(arg, "on")?,
            Some(("hops", value)) => {
                given.once(arg, "hops")?;
                let hops = number(arg, value, MAX_ATTEMPTS as u64)?;
                policy.hops = u8::try_from(hops).unwrap_or(u8::MAX);
            }
            Some(("allow", value)) => {
                given.once(arg, arg)?;
                policy.allow.push(Allow::parse(value).map_err(|cause| {
                    let forms = "\"allow=host\", \"allow=.suffix\" or \"allow=~regex\", with or \
                                 without \":port\"";
                    ArgError::new(arg, format!("{forms}: {cause}"))
                })?);
            }
            Some(("private", value)) => {
                given.once(arg, arg)?;
                policy.private.push(value.parse::<Cidr>().map_err(|cause| {
                    ArgError::new(arg, format!("a network such as \"private=10.0.0.0/8\": {cause}"))
                })?);
            }
            Some(("verify", value)) => {
                given.once(arg, "verify")?;
                policy.verify = flag(arg, value)?;
            }
            _ => return Err(ArgError::new(arg, ALLOWED)),
        }
    }
    given.on(args)?;
    Ok(Some(policy))
}

/// Reads the arguments of one `docker_fallback`; `None` is `off`.
///
/// # Errors
///
/// If there is no URL, or more than [`MAX_ATTEMPTS`], or the same twice; if anything stands beside
/// `off`; or at a parameter that is unknown, repeated, or has a value that it does not take.
pub fn fallback(args: &[&str]) -> Result<Option<Vec<Target>>, ArgError> {
    const CREDENTIALS: &str = "\"credentials=bearer\" or \"credentials=none\"";
    if is_off(args)? {
        return Ok(None);
    }

    let mut bases: Vec<Url> = Vec::new();
    let mut credentials = Credentials::Bearer;
    let mut verify = true;
    let mut given = Given::default();
    for arg in args {
        if let Some(value) = arg.strip_prefix("credentials=") {
            given.once(arg, "credentials")?;
            credentials = match value {
                "bearer" => Credentials::Bearer,
                "none" => Credentials::None,
                _ => return Err(ArgError::new(arg, CREDENTIALS)),
            };
        } else if let Some(value) = arg.strip_prefix("verify=") {
            given.once(arg, "verify")?;
            verify = flag(arg, value)?;
        } else {
            let base = fallback_base(arg)?;
            if bases.contains(&base) {
                return Err(ArgError::new(arg, ONCE));
            }
            bases.push(base);
        }
    }

    if bases.is_empty() {
        return Err(ArgError::new(args.first().unwrap_or(&""), "given together with a URL"));
    }
    if let Some(arg) = bases.get(MAX_ATTEMPTS).and(args.last()) {
        return Err(ArgError::new(arg, format!("one of at most {MAX_ATTEMPTS} URLs")));
    }
    Ok(Some(bases.into_iter().map(|base| Target { base, credentials, verify }).collect()))
}

fn fallback_base(arg: &str) -> Result<Url, ArgError> {
    const ALLOWED: &str = "\"off\", \"credentials=bearer|none\", \"verify=on|off\", or a URL that \
                           begins with \"http://\" or \"https://\" and holds nothing but a host, \
                           a port and a path";
    if arg.contains('$') {
        return Err(ArgError::new(arg, "a URL without variables"));
    }
    if arg.contains(['?', '#']) {
        return Err(ArgError::new(arg, ALLOWED));
    }
    let mut base = Url::parse(arg.as_bytes())
        .map_err(|cause| ArgError::new(arg, format!("{ALLOWED}: {cause}")))?;
    base.uri.truncate(base.uri.trim_end_matches('/').len());
    Ok(base)
}

/// Reads the arguments of `docker_fallback_on`.
///
/// # Errors
///
/// At an argument that is given twice, or is no condition. 401 and 407 are none: who answers them
/// wants credentials, and another server would not know the client's.
pub fn fallback_on(args: &[&str]) -> Result<Conditions, ArgError> {
    const ALLOWED: &str = "\"error\", \"timeout\", or \"http_\" with a status from 400 to 599, but \
                           not 401 or 407";
    let mut conditions = Conditions { error: false, timeout: false, statuses: Vec::new() };
    let mut given = Given::default();
    for arg in args {
        given.once(arg, arg)?;
        match *arg {
            "error" => conditions.error = true,
            "timeout" => conditions.timeout = true,
            _ => {
                let status = arg.strip_prefix("http_").and_then(status);
                conditions.statuses.push(status.ok_or_else(|| ArgError::new(arg, ALLOWED))?);
            }
        }
    }
    if args.is_empty() {
        return Err(ArgError::new("", ALLOWED));
    }
    Ok(conditions)
}

fn status(digits: &str) -> Option<u16> {
    let status = decimal(digits).filter(|_| digits.len() == 3)?;
    let valid = (400..=599).contains(&status) && status != 401 && status != 407;
    u16::try_from(status).ok().filter(|_| valid)
}

/// `docker_keepalive`: what each worker keeps of its connections to run-time origins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Keepalive {
    /// Idle connections, to all origins together; 0 is `off`.
    pub connections: usize,
    /// How long a connection may be idle, in milliseconds.
    pub timeout: u64,
    /// Requests that a connection may carry.
    pub requests: u64,
    /// How long a connection may live, in milliseconds.
    pub time: u64,
}

impl Keepalive {
    /// The number of idle connections unless it is configured.
    pub const CONNECTIONS: usize = 128;
}

impl Default for Keepalive {
    /// As nginx's own `keepalive` of an upstream.
    fn default() -> Self {
        Self {
            connections: Self::CONNECTIONS,
            timeout: 60 * 1000,
            requests: 1000,
            time: 60 * 60 * 1000,
        }
    }
}

/// Reads the arguments of `docker_keepalive`.
///
/// # Errors
///
/// If there is not exactly one number or `off`, if anything stands beside `off`, or at a parameter
/// that is unknown, repeated, or has a value that it does not take.
pub fn keepalive(args: &[&str]) -> Result<Keepalive, ArgError> {
    const ALLOWED: &str = "a number of connections, \"off\", \"timeout=time\", \
                           \"requests=number\" or \"time=time\"";
    if is_off(args)? {
        return Ok(Keepalive { connections: 0, ..Keepalive::default() });
    }

    let mut keepalive = Keepalive::default();
    let mut given = Given::default();
    for arg in args {
        match arg.split_once('=') {
            None if decimal(arg).is_some() => {
                given.once(arg, "number")?;
                let connections = number(arg, arg, MAX_CONNECTIONS)?;
                keepalive.connections = usize::try_from(connections).unwrap_or(usize::MAX);
            }
            Some(("timeout", value)) => {
                given.once(arg, "timeout")?;
                keepalive.timeout = time(arg, value)?;
            }
            Some(("requests", value)) => {
                given.once(arg, "requests")?;
                keepalive.requests = number(arg, value, MAX_NUMBER)?;
            }
            Some(("time", value)) => {
                given.once(arg, "time")?;
                keepalive.time = time(arg, value)?;
            }
            _ => return Err(ArgError::new(arg, ALLOWED)),
        }
    }
    if !given.0.contains(&"number") {
        let first = args.first().unwrap_or(&"");
        return Err(ArgError::new(first, "given together with a number of connections"));
    }
    Ok(keepalive)
}

/// Reads the arguments of `docker_breaker`; `None` is `off`.
///
/// # Errors
///
/// If there is no argument, if anything stands beside `off`, or at a parameter that is unknown,
/// repeated, or has a value that it does not take; a longest time that is shorter than the one it
/// limits is none.
pub fn breaker(args: &[&str]) -> Result<Option<breaker::Settings>, ArgError> {
    const ALLOWED: &str = "\"on\", \"off\", \"failures=number\", \"backoff=time\", \
                           \"max_backoff=time\", \"retry_after=time\" or \
                           \"max_retry_after=time\"";
    if is_off(args)? {
        return Ok(None);
    }
    if args.is_empty() {
        return Err(ArgError::new("", ALLOWED));
    }

    let mut settings = breaker::Settings::default();
    let mut given = Given::default();
    for arg in args {
        let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
        let target = match name {
            "on" if *arg == "on" => {
                given.once(arg, name)?;
                continue;
            }
            "failures" => {
                given.once(arg, name)?;
                let failures = number(arg, value, MAX_FAILURES)?;
                settings.failures = u32::try_from(failures).unwrap_or(u32::MAX);
                continue;
            }
            "backoff" => &mut settings.backoff,
            "max_backoff" => &mut settings.max_backoff,
            "retry_after" => &mut settings.retry_after,
            "max_retry_after" => &mut settings.max_retry_after,
            _ => return Err(ArgError::new(arg, ALLOWED)),
        };
        given.once(arg, name)?;
        *target = time(arg, value)?;
    }

    let breaker::Settings { backoff, max_backoff, retry_after, max_retry_after, .. } = settings;
    for (name, least, most) in
        [("backoff", backoff, max_backoff), ("retry_after", retry_after, max_retry_after)]
    {
        let arg = args.iter().find(|arg| arg.contains(&format!("{name}=")));
        if let Some(arg) = arg.filter(|_| most < least) {
            return Err(ArgError::new(arg, format!("no more than \"max_{name}\"")));
        }
    }
    Ok(Some(settings))
}

/// Reads the argument of `docker_fallback_reserve`, a number of requests; 0 keeps none.
///
/// # Errors
///
/// If there is not exactly one argument, or it is no such number.
pub fn fallback_reserve(args: &[&str]) -> Result<u32, ArgError> {
    match args {
        [arg] => decimal(arg)
            .filter(|number| *number <= MAX_NUMBER)
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| ArgError::new(arg, format!("a number from 0 to {MAX_NUMBER}"))),
        _ => Err(ArgError::new(args.get(1).unwrap_or(&""), ONLY)),
    }
}

/// Reads the argument of `docker_errors`.
///
/// # Errors
///
/// If it is not `on` or `off` alone.
pub fn errors(args: &[&str]) -> Result<bool, ArgError> {
    on_or_off(args)
}

/// Reads the argument of `docker_verify`.
///
/// # Errors
///
/// If it is not `on` or `off` alone.
pub fn verify(args: &[&str]) -> Result<bool, ArgError> {
    on_or_off(args)
}

/// Reads the argument of `docker_push`.
///
/// # Errors
///
/// If it is not `on` or `off` alone.
pub fn push(args: &[&str]) -> Result<bool, ArgError> {
    on_or_off(args)
}

/// `docker_manifest_cache`
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ManifestCache<'a> {
    /// The zone that holds the manifests.
    pub zone: &'a str,
    /// The largest manifest that is kept, in bytes.
    pub max: usize,
    /// How long a manifest may be given to anonymous clients after the last one had it by
    /// upstream's leave, in milliseconds, while upstream fails.
    pub stale: Option<u64>,
}

impl ManifestCache<'_> {
    /// The largest manifest that is kept, unless it is configured, in bytes.
    pub const MAX: usize = 1 << 20;
    /// The largest that can be: it lies in a worker's memory while it is passed on.
    const MAX_MAX: usize = 16 << 20;
}

/// Reads the arguments of `docker_manifest_cache`; `None` is `off`.
///
/// # Errors
///
/// If there is no zone, if anything stands beside `off`, or at a parameter that is unknown,
/// repeated, or has a value that it does not take.
pub fn manifest_cache<'a>(args: &[&'a str]) -> Result<Option<ManifestCache<'a>>, ArgError> {
    const ALLOWED: &str = "\"zone=name\", \"max=size\", \"stale=time\" or \"off\"";
    if is_off(args)? {
        return Ok(None);
    }

    let mut cache = ManifestCache { zone: "", max: ManifestCache::MAX, stale: None };
    let mut given = Given::default();
    for arg in args {
        match arg.split_once('=') {
            Some(("zone", value)) if !value.is_empty() => {
                given.once(arg, "zone")?;
                cache.zone = value;
            }
            Some(("max", value)) => {
                given.once(arg, "max")?;
                cache.max = bytes(value)
                    .filter(|size| (1..=ManifestCache::MAX_MAX).contains(size))
                    .ok_or_else(|| ArgError::new(arg, "a size from 1 to \"16m\""))?;
            }
            Some(("stale", value)) => {
                given.once(arg, "stale")?;
                cache.stale = Some(time(arg, value)?);
            }
            _ => return Err(ArgError::new(arg, ALLOWED)),
        }
    }
    if cache.zone.is_empty() {
        return Err(ArgError::new(
            args.first().unwrap_or(&""),
            "given together with \"zone=name\"",
        ));
    }
    Ok(Some(cache))
}

/// Reads the argument of `docker_token_key`, the name of a file.
///
/// # Errors
///
/// If there is not exactly one argument.
pub fn token_key<'a>(args: &[&'a str]) -> Result<&'a str, ArgError> {
    match args {
        [file] => Ok(file),
        _ => Err(ArgError::new(args.get(1).unwrap_or(&""), ONLY)),
    }
}

/// Reads the argument of `docker_zone`, `name:size`: the zone's name and its size in bytes.
///
/// # Errors
///
/// If there is not exactly one argument of that form, or the size is below `min`.
pub fn zone<'a>(args: &[&'a str], min: usize) -> Result<(&'a str, usize), ArgError> {
    let [arg] = args else {
        return Err(ArgError::new(args.get(1).or(args.first()).unwrap_or(&""), ONLY));
    };
    arg.split_once(':')
        .filter(|(name, _)| !name.is_empty())
        .and_then(|(name, size)| Some((name, bytes(size).filter(|size| *size >= min)?)))
        .ok_or_else(|| {
            let allowed =
                format!("a name and a size such as \"docker:4m\", of {min} bytes or more");
            ArgError::new(arg, allowed)
        })
}

/// nginx's syntax of sizes: a number of bytes, kilobytes (`k`) or megabytes (`m`), up to 1 TB.
fn bytes(text: &str) -> Option<usize> {
    const MAX: usize = 1 << 40;
    let (digits, scale) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix(['m', 'M']).map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    let number = usize::try_from(decimal(digits)?).ok()?;
    number.checked_mul(scale).filter(|size| *size <= MAX)
}

/// Reads the arguments of one `docker_registry`.
///
/// # Errors
///
/// If the name is none; or at a parameter that is unknown, repeated (but for different values of
/// `realm` and `alias`), or has a value that it does not take.
pub fn registry(args: &[&str]) -> Result<Registry, ArgError> {
    const NAME: &str = "a registry's name: a host, perhaps with a port, in lower case";
    const ALLOWED: &str = "a URL that begins with \"http://\" or \"https://\" and holds nothing but \
                           a host and a port, \"realm=url\", \"alias=host\", \"library\" or \
                           \"default\"";
    let (name, params) = args.split_first().unwrap_or((&"", &[]));
    let mut registry = Registry::named(name).ok_or_else(|| ArgError::new(name, NAME))?;
    let mut given = Given::default();
    for arg in params {
        match arg.split_once('=') {
            None if *arg == "library" => {
                given.once(arg, "library")?;
                registry.library = true;
            }
            None if *arg == "default" => {
                given.once(arg, "default")?;
                registry.default = true;
            }
            Some(("realm", value)) => {
                given.once(arg, arg)?;
                let prefix = realm_prefix(value).ok_or_else(|| {
                    ArgError::new(arg, "\"realm=\" and a URL with a host, a port and a path")
                })?;
                // The built-in ones are replaced by the first.
                if !given.0.contains(&"realm") {
                    given.0.push("realm");
                    registry.realms.clear();
                    registry.service = None;
                }
                registry.realms.push(prefix);
            }
            Some(("alias", value)) => {
                given.once(arg, arg)?;
                let alias = Registry::named(value).filter(|_| !value.contains(':'));
                let alias = alias.ok_or_else(|| {
                    ArgError::new(arg, "\"alias=\" and a host in lower case, without a port")
                })?;
                registry.aliases.push(alias.name);
            }
            _ => {
                let origin = Url::parse(arg.as_bytes()).ok().filter(|url| url.uri == "/");
                let is_plain = !arg.contains(['#', '$']);
                let origin = origin.filter(|_| is_plain);
                registry.origin = origin.ok_or_else(|| ArgError::new(arg, ALLOWED))?;
                given.once(arg, "url")?;
            }
        }
    }
    Ok(registry)
}

fn realm_prefix(value: &str) -> Option<Url> {
    if value.contains(['?', '#', '$']) || !stays_below(value) {
        return None;
    }
    Url::parse(value.as_bytes()).ok()
}

impl From<Conflict> for ArgError {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::Name(name) => Self::new(&name, ONCE),
            Conflict::Alias(alias) => Self::new(&format!("alias={alias}"), ONCE),
            Conflict::Default(other) => {
                Self::new("default", format!("given once only, it stands beside \"{other}\""))
            }
        }
    }
}

/// How often and how soon `docker_resume` asks for the rest of a download.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Resume {
    /// Attempts for one download.
    pub tries: u64,
    /// For how long upstream may send nothing, in milliseconds.
    pub stall: u64,
}

impl Default for Resume {
    fn default() -> Self {
        Self { tries: 5, stall: 15 * 1000 }
    }
}

/// Reads the arguments of `docker_resume`; `None` is `off`.
///
/// # Errors
///
/// If there is not exactly one `on` or `off`, if anything stands beside `off`, or at a parameter
/// that is unknown, repeated, or has a value that it does not take.
pub fn resume(args: &[&str]) -> Result<Option<Resume>, ArgError> {
    const ALLOWED: &str = "\"on\", \"off\", \"tries=number\" or \"stall=time\"";
    if is_off(args)? {
        return Ok(None);
    }

    let mut resume = Resume::default();
    let mut given = Given::default();
    for arg in args {
        match arg.split_once('=') {
            None if *arg == "on" => given.once(arg, "on")?,
            Some(("tries", value)) => {
                given.once(arg, "tries")?;
                resume.tries = number(arg, value, MAX_TRIES)?;
            }
            Some(("stall", value)) => {
                given.once(arg, "stall")?;
                resume.stall = time(arg, value)?;
            }
            _ => return Err(ArgError::new(arg, ALLOWED)),
        }
    }
    given.on(args)?;
    Ok(Some(resume))
}

/// Whether there is `off` and nothing else; an error if it is one of several arguments.
fn is_off(args: &[&str]) -> Result<bool, ArgError> {
    match args {
        ["off"] => Ok(true),
        _ if args.contains(&"off") => Err(ArgError::new("off", ONLY)),
        _ => Ok(false),
    }
}

/// The parameters that have been read.
#[derive(Default)]
struct Given<'a>(Vec<&'a str>);

impl<'a> Given<'a> {
    fn once(&mut self, arg: &str, name: &'a str) -> Result<(), ArgError> {
        if self.0.contains(&name) {
            return Err(ArgError::new(arg, ONCE));
        }
        self.0.push(name);
        Ok(())
    }

    /// An error unless `on` is among `args`, which have been read.
    fn on(&self, args: &[&str]) -> Result<(), ArgError> {
        if self.0.contains(&"on") {
            return Ok(());
        }
        Err(ArgError::new(args.first().unwrap_or(&""), "given together with \"on\""))
    }
}

fn on_or_off(args: &[&str]) -> Result<bool, ArgError> {
    match args {
        ["on"] => Ok(true),
        ["off"] => Ok(false),
        [first, _, ..] => Err(ArgError::new(first, ONLY)),
        _ => Err(ArgError::new(args.first().unwrap_or(&""), "\"on\" or \"off\"")),
    }
}

fn flag(arg: &str, value: &str) -> Result<bool, ArgError> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => {
            let name = arg.split('=').next().unwrap_or_default();
            Err(ArgError::new(arg, format!("\"{name}=on\" or \"{name}=off\"")))
        }
    }
}

/// A number from 1 to `max`.
fn number(arg: &str, value: &str, max: u64) -> Result<u64, ArgError> {
    decimal(value)
        .filter(|number| (1..=max).contains(number))
        .ok_or_else(|| ArgError::new(arg, format!("a number from 1 to {max}")))
}

fn time(arg: &str, value: &str) -> Result<u64, ArgError> {
    milliseconds(value).filter(|time| (1..=MAX_TIME).contains(time)).ok_or_else(|| {
        ArgError::new(arg, "a time such as \"500ms\", \"60s\" or \"1h30m\", up to 24 days")
    })
}

/// nginx's syntax of times: numbers with units, the greater before the lesser ones, each once. A
/// number without a unit, which must be the last, counts seconds.
fn milliseconds(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 8] = [
        ("y", 365 * 24 * 60 * 60 * 1000),
        ("M", 30 * 24 * 60 * 60 * 1000),
        ("w", 7 * 24 * 60 * 60 * 1000),
        ("d", 24 * 60 * 60 * 1000),
        ("h", 60 * 60 * 1000),
        ("m", 60 * 1000),
        ("s", 1000),
        ("ms", 1),
    ];

    let mut total: u64 = 0;
    let mut units = UNITS.iter();
    let mut rest = text;
    loop {
        let digits = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
        let (number, behind) = rest.split_at_checked(digits)?;
        let letters = behind.find(|char: char| !char.is_ascii_alphabetic());
        let (unit, behind) = behind.split_at_checked(letters.unwrap_or(behind.len()))?;
        let unit = if unit.is_empty() && behind.is_empty() { "s" } else { unit };

        let (_, scale) = units.find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*scale)?)?;
        if behind.is_empty() {
            return Some(total);
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<&str> {
        text.split_whitespace().collect()
    }

    /// The refused argument, and how the rest of the message begins.
    fn refused<T: fmt::Debug>(name: &str, result: Result<T, ArgError>, value: &str, allowed: &str) {
        let error = result.expect_err(name);
        assert_eq!(error.value, value, "{name}");
        assert!(error.allowed.starts_with(allowed), "{name}: {error}");
    }

    #[test]
    fn realm_rewrite_takes_one_argument() {
        let rows = [
            ("on", Realm::On),
            ("off", Realm::Off),
            ("https://mirror.example", Realm::Url("https://mirror.example")),
            ("http://mirror:5000/auth", Realm::Url("http://mirror:5000/auth")),
            ("HTTPS://mirror", Realm::Url("HTTPS://mirror")),
            ("https://$host/auth", Realm::Url("https://$host/auth")),
            ("https://${host}:5000", Realm::Url("https://${host}:5000")),
            ("$scheme://$http_host", Realm::Url("$scheme://$http_host")),
            ("http$s://mirror", Realm::Url("http$s://mirror")),
            ("$url", Realm::Url("$url")),
        ];

        for (arg, want) in rows {
            assert_eq!(realm_rewrite(&[arg]), Ok(want), "{arg}");
        }
    }

    #[test]
    fn realm_rewrite_refuses_what_begins_no_realm() {
        let rows = [
            ("another word", "yes", "yes", "\"on\", \"off\", or a URL"),
            ("upper case", "ON", "ON", "\"on\""),
            ("host only", "mirror.example", "mirror.example", "\"on\""),
            ("another scheme", "ftp://a", "ftp://a", "\"on\""),
            ("user", "https://u@a", "https://u@a", "\"on\""),
            ("query", "https://a/?b", "https://a/?b", "\"on\""),
            ("bad port", "https://a:0", "https://a:0", "\"on\""),
            ("variable behind another scheme", "ftp://$host", "ftp://$host", "\"on\""),
            ("variable and query", "https://$host/?a", "https://$host/?a", "\"on\""),
            ("variable and quote", "https://$host/\"", "https://$host/\"", "\"on\""),
            ("off and more", "off on", "off", ONLY),
            ("two URLs", "http://a http://b", "http://a", ONLY),
            ("nothing", "", "", "\"on\""),
        ];

        for (name, given, value, allowed) in rows {
            refused(name, realm_rewrite(&args(given)), value, allowed);
        }
    }

    #[test]
    fn follow_redirect_takes_its_parameters_in_any_order() {
        assert!(follow_redirect(&["off"]).unwrap().is_none());

        let policy = follow_redirect(&["on"]).unwrap().unwrap();
        assert_eq!((policy.hops, policy.verify), (5, true));
        assert!(policy.allow.is_empty() && policy.private.is_empty());

        let given = args(
            "private=10.0.0.0/8 allow=.a verify=off allow=b:5000 on hops=8 private=::1 allow=~c",
        );
        let policy = follow_redirect(&given).unwrap().unwrap();
        assert_eq!((policy.hops, policy.verify), (8, false));
        assert_eq!(policy.private, ["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()]);
        assert!(matches!(
            &policy.allow[..],
            [Allow::Suffix(_, None), Allow::Host(_, Some(5000)), Allow::Regex(_, None)]
        ));
    }

    #[test]
    fn follow_redirect_refuses_what_it_does_not_take() {
        let rows = [
            ("another word", "yes", "yes", "\"on\", \"off\", \"hops=number\""),
            ("unknown parameter", "on hop=3", "hop=3", "\"on\", \"off\""),
            ("on with a value", "on=1", "on=1", "\"on\", \"off\""),
            ("no on", "hops=3", "hops=3", "given together with \"on\""),
            ("on twice", "on on", "on", ONCE),
            ("off and on", "on off", "off", ONLY),
            ("off twice", "off off", "off", ONLY),
            ("off with a parameter", "off hops=3", "off", ONLY),
            ("hops twice", "on hops=3 hops=4", "hops=4", ONCE),
            ("hops 0", "on hops=0", "hops=0", "a number from 1 to 8"),
            ("hops 9", "on hops=9", "hops=9", "a number from 1 to 8"),
            (
                "hops of many digits",
                "on hops=99999999999999999999",
                "hops=99999999999999999999",
                "a number",
            ),
            ("hops empty", "on hops=", "hops=", "a number from 1 to 8"),
            ("hops with sign", "on hops=+3", "hops=+3", "a number from 1 to 8"),
            ("verify", "on verify=yes", "verify=yes", "\"verify=on\" or \"verify=off\""),
            ("verify twice", "on verify=on verify=off", "verify=off", ONCE),
            ("same allow", "on allow=a allow=a", "allow=a", ONCE),
            ("allow empty", "on allow=", "allow=", "\"allow=host\""),
            (
                "allow with a bad regex",
                "on allow=~(",
                "allow=~(",
                "\"allow=host\", \"allow=.suffix\" or \"allow=~regex\", with or without \
                 \":port\": unclosed group",
            ),
            ("same private", "on private=::1 private=::1", "private=::1", ONCE),
            (
                "private",
                "on private=10.0.0.1/8",
                "private=10.0.0.1/8",
                "a network such as \"private=10.0.0.0/8\": address bits behind the prefix",
            ),
            ("nothing", "", "", "given together with \"on\""),
        ];

        for (name, given, value, allowed) in rows {
            refused(name, follow_redirect(&args(given)), value, allowed);
        }
    }

    #[test]
    fn resume_takes_its_parameters_in_any_order() {
        let resume = |text| resume(&args(text)).unwrap();
        assert_eq!(resume("off"), None);
        assert_eq!(resume("on"), Some(Resume { tries: 5, stall: 15_000 }));
        let given = Some(Resume { tries: 1000, stall: 500 });
        assert_eq!(resume("stall=500ms on tries=1000"), given);
        assert_eq!(resume("on tries=1 stall=24d"), Some(Resume { tries: 1, stall: MAX_TIME }));
    }

    #[test]
    fn resume_refuses_what_it_does_not_take() {
        let rows = [
            ("another word", "yes", "yes", "\"on\", \"off\", \"tries=number\""),
            ("unknown parameter", "on try=1", "try=1", "\"on\", \"off\""),
            ("no on", "tries=1", "tries=1", "given together with \"on\""),
            ("nothing", "", "", "given together with \"on\""),
            ("off and more", "off tries=1", "off", ONLY),
            ("on twice", "on on", "on", ONCE),
            ("tries twice", "on tries=1 tries=1", "tries=1", ONCE),
            ("stall twice", "on stall=1s stall=2s", "stall=2s", ONCE),
            ("no tries", "on tries=0", "tries=0", "a number from 1 to 1000"),
            ("too many tries", "on tries=1001", "tries=1001", "a number from 1 to 1000"),
            ("tries with a sign", "on tries=+1", "tries=+1", "a number"),
            ("no stall", "on stall=0", "stall=0", "a time"),
            ("no time", "on stall=soon", "stall=soon", "a time"),
            ("too long a stall", "on stall=25d", "stall=25d", "a time"),
        ];

        for (name, given, value, allowed) in rows {
            refused(name, resume(&args(given)), value, allowed);
        }
    }

    #[test]
    fn fallback_takes_urls_and_what_they_share() {
        assert_eq!(fallback(&["off"]), Ok(None));

        let given = "https://A.example/ credentials=none http://127.0.0.1:5000/hub/ verify=off";
        let targets = fallback(&args(given)).unwrap().unwrap();
        let facts: Vec<_> = targets
            .iter()
            .map(|target| (target.base.authority().into_owned(), target.base.uri.as_str()))
            .collect();
        let want = [("a.example".to_owned(), ""), ("127.0.0.1:5000".to_owned(), "/hub")];
        assert_eq!(facts, want);
        for target in targets {
            assert_eq!((target.credentials, target.verify), (Credentials::None, false));
        }

        for given in ["https://a", "verify=on https://a credentials=bearer"] {
            let targets = fallback(&args(given)).unwrap().unwrap();
            let facts = (targets[0].credentials, targets[0].verify);
            assert_eq!(facts, (Credentials::Bearer, true), "{given}");
        }
    }

    #[test]
    fn fallback_refuses_what_it_does_not_take() {
        let nine = "http://1.a http://2.a http://3.a http://4.a http://5.a http://6.a http://7.a \
                    http://8.a http://9.a";
        let rows = [
            ("another word", "yes", "yes", "\"off\", \"credentials=bearer|none\""),
            ("host only", "mirror.example", "mirror.example", "\"off\""),
            ("unknown parameter", "http://a proxy=b", "proxy=b", "\"off\""),
            ("another scheme", "ftp://a", "ftp://a", "\"off\""),
            ("user", "http://u@a", "http://u@a", "\"off\""),
            ("query", "http://a/?b", "http://a/?b", "\"off\""),
            ("fragment", "http://a#b", "http://a#b", "\"off\""),
            ("variable", "http://$host", "http://$host", "a URL without variables"),
            ("same URL", "http://a http://a", "http://a", ONCE),
            ("same URL in other words", "http://a http://A:80/", "http://A:80/", ONCE),
            ("no URL", "verify=on", "verify=on", "given together with a URL"),
            ("off and more", "off http://a", "off", ONLY),
            (
                "credentials",
                "http://a credentials=basic",
                "credentials=basic",
                "\"credentials=bearer\" or",
            ),
            (
                "credentials twice",
                "http://a credentials=none credentials=none",
                "credentials=none",
                ONCE,
            ),
            ("verify", "http://a verify=", "verify=", "\"verify=on\" or"),
            ("verify twice", "verify=on http://a verify=on", "verify=on", ONCE),
            ("too many", nine, "http://9.a", "one of at most 8 URLs"),
            ("nothing", "", "", "given together with a URL"),
        ];

        for (name, given, value, allowed) in rows {
            refused(name, fallback(&args(given)), value, allowed);
        }
    }

    #[test]
    fn fallback_on_takes_conditions() {
        let conditions = fallback_on(&args("timeout http_404 http_599")).unwrap();
        assert!(!conditions.error && conditions.timeout);
        assert!(conditions.statuses().eq([404, 599]));

        let all = args("error timeout http_429 http_502 http_503 http_504");
        assert_eq!(fallback_on(&all), Ok(Conditions::default()));
    }

    #[test]
    fn fallback_on_refuses_what_is_no_condition() {
        let rows = [
            ("another word", "always", "always", "\"error\", \"timeout\", or \"http_\""),
            ("off", "off", "off", "\"error\""),
            ("challenge", "error http_401", "http_401", "\"error\""),
            ("challenge of a proxy", "http_407", "http_407", "\"error\""),
            ("redirect", "http_302", "http_302", "\"error\""),
            ("status out of range", "http_600", "http_600", "\"error\""),
            ("class of statuses", "http_5xx", "http_5xx", "\"error\""),
            ("no status", "http_", "http_", "\"error\""),
            ("status with sign", "http_+429", "http_+429", "\"error\""),
            ("twice", "error error", "error", ONCE),
            ("status twice", "http_429 error http_429", "http_429", ONCE),
            ("status twice in other digits", "http_429 http_0429", "http_0429", "\"error\""),
            ("nothing", "", "", "\"error\""),
        ];

        for (name, given, value, allowed) in rows {
            refused(name, fallback_on(&args(given)), value, allowed);
        }
    }

    #[test]
    fn keepalive_takes_a_number_and_its_parameters() {
        let default = Keepalive::default();
        let rows = [
            ("off", Keepalive { connections: 0, ..default }),
            ("64", Keepalive { connections: 64, ..default }),
            ("65536", Keepalive { connections: 65_536, ..default }),
            (
                "time=24d requests=1 64 timeout=500ms",
                Keepalive { connections: 64, timeout: 500, requests: 1, time: MAX_TIME },
            ),
        ];

        for (given, want) in rows {
            assert_eq!(keepalive(&args(given)), Ok(want), "{given}");
        }
    }

    #[test]
    fn keepalive_refuses_what_it_does_not_take() {
        let rows = [
            ("another word", "on", "on", "a number of connections, \"off\""),
            ("unknown parameter", "8 max=1", "max=1", "a number of connections"),
            ("negative", "-1", "-1", "a number of connections"),
            ("none", "0", "0", "a number from 1 to 65536"),
            ("too many", "65537", "65537", "a number from 1 to 65536"),
            ("two numbers", "8 9", "9", ONCE),
            ("no number", "timeout=1s", "timeout=1s", "given together with a number"),
            ("off and more", "off timeout=1s", "off", ONLY),
            ("no requests", "8 requests=0", "requests=0", "a number from 1 to 1000000000"),
            ("requests twice", "8 requests=1 requests=1", "requests=1", ONCE),
            ("no timeout", "8 timeout=0", "timeout=0", "a time such as"),
            ("timeout twice", "8 timeout=1 timeout=1", "timeout=1", ONCE),
            ("no unit of time", "8 time=1x", "time=1x", "a time such as"),
            ("time too long", "8 time=25d", "time=25d", "a time such as"),
            ("nothing", "", "", "given together with a number"),
        ];

        for (name, given, value, allowed) in rows {
            refused(name, keepalive(&args(given)), value, allowed);
        }
    }

    #[test]
    fn breaker_takes_its_parameters_in_any_order() {
        assert_eq!(breaker(&["off"]), Ok(None));
        assert_eq!(breaker(&["on"]), Ok(Some(breaker::Settings::default())));

        let given = "max_backoff=2m failures=1 on max_retry_after=2h backoff=500ms retry_after=1m";
        let want = breaker::Settings {
            failures: 1,
            backoff: 500,
            max_backoff: 120_000,
            retry_after: 60_000,
            max_retry_after: 7_200_000,
        };
        assert_eq!(breaker(&args(given)), Ok(Some(want)));
        let settings = breaker(&["failures=1000"]).unwrap().unwrap();
        assert_eq!(settings, breaker::Settings { failures: 1000, ..Default::default() });
    }

    #[test]
    fn breaker_refuses_what_it_does_not_take() {
        let rows = [
            ("nothing", "", "", "\"on\", \"off\", \"failures=number\""),
            ("another word", "yes", "yes", "\"on\", \"off\""),
            ("on with a value", "on=1", "on=1", "\"on\", \"off\""),
            ("unknown parameter", "on max=1", "max=1", "\"on\", \"off\""),
            ("off and on", "on off", "off", ONLY),
            ("off with a parameter", "off failures=1", "off", ONLY),
            ("on twice", "on on", "on", ONCE),
            ("no failures", "failures=0", "failures=0", "a number from 1 to 1000"),
            ("many failures", "failures=1001", "failures=1001", "a number from 1 to 1000"),
            ("failures twice", "failures=1 failures=2", "failures=2", ONCE),
            ("no number", "failures", "failures", "a number from 1 to 1000"),
            ("no time", "backoff=", "backoff=", "a time such as"),
            ("time of nothing", "retry_after=0", "retry_after=0", "a time such as"),
            ("time twice", "backoff=1s backoff=1s", "backoff=1s", ONCE),
            ("backoff above the maximum", "backoff=61s", "backoff=61s", "no more than"),
            ("maximum below backoff", "max_backoff=500ms", "max_backoff=500ms", "no more than"),
            (
                "maximum below retry_after",
                "on max_retry_after=1s",
                "max_retry_after=1s",
                "no more than \"max_retry_after\"",
            ),
        ];

        for (name, given, value, allowed) in rows {
            refused(name, breaker(&args(given)), value, allowed);
        }
    }

    #[test]
    fn fallback_reserve_takes_a_number() {
        assert_eq!(fallback_reserve(&["0"]), Ok(0));
        assert_eq!(fallback_reserve(&["20"]), Ok(20));
        assert_eq!(fallback_reserve(&["1000000000"]), Ok(1_000_000_000));

        let rows = [
            ("nothing", "", "", ONLY),
            ("two", "1 2", "2", ONLY),
            ("off", "off", "off", "a number from 0"),
            ("negative", "-1", "-1", "a number from 0"),
            ("percent", "10%", "10%", "a number from 0"),
            ("too great", "1000000001", "1000000001", "a number from 0 to 1000000000"),
        ];
        for (name, given, value, allowed) in rows {
            refused(name, fallback_reserve(&args(given)), value, allowed);
        }
    }

    #[test]
    fn errors_takes_on_or_off() {
        assert_eq!(on_or_off(&["on"]), Ok(true));
        assert_eq!(on_or_off(&["off"]), Ok(false));

        let rows = [
            ("nothing", "", "", "\"on\" or \"off\""),
            ("another word", "yes", "yes", "\"on\" or \"off\""),
            ("both", "on off", "on", ONLY),
        ];
        for (name, given, value, allowed) in rows {
            refused(name, on_or_off(&args(given)), value, allowed);
        }
    }

    #[test]
    fn manifest_cache_takes_a_zone() {
        let plain = ManifestCache { zone: "docker", max: 1 << 20, stale: None };
        let rows = [
            ("off", None),
            ("zone=docker", Some(plain)),
            ("zone=docker max=4m", Some(ManifestCache { max: 4 << 20, ..plain })),
            ("max=512k zone=docker", Some(ManifestCache { max: 512 << 10, ..plain })),
            ("zone=docker stale=1h", Some(ManifestCache { stale: Some(3_600_000), ..plain })),
            (
                "stale=1d max=1 zone=z",
                Some(ManifestCache { zone: "z", max: 1, stale: Some(86_400_000) }),
            ),
        ];

        for (given, want) in rows {
            assert_eq!(manifest_cache(&args(given)), Ok(want), "{given}");
        }
    }

    #[test]
    fn manifest_cache_refuses_what_it_does_not_take() {
        let form = "\"zone=name\", \"max=size\"";
        let rows = [
            ("nothing", "", "", "given together with"),
            ("no zone", "max=1m", "max=1m", "given together with"),
            ("on", "on", "on", form),
            ("an empty zone", "zone=", "zone=", form),
            ("two zones", "zone=a zone=b", "zone=b", ONCE),
            ("off beside a zone", "zone=a off", "off", ONLY),
            ("no size", "zone=a max=", "max=", "a size"),
            ("too large", "zone=a max=17m", "max=17m", "a size"),
            ("nothing fits", "zone=a max=0", "max=0", "a size"),
            ("no time", "zone=a stale=soon", "stale=soon", "a time"),
            ("at once", "zone=a stale=0", "stale=0", "a time"),
            ("unknown", "zone=a min=1", "min=1", form),
        ];

        for (name, given, value, allowed) in rows {
            refused(name, manifest_cache(&args(given)), value, allowed);
        }
    }

    #[test]
    fn zone_takes_a_name_and_a_size() {
        let rows = [
            ("docker:32768", ("docker", 32_768)),
            ("docker:32k", ("docker", 32_768)),
            ("a:4m", ("a", 4 << 20)),
            ("a:4M", ("a", 4 << 20)),
        ];

        for (given, want) in rows {
            assert_eq!(zone(&args(given), 32_768), Ok(want), "{given}");
        }
    }

    #[test]
    fn zone_refuses_what_it_does_not_take() {
        let form = "a name and a size such as \"docker:4m\", of 32768 bytes or more";
        let rows = [
            ("nothing", "", "", ONLY),
            ("two", "a:1m b:1m", "b:1m", ONLY),
            ("no size", "docker", "docker", form),
            ("no name", ":1m", ":1m", form),
            ("empty size", "a:", "a:", form),
            ("too small", "a:32767", "a:32767", form),
            ("unit", "a:1g", "a:1g", form),
            ("negative", "a:-1m", "a:-1m", form),
            ("too large", "a:1048577m", "a:1048577m", form),
            ("overflow", "a:99999999999999999999m", "a:99999999999999999999m", form),
        ];

        for (name, given, value, allowed) in rows {
            refused(name, zone(&args(given), 32_768), value, allowed);
        }
    }

    #[test]
    fn times_are_written_as_everywhere_in_nginx() {
        let rows = [
            ("seconds", "30s", Some(30_000)),
            ("no unit", "30", Some(30_000)),
            ("milliseconds", "500ms", Some(500)),
            ("minutes", "5m", Some(300_000)),
            ("hours", "1h", Some(3_600_000)),
            ("days", "1d", Some(86_400_000)),
            ("weeks", "1w", Some(604_800_000)),
            ("months", "1M", Some(2_592_000_000)),
            ("years", "1y", Some(31_536_000_000)),
            ("several units", "1h30m", Some(5_400_000)),
            ("all units", "1y1M1w1d1h1m1s1ms", Some(34_822_861_001)),
            ("seconds without unit behind", "1m30", Some(90_000)),
            ("units in the wrong order", "1s1m", None),
            ("unit twice", "1m1m", None),
            ("seconds twice", "1s1", None),
            ("no unit before another", "1 1s", None),
            ("empty", "", None),
            ("unit alone", "s", None),
            ("negative", "-1s", None),
            ("fraction", "1.5s", None),
            ("upper case", "1S", None),
            ("another alphabet", "1\u{441}", None),
            ("too long for 64 bits", "999999999999y", None),
            ("too many digits", "99999999999999999999s", None),
            ("sum too long for 64 bits", "584554530y584554531M", None),
        ];

        for (name, text, want) in rows {
            assert_eq!(milliseconds(text), want, "{name}");
        }
    }

    #[test]
    fn an_error_reads_as_one_of_nginx() {
        let error = ArgError::new("x", "\"on\" or \"off\"");
        assert_eq!(error.to_string(), "invalid value \"x\", it must be \"on\" or \"off\"");
    }

    #[test]
    fn a_registry_needs_nothing_but_its_name() {
        let known = registry(&["ghcr.io"]).unwrap();
        assert_eq!(known.origin, Url::parse(b"https://ghcr.io").unwrap());
        let other = registry(&["registry.example.com:5000"]).unwrap();
        assert_eq!(other.origin, Url::parse(b"https://registry.example.com:5000").unwrap());
        assert!(other.realms.is_empty() && !other.library && !other.default);
    }

    #[test]
    fn a_registry_takes_its_parameters_in_any_order() {
        let given = args(
            "docker.io default alias=hub.example realm=https://a/t http://127.0.0.1:5000 library \
             realm=https://b:1 alias=b.example",
        );
        let registry = registry(&given).unwrap();
        assert_eq!(registry.name, "docker.io");
        assert_eq!(registry.origin, Url::parse(b"http://127.0.0.1:5000").unwrap());
        assert_eq!(registry.aliases, ["hub.example", "b.example"]);
        let realms = [b"https://a/t".as_slice(), b"https://b:1/"].map(|u| Url::parse(u).unwrap());
        assert_eq!(registry.realms, realms, "the built-in ones are replaced");
        assert!(registry.library && registry.default);
    }

    #[test]
    fn a_registry_refuses_what_it_does_not_take() {
        let url = "a URL that begins";
        let rows = [
            ("nothing", "", "", "a registry's name"),
            ("a URL for a name", "https://ghcr.io", "https://ghcr.io", "a registry's name"),
            ("upper case", "Ghcr.io", "Ghcr.io", "a registry's name"),
            ("a path", "ghcr.io/a", "ghcr.io/a", "a registry's name"),
            ("IPv6", "[::1]:5000", "[::1]:5000", "a registry's name"),
            ("a final dot", "ghcr.io.", "ghcr.io.", "a registry's name"),
            ("another scheme", "a ftp://a", "ftp://a", url),
            ("a URL with a path", "a https://a/b", "https://a/b", url),
            ("a URL with a query", "a https://a/?b", "https://a/?b", url),
            ("a URL with a fragment", "a https://a#b", "https://a#b", url),
            ("a URL with a user", "a https://u@a", "https://u@a", url),
            ("a URL with variables", "a https://$a", "https://$a", url),
            ("two URLs", "a https://a https://b", "https://b", ONCE),
            ("another word", "a libary", "libary", url),
            ("another parameter", "a realms=https://a", "realms=https://a", url),
            ("library twice", "a library library", "library", ONCE),
            ("default twice", "a default default", "default", ONCE),
            ("the same realm", "a realm=https://a realm=https://a", "realm=https://a", ONCE),
            ("a realm that is none", "a realm=a", "realm=a", "\"realm=\" and a URL"),
            ("a realm with a query", "a realm=https://a?b", "realm=https://a?b", "\"realm=\""),
            ("a realm with dots", "a realm=https://a/../b", "realm=https://a/../b", "\"realm=\""),
            (
                "a realm with a backslash",
                "a realm=https://a/b\\c",
                "realm=https://a/b\\c",
                "\"realm=\"",
            ),
            ("the same alias", "a alias=b alias=b", "alias=b", ONCE),
            ("an alias with a port", "a alias=b:1", "alias=b:1", "\"alias=\" and a host"),
            ("an empty alias", "a alias=", "alias=", "\"alias=\" and a host"),
        ];

        for (name, given, value, allowed) in rows {
            refused(name, registry(&args(given)), value, allowed);
        }
    }
}
