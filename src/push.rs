//! `docker_push`: whether clients may write to registries, and uploads that lead back here.

use core::ffi::CStr;

use rules::directive;
use rules::error::Code;
use rules::location::Url;
use rules::registry::{By, Route, with_query};
use rules::ticket::Ticket;

use crate::conf::LocConf;
use crate::ctx::Answer;
use crate::module::Docker;
use crate::nginx::conf::{Conf, Directive, SetError, set_once};
use crate::nginx::request::Request;
use crate::registry::{self, Asked};

/// `docker_push on | off`
pub(crate) struct Push;

impl Directive for Push {
    type Conf = LocConf;
    const NAME: &'static CStr = c"docker_push";

    fn set(conf: &mut LocConf, _cf: Conf, args: &[&str]) -> Result<(), SetError> {
        set_once(&mut conf.push, || Ok(directive::push(args)?))
    }
}

/// Where an upload goes on that `route` is for, if it is for one.
pub(crate) fn session(
    r: Request<'_>,
    conf: &LocConf,
    route: &Route,
) -> Result<Option<String>, Answer> {
    if !r.is_get_or_head() && !conf.push.unwrap_or(false) {
        return Err(registry::not_allowed("GET, HEAD", "this mirror takes no pushes"));
    }
    let Some((session, query)) = &route.upload else { return Ok(None) };
    let key = r.main_conf::<Docker>().token_key.as_ref();
    match key.and_then(|key| Ticket::open(session, key)) {
        Some(Ticket::Upload { registry, uri }) if registry == route.registry.name => {
            Ok(Some(with_query(uri, query)))
        }
        _ => Err(registry::refused(404, Code::BlobUploadUnknown, "blob upload unknown here")),
    }
}

/// Has the `Location` and the `Link` of a registry's answer lead back here.
///
/// Where an upload goes on is the registry's to say, in any form; clients get a ticket for it. On
/// which host it says so does not matter: it knows itself by other names than we do.
pub(crate) fn lead_back(r: Request<'_>, asked: &Asked) {
    let Some(route) = asked.route() else { return };
    for line in r.response_lines() {
        let value = if line.is("Location") {
            location(r, asked, route, line.value())
        } else if line.is("Link") {
            link(asked, route, line.value())
        } else {
            continue;
        };
        if let Some(value) = value {
            // Without memory, nginx ends the request.
            let _ = line.set_value(r, value.as_bytes());
            r.keep_location_relative();
        }
    }
}

fn location(r: Request<'_>, asked: &Asked, route: &Route, value: &[u8]) -> Option<String> {
    let url = meant(asked, value)?;
    let uploads = format!("/v2/{}/blobs/uploads/", route.own_name()?);
    let is_own = url.same_origin(asked.origin());
    let status = r.upstream()?.status();
    if (url.uri.starts_with(&uploads) && status < 300) || (is_own && status == 202) {
        let key = r.main_conf::<Docker>().token_key.as_ref()?;
        let ticket = Ticket::Upload { registry: route.registry.name.clone(), uri: url.uri };
        let uri = format!("/v2/{}/blobs/uploads/{}", route.client_name()?, ticket.seal(key));
        return Some(named(route, uri));
    }
    route.client_uri(&url.uri).filter(|_| is_own).map(|uri| named(route, uri))
}

/// What a reference means in the answer to what was `asked`.
fn meant(asked: &Asked, reference: &[u8]) -> Option<Url> {
    let base = Url { uri: asked.uri().to_owned(), ..asked.origin().clone() };
    base.join(reference).ok()
}

/// `<URL>; rel="next"` (OCI distribution-spec, "Listing Tags").
fn link(asked: &Asked, route: &Route, value: &[u8]) -> Option<String> {
    let value = str::from_utf8(value).ok()?;
    let (target, parameters) = value.strip_prefix('<')?.split_once('>')?;
    let url = meant(asked, target.as_bytes())?;
    let uri = route.client_uri(&url.uri).filter(|_| url.same_origin(asked.origin()))?;
    Some(format!("<{}>{parameters}", named(route, uri)))
}

/// The client may come back by the answer alone.
fn named(route: &Route, uri: String) -> String {
    match route.by {
        By::Namespace => with_query(uri, &format!("ns={}", route.registry.name)),
        By::Prefix | By::Alias | By::Default => uri,
    }
}
