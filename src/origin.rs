//! Where a request goes when it leaves its configured upstream: to a redirect's target, to a
//! fallback, or to an answer of our own.
//!
//! A request leaves in one of two ways. Where upstream has answered, our header filter releases it
//! and makes an internal redirect to the *follow location*. Where nginx gave up on upstream, an
//! error page of ours leads there. In the follow location the PREACCESS handler resolves the
//! destination and skips to the content phase, where `proxy_pass` of `follow.conf` asks it, by way
//! of an upstream of ours. Its answer meets the same header filter, and its failure the same error
//! page.

use core::ffi::CStr;
use std::borrow::Cow;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};

use nginx_sys::ngx_int_t;
use rules::body::{Body, Framing};
use rules::breaker::Reason;
use rules::directive::{self, Keepalive as Argument};
use rules::error;
use rules::fallback::{Authorization, Outcome, Step, Target, is_html};
use rules::location::{LocationError, Scheme, Url, literal};
use rules::redirect::{Policy, Refusal as RedirectRefusal};
use rules::request::{Carry, Head, Lines};
use rules::{body, request, resolv};

use crate::breaker::{Candidate, Candidates, Refusal, Subject};
use crate::conf::{self, LocConf, MainConf, is_api};
use crate::ctx::{Answer, Destination, Primary, Reach, Relation, RequestCtx, Stage};
use crate::module::Docker;
use crate::nginx::conf::{Conf, Directive, SetError, set_once};
use crate::nginx::idle::Limits;
use crate::nginx::location::{Location, Place, Refused};
use crate::nginx::log::Level;
use crate::nginx::peer::{Failure, Plan, Written};
use crate::nginx::request::{Handler, Request};
use crate::nginx::resolver::{self, Lookup};
use crate::nginx::upstream::Upstream;
use crate::nginx::{AGAIN, DECLINED, ERROR, NoMemory};
use crate::redirect::Outcome as Followed;
use crate::{breaker, errors, fallback, manifest, metrics, realm, redirect, registry, resume};

/// The upstream of the follow location, under a name that no host has (RFC 6761, section 6.4).
pub(crate) const UPSTREAM: &str = "docker-origin.invalid";

/// Bundles of CA certificates, where systems keep them.
const CA_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// `docker_keepalive number [timeout=time] [requests=number] [time=time] | off`
pub(crate) struct Keepalive;

impl Directive for Keepalive {
    type Conf = MainConf;
    const NAME: &'static CStr = c"docker_keepalive";

    fn set(conf: &mut MainConf, _cf: Conf, args: &[&str]) -> Result<(), SetError> {
        set_once(&mut conf.keepalive, || Ok(directive::keepalive(args)?))
    }
}

impl From<directive::ArgError> for SetError {
    fn from(error: directive::ArgError) -> Self {
        Self::Invalid { value: error.value, allowed: error.allowed }
    }
}

impl From<&Argument> for Limits {
    fn from(keepalive: &Argument) -> Self {
        Self {
            connections: keepalive.connections,
            timeout: keepalive.timeout,
            requests: keepalive.requests,
            time: keepalive.time,
        }
    }
}

/// The locations that belong to one where a request may leave its upstream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ways {
    /// The location itself.
    pub(crate) own: Location,
    /// The follow location where certificates are checked.
    verified: Option<Location>,
    /// The one where they are not.
    unverified: Option<Location>,
    /// The location itself, with the user's `error_page`s alone.
    pub(crate) twin: Location,
    /// The location itself, without the user's `error_page`s; where manifests are kept.
    pub(crate) asking: Option<Location>,
}

impl Ways {
    /// The follow location for a destination.
    pub(crate) fn to(&self, verify: bool) -> Option<Location> {
        if verify { self.verified } else { self.unverified }
    }

    /// Any follow location.
    pub(crate) fn any(&self) -> Option<Location> {
        self.verified.or(self.unverified)
    }
}

/// Makes the locations that belong to `place`.
pub(crate) fn add_ways(cf: Conf, place: Place, number: usize) -> Result<(), Refused> {
    // Making a location reads this one's configuration too.
    let conf = || conf::of_location(place.location);
    let (verified, unverified) = conf().verifications();
    let twin = cf.copy_location(place.location)?;
    let mut ways =
        Ways { own: place.location, verified: None, unverified: None, twin, asking: None };
    if verified {
        ways.verified = Some(cf.create_location(place, &text(cf, place.location, true)?)?);
    }
    if unverified {
        ways.unverified = Some(cf.create_location(place, &text(cf, place.location, false)?)?);
    }
    if conf().manifest_cache().is_some() {
        let asking = cf.copy_location(place.location)?;
        asking.clear_error_pages();
        ways.asking = Some(asking);
        if ways.any().is_none() {
            // Nobody is asked from there: the request only begins again.
            ways.unverified = Some(cf.create_location(place, "")?);
        }
    }
    let Some(named) = ways.any() else { return Ok(()) };

    let name = format!("@docker:{number}");
    cf.name_location(place, named, &name)?;
    for follow in [ways.verified, ways.unverified].into_iter().flatten() {
        cf.prepend_error_pages(follow, &[502, 504], &name)?;
        let follow = conf::of_location(follow);
        follow.ways = Some(ways);
        follow.is_follow = true;
    }
    if let Some(asking) = ways.asking {
        cf.prepend_error_pages(asking, &[502, 504], &name)?;
    }
    if conf().has_fallback() {
        // 502 and 504 are nginx's own; the others come here where the user has them intercepted.
        let mut statuses = vec![502, 504];
        let intercepted =
            |status: &u16| ![502, 504].contains(status) && twin.has_error_page(*status);
        statuses.extend(conf().conditions().statuses().filter(intercepted));
        cf.prepend_error_pages(place.location, &statuses, &name)?;
    }
    conf().ways = Some(ways);
    Ok(())
}

