//! Which target is asked next when an answer is not good enough.

use std::borrow::Cow;
use std::fmt;

use crate::error;
use crate::kind::Class;
use crate::location::{Scheme, Url};
use crate::syntax;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// With an answer of this status code.
    Status(u16),
    /// Without one: the name was not resolved, the connection was refused or reset, or the answer
    /// was no valid HTTP.
    Error,
    /// Without one, in the time given.
    Timeout,
    /// With a web page in place of a manifest or a blob: somebody stands in between, whatever
    /// the status.
    Page,
}

impl Outcome {
    /// As `$docker_fallback_reason` and the status page have it: the word of `docker_fallback_on`
    /// where there is one.
    pub fn as_reason(self) -> Cow<'static, str> {
        match self {
            Self::Status(status) => Cow::Owned(format!("http_{status}")),
            Self::Error => Cow::Borrowed("error"),
            Self::Timeout => Cow::Borrowed("timeout"),
            Self::Page => Cow::Borrowed("page"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => match error::phrase(*status) {
                Some(phrase) => write!(f, "{status} {phrase}"),
                None => write!(f, "status {status}"),
            },
            Self::Error => f.write_str("error"),
            Self::Timeout => f.write_str("timed out"),
            Self::Page => f.write_str("a web page"),
        }
    }
}

/// The outcomes of the primary that make the request fall back (`docker_fallback_on`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Conditions {
    pub(crate) error: bool,
    pub(crate) timeout: bool,
    pub(crate) statuses: Vec<u16>,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { error: true, timeout: true, statuses: vec![429, 502, 503, 504] }
    }
}

impl Conditions {
    /// Whether `outcome` is one of them.
    pub fn matches(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Status(status) => self.statuses.contains(&status),
            Outcome::Error | Outcome::Page => self.error,
            Outcome::Timeout => self.timeout,
        }
    }

    /// The status codes among them.
    pub fn statuses(&self) -> impl Iterator<Item = u16> {
        self.statuses.iter().copied()
    }
}

/// What kind of `Authorization` a request carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Authorization {
    /// None.
    None,
    /// A Bearer token, which is short-lived and bound to a repository (RFC 6750).
    Bearer,
    /// Anything else, such as a password.
    Other,
}

impl Authorization {
    /// Reads the value of an `Authorization` header.
    pub fn of(value: Option<&[u8]>) -> Self {
        let Some(value) = value else {
            return Self::None;
        };
        match syntax::strip_prefix_any_case(syntax::trim_ows(value), b"Bearer") {
            Some([b' ', ..]) => Self::Bearer,
            _ => Self::Other,
        }
    }
}

/// What the client asked, as far as it matters here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request {
    /// The method is `GET` or `HEAD`.
    pub get_or_head: bool,
    /// There is a body.
    pub has_body: bool,
    /// The credentials.
    pub authorization: Authorization,
    /// Our own name is in the request's `CDN-Loop`: it came by here before.
    pub looped: bool,
    /// Clients ask here for tokens, whatever a challenge says.
    pub rewrites_realm: bool,
}

impl Request {
    /// Whether the request may be repeated elsewhere. A password must not leave, and without it an
    /// anonymous answer would look like a successful login.
    pub fn may_fall_back(&self) -> bool {
        self.get_or_head
            && !self.has_body
            && !self.looped
            && self.authorization != Authorization::Other
    }
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Send this answer to the client.
    Answer,
    /// Ask the target of this number.
    Next(usize),
    /// Send the answer of the primary to the client: no target served.
    Original,
}

/// In which order a request asks: 0 is the primary, 1 and more are the fallback targets. Each is
/// asked once at most, and whoever is passed by comes after all others: that is better than no
/// answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Queue {
    asked: u16,
    passed_by: u16,
}

impl Queue {
    /// `target` is being asked.
    pub fn ask(&mut self, target: usize) {
        self.asked |= bit(target);
    }

    /// `target` is not worth asking while there are others.
    pub fn pass_by(&mut self, target: usize) {
        self.passed_by |= bit(target);
    }

    /// Whether `target` was passed by.
    pub fn passed_by(&self, target: usize) -> bool {
        self.passed_by & bit(target) != 0
    }

