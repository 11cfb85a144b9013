//! Who is not asked for a while, and why: a circuit breaker, and what is left of a quota.
//!
//! Both are a few integers that lie in memory which all workers share, so they are copied out,
//! changed and copied back ([`Breaker::words`]); all zero is what nothing is known of. Times are
//! milliseconds of one clock that never goes back, whose zero is in the past.

use crate::kind::Class;
use crate::rate_limit::RateLimit;

/// How long the others wait for a probe, in milliseconds: a worker that is killed reports nothing,
/// and then another request probes.
pub const PROBE: u64 = 10_000;

/// What is known of a quota is forgotten after that time, in milliseconds, if its window does not
/// end earlier.
const MAX_MEMORY: u64 = 60 * 60 * 1000;

/// `docker_breaker`: when a backend is not asked any more, and how long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Failures in a row that open a breaker.
    pub failures: u32,
    /// How long it stays open then, in milliseconds; twice as long each time that a probe fails.
    pub backoff: u64,
    /// Never longer than that, in milliseconds.
    pub max_backoff: u64,
    /// How long a limit lasts that does not say so, in milliseconds.
    pub retry_after: u64,
    /// Never longer than that, in milliseconds.
    pub max_retry_after: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            failures: 3,
            backoff: 1000,
            max_backoff: 60 * 1000,
            retry_after: 30 * 1000,
            max_retry_after: 60 * 60 * 1000,
        }
    }
}

/// Why a breaker is open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// It failed several times in a row.
    Failures,
    /// It said that there were too many requests.
    Limit,
}

/// Whether a backend may be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admit {
    /// It may.
    Pass,
    /// One may try whether it is back.
    Probe,
    /// It may not.
    Open(Cause),
}

/// A circuit breaker.
///
/// It opens after failures in a row, or when the backend says that it is limited. When its time is
/// over, one request probes (*half-open*): if that succeeds it closes, if that fails it opens for
/// twice as long.
///
/// Every report says when the backend was asked. While the breaker is open, an answer to what was
/// asked earlier says nothing new; one to a request that was made in spite of it does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Breaker {
    /// When it opened; 0 if it is closed.
    since: u64,
    /// Until when it is open.
    until: u64,
    /// Until when a probe is waited for.
    probe: u64,
    /// Failures in a row, while it is closed.
    failures: u32,
    /// Times that it opened for failures and has not closed again.
    trips: u16,
    /// The cause is a limit.
    is_limited: u16,
}

impl Breaker {
    /// As it lies in shared memory.
    pub fn words(self) -> [u64; 4] {
        let counts = u64::from(self.failures)
            | u64::from(self.trips) << 32
            | u64::from(self.is_limited) << 48;
        [self.since, self.until, self.probe, counts]
    }

    /// How long it stays open, in milliseconds; `None` if it is not.
    pub fn open_for(&self, now: u64) -> Option<u64> {
        self.until.checked_sub(now).filter(|left| *left > 0)
    }

    /// Whether the backend may be asked, for a look at it: who asks, calls [`Self::ask`].
    pub fn state(&self, now: u64) -> Admit {
        if self.since == 0 {
            Admit::Pass
        } else if now < self.until || now < self.probe {
            Admit::Open(self.cause())
        } else {
            Admit::Probe
        }
    }

    /// Whether the backend may be asked. A probe is for one who asks; if it does not report, there
    /// is another after [`PROBE`].
    pub fn ask(&mut self, now: u64) -> Admit {
        let state = self.state(now);
        if state == Admit::Probe {
            self.probe = now.saturating_add(PROBE);
        }
        state
    }

    /// The backend, asked at `asked`, has served.
    pub fn succeeded(&mut self, asked: u64) {
        if asked > self.since || self.since == 0 {
            *self = Self::default();
        }
    }