/// The text of a follow location, out of the directives that this nginx has.
fn text(cf: Conf, outer: Location, verify: bool) -> Result<String, Refused> {
    let mut lines: Vec<String> = include_str!("follow.conf").lines().map(str::to_owned).collect();
    // The path, too, stands in the request's head.
    lines.push(format!("proxy_pass $docker_target_scheme://{UPSTREAM}/;"));
    if verify {
        lines.push("proxy_ssl_verify on;".to_owned());
        if outer.string_of(cf, "proxy_ssl_trusted_certificate").is_empty() {
            let Some(bundle) = CA_BUNDLES.into_iter().find(|path| is_file(path)) else {
                cf.emerg(format_args!(
                    "no CA certificates to check origins with, \"proxy_ssl_trusted_certificate\" \
                     must name them, or \"verify=off\" stand in the docker directives"
                ));
                return Err(Refused);
            };
            lines.push(format!("proxy_ssl_trusted_certificate {bundle};"));
        }
    } else {
        lines.push("proxy_ssl_verify off;".to_owned());
    }
    if !outer.has_resolver() {
        let servers = name_servers();
        if servers.is_empty() {
            cf.warn(format_args!(
                "no name servers in /etc/resolv.conf and no \"resolver\": redirects to names \
                 cannot be followed"
            ));
        } else {
            lines.push(format!("resolver {};", servers.join(" ")));
        }
    }
    lines.retain(|line| {
        let directive = line.split(' ').next().unwrap_or_default();
        directive.is_empty() || directive == "#" || cf.knows(directive)
    });
    Ok(lines.join("\n"))
}

fn is_file(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

pub(crate) fn name_servers() -> Vec<String> {
    let text = std::fs::read("/etc/resolv.conf").unwrap_or_default();
    resolv::name_servers(&String::from_utf8_lossy(&text))
}

/// What the header filter does with an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// It goes on to the client.
    Pass,
    /// The request has left.
    Left,
    /// It is the rest of another answer, or was meant to be.
    Rest,
}

/// Sees every answer before the other filters do.
pub(crate) fn header_filter(r: Request<'_>) -> Verdict {
    let verdict = filter(r);
    if verdict == Verdict::Pass && resume::is_rest(r) {
        resume::judge(r);
        return Verdict::Rest;
    }
    verdict
}

fn filter(r: Request<'_>) -> Verdict {
    let conf = LocConf::of(r);
    if conf.realm.is_none() && conf.ways.is_none() && conf.registries.is_none() {
        return Verdict::Pass;
    }
    let verdict = filtered(r, conf);
    if verdict == Verdict::Pass && conf.registries.is_some() {
        registry::finish(r, conf);
    }
    verdict
}

fn filtered(r: Request<'_>, conf: &LocConf) -> Verdict {
    let Some(u) = r.upstream().filter(|_| is_ours(r)) else { return Verdict::Pass };
    realm::filter(r, conf, u);

    let Some(ways) = &conf.ways else { return Verdict::Pass };
    if !is_answer(r, u) {
        return Verdict::Pass;
    }
    metrics::answered(r, conf, u);
    match answered(r, conf, ways, u) {
        Ok(verdict) => verdict,
        // nginx has logged it; without memory the request ends.
        Err(NoMemory) => Verdict::Pass,
    }
}

/// The request is the client's, or a subrequest of the module's. Other subrequests are somebody
/// else's: auth_request and mirror want the answer as it is.
fn is_ours(r: Request<'_>) -> bool {
    r.is_main() || resume::is_rest(r)
}

/// What is on its way is upstream's own answer, fresh, to a request that may leave still.
pub(crate) fn is_answer(r: Request<'_>, u: Upstream<'_>) -> bool {
    u.is_live()
        && !u.is_header_sent()
        && !r.is_cached()
        && !r.is_post_action()
        && r.err_status() == 0
        && u.is_proxied()
}

/// nginx has written the request for the primary and is about to choose a server. A primary whose
/// breaker is open is passed by for a fallback, as if it had answered so.
pub(crate) fn before_asking(r: Request<'_>) -> Verdict {
    let conf = LocConf::of(r);
    let Some(ways) = conf.ways.as_ref().filter(|_| !conf.is_follow && is_ours(r)) else {
        return Verdict::Pass;
    };
    let Some(u) = r.upstream().filter(|u| is_primarys(r, ways, *u)) else { return Verdict::Pass };
    let is_returning = || {
        let ctx = r.ctx::<Docker>();
        ctx.is_some_and(|ctx| matches!(ctx.borrow().stage, Stage::Returning))
    };
    if !breaker::is_alert(r, conf) && !is_returning() {
        return Verdict::Pass;
    }
    // Without memory nginx has logged it, and the request ends soon.
    let Ok(ctx) = r.ctx_or_default::<Docker>() else { return Verdict::Pass };
    let next = pass_by(r, conf, &mut ctx.borrow_mut(), u);
    next.map_or(Verdict::Pass, |next| leave(r, ctx, u, next.location(ways)))
}

/// `u` is of the `proxy_pass` that all ways begin at.
fn is_primarys(r: Request<'_>, ways: &Ways, u: Upstream<'_>) -> bool {
    r.main_conf::<Docker>().proxy.is_some_and(|proxy| u.is_of(ways.own, proxy))
}

/// Where the request goes in place of the primary, if anywhere.
fn pass_by(r: Request<'_>, conf: &LocConf, ctx: &mut RequestCtx, u: Upstream<'_>) -> Option<Next> {
    let uri = core::str::from_utf8(u.uri()).ok()?;
    let mut subject = Subject::of_primary(r, &u.backend(), uri);
    if matches!(ctx.stage, Stage::Returning) {
        ctx.stage = Stage::Primary;
        ctx.upstream = Some(u.id());
        ctx.subject = Some(subject);
        return None;
    }
    ctx.begin(u);
    // Nothing is told of what came by here before, so that it probes for nobody.
    let is_new = fallback::passes(r) == 0;
    let refused = is_new.then(|| breaker::refuses(r, conf, &mut subject)).flatten();
    ctx.subject = Some(subject);
    if is_new && refused.is_none() {
        ctx.pending.set(breaker::Pending::new(r, &subject));
    }
    let Refusal { reason, remaining } = refused?;
    ctx.remaining = remaining;

    let targets = targets(conf, ctx, uri);
    let may_leave = conf.conditions().matches(reason_as_outcome(reason))
        && fallback::request(r).may_fall_back()
        && resume::may_come_from_another(r, ctx)
        && r.redirects_left() >= 2;
    if targets.is_empty() || !may_leave || ctx.primary.get_or_try_init(|| primary(r, u)).is_err() {
        return None;
    }
    ctx.queue.pass_by(0);
    let next = choose(r, ctx, &candidates(r, conf, ctx, uri).decided(r, conf))
        .filter(|next| !ctx.queue.passed_by(*next))?;
    metrics::fell_back(r, reason.as_str());
    ctx.fallback_reason = Some(Cow::Borrowed(reason.as_str()));
    let told = format!("{}: not asked ({reason})", asked(ctx));
    Some(go_on(r, conf, ctx, uri, Step::Next(next), reason_as_outcome(reason), Some(told)))
}

