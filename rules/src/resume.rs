//! Which answer is the rest of a download that broke off, and who is asked for it (RFC 9110,
//! sections 13.1.5, 14.4 and 15.3.7).

use std::fmt;

use crate::syntax::{self, decimal};

/// What an answer says about its body.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Answer<'a> {
    status: u16,
    length: Option<u64>,
    range: Option<&'a [u8]>,
    etag: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
    is_ambiguous: bool,
}

impl<'a> Answer<'a> {
    /// Reads the answer's lines. `length` is its Content-Length in bytes.
    pub fn new(
        status: u16,
        length: Option<u64>,
        lines: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Self {
        let mut answer = Self { status, length, ..Self::default() };
        for (name, value) in lines {
            let field = if name.eq_ignore_ascii_case(b"Content-Range") {
                &mut answer.range
            } else if name.eq_ignore_ascii_case(b"ETag") {
                &mut answer.etag
            } else if name.eq_ignore_ascii_case(b"Content-Encoding") {
                &mut answer.coding
            } else {
                continue;
            };
            answer.is_ambiguous |= field.is_some();
            *field = Some(syntax::trim_ows(value));
        }
        answer
    }

    fn is_identity(&self) -> bool {
        self.coding.is_none_or(|coding| coding.eq_ignore_ascii_case(b"identity"))
    }

    fn strong_etag(&self) -> Option<&'a [u8]> {
        self.etag.filter(|etag| is_strong(etag))
    }
}

/// A `Content-Range` of bytes whose complete length is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ContentRange {
    /// Position of the first byte.
    pub first: u64,
    /// Position of the last byte, itself included.
    pub last: u64,
    /// Bytes of the whole.
    pub total: u64,
}

impl ContentRange {
    /// Reads `bytes first-last/total`. `None` for other units, for an unknown total, and for
    /// positions that cannot be.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = str::from_utf8(syntax::strip_prefix_any_case(value, b"bytes ")?).ok()?;
        let (positions, total) = value.split_once('/')?;
        let (first, last) = positions.split_once('-')?;
        let range = Self { first: decimal(first)?, last: decimal(last)?, total: decimal(total)? };
        (range.first <= range.last && range.last < range.total).then_some(range)
    }

    /// How many bytes it names.
    fn length(&self) -> u64 {
        // At most `total`, so that it cannot overflow.
        self.last - self.first + 1
    }
}

/// A strong `entity-tag` (RFC 9110, section 8.8.3).
fn is_strong(etag: &[u8]) -> bool {
    let opaque = etag.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    opaque.is_some_and(|opaque| {
        opaque.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..=0xff))
    })
}

/// The bytes that a client was promised.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Promise {
    range: ContentRange,
    etag: Option<Vec<u8>>,
    is_fixed: bool,
}

impl Promise {
    /// What an answer promises that goes to the client. `is_fixed`: it was asked for by a digest,
    /// which names one content for ever. Parts of anything else need a strong entity tag to be of one
    /// whole (RFC 9110, section 15.3.7.3).
    ///
    /// # Errors
    ///
    /// If its rest could not be told: it is neither a 200 nor a 206 with one range, it is encoded,
    /// or its length is not known, or nothing tells it from what comes by that name later.
    pub fn of(answer: &Answer<'_>, is_fixed: bool) -> Result<Self, Unfit> {
        if answer.is_ambiguous {
            return Err(Unfit::Ambiguous);
        }
        if !answer.is_identity() {
            return Err(Unfit::Encoded);
        }
        let length = answer.length.filter(|length| *length > 0);
        let range = match (answer.status, length) {
            (200 | 206, None) => return Err(Unfit::Length),
            (200, Some(length)) => ContentRange { first: 0, last: length - 1, total: length },
            (206, Some(length)) => {
                let range = answer.range.and_then(ContentRange::parse).ok_or(Unfit::Range)?;
                if range.length() != length {
                    return Err(Unfit::Length);
                }
                range
            }
            (status, _) => return Err(Unfit::Status(status)),
        };
        let etag = answer.strong_etag().map(<[u8]>::to_vec);
        if etag.is_none() && !is_fixed {
            return Err(Unfit::NoEtag);
        }
        Ok(Self { range, etag, is_fixed })
    }