    /// Whether `target` was asked.
    pub fn asked(&self, target: usize) -> bool {
        self.asked & bit(target) != 0
    }

    /// Who comes next of the primary and `targets` fallbacks.
    pub fn next(&self, targets: usize) -> Option<usize> {
        let mut waiting = (0..=targets).filter(|target| !self.asked(*target));
        let first = waiting.clone().next();
        waiting.find(|target| !self.passed_by(*target)).or(first)
    }
}

/// Targets are [`crate::directive::MAX_ATTEMPTS`] at most.
fn bit(target: usize) -> u16 {
    u32::try_from(target).ok().and_then(|target| 1_u16.checked_shl(target)).unwrap_or(0)
}

/// Decides what to do when `target` ended with `outcome`. Target 0 is the primary, the others are
/// fallbacks; `next` is who comes after it.
pub fn decide(
    outcome: Outcome,
    target: usize,
    next: Option<usize>,
    request: &Request,
    conditions: &Conditions,
) -> Step {
    let serves = if target == 0 {
        !conditions.matches(outcome) || !request.may_fall_back()
    } else {
        serves(outcome, request)
    };
    match next {
        _ if serves => Step::Answer,
        Some(next) => Step::Next(next),
        // Its own answer is the original.
        None if target == 0 => Step::Answer,
        None => Step::Original,
    }
}

/// Whether the answer of a fallback is of use to the client: content, "not modified", "no such
/// range", or the challenge that tells an anonymous client where tokens are, if that is here: a
/// fallback has no say in where credentials go.
fn serves(outcome: Outcome, request: &Request) -> bool {
    match outcome {
        Outcome::Status(200..=299 | 304 | 416) => true,
        Outcome::Status(401) => {
            request.rewrites_realm && request.authorization == Authorization::None
        }
        Outcome::Status(_) | Outcome::Error | Outcome::Timeout | Outcome::Page => false,
    }
}

/// Whether an answer that looks like success is a page for people: a firewall's challenge, or its
/// refusal. No manifest is HTML, and no blob is sent as HTML.
///
/// Few answers are HTML: only of those the request is looked at.
pub fn is_page(class: impl FnOnce() -> Class, status: u16, content_type: &[u8]) -> bool {
    (200..300).contains(&status)
        && is_html(content_type)
        && matches!(class(), Class::ManifestGet | Class::ManifestHead | Class::Blob)
}

/// Whether a `Content-Type` is that of a web page.
pub fn is_html(content_type: &[u8]) -> bool {
    syntax::is_media_type(content_type, b"text/html")
}

/// Which credentials of the client a target gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Credentials {
    /// A Bearer token, where it cannot be read on the way.
    Bearer,
    /// None.
    None,
}

/// A `docker_fallback` target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// The URL, whose `uri` is the path prefix without a final slash: empty if there is none.
    pub base: Url,
    /// What it gets of the client's credentials.
    pub credentials: Credentials,
    /// Whether its certificate must be valid.
    pub verify: bool,
}

impl Target {
    /// Where to ask for `uri`, which begins with `/`.
    pub fn url(&self, uri: &str) -> Url {
        Url { uri: format!("{}{uri}", self.base.uri), ..self.base.clone() }
    }

