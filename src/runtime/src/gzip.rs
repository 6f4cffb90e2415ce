//! Gzip on the way in: told by its first bytes, whole or refused, and never more than a limit once decompressed.

use std::borrow::Cow;
use std::io::Read as _;

use flate2::read::MultiGzDecoder;

/// Most bytes that an input may have once decompressed: far above any real dump, far below what a machine cannot hold.
pub const MAX_UNPACKED_BYTES: u64 = 2 << 30;

/// The first bytes of every gzip stream.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why bytes cannot be decompressed.
#[derive(Debug, thiserror::Error)]
pub enum GzipError {
    /// The stream is broken.
    #[error("{file}: expected a whole gzip stream, but it is broken or cut off: {source}")]
    Broken {
        /// File.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// There is too much in it.
    #[error("{file}: expected at most {limit} bytes once decompressed, but there are more")]
    TooLarge {
        /// File.
        file: String,
        /// Limit.
        limit: u64,
    },
}

/// The content of `bytes`: decompressed if they are gzip, else as they are. `file` is for the error.
///
/// # Errors
/// When the stream is broken or cut off, or holds more than [`MAX_UNPACKED_BYTES`].
pub fn unpack<'a>(bytes: &'a [u8], file: &str) -> Result<Cow<'a, [u8]>, GzipError> {
    unpack_within(bytes, file, MAX_UNPACKED_BYTES)
}

fn unpack_within<'a>(bytes: &'a [u8], file: &str, limit: u64) -> Result<Cow<'a, [u8]>, GzipError> {
    if !bytes.starts_with(&MAGIC) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut out = Vec::new();
    // One more than may be, to tell a full house from an overfull one.
    let read = MultiGzDecoder::new(bytes)
        .take(limit.saturating_add(1))
        .read_to_end(&mut out)
        .map_err(|source| GzipError::Broken {
            file: file.to_owned(),
            source,
        })?;
    if u64::try_from(read).unwrap_or(u64::MAX) > limit {
        return Err(GzipError::TooLarge {
            file: file.to_owned(),
            limit,
        });
    }
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_bytes_stay_and_packed_ones_come_out_whole() {
        assert_eq!(&*unpack(b"kind: Pod", "f").unwrap(), b"kind: Pod");
        assert_eq!(&*unpack(b"", "f").unwrap(), b"");
        let two = [packed(b"one"), packed(b"two")].concat();
        assert_eq!(&*unpack(&two, "f").unwrap(), b"onetwo");
    }

    #[test]
    fn a_stream_that_is_cut_off_anywhere_is_named_and_never_half_read() {
        let whole = packed(b"kind: Pod\n".repeat(100).as_slice());
        for length in MAGIC.len()..whole.len() {
            let error = unpack(&whole[..length], "pods.yaml.gz").unwrap_err();
            let said = error.to_string();
            assert!(
                said.starts_with("pods.yaml.gz: expected a whole gzip stream"),
                "cut at {length}: {said}"
            );
        }
    }

    #[test]
    fn more_than_the_limit_is_refused_before_it_is_held() {
        let bomb = packed(&vec![0; 1 << 20]);
        assert!(bomb.len() < 1 << 12);
        let error = unpack_within(&bomb, "bomb.gz", 1000).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bomb.gz: expected at most 1000 bytes once decompressed, but there are more"
        );
        assert_eq!(unpack_within(&bomb, "f", 1 << 20).unwrap().len(), 1 << 20);
        assert!(unpack_within(&bomb, "f", (1 << 20) - 1).is_err());
    }
}
