//! Which manifests may be kept, and given to whom.
//!
//! A manifest is small and named by its digest. A registry that counts pulls counts the GETs of
//! manifests and not the HEADs, so a mirror keeps what it has passed on and asks by HEAD, with the
//! client's own credentials, whether this client may have which digest. What is given out of
//! memory was granted to this client by the registry in this very exchange; an anonymous client
//! may get what anonymous clients got lately where the registry cannot be asked.

use crate::digest::{Digest, Key, Sha256};
use crate::error;
use crate::kind::{self, Kind};
use crate::owner::Owner;
use crate::request::{self, asks_for_part};
use crate::syntax;

/// The longest media type that is kept, in bytes.
const MAX_TYPE: usize = 255;

/// How long one request fetches while others wait, in milliseconds, as nginx's
/// `proxy_cache_lock_age`: then it may have been killed, and another fetches.
const LEASE: u64 = 5_000;

/// How long a request waits for others to fetch, in milliseconds.
const PATIENCE: u64 = 10_000;

/// Which of a repository's manifests a request names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reference {
    /// By a tag, which may name another one tomorrow.
    Tag,
    /// By what it must be.
    Digest(Digest),
}

impl Reference {
    /// What `request` names; `None` if that is no manifest, or one whose digest is of another
    /// algorithm than SHA-256.
    pub fn of(request: &kind::Request<'_>) -> Option<Self> {
        match (request.kind, request.digest) {
            (Kind::Manifest, b"") => Some(Self::Tag),
            (Kind::Manifest, digest) => Digest::parse(digest).map(Self::Digest),
            _ => None,
        }
    }
}

/// A request with field lines of these names wants a whole manifest, whatever it had before. A
/// part of one, or an answer that depends on what the client has, is upstream's to give.
pub fn wants_whole<'a>(mut names: impl Iterator<Item = &'a [u8]>) -> bool {
    !names.any(asks_for_part)
}

/// The media types that a request accepts, as a part of a [`Key`]: all its Accept values, without
/// white space, in lower case.
pub fn accepted<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut accepted = Vec::new();
    for value in values {
        for part in value.split(|byte| *byte == b',') {
            let letters = part.iter().filter(|byte| !syntax::is_ows(**byte));
            accepted.extend(letters.map(u8::to_ascii_lowercase));
            accepted.push(b',');
        }
    }
    accepted
}

/// What an answer's header says of the manifest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Described<'a> {
    /// What the registry says the digest is.
    pub digest: Digest,
    /// The value of Content-Type.
    pub media_type: &'a [u8],
    /// The body's length in bytes, if it is announced.
    pub length: Option<u64>,
}

impl<'a> Described<'a> {
    /// Reads status and field lines of an answer. `None`: it grants no manifest, or is not clear
    /// about which (a line is there twice), or its body is encoded.
    pub fn read(status: u16, lines: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<Self> {
        let (mut digest, mut media_type, mut length) = (None, None, None);
        for (name, value) in lines {
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            // All lengths differ: most lines are told by theirs.
            let once = match name.len() {
                12 if is("Content-Type") => media_type.replace(value).is_none(),
                14 if is("Content-Length") => {
                    length.replace(str::from_utf8(value).ok()?.parse().ok()?).is_none()
                }
                16 if is("Content-Encoding") => value.eq_ignore_ascii_case(b"identity"),
                21 if is("Docker-Content-Digest") => {
                    digest.replace(Digest::parse(value)?).is_none()
                }
                _ => true,
            };
            if !once {
                return None;
            }
        }
        let media_type = media_type.filter(|value| !value.is_empty() && value.len() <= MAX_TYPE)?;
        Some(Self { digest: digest?, media_type, length }).filter(|_| status == 200)
    }

    /// It is the manifest that was asked for.
    pub fn is_for(&self, reference: &Reference) -> bool {
        match reference {
            Reference::Tag => true,
            Reference::Digest(digest) => *digest == self.digest,
        }
    }

    /// An answer to HEAD that grants the manifest that is kept, and no other.
    pub fn grants(&self, kept: &Kept<'_>) -> bool {
        self.digest == kept.digest
            && self.media_type == kept.media_type
            && self.length == u64::try_from(kept.body.len()).ok()
    }
}

/// Where a manifest of `origin` is kept: another registry does not grant it. The digest is a hash
/// already; nobody can make a manifest that lies where something else does.
pub fn key(origin: Key, digest: &Digest) -> Key {
    digest.half().with(origin).with(Key([u64::from_le_bytes(*b"manifest"), 0]))
}

/// A manifest as it is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kept<'a> {
    /// Its digest, which was computed from its body.
    pub digest: Digest,
    /// The value of Content-Type that it came with.
    pub media_type: &'a [u8],
    /// Its bytes.
    pub body: &'a [u8],
}

