//! `WWW-Authenticate`: finding and replacing the realm (RFC 9110, section 11.6.1, and RFC 6750,
//! section 3).
//!
//! ```
//! let header = br#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
//! let rewritten = rules::challenge::rewrite_realm(header, b"https://mirror.example:5000");
//! let want = br#"Bearer realm="https://mirror.example:5000/token",service="registry.docker.io""#;
//! assert_eq!(rewritten, Ok(Some(want.to_vec())));
//! ```

use std::fmt;
use std::ops::Range;

use crate::authority;
use crate::syntax;

/// Replaces scheme and authority of every `Bearer` challenge's `realm` by `base`.
///
/// `header` is the value of one field line, which may hold several challenges in any order. Path
/// and query of the realm stay behind `base`, and so does every other byte; a slash at the end of
/// `base` is not doubled. `Ok(None)` if there is nothing to replace: no `Bearer` challenge, none
/// with a `realm`, or none whose realm is an absolute `http` or `https` URL.
///
/// # Errors
///
/// [`ChallengeError::Syntax`] if `header` does not follow the grammar, and
/// [`ChallengeError::Base`] if `base` is not a [`valid_base`].
pub fn rewrite_realm(header: &[u8], base: &[u8]) -> Result<Option<Vec<u8>>, ChallengeError> {
    let origins = origins(header)?;
    if origins.is_empty() {
        return Ok(None);
    }
    if !valid_base(base) {
        return Err(ChallengeError::Base);
    }

    let base = without_final_slashes(base);
    let mut out = Vec::with_capacity(header.len() + origins.len() * base.len());
    let mut copied = 0;
    for origin in origins {
        out.extend_from_slice(header.get(copied..origin.start).unwrap_or_default());
        out.extend_from_slice(base);
        copied = origin.end;
    }
    out.extend_from_slice(header.get(copied..).unwrap_or_default());
    Ok(Some(out))
}

/// Whether a realm can begin with `base`: `http://` or `https://`, a valid `host[:port]`, and
/// perhaps a path, of bytes that a path may hold and a quoted string need not escape.
pub fn valid_base(base: &[u8]) -> bool {
    let Some(rest) = behind_scheme(base) else {
        return false;
    };
    let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or_default();
    authority::is_valid(authority) && path.iter().copied().all(is_path_byte)
}

/// `pchar` and `/` (RFC 3986, section 3.3).
pub(crate) fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@".contains(&byte)
}

fn without_final_slashes(mut base: &[u8]) -> &[u8] {
    while let [rest @ .., b'/'] = base {
        base = rest;
    }
    base
}

fn behind_scheme(url: &[u8]) -> Option<&[u8]> {
    syntax::strip_prefix_any_case(url, b"https://")
        .or_else(|| syntax::strip_prefix_any_case(url, b"http://"))
}

/// What a `Bearer` challenge says (RFC 6750, section 3, and distribution, "Token Authentication
/// Specification").
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bearer {
    /// Where tokens are given.
    pub realm: String,
    /// For whom.
    pub service: Option<String>,
    /// For what, separated by spaces.
    pub scope: Option<String>,
}

/// Replaces realm and scope of every `Bearer` challenge for which `rewrite` returns new ones; a
/// service stays, and so does every other byte. `Ok(None)` if there is nothing to replace.
///
/// # Errors
///
/// [`ChallengeError::Syntax`] if `header` does not follow the grammar.
pub fn rewrite_bearer(
    header: &[u8],
    mut rewrite: impl FnMut(&Bearer) -> Option<Bearer>,
) -> Result<Option<Vec<u8>>, ChallengeError> {
    let params = params(header)?;
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    for challenge in params.chunk_by(|a, b| a.challenge == b.challenge) {
        let of_name = |name: &'static str| {
            challenge.iter().filter(move |param| {
                param.bearer && param.name.eq_ignore_ascii_case(name.as_bytes())
            })
        };
        let value = |name| of_name(name).next().and_then(|param| param.value.text(header));
        let Some(realm) = value("realm") else { continue };
        let bearer = Bearer { realm, service: value("service"), scope: value("scope") };
        let Some(new) = rewrite(&bearer) else { continue };
        let scope = new.scope.filter(|scope| Some(scope) != bearer.scope.as_ref());
        for (name, text) in [("realm", Some(new.realm)), ("scope", scope)] {
            let Some(text) = text else { continue };
            edits.extend(of_name(name).map(|param| (param.value.written(), quoted(&text))));
        }
    }
    if edits.is_empty() {
        return Ok(None);
    }

    edits.sort_by_key(|(range, _)| range.start);
    let mut out = Vec::with_capacity(header.len() + 512);
    let mut copied = 0;
    for (range, text) in edits {
        out.extend_from_slice(header.get(copied..range.start).unwrap_or_default());
        out.extend_from_slice(text.as_bytes());
        copied = range.end;
    }
    out.extend_from_slice(header.get(copied..).unwrap_or_default());
    Ok(Some(out))
}

