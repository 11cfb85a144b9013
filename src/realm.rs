//! `docker_realm_rewrite`: clients ask this server for tokens.

use core::cell::RefCell;
use core::ffi::CStr;

use rules::challenge::{self, Bearer, ChallengeError};
use rules::directive::{self, Realm as Argument};
use rules::{authority, kind};

use crate::conf::LocConf;
use crate::ctx::{Relation, RequestCtx};
use crate::module::Docker;
use crate::nginx::conf::{ComplexValue, Conf, Directive, SetError, set_once};
use crate::nginx::log::Level;
use crate::nginx::request::Request;
use crate::nginx::upstream::Upstream;
use crate::registry::Asked;
use crate::{origin, token};

/// What the realms of upstream's challenges begin with.
#[derive(Clone)]
pub(crate) enum Realm {
    /// They stay as they are.
    Off,
    /// Scheme and authority of the request.
    Request,
    /// A URL.
    Url(ComplexValue),
}

/// `docker_realm_rewrite on | off | url`
pub(crate) struct RealmRewrite;

impl Directive for RealmRewrite {
    type Conf = LocConf;
    const NAME: &'static CStr = c"docker_realm_rewrite";

    fn set(conf: &mut LocConf, cf: Conf, args: &[&str]) -> Result<(), SetError> {
        set_once(&mut conf.realm, || {
            Ok(match directive::realm_rewrite(args)? {
                Argument::Off => Realm::Off,
                Argument::On => Realm::Request,
                Argument::Url(url) => Realm::Url(cf.compile(url)?),
            })
        })
    }
}

/// Rewrites the challenges that came from upstream; not those of `auth_basic` or `add_header`. Of a
/// fallback's nothing is left but that there is one, and what a redirect's target says goes to
/// nobody: only the registry itself names those who get its clients' credentials.
///
/// A line is upstream's if its value lies where upstream's line has it: nginx copies the line, not
/// its bytes, from upstream, from its cache, and when it intercepts errors.
pub(crate) fn filter(r: Request<'_>, conf: &LocConf, u: Upstream<'_>) {
    // fastcgi_pass and its siblings have upstreams too.
    if !(conf.rewrites_realm() || conf.is_follow) || !u.is_of_http() {
        return;
    }
    let mut base = None;
    for line in r.response_lines() {
        let is_upstreams = line.is("WWW-Authenticate")
            && u.lines().any(|of_upstream| of_upstream.origin() == line.origin());
        if !is_upstreams {
            continue;
        }
        let ctx = r.ctx::<Docker>().map(RefCell::borrow);
        let destination = ctx.as_ref().and_then(|ctx| ctx.destination.as_ref());
        let relation = destination.map_or(Relation::Same, |destination| destination.relation);
        let base = base.get_or_insert_with(|| self::base(r, conf));
        let value = match (base, relation) {
            (Some(base), Relation::Same) => rewritten(r, ctx.as_deref(), line.value(), base),
            (Some(base), Relation::Fallback) => of_fallback(r, ctx.as_deref(), line.value(), base),
            (None, _) | (_, Relation::Foreign) => None,
        };
        match value {
            Some(value) => {
                if line.set_value(r, &value).is_err() {
                    return;
                }
            }
            None if relation == Relation::Same => {}
            None => line.remove(),
        }
    }
}

/// The challenge that the client gets; `None` if it is none that can be rewritten.
fn rewritten(
    r: Request<'_>,
    ctx: Option<&RequestCtx>,
    value: &[u8],
    base: &[u8],
) -> Option<Vec<u8>> {
    let rewritten = match asked(ctx) {
        Some(asked) => challenge::rewrite_bearer(value, |bearer| {
            token::challenge(r, asked, base, bearer, Relation::Same)
        }),
        None => challenge::rewrite_realm(value, base),
    };
    rewritten.unwrap_or_else(|error| {
        log_invalid(r, value, error, "passed unchanged");
        None
    })
}

/// The challenge that the client gets in the place of a fallback's. It is for what the request asks
/// for: a token for what the fallback would like to have might be sent to it.
fn of_fallback(
    r: Request<'_>,
    ctx: Option<&RequestCtx>,
    value: &[u8],
    base: &[u8],
) -> Option<Vec<u8>> {
    let theirs = challenge::first_bearer(value).unwrap_or_else(|error| {
        log_invalid(r, value, error, "dropped");
        None
    })?;
    let uri = ctx.map(origin::first_uri).unwrap_or_default();
    let repository = kind::Request::of(r.method(), uri.as_bytes()).repository;
    let repository = str::from_utf8(repository).ok().filter(|name| !name.is_empty());
    let scope = theirs.scope.and(repository).map(|name| format!("repository:{name}:pull"));
    // Clients add what they want to the realm's query, which may hold a scope too.
    let realm = theirs.realm.split(['?', '#']).next().unwrap_or_default().to_owned();
    let bearer = Bearer { realm, scope, ..theirs };
    match asked(ctx) {
        Some(asked) => {
            let bearer = token::challenge(r, asked, base, &bearer, Relation::Fallback)?;
            Some(bearer.to_header().into_bytes())
        }
        None => challenge::rewrite_realm(bearer.to_header().as_bytes(), base).ok()?,
    }
}

fn asked(ctx: Option<&RequestCtx>) -> Option<&Asked> {
    ctx?.service.as_ref()?.asked()
}

fn log_invalid(r: Request<'_>, value: &[u8], error: ChallengeError, fate: &str) {
    r.log(
        Level::Warn,
        format_args!(
            "upstream sent invalid \"WWW-Authenticate\" header: \"{}\", {error}, {fate}",
            value.escape_ascii()
        ),
    );
}

/// What the realm begins with in answers to this request; `None` if it must stay as it is.
fn base(r: Request<'_>, conf: &LocConf) -> Option<Vec<u8>> {
    match conf.realm.as_ref()? {
        Realm::Off => None,
        Realm::Request => {
            let host = r.authority().filter(|host| authority::is_valid(host))?;
            Some([r.scheme().as_bytes(), b"://", host].concat())
        }
        Realm::Url(url) => {
            let value = url.evaluate(r).unwrap_or_default();
            if challenge::valid_base(value) {
                return Some(value.to_vec());
            }
            r.log(
                Level::Error,
                format_args!(
                    "\"docker_realm_rewrite\" has the value \"{}\", it must be a URL with a host, \
                     a port and a path; realm passed unchanged",
                    value.escape_ascii()
                ),
            );
            None
        }
    }
}
