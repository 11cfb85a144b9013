//! `docker_resume`: a download that breaks off is finished from where it stopped.
//!
//! The body filter counts what goes to the client. When upstream has ended before the last byte,
//! nginx flushes what there is, and would close the client's connection. Instead, when all of it
//! has gone out, a subrequest asks for the rest. Its header filter takes nothing but exactly that;
//! its body goes out behind what is there; and when it has ended, nginx calls the body filter of
//! the request itself again, which ends the answer or asks once more.

use core::ffi::CStr;
use std::cell::RefCell;

use nginx_sys::ngx_int_t;
use once_cell::unsync::OnceCell;
use rules::directive;
use rules::kind::{self, Kind};
use rules::request::asks_for_part;
use rules::resume::{self, Answer, Ended, Promise, Way};

use crate::breaker::Subject;
use crate::conf::{LocConf, Setting};
use crate::ctx::{Primary, RequestCtx, Stage};
use crate::module::Docker;
use crate::nginx::body::Chain;
use crate::nginx::conf::{Conf, Directive, SetError, set_once};
use crate::nginx::log::Level;
use crate::nginx::request::Request;
use crate::nginx::subrequest::Entry;
use crate::nginx::upstream::{Sender, Settings, Upstream};
use crate::nginx::{ERROR, NoMemory, OK, now};
use crate::{fallback, origin, verify};

/// `docker_resume on | off [tries=number] [stall=time]`
pub(crate) struct Resume;

impl Directive for Resume {
    type Conf = LocConf;
    const NAME: &'static CStr = c"docker_resume";

    fn set(conf: &mut LocConf, cf: Conf, args: &[&str]) -> Result<(), SetError> {
        set_once(&mut conf.resume, || Ok(Setting::new(directive::resume(args)?, cf)))
    }
}

/// An answer that is going to the client, and can be resumed.
pub(crate) struct Download {
    promise: Promise,
    /// How many bytes of it were passed on.
    received: u64,
    /// The client's connection may serve another request.
    keepalive: bool,
    state: State,
    /// How many requests for the rest were made.
    tries: u64,
    /// How many of them brought some of it.
    resumes: u64,
    attempt: Attempt,
}

impl Download {
    /// How many requests for the rest brought some of it, and how many did not.
    pub(crate) fn resumes(&self) -> (u64, u64) {
        (self.resumes, self.tries.saturating_sub(self.resumes))
    }

    fn is_whole(&self) -> bool {
        self.received == self.promise.length()
    }

    /// Counts what is passed on of the upstream of `r`, and says whether it makes the download whole:
    /// then nothing is left to be waited for. `None` if it is more than was promised.
    fn take(&mut self, r: Request<'_>, bytes: u64) -> Option<bool> {
        let was_whole = self.is_whole();
        let received = self.received.checked_add(bytes);
        self.received = received.filter(|sum| *sum <= self.promise.length())?;
        let completes = self.is_whole() && !was_whole;
        if completes && let Some(u) = r.upstream() {
            self.attempt.give_back_settings(u);
        }
        Some(completes)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The answer's own upstream is sending.
    Flowing,
    /// That has ended, and the rest is being asked for.
    Broken,
    /// There is nothing to do any more.
    Over,
}

/// Somebody who is sending, or is asked to.
struct Attempt {
    way: Way,
    /// When it was begun, as in [`now`].
    begun: u64,
    /// How many bytes there were before it.
    start: u64,
    /// It sends what was wanted.
    is_accepted: bool,
    is_unauthorized: bool,
    sender: Option<Sender>,
    /// Of the upstream that sends, where its silence is limited.
    settings: Option<Settings>,
    /// Who has ended it, and how.
    end: Option<String>,
}

impl Attempt {
    fn new(way: Way, start: u64) -> Self {
        Self {
            way,
            begun: now(),
            start,
            is_accepted: false,
            is_unauthorized: false,
            sender: None,
            settings: None,
            end: None,
        }
    }

    fn accept(&mut self, u: Upstream<'_>) {
        self.is_accepted = true;
        self.sender = u.sender();
    }

