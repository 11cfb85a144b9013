//! `docker_errors`: clients get a registry's errors, in words for the person who pulls.
//!
//! Whoever sends an answer asks, behind its header, whether there is a body to be sent at all. So
//! our header filter writes the header anew, sends the body itself, and says that there is none.

use core::ffi::CStr;

use rules::directive;
use rules::error::{self, Code};

use crate::conf::{LocConf, Setting, is_api};
use crate::module::Docker;
use crate::nginx::NoMemory;
use crate::nginx::conf::{Conf, Directive, SetError, set_once};
use crate::nginx::headers::Line;
use crate::nginx::peer::Failure;
use crate::nginx::request::Request;
use crate::nginx::upstream::Upstream;
use crate::origin;

/// `docker_errors on | off`
pub(crate) struct Errors;

impl Directive for Errors {
    type Conf = LocConf;
    const NAME: &'static CStr = c"docker_errors";

    fn set(conf: &mut LocConf, cf: Conf, args: &[&str]) -> Result<(), SetError> {
        set_once(&mut conf.errors, || Ok(Setting::new(directive::errors(args)?, cf)))
    }
}

/// A location begins to answer. Where an error has led there, the page is the user's.
pub(crate) fn entered(r: Request<'_>) {
    if r.err_status() == 0 || !r.is_main() || LocConf::of(r).is_follow {
        return;
    }
    if let Ok(ctx) = r.ctx_or_default::<Docker>() {
        ctx.borrow_mut().is_error_page = true;
    }
}

/// Writes the header of an error anew; returns the body that belongs to it. `None`: the answer is
/// no error, or stays as it is.
pub(crate) fn filter(r: Request<'_>) -> Result<Option<&[u8]>, NoMemory> {
    let status = r.response_status();
    if status < 400 || !r.is_main() || r.is_post_action() || !acts(r) {
        return Ok(None);
    }
    let ctx = r.ctx::<Docker>();
    if ctx.is_some_and(|ctx| ctx.borrow().is_error_page) {
        return Ok(None);
    }
    let message = if r.err_status() != 0 {
        // nginx's own page: nobody else sends under such a status, but for an error page.
        own(r, status)
    } else if error::is_markup(r.content_type()) && !r.is_error_page() {
        let Some(message) = upstreams(r, status) else { return Ok(None) };
        message
    } else {
        return Ok(None);
    };
    for line in r.response_lines().filter(|line| origin::describes_body(line.name(), status)) {
        line.remove();
    }
    let body = r.keep(&body(r, status, &message))?;
    let status_line = error::status_line(status, &message);
    r.set_response(status, status_line.as_deref(), b"application/json", body.len())?;
    Ok(Some(body))
}

/// The body of an error that is told in this way.
pub(crate) fn body(r: Request<'_>, status: u16, message: &str) -> Vec<u8> {
    error::body(Code::of(status, r.client_uri()), message).into_bytes()
}

/// Warns the person who gets the answer (OCI distribution-spec, "Warnings"): of one that came about
/// otherwise than asked for. `text` names hosts and reasons; no path, for that may be a secret, and
/// no address.
pub(crate) fn warn(r: Request<'_>, text: &str) -> Result<(), NoMemory> {
    let is_warning = |line: &Line<'_>| line.is("Warning");
    let others = r.response_lines().filter(is_warning).map(|line| line.value().len()).sum();
    error::warning(text, others)
        .map_or(Ok(()), |value| r.add_response_line(b"Warning", value.as_bytes()))
}

/// Errors of the request are told as a registry tells them.
pub(crate) fn acts(r: Request<'_>) -> bool {
    let asked_upstream = || match r.ctx::<Docker>().map(|ctx| ctx.borrow()) {
        Some(ctx) if ctx.primary.get().is_some() => is_api(origin::first_uri(&ctx).as_bytes()),
        _ => r.upstream().is_some_and(|u| is_api(u.uri())),
    };
    LocConf::of(r).errors(is_api(r.client_uri()) || asked_upstream())
}

/// What to say in place of a page of nginx's.
fn own(r: Request<'_>, status: u16) -> String {
    let told = match status {
        502 | 504 => attempts(r),
        _ => None,
    };
    told.unwrap_or_else(|| error::own_message(status))
}

/// What became of those who were asked and gave no answer.
fn attempts(r: Request<'_>) -> Option<String> {
    let u = r.upstream();
    if let Some(ctx) = r.ctx::<Docker>() {
        let ctx = ctx.borrow();
        let is_told = u.is_none_or(|u| ctx.spent == Some(u.id()));
        if is_told && !ctx.outcomes.is_empty() {
            return Some(ctx.outcomes.join("; "));
        }
    }
    let u = u?;
    let failure = u.failure().map_or("failed", Failure::as_str);
    Some(format!("{}: {failure}", who(r, u)?))
}

/// What to say in place of the page that an upstream has sent, now or into nginx's cache.
fn upstreams(r: Request<'_>, status: u16) -> Option<String> {
    let u = r.upstream().filter(|u| u.is_live() || r.is_cached())?;
    if u.is_live() && !r.is_cached() {
        u.keep(origin::is_reusable(u));
    }
    Some(origin::answered_with(&who(r, u)?, status))
}

/// Who is asked by `u`; `None` if that is no server of HTTP.
fn who(r: Request<'_>, u: Upstream<'_>) -> Option<String> {
    if !u.is_of_http() {
        return None;
    }
    let ctx = r.ctx::<Docker>().map(|ctx| ctx.borrow());
    if let Some(ctx) = ctx.filter(|_| u.is_of_follow_location()) {
        return Some(origin::asked(&ctx));
    }
    let is_api = is_api(r.client_uri()) || is_api(u.uri());
    let host = match origin::primary(r, u) {
        Ok(primary) => primary.url.authority().into_owned(),
        Err(_) => String::from_utf8(u.authority()).ok()?,
    };
    Some(format!("{} {host}", origin::part(None, is_api)))
}
