//! `docker_fallback` and `docker_fallback_on`: another registry answers.

use core::ffi::CStr;

use rules::directive;
use rules::fallback::{self, Authorization, Outcome, Step, Target};
use rules::{cdn_loop, fallback::Conditions};

use crate::conf::{LocConf, Setting, warn_of_weakness};
use crate::ctx::{Destination, Reach, Relation};
use crate::module::Docker;
use crate::nginx::conf::{Conf, Directive, SetError, set_once};
use crate::nginx::request::Request;

/// `docker_fallback url ... [credentials=bearer|none] [verify=on|off] | off`; repeated for targets
/// with other parameters.
pub(crate) struct Fallback;

impl Directive for Fallback {
    type Conf = LocConf;
    const NAME: &'static CStr = c"docker_fallback";

    fn set(conf: &mut LocConf, cf: Conf, args: &[&str]) -> Result<(), SetError> {
        let new = directive::fallback(args)?;
        warn_of_weakness(cf, Self::NAME, args);
        let Some(old) = conf.fallback.take() else {
            conf.fallback = Some(Setting::new(new.unwrap_or_default(), cf));
            return Ok(());
        };
        let Some(new) = new.filter(|_| !old.value.is_empty()) else {
            return Err(SetError::Invalid {
                value: args.join(" "),
                allowed: "URLs only, or \"off\" only".to_owned(),
            });
        };
        let mut targets: Vec<Target> = old.value.to_vec();
        for target in new {
            if targets.iter().any(|known| known.base == target.base) {
                return Err(SetError::Invalid {
                    value: target.base.without_query(),
                    allowed: "given once only".to_owned(),
                });
            }
            targets.push(target);
        }
        conf.fallback = Some(Setting::new(targets, cf));
        Ok(())
    }
}

/// `docker_fallback_on error | timeout | http_4xx | http_5xx ...`
pub(crate) struct FallbackOn;

impl Directive for FallbackOn {
    type Conf = LocConf;
    const NAME: &'static CStr = c"docker_fallback_on";

    fn set(conf: &mut LocConf, _cf: Conf, args: &[&str]) -> Result<(), SetError> {
        set_once(&mut conf.fallback_on, || Ok(directive::fallback_on(args)?))
    }
}

/// How often this nginx has passed the request on already (RFC 8586).
pub(crate) fn passes(r: Request<'_>) -> usize {
    let id = &r.main_conf::<Docker>().loop_id;
    let values = r.request_lines().filter(|(name, _)| name.eq_ignore_ascii_case(b"CDN-Loop"));
    cdn_loop::count(values.map(|(_, value)| value), id)
}

/// The client's credentials: of several lines, none is a token that could be passed on.
pub(crate) fn authorization(r: Request<'_>) -> Authorization {
    let mut lines =
        r.request_lines().filter(|(name, _)| name.eq_ignore_ascii_case(b"Authorization"));
    let first = Authorization::of(lines.next().map(|(_, value)| value));
    if lines.next().is_some() { Authorization::Other } else { first }
}

/// What to do when `target` ended with `outcome`, and `next` comes after it.
pub(crate) fn decide(
    r: Request<'_>,
    outcome: Outcome,
    target: usize,
    next: Option<usize>,
    conditions: &Conditions,
) -> Step {
    fallback::decide(outcome, target, next, &request(r), conditions)
}

/// The request, as far as it matters to who may answer it.
pub(crate) fn request(r: Request<'_>) -> fallback::Request {
    fallback::Request {
        get_or_head: r.is_get_or_head(),
        has_body: r.has_body(),
        authorization: authorization(r),
        looped: passes(r) > 0,
        rewrites_realm: LocConf::of(r).rewrites_realm(),
    }
}

/// Where the request for `uri` goes at `target`.
pub(crate) fn destination(target: &Target, uri: &str) -> Destination {
    Destination {
        tls_name: target.base.host.clone(),
        url: target.url(uri),
        relation: Relation::Fallback,
        reach: Reach::Configured,
        verify: target.verify,
    }
}

/// The user's own words for a target, without its path: that may be a secret.
pub(crate) fn name(target: &Target) -> String {
    format!("{}://{}", target.base.scheme.as_str(), target.base.authority())
}
