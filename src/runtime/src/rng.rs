//! The one source of randomness: a tree of generators grown from one seed. Each kind and owner has a child of its
//! own, so that one more pod does not rename every node, and two runs with one seed print the same bytes.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// A node of the tree. Children depend on the path only, never on how much was drawn elsewhere.
#[derive(Clone, Debug)]
pub struct RngTree {
    path_hash: u64,
}

impl RngTree {
    /// The root for `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            path_hash: mix(0x9e37_79b9_7f4a_7c15, seed),
        }
    }

    /// A child by kind and owner, such as `("nodeclaim-names", "default")`.
    #[must_use]
    pub fn child(&self, kind: &str, owner: &str) -> Self {
        let mut h = self.path_hash;
        for part in [kind, owner] {
            for byte in part.bytes() {
                h = mix(h, u64::from(byte));
            }
            h = mix(h, 0x1_0000);
        }
        Self { path_hash: h }
    }

    /// A generator starting at this node.
    #[must_use]
    pub fn rng(&self) -> Rng {
        Rng {
            inner: ChaCha8Rng::seed_from_u64(self.path_hash),
        }
    }
}

/// A generator; owned by exactly one user.
#[derive(Clone, Debug)]
pub struct Rng {
    inner: ChaCha8Rng,
}

impl Rng {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.inner.next_u64()
    }
    /// Uniform in `0..n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // Multiply-shift: its bias is under 2⁻⁶⁴·n, far below anything a simulation could show.
        u64::try_from((u128::from(self.next_u64()) * u128::from(n)) >> 64).unwrap_or(0)
    }
    /// Uniform in `0.0..1.0`.
    #[allow(clippy::cast_precision_loss)]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
    /// `true` with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }
    /// `len` characters of Kubernetes' name alphabet, as `generateName` appends.
    pub fn suffix(&mut self, len: usize) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..len)
            .map(|_| {
                let i = usize::try_from(self.below(ALPHABET.len() as u64)).unwrap_or(0);
                ALPHABET.get(i).map_or('x', |b| char::from(*b))
            })
            .collect()
    }
    /// A version-4 UUID.
    pub fn uuid(&mut self) -> String {
        let (a, b) = (self.next_u64(), self.next_u64());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            0x8000 | ((b >> 48) & 0x3fff),
            b & 0xffff_ffff_ffff
        )
    }
}

fn mix(h: u64, v: u64) -> u64 {
    // splitmix64's finalizer over a running state: small, well spread, no secrets to keep.
    let mut z = h.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ v.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
