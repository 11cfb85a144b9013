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
use crate::nginx::OK;
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
}

/// The digest that the answer's body is to have, if that can be checked; nginx said `rc` to its
/// header, if it was sent.
fn wanted<'r>(r: Request<'r>, rc: ngx_int_t) -> Option<(Digest, Upstream<'r>)> {
    if !LocConf::of(r).verifies() {
        return None;
    }
    let u = resume::sending(r, rc).filter(|u| u.status() == 200)?;
    let uri = origin::uri(r, u);
    let request = kind::Request::of(b"GET", uri.as_bytes());
    let digest = Digest::parse(request.digest).filter(|_| request.kind == Kind::Blob)?;
    u.line("Content-Encoding").is_none().then_some((digest, u))
}

/// The answer is of no bytes, and not what was asked for. Its header alone would be all of it: so it
/// is not sent.
pub(crate) fn refuses(r: Request<'_>) -> bool {
    let Some((wanted, u)) = wanted(r, OK) else { return false };
    let got = Sha256::default().finish();
    if u.content_length() != Some(0) || wanted == got {
        return false;
    }
    if let Ok(ctx) = r.ctx_or_default::<Docker>() {
        refuse(r, &ctx.borrow(), &wanted, &got);
    }
    r.clear_response();
    true
}

/// The header of the answer has gone out, and nginx said `rc`.
pub(crate) fn begin(r: Request<'_>, rc: ngx_int_t) {
    let Some((wanted, u)) = wanted(r, rc) else { return };
    if let Ok(ctx) = r.ctx_or_default::<Docker>() {
        let hash = Sha256::default();
        ctx.borrow_mut().check = Some(Check { wanted, hash, left: u.content_length() });
    }
}

/// Takes in what is about to be passed on for `ctx`; false if it ends the answer, and the answer is
/// not what was asked for. `r` is the request of `ctx`, or a subrequest for the rest of it.
pub(crate) fn permits(r: Request<'_>, ctx: &mut RequestCtx, chain: Chain<'_>) -> bool {
    let Some(check) = &mut ctx.check else { return true };
    let Check { hash, left, .. } = check;
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
    if wanted == got {
        return true;
    }
    refuse(r, ctx, &wanted, &got);
    false
}

fn refuse(r: Request<'_>, ctx: &RequestCtx, wanted: &Digest, got: &Digest) {
    let who = origin::asked(ctx);
    r.log(
        Level::Error,
        format_args!("{who}: sent content with the digest \"{got}\" in place of \"{wanted}\""),
    );
    if let Some(u) = r.upstream() {
        u.keep_nothing();
    }
}
