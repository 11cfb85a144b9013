//! Which target is asked next when an answer is not good enough.

use std::fmt;

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
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Error => f.write_str("error"),
            Self::Timeout => f.write_str("timed out"),
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
            Outcome::Error => self.error,
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
            Some([b' ', token @ ..]) if !syntax::trim_ows(token).is_empty() => Self::Bearer,
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

/// Decides what to do when `target` ended with `outcome`. Target 0 is the primary, 1 to `targets`
/// are the fallbacks, each of which is asked once at most.
pub fn decide(
    outcome: Outcome,
    target: usize,
    targets: usize,
    request: &Request,
    conditions: &Conditions,
) -> Step {
    if target == 0 {
        let falls_back = targets > 0 && conditions.matches(outcome) && request.may_fall_back();
        return if falls_back { Step::Next(1) } else { Step::Answer };
    }

    if serves(outcome, request.authorization) {
        Step::Answer
    } else if target < targets {
        Step::Next(target + 1)
    } else {
        Step::Original
    }
}

/// Whether the answer of a fallback is of use to the client: content, "not modified", "no such
/// range", or the challenge that tells an anonymous client where tokens are.
fn serves(outcome: Outcome, authorization: Authorization) -> bool {
    match outcome {
        Outcome::Status(200..=299 | 304 | 416) => true,
        Outcome::Status(401) => authorization == Authorization::None,
        Outcome::Status(_) | Outcome::Error | Outcome::Timeout => false,
    }
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
