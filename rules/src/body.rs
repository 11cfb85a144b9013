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

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(body: &[u8]) -> Body<'_> {
        Body::Whole(Cow::Borrowed(body))
    }

    #[test]
    fn a_body_of_known_length_is_whole_at_its_last_byte() {
        let rows = [
            ("HEAD", Framing::None, "", whole(b"")),
            ("HEAD with a body", Framing::None, "x", Body::Surplus),
            ("empty", Framing::Length(0), "", whole(b"")),
            ("nothing yet", Framing::Length(3), "", Body::Partial),
            ("one byte less", Framing::Length(3), "ab", Body::Partial),
            ("whole", Framing::Length(3), "abc", whole(b"abc")),
            ("one byte more", Framing::Length(3), "abcd", Body::Surplus),
            ("longest", Framing::Length(u64::MAX), "abc", Body::Partial),
            ("until the connection closes", Framing::Close, "abc", Body::Partial),
            ("nothing until the connection closes", Framing::Close, "", Body::Partial),
        ];

        for (name, framing, received, want) in rows {
            assert_eq!(read(framing, received.as_bytes()), want, "{name}");
        }
    }

    #[test]
    fn a_chunked_body_is_decoded() {
        let rows = [
            ("empty", "0\r\n\r\n", ""),
            ("one chunk", "3\r\nabc\r\n0\r\n\r\n", "abc"),
            ("several chunks", "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "abc"),
            ("CRLF in a chunk", "4\r\n\r\n0\r\r\n0\r\n\r\n", "\r\n0\r"),
            (
                "hexadecimal in both cases",
                "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
                "01234567890123456789",
            ),
            ("zeros before", "0003\r\nabc\r\n000\r\n\r\n", "abc"),
            ("extensions", "3;a=b;c=\"d;\"\r\nabc\r\n0 ;e\r\n\r\n", "abc"),
            ("space behind the size", "3 \t\r\nabc\r\n0\r\n\r\n", "abc"),
            ("trailer", "0\r\nA: b\r\nC:\r\n\r\n", ""),
        ];

        for (name, received, want) in rows {
            let received = received.as_bytes();
            assert_eq!(read(Framing::Chunked, received), whole(want.as_bytes()), "{name}");

            for end in 0..received.len() {
                let got = read(Framing::Chunked, &received[..end]);
                assert_eq!(got, Body::Partial, "{name}, {end} bytes of it");
            }
            let more = [received, b"H"].concat();
            assert_eq!(read(Framing::Chunked, &more), Body::Surplus, "{name}, one byte more");
        }
    }

    #[test]
    fn what_is_not_chunked_is_surplus() {
        let rows = [
            ("no size", "\r\n"),
            ("no number", "x\r\n"),
            ("sign", "+3\r\nabc\r\n0\r\n\r\n"),
            ("prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
            ("space before", " 3\r\nabc\r\n0\r\n\r\n"),
            ("text behind the size", "3 4\r\nabc\r\n0\r\n\r\n"),
            ("65 bits", "10000000000000000\r\n"),
            ("many digits", "fffffffffffffffffffffffffffffffff\r\n"),
            ("bare line feed", "3\nabc\n0\n\n"),
            ("bare carriage return", "3\rabc"),
            ("NUL in an extension", "3;\0\r\n"),
            ("chunk longer than its size", "3\r\nabcd\r\n0\r\n\r\n"),
            ("chunk shorter than its size", "3\r\nab\r\n0\r\n\r\n"),
            ("trailer without colon", "0\r\nA\r\n\r\n"),
            ("trailer without name", "0\r\n: a\r\n\r\n"),
            ("folded trailer", "0\r\nA: b\r\n c: d\r\n\r\n"),
            ("bare line feed in a trailer", "0\r\nA: b\n\r\n"),
            ("next answer", "0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        ];

        for (name, received) in rows {
            assert_eq!(read(Framing::Chunked, received.as_bytes()), Body::Surplus, "{name}");
        }
    }

    #[test]
    fn a_size_beyond_all_memory_is_waited_for() {
        for size in ["7fffffffffffffff", "ffffffffffffffff", "fffffffffffffffe"] {
            let received = format!("{size}\r\nabc\r\n0\r\n\r\n");
            assert_eq!(read(Framing::Chunked, received.as_bytes()), Body::Partial, "{size}");
        }
    }

    #[test]
    fn a_single_chunk_is_not_copied() {
        let Body::Whole(body) = read(Framing::Chunked, b"3\r\nabc\r\n0\r\n\r\n") else {
            panic!("not whole");
        };
        assert!(matches!(body, Cow::Borrowed(b"abc")));
    }
}