/// What the primary would have answered, for `docker_fallback_on`.
fn reason_as_outcome(reason: Reason) -> Outcome {
    match reason {
        Reason::Failures => Outcome::Error,
        Reason::Limit | Reason::PullLimit | Reason::Reserve => Outcome::Status(429),
    }
}

/// Who was not asked yet.
fn candidates(r: Request<'_>, conf: &LocConf, ctx: &RequestCtx, uri: &str) -> Candidates {
    let targets = targets(conf, ctx, uri);
    let has_zone = r.main_conf::<Docker>().zone().is_some();
    let numbers = (0..=targets.len()).filter(|number| !ctx.queue.asked(*number));
    let candidates = numbers.map(|number| {
        let target = targets.get(number.wrapping_sub(1)).filter(|_| has_zone);
        Candidate {
            number,
            subject: target.map(|target| Subject::of_target(r, target, uri)),
            is_passed_by: ctx.queue.passed_by(number),
        }
    });
    Candidates::new(candidates.collect())
}

/// Takes the first of the candidates who is not passed by; if all are, the first of all.
fn choose(r: Request<'_>, ctx: &mut RequestCtx, candidates: &[Candidate]) -> Option<usize> {
    for candidate in candidates.iter().filter(|candidate| candidate.is_passed_by) {
        ctx.queue.pass_by(candidate.number);
    }
    let next = candidates.iter().min_by_key(|next| (next.is_passed_by, next.number))?;
    if let Some(subject) = next.subject {
        ctx.subject = Some(subject);
        if !next.is_passed_by {
            ctx.pending.set(breaker::Pending::new(r, &subject));
        }
    }
    Some(next.number)
}

/// Upstream has answered.
fn answered(
    r: Request<'_>,
    conf: &LocConf,
    ways: &Ways,
    u: Upstream<'_>,
) -> Result<Verdict, NoMemory> {
    if !is_interesting(r, conf, u) {
        report_served(r, conf, u);
        return Ok(Verdict::Pass);
    }
    let ctx = r.ctx_or_default::<Docker>()?;
    if !conf.is_follow {
        let mut ctx = ctx.borrow_mut();
        ctx.begin(u);
        metrics::asked_primary(r, &mut ctx, u);
    }
    if ctx.borrow().primary.get_or_try_init(|| primary(r, u)).is_err() {
        return Ok(Verdict::Pass);
    }
    let uri = first_uri(&ctx.borrow());
    // The last internal redirect that nginx allows is kept for an answer of our own.
    let left = r.redirects_left();
    if left == 0 {
        return Ok(Verdict::Pass);
    }

    let mut failure = None;
    // nginx would relay what is no HTTP, as HTTP/0.9, whatever it is; and an interim answer as the
    // last one, with the next one for its body. An upgrade is between client and primary.
    let is_no_answer = u.status() < 200 && (conf.is_follow || !u.is_upgrade());
    if is_no_answer {
        if !conf.is_follow && conf.follow(&uri).is_none() && conf.targets(&uri).is_empty() {
            return Ok(Verdict::Pass);
        }
        r.restore_http_version();
        failure = Some(format!("{}: {}", asked(&ctx.borrow()), Failure::Answer.as_str()));
    } else if let Some(policy) = conf.follow(&uri).filter(|_| r.is_get_or_head()) {
        let looped = fallback::passes(r) > 1;
        let followed = redirect::decide(r, &ctx.borrow(), policy, u, looped);
        match followed {
            Followed::Pass => {}
            Followed::Follow(_) if left == 1 => {
                metrics::redirect_refused(r, RedirectRefusal::HOPS);
                failure = Some(format!("{}: too many internal redirects", asked(&ctx.borrow())));
            }
            Followed::Follow(destination) => {
                let verify = destination.verify;
                metrics::redirected(r, &destination.url.host);
                {
                    let mut ctx = ctx.borrow_mut();
                    ctx.redirects = ctx.redirects.saturating_add(1);
                    ctx.destination = Some(destination);
                    ctx.stage = Stage::Entering;
                }
                return Ok(leave(r, ctx, u, ways.to(verify)));
            }
            Followed::Refused(why) => failure = Some(why),
        }
        if let Some(why) = &failure {
            r.log(Level::Error, format_args!("redirect is not followed, {why}"));
        }
    }
    if matches!(u.status(), 401 | 407) && is_foreign(&ctx.borrow()) {
        // The client's credentials are for the registry, which has sent it there without any.
        failure = Some(answered_with(&asked(&ctx.borrow()), u.status()));
    }

    let outcome = match failure {
        Some(_) => Outcome::Error,
        None => breaker::outcome(r, &uri, u),
    };
    // One to go there, one to go on from there.
    let step = step(r, conf, &mut ctx.borrow_mut(), &uri, outcome, Some(u), 2);
    if step == Step::Answer && failure.is_none() {
        pass(r, &mut ctx.borrow_mut())?;
        return Ok(Verdict::Pass);
    }

    let from_primary = ctx.borrow().target == 0;
    if from_primary && failure.is_none() {
        let original = original(r, u, &ctx.borrow());
        let mut ctx = ctx.borrow_mut();
        ctx.original = Some(original);
        ctx.remaining = remaining(Some(&ctx), u);
    }
    let next = go_on(r, conf, &mut ctx.borrow_mut(), &uri, step, outcome, failure);
    Ok(leave(r, ctx, u, next.location(ways)))
}

/// Who is being asked is where a redirect has led to another origin.
pub(crate) fn is_foreign(ctx: &RequestCtx) -> bool {
    ctx.destination.as_ref().is_some_and(|destination| destination.relation == Relation::Foreign)
}

/// Who is being asked is another origin than the request was meant for: such a one, or a fallback.
fn is_elsewhere(ctx: &RequestCtx) -> bool {
    ctx.destination.as_ref().is_some_and(|destination| destination.relation != Relation::Same)
}

/// A line that another origin has no business to send to clients.
fn is_its_own(name: &[u8], value: &[u8]) -> bool {
    request::speaks_for_origin(name) || request::leads_away(name, value)
}

