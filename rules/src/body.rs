//! Whether a whole answer has been received, so that its connection can be used again (RFC 9112,
//! sections 6 and 7.1).

use std::borrow::Cow;

use crate::syntax;

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// There is no body: an answer to `HEAD`, 204 or 304.
    None,
    /// By its length in bytes.
    Length(u64),
    /// By the chunked coding.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// What has been received of a body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Body<'a> {
    /// All of it, decoded, and nothing behind it.
    Whole(Cow<'a, [u8]>),
    /// More is to come.
    Partial,
    /// Bytes behind its end, or what is no body: the connection must not be used again.
    Surplus,
}

/// Reads the bytes that were received behind the head of an answer. With [`Framing::Close`] the end
/// cannot be known: always [`Body::Partial`].
pub fn read(framing: Framing, received: &[u8]) -> Body<'_> {
    match framing {
        Framing::None => sized(0, received),
        Framing::Length(length) => sized(length, received),
        Framing::Chunked => match chunked(received) {
            Ok(body) => Body::Whole(body),
            Err(Unfinished::Partial) => Body::Partial,
            Err(Unfinished::Surplus) => Body::Surplus,
        },
        Framing::Close => Body::Partial,
    }
}

fn sized(length: u64, received: &[u8]) -> Body<'_> {
    match u64::try_from(received.len()).unwrap_or(u64::MAX).cmp(&length) {
        std::cmp::Ordering::Less => Body::Partial,
        std::cmp::Ordering::Equal => Body::Whole(Cow::Borrowed(received)),
        std::cmp::Ordering::Greater => Body::Surplus,
    }
}

enum Unfinished {
    Partial,
    Surplus,
}

fn chunked(received: &[u8]) -> Result<Cow<'_, [u8]>, Unfinished> {
    let mut body: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut rest = received;
    loop {
        let (line, behind) = line(rest)?;
        let size = chunk_size(line).ok_or(Unfinished::Surplus)?;
        if size == 0 {
            rest = behind;
            break;
        }

        let size = usize::try_from(size).map_err(|_| Unfinished::Partial)?;
        let (data, behind) = behind.split_at_checked(size).ok_or(Unfinished::Partial)?;
        if body.is_empty() {
            body = Cow::Borrowed(data);
        } else {
            body.to_mut().extend_from_slice(data);
        }
        rest = after_crlf(behind)?;
    }

    // The trailer section: field lines up to the empty one.
    loop {
        let (line, behind) = line(rest)?;
        if line.is_empty() {
            return if behind.is_empty() { Ok(body) } else { Err(Unfinished::Surplus) };
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if name.len() == line.len() || !syntax::is_token(name) {
            return Err(Unfinished::Surplus);
        }
        rest = behind;
    }
}

/// The next line without its CRLF, and what is behind. A CR or LF elsewhere, or another byte that
/// no line holds, is nothing that more bytes could mend.
fn line(bytes: &[u8]) -> Result<(&[u8], &[u8]), Unfinished> {
    let end = bytes.iter().position(|byte| !syntax::is_value_byte(*byte));
    let end = end.ok_or(Unfinished::Partial)?;
    let (line, rest) = bytes.split_at_checked(end).ok_or(Unfinished::Partial)?;
    Ok((line, after_crlf(rest)?))
}

fn after_crlf(bytes: &[u8]) -> Result<&[u8], Unfinished> {
    match bytes {
        [b'\r', b'\n', rest @ ..] => Ok(rest),
        [b'\r'] | [] => Err(Unfinished::Partial),
        _ => Err(Unfinished::Surplus),
    }
}

/// `1*HEXDIG [ BWS ";" extensions ]`, up to 64 bits.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, extensions) = line.split_at_checked(digits)?;
    if !matches!(syntax::trim_ows(extensions), [] | [b';', ..]) {
        return None;
    }
    u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}
