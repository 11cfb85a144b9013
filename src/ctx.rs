//! What is known of one request.

use std::borrow::Cow;
use std::cell::Cell;
use std::net::SocketAddr;

use once_cell::unsync::OnceCell;
use rules::fallback::Queue;
use rules::location::Url;
use rules::request::Lines;

use crate::breaker::{Pending, Subject};
use crate::manifest::Manifest;
use crate::metrics::Counted;
use crate::nginx::resolver::Lookup;
use crate::nginx::upstream::Upstream;
use crate::registry::Service;
use crate::resume::Download;
use crate::verify::Check;

/// What each phase learned, for those after it. It survives internal redirects.
#[derive(Default)]
pub(crate) struct RequestCtx {
    /// This is a subrequest of ours, which asks for the rest of a download that broke off.
    pub(crate) is_rest: bool,
    pub(crate) manifest: Manifest,
    /// What becomes of it where registries are declared.
    pub(crate) service: Option<Box<Service>>,
    /// What the primary was asked; set when the request leaves it.
    pub(crate) primary: OnceCell<Primary>,
    /// The primary's upstream that all of this began with (see `Upstream::id`).
    pub(crate) upstream: Option<usize>,
    /// The backend that is being asked, where its breaker matters.
    pub(crate) subject: Option<Subject>,
    /// Nothing was told yet of who is being asked.
    pub(crate) pending: Cell<Option<Pending>>,
    /// What the status page has counted.
    pub(crate) counted: Option<Counted>,
    /// How long it took until the answer to the client began, in milliseconds.
    pub(crate) first_byte: Option<u64>,
    /// Who is asked: 0 is the primary, then come the fallback targets.
    pub(crate) target: usize,
    pub(crate) queue: Queue,
    /// How many redirects were followed, all targets together.
    pub(crate) redirects: u8,
    /// Where the request goes now, once it has left the primary.
    pub(crate) destination: Option<Destination>,
    pub(crate) stage: Stage,
    /// The upstream whose end was dealt with: an error page that comes with the same one is
    /// somebody else's.
    pub(crate) spent: Option<usize>,
    /// The primary's answer, for when no target serves.
    pub(crate) original: Option<Answer>,
    /// The status for a primary that gave no answer, unless it is 502.
    pub(crate) status_without_answer: Option<u16>,
    /// Why another than the primary is asked: the word of `$docker_fallback_reason`.
    pub(crate) fallback_reason: Option<Cow<'static, str>>,
    /// How many manifests the primary has left, as far as it or the zone said before the request
    /// left it.
    pub(crate) remaining: Option<u32>,
    /// What became of each attempt, for the log.
    pub(crate) outcomes: Vec<String>,
    /// The answer that the client gets is the primary's after all.
    pub(crate) is_original: bool,
    /// The answer that the client is getting, if it can be resumed.
    pub(crate) download: Option<Download>,
    /// The answer that the client is getting, if its digest is checked.
    pub(crate) check: Option<Check>,
    /// The answer comes from an `error_page` of the user's.
    pub(crate) is_error_page: bool,
}

impl RequestCtx {
    /// Begins with the primary's upstream `u`. What is known may be of another location, which an
    /// error page of the user's has led away from.
    pub(crate) fn begin(&mut self, u: Upstream<'_>) {
        if self.upstream != Some(u.id()) {
            self.forget();
            self.upstream = Some(u.id());
        }
    }

    /// Forgets what came of asking anybody.
    pub(crate) fn forget(&mut self) {
        *self = Self {
            is_rest: self.is_rest,
            manifest: core::mem::take(&mut self.manifest),
            spent: self.spent,
            counted: self.counted,
            is_error_page: self.is_error_page,
            service: self.service.take(),
            ..Self::default()
        };
    }
}

/// The request as the primary got it.
pub(crate) struct Primary {
    /// Scheme, host and port of the upstream as the configuration names it, which need not be the
    /// Host that it is sent.
    pub(crate) backend: Vec<u8>,
    pub(crate) url: Url,
    pub(crate) lines: Lines,
    /// The lines are those that were sent. Over HTTP/2 they are the client's instead, and may hold
    /// what the location does not pass on.
    pub(crate) is_exact: bool,
}

/// An origin that is known at run time only.
#[derive(Clone)]
pub(crate) struct Destination {
    pub(crate) url: Url,
    pub(crate) relation: Relation,
    pub(crate) reach: Reach,
    /// What its certificate must be for.
    pub(crate) tls_name: String,
    pub(crate) verify: bool,
}

/// At which addresses an origin may be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reach {
    /// At the one where the primary was: what a Host that the client has chosen resolves to is
    /// another server.
    Primary(SocketAddr),
    /// At those of its name, which stands in the configuration.
    Configured,
    /// At those of its name that a redirect may lead to.
    Permitted,
}

/// What an origin is to the one that the client's request was meant for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Relation {
    /// The same origin, never left: it gets all that the primary got.
    Same,
    /// Another origin: it gets nothing that says who asks.
    Foreign,
    /// A fallback target itself: it may get the client's token.
    Fallback,
}

/// What the follow location has to do with the request.
#[derive(Default)]
pub(crate) enum Stage {
    /// Nothing: the request is the primary's.
    #[default]
    Primary,
    /// Ask the primary, which was passed by.
    Returning,
    /// Ask the primary, as if nobody had been asked yet.
    Beginning,
    /// Ask the destination.
    Entering,
    Resolving(Lookup),
    Resolved(Vec<SocketAddr>),
    /// The destination has no address that may be asked, and why.
    Unresolved(String),
    /// The destination is being asked.
    Asking(Vec<SocketAddr>),
    /// Send this.
    Answering(Answer),
    /// Nobody answered: end with this status.
    Failed(u16),
}

impl Answer {
    /// JSON of our own.
    pub(crate) fn json(status: u16, body: String) -> Self {
        Self {
            status,
            content_type: b"application/json".to_vec(),
            lines: Vec::new(),
            body: body.into_bytes(),
            yields_to_error_page: false,
        }
    }
}

/// An answer that no upstream is sending.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: Vec<u8>,
    pub(crate) lines: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// An `error_page` of the user's takes precedence, who has upstream's errors intercepted.
    pub(crate) yields_to_error_page: bool,
}