    /// How many bytes it is.
    pub fn length(&self) -> u64 {
        self.range.length()
    }

    /// It is the same at every registry. An entity tag is of one alone (RFC 9110, section 8.8.3).
    pub fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    /// All bytes of the whole.
    pub fn is_whole(&self) -> bool {
        self.range.length() == self.range.total
    }

    /// The `Range` that asks for what comes behind the first `received` bytes; `None` if that is
    /// nothing.
    pub fn range(&self, received: u64) -> Option<String> {
        let first = self.rest(received)?.first;
        Some(if self.range.last + 1 == self.range.total {
            format!("bytes={first}-")
        } else {
            format!("bytes={first}-{}", self.range.last)
        })
    }

    /// The `If-Range`: a strong validator, if there is one.
    pub fn if_range(&self) -> Option<&[u8]> {
        self.etag.as_deref()
    }

    fn rest(&self, received: u64) -> Option<ContentRange> {
        let first = self.range.first.checked_add(received)?;
        (first <= self.range.last).then_some(ContentRange { first, ..self.range })
    }

    /// Whether `answer` is what comes behind the first `received` bytes, to the last, of the same
    /// whole.
    ///
    /// # Errors
    ///
    /// If it is not exactly that.
    pub fn accept(&self, received: u64, answer: &Answer<'_>) -> Result<(), Unfit> {
        if answer.status != 206 {
            return Err(Unfit::Status(answer.status));
        }
        if answer.is_ambiguous {
            return Err(Unfit::Ambiguous);
        }
        if !answer.is_identity() {
            return Err(Unfit::Encoded);
        }
        let rest = self.rest(received).ok_or(Unfit::Range)?;
        if answer.range.and_then(ContentRange::parse) != Some(rest) {
            return Err(Unfit::Range);
        }
        if answer.length.is_some_and(|length| length != rest.length()) {
            return Err(Unfit::Length);
        }
        match (self.if_range(), answer.strong_etag()) {
            (Some(first), Some(now)) if first != now => Err(Unfit::Etag),
            (Some(_), None) if !self.is_fixed => Err(Unfit::NoEtag),
            _ => Ok(()),
        }
    }
}

/// Why an answer cannot be resumed, or is not the rest of another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unfit {
    /// It has this status.
    Status(u16),
    /// It has two lines where one is allowed.
    Ambiguous,
    /// It has a content coding.
    Encoded,
    /// It has no `Content-Range`, or not the one that is wanted.
    Range,
    /// It has no `Content-Length`, or not the one that its range has.
    Length,
    /// It is of something else, by its strong entity tag.
    Etag,
    /// It has no strong entity tag, and may be of something else.
    NoEtag,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "answered {status}"),
            Self::Ambiguous => f.write_str("sent a header line twice"),
            Self::Encoded => f.write_str("sent an encoded answer"),
            Self::Range => f.write_str("sent another range"),
            Self::Length => f.write_str("sent another length"),
            Self::Etag => f.write_str("sent another entity tag"),
            Self::NoEtag => f.write_str("sent no strong entity tag"),
        }
    }
}

/// Whom to ask for the rest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// Who sent the bytes before it, by the same URL.
    Last,
    /// The primary, which may redirect anew: a signature may have expired.
    First,
    /// The fallback target of this number, the first of which is 1.
    Target(usize),
}

/// How an attempt at the rest ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// Bytes of the rest came, and then no more.
    Broken,
    /// None came.
    Refused,
    /// Who gives tokens out does not take the client's any more.
    Unauthorized,
}

