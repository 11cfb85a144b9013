//! `docker_token_key`, and tokens of any registry's realm without a location for each.
//!
//! Where registries are declared, a challenge's realm becomes `/token/` and a ticket that names the
//! real one. A client that comes with it is sent on there, in its registry's own words.

use core::ffi::CStr;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::OnceLock;

use nginx_sys::ngx_int_t;
use rules::challenge::Bearer;
use rules::directive;
use rules::error::Code;
use rules::location::{Scheme, Url};
use rules::registry::{By, Registries, is_form, with_query};
use rules::ticket::{Key, Ticket};

use crate::conf::MainConf;
use crate::ctx::{Answer, Relation};
use crate::module::Docker;
use crate::nginx::conf::{Conf, Directive, SetError};
use crate::nginx::log::Level;
use crate::nginx::request::{BodyHandler, Request};
use crate::registry::{self, Asked, Token};

/// The longest form that asks for a token, in bytes: refresh tokens take some kilobytes.
const MAX_FORM: usize = 64 * 1024;

/// `docker_token_key file`
pub(crate) struct TokenKey;

impl Directive for TokenKey {
    type Conf = MainConf;
    const NAME: &'static CStr = c"docker_token_key";

    fn set(conf: &mut MainConf, cf: Conf, args: &[&str]) -> Result<(), SetError> {
        if conf.token_key.is_some() {
            return Err(SetError::Duplicate);
        }
        let file = directive::token_key(args)?;
        let invalid = |cause: &str| SetError::Invalid {
            value: file.to_owned(),
            allowed: format!(
                "a file with 64 hexadecimal digits, as \"openssl rand -hex 32\" writes: {cause}"
            ),
        };
        let text = cf.read_file(file).map_err(|error| invalid(&error.to_string()))?;
        conf.token_key = Some(Key::parse(&text).ok_or_else(|| invalid("it holds something else"))?);
        Ok(())
    }
}

/// A key of this process and its workers. It survives a reload, not a restart.
pub(crate) fn random_key() -> io::Result<Key> {
    static KEY: OnceLock<Key> = OnceLock::new();
    if let Some(key) = KEY.get() {
        return Ok(key.clone());
    }
    let mut bytes = [0; Key::LENGTH];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(KEY.get_or_init(|| Key::new(bytes)).clone())
}

/// The challenge of a registry, for the client that `asked`: `base` and a ticket in place of the
/// realm. A realm that the registry may not have its tokens from stays: whoever asked there would
/// send it credentials by our leave. In place of what a fallback says, it is the registry's own.
pub(crate) fn challenge(
    r: Request<'_>,
    asked: &Asked,
    base: &[u8],
    bearer: &Bearer,
    relation: Relation,
) -> Option<Bearer> {
    let route = asked.route()?;
    let registry = &route.registry;
    let key = r.main_conf::<Docker>().token_key.as_ref()?;
    let (realm, service) = if relation != Relation::Same {
        let own = registry.realms.first()?;
        let realm = format!("{}://{}{}", own.scheme.as_str(), own.authority(), own.uri);
        (realm, registry.service.clone())
    } else if !Url::parse(bearer.realm.as_bytes()).is_ok_and(|realm| registry.trusts(&realm)) {
        r.log(
            Level::Warn,
            format_args!(
                "realm \"{}\" is not declared for registry {}, passed unchanged",
                bearer.realm.escape_debug(),
                registry.name
            ),
        );
        return None;
    } else {
        (bearer.realm.clone(), bearer.service.clone())
    };
    let ticket = Ticket::Realm {
        registry: registry.name.clone(),
        realm,
        service: service.clone(),
        // Who says `ns=` knows no prefixes: a name that begins so is the registry's own.
        for_all: route.by != By::Namespace,
    };
    let base = str::from_utf8(base).ok()?.trim_end_matches('/');
    Some(Bearer {
        realm: format!("{base}/token/{}", ticket.seal(key)),
        service,
        scope: bearer.scope.as_ref().map(|scope| route.client_scope(scope)),
    })
}

/// The ticket in the path of a URI that is none of the registry API's, and the query.
pub(crate) fn ticket(uri: &[u8]) -> Option<(&str, &str)> {
    if uri.starts_with(b"/v2/") {
        return None;
    }
    let uri = str::from_utf8(uri).ok()?;
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    Some((path.rsplit_once("/token/")?.1, query))
}

