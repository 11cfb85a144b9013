//! The head of an answer, as it came over the wire (RFC 9112, section 4).

use crate::syntax;

/// The value of the first line of this name, without white space around it.
///
/// `head` is all that was received before the body. Where interim answers (100, 103) precede the
/// final one, the final one counts. Lines may end with a bare LF, as nginx takes them.
pub fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut found = None;
    let mut is_over = false;
    let mut start = 0;
    // Redirects have long lines, and one of them is wanted.
    for end in memchr::memchr_iter(b'\n', head).chain([head.len()]) {
        let line = head.get(start..end).unwrap_or_default();
        start = end + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            is_over = true;
            continue;
        }
        if is_over {
            found = None;
            is_over = false;
        }
        if found.is_none() {
            found = value(line, name);
        }
    }
    found
}

fn value<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let rest = syntax::strip_prefix_any_case(line, name.as_bytes())?;
    rest.strip_prefix(b":").map(syntax::trim_ows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_name_is_found() {
        let rows = [
            ("plain", "HTTP/1.1 302 Found\r\nLocation: /a\r\n\r\n", Some("/a")),
            ("another case", "HTTP/1.1 302\r\nLOCATION:/a\r\n\r\n", Some("/a")),
            ("white space", "HTTP/1.1 302\r\nlocation: \t /a \t\r\n\r\n", Some("/a")),
            ("empty", "HTTP/1.1 302\r\nLocation:\r\n\r\n", Some("")),
            ("among others", "HTTP/1.1 302\r\nA: b\r\nLocation: /a\r\nC: d\r\n\r\n", Some("/a")),
            ("two", "HTTP/1.1 302\r\nLocation: /a\r\nLocation: /b\r\n\r\n", Some("/a")),
            ("bare line feeds", "HTTP/1.1 302\nLocation: /a\n\n", Some("/a")),
            ("spaces within", "HTTP/1.1 302\r\nLocation: /a b:c\r\n\r\n", Some("/a b:c")),
            ("none", "HTTP/1.1 302\r\nA: Location: /a\r\n\r\n", None),
            ("a longer name", "HTTP/1.1 302\r\nLocations: /a\r\nX-Location: /b\r\n\r\n", None),
            ("no colon", "HTTP/1.1 302\r\nLocation\r\n\r\n", None),
            ("space before the colon", "HTTP/1.1 302\r\nLocation : /a\r\n\r\n", None),
            (
                "behind an interim answer",
                "HTTP/1.1 103\r\nLocation: /a\r\n\r\nHTTP/1.1 302\r\nLocation: /b\r\n\r\n",
                Some("/b"),
            ),
            (
                "in an interim answer only",
                "HTTP/1.1 103\r\nLocation: /a\r\n\r\nHTTP/1.1 302\r\nA: b\r\n\r\n",
                None,
            ),
            ("nothing", "", None),
        ];

        for (name, head, want) in rows {
            assert_eq!(field(head.as_bytes(), "Location"), want.map(str::as_bytes), "{name}");
        }
    }
}
