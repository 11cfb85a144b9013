//! SHA-256, by which a registry's content is addressed (OCI image-spec, "Digests").

use std::hash::{DefaultHasher, Hash, Hasher};

use sha2::Digest as _;

use crate::syntax;

/// A SHA-256 of bytes that come piece by piece.
#[derive(Clone, Default)]
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was taken in.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// The digest of some content.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hash = Sha256::default();
        hash.update(bytes);
        hash.finish()
    }

    /// Reads `sha256:` and 64 lower-case hexadecimal digits. Other algorithms are none of ours:
    /// what they address can be passed on, and not be checked.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits = text.strip_prefix(b"sha256:")?;
        let is_lower = syntax::all(digits, |byte| !byte.is_ascii_uppercase());
        syntax::hex(digits).filter(|_| is_lower).map(Self)
    }

    /// The digest that these bytes are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Half of it. A key of something else is half of a SHA-256, too, so that this one is good only
    /// [together](Key::with) with a key that says what it is of.
    pub(crate) fn half(&self) -> Key {
        let mut words = self.0.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        Key([0; 2].map(|_| words.next().unwrap_or_default()))
    }

    /// The digest's own bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The name of something in shared memory.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Key(pub [u64; 2]);

impl Key {
    /// The key of what the parts, in this order, name: half of a SHA-256, so that nobody finds two
    /// things of one name, and that what it was made of cannot be read back from it. Where one part
    /// ends and the next begins makes a difference.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::default();
        for part in parts {
            hash.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(part);
        }
        hash.finish().half()
    }

    /// The same at a tenth of the price, for what the configuration names: strangers have no say
    /// in that, and it is no secret.
    pub fn of_configured(parts: &[&[u8]]) -> Self {
        let mut hash = DefaultHasher::new();
        parts.hash(&mut hash);
        let first = hash.finish();
        hash.write_u8(0);
        Self([first, hash.finish()])
    }

    /// The key of two things together, such as an owner at a backend. `other` is a key of another
    /// kind.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let (Self([a, b]), Self([c, d])) = (self, other);
        Self([a ^ c, b ^ d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's example.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn pieces_make_the_digest_of_the_whole() {
        let mut hash = Sha256::default();
        hash.update(b"a");
        hash.update(b"");
        hash.update(b"bc");

        let digest = hash.finish();

        assert_eq!(digest, Digest::of(b"abc"));
        assert_eq!(digest.to_string(), ABC);
    }

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        assert_eq!(Digest::parse(ABC.as_bytes()), Some(Digest::of(b"abc")));
    }

    #[test]
    fn what_is_no_sha256_is_no_digest() {
        let upper = ABC.to_uppercase();
        let rows = ["", "sha256:", "sha512:00", &ABC[..70], &format!("{ABC}0"), &upper];

        for text in rows {
            assert_eq!(Digest::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_key_tells_parts_apart() {
        for key in [Key::of, Key::of_configured] {
            assert_eq!(key(&[b"ab", b"c"]), key(&[b"ab", b"c"]));
            assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
            assert_ne!(key(&[b"ab"]), key(&[b"ab", b""]));
        }
        let (one, other) = (Key::of(&[b"a"]), Key::of_configured(&[b"b"]));
        assert_ne!(one.with(other), one);
        assert_ne!(one.with(other), other);
    }
}
