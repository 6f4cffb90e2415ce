//! One time series: a number, a histogram or a summary.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::table::{Kind, Row};

/// How long an observation counts towards a summary's quantiles (the Go client's default).
const SUMMARY_MAX_AGE: Duration = Duration::from_secs(600);

/// Observations a summary keeps for its quantiles; older ones count in sum and count only.
const SUMMARY_MAX_SAMPLES: usize = 4096;

/// Quantiles every summary shows (`operations.md` §3).
pub(super) const QUANTILES: [f64; 5] = [0.0, 0.5, 0.9, 0.99, 1.0];

pub(super) enum Series {
    Counter(f64),
    Gauge(f64),
    Histogram {
        bounds: &'static [f64],
        /// Observations at or below the bound of the same position and above the one before.
        counts: Vec<u64>,
        sum: f64,
        count: u64,
    },
    Summary {
        recent: VecDeque<(Instant, f64)>,
        sum: f64,
        count: u64,
    },
}

impl Series {
    pub(super) fn new(row: &Row) -> Self {
        match row.kind {
            Kind::Counter => Self::Counter(0.0),
            Kind::Gauge => Self::Gauge(0.0),
            Kind::Histogram(bounds) => Self::Histogram {
                bounds,
                counts: vec![0; bounds.len()],
                sum: 0.0,
                count: 0,
            },
            Kind::Summary => Self::Summary {
                recent: VecDeque::new(),
                sum: 0.0,
                count: 0,
            },
        }
    }

    /// False if this is not a counter.
    pub(super) fn add(&mut self, by: f64) -> bool {
        let Self::Counter(value) = self else {
            return false;
        };
        *value += by;
        true
    }

    /// False if this is not a gauge.
    pub(super) fn set(&mut self, to: f64) -> bool {
        let Self::Gauge(value) = self else {
            return false;
        };
        *value = to;
        true
    }

    /// False if this is neither a histogram nor a summary.
    pub(super) fn observe(&mut self, value: f64) -> bool {
        match self {
            Self::Counter(_) | Self::Gauge(_) => return false,
            Self::Histogram {
                bounds,
                counts,
                sum,
                count,
            } => {
                let bucket = bounds.iter().position(|bound| value <= *bound);
                if let Some(held) = bucket.and_then(|i| counts.get_mut(i)) {
                    *held += 1;
                }
                *sum += value;
                *count += 1;
            }
            Self::Summary { recent, sum, count } => {
                recent.push_back((Instant::now(), value));
                if recent.len() > SUMMARY_MAX_SAMPLES {
                    recent.pop_front();
                }
                *sum += value;
                *count += 1;
            }
        }
        true
    }

    /// A counter's or gauge's value; the number of observations of the others.
    #[allow(clippy::cast_precision_loss)] // Exact up to 2⁵³ observations.
    pub(super) fn scalar(&self) -> f64 {
        match self {
            Self::Counter(value) | Self::Gauge(value) => *value,
            Self::Histogram { count, .. } | Self::Summary { count, .. } => *count as f64,
        }
    }
}

/// The values at [`QUANTILES`] of what was observed lately; not a number when that is nothing.
pub(super) fn quantiles(recent: &VecDeque<(Instant, f64)>) -> [f64; QUANTILES.len()] {
    let now = Instant::now();
    let mut values: Vec<f64> = recent
        .iter()
        .filter(|(at, _)| now.saturating_duration_since(*at) <= SUMMARY_MAX_AGE)
        .map(|(_, value)| *value)
        .collect();
    values.sort_by(f64::total_cmp);
    QUANTILES.map(|q| {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        // In 0..=len, as q is in 0..=1 and len is at most SUMMARY_MAX_SAMPLES.
        let rank = (q * values.len() as f64).ceil() as usize;
        values
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(f64::NAN)
    })
}
