//! Who is not asked for a while: what all workers know of backends, in the first `docker_zone`.
//!
//! A backend is the configured upstream, or a fallback target. A CDN is none: what it does is
//! charged to the backend that leads there.

use core::ffi::CStr;
use core::mem;
use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use rules::breaker::{Breaker, Quota, Reason, Records, Settings, Way, decide};
use rules::digest::Key;
use rules::fallback::{Outcome, Target, is_page};
use rules::kind::{self, Class, Kind};
use rules::limit::Limit;
use rules::location::Url;
use rules::owner::Owner;
use rules::rate_limit::{RateLimit, Source};
use rules::{directive, error, retry_after};

use crate::conf::LocConf;
use crate::module::Docker;
use crate::nginx::conf::{Conf, Directive, SetError, set_once};
use crate::nginx::log::Level;
use crate::nginx::request::Request;
use crate::nginx::shm::{Locked, Zone};
use crate::nginx::upstream::Upstream;
use crate::nginx::{now, unix_time};
use crate::origin;

/// `docker_breaker on | off [failures=number] ...`
pub(crate) struct BreakerDirective;

impl Directive for BreakerDirective {
    type Conf = LocConf;
    const NAME: &'static CStr = c"docker_breaker";

    fn set(conf: &mut LocConf, _cf: Conf, args: &[&str]) -> Result<(), SetError> {
        set_once(&mut conf.breaker, || Ok(directive::breaker(args)?))
    }
}

/// `docker_fallback_reserve number`
pub(crate) struct FallbackReserve;

impl Directive for FallbackReserve {
    type Conf = LocConf;
    const NAME: &'static CStr = c"docker_fallback_reserve";

    fn set(conf: &mut LocConf, _cf: Conf, args: &[&str]) -> Result<(), SetError> {
        set_once(&mut conf.reserve, || Ok(directive::fallback_reserve(args)?))
    }
}

/// A backend that is being asked, and what for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    backend: Key,
    kind: Kind,
    class: Class,
    /// Who is counted there.
    owner: Key,
    /// When, as in [`now`].
    asked: u64,
    /// Nothing is known against it, so that an answer has nothing to put right.
    is_clean: bool,
    /// The backend has led to another origin, which speaks of itself.
    is_foreign: bool,
}

impl Subject {
    fn new(r: Request<'_>, backend: Key, uri: &str) -> Self {
        let kind::Request { kind, class, .. } = kind::Request::of(r.method(), uri.as_bytes());
        let owner = match class {
            Class::ManifestGet | Class::ManifestHead => owner(r.request_line("Authorization")),
            Class::Blob | Class::Token | Class::Ping | Class::Other => Owner::Anonymous,
        };
        let owner = match owner {
            Owner::Anonymous => backend.with(ANYBODY),
            Owner::Account(account) => backend.with(account),
        };
        let asked = now();
        Self { backend, kind, class, owner, asked, is_clean: false, is_foreign: false }
    }