impl<'a> Kept<'a> {
    /// Reads what [`Capture::take`] has written.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (digest, rest) = bytes.split_first_chunk()?;
        let (&length, rest) = rest.split_first()?;
        let (media_type, body) = rest.split_at_checked(usize::from(length))?;
        Some(Self { digest: Digest::from_bytes(*digest), media_type, body })
    }
}

/// A manifest on its way to a client.
pub struct Capture {
    /// What the registry says the digest is.
    digest: Digest,
    /// The body's length in bytes, if it is announced.
    length: Option<usize>,
    hash: Sha256,
    /// As [`Kept::read`] wants it; the body so far at its end.
    bytes: Vec<u8>,
    body: usize,
    max: usize,
}

/// What is known of a manifest on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// It is not there yet.
    Partial,
    /// It is there, and is what its digest says.
    Whole,
    /// It is larger than it may be, or not what its digest says.
    Unfit,
}

impl Capture {
    /// Waits for the body of an answer; `None` if it is said to be larger than `max` bytes.
    pub fn new(described: &Described<'_>, max: usize) -> Option<Self> {
        let Described { digest, media_type, length } = described;
        let length = length.map(usize::try_from).transpose().ok()?;
        let announced = length.unwrap_or(0);
        if announced > max {
            return None;
        }
        let mut bytes =
            Vec::with_capacity(digest.as_bytes().len() + 1 + media_type.len() + announced);
        bytes.extend_from_slice(digest.as_bytes());
        bytes.push(u8::try_from(media_type.len()).ok()?);
        bytes.extend_from_slice(media_type);
        Some(Self { digest: *digest, length, hash: Sha256::default(), bytes, body: 0, max })
    }

    /// Takes the next bytes of the body.
    ///
    /// A manifest is whole when its bytes have its digest: that is what a digest is for, and what
    /// the framing of the answer says is not needed.
    pub fn take(&mut self, bytes: &[u8]) -> Progress {
        self.body = self.body.saturating_add(bytes.len());
        if self.body > self.length.unwrap_or(self.max) {
            return Progress::Unfit;
        }
        self.hash.update(bytes);
        self.bytes.extend_from_slice(bytes);
        if self.length.is_some_and(|length| self.body < length) {
            return Progress::Partial;
        }
        match (self.hash.clone().finish() == self.digest, self.length) {
            (true, _) => Progress::Whole,
            (false, None) => Progress::Partial,
            (false, Some(_)) => Progress::Unfit,
        }
    }

    /// What is to be kept, once it is whole.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A field line that tells nothing of who asks: one that says what is asked for, or how it came here.
/// Authorization is one if it is a token that was given to nobody in particular; what is not known
/// may name somebody.
pub fn is_public(name: &[u8], value: &[u8]) -> bool {
    /// Of connections, proxies and traces.
    const OTHERS: [&str; 17] = [
        "accept-language",
        "baggage",
        "cache-control",
        "cdn-loop",
        "connection",
        "forwarded",
        "host",
        "traceparent",
        "tracestate",
        "upgrade",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
    ];
    if name.eq_ignore_ascii_case(b"Authorization") {
        return Owner::is_nobodys(value);
    }
    request::is_public(name) || request::is_one_of(name, &OTHERS)
}

/// An answer of this status to a HEAD tells nothing of who may have what: the registry is limited
/// or out of order.
pub fn is_failure(status: u16) -> bool {
    matches!(status, 408 | 429) || error::is_outage(status)
}

/// The [`error::warning`] on a manifest that `host` could not
/// be asked about, and that was granted to another client so many milliseconds ago.
pub fn warning(host: &str, age: u64) -> Option<String> {
    let seconds = age / 1000;
    let text = format!("{host} cannot be asked, this manifest was current {seconds} seconds ago");
    error::warning(&text, 0)
}

/// What all workers know of a reference; all zero, nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Entry {
    /// The key of the manifest that came last; 0: none is known.
    pub known: [u64; 2],
    /// Who fetches it; 0: nobody.
    leader: u64,
    /// Until when others wait for that, in milliseconds.
    until: u64,
    /// Who came back without one last.
    failed: u64,
}

/// That a request waits: for whom, and since when, in milliseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wait {
    /// Who fetches.
    pub leader: u64,
    /// When the request began to wait for anybody.
    pub since: u64,
}