/// Whom a request with `ticket` asks for a token, and how.
///
/// A GET whose scope has another registry's prefix is for that one's realm, if the ticket is for all:
/// see [`Registries::of_form`]. A POST is for the ticket's, whatever its form says: the refresh
/// token or password in it was given for that.
pub(crate) fn ask(
    r: Request<'_>,
    registries: &Registries,
    ticket: &str,
    query: &str,
) -> Result<Token, Answer> {
    let refused = || registry::refused(400, Code::Denied, "this is no token URL of this mirror");
    let key = r.main_conf::<Docker>().token_key.as_ref().ok_or_else(refused)?;
    let Some(Ticket::Realm { registry, realm, service, for_all }) = Ticket::open(ticket, key)
    else {
        return Err(refused());
    };
    // What was declared when it was signed may not be any more.
    let mut registry = Rc::clone(registries.get(&registry).ok_or_else(refused)?);
    let mut url = Url::parse(realm.as_bytes())
        .ok()
        .filter(|realm| registry.trusts(realm))
        .ok_or_else(refused)?;
    let mut service = service;
    let other = registries.of_form(query).filter(|_| r.is_get() && for_all);
    if let Some(other) = other.filter(|other| other.name != registry.name) {
        registry = Rc::clone(other);
        url = registry.realms.first().cloned().ok_or_else(none)?;
        service = registry.service.clone();
    }
    if !r.is_get() && !r.is_post() {
        return Err(registry::not_allowed("GET, POST", "tokens are asked for by GET or POST"));
    }
    if r.is_get() {
        url.uri = with_query(url.uri, &registry.own_form(query, service.as_deref()));
    }
    Ok(Token { registry, url, service })
}

/// The token for a registry that wants none, to a client that has learned from another that it
/// needs one.
const NONE: &str = "none";

fn none() -> Answer {
    Answer::json(200, format!("{{\"token\":\"{NONE}\"}}\n"))
}

/// Takes that token out of a request again.
pub(crate) fn drop_none(r: Request<'_>) {
    let is_none =
        |value: &[u8]| value.strip_prefix(b"Bearer ").is_some_and(|token| token == NONE.as_bytes());
    if r.request_line("Authorization").is_some_and(is_none) {
        r.withhold_line("Authorization");
    }
}

/// Why the credentials that come with a request for `token` must not go to its server; they go over
/// TLS to a server that was verified, or stay on this machine.
pub(crate) fn refusal(r: Request<'_>, token: &Token, is_loopback: bool) -> Option<Answer> {
    let carries = r.is_post() || r.request_line("Authorization").is_some();
    let is_verified = || {
        let proxy = r.main_conf::<Docker>().proxy;
        token.url.scheme == Scheme::Https
            && proxy.is_some_and(|proxy| r.location().verifies_upstream(proxy))
    };
    if !carries || is_loopback || is_verified() {
        return None;
    }
    r.log(
        Level::Error,
        format_args!(
            "credentials are not sent to {}: it is not https, or \"proxy_ssl_verify\" is off",
            token.url.authority()
        ),
    );
    Some(registry::refused(
        403,
        Code::Denied,
        "this mirror does not verify the token server, and sends it no credentials",
    ))
}

/// A POST needs its form rewritten before it goes on: reads that, and then runs `then`.
pub(crate) fn read_form(r: Request<'_>, then: BodyHandler) -> Result<ngx_int_t, Answer> {
    let is_form = r.request_line("Content-Type").is_some_and(is_form);
    match r.body_length() {
        _ if !is_form => Err(registry::refused(400, Code::Unsupported, "this is no form")),
        Some(length) if length <= MAX_FORM => Ok(r.read_body(then)),
        Some(_) => Err(registry::refused(413, Code::SizeInvalid, "the form is too long")),
        None => Err(registry::refused(411, Code::SizeInvalid, "the form's length is missing")),
    }
}

/// Has the form that was read ask as the registry's own clients ask.
pub(crate) fn rewrite_form(r: Request<'_>, token: &Token) -> Option<()> {
    let form = String::from_utf8(r.body()?).ok()?;
    let own = token.registry.own_form(&form, token.service.as_deref());
    r.set_body(own.as_bytes()).ok()
}
