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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_stable_and_differs_by_host_and_prefix() {
        // FNV-1a of "mirror\0/etc/nginx", by another implementation.
        assert_eq!(id(b"mirror", b"/etc/nginx"), "docker-mirror-6a759c2447b0f278");
        assert_eq!(id(b"a", b"/etc/nginx"), id(b"a", b"/etc/nginx"));

        let ids = [
            ("host", id(b"b", b"/etc/nginx")),
            ("prefix", id(b"a", b"/opt/nginx")),
            ("border between both", id(b"a/", b"etc/nginx")),
        ];
        for (name, other) in ids {
            assert_ne!(id(b"a", b"/etc/nginx"), other, "{name}");
            assert!(syntax::is_token(other.as_bytes()), "{name} is a pseudonym");
        }
    }

    #[test]
    fn the_id_is_counted_in_every_line_and_element() {
        let rows: [(&str, &[&str], usize); 13] = [
            ("no line", &[], 0),
            ("empty line", &[""], 0),
            ("alone", &["me"], 1),
            ("among others", &["a, me ,b"], 1),
            ("several times", &["me,me", "a", "me"], 3),
            ("empty elements", &[",,me,,"], 1),
            ("parameters", &["me; v=1;x=\"y\""], 1),
            ("parameters of others", &["a;me, b;x=me"], 0),
            ("another case", &["ME"], 1),
            ("part of a name", &["mee, xme, me.example"], 0),
            ("with a port", &["me:80"], 0),
            ("behind a quote that stays open", &["a;x=\", me"], 1),
            ("tabs", &["\tme\t"], 1),
        ];

        for (name, values, want) in rows {
            let values = values.iter().map(|value| value.as_bytes());
            assert_eq!(count(values, "me"), want, "{name}");
        }
    }
}