/// How many manifests the primary has left, if it is who has answered by `u`, and says so.
pub(crate) fn remaining(ctx: Option<&RequestCtx>, u: Upstream<'_>) -> Option<u32> {
    let said = if ctx.is_some_and(is_elsewhere) { None } else { breaker::remaining(u) };
    said.map(|remaining| remaining.requests)
}

/// The backend that is being asked, or has led to who is. In quiet times the primary was asked
/// without a look at its breaker.
pub(crate) fn subject(r: Request<'_>, ctx: &RequestCtx, uri: &str) -> Option<Subject> {
    let of_primary = |primary: &Primary| Subject::of_primary(r, &primary.backend, uri);
    ctx.subject.or_else(|| ctx.primary.get().map(of_primary))
}

/// Tells the breaker how the current target ended: with `outcome`, and an answer of `u` if that is
/// a status.
fn report(
    r: Request<'_>,
    conf: &LocConf,
    ctx: &RequestCtx,
    uri: &str,
    outcome: Outcome,
    u: Option<Upstream<'_>>,
    candidates: &mut Candidates,
) {
    told(ctx);
    // Who says that the request came by here before has made it fail, whoever was asked.
    if !breaker::is_news(r, conf, outcome, u) || fallback::passes(r) > 0 {
        return;
    }
    let Some(subject) = subject(r, ctx, uri) else { return };
    let is_for_later = || u.is_some_and(|u| is_for_later(r, conf, &subject, u));
    if !breaker::is_failure(outcome) && (ctx.is_rest || is_for_later()) {
        return;
    }
    let host = || backend(conf, ctx, uri);
    match (outcome, u) {
        (Outcome::Status(_) | Outcome::Page, Some(u)) => {
            let subject = subject.foreign(is_foreign(ctx));
            breaker::answered(r, conf, &subject, outcome, u, candidates, host);
        }
        _ => breaker::failed(r, conf, &subject, candidates, host),
    }
}

/// It is told what became of who is being asked.
fn told(ctx: &RequestCtx) {
    if let Some(pending) = ctx.pending.take() {
        pending.end();
    }
}

/// The primary's answer goes to the client as it is.
fn report_served(r: Request<'_>, conf: &LocConf, u: Upstream<'_>) {
    let outcome = Outcome::Status(u.status());
    if !breaker::is_news(r, conf, outcome, Some(u)) {
        return;
    }
    let known = r.ctx::<Docker>().map(RefCell::borrow);
    if let Some(ctx) = &known {
        told(ctx);
    }
    let known = known.filter(|ctx| ctx.upstream == Some(u.id())).and_then(|ctx| ctx.subject);
    let of_figures = || {
        breaker::remaining(u)?;
        Some(Subject::of_primary(r, &u.backend(), core::str::from_utf8(u.uri()).ok()?))
    };
    let Some(subject) = known.or_else(of_figures) else { return };
    if !breaker::is_failure(outcome) && is_for_later(r, conf, &subject, u) {
        return;
    }
    let host = || String::from_utf8_lossy(&u.authority()).into_owned();
    breaker::answered(r, conf, &subject, outcome, u, &mut Candidates::default(), host);
}

/// Whether `u` has served is told at the end of its answer: a download may break off until then.
fn is_for_later(r: Request<'_>, conf: &LocConf, subject: &Subject, u: Upstream<'_>) -> bool {
    subject.is_of_blob() && conf.may_resume() && resume::may_begin(r, u)
}

/// A download that was begun at `begun` has come to its last byte, or its bytes are not counted.
pub(crate) fn served(r: Request<'_>, conf: &LocConf, ctx: &RequestCtx, begun: u64) {
    if !breaker::is_alert(r, conf) {
        return;
    }
    let uri = first_uri(ctx);
    if let Some(subject) = subject(r, ctx, &uri).filter(Subject::is_of_blob) {
        breaker::served(r, conf, &subject.asked_by(begun), || backend(conf, ctx, &uri));
    }
}

/// A download that was begun at `begun` has broken off.
pub(crate) fn broke_off(r: Request<'_>, conf: &LocConf, ctx: &RequestCtx, begun: u64) {
    let uri = first_uri(ctx);
    if let Some(subject) = subject(r, ctx, &uri) {
        let subject = subject.asked_by(begun);
        breaker::failed(r, conf, &subject, &mut Candidates::default(), || backend(conf, ctx, &uri));
    }
}

/// The backend that is being asked, or has led to who is; as the log names it.
fn backend(conf: &LocConf, ctx: &RequestCtx, uri: &str) -> String {
    match targets(conf, ctx, uri).get(ctx.target.wrapping_sub(1)) {
        Some(target) => fallback::name(target),
        None => ctx
            .primary
            .get()
            .map(|primary| primary.url.authority().into_owned())
            .unwrap_or_default(),
    }
}

/// Only these answers can lead anywhere else; most answers are none of them, and cost nothing.
fn is_interesting(r: Request<'_>, conf: &LocConf, u: Upstream<'_>) -> bool {
    conf.is_follow
        || u.status() < 200
        || (r.is_get_or_head() && u.status() >= 300 && (u.status() < 400 || conf.has_fallback()))
        || (conf.has_fallback() && is_html(r.content_type()))
}

/// The answer that goes to the client comes from `ctx`'s destination.
fn pass(r: Request<'_>, ctx: &mut RequestCtx) -> Result<(), NoMemory> {
    // A download may last for hours, and nobody else is asked any more, unless it breaks off, or is
    // refused for what it is.
    let conf = LocConf::of(r);
    if let Some(primary) = ctx.primary.get_mut()
        && !conf.may_resume()
        && !conf.verifies()
    {
        primary.lines = Lines::default();
    }
    if is_elsewhere(ctx) {
        for line in r.response_lines().filter(|line| is_its_own(line.name(), line.value())) {
            line.remove();
        }
    }
    let uri = first_uri(ctx);
    match conf.targets(&uri).get(ctx.target.wrapping_sub(1)) {
        Some(target) => {
            let who = target.base.authority();
            errors::warn(r, &format!("answered by fallback {who} ({})", ctx.outcomes.join("; ")))
        }
        None => Ok(()),
    }
}

