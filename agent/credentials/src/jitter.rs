//! A little chance, so that what happened at once does not happen at once again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// A random number from 0 (included) to 1 (excluded). Fit for spreading load, not for secrets.
pub(super) fn random() -> f64 {
    // Each `RandomState` has other keys than the one before.
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

/// A duration between `low` and `high` times `duration`.
pub(super) fn between(duration: Duration, low: f64, high: f64) -> Duration {
    duration.mul_f64(low + (high - low) * random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_spreads_within_its_bounds() {
        let all: Vec<f64> = (0..1000).map(|_| random()).collect();
        assert!(all.iter().all(|x| (0.0..1.0).contains(x)));
        let mean = all.iter().sum::<f64>() / 1000.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
        let second = Duration::from_secs(1);
        assert!((0..100).all(|_| {
            let jittered = between(second, 0.8, 1.0);
            jittered <= second && jittered >= second.mul_f64(0.8)
        }));
    }
}
