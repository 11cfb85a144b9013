//! `docker_verify`: what a client gets for a digest has that digest.

use core::ffi::CStr;
use core::ops::ControlFlow;

use nginx_sys::ngx_int_t;
use rules::digest::{Digest, Sha256};
use rules::directive;
use rules::kind::{self, Kind};

use crate::conf::LocConf;
use crate::ctx::RequestCtx;
use crate::module::Docker;
use crate::nginx::body::Chain;
use crate::nginx::conf::{Conf, Directive, SetError, set_once};
use crate::nginx::log::Level;
use crate::nginx::request::Request;
use crate::nginx::upstream::Upstream;
use crate::{origin, resume};

/// `docker_verify on | off`
pub(crate) struct Verify;

impl Directive for Verify {
    type Conf = LocConf;
    const NAME: &'static CStr = c"docker_verify";

    fn set(conf: &mut LocConf, _cf: Conf, args: &[&str]) -> Result<(), SetError> {
        set_once(&mut conf.verify, || Ok(directive::verify(args)?))
    }
}

/// An answer whose digest is known before it comes.
pub(crate) struct Check {
    wanted: Digest,
    hash: Sha256,
    /// How many bytes are to come, if that is known.
    left: Option<u64>,
    /// nginx's cache is to have it, if it is what was asked for; nginx decides that between header
    /// and body.
    is_cacheable: Option<bool>,
}

/// The digest that the body of upstream's answer is to have, if that can be checked.
fn wanted<'r>(r: Request<'r>) -> Option<(Digest, Upstream<'r>)> {
    if !LocConf::of(r).verifies() {
        return None;
    }
    // Others have a part of it, or no content at all (RFC 9110, section 15.3).
    let is_whole = |status| matches!(status, 200..=203 | 207..=299);
    let u = r.upstream().filter(|u| is_whole(u.status()) && origin::is_answer(r, *u))?;
    // Upstream may know the blob by another path, and clients may write it with escapes.
    let digest = named(origin::uri(r, u).as_bytes()).or_else(|| named(r.path()))?;
    let coding = u.line("Content-Encoding");
    coding.is_none_or(|coding| coding.eq_ignore_ascii_case(b"identity")).then_some((digest, u))
}

/// The digest that a URI names a blob by.
fn named(uri: &[u8]) -> Option<Digest> {
    let request = kind::Request::of(b"GET", uri);
    Digest::parse(request.digest).filter(|_| request.kind == Kind::Blob)
}

/// Sees the header of an answer before it goes out. `true`: the answer is of no bytes, and not what
/// was asked for. Its header alone would be all of it: so it is not sent.
///
/// What is not looked at is not kept by nginx either: `proxy_store`, which has no way back, keeps no
/// blob, and its cache none that comes for HEAD or for a subrequest.
pub(crate) fn refuses(r: Request<'_>) -> bool {
    let Some((wanted, u)) = wanted(r) else { return false };
    u.store_nothing();
    if !resume::has_body(r) {
        u.cache(false);
        return false;
    }
    let Ok(ctx) = r.ctx_or_default::<Docker>() else { return false };
    let (left, got) = (u.content_length(), Digest::of(b""));
    if left == Some(0) && wanted != got {
        refuse(r, u, &ctx.borrow(), &wanted, &got);
        u.cache(false);
        u.keep(origin::is_reusable(u));
        r.clear_response();
        return true;
    }
    let hash = Sha256::default();
    let mut ctx = ctx.borrow_mut();
    if !LocConf::of(r).is_follow {
        ctx.begin(u);
    }
    ctx.check = Some(Check { wanted, hash, left, is_cacheable: None });
    false
}

/// The header of the answer has gone out, and nginx said `rc`. Where no body follows, such as behind
/// a 304 that a filter has made of it, nobody will look.
pub(crate) fn begin(r: Request<'_>, rc: ngx_int_t) {
    if LocConf::of(r).verifies()
        && resume::sending(r, rc).is_none()
        && let Some(ctx) = r.ctx::<Docker>()
        && ctx.borrow_mut().check.take().is_some()
        && let Some(u) = r.upstream()
    {
        u.cache(false);
    }
}

/// Takes in what is about to be passed on for `ctx`; false if it ends the answer, and the answer is
/// not what was asked for. `r` is the request of `ctx`, or a subrequest for the rest of it.
pub(crate) fn permits(r: Request<'_>, ctx: &mut RequestCtx, chain: Chain<'_>) -> bool {
    let Some(check) = &mut ctx.check else { return true };
    let Check { hash, left, is_cacheable, .. } = check;
    let u = r.upstream();
    if let Some(u) = u
        && is_cacheable.is_none()
    {
        // nginx would go on for its cache where the client leaves, and nobody would look.
        *is_cacheable = Some(u.is_cacheable());
        u.cache(false);
    }
    let read = chain.read(r, |bytes| {
        hash.update(bytes);
        ControlFlow::Continue(())
    });
    if read.is_err() {
        return false;
    }
    *left = left.map(|left| left.saturating_sub(chain.length()));
    if !(*left == Some(0) || chain.is_last()) {
        return true;
    }

    let Some(check) = ctx.check.take() else { return true };
    let (wanted, got) = (check.wanted, check.hash.finish());
    let is_wanted = wanted == got;
    if let Some(u) = u {
        if !is_wanted {
            refuse(r, u, ctx, &wanted, &got);
        } else if check.is_cacheable == Some(true) {
            u.cache(true);
        }
    }
    is_wanted
}

fn refuse(r: Request<'_>, u: Upstream<'_>, ctx: &RequestCtx, wanted: &Digest, got: &Digest) {
    // A direct answer has led nowhere, so that nobody has asked who that was.
    let _ = ctx.primary.get_or_try_init(|| origin::primary(r, u));
    let who = origin::asked(ctx);
    r.log(
        Level::Error,
        format_args!("{who}: sent content with the digest \"{got}\" in place of \"{wanted}\""),
    );
}