    /// The backend, asked at `asked`, did not answer, or with a failure of its own.
    pub fn failed(&mut self, asked: u64, now: u64, settings: &Settings) {
        if self.since == 0 {
            self.failures = self.failures.saturating_add(1);
            if self.failures < settings.failures {
                return;
            }
        } else if asked < self.until {
            return;
        }
        let doublings = 1_u64.checked_shl(self.trips.into()).unwrap_or(u64::MAX);
        let backoff = settings.backoff.saturating_mul(doublings).min(settings.max_backoff);
        self.open(now, now.saturating_add(backoff));
        self.trips = self.trips.saturating_add(1);
        self.is_limited = 0;
    }

    /// The backend says that it is limited for `delay` milliseconds.
    pub fn limited(&mut self, now: u64, delay: u64) {
        let until = now.saturating_add(delay);
        // Of several that say so, the one counts that lasts.
        self.open(now, until.max(self.until));
        self.is_limited = 1;
    }

    /// The answer says nothing of a limit: the registry did not get that far. Another may probe.
    pub fn told_nothing(&mut self) {
        self.probe = 0;
    }

    fn open(&mut self, now: u64, until: u64) {
        // Zero is closed.
        self.since = now.max(1);
        self.until = until;
        self.probe = 0;
        self.failures = 0;
    }

    fn cause(&self) -> Cause {
        if self.is_limited == 0 { Cause::Failures } else { Cause::Limit }
    }
}

impl From<[u64; 4]> for Breaker {
    #[expect(clippy::cast_possible_truncation, reason = "the parts of a word")]
    fn from([since, until, probe, counts]: [u64; 4]) -> Self {
        Self {
            since,
            until,
            probe,
            failures: counts as u32,
            trips: (counts >> 32) as u16,
            is_limited: (counts >> 48) as u16,
        }
    }
}

/// What an owner may still ask of a backend, as the backend has said.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Quota {
    /// When it was said; 0 if it was not.
    seen: u64,
    /// Until when one is waited for who asks though too few are left.
    probe: u64,
    limit: u32,
    remaining: u32,
    /// In seconds.
    window: u32,
}

impl Quota {
    /// As it lies in shared memory.
    pub fn words(self) -> [u64; 4] {
        let requests = u64::from(self.limit) | u64::from(self.remaining) << 32;
        [self.seen, self.probe, requests, self.window.into()]
    }

    /// An answer says what is left.
    pub fn learn(&mut self, now: u64, limit: Option<RateLimit>, remaining: RateLimit) {
        let window = match (remaining.window, limit) {
            (0, Some(limit)) => limit.window,
            (window, _) => window,
        };
        *self = Self {
            // Zero is unknown.
            seen: now.max(1),
            probe: 0,
            limit: limit.map_or(self.limit, |limit| limit.requests),
            remaining: remaining.requests,
            window,
        };
    }

    /// The request was not counted after all: it was refused before.
    pub fn told_nothing(&mut self) {
        self.probe = 0;
        self.remaining = self.remaining.saturating_add(1).min(self.limit.max(self.remaining));
    }

    /// How many requests are left, if that is known and not outdated.
    pub fn remaining(&self, now: u64) -> Option<u32> {
        (self.seen != 0 && now < self.end()).then_some(self.remaining)
    }

    /// How many there are in a window, as was said last; 0 if it was not.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Whether fewer than `reserve` are left. When what is known is outdated, one may ask.
    fn state(&self, now: u64, reserve: u32) -> Admit {
        if self.seen == 0 || self.remaining >= reserve {
            Admit::Pass
        } else if now < self.end() || now < self.probe {
            Admit::Open(Cause::Limit)
        } else {
            Admit::Probe
        }
    }

    /// A counted request is made.
    fn ask(&mut self, now: u64, reserve: u32) {
        if self.state(now, reserve) == Admit::Probe {
            self.probe = now.saturating_add(PROBE);
        }
        self.remaining = self.remaining.saturating_sub(1);
    }

    fn end(&self) -> u64 {
        let window = match self.window {
            0 => MAX_MEMORY,
            window => u64::from(window).saturating_mul(1000).min(MAX_MEMORY),
        };
        self.seen.saturating_add(window)
    }
}

