//! `Retry-After` (RFC 9110, section 10.2.3), and what servers make of it.

use std::time::UNIX_EPOCH;

use crate::syntax;

/// Nobody is asked again sooner, whatever the header says, in milliseconds.
pub const MIN: u64 = 1000;

/// A number of seconds that is no delay but a point in time: 2001, as the API of Docker Hub writes
/// it. As a delay it would be 31 years.
const UNIX_TIME: u64 = 1_000_000_000;

/// A number that counts milliseconds since 1970.
const UNIX_MILLISECONDS: u64 = 1000 * UNIX_TIME;

/// How long to wait, in milliseconds, as the lines of an answer say: `default` if none says so,
/// and never more than `max`, or less than [`MIN`].
///
/// `now` is in seconds since 1970. Of several lines the longest delay counts: to wait too long
/// costs a fallback, not to wait costs the limit.
pub fn delay<'a>(lines: impl Iterator<Item = &'a [u8]>, now: u64, default: u64, max: u64) -> u64 {
    let longest = lines.filter_map(|line| milliseconds(syntax::trim_ows(line), now)).max();
    longest.unwrap_or(default).max(MIN).min(max)
}

/// The delay that one value means; `None` if it means nothing.
fn milliseconds(value: &[u8], now: u64) -> Option<u64> {
    let value = str::from_utf8(value).ok()?;
    if let Some((seconds, fraction)) = number(value) {
        return Some(match seconds {
            UNIX_MILLISECONDS.. => seconds.saturating_sub(now.saturating_mul(1000)),
            UNIX_TIME.. => seconds.saturating_sub(now).saturating_mul(1000),
            _ => seconds * 1000 + fraction,
        });
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let date = date.duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(date.saturating_sub(now).saturating_mul(1000))
}

/// Digits, perhaps with a fraction: whole units, and thousandths.
fn number(text: &str) -> Option<(u64, u64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let thousandths = fraction.bytes().chain(*b"00").take(3);
    let thousandths = thousandths.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    // Digits that do not fit are a number that is greater than any.
    Some((whole.parse().unwrap_or(u64::MAX), thousandths))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: u64 = 30_000;
    const MAX: u64 = 3_600_000;
    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
    const NOW: u64 = 784_111_777;

    fn of(lines: &[&str]) -> u64 {
        delay(lines.iter().map(|line| line.as_bytes()), NOW, DEFAULT, MAX)
    }

    #[test]
    fn a_delay_is_read_in_every_form() {
        let rows = [
            ("seconds", "60", 60_000),
            ("white space", "\t60 ", 60_000),
            ("leading zeros", "0060", 60_000),
            ("fraction", "1.5", 1500),
            ("long fraction", "2.98765432109876543210", 2987),
            ("fraction of a second", "0.5", MIN),
            ("none", "0", MIN),
            ("IMF-fixdate", "Sun, 06 Nov 1994 08:50:37 GMT", 60_000),
            ("RFC 850", "Sunday, 06-Nov-94 08:50:37 GMT", 60_000),
            ("asctime", "Sun Nov  6 08:50:37 1994", 60_000),
            ("date that has passed", "Sun, 06 Nov 1994 08:49:30 GMT", MIN),
            ("date far away", "Sat, 06 Nov 2094 08:49:37 GMT", MAX),
            ("hour", "3600", MAX),
            ("longer than an hour", "3601", MAX),
            ("almost a point in time", "999999999", MAX),
            ("more than 64 bits", "99999999999999999999999", MAX),
            ("Unix time that is far away", "1746136938", MAX),
        ];

        for (name, value, want) in rows {
            assert_eq!(of(&[value]), want, "{name}");
        }
    }

    #[test]
    fn a_point_in_unix_time_is_one() {
        let now = 1_746_136_938;
        let rows = [
            ("in a minute", "1746136998", 60_000),
            ("with a fraction", "1746136998.25", 60_000),
            ("in milliseconds", "1746136998500", 60_500),
            ("passed", "1746136937", MIN),
            ("passed, in milliseconds", "1746136937000", MIN),
        ];

        for (name, value, want) in rows {
            assert_eq!(delay([value.as_bytes()].into_iter(), now, DEFAULT, MAX), want, "{name}");
        }
    }

    #[test]
    fn rubbish_is_no_delay() {
        let rows = [
            "",
            " ",
            "-1",
            "+60",
            "1e3",
            "60s",
            "60 s",
            "1m",
            "0x10",
            ".5",
            "5.",
            "1.2.3",
            "1,5",
            "60, 60",
            "soon",
            "880.092\u{b5}s",
            "\u{661}",
            "NaN",
            "inf",
            "Sun, 06 Nov 1994",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Thu, 01 Jan 1960 00:00:00 GMT",
            "\0",
        ];

        for value in rows {
            assert_eq!(of(&[value]), DEFAULT, "{value:?}");
        }
        assert_eq!(delay([b"\xff60".as_slice()].into_iter(), NOW, DEFAULT, MAX), DEFAULT);
    }

    #[test]
    fn the_longest_of_several_lines_counts() {
        let rows: [(&str, &[&str], u64); 4] = [
            ("no line", &[], DEFAULT),
            ("two", &["10", "20"], 20_000),
            ("rubbish beside one", &["10", "x", ""], 10_000),
            ("a date beside one", &["10", "Sun, 06 Nov 1994 08:49:57 GMT"], 20_000),
        ];

        for (name, lines, want) in rows {
            assert_eq!(of(lines), want, "{name}");
        }
        let none = std::iter::empty;
        assert_eq!(delay(none(), NOW, DEFAULT, 500), 500, "the maximum is one");
        assert_eq!(delay(none(), NOW, 0, MAX), MIN);
    }
}
