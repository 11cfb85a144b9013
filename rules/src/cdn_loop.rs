//! `CDN-Loop`: how mirrors that name each other notice it (RFC 8586).

use crate::syntax;

/// The name of this mirror: `docker-mirror-` and 16 hexadecimal digits, the same for the same
/// host name and nginx prefix.
pub fn id(hostname: &[u8], prefix: &[u8]) -> String {
    // FNV-1a, which needs to be stable and to differ between mirrors, not to resist anybody. The
    // zero byte, which is in neither, keeps "a" + "bc" and "ab" + "c" apart.
    let bytes = hostname.iter().chain(&[0]).chain(prefix);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("docker-mirror-{hash:016x}")
}

/// How often `id` is named by the `CDN-Loop` lines of a request.
///
/// Parameters behind a `;` are skipped. Quotes are not looked at: one that is never closed, in the
/// part of a client, would hide what mirrors add behind it. A comma in a quoted parameter can only
/// make the count too high, for the client that wrote it.
pub fn count<'a>(values: impl Iterator<Item = &'a [u8]>, id: &str) -> usize {
    values
        .flat_map(|value| value.split(|byte| *byte == b','))
        .filter_map(|element| element.split(|byte| *byte == b';').next())
        .filter(|name| syntax::trim_ows(name).eq_ignore_ascii_case(id.as_bytes()))
        .count()
}
