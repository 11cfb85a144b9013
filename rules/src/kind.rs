//! What a request to a registry asks for (OCI distribution-spec, "Endpoints").

use crate::syntax;

/// The longest repository name that is taken for one. The specification leaves it open, and
/// mentions that many clients stop at 255 with the host in front.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;
const MAX_DIGEST: usize = 255;

/// What is asked for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// `/v2/`: whether this is a registry, and who may ask.
    Ping,
    /// A manifest.
    Manifest,
    /// A blob: a layer, or the configuration of an image.
    Blob,
    /// A token, from whom a challenge's `realm` names.
    Token,
    /// The tags of a repository.
    Tags,
    /// The manifests that refer to a manifest.
    Referrers,
    /// The repositories of a registry.
    Catalog,
    /// A manifest or a blob is sent.
    Upload,
    /// Anything else.
    Other,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Ping,
        Self::Manifest,
        Self::Blob,
        Self::Token,
        Self::Tags,
        Self::Referrers,
        Self::Catalog,
        Self::Upload,
        Self::Other,
    ];

    /// As `$docker_kind` and the status page have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Token => "token",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
            Self::Catalog => "catalog",
            Self::Upload => "upload",
            Self::Other => "other",
        }
    }
}

/// What fails or is limited together, at one backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// A `GET` of a manifest, which Docker Hub counts.
    ManifestGet,
    /// A `HEAD` of one, which it does not count.
    ManifestHead,
    /// A blob, which comes from a CDN.
    Blob,
    /// A token.
    Token,
    /// `/v2/`, by which clients learn what they need.
    Ping,
    /// Anything else.
    Other,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::ManifestGet, Self::ManifestHead, Self::Blob, Self::Token, Self::Ping, Self::Other];

    /// As the status page has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ManifestGet => "manifest_get",
            Self::ManifestHead => "manifest_head",
            Self::Blob => "blob",
            Self::Token => "token",
            Self::Ping => "ping",
            Self::Other => "other",
        }
    }
}

/// What is known of a request from its method and its URI. What has no such part is empty.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request<'a> {
    /// What is asked for.
    pub kind: Kind,
    /// The name of the repository.
    pub repository: &'a [u8],
    /// The tag or the digest behind `manifests/`.
    pub reference: &'a [u8],
    /// The digest of a manifest, a blob, or the manifest that is referred to.
    pub digest: &'a [u8],
    /// What fails or is limited together.
    pub class: Class,
}

impl<'a> Request<'a> {
    /// Reads a method and the URI as it is sent to the registry: a path, perhaps with a query.
    ///
    /// What does not obey the specification's grammar is [`Kind::Other`], an escape (`%2F`) in a
    /// name too: it is for the registry to say what that means. A request for a token is one that
    /// is none of the registry's own, and has the path of a known realm or the query of the token
    /// specification.
    #[inline]
    pub fn of(method: &[u8], uri: &'a [u8]) -> Self {
        // Most have no query. None can be mistaken for a part of what is found: a name has no `?`.
        let found = uri.strip_prefix(b"/v2").and_then(registry);
        found.unwrap_or_else(|| Self::with_query(uri)).by(method)
    }

    fn with_query(uri: &'a [u8]) -> Self {
        let (path, query) = match memchr::memchr(b'?', uri) {
            Some(at) => uri.split_at_checked(at).unwrap_or((uri, b"")),
            None => (uri, b"".as_slice()),
        };
        path.strip_prefix(b"/v2").and_then(registry).unwrap_or(Self {
            kind: if is_token(path, query) { Kind::Token } else { Kind::Other },
            ..OTHER
        })
    }

