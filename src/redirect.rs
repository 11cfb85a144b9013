//! `docker_follow_redirect`: nginx itself goes where the registry points.

use core::ffi::CStr;
use std::borrow::Cow;

use rules::redirect::{self, Decision, Policy, Redirect};
use rules::{answer, directive};

use crate::conf::{LocConf, Setting, warn_of_weakness};
use crate::ctx::{Destination, Reach, Relation, RequestCtx};
use crate::metrics;
use crate::nginx::conf::{Conf, Directive, SetError, set_once};
use crate::nginx::log::Level;
use crate::nginx::request::Request;
use crate::nginx::upstream::Upstream;

/// `docker_follow_redirect on | off [hops=number] [allow=host[:port] ...] [private=cidr ...]
/// [verify=on|off]`
pub(crate) struct FollowRedirect;

impl Directive for FollowRedirect {
    type Conf = LocConf;
    const NAME: &'static CStr = c"docker_follow_redirect";

    fn set(conf: &mut LocConf, cf: Conf, args: &[&str]) -> Result<(), SetError> {
        set_once(&mut conf.follow, || Ok(Setting::new(directive::follow_redirect(args)?, cf)))?;
        warn_of_weakness(cf, Self::NAME, args);
        Ok(())
    }
}

/// What becomes of an answer of upstream, as far as redirects go.
pub(crate) enum Outcome {
    /// It is none that is followed.
    Pass,
    Follow(Destination),
    /// It must not be followed; who, and why.
    Refused(String),
}

/// Decides what becomes of the answer of `u`.
pub(crate) fn decide(
    r: Request<'_>,
    ctx: &RequestCtx,
    policy: &Policy,
    u: Upstream<'_>,
    looped: bool,
) -> Outcome {
    let Some(primary) = ctx.primary.get() else { return Outcome::Pass };
    let base = ctx.destination.as_ref().map_or(&primary.url, |destination| &destination.url);
    // As it came, where that can be told: `proxy_redirect` has changed nginx's own copy.
    let location =
        u.rewritten_location().map(|now| answer::field(u.head(), "Location").unwrap_or(now));
    let redirect = Redirect { status: u.status(), location, base, followed: ctx.redirects, looped };
    match redirect::decide(&redirect, policy) {
        Decision::Pass => Outcome::Pass,
        Decision::Follow(url) => {
            let same = url.same_origin(base);
            let (relation, reach) = match (&ctx.destination, u.peer_address()) {
                _ if !same => (Relation::Foreign, Reach::Permitted),
                (Some(from), _) => (from.relation, from.reach),
                (None, Some(address)) => (Relation::Same, Reach::Primary(address)),
                // Behind a Unix socket; the client has come here by the same name.
                (None, None) => return Outcome::Pass,
            };
            // The primary's certificate need not be for the Host that it is sent.
            let tls_name = match (&ctx.destination, reach) {
                (Some(from), Reach::Primary(_)) => from.tls_name.clone(),
                (None, Reach::Primary(_)) => u.tls_name().unwrap_or_default(),
                (_, Reach::Configured | Reach::Permitted) => url.host.clone(),
            };
            // Its certificate is checked as the primary's would be checked by default, and as that
            // of the target where there is one.
            let verify = match &ctx.destination {
                Some(from) if same => from.verify,
                _ => policy.verify,
            };
            if r.logs(Level::Info) {
                // The path of a fallback may be its secret.
                let shown = match relation {
                    Relation::Fallback => format!("{}://{}", url.scheme.as_str(), url.authority()),
                    Relation::Same | Relation::Foreign => url.without_query(),
                };
                let status = u.status();
                r.log(Level::Info, format_args!("following redirect ({status}) to \"{shown}\""));
            }
            Outcome::Follow(Destination { url, relation, reach, tls_name, verify })
        }
        Decision::Refuse(refusal) => {
            metrics::redirect_refused(r, refusal.as_reason());
            let host = refusal.host().map_or_else(|| base.authority(), Cow::Borrowed);
            Outcome::Refused(format!("{host}: {refusal}"))
        }
    }
}