    /// Whether a Bearer token may go there: over verified https, or to `loopback`, an address that
    /// is one of this machine.
    pub fn may_carry_token(&self, loopback: bool) -> bool {
        let verified = self.base.scheme == Scheme::Https && self.verify;
        self.credentials == Credentials::Bearer && (verified || loopback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PULL: Request = Request {
        get_or_head: true,
        has_body: false,
        authorization: Authorization::None,
        looped: false,
        rewrites_realm: true,
    };
    const LIMITED: Outcome = Outcome::Status(429);

    #[test]
    fn default_conditions_are_failures_and_limits() {
        let conditions = Conditions::default();
        let rows = [
            (Outcome::Error, true),
            (Outcome::Timeout, true),
            (Outcome::Page, true),
            (Outcome::Status(429), true),
            (Outcome::Status(502), true),
            (Outcome::Status(503), true),
            (Outcome::Status(504), true),
            (Outcome::Status(200), false),
            (Outcome::Status(307), false),
            (Outcome::Status(401), false),
            (Outcome::Status(403), false),
            (Outcome::Status(404), false),
            (Outcome::Status(500), false),
        ];

        for (outcome, want) in rows {
            assert_eq!(conditions.matches(outcome), want, "{outcome}");
        }
        assert!(conditions.statuses().eq([429, 502, 503, 504]));
    }

    #[test]
    fn conditions_without_failures_match_statuses_only() {
        let conditions = Conditions { error: false, timeout: false, statuses: vec![404] };
        let rows = [
            (Outcome::Error, false),
            (Outcome::Timeout, false),
            (Outcome::Status(404), true),
            (Outcome::Status(429), false),
        ];

        for (outcome, want) in rows {
            assert_eq!(conditions.matches(outcome), want, "{outcome}");
        }
    }

    #[test]
    fn the_kind_of_credentials_is_told() {
        let rows = [
            ("none", None, Authorization::None),
            ("Bearer", Some("Bearer abc"), Authorization::Bearer),
            ("Bearer in another case", Some("bEARER abc"), Authorization::Bearer),
            ("Bearer with more spaces", Some(" Bearer  abc "), Authorization::Bearer),
            ("Basic", Some("Basic dXNlcjpwYXNz"), Authorization::Other),
            ("empty", Some(""), Authorization::Other),
            ("Bearer without a token", Some("Bearer "), Authorization::Other),
            ("scheme alone", Some("Bearer"), Authorization::Other),
            ("longer scheme", Some("Bearerx abc"), Authorization::Other),
            ("two schemes", Some("Basic x, Bearer y"), Authorization::Other),
        ];

        for (name, value, want) in rows {
            assert_eq!(Authorization::of(value.map(str::as_bytes)), want, "{name}");
        }
    }

    #[test]
    fn a_request_falls_back_only_if_it_can_be_repeated_elsewhere() {
        let rows = [
            ("pull", LIMITED, 1, PULL, Step::Next(1)),
            ("error", Outcome::Error, 1, PULL, Step::Next(1)),
            ("timeout", Outcome::Timeout, 1, PULL, Step::Next(1)),
            ("success", Outcome::Status(200), 1, PULL, Step::Answer),
            ("no targets", LIMITED, 0, PULL, Step::Answer),
            (
                "Bearer",
                LIMITED,
                1,
                Request { authorization: Authorization::Bearer, ..PULL },
                Step::Next(1),
            ),
            (
                "Basic",
                LIMITED,
                1,
                Request { authorization: Authorization::Other, ..PULL },
                Step::Answer,
            ),
            ("POST", LIMITED, 1, Request { get_or_head: false, ..PULL }, Step::Answer),
            ("body", LIMITED, 1, Request { has_body: true, ..PULL }, Step::Answer),
            ("loop", LIMITED, 1, Request { looped: true, ..PULL }, Step::Answer),
        ];

        for (name, outcome, targets, request, want) in rows {
            let next = (targets > 0).then_some(1);
            let got = decide(outcome, 0, next, &request, &Conditions::default());
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn a_target_serves_or_the_next_is_asked() {
        let with_token = Request { authorization: Authorization::Bearer, ..PULL };
        let with_realm = Request { rewrites_realm: false, ..PULL };
        let rows = [
            ("200", Outcome::Status(200), PULL, true),
            ("206", Outcome::Status(206), PULL, true),
            ("304", Outcome::Status(304), PULL, true),
            ("416", Outcome::Status(416), PULL, true),
            ("challenge", Outcome::Status(401), PULL, true),
            ("token not taken", Outcome::Status(401), with_token, false),
            ("challenge that stays", Outcome::Status(401), with_realm, false),
            ("redirect that is not followed", Outcome::Status(307), PULL, false),
            ("403", Outcome::Status(403), PULL, false),
            ("404", Outcome::Status(404), PULL, false),
            ("429", LIMITED, PULL, false),
            ("500", Outcome::Status(500), PULL, false),
            ("error", Outcome::Error, PULL, false),
            ("timeout", Outcome::Timeout, PULL, false),
            ("web page", Outcome::Page, PULL, false),
        ];

        for (name, outcome, request, serves) in rows {
            let conditions = Conditions::default();
            let step = |target, next| decide(outcome, target, next, &request, &conditions);
            let next = if serves { Step::Answer } else { Step::Next(2) };
            let last = if serves { Step::Answer } else { Step::Original };
            assert_eq!(step(1, Some(2)), next, "{name}, first of two");
            assert_eq!(step(2, None), last, "{name}, last");
        }
    }

    #[test]
    fn a_page_is_no_content() {
        let rows = [
            ("manifest", Class::ManifestGet, 200, "text/html", true),
            ("HEAD", Class::ManifestHead, 200, "text/html", true),
            ("blob", Class::Blob, 206, "Text/HTML ; charset=utf-8", true),
            ("another type", Class::Blob, 200, "text/plain", false),
            ("longer type", Class::Blob, 200, "text/html+xml", false),
            ("no type", Class::Blob, 200, "", false),
            ("no success", Class::Blob, 404, "text/html", false),
            ("redirect", Class::Blob, 307, "text/html", false),
            ("token", Class::Token, 200, "text/html", false),
            ("anything else", Class::Other, 200, "text/html", false),
        ];

        for (name, class, status, content_type, want) in rows {
            assert_eq!(is_page(|| class, status, content_type.as_bytes()), want, "{name}");
        }
    }

    #[test]
    fn who_is_passed_by_is_asked_last() {
        let rows: [(&str, &[usize], &[usize]); 5] = [
            ("nobody", &[], &[0, 1, 2, 3]),
            ("the primary", &[0], &[1, 2, 3, 0]),
            ("a fallback", &[2], &[0, 1, 3, 2]),
            ("two", &[0, 1], &[2, 3, 0, 1]),
            ("all", &[0, 1, 2, 3], &[0, 1, 2, 3]),
        ];

        for (name, passed_by, want) in rows {
            let mut queue = Queue::default();
            passed_by.iter().for_each(|target| queue.pass_by(*target));
            let mut asked = Vec::new();
            while let Some(target) = queue.next(3) {
                queue.ask(target);
                asked.push(target);
            }
            assert_eq!(asked, want, "{name}");
        }
    }

    #[test]
    fn a_primary_that_is_asked_last_answers_or_gives_way() {
        let step = |outcome, next| decide(outcome, 0, next, &PULL, &Conditions::default());
        assert_eq!(step(Outcome::Status(200), None), Step::Answer);
        assert_eq!(step(LIMITED, None), Step::Answer);
        assert_eq!(step(LIMITED, Some(2)), Step::Next(2));
    }

    #[test]
    fn tokens_go_over_verified_https_or_within_the_machine() {
        use Credentials::{Bearer, None};
        let rows = [
            ("verified https", "https://a/", Bearer, true, false, true),
            ("https that is not verified", "https://a/", Bearer, false, false, false),
            ("http", "http://a/", Bearer, true, false, false),
            ("http to loopback", "http://a/", Bearer, true, true, true),
            ("https that is not verified, to loopback", "https://a/", Bearer, false, true, true),
            ("none over https", "https://a/", None, true, false, false),
            ("none to loopback", "http://a/", None, true, true, false),
        ];

        for (name, base, credentials, verify, loopback, want) in rows {
            let base = Url::parse(base.as_bytes()).unwrap();
            let target = Target { base, credentials, verify };
            assert_eq!(target.may_carry_token(loopback), want, "{name}");
        }
    }

    #[test]
    fn a_target_is_asked_below_its_prefix() {
        let mut base = Url::parse(b"https://a:8443/hub").unwrap();
        let target = |base: &Url| Target {
            base: base.clone(),
            credentials: Credentials::None,
            verify: true,
        };
        assert_eq!(target(&base).url("/v2/?n=1").uri, "/hub/v2/?n=1");
        base.uri.clear();
        let url = target(&base).url("/v2/?n=1");
        assert_eq!((url.authority().as_ref(), url.uri.as_str()), ("a:8443", "/v2/?n=1"));
    }

    #[test]
    fn outcomes_read_well_in_a_log() {
        let outcomes = [LIMITED, Outcome::Error, Outcome::Timeout, Outcome::Page];
        let texts = outcomes.map(|outcome| outcome.to_string());
        assert_eq!(texts, ["429 Too Many Requests", "error", "timed out", "a web page"]);
        let reasons = outcomes.map(Outcome::as_reason);
        assert_eq!(reasons, ["http_429", "error", "timeout", "page"]);
    }
}
