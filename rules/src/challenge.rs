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

/// Where in `header` scheme and authority of `Bearer` realms stand, in their order.
fn origins(header: &[u8]) -> Result<Vec<Range<usize>>, ChallengeError> {
    let mut origins = Vec::new();
    let mut cursor = Cursor { bytes: header, at: 0 };
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

        if let Some(name) = name
            && let Some(value) = cursor.value()?
            && bearer
            && name.eq_ignore_ascii_case(b"realm")
        {
            origins.extend(origin(header, value));
        }
        if !cursor.at_end_of_element() {
            return Err(cursor.error());
        }
    }
    Ok(origins)
}

/// Where scheme and authority stand, if the quoted `value` is an `http` or `https` URL.
fn origin(header: &[u8], value: Range<usize>) -> Option<Range<usize>> {
    let quoted = header.get(value.clone())?;
    let (text, offsets): (Vec<u8>, Vec<usize>) = unescaped(quoted).unzip();

    let rest = behind_scheme(&text)?;
    let authority = rest.iter().take_while(|byte| !b"/?#".contains(byte)).count();
    if authority == 0 {
        return None;
    }
    let end = offsets.get(text.len() - rest.len() + authority).copied();
    Some(value.start..value.start + end.unwrap_or(quoted.len()))
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

    /// A token, or a quoted string. Only of the latter the place is told, without its quotes: a
    /// token cannot hold a URL.
    fn value(&mut self) -> Result<Option<Range<usize>>, ChallengeError> {
        let opening = self.at;
        if self.rest().first() != Some(&b'"') {
            return self.token().map(|_| None);
        }

        self.at += 1;
        loop {
            self.skip_while(|byte| syntax::is_value_byte(byte) && byte != b'"' && byte != b'\\');
            match self.rest() {
                [b'"', ..] => {
                    self.at += 1;
                    return Ok(Some(opening + 1..self.at - 1));
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