    pub(crate) fn backend(&self) -> Key {
        self.backend
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The request for `uri` at the upstream that the configuration names so (see
    /// `Upstream::backend`).
    pub(crate) fn of_primary(r: Request<'_>, backend: &[u8], uri: &str) -> Self {
        Self::new(r, key(backend), uri)
    }

    /// The request for `uri` (as the primary would get it) at a fallback target.
    pub(crate) fn of_target(r: Request<'_>, target: &Target, uri: &str) -> Self {
        let Url { scheme, host, port, uri: prefix } = &target.base;
        let backend = format!("{}://{host}:{port}", scheme.as_str());
        let backend = Key::of_configured(&[backend.as_bytes(), prefix.as_bytes()]);
        Self::new(r, backend, uri)
    }

    /// The request was made as early as `asked`.
    pub(crate) fn asked_by(self, asked: u64) -> Self {
        Self { asked: self.asked.min(asked), ..self }
    }

    /// It is answered by where the backend has led, if that is another origin.
    pub(crate) fn foreign(self, is_foreign: bool) -> Self {
        Self { is_foreign, ..self }
    }

    fn is_of_manifest(&self) -> bool {
        matches!(self.class, Class::ManifestGet | Class::ManifestHead)
    }

    /// Its answer may take long, and break off.
    pub(crate) fn is_of_blob(&self) -> bool {
        self.class == Class::Blob
    }
}

/// Stands for all who do not log in.
const ANYBODY: Key = Key([1; 2]);

/// The backend that the configuration names so (see `Upstream::backend`).
pub(crate) fn key(backend: &[u8]) -> Key {
    Key::of_configured(&[backend, b""])
}

/// How many tokens a worker knows the owners of.
const OWNERS: usize = 64;

thread_local! {
    /// Owners by a hash of the token under a key of the worker's own: a look into the token costs
    /// several times as much.
    static KNOWN_OWNERS: RefCell<[Option<(u64, Owner)>; OWNERS]> =
        const { RefCell::new([None; OWNERS]) };
    static HASHES: RandomState = RandomState::new();
}

/// Whose quota a request with this `Authorization` uses.
fn owner(authorization: Option<&[u8]>) -> Owner {
    let Some(value) = authorization else { return Owner::Anonymous };
    let hash = HASHES.with(|hashes| hashes.hash_one(value));
    KNOWN_OWNERS.with_borrow_mut(|known| {
        let Some(slot) = known.get_mut(hash as usize % OWNERS) else {
            return Owner::of(authorization);
        };
        match slot {
            Some((of, owner)) if *of == hash => *owner,
            _ => slot.insert((hash, Owner::of(authorization))).1,
        }
    })
}

fn class(r: Request<'_>, uri: &str) -> Class {
    kind::Request::of(r.method(), uri.as_bytes()).class
}

/// A backend's breakers: its own, and one a class, as they lie in the zone.
const BREAKERS: usize = 1 + Class::ALL.len();
const BREAKER_WORDS: usize = 4;

/// What the zone knows of a subject.
struct Known {
    words: [[u64; BREAKER_WORDS]; BREAKERS],
    records: Records,
}

impl Known {
    fn read(zone: &mut Locked, subject: &Subject) -> Self {
        let words = zone
            .record::<{ BREAKERS * BREAKER_WORDS }>(subject.backend.0)
            .map(split)
            .unwrap_or_default();
        let [backend, ..] = words;
        let class = words.get(class_index(subject.class)).copied().unwrap_or_default();
        let mut records = Records {
            backend: Breaker::from(backend),
            class: Breaker::from(class),
            ..Records::default()
        };
        if subject.is_of_manifest()
            && let Some([a, b, c, d, e, f, g, h]) = zone.record(subject.owner.0)
        {
            records.owner = Breaker::from([a, b, c, d]);
            records.quota = Quota::from([e, f, g, h]);
        }
        Self { words, records }
    }

    /// All breakers are closed.
    fn forget(&mut self) {
        self.words = Default::default();
        self.records = Records { quota: self.records.quota, ..Records::default() };
    }

    /// Writes back what `before` was not.
    fn write(mut self, zone: &mut Locked, subject: &Subject, before: &Records) {
        let Records { backend, class, owner, quota } = self.records;
        if (backend, class) != (before.backend, before.class) {
            if let Some(words) = self.words.first_mut() {
                *words = backend.words();
            }
            if let Some(words) = self.words.get_mut(class_index(subject.class)) {
                *words = class.words();
            }
            let mut joined = [0; BREAKERS * BREAKER_WORDS];
            joined.copy_from_slice(self.words.as_flattened());
            zone.set_record(subject.backend.0, joined);
        }
        if (owner, quota) != (before.owner, before.quota) {
            let ([a, b, c, d], [e, f, g, h]) = (owner.words(), quota.words());
            zone.set_record(subject.owner.0, [a, b, c, d, e, f, g, h]);
        }
    }
}

fn split(words: [u64; BREAKERS * BREAKER_WORDS]) -> [[u64; BREAKER_WORDS]; BREAKERS] {
    let mut parts = [[0; BREAKER_WORDS]; BREAKERS];
    parts.as_flattened_mut().copy_from_slice(&words);
    parts
}

fn class_index(class: Class) -> usize {
    1 + Class::ALL.iter().position(|known| *known == class).unwrap_or(0)
}

/// A request that is noted as asked, and of which nothing was told yet. Where it ends so, as when its
/// client leaves, it was no probe and was not counted.
pub(crate) struct Pending {
    zone: Zone,
    subject: Subject,
}

impl Pending {
    /// `None`: what is known of `subject` does not wait for it.
    pub(crate) fn new(r: Request<'_>, subject: &Subject) -> Option<Self> {
        let zone = r.main_conf::<Docker>().zone()?;
        let counts = subject.class == Class::ManifestGet;
        (counts || !subject.is_clean).then(|| Self { zone, subject: *subject })
    }

    /// What became of it was told.
    pub(crate) fn end(self) {
        mem::forget(self);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.zone.lock(|zone| {
            let mut known = Known::read(zone, &self.subject);
            let before = known.records;
            known.records.backend.told_nothing();
            known.records.class.told_nothing();
            known.records.not_counted(self.subject.class);
            known.write(zone, &self.subject, &before);
        });
    }
}

/// Why a backend had better not be asked.
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    /// How many manifests it has left for the owner, if that is known.
    pub(crate) remaining: Option<u32>,
}

/// How long a failure matters, in milliseconds, beyond the longest time that a breaker is open.
const MEMORY: u64 = 60 * 60 * 1000;

/// Whether anything is known that could speak against a backend. In quiet times all of this costs
/// a request one look.
pub(crate) fn is_alert(r: Request<'_>, conf: &LocConf) -> bool {
    let zone = r.main_conf::<Docker>().zone();
    zone.is_some_and(|zone| conf.reserve.is_some() || zone.is_watched(now()))
}

/// The breakers of a backend that concern everybody, by what they are for; and what is left of the
/// quota that all share who do not log in.
pub(crate) fn look(zone: Zone, backend: Key) -> ([(&'static str, Breaker); BREAKERS + 1], Quota) {
    let (mut shared, [a, b, c, d, e, f, g, h]) = zone.lock(|zone| {
        let shared = zone.record(backend.0).map(split).unwrap_or_default();
        (shared, zone.record::<8>(backend.with(ANYBODY).0).unwrap_or_default())
    });
    let mut pulls = [a, b, c, d];
    if !zone.is_watched(now()) {
        // What is known is long ago.
        (shared, pulls) = Default::default();
    }
    let names = ["all"].into_iter().chain(Class::ALL.map(Class::as_str)).chain(["pulls"]);
    let breakers = shared.into_iter().chain([pulls]).map(Breaker::from);
    let mut all = [("", Breaker::default()); BREAKERS + 1];
    all.iter_mut().zip(names.zip(breakers)).for_each(|(to, from)| *to = from);
    (all, Quota::from([e, f, g, h]))
}

/// Where the location's breakers are.
fn zone(r: Request<'_>, conf: &LocConf) -> Option<Zone> {
    r.main_conf::<Docker>().zone().filter(|_| conf.breaker().is_some())
}

/// Whether `subject` had better not be asked, and why. Else it is noted that it is.
pub(crate) fn refuses(r: Request<'_>, conf: &LocConf, subject: &mut Subject) -> Option<Refusal> {
    zone(r, conf)?.lock(|zone| refuses_in(zone, conf, subject))
}

fn refuses_in(zone: &mut Locked, conf: &LocConf, subject: &mut Subject) -> Option<Refusal> {
    let mut known = Known::read(zone, subject);
    let before = known.records;
    let reserve = conf.reserve.unwrap_or(0);
    let way = decide(&mut known.records, subject.class, reserve, subject.asked);
    subject.is_clean = known.records.is_clean();
    known.write(zone, subject, &before);
    match way {
        Way::PassBy(reason) => {
            Some(Refusal { reason, remaining: before.quota.remaining(subject.asked) })
        }
        Way::Ask | Way::Probe => None,
    }
}

/// Who may be asked next.
pub(crate) struct Candidate {
    pub(crate) number: usize,
    /// `None`: nothing is kept about it, or it is the primary, of whom it was decided before.
    pub(crate) subject: Option<Subject>,
    pub(crate) is_passed_by: bool,
}

/// All who may be asked next, in turn.
#[derive(Default)]
pub(crate) struct Candidates {
    all: Vec<Candidate>,
    are_decided: bool,
}

impl Candidates {
    pub(crate) fn new(all: Vec<Candidate>) -> Self {
        Self { all, are_decided: false }
    }

    /// All of them, once it is decided who is passed by.
    pub(crate) fn decided(mut self, r: Request<'_>, conf: &LocConf) -> Vec<Candidate> {
        if let Some(zone) = zone(r, conf)
            && !self.are_decided
            && self.undecided().next().is_some_and(|next| next.subject.is_some())
        {
            zone.lock(|zone| self.decide(zone, conf));
        }
        self.all
    }

    /// Passes by whoever had better not be asked, until there is one that may be.
    fn decide(&mut self, zone: &mut Locked, conf: &LocConf) {
        self.are_decided = true;
        for candidate in self.undecided() {
            let subject = candidate.subject.as_mut();
            if subject.and_then(|subject| refuses_in(zone, conf, subject)).is_none() {
                break;
            }
            candidate.is_passed_by = true;
        }
    }

    fn undecided(&mut self) -> impl Iterator<Item = &mut Candidate> {
        self.all.iter_mut().filter(|candidate| !candidate.is_passed_by)
    }
}

/// How an answer of upstream counts.
pub(crate) fn outcome(r: Request<'_>, uri: &str, u: Upstream<'_>) -> Outcome {
    if is_page(|| class(r, uri), u.status(), r.content_type()) {
        Outcome::Page
    } else {
        Outcome::Status(u.status())
    }
}

/// Whether an answer of `u`, which counts as `outcome`, tells anything. That a backend serves is no
/// news while nothing speaks against any.
pub(crate) fn is_news(
    r: Request<'_>,
    conf: &LocConf,
    outcome: Outcome,
    u: Option<Upstream<'_>>,
) -> bool {
    zone(r, conf).is_some()
        && (is_failure(outcome) || is_alert(r, conf) || u.and_then(remaining).is_some())
}

/// Upstream has answered `subject` with `outcome`. `host` is who is to blame. It
/// is decided of the candidates under the same mutex, unless nothing is told: then they do it.
pub(crate) fn answered(
    r: Request<'_>,
    conf: &LocConf,
    subject: &Subject,
    outcome: Outcome,
    u: Upstream<'_>,
    candidates: &mut Candidates,
    host: impl Fn() -> String,
) {
    let has_figures = subject.is_of_manifest() && !subject.is_foreign;
    let remaining = if has_figures { remaining(u) } else { None };
    let is_refused = outcome == Outcome::Status(401);
    if subject.is_clean && remaining.is_none() && !is_failure(outcome) && !is_refused {
        return;
    }
    let mut subject = *subject;
    let source = u.line("docker-ratelimit-source").and_then(Source::parse);
    if has_figures && source == Some(Source::Address) {
        // The token was not looked at: whoever forged it has no say in its account's quota.
        subject.owner = subject.backend.with(ANYBODY);
    }
    let limit = (outcome == Outcome::Status(429)).then(|| {
        let content_type = u.line("Content-Type").unwrap_or_default();
        Limit::of(subject.class, content_type, &origin::body_so_far(u))
    });
    report(r, conf, &subject, candidates, host, |records, settings| {
        let (asked, now) = (subject.asked, now());
        match limit {
            Some(limit) => {
                let values =
                    u.lines().filter(|line| line.is("Retry-After")).map(|line| line.value());
                let delay = retry_after::delay(
                    values,
                    unix_time(),
                    settings.retry_after,
                    settings.max_retry_after,
                );
                match limit {
                    Limit::Pull if subject.is_of_manifest() => records.owner.limited(now, delay),
                    Limit::Abuse if subject.is_foreign => records.class.limited(now, delay),
                    Limit::Abuse => records.backend.limited(now, delay),
                    // It is not known whose limit that is: at most the client's own.
                    Limit::Pull | Limit::Login => {}
                }
            }
            None if is_failure(outcome) => records.class.failed(asked, now, settings),
            None => {
                records.backend.succeeded(asked);
                records.class.succeeded(asked);
            }
        }
        if is_refused {
            // The token was not taken, so nothing is said of its owner.
            records.not_counted(subject.class);
        } else {
            if let Some(remaining) = remaining {
                let limit = u.line("ratelimit-limit").and_then(RateLimit::parse);
                records.quota.learn(now, limit, remaining);
            }
            // Many a registry limits pulls and says nothing of a quota.
            if subject.class == Class::ManifestGet && u.status() < 400 {
                records.owner.succeeded(asked);
            }
        }
    });
}

/// What an answer says is left of a quota.
pub(crate) fn remaining(u: Upstream<'_>) -> Option<RateLimit> {
    RateLimit::parse(u.line("ratelimit-remaining")?)
}

/// All that `subject` was asked for has come.
pub(crate) fn served(r: Request<'_>, conf: &LocConf, subject: &Subject, host: impl Fn() -> String) {
    report(r, conf, subject, &mut Candidates::default(), host, |records, _| {
        records.backend.succeeded(subject.asked);
        records.class.succeeded(subject.asked);
    });
}

/// Upstream has not answered `subject`, or not to the end.
pub(crate) fn failed(
    r: Request<'_>,
    conf: &LocConf,
    subject: &Subject,
    candidates: &mut Candidates,
    host: impl Fn() -> String,
) {
    report(r, conf, subject, candidates, host, |records, settings| {
        records.class.failed(subject.asked, now(), settings);
    });
}

/// The backend is to blame, or where it leads; other statuses are the client's own.
pub(crate) fn is_failure(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Status(status) => status == 429 || error::is_outage(status),
        Outcome::Error | Outcome::Timeout | Outcome::Page => true,
    }
}

/// Changes what is known of `subject`, and logs what became of it.
fn report(
    r: Request<'_>,
    conf: &LocConf,
    subject: &Subject,
    candidates: &mut Candidates,
    host: impl Fn() -> String,
    change: impl FnOnce(&mut Records, &Settings),
) {
    let (Some(zone), Some(settings)) = (r.main_conf::<Docker>().zone(), conf.breaker()) else {
        return;
    };
    let is_watched = zone.is_watched(now());
    let (before, after) = zone.lock(|zone| {
        let mut known = Known::read(zone, subject);
        if !is_watched {
            // What was known is long ago, and nobody has told of successes since.
            known.forget();
        }
        let before = known.records;
        change(&mut known.records, &settings);
        let after = known.records;
        known.write(zone, subject, &before);
        candidates.decide(zone, conf);
        (before, after)
    });

    let now = now();
    if !after.is_clean() {
        zone.watch(now.saturating_add(settings.max_retry_after).saturating_add(MEMORY));
    }
    let open = |records: &Records| {
        let Records { backend, class, owner, .. } = records;
        [backend, class, owner].map(|breaker| breaker.open_for(now))
    };
    let what = ["all requests", subject.class.as_str(), "manifests of one owner"];
    let opened = open(&before).into_iter().zip(open(&after)).zip(what);
    let opened = opened.filter_map(|((before, after), what)| match (before, after) {
        (None, Some(delay)) => Some((delay, what)),
        _ => None,
    });
    for (delay, what) in opened {
        let seconds = delay.div_ceil(1000);
        r.log(Level::Warn, format_args!("{}: breaker is open for {seconds} s ({what})", host()));
    }
}