/// The first `Bearer` challenge of a header that names a realm.
///
/// # Errors
///
/// [`ChallengeError::Syntax`] if `header` does not follow the grammar.
pub fn first_bearer(header: &[u8]) -> Result<Option<Bearer>, ChallengeError> {
    let mut first = None;
    rewrite_bearer(header, |bearer| {
        first.get_or_insert_with(|| bearer.clone());
        None
    })?;
    Ok(first)
}

impl Bearer {
    /// As the value of a header that says nothing else.
    pub fn to_header(&self) -> String {
        let Self { realm, service, scope } = self;
        let mut header = format!("Bearer realm={}", quoted(realm));
        for (name, value) in [("service", service), ("scope", scope)] {
            if let Some(value) = value {
                header.push_str(&format!(",{name}={}", quoted(value)));
            }
        }
        header
    }
}

/// `quoted-string` (RFC 9110, section 5.6.4).
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        if matches!(char, '"' | '\\') {
            out.push('\\');
        }
        out.push(char);
    }
    out.push('"');
    out
}

/// Where in `header` scheme and authority of `Bearer` realms stand, in their order.
fn origins(header: &[u8]) -> Result<Vec<Range<usize>>, ChallengeError> {
    let params = params(header)?;
    let realms = params.into_iter().filter_map(|param| {
        let is_realm = param.bearer && param.name.eq_ignore_ascii_case(b"realm");
        // A token cannot hold a URL.
        origin(header, param.value.at).filter(|_| is_realm && param.value.quoted)
    });
    Ok(realms.collect())
}

/// An auth-param.
struct Param<'a> {
    /// The number of the challenge that it belongs to.
    challenge: usize,
    /// That one's scheme is Bearer.
    bearer: bool,
    name: &'a [u8],
    value: Value,
}

/// A token, or what stands between the quotes of a quoted string.
struct Value {
    at: Range<usize>,
    quoted: bool,
}

impl Value {
    /// With its quotes.
    fn written(&self) -> Range<usize> {
        let quote = usize::from(self.quoted);
        self.at.start - quote..self.at.end + quote
    }

    /// What it means, if that is text.
    fn text(&self, header: &[u8]) -> Option<String> {
        let written = header.get(self.at.clone())?;
        let bytes = if self.quoted {
            unescaped(written).map(|(byte, _)| byte).collect()
        } else {
            written.to_vec()
        };
        String::from_utf8(bytes).ok()
    }
}

/// The auth-params of all challenges in `header`, in their order.
fn params(header: &[u8]) -> Result<Vec<Param<'_>>, ChallengeError> {
    let mut params = Vec::new();
    let mut cursor = Cursor { bytes: header, at: 0 };
    let mut challenge = 0;
    let mut bearer = false;
    // Whether an auth-param may come: not before the first scheme, nor behind a token68.
    let mut takes_params = false;

    // challenge = auth-scheme [ 1*SP ( token68 / #auth-param ) ]
    // The lists of challenges and of auth-params share their commas: only what stands behind a
    // word shows whether it is a scheme or the name of a further auth-param.
    while cursor.skip_to_element() {
        let word = cursor.token()?;
        let name = if takes_params && cursor.skip_equals() {
            Some(word)
        } else {
            challenge += 1;
            bearer = word.eq_ignore_ascii_case(b"Bearer");
            takes_params = true;
            if !cursor.skip_spaces() || cursor.at_end_of_element() {
                None
            } else if cursor.skip_token68() {
                takes_params = false;
                None
            } else {
                let name = cursor.token()?;
                if !cursor.skip_equals() {
                    return Err(cursor.error());
                }
                Some(name)
            }
        };

        if let Some(name) = name {
            params.push(Param { challenge, bearer, name, value: cursor.value()? });
        }
        if !cursor.at_end_of_element() {
            return Err(cursor.error());
        }
    }
    Ok(params)
}

