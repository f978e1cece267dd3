//! What the cache counts.

use std::{
    fmt::{self, Debug},
    sync::{Arc, Weak},
    time::Duration,
};

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{Cache, official::CacheState};

/// Seconds: one minute, ten minutes, then the ages at which 59-minute and 6-hour credentials are
/// renewed and grow stale.
const AGES: [f64; 7] = [60.0, 600.0, 2400.0, 3540.0, 10800.0, 18000.0, 21600.0];

/// What the cache did for a request. Each request counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheResult {
    /// It was answered from memory.
    Hit,
    /// It got credentials near their end, because there were none newer.
    Stale,
    /// It waited for an exchange of its own.
    Miss,
    /// It waited for an exchange that others waited for.
    Joined,
    /// It was refused from memory.
    Refused,
    /// It found no room to wait.
    Overloaded,
}

impl CacheResult {
    const ALL: [Self; 6] = [
        Self::Hit,
        Self::Stale,
        Self::Miss,
        Self::Joined,
        Self::Refused,
        Self::Overloaded,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Joined => "joined",
            Self::Refused => "refused",
            Self::Overloaded => "overloaded",
        }
    }
}

/// Counters and gauges of the cache. Clones are the same ones.
#[derive(Clone)]
pub struct Metrics {
    served: [IntCounter; CacheResult::ALL.len()],
    /// Age of credentials when they were served from memory, in seconds.
    hit_age: Histogram,
    /// Subjects with credentials in memory.
    pub(crate) entries: IntGauge,
    /// Bytes that these take.
    pub(crate) bytes: IntGauge,
    /// Entries that made room for others.
    pub(crate) evictions: IntCounter,
    /// Refused tokens that are remembered.
    pub(crate) refusals: IntGauge,
}

impl Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Makes the metrics known to `registry`.
    ///
    /// # Errors
    ///
    /// When one of the names is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| add(registry, IntGauge::new(name, help)?);
        let requests = Opts::new(
            "podcreds_cache_requests_total",
            "Requests for credentials, by what the cache did for them",
        );
        let requests = add(registry, IntCounterVec::new(requests, &["result"])?)?;
        let ages = HistogramOpts::new(
            "podcreds_cache_hit_age_seconds",
            "Age of credentials that were served from memory",
        );
        let metrics = Self {
            served: CacheResult::ALL.map(|served| requests.with_label_values(&[served.label()])),
            hit_age: add(registry, Histogram::with_opts(ages.buckets(AGES.to_vec()))?)?,
            entries: gauge("podcreds_cache_entries", "Pods with credentials in memory")?,
            bytes: gauge("podcreds_cache_bytes", "Memory that credentials take")?,
            evictions: add(
                registry,
                IntCounter::new(
                    "podcreds_cache_evictions_total",
                    "Credentials that made room for those of other pods",
                )?,
            )?,
            refusals: gauge(
                "podcreds_refusals_remembered",
                "Tokens that are refused from memory for a few seconds",
            )?,
        };
        registry.register(Box::new(CacheState::new(metrics.clone())?))?;
        Ok(metrics)
    }

    /// Notes how a request was served.
    pub fn count(&self, served: CacheResult) {
        self.served[served as usize].inc();
    }

    /// Notes a request that was answered from memory, with credentials of that age.
    pub fn hit(&self, age: Duration) {
        self.count(CacheResult::Hit);
        self.hit_age.observe(age.as_secs_f64());
    }

    /// How many requests were served like that.
    pub(crate) fn total(&self, served: CacheResult) -> u64 {
        self.served[served as usize].get()
    }
}

impl Cache {
    /// Makes known to `registry` what is looked up whenever the metrics are asked for.
    ///
    /// # Errors
    ///
    /// When one of the names is taken.
    pub fn register(self: &Arc<Self>, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(FreshnessCollector {
            expiry: expiry_gauge()?,
            overdue: overdue_gauge()?,
            cache: Arc::downgrade(self),
        }))
    }
}

/// How fresh the credentials are, as of the scrape.
struct FreshnessCollector {
    /// Never set, as the next one: they describe the metrics.
    expiry: Gauge,
    overdue: IntGauge,
    cache: Weak<Cache>,
}

fn expiry_gauge() -> prometheus::Result<Gauge> {
    Gauge::new(
        "podcreds_cache_nearest_expiry_seconds",
        "Time until the first of the credentials in memory expires that are asked for (NaN: there are none)",
    )
}

fn overdue_gauge() -> prometheus::Result<IntGauge> {
    IntGauge::new(
        "podcreds_cache_renewals_overdue",
        "Credentials in memory that are asked for and should have been renewed a minute ago",
    )
}

impl Collector for FreshnessCollector {
    fn desc(&self) -> Vec<&Desc> {
        [self.expiry.desc(), self.overdue.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let cache = self.cache.upgrade();
        let nearest = cache.as_ref().and_then(|cache| cache.nearest_expiry());
        let count = cache.map_or(0, |cache| cache.overdue());
        let (Ok(expiry), Ok(overdue)) = (expiry_gauge(), overdue_gauge()) else {
            return Vec::new();
        };
        expiry.set(nearest.map_or(f64::NAN, |left| left.as_secs_f64()));
        overdue.set(i64::try_from(count).unwrap_or(i64::MAX));
        [expiry.collect(), overdue.collect()].concat()
    }
}

/// Registers a metric and hands it back.
fn add<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> prometheus::Result<M> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