impl From<[u64; 4]> for Quota {
    #[expect(clippy::cast_possible_truncation, reason = "the parts of a word")]
    fn from([seen, probe, requests, window]: [u64; 4]) -> Self {
        let (limit, remaining) = (requests as u32, (requests >> 32) as u32);
        Self { seen, probe, limit, remaining, window: window as u32 }
    }
}

/// All that is known of a backend and concerns one request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Records {
    /// Of the backend as a whole.
    pub backend: Breaker,
    /// Of the requests of this class.
    pub class: Breaker,
    /// Of the manifests of this owner.
    pub owner: Breaker,
    /// Of the owner, too.
    pub quota: Quota,
}

impl Records {
    /// A request of `class` was not counted: nobody has looked whose it is.
    pub fn not_counted(&mut self, class: Class) {
        if class == Class::ManifestGet {
            self.owner.told_nothing();
            self.quota.told_nothing();
        }
    }

    /// Nothing speaks against the backend: when it serves, that is no news.
    pub fn is_clean(&self) -> bool {
        [self.backend, self.class, self.owner].iter().all(|known| *known == Breaker::default())
    }
}

/// Why a backend is passed by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// It failed.
    Failures,
    /// It is limited, for all that come from here or for this class of requests.
    Limit,
    /// The owner has had its manifests.
    PullLimit,
    /// The owner has few manifests left, which are kept (`docker_fallback_reserve`).
    Reserve,
}

impl Reason {
    /// As `$docker_fallback_reason` and the status page have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "breaker",
            Self::Limit => "limit",
            Self::PullLimit => "pull_limit",
            Self::Reserve => "reserve",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Failures => "it failed several times",
            Self::Limit => "it has limited requests",
            Self::PullLimit => "it has limited pulls",
            Self::Reserve => "few pulls are left",
        })
    }
}

/// What to do with a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// Ask it.
    Ask,
    /// Ask it, for all others too.
    Probe,
    /// Ask the next one; this one only when no other serves.
    PassBy(Reason),
}

