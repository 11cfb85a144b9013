//! The arguments of the module's directives, as they stand behind the directive's name.

use std::fmt;

use crate::address::Cidr;
use crate::challenge;
use crate::fallback::{Conditions, Credentials, Target};
use crate::location::Url;
use crate::redirect::{Allow, Policy};

/// The redirects and the fallback targets of a location, together: nginx allows a request ten
/// internal redirects, and some of them are the user's.
pub const MAX_ATTEMPTS: usize = 8;

/// The longest time that a parameter takes, in milliseconds: 24 days, what nginx's timers hold on
/// every platform.
const MAX_TIME: u64 = 24 * 24 * 60 * 60 * 1000;
const MAX_NUMBER: u64 = 1_000_000_000;
const MAX_CONNECTIONS: u64 = 65_536;

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
    if let Some(off) = off(args)? {
        return Ok(off);
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
    if !given.0.contains(&"on") {
        let first = args.first().unwrap_or(&"");
        return Err(ArgError::new(first, "given together with \"on\""));
    }
    Ok(Some(policy))
}

/// Reads the arguments of one `docker_fallback`; `None` is `off`.
///
/// # Errors
///
/// If there is no URL, or more than [`MAX_ATTEMPTS`], or the same twice; if anything stands beside
/// `off`; or at a parameter that is unknown, repeated, or has a value that it does not take.
pub fn fallback(args: &[&str]) -> Result<Option<Vec<Target>>, ArgError> {
    if let Some(off) = off(args)? {
        return Ok(off);
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
                _ => {
                    return Err(ArgError::new(
                        arg,
                        "\"credentials=bearer\" or \"credentials=none\"",
                    ));
                }
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
    let status = decimal(digits)?;
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
    pub const CONNECTIONS: usize = 32;
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
    if off::<()>(args)?.is_some() {
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

/// `Some(None)` if the arguments are `off`; an error if `off` is one of several.
fn off<T>(args: &[&str]) -> Result<Option<Option<T>>, ArgError> {
    match args {
        ["off"] => Ok(Some(None)),
        _ if args.contains(&"off") => Err(ArgError::new("off", ONLY)),
        _ => Ok(None),
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

/// Decimal digits, without a sign.
fn decimal(digits: &str) -> Option<u64> {
    let valid = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| valid)
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