/// What a request does that finds nothing kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turn {
    /// It fetches the manifest, and others wait for it.
    Lead,
    /// It waits.
    Wait(Wait),
    /// It fetches the manifest for itself: who was to fetch it came back without one, or takes too
    /// long.
    Alone,
}

impl Entry {
    /// The next turn of the request `me`, which is not 0, at the time `now`. `wait` is what the
    /// last turn was, if it was to wait.
    pub fn turn(&mut self, me: u64, wait: Option<Wait>, now: u64) -> Turn {
        if wait.is_some_and(|wait| {
            wait.leader == self.failed || now.saturating_sub(wait.since) >= PATIENCE
        }) {
            return Turn::Alone;
        }
        if self.leader == 0 || now >= self.until {
            self.leader = me;
            self.until = now.saturating_add(LEASE);
            return Turn::Lead;
        }
        Turn::Wait(Wait { leader: self.leader, since: wait.map_or(now, |wait| wait.since) })
    }

    /// The leader `me` has kept a manifest, or failed to; whoever waits for it goes on.
    pub fn end(&mut self, me: u64, kept: Option<[u64; 2]>) {
        if let Some(key) = kept {
            self.known = key;
        } else {
            self.failed = me;
        }
        if self.leader == me {
            self.leader = 0;
        }
    }

    /// The words of a record.
    pub const fn words(&self) -> [u64; 5] {
        let [low, high] = self.known;
        [low, high, self.leader, self.until, self.failed]
    }
}

impl From<[u64; 5]> for Entry {
    fn from([low, high, leader, until, failed]: [u64; 5]) -> Self {
        Self { known: [low, high], leader, until, failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"{\"schemaVersion\":2}";
    const TYPE: &[u8] = b"application/vnd.oci.image.index.v1+json";

    fn text(digest: Digest) -> String {
        digest.to_string()
    }

    #[test]
    fn a_manifest_is_named_by_a_tag_or_a_sha256() {
        let digest = Digest::of(BODY);
        let rows = [
            ("tag", "/v2/library/nginx/manifests/latest", Some(Reference::Tag)),
            ("digest", &format!("/v2/a/manifests/{digest}"), Some(Reference::Digest(digest))),
            ("another algorithm", "/v2/a/manifests/sha512:00", None),
            ("a short digest", "/v2/a/manifests/sha256:00", None),
            ("a blob", &format!("/v2/a/blobs/{digest}"), None),
            ("a list of tags", "/v2/a/tags/list", None),
        ];

        for (name, path, want) in rows {
            let request = kind::Request::of(b"GET", path.as_bytes());
            assert_eq!(Reference::of(&request), want, "{name}");
        }
    }

    #[test]
    fn a_part_or_a_condition_is_upstreams() {
        let rows: [(&[&str], bool); 5] = [
            (&["Host", "Accept", "Authorization"], true),
            (&["Host", "range"], false),
            (&["If-None-Match"], false),
            (&["if-range"], false),
            (&["Iffy", "Ranges"], true),
        ];
        for (names, want) in rows {
            assert_eq!(wants_whole(names.iter().map(|name| name.as_bytes())), want, "{names:?}");
        }
    }

    #[test]
    fn what_is_accepted_does_not_depend_on_how_it_is_written() {
        let of = |values: &[&str]| accepted(values.iter().map(|value| value.as_bytes()));
        assert_eq!(of(&["a/b, C/d;q=0.5"]), of(&["a/b", "c/d; q=0.5"]));
        assert_ne!(of(&["a/b"]), of(&["a/c"]));
        assert_ne!(of(&["a/b"]), of(&[]));
        assert_ne!(of(&["ab,c"]), of(&["a,bc"]));
    }

    type Lines<'a> = &'a [(&'a str, &'a str)];

    fn lines(digest: &str) -> Vec<(&str, &str)> {
        vec![
            ("Content-Type", str::from_utf8(TYPE).unwrap()),
            ("docker-content-digest", digest),
            ("Content-Length", "19"),
        ]
    }

    fn read<'a>(status: u16, lines: Lines<'a>) -> Option<Described<'a>> {
        Described::read(
            status,
            lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        )
    }

