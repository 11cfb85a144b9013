//! The variables `$docker_*`.

use crate::conf::LocConf;
use crate::fallback;
use crate::module::Docker;
use crate::nginx::request::Request;
use crate::nginx::variable::Getter;
use crate::{origin, resume};

pub(crate) static TABLE: [(&str, Getter); 8] = [
    ("docker_fallback", fallback_name),
    ("docker_origin_host", origin_host),
    ("docker_redirects", redirects),
    ("docker_resumes", resume::count),
    // For follow.conf only.
    ("docker_target", origin::target_url),
    ("docker_target_certificate", |_| Some(Vec::new())),
    ("docker_target_method", origin::target_method),
    ("docker_target_name", origin::target_name),
];

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
        let target = LocConf::of(r).targets(uri).get(ctx.target.checked_sub(1)?)?;
        (!ctx.is_original).then(|| fallback::name(target).into_bytes())
    });
    Some(served.unwrap_or_default())
}