    /// The request as its method makes it.
    #[inline]
    fn by(self, method: &[u8]) -> Self {
        let kind = match (self.kind, method) {
            (Kind::Upload, _) | (_, b"GET" | b"HEAD") | (Kind::Token, b"POST") => self.kind,
            (Kind::Manifest, b"PUT") => Kind::Upload,
            _ => Kind::Other,
        };
        let class = match (kind, method) {
            (Kind::Manifest, b"HEAD") => Class::ManifestHead,
            (Kind::Manifest, _) => Class::ManifestGet,
            (Kind::Blob, _) => Class::Blob,
            (Kind::Token, _) => Class::Token,
            (Kind::Ping, _) => Class::Ping,
            _ => Class::Other,
        };
        Self { kind, class, ..self }
    }
}

const OTHER: Request<'static> = Request {
    kind: Kind::Other,
    repository: b"",
    reference: b"",
    digest: b"",
    class: Class::Other,
};

/// A request of the registry's API, by its path behind `/v2`.
#[inline]
fn registry(path: &[u8]) -> Option<Request<'_>> {
    let path = match path {
        b"" | b"/" => return Some(Request { kind: Kind::Ping, ..OTHER }),
        b"/_catalog" => return Some(Request { kind: Kind::Catalog, ..OTHER }),
        _ => path.strip_prefix(b"/")?,
    };

    // A name may hold any of these words: what counts is the end.
    let (rest, last) = split_last(path)?;
    let (name, found) = if let Some(name) = rest.strip_suffix(b"/manifests") {
        let found = Request { kind: Kind::Manifest, reference: last, ..OTHER };
        match is_tag(last) {
            true => (name, found),
            false if is_digest(last) => (name, Request { digest: last, ..found }),
            false => return None,
        }
    } else if let Some(name) = rest.strip_suffix(b"/blobs") {
        match last {
            b"uploads" => (name, Request { kind: Kind::Upload, ..OTHER }),
            _ if is_digest(last) => (name, Request { kind: Kind::Blob, digest: last, ..OTHER }),
            _ => return None,
        }
    } else if let Some(name) = rest.strip_suffix(b"/tags").filter(|_| last == b"list") {
        (name, Request { kind: Kind::Tags, ..OTHER })
    } else if let Some(name) = rest.strip_suffix(b"/referrers").filter(|_| is_digest(last)) {
        (name, Request { kind: Kind::Referrers, digest: last, ..OTHER })
    } else {
        // With the number of an upload behind it, or with nothing.
        let name = rest.strip_suffix(b"/blobs/uploads")?;
        (name, Request { kind: Kind::Upload, ..OTHER })
    };
    is_name(name).then_some(Request { repository: name, ..found })
}

fn split_last(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memrchr(b'/', path)?;
    Some((path.get(..at)?, path.get(at + 1..)?))
}

/// The paths of the realms that registries are known to name, and the query of the token
/// specification.
fn is_token(path: &[u8], query: &[u8]) -> bool {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let last = split_last(path).map_or(path, |(_, last)| last);
    let is_realm = match path.strip_prefix(b"/v2/") {
        Some(rest) => matches!(rest, b"token" | b"auth"),
        None => matches!(last, b"token" | b"auth" | b"proxy_auth"),
    };
    let has_query = || {
        let query = query.strip_prefix(b"?").unwrap_or_default();
        let mut names = query.split(|byte| *byte == b'&');
        names.any(|name| name.starts_with(b"service=") || name.starts_with(b"scope="))
    };
    is_realm || (!path.starts_with(b"/v2/") && has_query())
}

/// `<name>`: components of lower-case letters and digits, which `.`, `_`, `__` or dashes join.
pub(crate) fn is_name(name: &[u8]) -> bool {
    // A shift looks at the lowest five bits only of what stood before.
    let after = |before, byte: &u8| row(*byte).wrapping_shr(before);
    name.len() <= MAX_NAME && name.iter().fold(SEPARATOR, after) & STATE == LOWER
}

/// `<reference>` as a tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn is_tag(tag: &[u8]) -> bool {
    tag.len() <= MAX_TAG
        && tag.first().is_some_and(|first| !matches!(first, b'.' | b'-'))
        && all(tag, IN_TAG)
}

