//! The variables `$docker_*`.

use rules::kind;

use crate::conf::LocConf;
use crate::module::Docker;
use crate::nginx::request::Request;
use crate::nginx::variable::Getter::{self, Lent, Made};
use crate::{fallback, manifest, origin, registry, resume};

pub(crate) static TABLE: [(&str, Getter); 17] = [
    ("docker_digest", Lent(|r| part(r, |request| request.digest))),
    ("docker_fallback", Made(fallback_name)),
    ("docker_fallback_reason", Made(fallback_reason)),
    ("docker_kind", Lent(|r| part(r, |request| request.kind.as_str().as_bytes()))),
    ("docker_manifest_cache", Made(manifest::status)),
    ("docker_origin_host", Made(origin_host)),
    ("docker_ratelimit_remaining", Made(remaining)),
    ("docker_redirects", Made(redirects)),
    ("docker_reference", Lent(|r| part(r, |request| request.reference))),
    ("docker_repository", Lent(|r| part(r, |request| request.repository))),
    ("docker_registry", Made(registry::name)),
    ("docker_resumes", Made(resume::count)),
    ("docker_upstream", Lent(registry::upstream_url)),
    // For follow.conf only.
    ("docker_target_certificate", Lent(|_| Some(&[]))),
    ("docker_target_method", Lent(|r| Some(origin::method(r).as_bytes()))),
    ("docker_target_name", Made(origin::target_name)),
    ("docker_target_scheme", Lent(origin::target_scheme)),
];

/// A part of what the client asks for, which is known before anybody is asked.
fn part<'r>(r: Request<'r>, of: impl FnOnce(kind::Request<'r>) -> &'r [u8]) -> Option<&'r [u8]> {
    Some(of(kind::Request::of(r.method(), r.client_uri())))
}

/// Why another than the first upstream was asked; empty if none was.
fn fallback_reason(r: Request<'_>) -> Option<Vec<u8>> {
    let ctx = r.ctx::<Docker>().map(|ctx| ctx.borrow());
    let reason = ctx.as_ref().and_then(|ctx| ctx.fallback_reason.as_deref());
    Some(reason.unwrap_or_default().as_bytes().to_vec())
}

/// How many manifests may still be asked for; empty if nobody said so.
fn remaining(r: Request<'_>) -> Option<Vec<u8>> {
    let ctx = r.ctx::<Docker>().map(|ctx| ctx.borrow());
    let known = ctx.as_ref().and_then(|ctx| ctx.remaining);
    let said = || origin::remaining(ctx.as_deref(), r.upstream()?);
    let remaining = known.or_else(said).map(|remaining| remaining.to_string());
    Some(remaining.unwrap_or_default().into_bytes())
}

/// Who answered in the end: the host that was asked, as the request named it.
fn origin_host(r: Request<'_>) -> Option<Vec<u8>> {
    if let Some(ctx) = r.ctx::<Docker>() {
        let ctx = ctx.borrow();
        let primary = ctx.primary.get().map(|primary| &primary.url);
        let url = match &ctx.destination {
            Some(destination) if !ctx.is_original => Some(&destination.url),
            _ => primary,
        };
        if let Some(url) = url {
            return Some(url.host.clone().into_bytes());
        }
    }
    let primary = origin::primary(r, r.upstream()?).ok()?;
    Some(primary.url.host.into_bytes())
}

/// How many redirects were followed for the request.
fn redirects(r: Request<'_>) -> Option<Vec<u8>> {
    let followed = r.ctx::<Docker>().map_or(0, |ctx| ctx.borrow().redirects);
    Some(followed.to_string().into_bytes())
}

/// Which fallback target served; empty if none did.
fn fallback_name(r: Request<'_>) -> Option<Vec<u8>> {
    let served = r.ctx::<Docker>().and_then(|ctx| {
        let ctx = ctx.borrow();
        let uri = &ctx.primary.get()?.url.uri;
        let target = origin::targets(LocConf::of(r), &ctx, uri).get(ctx.target.checked_sub(1)?)?;
        (!ctx.is_original).then(|| fallback::name(target).into_bytes())
    });
    Some(served.unwrap_or_default())
}