    fn described() -> Described<'static> {
        let length = Some(BODY.len() as u64);
        Described { digest: Digest::of(BODY), media_type: TYPE, length }
    }

    #[test]
    fn an_answer_is_described_only_if_it_is_clear() {
        let digest = text(Digest::of(BODY));
        let other = text(Digest::of(b""));
        let good = lines(&digest);
        let want = described();
        assert_eq!(read(200, &good), Some(want));
        let chunked = Described { length: None, ..want };
        assert_eq!(read(200, &good[..2]), Some(chunked), "no length");
        let identity = [&good[..], &[("Content-Encoding", "identity")]].concat();
        assert_eq!(read(200, &identity), Some(want));

        let long = "x".repeat(256);
        let rows: [(&str, u16, Lines<'_>); 12] = [
            ("a part", 206, &good),
            ("refused", 401, &good),
            ("not modified", 304, &good),
            ("no type", 200, &good[1..]),
            ("no digest", 200, &[good[0], good[2]]),
            ("no SHA-256", 200, &[good[0], ("Docker-Content-Digest", "sha512:0")]),
            ("encoded", 200, &[good[0], good[1], ("Content-Encoding", "gzip")]),
            ("the same digest twice", 200, &[good[0], good[1], good[1]]),
            ("two digests", 200, &[good[0], good[1], ("Docker-Content-Digest", &other)]),
            ("two types", 200, &[good[0], good[1], ("Content-Type", "text/html")]),
            ("no number", 200, &[good[0], good[1], ("Content-Length", "1x")]),
            ("a long type", 200, &[("Content-Type", &long), good[1]]),
        ];
        for (name, status, lines) in rows {
            assert_eq!(read(status, lines), None, "{name}");
        }
    }

    #[test]
    fn a_digest_is_for_itself_alone() {
        let described = described();
        assert!(described.is_for(&Reference::Tag));
        assert!(described.is_for(&Reference::Digest(Digest::of(BODY))));
        assert!(!described.is_for(&Reference::Digest(Digest::of(b""))));
    }

    fn captured(described: &Described<'_>) -> Capture {
        let mut capture = Capture::new(described, 1000).unwrap();
        assert_eq!(capture.take(BODY), Progress::Whole);
        capture
    }

    #[test]
    fn a_head_grants_what_is_kept_and_no_other() {
        let described = described();
        let capture = captured(&described);
        let kept = Kept::read(capture.bytes()).unwrap();
        assert_eq!(kept, Kept { digest: Digest::of(BODY), media_type: TYPE, body: BODY });
        assert!(described.grants(&kept));

        let rows = [
            ("digest", Described { digest: Digest::of(b""), ..described }),
            ("type", Described { media_type: b"text/html", ..described }),
            ("length", Described { length: Some(20), ..described }),
            ("no length", Described { length: None, ..described }),
        ];
        for (name, other) in rows {
            assert!(!other.grants(&kept), "{name}");
        }
    }

    #[test]
    fn what_is_kept_is_read_or_is_nothing() {
        let digest = *Digest::of(BODY).as_bytes();
        let rows: [(&str, Vec<u8>); 3] = [
            ("nothing", Vec::new()),
            ("no type", digest.to_vec()),
            ("a short type", [&digest[..], &[5], b"abcd"].concat()),
        ];
        for (name, bytes) in rows {
            assert_eq!(Kept::read(&bytes), None, "{name}");
        }
    }

    #[test]
    fn a_body_is_whole_when_it_has_its_digest() {
        let exact = described();
        let chunked = Described { length: None, ..exact };
        let lying = Described { digest: Digest::of(b"other"), ..exact };
        let lying_in_chunks = Described { length: None, ..lying };
        use Progress::{Partial, Unfit, Whole};
        type Row<'a> = (&'a str, &'a Described<'a>, usize, &'a [&'a [u8]], &'a [Progress]);
        let rows: [Row<'_>; 9] = [
            ("at once", &exact, 19, &[BODY], &[Whole]),
            ("in pieces", &exact, 19, &[&BODY[..5], b"", &BODY[5..]], &[Partial, Partial, Whole]),
            ("in chunks", &chunked, 19, &[&BODY[..5], &BODY[5..]], &[Partial, Whole]),
            ("cut", &exact, 19, &[&BODY[..18]], &[Partial]),
            ("another body", &lying, 19, &[BODY], &[Unfit]),
            ("another body in chunks", &lying_in_chunks, 19, &[BODY], &[Partial]),
            ("without an end", &lying_in_chunks, 20, &[BODY, BODY], &[Partial, Unfit]),
            ("longer than it says", &exact, 1000, &[BODY, b"x"], &[Whole, Unfit]),
            ("larger than allowed", &chunked, 18, &[BODY], &[Unfit]),
        ];
        for (name, described, max, pieces, want) in rows {
            let mut capture = Capture::new(described, max).unwrap();
            let progress: Vec<Progress> = pieces.iter().map(|piece| capture.take(piece)).collect();
            assert_eq!(progress, want, "{name}");
        }
        assert!(Capture::new(&exact, 18).is_none(), "announced as larger than allowed");
    }

    #[test]
    fn what_may_be_a_secret_is_not_public() {
        // {"sub":""} and {"sub":"alice"}.
        let rows = [
            ("Accept", "a/b", true),
            ("X-Forwarded-For", "192.0.2.1", true),
            ("if-none-match", "a", true),
            ("Host", "registry-1.docker.io", true),
            ("User-Agent", "docker/27", true),
            ("Authorization", "Bearer e30.eyJzdWIiOiIifQ.c2ln", true),
            ("Authorization", "Bearer e30.eyJzdWIiOiJhbGljZSJ9.c2ln", false),
            ("authorization", "Bearer opaque", false),
            ("Authorization", "Basic YTpi", false),
            ("Cookie", "a=b", false),
            ("X-Api-Key", "a", false),
            ("PRIVATE-TOKEN", "a", false),
            ("X-Registry-Auth", "a", false),
            ("Proxy-Authorization", "Basic YTpi", false),
            ("X-Remote-User", "alice", false),
            ("X-SSL-Client-S-DN", "CN=alice", false),
        ];
        for (name, value, want) in rows {
            assert_eq!(is_public(name.as_bytes(), value.as_bytes()), want, "{name}: {value}");
        }
    }

    #[test]
    fn a_failure_tells_nothing_of_who_may_have_what() {
        for (status, want) in [
            (200, false),
            (304, false),
            (401, false),
            (403, false),
            (404, false),
            (429, true),
            (501, false),
            (502, true),
        ] {
            assert_eq!(is_failure(status), want, "{status}");
        }
    }

    #[test]
    fn one_fetches_and_the_others_wait() {
        let mut entry = Entry::default();
        assert_eq!(entry.turn(1, None, 100), Turn::Lead);
        let Turn::Wait(second) = entry.turn(2, None, 150) else { panic!() };
        assert_eq!(second, Wait { leader: 1, since: 150 });
        assert_eq!(entry.turn(2, Some(second), 200), Turn::Wait(second));

        entry.end(1, Some([7, 0]));
        assert_eq!(entry.known, [7, 0]);
        assert_eq!(Entry::from(entry.words()), entry);
        // Had it been thrown away meanwhile, one of those who waited would fetch it anew.
        assert_eq!(entry.turn(2, Some(second), 250), Turn::Lead);
        assert_eq!(entry.turn(3, Some(second), 250), Turn::Wait(Wait { leader: 2, since: 150 }));
    }

    #[test]
    fn who_waits_for_a_failure_goes_alone() {
        let mut entry = Entry::default();
        entry.turn(1, None, 0);
        let Turn::Wait(second) = entry.turn(2, None, 0) else { panic!() };
        entry.end(1, None);
        assert_eq!(entry.turn(3, None, 10), Turn::Lead, "one who has not waited");
        assert_eq!(entry.turn(2, Some(second), 20), Turn::Alone);
        assert_eq!(entry.known, [0; 2]);
    }

    #[test]
    fn a_leader_that_was_killed_is_followed_by_one() {
        let mut entry = Entry::default();
        entry.turn(1, None, 0);
        let Turn::Wait(second) = entry.turn(2, None, 10) else { panic!() };
        let Turn::Wait(third) = entry.turn(3, None, 20) else { panic!() };
        assert_eq!(entry.turn(2, Some(second), LEASE - 1), Turn::Wait(second));
        assert_eq!(entry.turn(2, Some(second), LEASE), Turn::Lead);
        assert_eq!(entry.turn(3, Some(third), LEASE), Turn::Wait(Wait { leader: 2, since: 20 }));

        // The first was only slow: what it brings counts, and the lock stays the second's.
        entry.end(1, Some([9, 0]));
        assert_eq!(entry.known, [9, 0]);
        assert!(matches!(entry.turn(4, None, LEASE + 1), Turn::Wait(Wait { leader: 2, .. })));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let mut entry = Entry::default();
        entry.turn(1, None, 0);
        let Turn::Wait(wait) = entry.turn(9, None, 0) else { panic!() };
        let mut wait = wait;
        for now in (0..PATIENCE).step_by(50) {
            entry.turn(100 + now, None, now);
            if let Turn::Wait(next) = entry.turn(9, Some(wait), now) {
                wait = next;
            }
        }
        assert_eq!(entry.turn(9, Some(wait), PATIENCE), Turn::Alone);
    }
}