/// `algorithm ":" encoded` (OCI image-spec, "Digests").
fn is_digest(digest: &[u8]) -> bool {
    let Some(at) = memchr::memchr(b':', digest) else { return false };
    let (algorithm, encoded) = digest.split_at_checked(at).unwrap_or_default();
    let encoded = encoded.strip_prefix(b":").unwrap_or_default();
    let mut components = algorithm.split(|byte| b"+._-".contains(byte));
    digest.len() <= MAX_DIGEST
        && components.all(|part| !part.is_empty() && all(part, IN_ALGORITHM))
        && !encoded.is_empty()
        && all(encoded, IN_ENCODED)
}

fn all(bytes: &[u8], class: u32) -> bool {
    syntax::all(bytes, |byte| row(byte) & class != 0)
}

fn row(byte: u8) -> u32 {
    ROWS.get(usize::from(byte)).copied().unwrap_or_default()
}

// What may stand before a byte of a name. Each is the position, in the byte's row, of the five bits
// that are what then stands before the next one.
const STATE: u32 = 31;
const REFUSED: u32 = 0;
const LOWER: u32 = 5;
/// Another `_` may follow.
const UNDERSCORE: u32 = 10;
const DASH: u32 = 15;
/// As at the beginning of a name.
const SEPARATOR: u32 = 20;

// Where a byte may stand besides.
const IN_TAG: u32 = 1 << 25;
const IN_ALGORITHM: u32 = 1 << 26;
const IN_ENCODED: u32 = 1 << 27;