/// Where scheme and authority stand, if the quoted `value` is an `http` or `https` URL.
fn origin(header: &[u8], value: Range<usize>) -> Option<Range<usize>> {
    let quoted = header.get(value.clone())?;
    let mut bytes = unescaped(quoted).peekable();
    let mut skip = |want: &u8| bytes.next_if(|(byte, _)| byte.eq_ignore_ascii_case(want)).is_some();
    let http = b"http".iter().all(&mut skip);
    skip(&b's');
    if !http || !b"://".iter().all(&mut skip) {
        return None;
    }

    // A host of no byte at all is none.
    bytes.next().filter(|(byte, _)| !b"/?#".contains(byte))?;
    let end = bytes.find(|(byte, _)| b"/?#".contains(byte));
    Some(value.start..value.start + end.map_or(quoted.len(), |(_, offset)| offset))
}

/// The bytes that a quoted string means, each with the offset where it is written.
fn unescaped(quoted: &[u8]) -> impl Iterator<Item = (u8, usize)> {
    let mut bytes = quoted.iter().copied().enumerate();
    std::iter::from_fn(move || match bytes.next()? {
        (offset, b'\\') => bytes.next().map(|(_, byte)| (byte, offset)),
        (offset, byte) => Some((byte, offset)),
    })
}

/// A place in a field value.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn error(&self) -> ChallengeError {
        ChallengeError::Syntax(self.at)
    }

    /// Skips what `accepts` accepts, and says whether there was any.
    fn skip_while(&mut self, accepts: impl Fn(u8) -> bool) -> bool {
        let skipped = self.rest().iter().take_while(|byte| accepts(**byte)).count();
        self.at += skipped;
        skipped > 0
    }

    /// Skips commas and white space, and says whether anything follows. Empty elements are valid
    /// (RFC 9110, section 5.6.1.2).
    fn skip_to_element(&mut self) -> bool {
        self.skip_while(|byte| byte == b',' || syntax::is_ows(byte));
        !self.rest().is_empty()
    }

    /// `1*SP`
    fn skip_spaces(&mut self) -> bool {
        self.skip_while(|byte| byte == b' ')
    }

    /// Whether nothing but white space stands before the next comma, or the end.
    fn at_end_of_element(&self) -> bool {
        let next = self.rest().iter().find(|byte| !syntax::is_ows(**byte));
        next.is_none_or(|byte| *byte == b',')
    }

    fn token(&mut self) -> Result<&'a [u8], ChallengeError> {
        let rest = self.rest();
        let start = self.at;
        if !self.skip_while(syntax::is_tchar) {
            return Err(self.error());
        }
        Ok(rest.get(..self.at - start).unwrap_or_default())
    }

    /// `BWS "=" BWS`, or nothing.
    fn skip_equals(&mut self) -> bool {
        let start = self.at;
        self.skip_while(syntax::is_ows);
        if self.rest().first() != Some(&b'=') {
            self.at = start;
            return false;
        }
        self.at += 1;
        self.skip_while(syntax::is_ows);
        true
    }

    /// `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="` up to the end of the
    /// element, or nothing: `realm=x` is an auth-param, `realm=` is not.
    fn skip_token68(&mut self) -> bool {
        let start = self.at;
        let skipped =
            self.skip_while(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
        self.skip_while(|byte| byte == b'=');
        if skipped && self.at_end_of_element() {
            return true;
        }
        self.at = start;
        false
    }

    /// A token, or a quoted string.
    fn value(&mut self) -> Result<Value, ChallengeError> {
        let opening = self.at;
        if self.rest().first() != Some(&b'"') {
            self.token()?;
            return Ok(Value { at: opening..self.at, quoted: false });
        }

        self.at += 1;
        loop {
            self.skip_while(|byte| syntax::is_value_byte(byte) && byte != b'"' && byte != b'\\');
            match self.rest() {
                [b'"', ..] => {
                    self.at += 1;
                    return Ok(Value { at: opening + 1..self.at - 1, quoted: true });
                }
                [b'\\', escaped, ..] if syntax::is_value_byte(*escaped) => self.at += 2,
                [] | [b'\\'] => return Err(ChallengeError::Syntax(opening)),
                _ => return Err(self.error()),
            }
        }
    }
}

