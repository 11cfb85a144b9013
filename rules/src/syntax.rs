//! Byte classes of HTTP, and numbers, that more than one parser needs.

/// A `tchar` (RFC 9110, section 5.6.2).
pub(crate) fn is_tchar(byte: u8) -> bool {
    matches!(
        byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.'
            | b'^'..=b'`' | b'|' | b'~'
    )
}

/// A `token` (RFC 9110, section 5.6.2).
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_tchar)
}

/// A byte that may stand in a field value: `VCHAR`, `obs-text`, SP or HTAB (RFC 9110, section 5.5).
pub(crate) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

/// Whether all bytes are so. It stops at none, so that the compiler tests many at once: on the way
/// of every request, that is most of what a parser costs.
pub(crate) fn all(bytes: &[u8], is: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |all, byte| all & is(*byte))
}

/// Optional white space (RFC 9110, section 5.6.3).
pub(crate) fn is_ows(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// `bytes` without the optional white space around it.
pub(crate) fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_ows(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_ows(*last)
    {
        bytes = rest;
    }
    bytes
}

/// The media type in a `Content-Type`, without its parameters (RFC 9110, section 8.3.1).
pub(crate) fn media_type(content_type: &[u8]) -> &[u8] {
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    trim_ows(content_type.get(..end).unwrap_or_default())
}

/// Whether a `Content-Type` names this media type, whatever its parameters. The name is compared
/// first: most are of another.
pub(crate) fn is_media_type(content_type: &[u8], name: &[u8]) -> bool {
    strip_prefix_any_case(trim_ows(content_type), name)
        .is_some_and(|rest| matches!(trim_ows(rest).first(), None | Some(b';')))
}

/// `bytes` behind `prefix`, which may be written in any case.
pub(crate) fn strip_prefix_any_case<'a>(bytes: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Decimal digits, without a sign.
pub(crate) fn decimal(digits: &str) -> Option<u64> {
    let valid = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| valid)
}

/// The value of a hexadecimal digit, in any case.
pub(crate) fn hex_digit(digit: u8) -> Option<u8> {
    let decimal = digit.wrapping_sub(b'0');
    let letter = (digit | 0x20).wrapping_sub(b'a');
    match (decimal, letter) {
        (0..=9, _) => Some(decimal),
        (_, 0..=5) => Some(letter + 10),
        _ => None,
    }
}

/// Exactly `N` bytes, each written as two hexadecimal digits.
pub(crate) fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let pairs: &[[u8; 2]; N] = pairs.try_into().ok()?;
    // None stops it, as in `all`.
    let mut is_hex = true;
    let bytes = pairs.map(|[high, low]| {
        let [high, low] = [high, low].map(hex_digit);
        is_hex &= high.is_some() & low.is_some();
        high.unwrap_or(0) << 4 | low.unwrap_or(0)
    });
    is_hex.then_some(bytes)
}