/// What to do after the current target ended with `outcome`, and an answer of `u` if that is a
/// status; the breaker is told. Another is asked only while nginx allows so many internal redirects.
fn step(
    r: Request<'_>,
    conf: &LocConf,
    ctx: &mut RequestCtx,
    uri: &str,
    outcome: Outcome,
    u: Option<Upstream<'_>>,
    redirects: u32,
) -> Step {
    // Who is asked next for the rest of a download is decided where that is wanted.
    let step = if ctx.is_rest {
        Step::Answer
    } else {
        ctx.queue.ask(ctx.target);
        let next = ctx.queue.next(targets(conf, ctx, uri).len());
        let next = next.filter(|_| r.redirects_left() >= redirects);
        fallback::decide(r, outcome, ctx.target, next, conf.conditions())
    };
    let mut left = match step {
        Step::Next(_) => candidates(r, conf, ctx, uri),
        Step::Answer | Step::Original => Candidates::default(),
    };
    report(r, conf, ctx, uri, outcome, u, &mut left);
    match step {
        Step::Next(next) => Step::Next(choose(r, ctx, &left.decided(r, conf)).unwrap_or(next)),
        Step::Answer | Step::Original => step,
    }
}

/// Where a request that leaves goes.
enum Next {
    /// To the destination in the context.
    Ask { verify: bool },
    /// To the primary after all.
    Return,
    /// To the client, with the answer in the context.
    Answer,
}

impl Next {
    /// The follow location that leads there.
    fn location(&self, ways: &Ways) -> Option<Location> {
        match self {
            Self::Ask { verify } => ways.to(*verify),
            Self::Return | Self::Answer => ways.any(),
        }
    }
}

/// Takes `step` after an attempt that ended with `outcome`, or with `failure` and no answer.
fn go_on(
    r: Request<'_>,
    conf: &LocConf,
    ctx: &mut RequestCtx,
    uri: &str,
    step: Step,
    outcome: Outcome,
    failure: Option<String>,
) -> Next {
    let who = asked(ctx);
    let told = failure.clone().unwrap_or_else(|| format!("{who}: {outcome}"));
    ctx.outcomes.push(told.clone());
    if ctx.destination.is_none() && outcome == Outcome::Timeout {
        ctx.status_without_answer = Some(504);
    }
    let targets = targets(conf, ctx, uri);
    match step {
        Step::Next(0) => {
            r.log(Level::Info, format_args!("{told}, asking the first upstream after all"));
            ctx.target = 0;
            ctx.destination = None;
            ctx.stage = Stage::Returning;
            return Next::Return;
        }
        Step::Next(number) => {
            if let Some(target) = targets.get(number.wrapping_sub(1)) {
                r.log(
                    Level::Info,
                    format_args!("{told}, falling back to \"{}\"", fallback::name(target)),
                );
                ctx.fallback_reason.get_or_insert_with(|| {
                    let reason = outcome.as_reason();
                    metrics::fell_back(r, &reason);
                    reason
                });
                ctx.target = number;
                ctx.destination = Some(fallback::destination(target, uri));
                ctx.stage = Stage::Entering;
                return Next::Ask { verify: target.verify };
            }
        }
        Step::Original => {
            r.log(
                Level::Warn,
                format_args!("no fallback served the request: {}", ctx.outcomes.join("; ")),
            );
        }
        Step::Answer => {}
    }
    ctx.is_original = true;
    ctx.subject = None;
    ctx.stage = match ctx.original.take() {
        Some(original) => Stage::Answering(original),
        None => Stage::Failed(ctx.status_without_answer.unwrap_or(502)),
    };
    Next::Answer
}

/// The URI that the primary of `r` was asked for; `u` is who has answered.
pub(crate) fn uri(r: Request<'_>, u: Upstream<'_>) -> String {
    let known = r.ctx::<Docker>().and_then(|ctx| {
        let ctx = ctx.borrow();
        ctx.primary.get().map(|primary| primary.url.uri.clone())
    });
    known.unwrap_or_else(|| String::from_utf8_lossy(u.uri()).into_owned())
}

/// The host that is being asked, and what it is to the request.
pub(crate) fn asked(ctx: &RequestCtx) -> String {
    let relation = ctx.destination.as_ref().map(|destination| destination.relation);
    format!("{} {}", part(relation, is_api(first_uri(ctx).as_bytes())), host(ctx))
}

/// What a host is to a request: none has a relation that was not led there.
pub(crate) fn part(relation: Option<Relation>, is_api: bool) -> &'static str {
    match relation {
        Some(Relation::Fallback) => "fallback",
        Some(Relation::Foreign) => "CDN",
        Some(Relation::Same) | None if is_api => "registry",
        Some(Relation::Same) | None => "upstream",
    }
}

fn host(ctx: &RequestCtx) -> Cow<'_, str> {
    match (&ctx.destination, ctx.primary.get()) {
        (Some(destination), _) => destination.url.authority(),
        (None, Some(primary)) => primary.url.authority(),
        (None, None) => Cow::default(),
    }
}

/// How an answer is told whose body is not.
pub(crate) fn answered_with(who: &str, status: u16) -> String {
    format!("{who}: {}", Outcome::Status(status))
}

/// Lets go of an upstream that has answered, and makes the internal redirect.
pub(crate) fn leave(
    r: Request<'_>,
    ctx: &RefCell<RequestCtx>,
    u: Upstream<'_>,
    location: Option<Location>,
) -> Verdict {
    // Every destination has a follow location; without one the answer stays what it is.
    let Some(location) = location else { return Verdict::Pass };
    ctx.borrow_mut().spent = Some(u.id());
    resume::let_go(r, u);
    u.release(is_reusable(u));
    r.clear_response();
    r.enter(location);
    Verdict::Left
}

/// The connection may serve another request, though nobody reads this answer's body.
pub(crate) fn is_reusable(u: Upstream<'_>) -> bool {
    // Behind an interim answer comes another.
    u.status() >= 200 && u.is_persistent() && matches!(whole_body(u), Body::Whole(_))
}

