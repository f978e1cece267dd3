//! The rule that AWS's agent follows: a token is exchanged when it is shown first, and again every
//! three hours until it expires, also when its pod is gone.

use std::{ops::Range, time::Duration};

use crate::HOUR;

/// How often it renews.
const EVERY: Duration = HOUR.saturating_mul(3);

/// The calls within `window` for a token that was shown first at `shown` and expires at `expires`.
pub fn calls(shown: Duration, expires: Duration, window: &Range<Duration>) -> usize {
    let all = (0..).map(|renewal| shown + EVERY * renewal);
    let all = all.take_while(|at| *at < expires);
    all.filter(|at| window.contains(at)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_a_day_costs_eight_calls_whatever_becomes_of_its_pod() {
        let day = Duration::ZERO..HOUR * 48;
        assert_eq!(calls(Duration::ZERO, HOUR * 24, &day), 8);
        assert_eq!(calls(HOUR, HOUR * 24, &day), 8);
        assert_eq!(calls(HOUR * 4, HOUR * 24, &day), 7);
    }

    #[test]
    fn only_what_is_within_the_window_counts() {
        assert_eq!(calls(Duration::ZERO, HOUR * 24, &(HOUR * 24..HOUR * 48)), 0);
        assert_eq!(calls(HOUR * 20, HOUR * 44, &(HOUR * 24..HOUR * 48)), 6);
    }
}