/// Decides whether a request of `class` asks a backend, and notes in `records` what follows from
/// that. `reserve` is of `docker_fallback_reserve`, or 0.
pub fn decide(records: &mut Records, class: Class, reserve: u32, now: u64) -> Way {
    let is_counted = class == Class::ManifestGet;
    let mut states = [
        (records.backend.state(now), Reason::Limit),
        (records.class.state(now), Reason::Limit),
        (Admit::Pass, Reason::PullLimit),
        (Admit::Pass, Reason::Reserve),
    ];
    if is_counted {
        let [.., owner, quota] = &mut states;
        owner.0 = records.owner.state(now);
        quota.0 = records.quota.state(now, reserve);
    }

    // Nobody takes a probe who is then not allowed to ask.
    for (state, limit) in states {
        if let Admit::Open(cause) = state {
            return Way::PassBy(if cause == Cause::Limit { limit } else { Reason::Failures });
        }
    }
    records.backend.ask(now);
    records.class.ask(now);
    if is_counted {
        records.owner.ask(now);
        records.quota.ask(now, reserve);
    }
    let is_probe = states.iter().any(|(state, _)| *state == Admit::Probe);
    if is_probe { Way::Probe } else { Way::Ask }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        failures: 3,
        backoff: 1000,
        max_backoff: 60_000,
        retry_after: 30_000,
        max_retry_after: 3_600_000,
    };
    const OPEN: Admit = Admit::Open(Cause::Failures);
    const LIMITED: Admit = Admit::Open(Cause::Limit);

    /// One that has just opened, at `now`, for a second.
    fn open(now: u64) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            breaker.failed(now, now, &SETTINGS);
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row() {
        let mut breaker = Breaker::default();
        breaker.failed(1, 10, &SETTINGS);
        breaker.failed(2, 10, &SETTINGS);
        breaker.succeeded(3);
        breaker.failed(4, 10, &SETTINGS);
        breaker.failed(5, 10, &SETTINGS);
        assert_eq!(breaker.ask(10), Admit::Pass);
        breaker.failed(6, 10, &SETTINGS);
        assert_eq!(breaker.ask(10), OPEN);
        assert_eq!(breaker.ask(1009), OPEN);
    }

    #[test]
    fn one_request_probes_and_the_others_wait() {
        let mut breaker = open(10);
        assert_eq!(breaker.ask(1010), Admit::Probe);
        assert_eq!(breaker.ask(1010), OPEN);
        assert_eq!(breaker.ask(1010 + PROBE - 1), OPEN);
        breaker.succeeded(1010);
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn a_probe_that_does_not_report_is_followed_by_another() {
        let mut breaker = open(10);
        assert_eq!(breaker.ask(1010), Admit::Probe);
        assert_eq!(breaker.ask(1010 + PROBE), Admit::Probe);
        assert_eq!(breaker.ask(1010 + PROBE), OPEN);
    }

    #[test]
    fn it_stays_open_twice_as_long_each_time() {
        let mut breaker = open(10);
        let mut now = 10;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            assert_eq!(breaker.state(now + seconds * 1000 - 1), OPEN, "{seconds}");
            now += seconds * 1000;
            assert_eq!(breaker.ask(now), Admit::Probe, "{seconds}");
            breaker.failed(now, now, &SETTINGS);
        }
        for _ in 0..200 {
            now += 60_000;
            assert_eq!(breaker.ask(now), Admit::Probe);
            breaker.failed(now, now, &SETTINGS);
        }
        let long = Settings { max_backoff: u64::MAX, ..SETTINGS };
        breaker.failed(now + 60_000, now + 60_000, &long);
        assert_eq!(breaker.state(u64::MAX - 1), OPEN);
    }

    #[test]
    fn answers_to_what_was_asked_before_change_nothing() {
        let mut breaker = open(100);
        let before = breaker;
        breaker.succeeded(100);
        breaker.failed(99, 101, &SETTINGS);
        assert_eq!(breaker, before);
        // Nor when they come after the time is over: it is not the probe's answer.
        assert_eq!(breaker.ask(1100), Admit::Probe);
        let before = breaker;
        breaker.failed(99, 1101, &SETTINGS);
        breaker.succeeded(99);
        assert_eq!(breaker, before);
        // But who was asked all the same, and served, is back.
        breaker.succeeded(101);
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn a_limit_lasts_as_long_as_it_says() {
        let mut breaker = Breaker::default();
        breaker.limited(10, 60_000);
        breaker.limited(20, 1000);
        breaker.failed(30, 30, &SETTINGS);
        assert_eq!(breaker.ask(60_009), LIMITED);
        assert_eq!(breaker.ask(60_010), Admit::Probe);
        breaker.limited(60_011, 1000);
        assert_eq!(breaker.ask(61_010), LIMITED);
        assert_eq!(breaker.ask(61_011), Admit::Probe);
        breaker.failed(61_011, 61_011, &SETTINGS);
        assert_eq!(breaker.ask(62_010), OPEN);
        assert_eq!(breaker.ask(62_011), Admit::Probe);
    }

    #[test]
    fn no_time_is_too_great_or_too_small() {
        let mut breaker = Breaker::default();
        breaker.limited(0, 1000);
        assert_eq!(breaker.ask(0), LIMITED);
        breaker.limited(u64::MAX, u64::MAX);
        assert_eq!(breaker.ask(u64::MAX), Admit::Probe);
        breaker.failed(u64::MAX, u64::MAX, &SETTINGS);
        assert_eq!(breaker.ask(u64::MAX - 1), OPEN);
    }

    #[test]
    fn what_lies_in_memory_is_what_it_was() {
        assert_eq!(Breaker::from([0; 4]), Breaker::default());
        assert_eq!(Quota::from([0; 4]), Quota::default());
        let mut breaker = open(10);
        breaker.ask(2000);
        breaker.limited(2000, 5);
        assert_eq!(Breaker::from(breaker.words()), breaker);
        let quota = Quota { seen: 1, probe: 2, limit: 3, remaining: u32::MAX, window: u32::MAX };
        assert_eq!(Quota::from(quota.words()), quota);
    }

    fn left(remaining: u32, window: u32, now: u64) -> Quota {
        let mut quota = Quota::default();
        let limit = RateLimit { requests: 100, window: 21_600 };
        quota.learn(now, Some(limit), RateLimit { requests: remaining, window });
        quota
    }

    #[test]
    fn what_is_left_is_known_for_a_window() {
        assert_eq!(Quota::default().remaining(0), None);
        let quota = left(7, 60, 1000);
        assert_eq!((quota.limit(), quota.remaining(60_999)), (100, Some(7)));
        assert_eq!(quota.remaining(61_000), None);
        // No longer than an hour, whatever the window; without one, that of the limit counts.
        for window in [0, 21_600, u32::MAX] {
            let quota = left(7, window, 1000);
            assert_eq!(quota.remaining(3_600_999), Some(7), "{window}");
            assert_eq!(quota.remaining(3_601_000), None, "{window}");
        }
    }

    #[test]
    fn manifests_pass_by_while_few_are_left() {
        let mut records = Records { quota: left(7, 60, 1000), ..Records::default() };
        let rows = [
            ("more", Class::ManifestGet, 6, Way::Ask),
            ("as many, of which one was used", Class::ManifestGet, 7, Way::PassBy(Reason::Reserve)),
            ("HEAD", Class::ManifestHead, 50, Way::Ask),
            ("blob", Class::Blob, 50, Way::Ask),
            ("no reserve", Class::ManifestGet, 0, Way::Ask),
        ];
        for (name, class, reserve, want) in rows {
            assert_eq!(decide(&mut records, class, reserve, 2000), want, "{name}");
        }
        let mut outdated = |now| decide(&mut records, Class::ManifestGet, 7, now);
        assert_eq!(outdated(61_000), Way::Probe);
        assert_eq!(outdated(61_000), Way::PassBy(Reason::Reserve));
        assert_eq!(outdated(61_000 + PROBE), Way::Probe);
    }

    #[test]
    fn a_breaker_concerns_its_backend_its_class_or_its_owner() {
        let closed = Records::default();
        let mut limited = Breaker::default();
        limited.limited(10, 1000);
        let failing = Records { class: open(10), ..closed };
        let owner = Records { owner: limited, ..closed };
        let get = Class::ManifestGet;
        let rows = [
            ("closed", closed, get, Way::Ask),
            (
                "backend",
                Records { backend: limited, ..closed },
                Class::Blob,
                Way::PassBy(Reason::Limit),
            ),
            ("class", failing, Class::Token, Way::PassBy(Reason::Failures)),
            (
                "class limited",
                Records { class: limited, ..closed },
                get,
                Way::PassBy(Reason::Limit),
            ),
            ("owner", owner, get, Way::PassBy(Reason::PullLimit)),
            ("HEAD of the owner", owner, Class::ManifestHead, Way::Ask),
        ];
        for (name, mut records, class, want) in rows {
            assert_eq!(decide(&mut records, class, 0, 20), want, "{name}");
        }
    }

    #[test]
    fn who_is_passed_by_takes_no_probe() {
        let mut limited = Breaker::default();
        limited.limited(10, 60_000);
        let mut records = Records { backend: open(10), owner: limited, ..Records::default() };
        let before = records;
        assert_eq!(
            decide(&mut records, Class::ManifestGet, 0, 2000),
            Way::PassBy(Reason::PullLimit)
        );
        assert_eq!(records, before);
        assert_eq!(decide(&mut records, Class::ManifestHead, 0, 2000), Way::Probe);
        assert_eq!(
            decide(&mut records, Class::ManifestHead, 0, 2000),
            Way::PassBy(Reason::Failures)
        );
    }

    #[test]
    fn reasons_have_words_of_their_own() {
        let words = [Reason::Failures, Reason::Limit, Reason::PullLimit, Reason::Reserve];
        assert_eq!(words.map(Reason::as_str), ["breaker", "limit", "pull_limit", "reserve"]);
    }
}