/// The body of the answer, if all of it is there: what is not yet read may lie in the socket.
fn whole_body(u: Upstream<'_>) -> Body<'_> {
    // A cache has nginx ask GET where the client asked HEAD.
    let is_bodiless = u.was_asked_head() || matches!(u.status(), 204 | 304);
    if u.head().is_empty() {
        // Over HTTP/2, what was received is frames.
        return Body::Partial;
    }
    let framing = match (is_bodiless, u.is_chunked()) {
        (true, _) => Framing::None,
        (false, true) => Framing::Chunked,
        (false, false) => u.content_length().map_or(Framing::Close, Framing::Length),
    };
    let whole = body::read(framing, u.received());
    if whole != Body::Partial || framing == Framing::Close {
        return whole;
    }
    u.receive_more();
    body::read(framing, u.received())
}

/// What is there of the body.
pub(crate) fn body_so_far(u: Upstream<'_>) -> Cow<'_, [u8]> {
    match whole_body(u) {
        Body::Whole(body) => body,
        Body::Partial | Body::Surplus => Cow::Borrowed(u.received()),
    }
}

/// What the primary was asked, out of the bytes that nginx sent: the Host that they name stands
/// nowhere else. Over HTTP/2 there are no such bytes, and what the client sent is the next best.
///
/// # Errors
///
/// If the location sends a Host that is none, or nobody knows the URI.
pub(crate) fn primary(r: Request<'_>, u: Upstream<'_>) -> Result<Primary, LocationError> {
    let head = Head::parse(u.request_head());
    let is_exact = head.is_some();
    let (host, lines) = match head {
        Some(head) => (head.host().map(<[u8]>::to_vec), head.lines().collect()),
        None => (None, r.request_lines().collect()),
    };
    let host = host.unwrap_or_else(|| u.authority());
    if u.uri().is_empty() {
        return Err(LocationError::Empty);
    }
    let url = Url::parse(&[u.schema(), &host, u.uri()].concat())?;
    Ok(Primary { backend: u.backend(), url, lines, is_exact })
}

/// The answer of `u`, to be sent later by us.
fn original(r: Request<'_>, u: Upstream<'_>, ctx: &RequestCtx) -> Answer {
    let is_elsewhere = is_elsewhere(ctx);
    let lines = r
        .response_lines()
        .filter(|line| !(is_elsewhere && is_its_own(line.name(), line.value())))
        .map(|line| (line.name().to_vec(), line.value().to_vec()))
        .collect();
    answer_of(u, lines, r.content_type(), r, &asked(ctx), errors::acts(r), false)
}

/// An answer with the status of `u` and its body, if that was small; else registry JSON.
fn answer_of(
    u: Upstream<'_>,
    mut lines: Vec<(Vec<u8>, Vec<u8>)>,
    content_type: &[u8],
    r: Request<'_>,
    who: &str,
    tells_errors: bool,
    yields_to_error_page: bool,
) -> Answer {
    let status = u.status();
    lines.retain(|(name, _)| !is_set_anew(name));
    let is_markup = status >= 400 && tells_errors && error::is_markup(content_type);
    let (content_type, body) = match whole_body(u) {
        Body::Whole(_) if r.is_head() && !is_markup => (content_type.to_vec(), Vec::new()),
        Body::Whole(body) if !is_markup => (content_type.to_vec(), body.into_owned()),
        Body::Whole(_) | Body::Partial | Body::Surplus => {
            lines.retain(|(name, _)| !describes_body(name, status));
            let body = errors::body(r, status, &answered_with(who, status));
            (b"application/json".to_vec(), body)
        }
    };
    Answer { status, content_type, lines, body, yields_to_error_page }
}

/// Lines that nginx writes itself, or that hold for one connection only.
pub(crate) fn is_set_anew(name: &[u8]) -> bool {
    const NAMES: [&str; 10] = [
        "connection",
        "content-length",
        "content-type",
        "date",
        "keep-alive",
        "server",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// Lines that are true of the body that came with an answer of `status`.
pub(crate) fn describes_body(name: &[u8], status: u16) -> bool {
    const NAMES: [&str; 6] = [
        "accept-ranges",
        "content-encoding",
        "content-language",
        "docker-content-digest",
        "etag",
        "last-modified",
    ];
    // With 416 it tells the length of the whole (RFC 9110, section 15.5.17).
    if name.eq_ignore_ascii_case(b"Content-Range") {
        return status != 416;
    }
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// What the phase does with the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// It goes on.
    Declined,
    /// It waits for the resolver, a subrequest or a timer.
    Wait,
    /// It ends with this status.
    Status(u16),
}

impl Phase {
    /// What the phase's handler returns to nginx.
    pub(crate) fn code(self) -> ngx_int_t {
        match self {
            Self::Declined => DECLINED,
            Self::Wait => AGAIN,
            Self::Status(status) => ngx_int_t::from(status.cast_signed()),
        }
    }
}

/// Runs in every location; acts in follow locations. The handlers are those of the content phase: of
/// answers that are ours, of declared registries, and of manifests that may be in memory.
pub(crate) fn preaccess(r: Request<'_>, answer: Handler, content: Handler, ask: Handler) -> Phase {
    let conf = LocConf::of(r);
    if !conf.is_follow {
        return registry::preaccess(r, conf, content);
    }
    let Some(ways) = &conf.ways else { return Phase::Declined };
    let Ok(ctx) = r.ctx_or_default::<Docker>() else { return Phase::Status(500) };

    loop {
        let stage = core::mem::take(&mut ctx.borrow_mut().stage);
        let next = match stage {
            Stage::Entering => match resolve(r, ctx) {
                Ok(()) => continue,
                Err(phase) => return phase,
            },
            Stage::Returning => {
                ctx.borrow_mut().stage = Stage::Returning;
                // The client's URI is still what it was, and access was granted.
                r.change_to(ways.own);
                r.skip_to_content();
                return Phase::Declined;
            }
            Stage::Beginning => {
                let phase = manifest::turn(r, ctx);
                if phase == Phase::Wait {
                    ctx.borrow_mut().stage = Stage::Beginning;
                    return phase;
                }
                r.change_to(ways.own);
                if let Some(handler) = manifest::handler(ctx, ask) {
                    r.set_content_handler(handler);
                }
                r.skip_to_content();
                return Phase::Declined;
            }
            Stage::Resolving(lookup) => {
                ctx.borrow_mut().stage = Stage::Resolving(lookup);
                r.watch_client();
                return Phase::Wait;
            }
            Stage::Resolved(addresses) => {
                ctx.borrow_mut().stage = Stage::Asking(addresses);
                r.skip_to_content();
                return Phase::Declined;
            }
            Stage::Failed(status) => {
                if manifest::asked_in_vain(r, ctx, status, None) {
                    continue;
                }
                return give_up(r, ways, status);
            }
            Stage::Answering(ours) => {
                let status = ours.status;
                if manifest::asked_in_vain(r, ctx, status, None) {
                    continue;
                }
                if ours.yields_to_error_page && ways.twin.has_error_page(status) {
                    return give_up(r, ways, status);
                }
                ctx.borrow_mut().stage = Stage::Answering(ours);
                r.set_content_handler(answer);
                r.skip_to_content();
                return Phase::Declined;
            }
            Stage::Unresolved(why) => {
                let mut ctx = ctx.borrow_mut();
                let uri = first_uri(&ctx);
                r.log(Level::Error, format_args!("{why}"));
                if r.add_upstream_state(&host(&ctx), 502).is_err() {
                    return Phase::Status(500);
                }
                let step = step(r, conf, &mut ctx, &uri, Outcome::Error, None, 1);
                go_on(r, conf, &mut ctx, &uri, step, Outcome::Error, Some(why))
            }
            Stage::Primary | Stage::Asking(_) => match gave_up(r, conf, ways, ctx) {
                Ok(next) => next,
                Err(status) => {
                    if manifest::asked_in_vain(r, ctx, status, None) {
                        continue;
                    }
                    return give_up(r, ways, status);
                }
            },
        };
        if let Next::Ask { .. } = next
            && let Some(location) = next.location(ways)
        {
            r.change_to(location);
        }
    }
}

/// The fallback targets of a request for `uri`.
pub(crate) fn targets<'c>(conf: &'c LocConf, ctx: &RequestCtx, uri: &str) -> &'c [Target] {
    let may_fall_back = ctx.service.as_ref().is_none_or(|service| service.may_fall_back());
    if may_fall_back { conf.targets(uri) } else { &[] }
}

pub(crate) fn first_uri(ctx: &RequestCtx) -> String {
    ctx.primary.get().map(|primary| primary.url.uri.clone()).unwrap_or_default()
}

/// Ends the request with `status` under the user's own `error_page`s.
fn give_up(r: Request<'_>, ways: &Ways, status: u16) -> Phase {
    r.change_to(ways.twin);
    r.allow_error_page();
    Phase::Status(status)
}

/// An error page has led here: nginx gave up on an upstream, or intercepted its answer.
///
/// Error pages also fire for others: for limit_req, for auth_request and its subrequest (which
/// would be granted by a fallback's 200), and X-Accel-Redirect may name our location. They get
/// the status that they came with, which is what `Err` holds.
fn gave_up(
    r: Request<'_>,
    conf: &LocConf,
    ways: &Ways,
    ctx: &RefCell<RequestCtx>,
) -> Result<Next, u16> {
    let status = r.err_status();
    if status == 0 {
        return Err(500);
    }
    r.allow_error_page();
    let u = r.upstream().filter(|u| {
        let is_of_location = u.is_of_follow_location() || is_primarys(r, ways, *u);
        let is_fresh = !u.is_live() && ctx.borrow().spent != Some(u.id());
        is_of_location && is_fresh && is_ours(r) && !r.is_post_action()
    });
    let Some(u) = u else { return Err(status) };
    // Only its location can tell what it was asked for, where that is not noted yet.
    u.uri_of(ways.own);
    let has_left = !is_primarys(r, ways, u);
    let tells_errors = errors::acts(r);

    let mut ctx = ctx.borrow_mut();
    if !has_left {
        ctx.begin(u);
        metrics::asked_primary(r, &mut ctx, u);
    }
    ctx.spent = Some(u.id());
    if ctx.primary.get_or_try_init(|| primary(r, u)).is_err() {
        return Err(status);
    }
    let uri = first_uri(&ctx);

    let (outcome, failure) = match (u.status() == status, status) {
        (true, _) => (Outcome::Status(status), None),
        (false, 504) => (Outcome::Timeout, u.failure()),
        (false, _) => (Outcome::Error, u.failure()),
    };
    let failure = failure.map(|failure| format!("{}: {}", asked(&ctx), failure.as_str()));
    let step = step(r, conf, &mut ctx, &uri, outcome, Some(u), 1);
    // Upstream's own answer is intercepted where the user has a page for it, or for our sake alone.
    let is_passed = u.status() == status && !ways.twin.has_error_page(status);
    let is_first = ctx.outcomes.is_empty();
    if step == Step::Answer && ctx.destination.is_none() && is_first && !is_passed {
        return Err(status);
    }
    if ctx.target == 0 && u.status() == status {
        let lines = u.passed_lines().map(|line| (line.name().to_vec(), line.value().to_vec()));
        let is_foreign = is_foreign(&ctx);
        let is_told = |name: &[u8], value: &[u8]| {
            let is_challenge = name.eq_ignore_ascii_case(b"WWW-Authenticate");
            let is_foreigners = is_foreign && (is_challenge || request::leads_away(name, value));
            !is_foreigners && !request::speaks_for_origin(name)
        };
        let lines: Vec<_> = lines.filter(|(name, value)| is_told(name, value)).collect();
        let content_type = u.line("Content-Type").unwrap_or_default();
        let who = asked(&ctx);
        ctx.original = Some(answer_of(u, lines, content_type, r, &who, tells_errors, true));
        ctx.remaining = remaining(Some(&ctx), u);
    }
    Ok(go_on(r, conf, &mut ctx, &uri, step, outcome, failure))
}

/// Finds the destination's addresses. `Ok`: the stage says what came of it.
fn resolve(r: Request<'_>, ctx: &RefCell<RequestCtx>) -> Result<(), Phase> {
    let (reach, host) = match &ctx.borrow().destination {
        Some(Destination { reach, url, .. }) => (*reach, url.host.clone()),
        None => return Err(Phase::Status(500)),
    };
    if let Reach::Primary(address) = reach {
        ctx.borrow_mut().stage = Stage::Resolved(vec![address]);
        return Ok(());
    }
    match look_up(r, &host, resolved) {
        Ok(Some(lookup)) => ctx.borrow_mut().stage = Stage::Resolving(lookup),
        Ok(None) => {}
        Err(NoMemory) => return Err(Phase::Status(500)),
    }
    Ok(())
}

/// Finds the addresses of the host of a URL. `None`: `callback` has them already.
pub(crate) fn look_up(
    r: Request<'_>,
    host: &str,
    callback: resolver::Callback,
) -> Result<Option<Lookup>, NoMemory> {
    let Some(address) = literal(host) else { return resolver::start(r, host, callback) };
    callback(r, resolver::Answer::Addresses(vec![address]));
    Ok(None)
}

fn resolved(r: Request<'_>, answer: resolver::Answer) {
    let Some(ctx) = r.ctx::<Docker>() else { return };
    let mut ctx = ctx.borrow_mut();
    match answer {
        resolver::Answer::Addresses(addresses) => found(r, LocConf::of(r), &mut ctx, &addresses),
        resolver::Answer::Failed(why) => {
            ctx.stage =
                Stage::Unresolved(format!("{}: could not be resolved ({why})", asked(&ctx)));
        }
    }
}

/// Keeps the addresses that may be asked.
fn found(r: Request<'_>, conf: &LocConf, ctx: &mut RequestCtx, addresses: &[IpAddr]) {
    let Some(destination) = &ctx.destination else { return };
    let policy = conf.follow.as_ref().and_then(|follow| follow.value.as_ref().as_ref());
    let is_allowed = |address: &IpAddr| {
        destination.reach == Reach::Configured
            || policy.map_or_else(|| Policy::default().permits(*address), |p| p.permits(*address))
    };
    let port = destination.url.port;
    let allowed: Vec<SocketAddr> = addresses
        .iter()
        .copied()
        .filter(is_allowed)
        .map(|address| SocketAddr::new(address, port))
        .collect();
    ctx.stage = if allowed.is_empty() {
        metrics::redirect_refused(r, RedirectRefusal::ADDRESS);
        Stage::Unresolved(format!("{}: redirects to this address are not allowed", host(ctx)))
    } else {
        Stage::Resolved(allowed)
    };
}

/// What an upstream of ours has to send, and where.
pub(crate) fn plan(r: Request<'_>) -> Option<Plan> {
    if !LocConf::of(r).is_follow {
        return registry::plan(r);
    }
    let main = r.main_conf::<Docker>();
    let ctx = r.ctx::<Docker>()?.borrow();
    let (Stage::Asking(addresses), Some(primary), Some(destination)) =
        (&ctx.stage, ctx.primary.get(), &ctx.destination)
    else {
        return None;
    };

    let carry = match destination.relation {
        Relation::Same if primary.is_exact => Carry::All,
        Relation::Same | Relation::Foreign => {
            Carry::Public { authorization: None, via: &main.loop_id }
        }
        Relation::Fallback => {
            Carry::Public { authorization: token(r, &ctx, addresses), via: &main.loop_id }
        }
    };
    // What the client did not ask for is slice's or the cache's, which do not see the answer.
    let is_clients = |line: &(&[u8], &[u8])| {
        let (name, value) = *line;
        r.request_lines().any(|(own, wanted)| own.eq_ignore_ascii_case(name) && wanted == value)
    };
    let lines =
        primary.lines.iter().filter(|line| !request::asks_for_part(line.0) || is_clients(line));
    if let (Relation::Fallback, Some(subject)) = (destination.relation, &ctx.subject) {
        let uri = &primary.url.uri;
        let target = targets(LocConf::of(r), &ctx, uri).get(ctx.target.wrapping_sub(1));
        metrics::asked(r, subject.backend(), subject.kind(), || {
            target.map(fallback::name).unwrap_or_default()
        });
    }
    Some(Plan {
        tls: destination.url.scheme == Scheme::Https,
        host: destination.tls_name.clone(),
        addresses: addresses.clone(),
        request: Some(Written {
            head: request::head(method(r), &destination.url, &carry, lines),
            // A CDN's signature, or the path by which a fallback knows its own, belong in no log.
            logged_uri: match destination.relation {
                Relation::Fallback => without_query(&primary.url.uri).to_owned(),
                Relation::Same | Relation::Foreign => {
                    without_query(&destination.url.uri).to_owned()
                }
            },
        }),
        silence: resume::stall(r),
        limits: Limits::from(&main.keepalive()),
    })
}

fn without_query(uri: &str) -> &str {
    uri.split('?').next().unwrap_or_default()
}

/// The client's token, if the fallback may have it: the location passed it to the primary, and
/// nobody can read it on the way.
fn token<'r>(r: Request<'r>, ctx: &RequestCtx, addresses: &[SocketAddr]) -> Option<&'r [u8]> {
    let uri = first_uri(ctx);
    let target = targets(LocConf::of(r), ctx, &uri).get(ctx.target.checked_sub(1)?)?;
    let is_loopback = addresses.iter().all(|address| address.ip().is_loopback());
    let value = r.request_line("Authorization")?;
    let primary = ctx.primary.get().filter(|primary| primary.is_exact)?;
    let was_passed = primary
        .lines
        .iter()
        .any(|(name, passed)| name.eq_ignore_ascii_case(b"Authorization") && passed == value);
    let is_token = fallback::authorization(r) == Authorization::Bearer;
    (is_token && was_passed && target.may_carry_token(is_loopback)).then_some(value)
}