/// Why a `WWW-Authenticate` value stays as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChallengeError {
    /// The value does not follow the grammar from this byte offset on; of a quoted string that
    /// does not end, the offset of its opening quote.
    Syntax(usize),
    /// The base is not a [`valid_base`].
    Base,
}

impl fmt::Display for ChallengeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(offset) => write!(f, "invalid challenge at byte {offset}"),
            Self::Base => f.write_str("invalid URL to begin the realm with"),
        }
    }
}

impl std::error::Error for ChallengeError {}

#[cfg(test)]
mod tests {
    use super::*;

    const MIRROR: &[u8] = b"https://mirror:5000";

    fn rewritten(header: &str) -> Result<Option<String>, ChallengeError> {
        let out = rewrite_realm(header.as_bytes(), MIRROR)?;
        Ok(out.map(|bytes| String::from_utf8(bytes).unwrap()))
    }

    #[test]
    fn the_realm_of_every_bearer_challenge_is_replaced() {
        let rows = [
            (
                "Docker Hub",
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#,
                r#"Bearer realm="https://mirror:5000/token",service="registry.docker.io""#,
            ),
            (
                "service before realm",
                r#"Bearer service="registry.docker.io",realm="https://auth.docker.io/token""#,
                r#"Bearer service="registry.docker.io",realm="https://mirror:5000/token""#,
            ),
            (
                "scope and error stay",
                r#"Bearer realm="https://a/t",scope="repository:x:pull",error="invalid_token""#,
                "Bearer realm=\"https://mirror:5000/t\",scope=\"repository:x:pull\",\
                 error=\"invalid_token\"",
            ),
            ("http", r#"Bearer realm="http://a/t""#, r#"Bearer realm="https://mirror:5000/t""#),
            (
                "port and user",
                r#"Bearer realm="https://u:p@a:8443/t""#,
                r#"Bearer realm="https://mirror:5000/t""#,
            ),
            (
                "IPv6",
                r#"Bearer realm="https://[::1]:1/t""#,
                r#"Bearer realm="https://mirror:5000/t""#,
            ),
            (
                "query",
                r#"Bearer realm="https://a/t?b=c&d=%20""#,
                r#"Bearer realm="https://mirror:5000/t?b=c&d=%20""#,
            ),
            ("no path", r#"Bearer realm="https://a""#, r#"Bearer realm="https://mirror:5000""#),
            (
                "no path but a query",
                r#"Bearer realm="https://a?b""#,
                r#"Bearer realm="https://mirror:5000?b""#,
            ),
            ("root", r#"Bearer realm="https://a/""#, r#"Bearer realm="https://mirror:5000/""#),
            (
                "upper case",
                r#"BEARER REALM="HTTPS://A/T""#,
                r#"BEARER REALM="https://mirror:5000/T""#,
            ),
            (
                "white space around =",
                "Bearer realm \t=\t \"https://a/t\"",
                "Bearer realm \t=\t \"https://mirror:5000/t\"",
            ),
            (
                "white space around commas",
                "Bearer a=b \t,\t realm=\"https://a/t\" , c=d ",
                "Bearer a=b \t,\t realm=\"https://mirror:5000/t\" , c=d ",
            ),
            (
                "several spaces behind the scheme",
                r#"Bearer   realm="https://a/t""#,
                r#"Bearer   realm="https://mirror:5000/t""#,
            ),
            (
                "empty list elements",
                r#",, ,Bearer ,, a=b,, realm="https://a/t", ,"#,
                r#",, ,Bearer ,, a=b,, realm="https://mirror:5000/t", ,"#,
            ),
            (
                "Basic before",
                r#"Basic realm="https://a/b", Bearer realm="https://a/t""#,
                r#"Basic realm="https://a/b", Bearer realm="https://mirror:5000/t""#,
            ),
            (
                "Basic behind",
                r#"Bearer realm="https://a/t", Basic realm="https://a/b""#,
                r#"Bearer realm="https://mirror:5000/t", Basic realm="https://a/b""#,
            ),
            (
                "two Bearer challenges",
                r#"Bearer realm="https://a/1", Basic realm="x", Bearer realm="https://b/2""#,
                "Bearer realm=\"https://mirror:5000/1\", Basic realm=\"x\", \
                 Bearer realm=\"https://mirror:5000/2\"",
            ),
            (
                "two realms, whichever the client takes",
                r#"Bearer realm="https://a/1", realm="https://b/2""#,
                r#"Bearer realm="https://mirror:5000/1", realm="https://mirror:5000/2""#,
            ),
            (
                "token68 before",
                r#"Negotiate YWJj/+-._~==, Bearer realm="https://a/t""#,
                r#"Negotiate YWJj/+-._~==, Bearer realm="https://mirror:5000/t""#,
            ),
            (
                "scheme alone before",
                r#"Negotiate, NTLM,Bearer realm="https://a/t""#,
                r#"Negotiate, NTLM,Bearer realm="https://mirror:5000/t""#,
            ),
            (
                "scheme alone behind",
                r#"Bearer realm="https://a/t", Negotiate"#,
                r#"Bearer realm="https://mirror:5000/t", Negotiate"#,
            ),
            (
                "a scheme that is called realm",
                r#"realm x, Bearer realm="https://a/t""#,
                r#"realm x, Bearer realm="https://mirror:5000/t""#,
            ),
            (
                "a realm within a quoted string",
                r#"Bearer a="Bearer realm=\"https://x/y\"", realm="https://a/t""#,
                r#"Bearer a="Bearer realm=\"https://x/y\"", realm="https://mirror:5000/t""#,
            ),
            (
                "quoted-pairs",
                r#"Bearer realm="ht\tps\:\/\/a\.b\/t\"\\",a="\"""#,
                r#"Bearer realm="https://mirror:5000\/t\"\\",a="\"""#,
            ),
            (
                "bytes beyond ASCII",
                "Bearer realm=\"https://a/t\",a=\"\u{fc}\"",
                "Bearer realm=\"https://mirror:5000/t\",a=\"\u{fc}\"",
            ),
        ];

        for (name, header, want) in rows {
            assert_eq!(rewritten(header), Ok(Some(want.to_owned())), "{name}");
        }
    }

    #[test]
    fn nothing_to_replace_is_no_error() {
        let rows = [
            ("empty", ""),
            ("white space and commas", " ,\t, "),
            ("Basic", r#"Basic realm="https://a/b""#),
            ("no realm", r#"Bearer service="s""#),
            ("scheme alone", "Bearer"),
            ("relative realm", r#"Bearer realm="/token""#),
            ("realm without scheme", r#"Bearer realm="//a/token""#),
            ("realm of another scheme", r#"Bearer realm="ftp://a/token""#),
            ("realm without host", r#"Bearer realm="https:///token""#),
            ("realm without anything", r#"Bearer realm="https://""#),
            ("empty realm", r#"Bearer realm="""#),
            ("realm in prose", r#"Bearer realm="Docker Registry""#),
            ("realm as a token", "Bearer realm=https"),
            ("`realm=` alone is a token68", "Bearer realm=,"),
            ("realm of another challenge", r#"Bearer a=b, Basic realm="https://a/b""#),
            ("a longer scheme", r#"Bearer2 realm="https://a/t""#),
            ("a longer name", r#"Bearer realms="https://a/t", xrealm="https://a/t""#),
        ];

        for (name, header) in rows {
            assert_eq!(rewritten(header), Ok(None), "{name}");
        }
    }

    #[test]
    fn a_header_against_the_grammar_is_an_error_at_its_byte() {
        let rows = [
            ("param without scheme", r#"realm="https://a/t""#, 5),
            ("quoted string that does not end", r#"Bearer realm="x"#, 13),
            ("backslash at the end", r#"Bearer realm="x\"#, 13),
            ("quote that is escaped at the end", r#"Bearer realm="x\""#, 13),
            ("value missing", r#"Bearer a=b, realm="#, 18),
            ("value that is an unquoted URL", "Bearer realm=https://a/t", 18),
            ("value that is an unquoted scope", "Bearer scope=repository:x:pull", 23),
            ("no comma between params", r#"Bearer a="b" c="d""#, 12),
            ("text behind a quoted string", r#"Bearer a="b"c"#, 12),
            ("text behind a token68", "Negotiate abc== def", 14),
            ("param behind a token68", "Negotiate abc=, realm=x", 21),
            ("two words", "Bearer Basic realm=x", 12),
            ("control byte", "Bearer a=\"b\x01\"", 11),
            ("escaped control byte", "Bearer a=\"\\\x01\"", 10),
            ("line feed", "Bearer\nx", 6),
            ("NUL", "\0", 0),
            ("tab behind the scheme", "Bearer\trealm=x", 6),
            ("quote as a scheme", r#""x""#, 0),
            ("equals sign alone", "=", 0),
            ("scheme beyond ASCII", "B\u{e9}arer", 1),
        ];

        for (name, header, offset) in rows {
            assert_eq!(rewritten(header), Err(ChallengeError::Syntax(offset)), "{name}");
        }
    }

    #[test]
    fn a_base_may_have_a_path() {
        let rows = [
            ("host", "http://m", "/token", "http://m/token"),
            ("final slash", "https://m/", "/token", "https://m/token"),
            ("path", "https://m/auth", "/token", "https://m/auth/token"),
            ("path with final slash", "https://m/auth/", "/token", "https://m/auth/token"),
            ("many final slashes", "https://m///", "/token", "https://m/token"),
            ("path, realm without one", "https://m/auth/", "", "https://m/auth"),
            ("upper case", "HTTPS://M/A", "/token", "HTTPS://M/A/token"),
            ("IPv6", "https://[::1]:5000", "/token", "https://[::1]:5000/token"),
        ];

        for (name, base, path, want) in rows {
            let header = format!("Bearer realm=\"https://auth.example{path}\"");
            let want = format!("Bearer realm=\"{want}\"");
            let got = rewrite_realm(header.as_bytes(), base.as_bytes());
            assert_eq!(got, Ok(Some(want.into_bytes())), "{name}");
        }
    }

    #[test]
    fn a_base_that_could_change_the_header_is_refused() {
        let rows = [
            ("empty", ""),
            ("no scheme", "mirror"),
            ("scheme only", "https://"),
            ("no host", "https:///auth"),
            ("another scheme", "ftp://m"),
            ("user", "https://u@m"),
            ("port empty", "https://m:"),
            ("port too large", "https://m:65536"),
            ("quote", "https://m/\""),
            ("backslash", "https://m/\\"),
            ("space", "https://m/a b"),
            ("line feed", "https://m/\n"),
            ("query", "https://m/?a"),
            ("query without path", "https://m?a"),
            ("fragment", "https://m/#a"),
            ("not ASCII", "https://m/\u{fc}"),
            ("leading space", " https://m"),
        ];

        for (name, base) in rows {
            assert!(!valid_base(base.as_bytes()), "{name}");
            let got = rewrite_realm(br#"Bearer realm="https://a/t""#, base.as_bytes());
            assert_eq!(got, Err(ChallengeError::Base), "{name}");
        }
        assert_eq!(rewrite_realm(b"Basic", b""), Ok(None), "a base that is not needed");
    }

    /// Every Bearer challenge that names `a.example`, with another realm and scope.
    fn rewritten_bearer(header: &str) -> Result<Option<String>, ChallengeError> {
        let out = rewrite_bearer(header.as_bytes(), |bearer| {
            bearer.realm.starts_with("https://a.example/").then(|| Bearer {
                realm: "https://m/token/x.y".to_owned(),
                service: None,
                scope: bearer.scope.as_ref().map(|scope| scope.replace("own", "client's \"own\"")),
            })
        })?;
        Ok(out.map(|bytes| String::from_utf8(bytes).unwrap()))
    }

    #[test]
    fn realm_and_scope_of_a_bearer_challenge_are_replaced_whole() {
        let rows = [
            (
                "realm alone",
                r#"Bearer realm="https://a.example/t?b=c""#,
                r#"Bearer realm="https://m/token/x.y""#,
            ),
            (
                "scope before realm",
                r#"Bearer scope="repository:own:pull",service="s",realm="https://a.example/t""#,
                "Bearer scope=\"repository:client's \\\"own\\\":pull\",service=\"s\",\
                 realm=\"https://m/token/x.y\"",
            ),
            (
                "a scope that stays",
                r#"Bearer realm="https://a.example/t" , scope = "a\b" ,error="e""#,
                r#"Bearer realm="https://m/token/x.y" , scope = "a\b" ,error="e""#,
            ),
            (
                "a scope that is a token",
                r#"Bearer realm="https://a.example/t",scope=own"#,
                r#"Bearer realm="https://m/token/x.y",scope="client's \"own\"""#,
            ),
            (
                "an escaped realm",
                r#"Bearer realm="https:\/\/a.example\/t""#,
                r#"Bearer realm="https://m/token/x.y""#,
            ),
            (
                "one of three",
                r#"Bearer realm="https://b/t",scope="own", Basic realm="https://a.example/", BEARER REALM="https://a.example/t""#,
                r#"Bearer realm="https://b/t",scope="own", Basic realm="https://a.example/", BEARER REALM="https://m/token/x.y""#,
            ),
        ];

        for (name, header, want) in rows {
            assert_eq!(rewritten_bearer(header), Ok(Some(want.to_owned())), "{name}");
        }
        for header in ["", "Basic realm=\"https://a.example/\"", "Bearer scope=own", "Bearer x"] {
            assert_eq!(rewritten_bearer(header), Ok(None), "{header}");
        }
        assert_eq!(rewritten_bearer("Bearer a=b c"), Err(ChallengeError::Syntax(10)));
    }

    #[test]
    fn a_bearer_challenge_is_read_as_it_is_meant() {
        let header = br#"Bearer service="a, \"b\"",realm="https:\/\/a",scope=c"#;
        let mut seen = Vec::new();
        let _ = rewrite_bearer(header, |bearer| {
            seen.push(bearer.clone());
            None
        });
        let want = Bearer {
            realm: "https://a".to_owned(),
            service: Some("a, \"b\"".to_owned()),
            scope: Some("c".to_owned()),
        };
        assert_eq!(seen, [want]);
    }

    #[test]
    fn an_error_is_a_clause() {
        let texts = [ChallengeError::Syntax(13), ChallengeError::Base].map(|e| e.to_string());
        assert_eq!(texts, ["invalid challenge at byte 13", "invalid URL to begin the realm with"]);
    }

    #[test]
    fn the_first_challenge_with_a_realm_is_written_alone() {
        let rows: [(&[u8], Option<&str>); 6] = [
            (br#"Bearer service=b,realm="a",error=c, Basic realm="d""#, {
                Some(r#"Bearer realm="a",service="b""#)
            }),
            (br#"Basic realm="d", Bearer scope="e", bearer realm=a,scope="\"\\""#, {
                Some(r#"Bearer realm="a",scope="\"\\""#)
            }),
            // Go's url.Parse takes it for a URL.
            (b"Bearer realm=\"https://evil.example/\xff\", Bearer realm=\"a\"", {
                Some(r#"Bearer realm="a""#)
            }),
            (b"Bearer", None),
            (br#"Basic realm="d""#, None),
            (b"", None),
        ];
        for (header, want) in rows {
            let first = first_bearer(header).unwrap();
            let written = first.as_ref().map(Bearer::to_header);
            assert_eq!(written.as_deref(), want, "{}", header.escape_ascii());
            if let Some(written) = written {
                assert_eq!(first_bearer(written.as_bytes()), Ok(first));
            }
        }
        assert_eq!(first_bearer(b"Bearer realm=\"a"), Err(ChallengeError::Syntax(13)));
    }
}