/// Who is asked after an attempt by `way` has ended, of the primary and so many fallback targets.
/// There is always another way, but without a valid token.
pub fn next_way(way: Way, ended: Ended, targets: usize) -> Option<Way> {
    match (ended, way) {
        (Ended::Broken, _) => Some(Way::Last),
        (Ended::Unauthorized, _) => None,
        (Ended::Refused, Way::First) if targets > 0 => Some(Way::Target(1)),
        (Ended::Refused, Way::Target(number)) if number < targets => Some(Way::Target(number + 1)),
        (Ended::Refused, _) => Some(Way::First),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Lines = &'static [(&'static str, &'static str)];

    const WHOLE: Lines = &[("ETag", "\"a\"")];

    fn answer<'a>(status: u16, length: u64, lines: &'a [(&'a str, &'a str)]) -> Answer<'a> {
        let lines = lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Answer::new(status, Some(length), lines)
    }

    fn whole() -> Promise {
        Promise::of(&answer(200, 100, WHOLE), true).unwrap()
    }

    fn part() -> Promise {
        Promise::of(&answer(206, 50, &[("Content-Range", "bytes 10-59/100")]), true).unwrap()
    }

    #[test]
    fn a_content_range_is_read() {
        let rows = [
            ("bytes 0-0/1", (0, 0, 1)),
            ("bytes 10-59/100", (10, 59, 100)),
            ("BYTES 10-99/100", (10, 99, 100)),
            ("bytes 0-18446744073709551614/18446744073709551615", (0, u64::MAX - 1, u64::MAX)),
        ];

        for (value, (first, last, total)) in rows {
            let want = ContentRange { first, last, total };
            assert_eq!(ContentRange::parse(value.as_bytes()), Some(want), "{value}");
        }
    }

    #[test]
    fn what_is_no_content_range_of_known_bytes_is_refused() {
        let rows = [
            ("nothing", ""),
            ("no unit", "0-1/2"),
            ("another unit", "lines 0-1/2"),
            ("no space", "bytes=0-1/2"),
            ("two spaces", "bytes  0-1/2"),
            ("unsatisfied", "bytes */2"),
            ("unknown total", "bytes 0-1/*"),
            ("no total", "bytes 0-1"),
            ("no last", "bytes 0-/2"),
            ("no first", "bytes -1/2"),
            ("turned round", "bytes 1-0/2"),
            ("beyond the total", "bytes 0-2/2"),
            ("sign", "bytes +0-1/2"),
            ("negative", "bytes 0--1/2"),
            ("fraction", "bytes 0-1.0/2"),
            ("more behind", "bytes 0-1/2, bytes 0-1/2"),
            ("space behind", "bytes 0-1/2 "),
            ("hexadecimal", "bytes 0-a/20"),
            ("65 bits", "bytes 0-1/18446744073709551616"),
            ("other digits", "bytes 0-1/\u{0662}"),
        ];

        for (name, value) in rows {
            assert_eq!(ContentRange::parse(value.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn strong_entity_tags_are_told_from_others() {
        let rows = [
            ("\"a\"", true),
            ("\"\"", true),
            ("\"sha256:00\"", true),
            ("\"\u{e4}\"", true),
            ("W/\"a\"", false),
            ("w/\"a\"", false),
            ("a", false),
            ("\"", false),
            ("\"a", false),
            ("\"a\"b\"", false),
            ("\"a b\"", false),
            ("\"a\", \"b\"", false),
            ("\"\u{7f}\"", false),
        ];

        for (etag, want) in rows {
            assert_eq!(is_strong(etag.as_bytes()), want, "{etag}");
        }
    }

    #[test]
    fn a_whole_answer_and_a_part_promise_their_bytes() {
        let whole = whole();
        assert_eq!((whole.length(), whole.is_whole()), (100, true));
        assert_eq!(whole.if_range(), Some(b"\"a\"".as_slice()));

        let part = part();
        assert_eq!((part.length(), part.is_whole(), part.if_range()), (50, false, None));

        let all = answer(206, 100, &[("content-range", "bytes 0-99/100"), ("Etag", "W/\"a\"")]);
        let all = Promise::of(&all, true).unwrap();
        assert_eq!((all.length(), all.is_whole(), all.if_range()), (100, true, None));
    }

    #[test]
    fn answers_whose_rest_could_not_be_told_promise_nothing() {
        let rows: [(&str, u16, Option<u64>, Lines, Unfit); 11] = [
            ("no length", 200, None, &[], Unfit::Length),
            ("empty", 200, Some(0), &[], Unfit::Length),
            ("encoded", 200, Some(9), &[("Content-Encoding", "gzip")], Unfit::Encoded),
            ("two tags", 200, Some(9), &[("ETag", "\"a\""), ("ETag", "\"a\"")], Unfit::Ambiguous),
            ("no range", 206, Some(9), &[], Unfit::Range),
            ("unknown total", 206, Some(9), &[("Content-Range", "bytes 0-8/*")], Unfit::Range),
            ("range of no length", 206, None, &[("Content-Range", "bytes 0-8/9")], Unfit::Length),
            ("another length", 206, Some(8), &[("Content-Range", "bytes 0-8/9")], Unfit::Length),
            ("redirect", 307, Some(9), &[], Unfit::Status(307)),
            ("not found", 404, Some(9), &[], Unfit::Status(404)),
            ("no status", 0, Some(9), &[], Unfit::Status(0)),
        ];

        for (name, status, length, lines, want) in rows {
            let lines = lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            let answer = Answer::new(status, length, lines);
            assert_eq!(Promise::of(&answer, true), Err(want), "{name}");
        }
    }

    #[test]
    fn the_rest_is_asked_for_from_the_next_byte_on() {
        let rows = [
            ("whole, nothing received", whole(), 0, Some("bytes=0-")),
            ("whole", whole(), 40, Some("bytes=40-")),
            ("whole, one byte left", whole(), 99, Some("bytes=99-")),
            ("whole, all received", whole(), 100, None),
            ("whole, more received", whole(), u64::MAX, None),
            ("part, nothing received", part(), 0, Some("bytes=10-59")),
            ("part", part(), 40, Some("bytes=50-59")),
            ("part, all received", part(), 50, None),
            ("part, more received", part(), u64::MAX, None),
        ];

        for (name, promise, received, want) in rows {
            assert_eq!(promise.range(received).as_deref(), want, "{name}");
        }
    }

    #[test]
    fn only_the_exact_rest_is_accepted() {
        const RANGE: (&str, &str) = ("Content-Range", "bytes 40-99/100");
        let rows: [(&str, u16, u64, Lines, Option<Unfit>); 20] = [
            ("the rest", 206, 60, &[RANGE, ("ETag", "\"a\"")], None),
            ("without a tag", 206, 60, &[RANGE], None),
            ("with a weak tag", 206, 60, &[RANGE, ("ETag", "W/\"b\"")], None),
            ("coded as identity", 206, 60, &[RANGE, ("Content-Encoding", "Identity")], None),
            ("another tag", 206, 60, &[RANGE, ("ETag", "\"b\"")], Some(Unfit::Etag)),
            ("the whole", 200, 100, WHOLE, Some(Unfit::Status(200))),
            ("the whole with a range", 200, 60, &[RANGE], Some(Unfit::Status(200))),
            ("unsatisfied", 416, 0, &[], Some(Unfit::Status(416))),
            ("no range", 206, 60, &[], Some(Unfit::Range)),
            ("too early", 206, 61, &[("Content-Range", "bytes 39-99/100")], Some(Unfit::Range)),
            ("too late", 206, 59, &[("Content-Range", "bytes 41-99/100")], Some(Unfit::Range)),
            ("too short", 206, 59, &[("Content-Range", "bytes 40-98/100")], Some(Unfit::Range)),
            ("too long", 206, 61, &[("Content-Range", "bytes 40-100/101")], Some(Unfit::Range)),
            ("another total", 206, 60, &[("Content-Range", "bytes 40-99/101")], Some(Unfit::Range)),
            ("unknown total", 206, 60, &[("Content-Range", "bytes 40-99/*")], Some(Unfit::Range)),
            ("another length", 206, 61, &[RANGE], Some(Unfit::Length)),
            ("no length at all", 206, 0, &[RANGE], Some(Unfit::Length)),
            ("encoded", 206, 60, &[RANGE, ("Content-Encoding", "gzip")], Some(Unfit::Encoded)),
            ("range twice", 206, 60, &[RANGE, RANGE], Some(Unfit::Ambiguous)),
            (
                "identity and gzip",
                206,
                60,
                &[RANGE, ("Content-Encoding", "identity"), ("Content-Encoding", "gzip")],
                Some(Unfit::Ambiguous),
            ),
        ];

        for (name, status, length, lines, want) in rows {
            assert_eq!(whole().accept(40, &answer(status, length, lines)).err(), want, "{name}");
        }
        let lines = [RANGE];
        let chunked = Answer { length: None, ..answer(206, 0, &lines) };
        assert_eq!(whole().accept(40, &chunked), Ok(()));
    }

    #[test]
    fn what_may_change_needs_a_strong_entity_tag_in_both() {
        const RANGE: (&str, &str) = ("Content-Range", "bytes 40-99/100");
        for (name, lines) in [("none", &[][..]), ("a weak one", &[("ETag", "W/\"a\"")])] {
            let promised = Promise::of(&answer(200, 100, lines), false);
            assert_eq!(promised, Err(Unfit::NoEtag), "{name}");
        }
        let promise = Promise::of(&answer(200, 100, WHOLE), false).unwrap();
        let rows: [(&str, Lines, Option<Unfit>); 4] = [
            ("the same", &[RANGE, ("ETag", "\"a\"")], None),
            ("another", &[RANGE, ("ETag", "\"b\"")], Some(Unfit::Etag)),
            ("a weak one", &[RANGE, ("ETag", "W/\"a\"")], Some(Unfit::NoEtag)),
            ("none", &[RANGE], Some(Unfit::NoEtag)),
        ];
        for (name, lines, want) in rows {
            assert_eq!(promise.accept(40, &answer(206, 60, lines)).err(), want, "{name}");
        }
    }

    #[test]
    fn the_rest_of_a_part_ends_where_the_part_does() {
        let rest = [("Content-Range", "bytes 50-59/100")];
        assert_eq!(part().accept(40, &answer(206, 10, &rest)), Ok(()));
        let more = [("Content-Range", "bytes 50-99/100")];
        assert_eq!(part().accept(40, &answer(206, 50, &more)), Err(Unfit::Range));
        assert_eq!(part().accept(50, &answer(206, 10, &rest)), Err(Unfit::Range));
    }

    #[test]
    fn the_same_url_is_asked_first_then_the_primary_then_the_fallbacks() {
        use Ended::{Broken, Refused, Unauthorized};
        use Way::{First, Last, Target};
        let rows = [
            ("some more came", Last, Broken, 0, Some(Last)),
            ("some more came from a fallback", Target(2), Broken, 2, Some(Last)),
            ("expired signature", Last, Refused, 2, Some(First)),
            ("primary down", First, Refused, 2, Some(Target(1))),
            ("fallback down", Target(1), Refused, 2, Some(Target(2))),
            ("all down", Target(2), Refused, 2, Some(First)),
            ("no fallback", First, Refused, 0, Some(First)),
            ("expired token", First, Unauthorized, 2, None),
            ("expired token, direct", Last, Unauthorized, 2, None),
        ];

        for (name, way, ended, targets, want) in rows {
            assert_eq!(next_way(way, ended, targets), want, "{name}");
        }
    }
}