/// Sends the answer that the stage holds.
pub(crate) fn answer(r: Request<'_>) -> ngx_int_t {
    let Some(ctx) = r.ctx::<Docker>() else { return ERROR };
    let Stage::Answering(answer) = core::mem::take(&mut ctx.borrow_mut().stage) else {
        return ERROR;
    };
    if let Err(status) = r.discard_body() {
        return status;
    }
    r.clear_response();
    let prepared =
        r.set_response(answer.status, None, &answer.content_type, answer.body.len()).and_then(
            |()| answer.lines.iter().try_for_each(|(name, value)| r.add_response_line(name, value)),
        );
    if prepared.is_err() {
        return ERROR;
    }
    r.send(&answer.body)
}

/// `$docker_target_scheme`, for `follow.conf`.
pub(crate) fn target_scheme(r: Request<'_>) -> Option<&[u8]> {
    let ctx = r.ctx::<Docker>()?.borrow();
    Some(ctx.destination.as_ref()?.url.scheme.as_str().as_bytes())
}

/// `$docker_target_method`, for `follow.conf`: a subrequest has one of its own. Only GET and HEAD
/// come to a follow location.
pub(crate) fn method(r: Request<'_>) -> &'static str {
    if r.is_head() { "HEAD" } else { "GET" }
}

/// `$docker_target_name`, for `follow.conf`: what the certificate must be for.
pub(crate) fn target_name(r: Request<'_>) -> Option<Vec<u8>> {
    let ctx = r.ctx::<Docker>()?.borrow();
    Some(ctx.destination.as_ref()?.tls_name.clone().into_bytes())
}