    /// Nothing of `u`, which sends, is waited for any more.
    fn give_back_settings(&mut self, u: Upstream<'_>) {
        if let Some(settings) = self.settings.take() {
            u.restore_settings(settings);
        }
    }
}

/// The answer of `u`, of which nothing is known yet but its header, may be a download.
pub(crate) fn may_begin(r: Request<'_>, u: Upstream<'_>) -> bool {
    r.is_main() && r.is_get() && matches!(u.status(), 200 | 206)
}

/// The upstream whose answer is going to the client: its header has gone out, and nginx said `rc`.
pub(crate) fn sending(r: Request<'_>, rc: ngx_int_t) -> Option<Upstream<'_>> {
    let was_sent = rc != ERROR && rc <= OK;
    r.upstream().filter(|u| was_sent && has_body(r) && origin::is_answer(r, *u))
}

/// The body of its answer goes to the client.
pub(crate) fn has_body(r: Request<'_>) -> bool {
    r.is_main() && r.is_get() && !r.is_header_only()
}

/// The header of the answer has gone out, and nginx said `rc`.
pub(crate) fn begin(r: Request<'_>, rc: ngx_int_t) {
    let conf = LocConf::of(r);
    if !conf.may_resume() {
        return;
    }
    if !r.is_main() && r.upstream().is_some() {
        r.log(
            Level::Debug,
            format_args!("download would not be resumed, it is for somebody's subrequest"),
        );
    }
    let Some(u) = sending(r, rc) else { return };
    let download = download(r, conf, u);
    if download.is_none()
        && may_begin(r, u)
        && let Some(ctx) = r.ctx::<Docker>()
    {
        origin::served(r, conf, &ctx.borrow(), now());
    }
    if let Some(download) = download
        && let Ok(ctx) = r.ctx_or_default::<Docker>()
    {
        let mut ctx = ctx.borrow_mut();
        if !conf.is_follow {
            ctx.begin(u);
        }
        ctx.download = Some(download);
    }
}

/// The answer of `u`, if it can be resumed and is not here already.
fn download(r: Request<'_>, conf: &LocConf, u: Upstream<'_>) -> Option<Download> {
    // What is small has come with its header, and breaks off no more.
    if u.content_length().is_some_and(|length| length <= u.received().len() as u64) {
        return None;
    }
    let uri = origin::uri(r, u);
    let policy = conf.resume(&uri)?;
    let promise = match promise(r, u, &uri) {
        Ok(promise) => promise,
        Err(why) => {
            r.log(Level::Debug, format_args!("download would not be resumed, {why}"));
            return None;
        }
    };
    let mut attempt = Attempt::new(Way::Last, 0);
    attempt.settings = u.limit_silence(policy.stall).ok()?;
    attempt.accept(u);
    Some(Download {
        promise,
        received: 0,
        keepalive: r.keeps_alive(),
        state: State::Flowing,
        tries: 0,
        resumes: 0,
        attempt,
    })
}

/// What the client has been promised, if it can be told which bytes are the rest of it.
fn promise(r: Request<'_>, u: Upstream<'_>, uri: &str) -> Result<Promise, String> {
    if u.is_kept() {
        return Err("it is being cached or stored".to_owned());
    }
    if r.has_body() {
        return Err("the request has a body".to_owned());
    }
    let answer = answer(u);
    let request = kind::Request::of(b"GET", uri.as_bytes());
    let is_fixed =
        matches!(request.kind, Kind::Blob | Kind::Manifest) && !request.digest.is_empty();
    let promise = Promise::of(&answer, is_fixed).map_err(|unfit| format!("upstream {unfit}"))?;
    if r.response_status() != u.status() || r.response_length() != u.content_length() {
        return Err("a filter changes it".to_owned());
    }
    Ok(promise)
}

fn answer(u: Upstream<'_>) -> Answer<'_> {
    let lines = u.lines().map(|line| (line.name(), line.value()));
    Answer::new(u.status(), u.content_length(), lines)
}

/// `r` is a subrequest for the rest of a download.
pub(crate) fn is_rest(r: Request<'_>) -> bool {
    !r.is_main() && r.ctx::<Docker>().is_some_and(|ctx| ctx.borrow().is_rest)
}

/// Another registry may have what `r` asks for, whose context this is: it is not the rest of what is
/// one's alone.
pub(crate) fn may_come_from_another(r: Request<'_>, ctx: &RequestCtx) -> bool {
    !ctx.is_rest
        || r.main().ctx::<Docker>().is_some_and(|main| {
            let main = main.borrow();
            main.download.as_ref().is_some_and(|download| download.promise.is_fixed())
        })
}

/// `u`, which was asked for the rest by `r`, has led elsewhere.
pub(crate) fn let_go(r: Request<'_>, u: Upstream<'_>) {
    if is_rest(r)
        && let Some(main) = r.main().ctx::<Docker>()
        && let Some(download) = &mut main.borrow_mut().download
    {
        download.attempt.give_back_settings(u);
    }
}

/// For how long those may send nothing who are asked for the rest, in milliseconds.
pub(crate) fn stall(r: Request<'_>) -> Option<u64> {
    if !is_rest(r) {
        return None;
    }
    LocConf::of(r.main()).resume.as_ref()?.value.map(|policy| policy.stall)
}

/// Takes the answer to a request for the rest, if it is that; else the subrequest ends without a
/// body.
pub(crate) fn judge(r: Request<'_>) {
    let is_accepted = match (r.main().ctx::<Docker>(), r.ctx::<Docker>()) {
        (Some(main), Some(ctx)) => judged(r, &mut main.borrow_mut(), &mut ctx.borrow_mut()),
        _ => false,
    };
    if !is_accepted && let Some(u) = r.upstream().filter(|u| u.is_live()) {
        u.keep(origin::is_reusable(u));
    }
    r.drop_header(is_accepted);
}

fn judged(r: Request<'_>, main: &mut RequestCtx, ctx: &mut RequestCtx) -> bool {
    let Some(download) = &mut main.download else { return false };
    let attempt = &mut download.attempt;
    let u = r.upstream();
    let who = origin::asked(ctx);
    let failed = match u.filter(|u| origin::is_answer(r, *u)) {
        Some(u) => match download.promise.accept(download.received, &answer(u)) {
            Ok(()) => {
                attempt.accept(u);
                download.resumes += 1;
                // From now on this is who sends, and who is asked first the next time.
                main.target = ctx.target;
                main.subject = ctx.subject;
                main.destination = ctx.destination.take();
                main.stage = core::mem::take(&mut ctx.stage);
                return true;
            }
            Err(unfit) => format!("{who}: {unfit}"),
        },
        None => match (ctx.outcomes.pop(), u.and_then(Upstream::failure)) {
            (Some(told), _) => told,
            (None, Some(failure)) => format!("{who}: {}", failure.as_str()),
            (None, None) => format!("{who}: no answer"),
        },
    };
    attempt.is_unauthorized = !origin::is_foreign(ctx) && u.is_some_and(|u| u.status() == 401);
    attempt.end = Some(failed);
    if let Some(u) = u {
        attempt.give_back_settings(u);
    }
    false
}

/// Sees every body before the other filters do; `next` passes it on to them. `start` is called
/// when a subrequest for the rest starts.
pub(crate) fn body_filter(
    r: Request<'_>,
    chain: Chain<'_>,
    start: Start,
    next: impl FnOnce() -> ngx_int_t,
) -> ngx_int_t {
    if !r.is_main() {
        return if is_rest(r) { rest(r, chain, next) } else { next() };
    }
    let conf = LocConf::of(r);
    if !conf.may_resume() && !conf.verifies() {
        return next();
    }
    let Some(ctx) = r.ctx::<Docker>() else { return next() };
    let state = {
        let mut ctx = ctx.borrow_mut();
        if !verify::permits(r, &mut ctx, chain) {
            return ERROR;
        }
        pass(r, chain, &mut ctx)
    };
    let rc = next();
    if state != State::Broken || rc == ERROR {
        return rc;
    }
    go_on(r, ctx, start).unwrap_or(rc)
}

/// What runs a subrequest for the rest of a download.
type Start = unsafe extern "C" fn(*mut nginx_sys::ngx_http_request_t);

/// Counts a piece of the answer itself.
fn pass(r: Request<'_>, chain: Chain<'_>, ctx: &mut RequestCtx) -> State {
    let Some(download) = &mut ctx.download else { return State::Over };
    if download.state != State::Flowing {
        return download.state;
    }
    let taken = download.take(r, chain.length());
    if let Some(completes) = taken
        && (download.is_whole() || r.upstream().is_some_and(Upstream::is_live))
    {
        if completes {
            let begun = download.attempt.begun;
            origin::served(r, LocConf::of(r), ctx, begun);
        }
        return State::Flowing;
    }
    if taken.is_none() || chain.is_last() {
        download.state = State::Over;
        return State::Over;
    }
    download.state = State::Broken;
    if let Some(u) = r.upstream() {
        // Without a Host that can be named, nobody can be asked.
        let _ = ctx.primary.get_or_try_init(|| origin::primary(r, u));
    }
    note_end(r, ctx);
    State::Broken
}

/// Passes on what a subrequest brings, if it is what was asked for.
fn rest(r: Request<'_>, chain: Chain<'_>, next: impl FnOnce() -> ngx_int_t) -> ngx_int_t {
    let Some(ctx) = r.main().ctx::<Docker>() else { return ERROR };
    {
        let mut ctx = ctx.borrow_mut();
        let Some(download) = &mut ctx.download else { return ERROR };
        if !download.attempt.is_accepted {
            chain.discard();
            return OK;
        }
        let Some(completes) = download.take(r, chain.length()) else {
            let who = origin::asked(&ctx);
            r.log(Level::Error, format_args!("{who}: sent more than the rest of a download"));
            return ERROR;
        };
        let (is_whole, begun) = (download.is_whole(), download.attempt.begun);
        if !is_whole && r.upstream().is_none_or(|u| !u.is_live()) {
            note_end(r.main(), &mut ctx);
        }
        if !verify::permits(r, &mut ctx, chain) {
            return ERROR;
        }
        if completes {
            origin::served(r.main(), LocConf::of(r.main()), &ctx, begun);
        }
    }
    next()
}

/// Notes how a connection has ended before it brought all. To be called when nginx has just closed
/// it.
fn note_end(r: Request<'_>, ctx: &mut RequestCtx) {
    let who = origin::asked(ctx);
    let Some(attempt) = ctx.download.as_mut().map(|download| &mut download.attempt) else { return };
    let Some(sender) = attempt.sender.take() else { return };
    attempt.end = Some(format!("{who}: {}", sender.ending().as_str()));
    let begun = attempt.begun;
    // Where the client has left, that is why; and where it is slow to read, it may be.
    if r.is_connected() && r.is_drained() {
        origin::broke_off(r, LocConf::of(r), ctx, begun);
    }
}

/// Ends the answer, asks for its rest, or gives up; `None` if there is nothing to do yet, or any
/// more.
fn go_on(r: Request<'_>, ctx: &RefCell<RequestCtx>, start: Start) -> Option<ngx_int_t> {
    if !r.is_active() || !r.is_connected() {
        return None;
    }
    let whole = {
        let mut ctx = ctx.borrow_mut();
        let download = ctx.download.as_mut()?;
        if download.is_whole() {
            download.state = State::Over;
        }
        download.is_whole().then_some(download.keepalive)
    };
    if let Some(keepalive) = whole {
        return Some(r.send_last(keepalive));
    }
    // What nginx still holds of one upstream would come behind what the next one sends; and who is
    // slow to read has time.
    if !r.is_drained() {
        return None;
    }
    ask(r, &mut ctx.borrow_mut(), start).err().map(|NoMemory| ERROR)
}

/// Asks whoever is next for the rest.
fn ask(r: Request<'_>, ctx: &mut RequestCtx, start: Start) -> Result<(), NoMemory> {
    let conf = LocConf::of(r);
    let Some(download) = &ctx.download else { return Ok(()) };
    let (received, length) = (download.received, download.promise.length());
    let why = download.attempt.end.clone().unwrap_or_else(|| "no answer".to_owned());
    let next = plan(r, conf, ctx, download);
    let Some(download) = &mut ctx.download else { return Ok(()) };
    let Some(next) = next else {
        download.state = State::Over;
        r.log(
            Level::Error,
            format_args!("download broke off after {received} of {length} bytes, {why}"),
        );
        return Ok(());
    };

    r.log(
        Level::Warn,
        format_args!(
            "download broke off after {received} of {length} bytes, {why}, asking {} for the rest",
            origin::asked(&next.ctx)
        ),
    );
    download.tries += 1;
    download.attempt = Attempt::new(next.way, received);
    let added: Vec<_> = next.lines.iter().map(|(name, value)| (*name, value.as_slice())).collect();
    let subrequest = r.start_rest(next.entry, asks_for_part, &added, start)?;
    *subrequest.ctx_or_default::<Docker>()?.borrow_mut() = next.ctx;
    Ok(())
}

/// A request for the rest.
struct Next {
    way: Way,
    entry: Entry,
    /// The field lines that make it one.
    lines: Vec<(&'static str, Vec<u8>)>,
    /// What its subrequest knows from the start.
    ctx: RequestCtx,
}

/// Whom to ask next, and how; `None` if there is nobody.
fn plan(r: Request<'_>, conf: &LocConf, ctx: &RequestCtx, download: &Download) -> Option<Next> {
    let primary = ctx.primary.get()?;
    let uri = &primary.url.uri;
    let is_fixed = download.promise.is_fixed();
    let may_fall_back = is_fixed && fallback::request(r).may_fall_back();
    let targets = origin::targets(conf, ctx, uri);
    let others = if may_fall_back { targets.len() } else { 0 };
    let ended = match &download.attempt {
        Attempt { is_unauthorized: true, .. } => Ended::Unauthorized,
        attempt if attempt.start < download.received => Ended::Broken,
        _ => Ended::Refused,
    };
    let way = resume::next_way(download.attempt.way, ended, others)?;
    let is_of_target = way == Way::First && ctx.target != 0 && !is_fixed;
    if is_of_target || download.tries >= conf.resume(uri)?.tries {
        return None;
    }

    let mut lines = vec![("Range", download.promise.range(download.received)?.into_bytes())];
    if let Some(etag) = download.promise.if_range() {
        lines.push(("If-Range", etag.to_vec()));
    }
    let kept = primary.lines.iter().filter(|(name, _)| !asks_for_part(name));
    let added = lines.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
    let primary = Primary {
        backend: primary.backend.clone(),
        url: primary.url.clone(),
        lines: kept.chain(added).collect(),
        is_exact: primary.is_exact,
    };

    let (destination, stage, target) = match (way, &ctx.destination, &ctx.stage) {
        (Way::Last, Some(last), Stage::Asking(addresses)) => {
            (Some(last.clone()), Stage::Resolved(addresses.clone()), ctx.target)
        }
        (Way::Target(number), ..) => {
            let target = targets.get(number.checked_sub(1)?)?;
            (Some(fallback::destination(target, uri)), Stage::Entering, number)
        }
        (Way::Last | Way::First, ..) => (None, Stage::Primary, 0),
    };
    // Only the primary is one of several registries.
    let own = ctx.service.as_ref().filter(|_| destination.is_none());
    let service = own.and_then(|service| service.again());
    let ways = conf.ways.as_ref();
    let entry = match &destination {
        Some(destination) => Entry::Phases(ways?.to(destination.verify)?),
        None => Entry::Content(ways.map_or_else(|| r.location(), |ways| ways.own)),
    };
    let mut ctx = RequestCtx {
        is_rest: true,
        primary: OnceCell::with_value(primary),
        target,
        destination,
        stage,
        service,
        ..RequestCtx::default()
    };
    ctx.subject = match targets.get(target.wrapping_sub(1)) {
        Some(target) => Some(Subject::of_target(r, target, uri)),
        None => origin::subject(r, &ctx, uri),
    };
    Some(Next { way, entry, lines, ctx })
}

/// A subrequest for the rest starts.
pub(crate) fn run(r: Request<'_>) {
    r.take_over();
    r.run_phases();
    // A run-time origin knows from the start.
    if let (Some(stall), Some(u)) = (stall(r), r.upstream())
        && u.is_live()
        && !u.is_run_time_origin()
    {
        // Without memory, the location's own time-out holds.
        let settings = u.limit_silence(stall).unwrap_or_default();
        if let Some(main) = r.main().ctx::<Docker>()
            && let Some(download) = &mut main.borrow_mut().download
        {
            download.attempt.settings = settings;
        }
    }
}

/// How often the rest of a download was fetched.
pub(crate) fn count(r: Request<'_>) -> Option<Vec<u8>> {
    let resumes = r.ctx::<Docker>().and_then(|ctx| Some(ctx.borrow().download.as_ref()?.resumes));
    Some(resumes.unwrap_or(0).to_string().into_bytes())
}