/// A row a byte.
#[expect(clippy::indexing_slicing, reason = "the compiler looks at every row")]
static ROWS: [u32; 256] = {
    let mut rows = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        // Behind a letter, an underscore, a dash, and a separator.
        let ([letter, underscore, dash, separator], classes) = match byte as u8 {
            b'a'..=b'z' | b'0'..=b'9' => ([LOWER; 4], IN_TAG | IN_ALGORITHM | IN_ENCODED),
            b'A'..=b'Z' => ([REFUSED; 4], IN_TAG | IN_ENCODED),
            b'/' => ([SEPARATOR, REFUSED, REFUSED, REFUSED], 0),
            b'.' => ([SEPARATOR, REFUSED, REFUSED, REFUSED], IN_TAG),
            b'_' => ([UNDERSCORE, SEPARATOR, REFUSED, REFUSED], IN_TAG | IN_ENCODED),
            b'-' => ([DASH, REFUSED, DASH, REFUSED], IN_TAG | IN_ENCODED),
            b'=' => ([REFUSED; 4], IN_ENCODED),
            _ => ([REFUSED; 4], 0),
        };
        rows[byte] = letter << LOWER
            | underscore << UNDERSCORE
            | dash << DASH
            | separator << SEPARATOR
            | classes;
        byte += 1;
    }
    rows
};

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn get(uri: &str) -> Request<'_> {
        Request::of(b"GET", uri.as_bytes())
    }

    #[test]
    fn the_end_of_a_path_tells_what_it_asks_for() {
        let rows = [
            ("ping", "/v2/", Kind::Ping, ["", "", ""]),
            ("ping without a slash", "/v2", Kind::Ping, ["", "", ""]),
            ("catalog", "/v2/_catalog?n=5", Kind::Catalog, ["", "", ""]),
            (
                "tag",
                "/v2/library/alpine/manifests/3.20",
                Kind::Manifest,
                ["library/alpine", "3.20", ""],
            ),
            (
                "digest",
                "/v2/a/manifests/sha512:00?ns=docker.io",
                Kind::Manifest,
                ["a", "sha512:00", "sha512:00"],
            ),
            ("blob", "/v2/a/b/c/d/blobs/sha256:00", Kind::Blob, ["a/b/c/d", "", "sha256:00"]),
            ("tags", "/v2/a/tags/list?n=5", Kind::Tags, ["a", "", ""]),
            ("referrers", "/v2/a/referrers/sha256:0", Kind::Referrers, ["a", "", "sha256:0"]),
            ("upload", "/v2/a/b/blobs/uploads/", Kind::Upload, ["a/b", "", ""]),
            ("upload without a slash", "/v2/a/blobs/uploads", Kind::Upload, ["a", "", ""]),
            ("upload goes on", "/v2/a/blobs/uploads/1-f%2F?x=y", Kind::Upload, ["a", "", ""]),
            ("query like a path", "/v2/?x=/a/manifests/b", Kind::Ping, ["", "", ""]),
            ("after a tag", "/v2/a/manifests/b?ns=/c/tags/list", Kind::Manifest, ["a", "b", ""]),
            ("after tags", "/v2/a/tags/list?last=/b/blobs/uploads/", Kind::Tags, ["a", "", ""]),
            (
                "after an upload",
                "/v2/a/blobs/uploads/1?x=/blobs/uploads/2",
                Kind::Upload,
                ["a", "", ""],
            ),
            (
                "words in a name",
                "/v2/blobs/manifests/tags/list",
                Kind::Tags,
                ["blobs/manifests", "", ""],
            ),
            (
                "manifests in a name",
                "/v2/a/manifests/manifests/b",
                Kind::Manifest,
                ["a/manifests", "b", ""],
            ),
            (
                "uploads in a name",
                "/v2/a/blobs/uploads/manifests/b",
                Kind::Manifest,
                ["a/blobs/uploads", "b", ""],
            ),
            (
                "separators",
                "/v2/a.b/c_d/e__f/g---h/tags/list",
                Kind::Tags,
                ["a.b/c_d/e__f/g---h", "", ""],
            ),
        ];

        for (name, uri, kind, parts) in rows {
            let got = get(uri);
            assert_eq!(got.kind, kind, "{name}");
            let [repository, reference, digest] = parts.map(str::as_bytes);
            assert_eq!(got.repository, repository, "{name}: repository");
            assert_eq!(got.reference, reference, "{name}: reference");
            assert_eq!(got.digest, digest, "{name}: digest");
        }
    }

    #[test]
    fn what_the_grammar_does_not_know_is_other() {
        let long = format!("/v2/{}/tags/list", "a".repeat(256));
        let tag = format!("/v2/a/manifests/{}", "a".repeat(129));
        let digest = format!("/v2/a/blobs/sha256:{}", "a".repeat(250));
        let rows = [
            ("nothing", ""),
            ("root", "/"),
            ("another version", "/v1/a/manifests/b"),
            ("longer version", "/v22/a/manifests/b"),
            ("two slashes", "/v2//manifests/b"),
            ("slash in front", "/v2//a/manifests/b"),
            ("slash behind", "/v2/a/manifests/b/"),
            ("no name", "/v2/manifests/b"),
            ("no reference", "/v2/a/manifests/"),
            ("upper case", "/v2/A/manifests/b"),
            ("escape in a name", "/v2/a%2Fb/manifests/c"),
            ("escape in a tag", "/v2/a/manifests/%63"),
            ("escaped digest", "/v2/a/blobs/sha256%3A00"),
            ("dots", "/v2/a/../manifests/b"),
            ("two dots in a name", "/v2/a..b/manifests/c"),
            ("three underscores", "/v2/a___b/manifests/c"),
            ("mixed separators", "/v2/a.-b/manifests/c"),
            ("separator in front", "/v2/-a/manifests/c"),
            ("separator behind", "/v2/a-/manifests/c"),
            ("blob without a digest", "/v2/a/blobs/b"),
            ("digest without an algorithm", "/v2/a/blobs/:00"),
            ("digest without digits", "/v2/a/blobs/sha256:"),
            ("algorithm with two separators", "/v2/a/blobs/sha..256:00"),
            ("tag with a dot in front", "/v2/a/manifests/.b"),
            ("tags of another kind", "/v2/a/tags/lists"),
            ("long name", &long),
            ("long tag", &tag),
            ("long digest", &digest),
            ("absolute", "http://a/v2/a/manifests/b"),
            ("token in a name", "/v2/a/token"),
        ];

        for (name, uri) in rows {
            assert_eq!(get(uri), OTHER, "{name}");
        }
        assert_eq!(Request::of(b"GET", b"/v2/\xff/manifests/a"), OTHER);
    }

    #[test]
    fn names_tags_and_digests_may_be_long() {
        let name = "a".repeat(MAX_NAME);
        let tag = "_".repeat(MAX_TAG);
        let uri = format!("/v2/{name}/manifests/{tag}");
        assert_eq!(get(&uri).repository, name.as_bytes());
        assert_eq!(get(&uri).reference, tag.as_bytes());
        assert_eq!(get(&format!("/v2/a/blobs/{SHA}")).digest, SHA.as_bytes());
    }

    #[test]
    fn realms_of_known_registries_are_asked_for_tokens() {
        let rows = [
            ("Docker Hub", "/token?service=registry.docker.io&scope=repository:a:pull", true),
            ("no query", "/token", true),
            ("quay.io", "/v2/auth?service=quay.io", true),
            ("gcr.io", "/v2/token?service=gcr.io", true),
            ("pkg.dev without a service", "/v2/token", true),
            ("nvcr.io", "/proxy_auth?scope=a", true),
            ("public.ecr.aws", "/token/", true),
            ("gitlab.com", "/jwt/auth?service=container_registry", true),
            ("azurecr.io", "/oauth2/token", true),
            ("any path with the query", "/a/b?x=y&scope=c", true),
            ("another query", "/a/b?my_scope=c", false),
            ("query without a value", "/a?scope", false),
            ("a web page", "/tokens", false),
            ("query at the registry", "/v2/a?scope=b", false),
        ];

        for (name, uri, want) in rows {
            assert_eq!(get(uri).kind == Kind::Token, want, "{name}");
        }
        assert_eq!(get("/v2/a/manifests/token").kind, Kind::Manifest);
    }

    #[test]
    fn the_method_matters() {
        let manifest = "/v2/a/manifests/b";
        let rows = [
            ("GET", manifest, Kind::Manifest, Class::ManifestGet),
            ("HEAD", manifest, Kind::Manifest, Class::ManifestHead),
            ("PUT", manifest, Kind::Upload, Class::Other),
            ("DELETE", manifest, Kind::Other, Class::Other),
            ("get", manifest, Kind::Other, Class::Other),
            ("GET", "/v2/a/blobs/sha256:00", Kind::Blob, Class::Blob),
            ("HEAD", "/v2/a/blobs/sha256:00", Kind::Blob, Class::Blob),
            ("DELETE", "/v2/a/blobs/sha256:00", Kind::Other, Class::Other),
            ("POST", "/v2/a/blobs/uploads/", Kind::Upload, Class::Other),
            ("PATCH", "/v2/a/blobs/uploads/1", Kind::Upload, Class::Other),
            ("GET", "/token", Kind::Token, Class::Token),
            ("POST", "/token", Kind::Token, Class::Token),
            ("PUT", "/token", Kind::Other, Class::Other),
            ("GET", "/v2/", Kind::Ping, Class::Ping),
            ("GET", "/v2/a/tags/list", Kind::Tags, Class::Other),
        ];

        for (method, uri, kind, class) in rows {
            let got = Request::of(method.as_bytes(), uri.as_bytes());
            assert_eq!((got.kind, got.class), (kind, class), "{method} {uri}");
        }
        assert_eq!(Request::of(b"DELETE", manifest.as_bytes()).repository, b"a");
    }

    #[test]
    fn kinds_and_classes_have_words_of_their_own() {
        let mut words: Vec<_> = Kind::ALL.map(Kind::as_str).into();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Kind::ALL.len());
        let mut words: Vec<_> = Class::ALL.map(Class::as_str).into();
        words.dedup();
        assert_eq!(words.len(), Class::ALL.len());
    }
}
